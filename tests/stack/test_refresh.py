"""The gateway keeps tokens fresh by itself, and one token is refreshed once, whoever asks."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from .test_playbooks import approve

USER = "refresh-user"
AS_USER = {"x-litellm-oauth-user": USER}


def status(gateway: httpx.Client) -> dict[str, Any]:
    answer: dict[str, Any] = gateway.get("/auth/claude/oauth/status", params={"user_id": USER}).json()
    return answer


def log_in(gateway: httpx.Client) -> dict[str, Any]:
    started = gateway.get("/auth/claude/oauth/start", params={"user_id": USER, "force": "true"}).json()
    code = approve(started["authorization_url"])
    answer = gateway.post("/auth/claude/oauth/exchange", params={"user_id": USER}, json={"code": code})
    assert answer.status_code == 200, answer.text
    return status(gateway)


@pytest.fixture
def short_lived(gateway: httpx.Client, sandbox: httpx.Client) -> Iterator[float]:
    """Access tokens that live for twelve seconds, and ordinary ones again afterwards."""
    seconds = 12
    sandbox.post("/control/settings", json={"access_token_seconds": seconds}).raise_for_status()
    yield seconds
    sandbox.post("/control/settings", json={"access_token_seconds": 28800}).raise_for_status()
    gateway.post("/auth/claude/oauth/logout", params={"user_id": USER})


def chat(gateway: httpx.Client) -> httpx.Response:
    body = {"model": "claude-haiku", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}
    return gateway.post("/v1/chat/completions", json=body, headers=AS_USER)


def test_the_gateway_refreshes_by_itself(gateway: httpx.Client, short_lived: float) -> None:
    before = log_in(gateway)
    deadline = time.monotonic() + 60
    while (now := status(gateway))["generation"] == before["generation"] and time.monotonic() < deadline:
        time.sleep(0.5)
    assert now["generation"] == before["generation"] + 1
    assert now["status"] in ("active", "due")


def test_fifty_requests_on_an_expired_token_make_one_refresh(
    gateway: httpx.Client, sandbox: httpx.Client, short_lived: float
) -> None:
    before = log_in(gateway)
    time.sleep(short_lived + 0.5)
    sandbox.post("/control/settings", json={"access_token_seconds": 28800}).raise_for_status()
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: chat(gateway).status_code, range(50)))
    after = status(gateway)
    assert answers == [200] * 50
    # The background loop may have been quicker once, when the token came into its refresh buffer.
    assert after["generation"] - before["generation"] <= 2
    assert after["refresh_count"] - before["refresh_count"] == after["generation"] - before["generation"]
    assert after["expires_in"] > 28000


def test_a_chat_after_expiry_goes_upstream_with_the_new_token(
    gateway: httpx.Client, sandbox: httpx.Client, short_lived: float
) -> None:
    log_in(gateway)
    assert chat(gateway).status_code == 200
    time.sleep(short_lived + 0.5)
    assert chat(gateway).status_code == 200
    account = status(gateway)["account"]["email_address"]
    records = sandbox.get("/control/requests").json()
    records = records["requests"] if isinstance(records, dict) else records
    seen = [record["token_sha256"] for record in records if record["account"] == account]
    assert seen[-1] != seen[0]
    assert all(record["status"] == 200 for record in records if record["account"] == account)
