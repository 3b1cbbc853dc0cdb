"""Steps that could not be written while the store was away: tried until they succeed, and waited for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from .errors import StorageUnavailable

_log = logging.getLogger(__name__)
PAUSE = 0.5
SETTLE_TIMEOUT = 5.0

Step = Callable[[], Awaitable[None]]


class LateSteps:
    """One chain of steps a user, in their order. It lives in this process only."""

    def __init__(self) -> None:
        self._chains: dict[str, asyncio.Task[None]] = {}

    @property
    def tasks(self) -> Collection[asyncio.Task[None]]:
        return self._chains.values()

    def add(self, user: str, what: str, step: Step) -> None:
        """Run ``step`` again and again until it no longer raises StorageUnavailable."""
        _log.warning("%s could not be written; trying again until the database is back", what)
        task = asyncio.create_task(self._run(step, self._chains.get(user)), name="litellm_oauth late step")
        self._chains[user] = task

        def ended(done: asyncio.Task[None]) -> None:
            if self._chains.get(user) is done:
                del self._chains[user]
            if not done.cancelled() and done.exception() is not None:
                _log.error("%s could not be written", what, exc_info=done.exception())

        task.add_done_callback(ended)

    async def settle(self, user: str) -> None:
        """Wait a while for the user's late steps, if there are any. Raises StorageUnavailable."""
        task = self._chains.get(user)
        if task is None:
            return
        done, _ = await asyncio.wait([task], timeout=SETTLE_TIMEOUT)
        if not done:
            raise StorageUnavailable(
                f"Something about the token of {user} could not be saved yet; that is tried again and again. "
                "Look at the database."
            )

    async def _run(self, step: Step, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        while True:
            await asyncio.sleep(PAUSE)
            try:
                return await step()
            except StorageUnavailable:
                continue
