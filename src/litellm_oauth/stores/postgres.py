"""The authority: token rows and the audit table in PostgreSQL. One statement a step, the database's clock.

A step and its line in the audit table are one statement, so that neither is ever without the other.
"""

# ruff: noqa: S608 -- only constants of this package go into the texts; values are always bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg import Rollback
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from ..backoff import CLOCK_SLACK, LONGEST_PAUSE, LONGEST_REST
from ..results import Actor
from ..tokens import showable
from .database import Database
from .rows import (
    LONGEST_LEASE,
    Attempt,
    Claim,
    Failure,
    Note,
    PendingLogin,
    ProviderState,
    RowStatus,
    Sealed,
    TokenRow,
    Tombstone,
)

TOKENS = 'claude_oauth."LiteLLM_ClaudeOAuthTokens"'
LOGINS = 'claude_oauth."LiteLLM_ClaudeOAuthLogins"'
AUDIT = 'claude_oauth."LiteLLM_ClaudeOAuthAudit"'
# Others wake those who wait for them (see ``listener``); a notification may be lost all the same.
LOOK_AGAIN = 1.0
RESTS = "claude_oauth.provider_rests"

_TODAY = "(clock_timestamp() AT TIME ZONE 'UTC')::date"
_EPOCH = "extract(epoch FROM t.{0})::float8 AS {0}"


def _believed(moment: str, longest: str) -> str:
    """A moment, or NULL where it is too far ahead to be meant: that was written under a wrong clock."""
    return f"CASE WHEN {moment} <= clock_timestamp() + make_interval(secs => {longest}) THEN {moment} END"


_LEASE_UNTIL = _believed("t.lease_until", f"{LONGEST_LEASE}")
_RESTS_UNTIL = _believed("r.rests_until", f"{LONGEST_PAUSE}")
# What ``backoff.next_attempt_at`` says of a row that was read: this is for rows that are looked for.
_LONGEST_WAIT = f"CASE WHEN t.last_error IS NULL THEN {LONGEST_REST + CLOCK_SLACK} ELSE {LONGEST_PAUSE} END"
_NEXT_ATTEMPT_AT = f"""CASE WHEN t.last_error IS NOT NULL
    AND t.next_attempt_at <= t.expires_at + make_interval(secs => {CLOCK_SLACK}) THEN t.next_attempt_at
  ELSE {_believed("t.next_attempt_at", _LONGEST_WAIT)} END"""
_COLUMNS = f"""t.user_id, t.access_token_encrypted, t.refresh_token_encrypted, t.scopes, t.account,
  t.client_id, t.generation, t.status, t.last_error, t.attempt_id, t.attempt_host, t.refresh_count,
  CASE WHEN t.forced_on = {_TODAY} THEN t.forced_count ELSE 0 END AS forced_today,
  {_EPOCH.format("expires_at")}, {_EPOCH.format("refresh_expires_at")}, {_EPOCH.format("next_attempt_at")},
  {_EPOCH.format("updated_at")}, {_EPOCH.format("logged_in_at")},
  extract(epoch FROM clock_timestamp())::float8 AS read_at,
  greatest(0, coalesce(extract(epoch FROM {_LEASE_UNTIL} - clock_timestamp()), 0))::float8 AS leased_for,
  t.attempt_id IS NOT NULL AND coalesce({_LEASE_UNTIL} <= clock_timestamp(), true) AS in_doubt,
  (SELECT jsonb_build_object('failures', r.failures, 'reason', r.reason, 'rests_for',
     greatest(0, coalesce(extract(epoch FROM {_RESTS_UNTIL} - clock_timestamp()), 0)))
   FROM {RESTS} r WHERE r.token_url = %(token_url)s) AS provider"""

