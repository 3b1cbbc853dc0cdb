"""The background loop: replay the journal, refresh who is due, note who used a token, forget old logins."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
from collections.abc import Callable

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

    async def run(self) -> None:
        while True:
            try:
                pause = await self._pass()
            except StorageUnavailable as error:
                pause = error.retry_after
            except Exception:
                # Whatever it is, tokens of others become due meanwhile: the loop must not end.
                _log.exception("the background pass failed")
                pause = INTERVAL
            await asyncio.sleep(pause)

    async def _pass(self) -> float:
        """One pass; returns the seconds until the next. What is due comes first: it cannot wait."""
        # Replicas that started together drift apart.
        pause = INTERVAL * (0.8 + 0.4 * self._random())
        await self._refresher.replay()
        await self._tokens.forward_notes()
        if self._auto_refresh:
            pause = await self._refresh(pause)
        await self._touch()
        await self._logins.purge(REMEMBER)
        await self._jobs.purge()
        return pause

    async def _refresh(self, pause: float) -> float:
        counts = await self._bulk.due(self._buffer, self._actor)
        if counts.attempted:
            _log.info("%d due: %d of them refreshed", counts.attempted, counts.refreshed)
        due_in = None if counts.stopped_early else await self._tokens.next_due_in(self._buffer)
        return pause if due_in is None else min(pause, max(SHORTEST_INTERVAL, due_in))

    async def _touch(self) -> None:
        since = self._touched_until
        used = {user: e.used_at for user, e in list(self._memory.entries.items()) if e.used_at > since}
        if used:
            await self._tokens.touch(used)
            self._touched_until = max(used.values())
