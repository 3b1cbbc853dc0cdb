"""A gateway without LiteLLM: our routes on a bare application, and its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml
from fastapi import FastAPI, Request

from litellm_oauth.gateway.errors import UnknownKey
from litellm_oauth.gateway.identity import Caller
from litellm_oauth.gateway.routes import build_router
from litellm_oauth.service import TokenService
from litellm_oauth.settings import Settings, load_settings
from support.sandbox import SandboxProvider

KEYS = {
    "sk-master": Caller("default", is_admin=True),
    "sk-alice": Caller("alice", is_admin=False),
    "sk-bob": Caller("bob", is_admin=False),
}


@dataclass(frozen=True, slots=True)
class Configuration:
    """config.yaml and the environment that goes with it, as the gateway's container has them."""

    path: Path
    environ: Mapping[str, str]

    def change(self, **settings: object) -> None:
        document = yaml.safe_load(self.path.read_text())
        document["claude_oauth"] |= settings
        self.path.write_text(yaml.safe_dump(document))

    def settings(self) -> Settings:
        return load_settings(self.environ)


@dataclass(frozen=True, slots=True)
class Gateway:
    """A client for each caller, and a way in for a person with a browser."""

    app: FastAPI
    sandbox: SandboxProvider | None

    def client(self, key: str | None, **headers: str) -> httpx.AsyncClient:
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
            base_url="http://gateway/auth/claude/oauth",
            headers=headers,
        )

    async def call(
        self, key: str | None, method: str, path: str, *, json: object = None, **headers: str
    ) -> httpx.Response:
        async with self.client(key, **headers) as client:
            return await client.request(method, path, json=json)

    async def log_in(self, key: str, user: str | None = None) -> httpx.Response:
        """Start, approve as ``user``, exchange."""
        query = f"?user_id={user}" if user else ""
        assert self.sandbox is not None
        started = (await self.call(key, "GET", f"/start{query}")).json()
        code = self.sandbox.approve(started["authorization_url"], login_hint=user)
        return await self.call(key, "POST", f"/exchange{query}", json={"code": code})


def build_gateway(
    service: Callable[[], TokenService], settings: Settings, sandbox: SandboxProvider | None
) -> Gateway:
    async def authenticate(request: Request) -> Caller:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if key not in KEYS:
            raise UnknownKey
        return KEYS[key]

    app = FastAPI()
    app.include_router(build_router(service, authenticate, settings))
    return Gateway(app, sandbox)
