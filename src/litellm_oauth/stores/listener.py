"""Hears of every change to a token row, whichever process made it (PostgreSQL LISTEN/NOTIFY)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

import psycopg

from .database import Connection, describe

_log = logging.getLogger(__name__)
CHANNEL = "claude_oauth_tokens"
# How long silence is trusted before the connection has to prove itself, and how long that may take (seconds).
HEARTBEAT = 5.0
HEARTBEAT_TIMEOUT = 3.0
CONNECT_TIMEOUT = 4.0
_PAUSES = (0.2, 0.5, 1.0, 2.0)
# The digits of the largest bigint.
_LONGEST_GENERATION = 19


class ChangeListener(Protocol):
    """Who wants to hear. ``connected``: from now on nothing is missed, but something may have been."""

    def connected(self) -> None: ...

    def disconnected(self) -> None: ...

    def changed(self, user: str, generation: int, status: str) -> None: ...


async def listen(parameters: dict[str, Any], listener: ChangeListener) -> None:
    """Listen until cancelled, on a connection of its own that is opened again whenever it breaks."""
    failures = 0
    while True:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                connection = await Connection.connect(**parameters, autocommit=True)
            try:
                async with asyncio.timeout(HEARTBEAT_TIMEOUT):
                    await connection.execute(f"LISTEN {CHANNEL}")
                failures = 0
                listener.connected()
                await _relay(connection, listener)
            finally:
                listener.disconnected()
                # Not awaited politely: the peer may be gone.
                connection.pgconn.finish()
        except (psycopg.Error, TimeoutError, OSError) as error:
            if failures == 0:
                _log.warning("not listening for changes of tokens, trying again: %s", describe(error))
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
            failures += 1


async def _relay(connection: Connection, listener: ChangeListener) -> None:
    while True:
        async for notification in connection.notifies(timeout=HEARTBEAT):
            change = _change(notification.payload)
            if change is not None:
                listener.changed(*change)
        async with asyncio.timeout(HEARTBEAT_TIMEOUT):
            await connection.execute("SELECT 1")


def _change(payload: str) -> tuple[str, int, str] | None:
    """User, generation and status out of a payload; None where it is no such thing: anybody may NOTIFY."""
    generation, _, rest = payload.partition(" ")
    status, _, user = rest.partition(" ")
    if not user or not generation.isdecimal() or len(generation) > _LONGEST_GENERATION:
        return None
    return user, int(generation), status
