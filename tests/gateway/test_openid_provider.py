"""A standard OpenID provider, in which no code of ours has a part, works by settings alone.

It is django-oauth-toolkit: a confidential client, form bodies, PKCE, rotation, revocation, opaque tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from litellm_oauth.assembly import open_service
from litellm_oauth.cipher import Cipher
from litellm_oauth.gateway.forward import Forwarder, Upstream
from litellm_oauth.gateway.runtime import Runtime
from litellm_oauth.http_client import http_client
from litellm_oauth.service import TokenService
from litellm_oauth.vault import REFRESH
from support.forwarding import forwarding
from support.gateway import Configuration, Gateway, build_gateway
from support.openid_provider import OpenidProvider, openid_provider
from support.openid_site import CLIENT_SECRET, REDIRECT_URI, SCOPES
from support.postgres import TOKENS, TestDatabase

__all__ = ["openid_provider"]

MESSAGE = {"model": "company-model", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def configuration(
    configuration: Configuration, openid_provider: OpenidProvider, tmp_path: Path
) -> Configuration:
    """Settings as an operator outside the sandbox writes them; the client's secret comes from a file."""
    configuration.change(
        sandbox=False, allowed_api_bases=[openid_provider.url], provider=openid_provider.settings()
    )
    secret = tmp_path / "client_secret"
    secret.write_text(CLIENT_SECRET)
    environ = {**configuration.environ, "CLAUDE_OAUTH_CLIENT_SECRET_FILE": str(secret)}
    return replace(configuration, environ=environ)


@pytest.fixture
def gateway(service: TokenService, configuration: Configuration) -> Gateway:
    return build_gateway(lambda: service, configuration.settings(), None)


@pytest.fixture
async def models(
    service: TokenService, configuration: Configuration, openid_provider: OpenidProvider
) -> AsyncIterator[httpx.AsyncClient]:
    """Who asks for a model through the gateway; the header ``user`` says for whom."""
    settings = configuration.settings()
    async with http_client(trust_env=False) as api:
        forwarder = Forwarder(Runtime(settings, service, {}), api)
        upstream = Upstream(openid_provider.url)
        app = forwarding(forwarder, upstream, lambda headers: headers["user"], settings.public_url)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield client


async def ask(models: httpx.AsyncClient, user: str) -> httpx.Response:
    headers = {"user": user, "authorization": "Bearer sk-of-the-gateway", "x-api-key": "sk-of-the-gateway"}
    return await models.post("/v1/messages", json=MESSAGE, headers=headers)


async def approved(gateway: Gateway, provider: OpenidProvider, user: str) -> str:
    """The address that consent led to, after a login was started."""
    started = (await gateway.call(f"sk-{user}", "GET", "/start")).json()
    return await asyncio.to_thread(provider.approve, started["authorization_url"], user)


async def log_in(gateway: Gateway, provider: OpenidProvider, user: str = "alice") -> None:
    code = await approved(gateway, provider, user)
    answer = await gateway.call(f"sk-{user}", "POST", "/exchange", json={"code": code})
    assert answer.status_code == 200, answer.text


def refresh_token(database: TestDatabase, configuration: Configuration, user: str = "alice") -> str:
    """The refresh token that is stored."""
    row = database.one(f"SELECT * FROM {TOKENS} WHERE user_id = %(user)s", {"user": user})  # noqa: S608
    cipher = Cipher(configuration.settings().encryption_key)
    return cipher.decrypt(row["refresh_token_encrypted"], user=user, field=REFRESH)


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize("way", ["basic", "body"])
async def test_the_client_may_prove_itself_in_either_way(
    configuration: Configuration, openid_provider: OpenidProvider, way: str
) -> None:
    configuration.change(provider={**openid_provider.settings(), "client_authentication": way})
    service = await open_service(configuration.settings())
    try:
        await log_in(build_gateway(lambda: service, configuration.settings(), None), openid_provider)
    finally:
        await service.close()


async def test_each_user_s_own_token_goes_to_the_api_as_a_bearer(
    gateway: Gateway, service: TokenService, models: httpx.AsyncClient, openid_provider: OpenidProvider
) -> None:
    for user in ("alice", "bob"):
        await log_in(gateway, openid_provider, user)
    status = (await gateway.call("sk-alice", "GET", "/status")).json()
    assert (status["status"], set(status["scopes"])) == ("active", set(SCOPES))
    for user in ("alice", "bob"):
        answer = (await ask(models, user)).json()
        assert answer["content"] == [{"type": "text", "text": f"Hello, {user}."}]
        token = (await service.access_token(user)).value
        assert answer["headers"]["authorization"] == f"Bearer {token}"
        assert not token.startswith("sk-ant-")
        assert not {"x-api-key", "anthropic-beta"} & set(answer["headers"])


