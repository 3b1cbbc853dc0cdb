"""Reads rows into memory: once for all who wait for the same user."""

from __future__ import annotations

import asyncio

from . import messages
from .backoff import cooling_for
from .clock import AuthorityClock
from .errors import Unreadable
from .stores import RowStatus, TokenCache, TokenRow, TokenStore
from .stores.memory import Entry, TokenMemory
from .tokens import AccessToken
from .vault import ACCESS, Vault


class TokenReader:
    """The way from the store into memory. ``refresh_buffer`` None: tokens are never due, only expired."""

    def __init__(
        self,
        store: TokenStore,
        vault: Vault,
        memory: TokenMemory,
        cache: TokenCache,
        clock: AuthorityClock,
        refresh_buffer: float | None,
    ) -> None:
        self.memory = memory
        self.cache = cache
        self._store = store
        self._vault = vault
        self._clock = clock
        self._refresh_buffer = refresh_buffer
        self._reads: dict[str, asyncio.Task[Entry]] = {}

    def read(self, user: str) -> asyncio.Task[Entry]:
        """The read that runs for this user, or a new one. Wait for it under ``asyncio.shield``.

        It raises NotLoggedIn, Unreadable, StorageUnavailable.
        """
        task = self._reads.get(user)
        if task is None:
            task = asyncio.create_task(self._read(user), name="litellm_oauth read")
            self._reads[user] = task

            def ended(done: asyncio.Task[Entry]) -> None:
                del self._reads[user]
                if not done.cancelled():
                    # Whoever waits gets it too; asyncio must not complain where nobody does.
                    done.exception()

            task.add_done_callback(ended)
        return task

    async def recall(self, user: str) -> Entry | None:
        """What the cache knows of somebody who is not in memory, where it has not expired.

        It may be old: the caller has to see to it that the row is read.
        """
        with self.memory.reading(user) as reading:
            found = await self.cache.get(user)
        if found is None or reading.overtaken:
            return self.memory.entries.get(user)
        try:
            value = self._vault.open_optional(found.access_token, user, ACCESS) or ""
        except Unreadable:
            return None
        token = AccessToken(value, found.generation, found.expires_at)
        due_at = found.expires_at - (self._refresh_buffer or 0.0)
        return self.memory.recall(user, token, due_at=due_at, now=self._clock.now())

    async def look(self, user: str) -> tuple[TokenRow, AccessToken]:
        """The row as it is now, which memory learns of. Raises like ``read``."""
        with self.memory.reading(user) as reading:
            row = await self._store.load(user)
        if row is None or row.status is RowStatus.LOGGED_OUT:
            if row is not None and user in self.memory.entries:
                self.cache.forget(user, row.generation)
            self.memory.drop(user)
            raise messages.not_logged_in(user)
        self._clock.observe(row.read_at)
        token = self._vault.open_access(row)
        # What a lower tier stood in with is looked at again as soon as the authority can be.
        stood_in = row.source != self._store.source
        self.remember(row, token, overtaken=reading.overtaken or stood_in)
        return row, token

    def remember(self, row: TokenRow, token: AccessToken, *, overtaken: bool) -> Entry:
        """Keep a token that was read or written. ``overtaken``: the row changed while that was under way."""
        due_at = row.expires_at or 0.0
        refreshable = row.status is RowStatus.ACTIVE and row.refresh_token is not None
        if self._refresh_buffer is not None and refreshable:
            due_at -= self._refresh_buffer
        now = self._clock.now()
        if row.source == self._store.source:
            self.cache.put(row)
        entry = self.memory.put(row.user_id, token, due_at=due_at, now=now, stale=overtaken)
        entry.quiet_until = max(entry.quiet_until, now + cooling_for(row, now))
        return entry

    async def _read(self, user: str) -> Entry:
        row, token = await self.look(user)
        return self.memory.entries.get(user) or self.remember(row, token, overtaken=True)
