"""What really happened, from those who must know: the provider's ledger, and every state of the store.

Tokens are named by their fingerprints, as the provider's records name them.
"""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from litellm_oauth.cipher import Cipher
from litellm_oauth.vault import REFRESH
from support.postgres import TOKENS, TestDatabase
from support.sandbox import SandboxProvider, fingerprint
from support.service import KEY

REUSE = "refresh_token_reuse"
BY_CLIENT = "revoked_by_client"
_KEEP = f"""
CREATE SCHEMA chaos;
CREATE TABLE chaos.states (
  number bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
  user_id text, generation bigint, status text, refresh_token text, last_error text, expires_at timestamptz);
CREATE FUNCTION chaos.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO chaos.states (user_id, generation, status, refresh_token, last_error, expires_at)
  VALUES (NEW.user_id, NEW.generation, NEW.status, NEW.refresh_token_encrypted, NEW.last_error,
    NEW.expires_at);
  RETURN NULL; END $$;
CREATE TRIGGER chaos AFTER INSERT OR UPDATE ON {TOKENS} FOR EACH ROW EXECUTE FUNCTION chaos.keep();
"""


@dataclass(frozen=True, slots=True)
class Issued:
    """A refresh token as the provider's ledger has it."""

    token: str
    at: float
    spent: bool


@dataclass(frozen=True, slots=True)
class Family:
    """One login at the provider, and its refresh tokens in their order."""

    account: str
    revoked_because: str | None
    tokens: tuple[Issued, ...]

    @property
    def first(self) -> str:
        """The refresh token that the login itself brought; it names the family."""
        return self.tokens[0].token

    @property
    def last(self) -> str:
        """Its newest refresh token."""
        return self.tokens[-1].token


@dataclass(frozen=True, slots=True)
class State:
    """A state that a user's row was in."""

    at: float
    user: str
    generation: int
    status: str
    token: str | None
    last_error: str | None
    expires_at: float | None

    @property
    def reason(self) -> str | None:
        """The stable word of ``last_error``."""
        return self.last_error.partition(":")[0] if self.last_error else None


def families(sandbox: SandboxProvider) -> list[Family]:
    """All logins of the provider's ledger, oldest first."""
    path = sandbox.folder / "sandbox.sqlite3"
    tokens: dict[str, list[Issued]] = {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
        for family, digest, at, spent in ledger.execute(
            "SELECT family, hash, issued_at, spent FROM tokens WHERE kind = 'refresh' "
            "ORDER BY spent DESC, issued_at"
        ):
            tokens.setdefault(family, []).append(Issued(digest.hex()[:16], at, bool(spent)))
        logins = ledger.execute("SELECT id, account, revoked_because FROM families ORDER BY created_at")
        return [Family(account, because, tuple(tokens[family])) for family, account, because in logins]


@contextmanager
def kept_states(database: TestDatabase) -> Iterator[None]:
    """Every state that a row is in is kept, by the database itself, until the block ends."""
    database.query(_KEEP)
    try:
        yield
    finally:
        database.let_in()
        database.query("DROP SCHEMA chaos CASCADE")


def states(database: TestDatabase) -> list[State]:
    """Every state that any row was in, in order."""
    cipher = Cipher(KEY)

    def opened(sealed: str | None, user: str) -> str | None:
        return fingerprint(cipher.decrypt(sealed, user=user, field=REFRESH)) if sealed else None

    return [
        State(
            at=row["at"].timestamp(),
            user=row["user_id"],
            generation=row["generation"],
            status=row["status"],
            token=opened(row["refresh_token"], row["user_id"]),
            last_error=row["last_error"],
            expires_at=row["expires_at"].timestamp() if row["expires_at"] is not None else None,
        )
        for row in database.query("SELECT * FROM chaos.states ORDER BY number")
    ]