_IDLE = f"coalesce({_LEASE_UNTIL} <= clock_timestamp(), true)"
_SPENDABLE = f"""t.status = 'active' AND t.refresh_token_encrypted IS NOT NULL AND {_IDLE}
  AND (t.attempt_id IS NULL OR (%(doubtful)s AND t.expires_at <= clock_timestamp()
       -- What this host left behind is settled by its journal first.
       AND t.attempt_host IS DISTINCT FROM %(host)s))
  AND NOT EXISTS (SELECT FROM {RESTS} r
                  WHERE r.token_url = %(token_url)s AND {_RESTS_UNTIL} > clock_timestamp())"""
_TAKE_LEASE = f"""lease_owner = %(owner)s, attempt_id = %(attempt)s, attempt_host = %(host)s,
  lease_until = clock_timestamp() + make_interval(secs => %(lease)s),
  forced_on = CASE WHEN %(forced)s THEN {_TODAY} ELSE t.forced_on END,
  forced_count = CASE WHEN NOT %(forced)s THEN t.forced_count
                 WHEN t.forced_on = {_TODAY} THEN t.forced_count + 1 ELSE 1 END"""
_END_ATTEMPT = "lease_owner = NULL, lease_until = NULL, attempt_id = NULL, attempt_host = NULL"
_OWN_ATTEMPT = "t.user_id = %(user)s AND t.generation = %(generation)s AND t.attempt_id = %(attempt)s"
_UPDATED = "updated_at = clock_timestamp(), updated_by = %(actor)s"
_WAIT = "next_attempt_at = clock_timestamp() + make_interval(secs => %(wait)s)"
_SEALED = """access_token_encrypted = %(access)s, refresh_token_encrypted = %(refresh)s,
  expires_at = to_timestamp(%(expires_at)s), refresh_expires_at = to_timestamp(%(refresh_expires_at)s),
  scopes = %(scopes)s, account = %(account)s, client_id = %(issued_to)s, status = 'active', last_error = NULL,
  next_attempt_at = clock_timestamp() + make_interval(secs => %(rest)s)"""
_NOTE = f"""INSERT INTO {AUDIT} (actor, origin, action, user_id, outcome, detail, generation)
  SELECT %(actor)s, %(origin)s, %(action)s, %(user)s, %(outcome)s, %(detail)s, generation"""

_LOAD = f"SELECT {_COLUMNS} FROM {TOKENS} t WHERE t.user_id = %(user)s"
_PAGE = (
    f"""SELECT {_COLUMNS} FROM {TOKENS} t WHERE t.user_id > %(after)s ORDER BY t.user_id LIMIT %(limit)s"""
)
# A token in doubt is spent only together with its line in the audit.
_NOTE_DOUBT = f"""INSERT INTO {AUDIT} (actor, origin, action, user_id, outcome, detail, generation)
  SELECT %(actor)s, %(origin)s, 'refresh', user_id, 'in_doubt_retry', doubted_host, generation
  FROM claimed WHERE doubted"""
_CLAIM = f"""
WITH before AS (SELECT user_id, attempt_host, attempt_id IS NOT NULL AS doubted FROM {TOKENS}
                WHERE user_id = %(user)s FOR UPDATE),
claimed AS (
  UPDATE {TOKENS} t SET {_TAKE_LEASE} FROM before b
  WHERE t.user_id = b.user_id AND t.generation = %(generation)s AND {_SPENDABLE}
    -- Only the row that was judged: a wait may have begun since.
    AND t.last_error IS NOT DISTINCT FROM %(last_error)s
    AND extract(epoch FROM t.next_attempt_at)::float8 IS NOT DISTINCT FROM %(next_attempt_at)s
  RETURNING {_COLUMNS}, b.doubted, b.attempt_host AS doubted_host),
noted AS ({_NOTE_DOUBT})
SELECT * FROM claimed"""
# statement_timestamp, since the index cannot help with a clock that moves while it is searched.
_DUE = f"""
SELECT {_COLUMNS} FROM {TOKENS} t
WHERE {_SPENDABLE} AND t.expires_at <= statement_timestamp() + make_interval(secs => %(buffer)s)
  AND coalesce({_NEXT_ATTEMPT_AT} <= clock_timestamp(), true)
  AND coalesce(t.client_id = %(client_id)s, true)
  AND (t.expires_at, t.user_id) > (to_timestamp(%(after_at)s), %(after)s)
ORDER BY t.expires_at, t.user_id LIMIT %(limit)s"""
_RENEW = f"""
UPDATE {TOKENS} t SET lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
WHERE {_OWN_ATTEMPT} AND t.lease_owner = %(owner)s"""
# The provider gave something: its failures are over. A rest that it asked for meanwhile is not.
_GIVEN = f"""UPDATE {RESTS} r SET failures = 0, rests_until = NULL, reason = NULL,
    updated_at = clock_timestamp()
  WHERE r.token_url = %(token_url)s AND r.failures > 0 AND EXISTS (SELECT FROM saved)
    AND coalesce({_RESTS_UNTIL} <= clock_timestamp(), true)"""


