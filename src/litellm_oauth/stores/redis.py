"""Sealed access tokens in Redis, for processes that have not read a user's row yet. Losing it loses nothing.

An entry says that a user had this access token at this generation; no refresh token comes here, so nothing
that lies here can be spent, and an attempt or a cooldown of the row is of no concern. Where there is nothing
to serve (a logout, a login that the provider refused, an expired token) a tombstone of that generation keeps
older ones out. Of two entries of the same generation the later one counts: they hold the same token.

Nobody waits for Redis twice: after a fault it is left alone, and tried again behind everybody's back. What
could not be written meanwhile is remembered as tombstones, which are written before Redis is used again. A
process that ends before that leaves an older token in Redis for LIFETIME at most.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from ..settings import RedisSettings
from .rows import CachedToken, RowStatus, TokenRow

_log = logging.getLogger(__name__)
# How long an entry stays, and with it what a lost tombstone could do harm (seconds).
LIFETIME = 300.0
# How long Redis is left alone after a fault (seconds).
PAUSE = 10.0
CONNECTIONS = 4
# Users whose entry is still to be written. One more, and the oldest is given up to LIFETIME.
MAX_UNWRITTEN = 10_000
# Lua counts in doubles, which are exact below this; nothing above it is ours.
_MAX_GENERATION = 2**53
# The form of values that are bound to their user; others could be another user's.
_SEALED = "v1."
_PREFIX = "litellm_oauth:v1:"
_PUT = """
local held = redis.pcall('GET', KEYS[1])
if type(held) == 'string' then
  local read, entry = pcall(cjson.decode, held)
  if read and type(entry) == 'table' and type(entry.generation) == 'number'
    and entry.generation > tonumber(ARGV[1]) and entry.generation < 2^53 then return 0 end
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


class _Client(Protocol):
    """What is used of ``redis.asyncio.Redis``."""

    async def execute_command(self, *command: str | int) -> Any: ...

    async def aclose(self) -> None: ...


