"""Tasks end, also where what they wait for swallows a cancellation."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import suppress

import pytest

from litellm_oauth import tasks
from litellm_oauth.tasks import end


async def test_a_task_that_swallows_a_cancellation_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN", 0.01)
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 3:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            swallowed += 1
        await asyncio.sleep(60)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end(task)
    assert task.cancelled()
    assert swallowed == 3


async def test_what_tasks_raise_is_nobodys_concern_when_they_are_ended() -> None:
    async def failing() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise RuntimeError

    running = asyncio.create_task(failing())
    over = asyncio.create_task(asyncio.sleep(0))
    await asyncio.sleep(0)
    await end(running, over)
    assert running.done()
    assert over.done()


async def test_what_a_task_had_open_is_let_go_of_at_once() -> None:
    """A connection that was being made would else stay half open at the server."""

    class Connection: ...

    opened: list[weakref.ref[Connection]] = []

    async def connect() -> None:
        connection = Connection()
        opened.append(weakref.ref(connection))
        await asyncio.sleep(60)

    gc.disable()
    try:
        task = asyncio.create_task(connect())
        await asyncio.sleep(0)
        await end(task)
        assert opened[0]() is None
    finally:
        gc.enable()


async def test_nothing_to_end_is_no_fault() -> None:
    await end()