def _save_where(condition: str) -> str:
    return f"""
WITH saved AS (
  UPDATE {TOKENS} t SET {_SEALED}, generation = t.generation + 1, refresh_count = t.refresh_count + 1,
    {_END_ATTEMPT}, {_UPDATED}
  WHERE {condition} RETURNING {_COLUMNS}),
given AS ({_GIVEN}),
noted AS ({_NOTE} FROM saved)
SELECT * FROM saved"""


_SAVE = _save_where(_OWN_ATTEMPT)
_REPLAY = _save_where("t.user_id = %(user)s AND t.generation = %(generation)s AND t.status <> 'logged_out'")
_REST = f"""
INSERT INTO {RESTS} AS r (token_url, failures, rests_until, reason)
  SELECT %(token_url)s, 1, clock_timestamp() + make_interval(secs => %(rest)s), %(last_error)s
  FROM failed WHERE %(counts)s
  ON CONFLICT (token_url) DO UPDATE SET failures = r.failures + 1, updated_at = clock_timestamp(),
    rests_until = greatest({_RESTS_UNTIL}, excluded.rests_until), reason = excluded.reason"""
_FAIL = f"""
WITH failed AS (
  UPDATE {TOKENS} t SET last_error = %(last_error)s, {_WAIT}, {_END_ATTEMPT}, {_UPDATED}
  WHERE {_OWN_ATTEMPT} RETURNING t.generation),
rested AS ({_REST})
{_NOTE} FROM failed"""
_ABANDON = f"UPDATE {TOKENS} t SET {_END_ATTEMPT} WHERE t.user_id = %(user)s AND t.attempt_id = %(attempt)s"
_CONDEMN = f"""
WITH condemned AS (
  UPDATE {TOKENS} t SET status = 'reauth_required', last_error = %(last_error)s, next_attempt_at = NULL,
    {_END_ATTEMPT}, {_UPDATED}
  WHERE {_OWN_ATTEMPT} AND t.refresh_token_encrypted = %(spent)s RETURNING t.generation)
{_NOTE} FROM condemned"""
_COOL = f"""
WITH cooled AS (
  UPDATE {TOKENS} t SET last_error = %(last_error)s, {_WAIT}, {_UPDATED}
  WHERE t.user_id = %(user)s AND t.generation = %(generation)s AND t.attempt_id IS NULL
  RETURNING t.generation)
{_NOTE} FROM cooled"""


def _put_login(*, source: str = "", condition: str = "") -> str:
    """Writes tokens as the user's login. ``least`` leaves NULL out: an unknown date of consent means now."""
    return f"""
  INSERT INTO {TOKENS} AS t (user_id, access_token_encrypted, refresh_token_encrypted, expires_at,
    refresh_expires_at, scopes, account, client_id, created_by, updated_by, logged_in_at)
  SELECT %(user)s, %(access)s, %(refresh)s, to_timestamp(%(expires_at)s),
    to_timestamp(%(refresh_expires_at)s), %(scopes)s, %(account)s, %(issued_to)s, %(actor)s, %(actor)s,
    least(to_timestamp(%(logged_in_at)s), clock_timestamp()) {source}
  ON CONFLICT (user_id) DO UPDATE SET {_SEALED}, generation = t.generation + 1, {_END_ATTEMPT}, {_UPDATED},
    logged_in_at = excluded.logged_in_at {condition}
  RETURNING {_COLUMNS}"""


