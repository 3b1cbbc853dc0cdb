"""The clients that people use, with a user's key: plain, streaming, asynchronous, with tools."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from support.stack import Stack, log_in, log_out

USER = "key-user-1"
MODEL = "claude-haiku"
HELLO: Any = [{"role": "user", "content": "Hello"}]
ANSWER = "Sandbox answer to: Hello"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture(scope="module")
def key(stack: Stack, gateway: httpx.Client) -> Iterator[str]:
    log_in(gateway, USER)
    yield (stack.directory / "secrets" / "users" / USER).read_text()
    log_out(gateway, USER)


@pytest.fixture(scope="module")
def by_openai(stack: Stack, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.gateway_url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module", params=["", "/anthropic"])
def address(stack: Stack, request: pytest.FixtureRequest) -> str:
    """Both places where an Anthropic client can be pointed to."""
    return f"{stack.gateway_url}{request.param}"


@pytest.fixture(scope="module")
def by_anthropic(address: str, key: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=address, api_key=key, max_retries=0)


def test_openai_chats(by_openai: openai.OpenAI) -> None:
    answer = by_openai.chat.completions.create(model=MODEL, messages=HELLO)
    assert answer.choices[0].message.content == ANSWER


def test_openai_streams(by_openai: openai.OpenAI) -> None:
    pieces = by_openai.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == ANSWER


def test_openai_uses_a_tool(by_openai: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
    answer = by_openai.chat.completions.create(
        model=MODEL, messages=HELLO, tools=[tool], tool_choice="required"
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"


def test_openai_gets_a_response(by_openai: openai.OpenAI) -> None:
    assert by_openai.responses.create(model=MODEL, input="Hello").output_text == ANSWER


def test_openai_asks_asynchronously(stack: Stack, key: str) -> None:
    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{stack.gateway_url}/v1", api_key=key) as client:
            asked = [client.chat.completions.create(model=MODEL, messages=HELLO) for _ in range(8)]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == [ANSWER] * 8


def test_openai_is_told_of_an_unknown_key(stack: Stack) -> None:
    client = openai.OpenAI(base_url=f"{stack.gateway_url}/v1", api_key="sk-nobody-knows-this", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model=MODEL, messages=HELLO)


def test_anthropic_sends_a_message(by_anthropic: anthropic.Anthropic) -> None:
    answer = by_anthropic.messages.create(model=MODEL, messages=HELLO, max_tokens=50)
    assert [block.text for block in answer.content if block.type == "text"] == [ANSWER]


def test_anthropic_streams(by_anthropic: anthropic.Anthropic) -> None:
    with by_anthropic.messages.stream(model=MODEL, messages=HELLO, max_tokens=50) as stream:
        assert "".join(stream.text_stream) == ANSWER


def test_anthropic_uses_a_tool(by_anthropic: anthropic.Anthropic) -> None:
    tool: Any = {"name": "weather", "input_schema": SCHEMA}
    answer = by_anthropic.messages.create(
        model=MODEL, messages=HELLO, max_tokens=50, tools=[tool], tool_choice={"type": "any"}
    )
    (block,) = answer.content
    assert block.type == "tool_use"
    assert block.name == "weather"


def test_anthropic_counts_tokens(by_anthropic: anthropic.Anthropic) -> None:
    counted = by_anthropic.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens
    answer = by_anthropic.messages.create(model=MODEL, messages=HELLO, max_tokens=50)
    assert counted == answer.usage.input_tokens


def test_anthropic_asks_asynchronously(address: str, key: str) -> None:
    async def ask() -> set[str]:
        async with anthropic.AsyncAnthropic(base_url=address, api_key=key) as client:
            asked = [client.messages.create(model=MODEL, messages=HELLO, max_tokens=50) for _ in range(8)]
            answers = await asyncio.gather(*asked)
        return {block.text for answer in answers for block in answer.content if block.type == "text"}

    assert asyncio.run(ask()) == {ANSWER}


def test_anthropic_is_told_who_is_not_logged_in(stack: Stack, address: str) -> None:
    key = (stack.directory / "secrets" / "users" / "key-user-2").read_text()
    client = anthropic.Anthropic(base_url=address, api_key=key, max_retries=0)
    with pytest.raises(anthropic.AuthenticationError, match="litellm claude login --user key-user-2"):
        client.messages.create(model=MODEL, messages=HELLO, max_tokens=50)
