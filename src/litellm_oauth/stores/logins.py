"""Pending logins in PostgreSQL; see ``stores.LoginStore``."""

# ruff: noqa: S608 -- only constants of this package go into the texts; values are always bound

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from .database import Database
from .postgres import AUDIT, LOGINS, note_values
from .rows import NewLogin, Note, PendingLogin

_NOTE = f"""INSERT INTO {AUDIT} (actor, origin, action, user_id, outcome, detail)
  SELECT %(actor)s, %(origin)s, %(action)s, %(user)s, %(outcome)s, %(detail)s"""
# The rows that make room are picked before the new one is there, so that it is never among them; nor is one
# whose code is being exchanged just now.
_ADD = f"""
WITH surplus AS (
  DELETE FROM {LOGINS} WHERE login_id IN (
    SELECT login_id FROM {LOGINS} WHERE user_id = %(user)s ORDER BY created_at DESC OFFSET %(keep)s - 1)
  AND (claimed_until IS NULL OR claimed_until <= clock_timestamp())),
added AS (
  INSERT INTO {LOGINS} (state_hash, user_id, verifier_encrypted, issuer, redirect_uri, expires_at, created_by)
  VALUES (%(state_hash)s, %(user)s, %(verifier)s, %(issuer)s, %(redirect_uri)s,
    clock_timestamp() + make_interval(secs => %(lifetime)s), %(created_by)s)
  RETURNING expires_at),
noted AS ({_NOTE} FROM added)
SELECT extract(epoch FROM expires_at)::float8 AS expires_at FROM added"""
_OF_USER = f"""
SELECT login_id, user_id, state_hash, verifier_encrypted, issuer, redirect_uri,
  expires_at <= clock_timestamp() AS expired, used_at IS NOT NULL AS used
FROM {LOGINS} WHERE user_id = %(user)s ORDER BY created_at DESC, login_id"""
_CLAIM = f"""
UPDATE {LOGINS} SET claimed_by = %(claimed_by)s,
  claimed_until = clock_timestamp() + make_interval(secs => %(lease)s)
WHERE login_id = %(login)s AND used_at IS NULL AND expires_at > clock_timestamp()
  AND (claimed_until IS NULL OR claimed_until <= clock_timestamp())"""
_RELEASE = f"""
UPDATE {LOGINS} SET claimed_by = NULL, claimed_until = NULL
WHERE login_id = %(login)s AND claimed_by = %(claimed_by)s"""
_USE_UP = f"""
WITH used AS (
  UPDATE {LOGINS} SET used_at = clock_timestamp(), verifier_encrypted = NULL,
    claimed_by = NULL, claimed_until = NULL
  WHERE login_id = %(login)s AND claimed_by = %(claimed_by)s RETURNING 1)
{_NOTE} FROM used"""
_PURGE = f"DELETE FROM {LOGINS} WHERE expires_at < clock_timestamp() - make_interval(secs => %(remember)s)"


class PostgresLogins:
    """``stores.LoginStore`` over the pool."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, login: NewLogin, note: Note, keep: int) -> float:
        row = await self._database.one(
            _ADD,
            {
                **note_values(note),
                "keep": keep,
                "state_hash": login.state_hash,
                "verifier": login.verifier,
                "issuer": login.issuer,
                "redirect_uri": login.redirect_uri,
                "lifetime": login.lifetime,
                "created_by": login.created_by,
            },
        )
        assert row is not None  # noqa: S101 -- an INSERT of VALUES returns its row
        return float(row["expires_at"])

    async def of_user(self, user: str) -> Sequence[PendingLogin]:
        rows = await self._database.all(_OF_USER, {"user": user})
        return [
            PendingLogin(
                login_id=row["login_id"],
                user_id=row["user_id"],
                state_hash=row["state_hash"],
                verifier=row["verifier_encrypted"],
                issuer=row["issuer"],
                redirect_uri=row["redirect_uri"],
                expired=row["expired"],
                used=row["used"],
            )
            for row in rows
        ]

    async def claim(self, login_id: UUID, claimed_by: UUID, lease: float) -> bool:
        values = {"login": login_id, "claimed_by": claimed_by, "lease": lease}
        return await self._database.run(_CLAIM, values) == 1

    async def release(self, login_id: UUID, claimed_by: UUID) -> None:
        await self._database.run(_RELEASE, {"login": login_id, "claimed_by": claimed_by})

    async def use_up(self, login_id: UUID, claimed_by: UUID, note: Note) -> None:
        values = {**note_values(note), "login": login_id, "claimed_by": claimed_by}
        await self._database.run(_USE_UP, values)

    async def purge(self, remember: float) -> int:
        return await self._database.run(_PURGE, {"remember": remember})
