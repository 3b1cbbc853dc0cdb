"""Puts the service together: tiers, migrations, key, provider. For the gateway and the command line."""

from __future__ import annotations

import logging
import random as random_module
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import httpx

from .attempts import Attempts
from .background import Background
from .bulk import Bulk
from .changes import Changes
from .cipher import Cipher
from .clock import AuthorityClock
from .disk import Disk
from .errors import SettingsError, StorageUnavailable
from .http_client import http_client
from .jobs import Jobs
from .journal import Journal
from .judgement import Rules
from .key_check import IN_FILES, check_key
from .login import LoginFlow
from .pkce import RandomBytes
from .provider import Provider
from .reader import TokenReader
from .refresh import Refresher
from .results import Actor
from .service import TokenService
from .settings import Settings
from .status import LoginAge
from .stores import LoginStore, TokenCache, TokenStore
from .stores.documents import Documents
from .stores.environment import EnvironmentTokens
from .stores.file import FileTokens
from .stores.file_logins import FileLogins
from .stores.job_store import JobStore
from .stores.memory import RECHECK, RECHECK_FILE, TokenMemory
from .stores.memory_jobs import MemoryJobs
from .stores.redis import NoCache, RedisCache
from .stores.tiers import Tiers
from .transfer import Transfer
from .vault import Vault

if TYPE_CHECKING:
    from .stores.database import Limits

_log = logging.getLogger(__name__)


async def open_service(
    settings: Settings,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.time,
    random: Callable[[], float] = random_module.random,
    random_bytes: RandomBytes = secrets.token_bytes,
    patience: float = 15.0,
    without_database: bool = False,
    limits: Limits | None = None,
) -> TokenService:
    """Open the tiers, apply pending migrations, check the key, and start to listen for changes.

    ``patience``: seconds to wait for a database that is still starting. ``without_database``: start all the
    same where it is still away then, and go on trying; what the host's files hold is served meanwhile. The
    background loop is not started; run ``service.run_background()`` for that. ``limits``: how long the
    database may take.

    Raises SettingsError for a missing, malformed or wrong key and for a folder that cannot be used,
    MigrationError, and StorageUnavailable.
    """
    cipher = Cipher(settings.encryption_key, settings.encryption_keys_old, random_bytes=random_bytes)
    async with AsyncExitStack() as resources:
        disk = Disk()
        resources.callback(disk.close)
        journal = Journal(settings.journal_dir, disk)
        resources.callback(journal.close)
        authority_clock = AuthorityClock(clock)
        memory = TokenMemory(recheck=RECHECK if settings.use_database else RECHECK_FILE)
        cache = _cache(settings, authority_clock)
        resources.push_async_callback(cache.close)
        changes = Changes(memory, cache)
        actor = Actor("gateway", socket.gethostname())
        tiers = _Tiers(settings, cipher, journal, disk, authority_clock, changes, actor)
        tokens, logins = await tiers.open(resources, limits, patience, without_database=without_database)
        client = await resources.enter_async_context(
            http_client(transport=transport, trust_env=transport is None)
        )
        provider = Provider(settings.provider, client, authority_clock.now)
        vault = Vault(cipher)
        buffer = settings.refresh_buffer if settings.auto_refresh else None
        reader = TokenReader(tokens, vault, memory, cache, authority_clock, buffer)
        age = LoginAge(settings.login_lifetime, settings.login_warning)
        attempts = Attempts(tokens, journal, vault, provider, memory, authority_clock)
        refresher = Refresher(
            tokens,
            attempts,
            vault,
            provider,
            reader,
            changes,
            authority_clock,
            rules=Rules(settings.provider.client_id, settings.forced_refreshes_per_day),
            age=age,
            random=random,
        )
        bulk = Bulk(tokens, refresher, vault, authority_clock)
        jobs = Jobs(tiers.jobs, bulk)
        background = Background(
            tokens,
            logins,
            memory,
            refresher,
            bulk,
            jobs,
            actor=Actor("background", actor.origin),
            refresh_buffer=settings.refresh_buffer,
            auto_refresh=settings.auto_refresh,
            random=random,
        )
        return TokenService(
            tokens,
            vault,
            provider,
            reader,
            authority_clock,
            refresher,
            LoginFlow(tokens, logins, vault, provider, authority_clock, random_bytes),
            Transfer(tokens, vault, refresher, authority_clock),
            background,
            bulk,
            jobs,
            resources.pop_all(),
            actor=actor,
            refresh_buffer=settings.refresh_buffer,
            auto_refresh=settings.auto_refresh,
            age=age,
        )


