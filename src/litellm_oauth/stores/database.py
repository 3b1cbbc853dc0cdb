"""A small pool of PostgreSQL connections: nothing waits for ever, every fault is StorageUnavailable."""

from __future__ import annotations

import asyncio
import logging
import select
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from ..errors import SettingsError, StorageUnavailable
from ..settings import DatabaseSettings

_log = logging.getLogger(__name__)
MAX_CONNECTIONS = 4
_FAULTS = (psycopg.Error, PoolTimeout, PoolClosed, TooManyRequests, TimeoutError, OSError)

# What one statement got wrong says nothing about the database and must not make it look down for everybody.
# So does a row that somebody else holds.
_OF_ONE_STATEMENT = (
    psycopg.DataError,
    psycopg.ProgrammingError,
    psycopg.IntegrityError,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
)


class Connection(AsyncConnection[DictRow]):
    """One that is given up at once: psycopg asks the server to stop, and waits ten seconds for a deaf one."""

    async def cancel_safe(self, *, timeout: float = 0.0) -> None:  # noqa: ASYNC109 -- psycopg's signature
        """Hang up instead. ``statement_timeout`` ends at the server what still runs there."""
        self.pgconn.finish()


def _is_news(record: logging.LogRecord) -> bool:
    """Not that a connection closes whose query was cancelled: ``Connection`` has hung up on purpose."""
    return record.msg != "query cancellation interrupted (%s): closing connection"


logging.getLogger("psycopg").addFilter(_is_news)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds.

    ``connect``: a new connection (libpq takes whole seconds). ``statement``: one statement, at the server.
    ``pool``: waiting for a free connection; ``pool_when_down`` where the last step failed less than ``down``
    ago. ``step``: all of it; longer than the others, which give better reasons. ``settling``: after an
    outage, for others to save what they received during it.
    """

    connect: int = 3
    statement: float = 4.0
    pool: float = 2.5
    pool_when_down: float = 0.5
    step: float = 6.0
    down: float = 5.0
    settling: float = 10.0

    @property
    def lock(self) -> float:
        """Waiting for a row that somebody holds, at the server.

        Half of the shorter of ``pool`` and ``statement``: who waits for the connections that wait for the
        row gets one in time, so that a held row never looks like an outage.
        """
        return min(self.pool, self.statement) / 2


LIMITS = Limits()


def connection_parameters(settings: DatabaseSettings, limits: Limits = LIMITS) -> dict[str, Any]:
    """libpq parameters. Raises SettingsError where the URL cannot be parsed."""
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
        "connect_timeout": limits.connect,
        "application_name": "litellm_oauth",
        # A peer that vanished without a word is noticed within seconds.
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 8000,
        "options": f"{parameters.get('options', '')} -c statement_timeout={limits.statement * 1000:.0f} "
        f"-c lock_timeout={limits.lock * 1000:.0f} -c idle_in_transaction_session_timeout=10000".strip(),
    }


class Database:
    """The pool. ``down``: the last step failed so recently that another try is not worth waiting for."""

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        limits: Limits = LIMITS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.parameters = connection_parameters(settings, limits)
        self._limits = limits
        self._monotonic = monotonic
        self._failed_at = float("-inf")
        self._recovered_at: float | None = None
        self._pool = AsyncConnectionPool[Connection](
            kwargs={**self.parameters, "autocommit": True, "row_factory": dict_row},
            connection_class=Connection,
            min_size=1,
            max_size=MAX_CONNECTIONS,
            open=False,
            timeout=limits.pool,
            # Give up reconnecting soon: the pool's pauses double, and the next request starts a new try.
            reconnect_timeout=min(1.0, limits.pool),
            max_lifetime=1800.0,
            name="litellm_oauth",
            check=self._check,
        )

    @property
    def down(self) -> bool:
        return self._monotonic() - self._failed_at < self._limits.down

    @property
    def steady(self) -> bool:
        """Whether the database has been answering for ``Limits.settling`` seconds."""
        return (
            self._recovered_at is not None and self._monotonic() - self._recovered_at >= self._limits.settling
        )

    async def open(self) -> None:
        """Start the pool. Does not wait for the first connection."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        await self._pool.close(timeout=2.0)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit mode. Every fault of the database comes out as StorageUnavailable."""
        try:
            wait = self._limits.pool_when_down if self.down else self._limits.pool
            async with asyncio.timeout(self._limits.step), self._pool.connection(wait) as connection:
                yield connection
        except _FAULTS as error:
            # The server's own text may quote values; its class and SQLSTATE do not.
            reason = describe(error)
            if not self.down:
                _log.warning("the database did not answer: %s", reason)
            if not isinstance(error, _OF_ONE_STATEMENT):
                self._failed_at = self._monotonic()
                self._recovered_at = None
            raise StorageUnavailable(
                f"The token database cannot be used now ({reason}). Try again soon, and look at the database "
                "if it stays so.",
                retry_after=self._limits.down,
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

    async def _check(self, connection: Connection) -> None:
        """Find out that the server has hung up, without asking it: an idle connection has nothing to be read.

        Raises where the connection is gone; the pool makes another one.
        """
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        if poll.poll(0) or self.down:
            # Where one was deaf a moment ago, the others have to prove that they are not.
            async with asyncio.timeout(self._limits.pool_when_down):
                await AsyncConnectionPool.check_connection(connection)


# What libpq says of a connection that failed, and what is said of it here.
_CAUSES = {
    "server does not support SSL": "the server does not offer the TLS that sslmode asks for",
    "password authentication failed": "the password was refused",
    "could not translate host name": "the host's name is not known",
    "Connection refused": "the connection was refused",
}


def describe(error: BaseException) -> str:
    """The error's kind, SQLSTATE and, of a few that people can mend, its cause; never its own text."""
    kind = " ".join(filter(None, (type(error).__name__, getattr(error, "sqlstate", None))))
    said = str(error)
    cause = next((words for phrase, words in _CAUSES.items() if phrase in said), None)
    return kind if cause is None else f"{kind}: {cause}"
