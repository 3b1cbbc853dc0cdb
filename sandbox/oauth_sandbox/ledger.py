"""What was issued, to whom, and what has become of it: codes, token families, tokens.

A family is everything that descends from one login. It is the unit that is revoked (RFC 9700 §4.14.2).
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from contextlib import AbstractContextManager
from dataclasses import dataclass

from . import database
from .accounts import Account
from .clock import Clock

CODE_SECONDS = 600  # RFC 6749 §4.1.2: at most ten minutes


def digest(secret: str) -> bytes:
    """The only form in which a code, a token or a state is kept."""
    return hashlib.sha256(secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class Code:
    """An authorization code; ``family`` is set once it was used."""

    hash: bytes
    account: Account
    client_id: str
    redirect_uri: str
    scope: str
    state_hash: bytes | None
    challenge: str
    expires_at: float
    family: str | None


@dataclass(frozen=True, slots=True)
class Token:
    """An access or refresh token. The person granted ``family_scope``; this token carries ``scope``."""

    hash: bytes
    kind: str
    family: str
    account: Account
    client_id: str
    scope: str
    family_scope: str
    expires_at: float
    spent: bool
    revoked_because: str | None


class Ledger:
    """Reads and writes. Nothing here decides whether a request is right; that is the OAuth server's part."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock

    def transaction(self) -> AbstractContextManager[None]:
        return database.transaction(self._connection)

    def new_person(self) -> Account:
        """An account that nobody has had yet: person-1, person-2, …"""
        (number,) = self._connection.execute("SELECT coalesce(max(person), 0) + 1 FROM accounts").fetchone()
        while self._connection.execute(
            "SELECT 1 FROM accounts WHERE name = ?", (f"person-{number}",)
        ).fetchone():
            number += 1
        account = Account(f"person-{number}")
        self._connection.execute(
            "INSERT INTO accounts VALUES (?, ?, ?)", (account.name, number, self._clock.now())
        )
        return account

    def remember(self, account: Account) -> None:
        self._connection.execute(
            "INSERT OR IGNORE INTO accounts VALUES (?, NULL, ?)", (account.name, self._clock.now())
        )

    def add_code(
        self,
        code: str,
        *,
        account: Account,
        client_id: str,
        redirect_uri: str,
        scope: str,
        state: str | None,
        challenge: str,
    ) -> None:
        self._connection.execute(
            "INSERT INTO codes VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            (
                digest(code),
                account.name,
                client_id,
                redirect_uri,
                scope,
                None if state is None else digest(state),
                challenge,
                self._clock.now() + CODE_SECONDS,
            ),
        )

    def code(self, code: str) -> Code | None:
        row = self._connection.execute(
            "SELECT hash, account, client_id, redirect_uri, scope, state_hash, challenge, expires_at, family"
            " FROM codes WHERE hash = ?",
            (digest(code),),
        ).fetchone()
        return None if row is None else Code(row[0], Account(row[1]), *row[2:])

    def start_family(self, code: Code) -> str:
        """Use the code up: its tokens will belong to the family whose id is returned."""
        family = self.add_family(code.account, code.client_id, code.scope)
        self._connection.execute("UPDATE codes SET family = ? WHERE hash = ?", (family, code.hash))
        return family

    def add_family(self, account: Account, client_id: str, scope: str) -> str:
        """A login that no code led to."""
        family = secrets.token_hex(12)
        self._connection.execute(
            "INSERT INTO families VALUES (?, ?, ?, ?, ?, NULL)",
            (family, account.name, client_id, scope, self._clock.now()),
        )
        return family

    def add_token(self, token: str, *, kind: str, family: str, scope: str, expires_at: float) -> None:
        self._connection.execute(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, 0)",
            (digest(token), kind, family, scope, self._clock.now(), expires_at),
        )

    def token(self, token: str, kind: str | None = None) -> Token | None:
        row = self._connection.execute(
            "SELECT hash, kind, family, account, client_id, tokens.scope, families.scope, expires_at, spent,"
            " revoked_because FROM tokens JOIN families ON id = family WHERE hash = ?",
            (digest(token),),
        ).fetchone()
        if row is None or kind not in (None, row[1]):
            return None
        spent, revoked_because = row[8:]
        return Token(
            hash=row[0],
            kind=row[1],
            family=row[2],
            account=Account(row[3]),
            client_id=row[4],
            scope=row[5],
            family_scope=row[6],
            expires_at=row[7],
            spent=bool(spent),
            revoked_because=revoked_because,
        )

    def spend(self, token: Token) -> None:
        self._connection.execute("UPDATE tokens SET spent = 1 WHERE hash = ?", (token.hash,))

    def revoke_family(self, family: str, because: str) -> bool:
        """Kill a login and all its tokens; the first reason stays. True if it was alive until now."""
        return (
            self._connection.execute(
                "UPDATE families SET revoked_because = ? WHERE id = ? AND revoked_because IS NULL",
                (because, family),
            ).rowcount
            > 0
        )

    def expire(self, kind: str, account: Account | None) -> int:
        """Let tokens of a kind end now, of one account or of all. Returns how many were alive."""
        now = self._clock.now()
        return self._connection.execute(
            "UPDATE tokens SET expires_at = ? WHERE kind = ? AND expires_at > ? AND (? IS NULL OR family IN"
            " (SELECT id FROM families WHERE account = ?))",
            (now, kind, now, account and account.name, account and account.name),
        ).rowcount

    def revoke_account(self, account: Account | None, because: str) -> int:
        """Withdraw the logins of one account or of all. Returns how many were alive."""
        return self._connection.execute(
            "UPDATE families SET revoked_because = ?"
            " WHERE revoked_because IS NULL AND (? IS NULL OR account = ?)",
            (because, account and account.name, account and account.name),
        ).rowcount

    def logins(self, account: Account | None) -> list[dict[str, object]]:
        """Each login, with its usable tokens by the first 16 hex digits of their hash."""
        now = self._clock.now()
        answer: list[dict[str, object]] = []
        for family, name, client_id, scope, created_at, because in self._connection.execute(
            "SELECT * FROM families WHERE ? IS NULL OR account = ? ORDER BY created_at, id",
            (account and account.name, account and account.name),
        ).fetchall():
            live: dict[str, list[str]] = {"access": [], "refresh": []}
            for kind, token in self._connection.execute(
                "SELECT kind, hash FROM tokens"
                " WHERE family = ? AND spent = 0 AND expires_at > ? AND ? IS NULL ORDER BY issued_at",
                (family, now, because),
            ):
                live[kind].append(token.hex()[:16])
            answer.append(
                {
                    "account": name,
                    "client_id": client_id,
                    "scope": scope,
                    "created_at": created_at,
                    "revoked_because": because,
                    "live_access_tokens": live["access"],
                    "live_refresh_tokens": live["refresh"],
                }
            )
        return answer

    def forget_everything(self) -> None:
        with self.transaction():
            for table in ("tokens", "codes", "families", "accounts", "federation_rules", "assertions"):
                self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 (names of our own, see above)

    def close(self) -> None:
        self._connection.close()