_LOG_IN = f"""
WITH used AS (
  UPDATE {LOGINS} SET used_at = clock_timestamp(), verifier_encrypted = NULL,
    claimed_by = NULL, claimed_until = NULL
  WHERE login_id = %(login)s AND claimed_by = %(claimed_by)s AND used_at IS NULL RETURNING 1),
saved AS ({_put_login(source="FROM used")}),
noted AS ({_NOTE} FROM saved)
SELECT * FROM saved"""
# Where a generation is to be replaced, its row has to be there, and is held so that it stays.
_IMPORT = f"""
WITH there AS (SELECT 1 FROM {TOKENS} WHERE user_id = %(user)s FOR UPDATE),
saved AS ({
    _put_login(
        source="WHERE coalesce(%(over)s::bigint, 0) = 0 OR EXISTS (SELECT FROM there)",
        condition="WHERE coalesce(t.generation = %(over)s, true)",
    )
}),
noted AS ({_NOTE} FROM saved)
SELECT * FROM saved"""
_EMPTIED = """access_token_encrypted = NULL, refresh_token_encrypted = NULL, expires_at = NULL,
    refresh_expires_at = NULL, scopes = '{}', account = NULL, client_id = NULL, status = 'logged_out',
    last_error = NULL, next_attempt_at = NULL, logged_in_at = NULL"""
# Whoever is logged out does not come back with a code that was under way.
_END_LOGINS = f"""UPDATE {LOGINS} SET used_at = clock_timestamp(), verifier_encrypted = NULL,
    claimed_by = NULL, claimed_until = NULL
  WHERE user_id = %(user)s AND used_at IS NULL"""
# Logins first, then the tokens, as _LOG_IN does it: in another order the two could wait for each other.
_LOG_OUT = f"""
WITH waiting AS ({_END_LOGINS} RETURNING 1),
before AS (SELECT user_id, access_token_encrypted, refresh_token_encrypted FROM {TOKENS}
           WHERE user_id = %(user)s AND (SELECT count(*) FROM waiting) >= 0 FOR UPDATE),
gone AS (
  UPDATE {TOKENS} t SET {_EMPTIED}, generation = t.generation + 1, {_END_ATTEMPT}, {_UPDATED}
  FROM before b WHERE t.user_id = b.user_id AND t.status <> 'logged_out'
  RETURNING t.generation, b.access_token_encrypted, b.refresh_token_encrypted),
noted AS ({_NOTE} FROM gone)
SELECT * FROM gone"""
_NEXT_DUE = f"""
SELECT extract(epoch FROM min(greatest(t.expires_at - make_interval(secs => %(buffer)s),
  {_NEXT_ATTEMPT_AT}, CASE WHEN t.attempt_id IS NOT NULL THEN greatest(t.expires_at, {_LEASE_UNTIL}) END,
  (SELECT {_RESTS_UNTIL} FROM {RESTS} r WHERE r.token_url = %(token_url)s)))
  - clock_timestamp())::float8 AS seconds
FROM {TOKENS} t WHERE t.status = 'active' AND t.refresh_token_encrypted IS NOT NULL
  AND coalesce(t.client_id = %(client_id)s, true)"""
# Whoever is locked is being written to now, and is touched the next time: nobody waits for anybody here.
_TOUCH = f"""
WITH used AS (
  SELECT t.user_id, u.at FROM {TOKENS} t
  JOIN unnest(%(users)s::text[], %(times)s::float8[]) AS u (user_id, at) USING (user_id)
  FOR UPDATE OF t SKIP LOCKED)
UPDATE {TOKENS} t SET last_used = greatest(t.last_used, to_timestamp(u.at))
FROM used u WHERE t.user_id = u.user_id"""

