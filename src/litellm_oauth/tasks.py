"""Ends tasks for sure, and has tasks come to their own end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, TypeVar

# Seconds after which a task that went on all the same is told again.
AGAIN = 0.5

T = TypeVar("T")


async def finished(task: asyncio.Task[T]) -> T:
    """What the task returns, which is waited for to its end also where the caller is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            # Else the error and this frame would hold each other, and all that the callers' frames hold.
            cancelled = None
    return task.result()


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks, and wait until they are over; what they raise is nobody's concern any more.

    Once is not enough: before Python 3.12 ``asyncio.wait_for`` swallows a cancellation that arrives together
    with a result (cpython issue 86296), and the pool of connections waits with it.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN)
    for task in tasks:
        with suppress(asyncio.CancelledError):
            # To ask lets go of its traceback, and so of what it had open: a connection in the making, say.
            task.exception()
