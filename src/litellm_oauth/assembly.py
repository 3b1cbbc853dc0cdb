"""Puts the service together: database, migrations, key, provider. For the gateway and the command line."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from .attempts import Attempts
from .background import Background
from .changes import Changes
from .cipher import Cipher
from .clock import AuthorityClock
from .disk import Disk
from .errors import SettingsError, StorageUnavailable
from .journal import Journal
from .login import LoginFlow
from .pkce import RandomBytes
from .provider import Provider
from .reader import TokenReader
from .refresh import Refresher
from .results import Actor
from .service import TokenService
from .settings import DatabaseSettings, Settings
from .stores import TokenStore
from .stores.database import LIMITS, Database, Limits
from .stores.listener import listen
from .stores.logins import PostgresLogins
from .stores.memory import TokenMemory
from .stores.migrations import migrate, migrations_folder, read_migrations
from .stores.postgres import PostgresTokens
from .vault import Vault

_log = logging.getLogger(__name__)


async def open_service(
    settings: Settings,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.time,
    random: Callable[[], float] = random_module.random,
    random_bytes: RandomBytes = secrets.token_bytes,
    host: str | None = None,
    patience: float = 15.0,
    limits: Limits = LIMITS,
) -> TokenService:
    """Open the pool, apply pending migrations, check the key, and start to listen for changes.

    ``patience``: seconds to wait for a database that is still starting. The background loop is not started;
    run ``service.run_background()`` for that. ``limits``: how long the database may take.

    Raises SettingsError for a missing, malformed or wrong key and for a missing database, MigrationError and
    StorageUnavailable.
    """
    if settings.database is None or not settings.use_database:
        raise SettingsError(
            [
                "claude_oauth.use_database: is false, and tokens are kept only in PostgreSQL so far; "
                "set it to true and give LITELLM_OAUTH_DATABASE_URL"
            ]
        )
    cipher = Cipher(settings.encryption_key, settings.encryption_keys_old, random_bytes=random_bytes)
    async with AsyncExitStack() as resources:
        disk = Disk()
        resources.callback(disk.close)
        journal = Journal(settings.journal_dir, disk)
        resources.callback(journal.close)
        database = await _open_database(settings.database, resources, patience, limits)
        tokens = PostgresTokens(database, settings.provider.token_url)
        await check_key(tokens, cipher)
        logins = PostgresLogins(database)
        client = await resources.enter_async_context(
            httpx.AsyncClient(transport=transport, trust_env=transport is None, cookies=_no_cookies())
        )
        authority_clock = AuthorityClock(clock)
        authority_clock.observe(await tokens.now())
        provider = Provider(settings.provider, client, authority_clock.now)
        vault = Vault(cipher)
        memory = TokenMemory()
        changes = Changes(memory)
        actor = Actor("gateway", host or socket.gethostname())
        reader = TokenReader(
            tokens, vault, memory, authority_clock, settings.refresh_buffer if settings.auto_refresh else None
        )
        attempts = Attempts(tokens, journal, vault, provider, memory, authority_clock)
        refresher = Refresher(
            tokens,
            attempts,
            vault,
            provider,
            reader,
            changes,
            authority_clock,
            forced_per_day=settings.forced_refreshes_per_day,
            random=random,
        )
        background = Background(
            tokens,
            logins,
            memory,
            refresher,
            actor=Actor("background", actor.origin),
            refresh_buffer=settings.refresh_buffer,
            auto_refresh=settings.auto_refresh,
            random=random,
        )
        listening = asyncio.create_task(listen(database.parameters, changes), name="litellm_oauth listener")
        resources.push_async_callback(_end, listening)
        return TokenService(
            tokens,
            vault,
            provider,
            reader,
            authority_clock,
            refresher,
            LoginFlow(tokens, logins, vault, provider, authority_clock, random_bytes),
            background,
            resources.pop_all(),
            actor=actor,
            refresh_buffer=settings.refresh_buffer,
            auto_refresh=settings.auto_refresh,
        )


async def check_key(tokens: TokenStore, cipher: Cipher) -> None:
    """Compare the keyring with the check values in the store; add the current key's where it is new.

    Raises SettingsError where the store was written with a key that is not in the keyring: to go on would
    make every stored login unreadable.
    """
    checks = await tokens.key_checks()
    known = [key_id for key_id, value in checks.items() if cipher.matches(key_id, value)]
    if len(known) == len(checks):
        if cipher.key_id in checks:
            return
        if await tokens.add_key_check(cipher.key_id, cipher.check_value(), known):
            return
        # Another gateway began at the same moment, with another key.
        checks = await tokens.key_checks()
    wrong = ", ".join(sorted(set(checks) - set(known) - {cipher.key_id})) or cipher.key_id
    raise SettingsError(
        [
            f"claude_oauth.encryption_key: is key {cipher.key_id}, but the database was written with "
            f"key {wrong}; put that key back, or list it in CLAUDE_TOKEN_ENCRYPTION_KEYS_OLD. If it is "
            "lost, all have to log in again: delete its row from claude_oauth.key_checks first"
        ]
    )


async def _open_database(
    settings: DatabaseSettings, resources: AsyncExitStack, patience: float, limits: Limits
) -> Database:
    database = Database(settings, limits=limits)
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
    await database.open()
    resources.push_async_callback(database.close)
    return database


def _no_cookies() -> CookieJar:
    """A jar that keeps nothing: what the provider sets for one user must not go out with another's token."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
