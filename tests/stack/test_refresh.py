"""The gateway keeps tokens fresh by itself, and one token is refreshed once, whoever asks."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterator

import httpx
import pytest

from support.stack import Stack, log_in, log_out, status

USER = "refresh-user"
EXPIRE = """
  UPDATE "LiteLLM_ClaudeOAuthTokens" SET expires_at = now() - interval '1 second'
  WHERE user_id = 'refresh-user'
"""
AS_USER = {"x-litellm-oauth-user": USER}


@pytest.fixture
def short_lived(gateway: httpx.Client, sandbox: httpx.Client) -> Iterator[float]:
    """Access tokens that live for twelve seconds, and ordinary ones again afterwards."""
    seconds = 12
    sandbox.post("/control/settings", json={"access_token_seconds": seconds}).raise_for_status()
    yield seconds
    sandbox.post("/control/settings", json={"access_token_seconds": 28800}).raise_for_status()
    log_out(gateway, USER)


def chat(gateway: httpx.Client) -> httpx.Response:
    body = {"model": "claude-haiku", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}
    return gateway.post("/v1/chat/completions", json=body, headers=AS_USER)


def test_the_gateway_refreshes_by_itself(gateway: httpx.Client, short_lived: float) -> None:
    before = log_in(gateway, USER)
    deadline = time.monotonic() + 60
    while (now := status(gateway, USER))["generation"] == before[
        "generation"
    ] and time.monotonic() < deadline:
        time.sleep(0.5)
    assert now["generation"] == before["generation"] + 1
    assert now["status"] in ("active", "due")


def test_fifty_requests_on_an_expired_token_make_one_refresh(
    stack: Stack, gateway: httpx.Client, sandbox: httpx.Client
) -> None:
    before = log_in(gateway, USER)
    calls = sandbox.get("/control/token-calls").json()["refresh_token"]["ok"]
    assert stack.sql(EXPIRE) == "UPDATE 1"
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: chat(gateway).status_code, range(50)))
    after = status(gateway, USER)
    assert answers == [200] * 50
    assert after["generation"] == before["generation"] + 1
    assert sandbox.get("/control/token-calls").json()["refresh_token"]["ok"] == calls + 1
    log_out(gateway, USER)


def test_a_chat_after_expiry_goes_upstream_with_the_new_token(
    gateway: httpx.Client, sandbox: httpx.Client, short_lived: float
) -> None:
    log_in(gateway, USER)
    assert chat(gateway).status_code == 200
    time.sleep(short_lived + 0.5)
    assert chat(gateway).status_code == 200
    account = status(gateway, USER)["account"]["account"]["email_address"].split("@")[0]
    seen = [one for one in sandbox.get("/control/requests").json() if one["account"] == account]
    assert [one["status"] for one in seen] == [200, 200]
    assert seen[0]["token_sha256"] != seen[1]["token_sha256"]


def test_the_log_tells_of_login_refresh_and_logout_and_shows_no_token(
    stack: Stack, gateway: httpx.Client
) -> None:
    generation = int(log_in(gateway, USER)["generation"])
    query = {"user_id": USER}
    gateway.post("/auth/claude/oauth/refresh", params=query, json={"force": True}).raise_for_status()
    log_out(gateway, USER)
    log = stack.logs("litellm")
    for said in (
        f"{USER} logged in (generation {generation})",
        f"refreshed the token of {USER} (generation {generation + 1})",
        f"{USER} logged out (generation {generation + 2})",
    ):
        assert f"litellm_oauth INFO: {said}" in log
    assert "sk-ant-" not in log


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_429_of_the_api_is_the_client_s_to_wait_for(
    gateway: httpx.Client, sandbox: httpx.Client, path: str
) -> None:
    """Asked again at once, the API would count that as well."""
    user = "limited"
    account = log_in(gateway, user)["account"]["account"]["email_address"].split("@")[0]
    fault = {"endpoint": "messages", "kind": "status", "status": 429, "account": account, "times": None}
    sandbox.post("/control/faults", json=fault).raise_for_status()
    body = {"model": "claude-haiku", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9}
    try:
        answer = gateway.post(path, json=body, headers={"x-litellm-oauth-user": user})
    finally:
        sandbox.delete("/control/faults").raise_for_status()
    assert answer.status_code == 429, answer.text
    assert len(sandbox.get("/control/requests", params={"account": account}).json()) == 1
    log_out(gateway, user)