_LEAVE = f"""
UPDATE {TOKENS} t SET {_EMPTIED}, generation = t.generation + 1, {_UPDATED}
WHERE t.user_id = %(old)s AND t.generation = %(old_generation)s AND t.attempt_id IS NULL
  AND t.status <> 'logged_out'"""
_ARRIVE = f"""
WITH arrived AS (
  INSERT INTO {TOKENS} AS t (user_id, access_token_encrypted, refresh_token_encrypted, expires_at,
    refresh_expires_at, scopes, account, client_id, generation, status, last_error, next_attempt_at,
    refresh_count, logged_in_at, created_by, updated_by)
  VALUES (%(user)s, %(access)s, %(refresh)s, to_timestamp(%(expires_at)s),
    to_timestamp(%(refresh_expires_at)s), %(scopes)s, %(account)s, %(issued_to)s, %(generation)s + 1,
    %(status)s, %(last_error)s, to_timestamp(%(next_attempt_at)s), %(refresh_count)s,
    to_timestamp(%(logged_in_at)s), %(actor)s, %(actor)s)
  ON CONFLICT (user_id) DO UPDATE SET access_token_encrypted = excluded.access_token_encrypted,
    refresh_token_encrypted = excluded.refresh_token_encrypted, expires_at = excluded.expires_at,
    refresh_expires_at = excluded.refresh_expires_at, scopes = excluded.scopes, account = excluded.account,
    client_id = excluded.client_id,
    generation = greatest(t.generation + 1, excluded.generation), status = excluded.status,
    last_error = excluded.last_error, next_attempt_at = excluded.next_attempt_at,
    refresh_count = excluded.refresh_count, logged_in_at = excluded.logged_in_at, {_UPDATED}
  WHERE t.status = 'logged_out'
  RETURNING {_COLUMNS}),
noted AS ({_NOTE} FROM arrived)
SELECT * FROM arrived"""
# What a lower tier kept while this one was away, or was put back to an older state.
_RESTORE = f"""
WITH restored AS (
  INSERT INTO {TOKENS} AS t (user_id, access_token_encrypted, refresh_token_encrypted, expires_at,
    refresh_expires_at, scopes, account, client_id, generation, status, last_error, next_attempt_at,
    refresh_count, logged_in_at, created_by, updated_by)
  SELECT %(user)s, %(access)s, %(refresh)s, to_timestamp(%(expires_at)s),
    to_timestamp(%(refresh_expires_at)s), %(scopes)s, %(account)s, %(issued_to)s, %(generation)s, %(status)s,
    %(last_error)s, to_timestamp(%(next_attempt_at)s), %(refresh_count)s, to_timestamp(%(logged_in_at)s),
    %(actor)s, %(actor)s
  WHERE %(missing)s OR EXISTS (SELECT FROM {TOKENS} WHERE user_id = %(user)s)
  ON CONFLICT (user_id) DO UPDATE SET access_token_encrypted = excluded.access_token_encrypted,
    refresh_token_encrypted = excluded.refresh_token_encrypted, expires_at = excluded.expires_at,
    refresh_expires_at = excluded.refresh_expires_at, scopes = excluded.scopes, account = excluded.account,
    client_id = excluded.client_id,
    generation = excluded.generation, status = excluded.status, last_error = excluded.last_error,
    next_attempt_at = excluded.next_attempt_at, refresh_count = excluded.refresh_count,
    logged_in_at = excluded.logged_in_at, {_END_ATTEMPT}, {_UPDATED}
  WHERE t.generation < excluded.generation
  RETURNING {_COLUMNS}),
noted AS ({_NOTE} FROM restored)
SELECT * FROM restored"""
_UNFINISHED = f"""SELECT {_COLUMNS} FROM {TOKENS} t
WHERE t.attempt_host = %(host)s AND t.attempt_id IS NOT NULL ORDER BY t.user_id LIMIT %(limit)s"""
_ADD_KEY_CHECK = """
INSERT INTO claude_oauth.key_checks (key_id, check_value) SELECT %(key_id)s, %(check_value)s
WHERE NOT EXISTS (SELECT FROM claude_oauth.key_checks WHERE key_id <> ALL (%(known)s))
ON CONFLICT (key_id) DO UPDATE SET key_id = excluded.key_id"""


