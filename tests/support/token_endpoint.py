"""A client of an authorization server, and what a token endpoint may answer it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from litellm_oauth.errors import ProviderUnavailable
from litellm_oauth.provider import Provider
from litellm_oauth.settings import ProviderSettings

NOW = 1_800_000_000.0
SECRET = "ort-very-secret"
GOOD = {"access_token": "oat-1", "refresh_token": "ort-2", "expires_in": 28800, "token_type": "Bearer"}

Handler = Callable[[httpx.Request], httpx.Response]


def settings(**changes: Any) -> ProviderSettings:
    values: dict[str, Any] = {
        "issuer": "https://login.example",
        "require_issuer": False,
        "authorize_url": "https://login.example/authorize?tenant=7",
        "token_url": "https://login.example/token",
        "revoke_url": "https://login.example/revoke",
        "redirect_uri": "https://login.example/code",
        "client_id": "our-client",
        "client_secret": None,
        "client_authentication": "body",
        "scopes": ("user:inference", "user:profile"),
        "body": "json",
        "authorize_parameters": {"code": "true"},
        "token_timeout": 0.3,
    }
    return ProviderSettings(**{**values, **changes})


def over_the_wire(handler: Handler) -> Handler:
    """A mock's answer has been read already; one that comes from a server has not."""

    async def pieces(content: bytes) -> AsyncIterator[bytes]:
        yield content

    def handle(request: httpx.Request) -> httpx.Response:
        answer = handler(request)
        if not answer.is_stream_consumed:
            return answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=pieces(answer.content))

    return handle


def provider(handler: Handler, **changes: Any) -> Provider:
    client = httpx.AsyncClient(transport=httpx.MockTransport(over_the_wire(handler)))
    return Provider(settings(**changes), client, lambda: NOW)


def answering(status: int, body: Any = None, headers: dict[str, str] | None = None) -> Handler:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda request: httpx.Response(status, content=content, headers=headers)


def failing(error: Exception) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return handler


async def unavailable(handler: Handler) -> ProviderUnavailable:
    with pytest.raises(ProviderUnavailable) as caught:
        await provider(handler).refresh(SECRET)
    assert SECRET not in caught.value.message
    return caught.value


def sending(status: int, content: bytes, headers: dict[str, str]) -> Handler:
    """An answer that a mock does not unpack by itself."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]

    return lambda request: httpx.Response(status, headers=headers, content=pieces())
