"""Wakes those who wait for somebody else's refresh of a user."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from .stores import RowStatus, TokenCache
from .stores.memory import TokenMemory


class Watch:
    """One waiter's view of one user. A change between ``reset`` and ``wait`` is not missed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def reset(self) -> None:
        self._event.clear()

    def wake(self) -> None:
        self._event.set()

    async def wait(self, timeout: float) -> None:  # noqa: ASYNC109 -- running out of time is an ordinary outcome
        """Return after a change or after ``timeout`` seconds, whichever comes first."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return


class Changes:
    """Passes on what the listener hears: to memory and cache, and to all who watch that user."""

    def __init__(self, memory: TokenMemory, cache: TokenCache) -> None:
        self._memory = memory
        self._cache = cache
        self._watches: dict[str, set[Watch]] = {}

    @contextmanager
    def watch(self, user: str) -> Iterator[Watch]:
        """Watch one user for as long as the block runs."""
        watch = Watch()
        self._watches.setdefault(user, set()).add(watch)
        try:
            yield watch
        finally:
            same = self._watches[user]
            same.discard(watch)
            if not same:
                del self._watches[user]

    def connected(self) -> None:
        self._memory.connected()
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()

    def disconnected(self) -> None:
        self._memory.disconnected()

    def changed(self, user: str, generation: int, status: str) -> None:
        self._memory.changed(user, generation, status)
        if status == RowStatus.LOGGED_OUT:
            # Whoever logs out does so too; this covers a process that could not, or a statement by hand.
            self._cache.forget(user, generation)
        for watch in self._watches.get(user, ()):
            watch.wake()
