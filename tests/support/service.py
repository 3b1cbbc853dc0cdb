"""Token services over a real database and the sandbox provider: each one stands for a process of its own."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio

from litellm_oauth.assembly import open_service
from litellm_oauth.cipher import Cipher
from litellm_oauth.results import Actor
from litellm_oauth.service import TokenService
from litellm_oauth.settings import Settings, parse_settings
from litellm_oauth.stores.database import Limits
from litellm_oauth.vault import ACCESS, REFRESH

from .postgres import TOKENS, TestDatabase
from .sandbox import SandboxProvider

KEY = "0123456789abcdef" * 4
# For tests of outages: noticed sooner than in production, so that they take less time.
QUICK = Limits(pool=0.5, pool_when_down=0.2, down=0.5)
# For all others: a machine that is busy with other tests is no outage.
PATIENT = Limits(pool=5.0)
ACTOR = Actor("tester", "127.0.0.1")


class MovableClock:
    """The wall clock, which a test can push forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Gateways:
    """Opens services on one database and one provider, and closes them all.

    Services of the same ``host`` share a journal and the host's locks, as the processes of one machine do.
    """

    def __init__(self, database: TestDatabase, sandbox: SandboxProvider, folder: Path) -> None:
        self.folder = folder
        self.database = database
        self.sandbox = sandbox
        self.limits = PATIENT
        self.environment: dict[str, str] = {}
        self._open: list[TokenService] = []

    def settings(self, **changes: Any) -> Settings:
        """Settings for this database and provider; ``provider`` is merged, all else replaced."""
        return parse_settings(*self.given(**changes))

    def given(self, **changes: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """What ``settings`` are made of: the section of config.yaml, and the environment."""
        provider = {**self.sandbox.provider_settings(), "token_timeout": 2, **changes.pop("provider", {})}
        section = {
            "sandbox": True,
            "encryption_key": KEY,
            "provider": provider,
            **self.folders("host"),
            **changes,
        }
        environment = {
            "LITELLM_OAUTH_DATABASE_URL": self.database.settings.url,
            "LITELLM_OAUTH_DATABASE_PASSWORD": self.database.settings.password or "",
            **self.environment,
        }
        return section, environment

    def journal(self, host: str = "host") -> Path:
        """The journal's folder on a host."""
        return self.folder / host / "journal"

    def tokens(self, host: str = "host") -> Path:
        """The token file on a host."""
        return self.folder / host / "tokens" / "claude_tokens.json"

    def folders(self, host: str) -> dict[str, str]:
        """The settings that make a service one of this host's."""
        return {"journal_dir": str(self.journal(host)), "token_file": str(self.tokens(host))}

    async def open_with_old_keys(self, key: str, *old: str) -> TokenService:
        """A service that encrypts with ``key`` and still reads what the ``old`` keys encrypted."""
        return await self._start(replace(self.settings(encryption_key=key), encryption_keys_old=old))

    async def open(
        self,
        *,
        clock: Callable[[], float] = time.time,
        settling: float = 0.0,
        host: str = "host",
        without_database: bool = False,
        **changes: Any,
    ) -> TokenService:
        settings = self.settings(**{**self.folders(host), **changes})
        return await self._start(settings, clock, settling, without_database=without_database)

    async def _start(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        settling: float = 0.0,
        *,
        without_database: bool = False,
    ) -> TokenService:
        service = await open_service(
            settings,
            transport=httpx.AsyncHTTPTransport(verify=False),
            clock=clock,
            limits=replace(self.limits, settling=settling),
            patience=0.0,
            without_database=without_database,
        )
        self._open.append(service)
        return service

    async def log_in(self, service: TokenService, user: str = "alice", account: str | None = None) -> None:
        """A whole login of ``user`` with the account of the same name, or the one given."""
        started = await service.start_login(user, actor=ACTOR, again=True)
        code = await asyncio.to_thread(self.sandbox.approve, started.authorization_url, account or user)
        await service.complete_login(user, code, actor=ACTOR)

    async def expire(self, user: str = "alice", seconds_left: float = -1) -> None:
        """Say in the database that the token expires in so many seconds, and wait until that was heard."""
        await self.change(
            "expires_at = now() + make_interval(secs => %(left)s)", user=user, values={"left": seconds_left}
        )

    async def change(
        self, assignments: str, *, user: str = "alice", values: dict[str, Any] | None = None
    ) -> None:
        """Change a user's row by hand, and wait until all services have heard of it."""
        self.database.query(
            f"UPDATE {TOKENS} SET {assignments} WHERE user_id = %(user)s", {"user": user, **(values or {})}
        )
        for service in self._open:
            entry = service._memory.entries.get(user)
            if entry is not None:
                await eventually(partial(getattr, entry, "stale"))

    def plant(self, users: Sequence[str], *, expires_in: float) -> None:
        """Rows with tokens that the provider never gave, for tests in which it does not look at them."""
        self._insert({user: (f"access-of-{user}", f"refresh-of-{user}") for user in users}, expires_in)

    def log_in_many(self, users: Sequence[str], *, expires_in: float) -> None:
        """Logins of up to a thousand users at once, without a browser; the access tokens end as told."""
        answers = zip(users, self.sandbox.log_in(*users), strict=True)
        tokens = {user: (answer["access_token"], answer["refresh_token"]) for user, answer in answers}
        self._insert(tokens, expires_in)

    def _insert(self, tokens: Mapping[str, tuple[str, str]], expires_in: float) -> None:
        cipher = Cipher(KEY)
        with self.database.transaction() as connection:
            connection.cursor().executemany(
                f"INSERT INTO {TOKENS} "
                "(user_id, access_token_encrypted, refresh_token_encrypted, expires_at) "
                "VALUES (%(user)s, %(access)s, %(refresh)s, now() + make_interval(secs => %(left)s))",
                [
                    {
                        "user": user,
                        "access": cipher.encrypt(access, user=user, field=ACCESS),
                        "refresh": cipher.encrypt(refresh, user=user, field=REFRESH),
                        "left": expires_in,
                    }
                    for user, (access, refresh) in tokens.items()
                ],
            )

    def row(self, user: str = "alice") -> dict[str, Any]:
        return self.database.one(f"SELECT * FROM {TOKENS} WHERE user_id = %(user)s", {"user": user})

    def accepts(self, token: str) -> bool:
        """Whether the provider's API takes the token."""
        headers = {
            "authorization": f"Bearer {token}",
            "anthropic-beta": "oauth-2025-04-20",
            "anthropic-version": "2023-06-01",
        }
        answer = httpx.get(f"{self.sandbox.url}/v1/models", headers=headers, trust_env=False)
        assert answer.status_code in (200, 401)
        return answer.status_code == 200

    def refreshes(self) -> int:
        """How many refresh calls the provider has seen, whatever came of them."""
        return sum(self.sandbox.token_calls().get("refresh_token", {}).values())

    async def close(self) -> None:
        for service in self._open:
            await service.close()


async def eventually(check: Callable[[], Any], seconds: float = 5.0) -> Any:
    """Wait until ``check`` gives something true, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found or time.monotonic() > deadline:
            assert found
            return found
        await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def gateways(
    database: TestDatabase, sandbox: SandboxProvider, tmp_path: Path
) -> AsyncIterator[Gateways]:
    """A factory of services; whatever it opened is closed after the test."""
    made = Gateways(database, sandbox, tmp_path)
    yield made
    await made.close()
