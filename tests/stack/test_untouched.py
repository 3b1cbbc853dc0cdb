"""Images, tools, long context and prompt caching reach the API as the client sent them, on every route."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.stack import Stack, log_in, log_out

USER = "untouched"
# One red pixel.
IMAGE = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
        "0000000c4944415408d763f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
    )
).decode()
LONG = "A sentence of a long context, with an umlaut: ü. " * 8000
CACHED = {"cache_control": {"type": "ephemeral"}}
QUESTION = "What is in the picture?"
SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}
TOOL = {"name": "say_colour", "description": "Says a colour", "input_schema": SCHEMA}
SYSTEM: list[dict[str, Any]] = [{"type": "text", "text": LONG, **CACHED}]
MESSAGES: list[dict[str, Any]] = [
    {
        "role": "user",
        "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}},
            {"type": "text", "text": QUESTION, **CACHED},
        ],
    },
]
BODY: dict[str, Any] = {
    "model": "claude-haiku",
    "max_tokens": 50,
    "system": SYSTEM,
    "messages": MESSAGES,
    "tools": [TOOL],
    "tool_choice": {"type": "auto"},
    "temperature": 0.5,
    "stop_sequences": ["STOP"],
}


def fingerprint(value: object) -> str:
    """A field as the sandbox records it."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def client(stack: Stack, gateway: httpx.Client) -> Iterator[httpx.Client]:
    log_in(gateway, USER)
    headers = {"Authorization": f"Bearer {stack.key}", "x-litellm-oauth-user": USER}
    with httpx.Client(base_url=stack.gateway_url, headers=headers, timeout=60) as client:
        yield client
    log_out(gateway, USER)


@pytest.fixture(scope="module")
def account(gateway: httpx.Client, client: httpx.Client) -> str:
    status = gateway.get("/auth/claude/oauth/status", params={"user_id": USER}).json()
    return str(status["account"]["account"]["email_address"].split("@")[0])


def last(sandbox: httpx.Client, account: str) -> dict[str, str]:
    """The fields of the last request that the API saw of this account."""
    calls = sandbox.get("/control/requests", params={"account": account}).json()
    fields: dict[str, str] = calls[-1]["fields"]
    return fields


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "routed"),
    [
        ("/v1/messages", {}),
        # A field of LiteLLM's own makes it take the message through its router.
        ("/v1/messages", {"num_retries": 1}),
        ("/anthropic/v1/messages", {}),
    ],
    ids=["direct", "through the router", "pass-through"],
)
def test_a_message_arrives_as_it_was_sent(
    client: httpx.Client, sandbox: httpx.Client, account: str, path: str, stream: bool, routed: dict[str, int]
) -> None:
    answer = client.post(path, json={**BODY, "stream": stream, **routed})
    assert answer.status_code == 200, answer.text
    # LiteLLM says so of what it has had in hand.
    assert ("x-litellm-call-id" in answer.headers) == bool(routed)
    seen = last(sandbox, account)
    for name in ("system", "messages", "tools", "tool_choice", "temperature", "stop_sequences"):
        assert seen[name] == fingerprint(BODY[name]), name
    assert "num_retries" not in seen


def test_a_count_is_of_all_that_was_sent(client: httpx.Client, sandbox: httpx.Client, account: str) -> None:
    body = {name: BODY[name] for name in ("model", "system", "messages", "tools")}
    answer = client.post("/v1/messages/count_tokens", json=body)
    assert answer.json()["input_tokens"] > len(LONG) / 10
    seen = last(sandbox, account)
    assert {name: seen[name] for name in body if name != "model"} == {
        name: fingerprint(value) for name, value in body.items() if name != "model"
    }


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_arrives_in_the_api_s_own_words(
    client: httpx.Client, sandbox: httpx.Client, account: str, stream: bool
) -> None:
    """Translated from OpenAI's, with nothing lost."""
    body = {
        "model": "claude-haiku",
        "max_tokens": 50,
        "stream": stream,
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": LONG, **CACHED}]},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
                    {"type": "text", "text": QUESTION, **CACHED},
                ],
            },
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": TOOL["name"],
                    "description": TOOL["description"],
                    "parameters": SCHEMA,
                },
            }
        ],
    }
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    seen = last(sandbox, account)
    assert seen["system"] == fingerprint(SYSTEM)
    assert seen["messages"] == fingerprint(MESSAGES)
    assert seen["tools"] in (fingerprint([TOOL]), fingerprint([{"type": "custom", **TOOL}]))