async def test_a_code_without_the_issuer_does_not_count_and_costs_nothing(
    gateway: Gateway, openid_provider: OpenidProvider
) -> None:
    address = await approved(gateway, openid_provider, "alice")
    assert address.startswith(f"{REDIRECT_URI}?")
    query = parse_qs(urlsplit(address).query)
    assert query["iss"] == [openid_provider.metadata["issuer"]]
    bare = {"code": query["code"][0], "state": query["state"][0]}
    answer = await gateway.call("sk-alice", "POST", "/exchange", json=bare)
    assert error_of(answer) == (400, "invalid_input")
    assert "paste the whole address" in answer.json()["error"]["message"]
    answer = await gateway.call("sk-alice", "POST", "/exchange", json={"code": address})
    assert answer.status_code == 200, answer.text


async def test_a_refresh_rotates_and_only_what_is_stored_goes_on_working(
    gateway: Gateway,
    service: TokenService,
    models: httpx.AsyncClient,
    database: TestDatabase,
    configuration: Configuration,
    openid_provider: OpenidProvider,
) -> None:
    await log_in(gateway, openid_provider)
    access, spent = (await service.access_token("alice")).value, refresh_token(database, configuration)
    for generation in (2, 3):
        answer = await gateway.call("sk-alice", "POST", "/refresh", json={"force": True})
        assert (answer.json()["result"], answer.json()["generation"]) == ("refreshed", generation)
        refused = openid_provider.refresh(spent)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
        assert not openid_provider.accepts(access)
        assert (await ask(models, "alice")).status_code == 200
        access, spent = (await service.access_token("alice")).value, refresh_token(database, configuration)


async def test_a_login_that_the_provider_has_ended_is_told_to_log_in_again(
    gateway: Gateway,
    models: httpx.AsyncClient,
    database: TestDatabase,
    configuration: Configuration,
    openid_provider: OpenidProvider,
) -> None:
    await log_in(gateway, openid_provider)
    openid_provider.revoke(refresh_token(database, configuration))
    # The API refuses the token, and the provider the refresh token that would replace it.
    answer = await ask(models, "alice")
    assert error_of(answer) == (401, "reauth_required")
    assert "/auth/claude/oauth/start?user_id=alice" in answer.json()["error"]["message"]
    status = (await gateway.call("sk-alice", "GET", "/status")).json()
    assert status["status"] == "reauth_required"
    await log_in(gateway, openid_provider)
    assert (await ask(models, "alice")).status_code == 200


async def test_a_logout_ends_the_tokens_at_the_provider(
    gateway: Gateway,
    service: TokenService,
    database: TestDatabase,
    configuration: Configuration,
    openid_provider: OpenidProvider,
) -> None:
    await log_in(gateway, openid_provider)
    access, refresh = (await service.access_token("alice")).value, refresh_token(database, configuration)
    assert openid_provider.accepts(access)
    answer = (await gateway.call("sk-alice", "POST", "/logout")).json()
    assert (answer["was_logged_in"], answer["revoked"]) == (True, True)
    assert not openid_provider.accepts(access)
    assert openid_provider.refresh(refresh).json()["error"] == "invalid_grant"


async def test_a_wrong_secret_ends_nobody_s_login(
    gateway: Gateway, configuration: Configuration, openid_provider: OpenidProvider
) -> None:
    await log_in(gateway, openid_provider)
    Path(configuration.environ["CLAUDE_OAUTH_CLIENT_SECRET_FILE"]).write_text("not the secret")
    mistaken = await open_service(configuration.settings())
    try:
        other = build_gateway(lambda: mistaken, configuration.settings(), None)
        answer = await other.call("sk-alice", "POST", "/refresh", json={"force": True})
        assert answer.json()["error"]["code"] == "provider_refused", answer.text
        assert "client_authentication" in answer.json()["error"]["message"]
    finally:
        await mistaken.close()
    status = (await gateway.call("sk-alice", "GET", "/status")).json()
    assert (status["authenticated"], status["generation"]) == (True, 1)