class PostgresTokens:
    """``stores.TokenStore`` over the pool."""

    source = "database"

    def __init__(self, database: Database, token_url: str, client_id: str) -> None:
        """``token_url``: the token endpoint, whose failures hold back all who use it. ``client_id``: whose
        refresh tokens can be due."""
        self._database = database
        self._token_url = token_url
        self._client_id = client_id

    @property
    def down(self) -> bool:
        return self._database.down

    @property
    def steady(self) -> bool:
        return self._database.steady

    @property
    def look_again(self) -> float:
        return LOOK_AGAIN

    async def now(self) -> float:
        row = await self._database.one("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
        assert row is not None  # noqa: S101 -- a SELECT without FROM has one row
        return float(row["now"])

    async def load(self, user: str) -> TokenRow | None:
        return await self._row(_LOAD, {"user": user})

    async def page(self, after: str | None, limit: int) -> Sequence[TokenRow]:
        rows = await self._all(_PAGE, {"after": after or "", "limit": limit})
        return [_token_row(row) for row in rows]

    async def unfinished(self, host: str, limit: int) -> Sequence[TokenRow]:
        rows = await self._all(_UNFINISHED, {"host": host, "limit": limit})
        return [_token_row(row) for row in rows]

    async def claim(
        self,
        row: TokenRow,
        attempt: Attempt,
        lease: float,
        actor: Actor,
        *,
        doubtful: bool = False,
        forced: bool = False,
    ) -> Claim | None:
        own = {"user": row.user_id, "generation": row.generation, "doubtful": doubtful, "forced": forced}
        judged = {"last_error": row.last_error, "next_attempt_at": row.next_attempt_at}
        values = {**own, **judged, **_lease(attempt, lease), **_actor(actor)}
        return _claim(await self._one(_CLAIM, values), attempt)

    async def due(
        self, buffer: float, after: TokenRow | None, limit: int, host: str, *, doubtful: bool
    ) -> Sequence[TokenRow]:
        start = (
            {"after": after.user_id, "after_at": after.expires_at} if after else {"after": "", "after_at": 0}
        )
        values = {"buffer": buffer, "limit": limit, "host": host, "doubtful": doubtful, **start}
        values["client_id"] = self._client_id
        return [_token_row(row) for row in await self._all(_DUE, values)]

    async def renew(self, claim: Claim, lease: float) -> bool:
        values = {**_own(claim), **_lease(claim.attempt, lease)}
        return await self._database.run(_RENEW, values) == 1

    async def save(self, claim: Claim, sealed: Sealed, note: Note) -> TokenRow | None:
        return await self._row(_SAVE, {**note_values(note), **_own(claim), **_sealed(sealed)})

    async def replay(self, claim: Claim, sealed: Sealed, note: Note) -> TokenRow | None:
        return await self._row(_REPLAY, {**note_values(note), **_own(claim), **_sealed(sealed)})

    async def restore(self, row: TokenRow, note: Note, *, missing: bool) -> TokenRow | None:
        return await self._row(_RESTORE, {**note_values(note), **_whole(row), "missing": missing})

    async def mirror(self, row: TokenRow) -> bool:
        return True

    async def fail(self, claim: Claim, failure: Failure, note: Note) -> bool:
        values = {**note_values(note), **_own(claim), **_failure(failure)}
        return await self._run(_FAIL, values) == 1

    async def abandon(self, row: TokenRow, attempt: Attempt) -> None:
        await self._database.run(_ABANDON, {"user": row.user_id, "attempt": attempt.attempt_id})

    async def condemn(self, claim: Claim, last_error: str, note: Note) -> bool:
        spent = {"spent": claim.row.refresh_token, "last_error": last_error}
        return await self._database.run(_CONDEMN, {**note_values(note), **_own(claim), **spent}) == 1

    async def cool(self, row: TokenRow, failure: Failure, note: Note) -> bool:
        values = {**note_values(note), "generation": row.generation, **_failure(failure)}
        return await self._database.run(_COOL, values) == 1

    async def log_in(
        self, login: PendingLogin, claimed_by: UUID, sealed: Sealed, note: Note
    ) -> TokenRow | None:
        claimed = {"login": login.login_id, "claimed_by": claimed_by, "logged_in_at": None}
        return await self._row(_LOG_IN, {**note_values(note), **claimed, **_sealed(sealed)})

    async def import_login(
        self, user: str, sealed: Sealed, note: Note, *, logged_in_at: float | None, over: int | None
    ) -> TokenRow | None:
        values = {"user": user, "logged_in_at": logged_in_at, "over": over}
        return await self._row(_IMPORT, {**note_values(note), **_sealed(sealed), **values})

    async def rename(self, row: TokenRow, to: TokenRow, note: Note) -> TokenRow | None:
        values = {**note_values(note), **_whole(to), "token_url": self._token_url}
        both = {**values, "old": row.user_id, "old_generation": row.generation}
        async with self._database.connection() as connection, connection.transaction():
            left = await connection.execute(_LEAVE, both)
            arrived = await (await connection.execute(_ARRIVE, both)).fetchone()
            if left.rowcount == 1 and arrived is not None:
                return _token_row(arrived)
            raise Rollback
        return None

    async def log_out(self, user: str, note: Note) -> Tombstone | None:
        row = await self._database.one(_LOG_OUT, note_values(note))
        if row is None:
            return None
        return Tombstone(row["generation"], row["access_token_encrypted"], row["refresh_token_encrypted"])

    async def next_due_in(self, buffer: float) -> float | None:
        row = await self._one(_NEXT_DUE, {"buffer": buffer, "client_id": self._client_id})
        return row["seconds"] if row is not None else None

    async def touch(self, last_used: Mapping[str, float]) -> None:
        await self._database.run(_TOUCH, {"users": list(last_used), "times": list(last_used.values())})

    async def forward_notes(self) -> None:
        """Nothing: there is no tier below."""

    async def write_note(self, note: Note) -> None:
        await self._database.run(f"{_NOTE} FROM (SELECT NULL::bigint AS generation) g", note_values(note))

    async def key_checks(self) -> Mapping[str, str]:
        rows = await self._database.all("SELECT key_id, check_value FROM claude_oauth.key_checks")
        return {row["key_id"]: row["check_value"] for row in rows}

    async def add_key_check(self, key_id: str, check_value: str, known: Sequence[str]) -> bool:
        values = {"key_id": key_id, "check_value": check_value, "known": [*known, key_id]}
        async with self._database.connection() as connection, connection.transaction():
            # Two gateways that start at the same moment with different keys: the first one decides.
            await connection.execute("LOCK TABLE claude_oauth.key_checks IN SHARE ROW EXCLUSIVE MODE")
            cursor = await connection.execute(_ADD_KEY_CHECK, values)
            return cursor.rowcount == 1

    async def _one(self, query: str, values: Mapping[str, Any]) -> DictRow | None:
        return await self._database.one(query, {**values, "token_url": self._token_url})

    async def _all(self, query: str, values: Mapping[str, Any]) -> Sequence[DictRow]:
        return await self._database.all(query, {**values, "token_url": self._token_url})

    async def _run(self, query: str, values: Mapping[str, Any]) -> int:
        return await self._database.run(query, {**values, "token_url": self._token_url})

    async def _row(self, query: str, values: Mapping[str, Any]) -> TokenRow | None:
        row = await self._one(query, values)
        return None if row is None else _token_row(row)


def note_values(note: Note) -> dict[str, Any]:
    """A note as the values of ``_NOTE``; ``user`` is the user the whole statement is about."""
    return {
        **_actor(note.actor),
        "action": note.action,
        "user": note.user_id,
        "outcome": note.outcome,
        "detail": note.detail,
    }


def _actor(actor: Actor) -> dict[str, Any]:
    return {"actor": actor.name, "origin": actor.origin}


def _lease(attempt: Attempt, lease: float) -> dict[str, Any]:
    return {"owner": attempt.owner, "attempt": attempt.attempt_id, "host": attempt.host, "lease": lease}


def _own(claim: Claim) -> dict[str, Any]:
    return {
        "user": claim.row.user_id,
        "generation": claim.row.generation,
        "attempt": claim.attempt.attempt_id,
    }


def _sealed(sealed: Sealed) -> dict[str, Any]:
    return {
        "access": sealed.access_token,
        "refresh": sealed.refresh_token,
        "expires_at": sealed.expires_at,
        "refresh_expires_at": sealed.refresh_expires_at,
        "scopes": list(sealed.scopes),
        "account": Jsonb(dict(sealed.account)) if sealed.account is not None else None,
        "issued_to": sealed.client_id,
        "rest": sealed.rest,
    }


def _whole(row: TokenRow) -> dict[str, Any]:
    return {
        "access": row.access_token,
        "refresh": row.refresh_token,
        "expires_at": row.expires_at,
        "refresh_expires_at": row.refresh_expires_at,
        "scopes": list(row.scopes),
        "account": Jsonb(dict(row.account)) if row.account is not None else None,
        "issued_to": row.client_id,
        "generation": row.generation,
        "status": row.status.value,
        "last_error": row.last_error,
        "next_attempt_at": row.next_attempt_at,
        "refresh_count": row.refresh_count,
        "logged_in_at": row.logged_in_at,
    }


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "last_error": failure.last_error,
        "wait": failure.wait,
        "rest": failure.rest,
        "counts": failure.counts,
    }


