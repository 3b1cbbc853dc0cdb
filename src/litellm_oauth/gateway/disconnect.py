"""Ends what is done for a client that has left.

A model may work for minutes. Starlette notices that a client has gone only while it streams an answer to it;
here it is noticed from the moment the request has been read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from starlette.types import Message, Receive


class ClientLeft(Exception):  # noqa: N818 -- not an error: the client has left
    """The client closed the connection before it was answered."""


class Departure:
    """While the block runs, a client that leaves has the block cancelled, which then raises ClientLeft.

    ``receive``: the server's, with nothing of the body left to read. ``answered``: whether the answer has
    begun, so that whoever sends it looks after the client. What goes on by itself, as a refresh does, is not
    cancelled.
    """

    def __init__(self, receive: Receive, answered: Callable[[], bool] = lambda: False) -> None:
        self._receive = receive
        self._answered = answered
        self._left = asyncio.Event()
        self._cancelled = False
        self._earlier = 0
        self._task: asyncio.Task[object] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Departure:
        self._task = asyncio.current_task()
        self._earlier = 0 if self._task is None else self._task.cancelling()
        return self

    def start(self) -> None:
        """Begin to watch: the body has been read."""
        self._watch = asyncio.create_task(self._until_left())

    async def message(self) -> Message:
        """What an application receives that waits for more: only that the client has left."""
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _until_left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left.set()
        if not self._answered() and self._task is not None:
            self._cancelled = True
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if not self._cancelled or self._task is None:
            return
        # As asyncio.timeout does it: whoever else has cancelled the task still means it.
        if self._task.uncancel() <= self._earlier and kind is asyncio.CancelledError:
            raise ClientLeft from None
