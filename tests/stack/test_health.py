"""LiteLLM's /health, of models that take the caller's own token: whether the API is there, at no cost."""

from __future__ import annotations

import httpx

from support.stack import Stack


def test_models_are_healthy_while_their_api_is_there_whoever_is_logged_in(
    gateway: httpx.Client, sandbox: httpx.Client
) -> None:
    before = len(sandbox.get("/control/requests").json())
    health = gateway.get("/health").json()
    assert (health["unhealthy_count"], health["healthy_count"] > 1) == (0, True), health
    seen = sandbox.get("/control/requests").json()[before:]
    # All models have one API, and it is asked once.
    assert [(one["token_prefix"], one["has_x_api_key"]) for one in seen] == [(None, False)]


def test_models_are_unhealthy_while_it_is_not(gateway: httpx.Client, sandbox: httpx.Client) -> None:
    fault = {"endpoint": "messages", "kind": "status", "status": 503, "times": None}
    sandbox.post("/control/faults", json=fault).raise_for_status()
    try:
        health = gateway.get("/health").json()
    finally:
        sandbox.delete("/control/faults").raise_for_status()
    assert (health["healthy_count"], health["unhealthy_count"] > 1) == (0, True), health
    assert all("answers HTTP 503" in one["error"] for one in health["unhealthy_endpoints"])


def test_the_log_says_which_models_go_past_the_router(stack: Stack) -> None:
    assert "messages go past LiteLLM's router for: claude-3-opus" in stack.logs("litellm")