def _claim(row: DictRow | None, attempt: Attempt) -> Claim | None:
    if row is None:
        return None
    return Claim(_token_row(row), attempt, (row["doubted_host"] or "unknown") if row["doubted"] else None)


def _token_row(row: DictRow) -> TokenRow:
    """A row of ``_COLUMNS``; what people wrote into it by hand and no one can use counts as not there."""
    return TokenRow(
        user_id=row["user_id"],
        access_token=row["access_token_encrypted"],
        refresh_token=row["refresh_token_encrypted"],
        expires_at=_moment(row["expires_at"]),
        refresh_expires_at=_moment(row["refresh_expires_at"]),
        scopes=tuple(row["scopes"]),
        account=row["account"] if isinstance(row["account"], dict) else None,
        generation=row["generation"],
        status=RowStatus(row["status"]),
        last_error=row["last_error"],
        # As it is: a claim compares it, and whoever waits for it asks ``backoff``.
        next_attempt_at=row["next_attempt_at"],
        attempt_id=row["attempt_id"],
        attempt_host=row["attempt_host"],
        refresh_count=row["refresh_count"],
        forced_today=row["forced_today"],
        logged_in_at=_moment(row["logged_in_at"]),
        updated_at=showable(row["updated_at"]),
        leased_for=row["leased_for"],
        in_doubt=row["in_doubt"],
        read_at=row["read_at"],
        provider=ProviderState(**row["provider"]) if row["provider"] is not None else ProviderState(),
        source=PostgresTokens.source,
        client_id=row["client_id"],
    )


def _moment(seconds: float | None) -> float | None:
    return None if seconds is None else showable(seconds)
