"""A small pool of PostgreSQL connections: nothing waits for ever, every fault is StorageUnavailable."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from ..errors import SettingsError, StorageUnavailable
from ..settings import DatabaseSettings

_log = logging.getLogger(__name__)
CONNECT_TIMEOUT = 3  # seconds; libpq takes whole ones
STATEMENT_TIMEOUT = 4.0
# How long a step waits for a free connection, and how long where the last step failed a moment ago.
POOL_TIMEOUT = 2.5
POOL_TIMEOUT_WHEN_DOWN = 0.5
# One whole step with waiting for a connection. Longer than the server's limits, which give better reasons.
STEP_TIMEOUT = 6.0
MAX_CONNECTIONS = 4
RETRY_AFTER = 5.0
# How long after an outage other processes need to save what they received during it.
SETTLING = 10.0
_FAULTS = (psycopg.Error, PoolTimeout, PoolClosed, TooManyRequests, TimeoutError, OSError)

Connection = AsyncConnection[DictRow]


def connection_parameters(settings: DatabaseSettings) -> dict[str, Any]:
    """libpq parameters with the limits above. Raises SettingsError where the URL cannot be parsed."""
    try:
        parameters = conninfo_to_dict(settings.url)
    except psycopg.ProgrammingError:
        raise SettingsError(
            ["LITELLM_OAUTH_DATABASE_URL: is no libpq URL; write postgresql://USER@HOST:5432/DATABASE"]
        ) from None
    if settings.password is not None:
        parameters["password"] = settings.password
    return {
        **parameters,
        "connect_timeout": CONNECT_TIMEOUT,
        "application_name": "litellm_oauth",
        # A peer that vanished without a word is noticed within seconds.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 8000,
        "options": f"-c statement_timeout={STATEMENT_TIMEOUT * 1000:.0f} -c lock_timeout=3000 "
        "-c idle_in_transaction_session_timeout=10000",
    }


class Database:
    """The pool. ``down``: the last step failed so recently that another try is not worth waiting for."""

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        settling: float = SETTLING,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.parameters = connection_parameters(settings)
        self._monotonic = monotonic
        self._settling = settling
        self._failed_at = float("-inf")
        self._recovered_at: float | None = None
        self._pool = AsyncConnectionPool[Connection](
            kwargs={**self.parameters, "autocommit": True, "row_factory": dict_row},
            connection_class=Connection,
            min_size=1,
            max_size=MAX_CONNECTIONS,
            open=False,
            timeout=POOL_TIMEOUT,
            # Give up reconnecting soon: the pool's pauses double, and the next request starts a new try.
            reconnect_timeout=1.0,
            max_lifetime=1800.0,
            name="litellm_oauth",
            check=AsyncConnectionPool.check_connection,
        )

    @property
    def down(self) -> bool:
        return self._monotonic() - self._failed_at < RETRY_AFTER

    @property
    def steady(self) -> bool:
        """Whether the database has been answering for ``settling`` seconds."""
        return self._recovered_at is not None and self._monotonic() - self._recovered_at >= self._settling

    async def open(self) -> None:
        """Start the pool. Does not wait for the first connection."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        await self._pool.close(timeout=2.0)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit mode. Every fault of the database comes out as StorageUnavailable."""
        try:
            wait = POOL_TIMEOUT_WHEN_DOWN if self.down else POOL_TIMEOUT
            async with asyncio.timeout(STEP_TIMEOUT), self._pool.connection(wait) as connection:
                yield connection
        except _FAULTS as error:
            self._failed_at = self._monotonic()
            self._recovered_at = None
            reason = describe(error)
            # The server's own text may quote values; its class and SQLSTATE do not.
            _log.warning("the database did not answer: %s", reason)
            raise StorageUnavailable(
                f"The token database cannot be used now ({reason}). Nothing was changed; try again soon, "
                "and look at the database if it stays so.",
                retry_after=RETRY_AFTER,
            ) from None
        if self._recovered_at is None:
            self._recovered_at = self._monotonic()
        self._failed_at = float("-inf")

    async def one(self, query: str, values: Mapping[str, Any] | None = None) -> DictRow | None:
        """Run one statement and return its first row."""
        async with self.connection() as connection:
            cursor = await connection.execute(query, values)
            return await cursor.fetchone() if cursor.description else None

    async def all(self, query: str, values: Mapping[str, Any] | None = None) -> Sequence[DictRow]:
        """Run one statement and return all its rows."""
        async with self.connection() as connection:
            cursor = await connection.execute(query, values)
            return await cursor.fetchall()

    async def run(self, query: str, values: Mapping[str, Any] | None = None) -> int:
        """Run one statement and return how many rows it touched."""
        async with self.connection() as connection:
            cursor = await connection.execute(query, values)
            return int(cursor.rowcount)


def describe(error: BaseException) -> str:
    """The error's kind and SQLSTATE, without its text."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} {state}" if state else type(error).__name__
