"""The tier in PostgreSQL: migrated, opened, listened to, and tried again where it was away at the start."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from .changes import Changes
from .cipher import Cipher
from .clock import AuthorityClock
from .errors import LitellmOAuthError, StorageUnavailable
from .key_check import IN_DATABASE, check_key
from .settings import Settings
from .stores.database import LIMITS, Database, Limits
from .stores.file import FileTokens
from .stores.jobs import PostgresJobs
from .stores.listener import listen
from .stores.logins import PostgresLogins
from .stores.migrations import migrate, migrations_folder, read_migrations
from .stores.postgres import PostgresTokens
from .tasks import end

_log = logging.getLogger(__name__)


class DatabaseTier:
    """The stores in the database. ``limits``: how long it may take."""

    def __init__(
        self,
        settings: Settings,
        cipher: Cipher,
        clock: AuthorityClock,
        changes: Changes,
        files: FileTokens,
        *,
        limits: Limits | None,
    ) -> None:
        if settings.database is None:
            raise ValueError("the settings name no database")
        self._database = Database(settings.database, limits=limits or LIMITS)
        provider = settings.provider
        self.tokens = PostgresTokens(self._database, provider.token_url, provider.client_id)
        self.logins = PostgresLogins(self._database)
        self.jobs = PostgresJobs(self._database)
        self._cipher = cipher
        self._clock = clock
        self._changes = changes
        self._files = files
        self._opening: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None

    async def open(self, patience: float) -> None:
        """Apply pending migrations, check the key, and listen. Raises as ``assembly.open_service`` does."""
        await _migrate(self._database, patience)
        await self._database.open()
        await check_key(self.tokens, self._cipher, IN_DATABASE)
        self._clock.observe(await self.tokens.now())
        with suppress(StorageUnavailable):
            # So that a start without the database knows the key as well.
            await self._files.note_key(self._cipher.key_id, self._cipher.check_value())
        self._listening = asyncio.create_task(
            listen(self._database.parameters, self._changes), name="litellm_oauth listener"
        )

    def open_later(self) -> None:
        """Go on trying behind everybody's back."""
        self._opening = asyncio.create_task(self._open_later(), name="litellm_oauth database")

    async def close(self) -> None:
        """End what runs; the opening first, since it may begin to listen."""
        if self._opening is not None:
            await end(self._opening)
        if self._listening is not None:
            await end(self._listening)
        await self._database.close()

    async def _open_later(self) -> None:
        while True:
            try:
                await self.open(patience=0.0)
            except StorageUnavailable:
                await asyncio.sleep(1.0)
            except LitellmOAuthError as error:
                # A wrong key, or tables that do not fit: the files go on serving, the database is left alone.
                _log.error("the token database cannot be used: %s", error.message)
                await self._database.close()
                return
            else:
                _log.warning("the token database is back")
                return


async def _migrate(database: Database, patience: float) -> None:
    migrations = read_migrations(migrations_folder())
    deadline = time.monotonic() + patience
    while True:
        try:
            applied = await migrate(database.parameters, migrations)
            break
        except StorageUnavailable as error:
            if time.monotonic() >= deadline:
                raise
            _log.warning("waiting for the token database: %s", error.message)
            await asyncio.sleep(1.0)
    for name in applied:
        _log.info("applied the migration %s", name)
