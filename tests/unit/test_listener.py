"""Changes are heard whatever else is sent on the channel, and a connection that went deaf is given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from chaos.wire import wire
from litellm_oauth.stores import listener
from litellm_oauth.stores.database import Connection
from litellm_oauth.stores.listener import CHANNEL, listen
from support.postgres import TestDatabase
from support.service import eventually


@dataclass
class Recorder:
    """What was heard, and how often the connection came and went."""

    heard: list[tuple[str, int, str]] = field(default_factory=list)
    connections: int = 0
    ends: int = 0

    def connected(self) -> None:
        self.connections += 1

    def disconnected(self) -> None:
        self.ends += 1

    def changed(self, user: str, generation: int, status: str) -> None:
        self.heard.append((user, generation, status))


@asynccontextmanager
async def listening(parameters: dict[str, Any]) -> AsyncIterator[Recorder]:
    recorder = Recorder()
    task = asyncio.create_task(listen(parameters, recorder))
    try:
        await eventually(lambda: recorder.connections == 1)
        yield recorder
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("payload", ["9" * 5000 + " active alice", "x active alice", "7 active", "7", ""])
async def test_a_payload_that_is_no_change_is_passed_over(database: TestDatabase, payload: str) -> None:
    async with listening(database.parameters) as recorder:
        for sent in (payload, f"{2**63 - 1} active a user"):
            database.query("SELECT pg_notify(%(channel)s, %(sent)s)", {"channel": CHANNEL, "sent": sent})
        await eventually(lambda: recorder.heard)
        assert recorder.heard == [("a user", 2**63 - 1, "active")]
        assert (recorder.connections, recorder.ends) == (1, 0)


async def test_a_connection_that_went_deaf_is_given_up_at_once(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HEARTBEAT", 0.2)
    monkeypatch.setattr(listener, "HEARTBEAT_TIMEOUT", 0.5)
    async with wire(database.settings.url) as (line, url):
        parameters = {**database.parameters, "port": urlsplit(url).port}
        async with listening(parameters) as recorder:
            line.cut(silent=True)
            started = time.monotonic()
            await eventually(lambda: recorder.ends == 1, seconds=30)
            assert time.monotonic() - started < 2.5
            line.mend()
            await eventually(lambda: recorder.connections == 2)


async def test_a_query_that_is_given_up_is_hung_up_on_at_once_and_without_a_word(
    database: TestDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    connection = await Connection.connect(**database.parameters, autocommit=True)
    query = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    query.cancel()
    with pytest.raises(asyncio.CancelledError):
        await query
    assert time.monotonic() - began < 1
    assert connection.closed
    assert caplog.messages == []
