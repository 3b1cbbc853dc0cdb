"""The background loop: replay the journal, refresh who is due, note who used a token, forget old logins."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
from collections.abc import Awaitable, Callable

from .bulk import Bulk
from .errors import StorageUnavailable
from .jobs import Jobs
from .login import REMEMBER
from .refresh import Refresher
from .results import Actor
from .stores import LoginStore, TokenStore
from .stores.memory import TokenMemory

_log = logging.getLogger(__name__)
INTERVAL = 30.0
# A pass that could not finish, or whose rows belong to others, is not repeated sooner than this.
SHORTEST_INTERVAL = 5.0


class Background:
    """Runs passes until it is cancelled."""

    def __init__(
        self,
        tokens: TokenStore,
        logins: LoginStore,
        memory: TokenMemory,
        refresher: Refresher,
        bulk: Bulk,
        jobs: Jobs,
        *,
        actor: Actor,
        refresh_buffer: float,
        auto_refresh: bool,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._tokens = tokens
        self._logins = logins
        self._memory = memory
        self._refresher = refresher
        self._bulk = bulk
        self._jobs = jobs
        self._actor = actor
        self._buffer = refresh_buffer
        self._auto_refresh = auto_refresh
        self._random = random
        self._touched_until = 0.0
        self._pause = INTERVAL

    async def run(self) -> None:
        while True:
            pause = await self._pass()
            await asyncio.sleep(pause)

    async def _pass(self) -> float:
        """One pass; returns the seconds until the next. What is due comes early: it cannot wait."""
        # Replicas that started together drift apart.
        self._pause = INTERVAL * (0.8 + 0.4 * self._random())
        for step in (
            self._refresher.replay,
            self._refresh,
            self._tokens.forward_notes,
            self._touch,
            self._purge,
        ):
            await self._alone(step)
        return self._pause

    async def _alone(self, step: Callable[[], Awaitable[None]]) -> None:
        """Run one step. Whatever goes wrong in it, tokens of others become due: the rest is done."""
        try:
            await step()
        except StorageUnavailable as error:
            self._pause = min(self._pause, error.retry_after)
        except Exception:
            _log.exception("a step of the background pass failed")

    async def _refresh(self) -> None:
        if not self._auto_refresh:
            return
        counts = await self._bulk.due(self._buffer, self._actor)
        if counts.attempted:
            _log.info("%d due: %d of them refreshed", counts.attempted, counts.refreshed)
        due_in = None if counts.stopped_early else await self._tokens.next_due_in(self._buffer)
        if due_in is not None:
            self._pause = min(self._pause, max(SHORTEST_INTERVAL, due_in))

    async def _purge(self) -> None:
        await self._logins.purge(REMEMBER)
        await self._jobs.purge()

    async def _touch(self) -> None:
        since = self._touched_until
        used = {user: e.used_at for user, e in list(self._memory.entries.items()) if e.used_at > since}
        if used:
            await self._tokens.touch(used)
            self._touched_until = max(used.values())