class NoCache:
    """``stores.TokenCache`` where no Redis is configured."""

    def open(self) -> None:
        """Nothing."""

    async def get(self, user: str) -> CachedToken | None:
        return None

    def put(self, row: TokenRow) -> None:
        """Nothing."""

    def forget(self, user: str, generation: int) -> None:
        """Nothing."""

    async def bury(self, user: str, generation: int) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Nothing."""


class RedisCache:
    """``stores.TokenCache`` in Redis. ``clock`` is the authority's; ``pause`` is in seconds."""

    def __init__(self, settings: RedisSettings, clock: Callable[[], float], *, pause: float = PAUSE) -> None:
        self._settings = settings
        self._clock = clock
        self._pause = pause
        # None while Redis must not be used.
        self._client: _Client | None = None
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._tried = asyncio.Event()
        self._reviving: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._unwritten: dict[str, CachedToken] = {}
        self._complained = False

    def open(self) -> None:
        if self._reviving is None:
            self._reviving = asyncio.create_task(self._revive(0.0), name="litellm_oauth redis")

    async def get(self, user: str) -> CachedToken | None:
        try:
            answer = await self._ask("GET", key_of(user))
        except _Away:
            return None
        return self._entry(user, answer)

    def put(self, row: TokenRow) -> None:
        token = row.access_token
        if row.status is not RowStatus.ACTIVE or token is None or not token.startswith(_SEALED):
            self.forget(row.user_id, row.generation)
        else:
            self._write_soon(CachedToken(row.user_id, row.generation, token, row.expires_at or 0.0))

    def forget(self, user: str, generation: int) -> None:
        self._write_soon(CachedToken(user, generation))

    async def bury(self, user: str, generation: int) -> None:
        self.open()
        await self._tried.wait()
        tombstone = CachedToken(user, generation)
        self._note(tombstone)
        with suppress(_Away):
            await self._write(tombstone)

    async def close(self) -> None:
        if self._client is not None and self._writing is not None:
            # What was saved a moment ago.
            await asyncio.wait([self._writing], timeout=self._settings.timeout)
        client, self._client = self._client, None
        tasks = [task for task in (self._reviving, self._writing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if client is not None:
            await _close(client)

    def _write_soon(self, entry: CachedToken) -> None:
        self._note(entry)
        if self._client is not None and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write_all(), name="litellm_oauth redis write")

    def _note(self, entry: CachedToken) -> None:
        """Remember to write the entry; while Redis is away, a tombstone in its place."""
        known = self._unwritten.get(entry.user_id)
        if known is not None and known.generation > entry.generation:
            return
        if known is None and len(self._unwritten) >= MAX_UNWRITTEN:
            del self._unwritten[next(iter(self._unwritten))]
        self._unwritten[entry.user_id] = entry if self._client is not None else _tombstone(entry)

    async def _write_all(self) -> None:
        with suppress(_Away):
            while self._unwritten:
                await self._write(next(iter(self._unwritten.values())))

    async def _write(self, entry: CachedToken) -> None:
        """Raises _Away."""
        await self._ask(*self._put_command(entry))
        self._written(entry)

    def _written(self, entry: CachedToken) -> None:
        if self._unwritten.get(entry.user_id) is entry:
            del self._unwritten[entry.user_id]

    async def _ask(self, *command: str | int) -> Any:
        """Redis' answer. Raises _Away after the time-out, or at once where Redis is to be left alone."""
        asked: _Client | None = None
        try:
            async with asyncio.timeout(self._settings.timeout):
                self.open()
                await self._tried.wait()
                async with self._slots:
                    asked = self._client
                    if asked is not None:
                        return await asked.execute_command(*command)
        except Exception as error:
            # Whatever it is, garbage included: a cache that does not work must not be noticed.
            if asked is not None and asked is self._client:
                self._leave_alone(asked, error)
            raise _Away from None
        raise _Away

    def _leave_alone(self, broken: _Client, error: Exception) -> None:
        self._client = None
        # What an entry says may be old by the time that it can be written; that there was one is not.
        self._unwritten = {user: _tombstone(entry) for user, entry in self._unwritten.items()}
        self._complain(error)
        self._reviving = asyncio.create_task(self._revive(self._pause, broken), name="litellm_oauth redis")

    async def _revive(self, pause: float, broken: _Client | None = None) -> None:
        if broken is not None:
            await _close(broken)
        while self._client is None:
            await asyncio.sleep(pause)
            await self._try()
            self._tried.set()
            pause = self._pause

    async def _try(self) -> None:
        """Use Redis from now on, if it takes what is to be written."""
        client: _Client | None = None
        try:
            # Half a second of imports, for which nothing else shall wait.
            client = await asyncio.to_thread(_client_of, self._settings)
            # Nobody's entry, to see whether it takes anything.
            await self._prove(client, CachedToken("", 0))
            while self._unwritten:
                entry = next(iter(self._unwritten.values()))
                await self._prove(client, entry)
                self._written(entry)
            self._client = client
        except Exception as error:
            self._complain(error)
        finally:
            if client is not None and self._client is None:
                await _close(client)
        if self._client is not None and self._complained:
            _log.warning("Redis is back")
            self._complained = False

    async def _prove(self, client: _Client, entry: CachedToken) -> None:
        async with asyncio.timeout(self._settings.timeout):
            await client.execute_command(*self._put_command(entry))

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            # Only the error's kind: its text may hold what a server sent.
            _log.warning(
                "Redis at %s:%d cannot be used (%s); tokens are read from the database until it is back",
                self._settings.host,
                self._settings.port,
                type(error).__name__,
            )
            self._complained = True

    def _put_command(self, entry: CachedToken) -> tuple[str | int, ...]:
        left = entry.expires_at - self._clock()
        lifetime = LIFETIME
        content: dict[str, object] = {"generation": entry.generation}
        if entry.access_token is not None and left > 0:
            lifetime = min(LIFETIME, left)
            content.update(accessToken=entry.access_token, expiresAt=entry.expires_at)
        milliseconds = max(1, int(lifetime * 1000))
        return "EVAL", _PUT, 1, key_of(entry.user_id), entry.generation, json.dumps(content), milliseconds

    def _entry(self, user: str, answer: object) -> CachedToken | None:
        """What was found, where it is an entry of ours that still serves. Anybody may have written it."""
        if not isinstance(answer, bytes):
            return None
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.keys() != {"generation", "accessToken", "expiresAt"}:
            return None
        generation, token, expires_at = found["generation"], found["accessToken"], found["expiresAt"]
        if type(generation) is not int or not 0 < generation < _MAX_GENERATION:
            return None
        if not isinstance(token, str) or not token.startswith(_SEALED):
            return None
        if type(expires_at) not in (int, float) or not self._clock() < expires_at < _MAX_GENERATION:
            return None
        return CachedToken(user, generation, token, float(expires_at))


class _Away(Exception):  # noqa: N818 -- no error: there is nothing in the cache to be had
    """Redis cannot be used now."""


def _tombstone(entry: CachedToken) -> CachedToken:
    return CachedToken(entry.user_id, entry.generation)


def key_of(user: str) -> str:
    """Where a user's entry lies. Whoever lists the keys learns no names."""
    return _PREFIX + hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()


def _client_of(settings: RedisSettings) -> _Client:
    """A client that connects when it is used, and tries nothing twice."""
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return Redis(
        host=settings.host,
        port=settings.port,
        db=settings.database,
        username=settings.username,
        password=settings.password,
        ssl=settings.tls,
        socket_timeout=settings.timeout,
        socket_connect_timeout=settings.timeout,
        retry=Retry(NoBackoff(), 0),
        # RESP 3 and the driver's name would need commands that the account has no use for.
        protocol=2,
        driver_info=None,
    )


async def _close(client: _Client) -> None:
    with suppress(Exception):
        await client.aclose()
