"""The login as two calls for programs inside the gateway's container."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from .assembly import open_service
from .gateway import views
from .results import Actor
from .service import TokenService
from .settings import Settings, load_settings


class ClaudeOAuthFlow:
    """Log one user in. Settings come from the gateway's own configuration unless they are passed in."""

    def __init__(self, user_id: str = "default", *, settings: Settings | None = None) -> None:
        self._user = user_id
        self._settings = settings

    async def start_flow(self, *, force: bool = False) -> tuple[str, str]:
        """The URL to open in a browser, and its state.

        Raises AlreadyLoggedIn where a working login exists (unless ``force``), SettingsError and
        StorageUnavailable.
        """
        async with self._service() as service:
            started = await service.start_login(self._user, actor=_actor(), again=force)
        return started.authorization_url, started.state

    async def complete_flow(self, code: str, state: str | None = None) -> dict[str, Any]:
        """Exchange the code. Returns how the login stands, without its tokens.

        Raises what ``TokenService.complete_login`` raises.
        """
        async with self._service() as service:
            status = await service.complete_login(self._user, code, state, actor=_actor())
        return {**views.status(status)}

    @asynccontextmanager
    async def _service(self) -> AsyncIterator[TokenService]:
        service = await open_service(self._settings or load_settings())
        try:
            yield service
        finally:
            await service.close()


def _actor() -> Actor:
    return Actor(name="claude_oauth_flow", origin=socket.gethostname())
