"""A stream fails before its first byte, by a status, or ends cleanly with an event that says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.stack import log_in, log_out

USER = "streaming"
BODY: dict[str, Any] = {
    "model": "claude-haiku",
    "messages": [{"role": "user", "content": "Hello, how are you today?"}],
    "max_tokens": 50,
    "stream": True,
}
# A field of LiteLLM's own makes it take a message through its router.
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", BODY),
    "messages": ("/v1/messages", BODY),
    "messages through the router": ("/v1/messages", {**BODY, "num_retries": 1}),
    "pass-through": ("/anthropic/v1/messages", BODY),
    "responses": ("/v1/responses", {"model": "claude-haiku", "input": "Hello there", "stream": True}),
}


@pytest.fixture(scope="module")
def account(gateway: httpx.Client) -> Iterator[str]:
    yield log_in(gateway, USER)["account"]["account"]["email_address"].split("@")[0]
    log_out(gateway, USER)


@pytest.fixture(autouse=True)
def no_faults(sandbox: httpx.Client) -> Iterator[None]:
    yield
    sandbox.delete("/control/faults").raise_for_status()


def streamed(gateway: httpx.Client, route: str) -> tuple[int, str]:
    """Status and whole text. httpx raises where the connection ends before the answer does."""
    path, body = ROUTES[route]
    with gateway.stream("POST", path, json=body, headers={"x-litellm-oauth-user": USER}) as answer:
        return answer.status_code, "".join(answer.iter_text())


@pytest.mark.parametrize("route", ROUTES)
def test_an_answer_that_breaks_off_ends_with_an_error(
    gateway: httpx.Client, sandbox: httpx.Client, account: str, route: str
) -> None:
    fault = {"endpoint": "messages", "kind": "cut", "account": account, "times": None}
    sandbox.post("/control/faults", json=fault).raise_for_status()
    status, text = streamed(gateway, route)
    assert "sk-ant-" not in text
    if route in ("messages", "pass-through"):
        assert status == 200
        *_, kind, data = [line for line in text.splitlines() if line]
        assert kind == "event: error"
        assert json.loads(data.removeprefix("data: "))["error"]["type"] == "api_error"
    else:
        # LiteLLM's own words: a status where it had held the events back, else an event among the last.
        assert status >= 500 or "error" in text.splitlines()[-2] + text.splitlines()[-4]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("kind", "expected"), [({"kind": "status", "status": 400}, (400,)), ({"kind": "lost_answer"}, (500, 503))]
)
def test_what_fails_before_the_first_byte_is_a_status(
    gateway: httpx.Client,
    sandbox: httpx.Client,
    account: str,
    route: str,
    kind: dict[str, object],
    expected: tuple[int, ...],
) -> None:
    fault = {"endpoint": "messages", "account": account, "times": None, **kind}
    sandbox.post("/control/faults", json=fault).raise_for_status()
    status, text = streamed(gateway, route)
    assert status in expected, text
    assert "sk-ant-" not in text


@pytest.mark.parametrize("route", ROUTES)
def test_a_token_that_died_is_replaced_before_the_first_byte(
    gateway: httpx.Client, sandbox: httpx.Client, route: str
) -> None:
    user = f"{USER}-{route.replace(' ', '-')}"
    account = log_in(gateway, user)["account"]["account"]["email_address"].split("@")[0]
    sandbox.post("/control/expire", json={"account": account}).raise_for_status()
    path, body = ROUTES[route]
    with gateway.stream("POST", path, json=body, headers={"x-litellm-oauth-user": user}) as answer:
        text = "".join(answer.iter_text())
    assert answer.status_code == 200, text
    assert "error" not in text.splitlines()[-2]
    log_out(gateway, user)