class _Tiers:
    """Opens the stores that the settings ask for. ``jobs`` is the one of jobs, after ``open``."""

    def __init__(
        self,
        settings: Settings,
        cipher: Cipher,
        journal: Journal,
        disk: Disk,
        clock: AuthorityClock,
        changes: Changes,
        actor: Actor,
    ) -> None:
        self._settings = settings
        self._cipher = cipher
        self._vault = Vault(cipher)
        self._clock = clock
        self.jobs: JobStore = MemoryJobs(clock.now)
        self._changes = changes
        self._actor = actor
        documents = Documents(
            settings.token_file, journal.folder, self._seal, authority=not settings.use_database
        )
        self._documents = documents
        self._files = FileTokens(
            documents,
            journal.folder,
            journal.locks,
            disk,
            settings.provider.token_url,
            settings.provider.client_id,
            clock.now,
            self._vault.readable,
        )
        given = settings.environment_tokens
        self._environment = None if given is None else EnvironmentTokens(given, self._seal, clock.now)

    async def open(
        self, resources: AsyncExitStack, limits: Limits | None, patience: float, *, without_database: bool
    ) -> tuple[TokenStore, LoginStore]:
        """The composed store and the pending logins. Raises as ``open_service`` does."""
        self._prepare_files()
        if self._settings.database is None or not self._settings.use_database:
            await check_key(self._files, self._cipher, IN_FILES)
            return self._composed(self._files, None), FileLogins(self._files, self._clock.now)
        # The one part that needs the database driver, which an image for file mode does not have.
        from .database_tier import DatabaseTier

        database = DatabaseTier(
            self._settings, self._cipher, self._clock, self._changes, self._files, limits=limits
        )
        resources.push_async_callback(database.close)
        self.jobs = database.jobs
        try:
            await database.open(patience)
        except StorageUnavailable as error:
            if not without_database:
                raise
            await check_key(self._files, self._cipher, IN_FILES)
            _log.warning("starting without the token database: %s", error.message)
            database.open_later()
        return self._composed(database.tokens, self._files), database.logins

    def _composed(self, authority: TokenStore, files: FileTokens | None) -> Tiers:
        single_host = self._settings.single_host or not self._settings.use_database
        return Tiers(
            authority,
            files,
            self._environment,
            self._actor,
            self._vault.readable,
            single_host=single_host,
        )

    def _prepare_files(self) -> None:
        try:
            self._documents.prepare()
        except OSError as error:
            folder = self._settings.token_file.parent
            if not self._settings.use_database:
                raise SettingsError(
                    [
                        f"claude_oauth.token_file: the folder {folder} cannot be used "
                        f"({error.strerror or error}); make it one that the gateway may write to"
                    ]
                ) from None
            _log.warning(
                "the folder %s of the token files cannot be used (%s)", folder, error.strerror or error
            )

    def _seal(self, user: str, field: str, value: str) -> str:
        return self._cipher.encrypt(value, user=user, field=field)


def _cache(settings: Settings, clock: AuthorityClock) -> TokenCache:
    # A file of this host is as near as Redis, and tells at once what a person did to it.
    if settings.redis is None or not settings.use_database:
        return NoCache()
    return RedisCache(settings.redis, clock.now)
