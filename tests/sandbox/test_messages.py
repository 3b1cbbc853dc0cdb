"""The API: who is let in, what is answered, and what is written down about it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from support.oauth_client import OAUTH_BETA, OAuthClient
from support.sandbox import fingerprint

TOOL = {
    "name": "weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "days", "unit"],
    },
}


@pytest.fixture
def token(client: OAuthClient) -> str:
    found: str = client.login("alice")["access_token"]
    return found


def api_error(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert body["type"] == "error"
    assert body["error"]["message"]
    return answer.status_code, body["error"]["type"]


def test_a_message_is_answered_in_the_shape_of_the_messages_api(client: OAuthClient, token: str) -> None:
    answer = client.ask(token, "What is up?", system="Be brief.")
    message = answer.json()
    assert answer.headers["request-id"]
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-20250514",
        "content": [{"type": "text", "text": "Sandbox answer to: What is up?"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 8,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 6,
        },
    }


def test_the_last_text_of_the_user_is_answered(client: OAuthClient, token: str) -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": [{"type": "text", "text": "ok"}]},
        {"role": "user", "content": [{"type": "text", "text": "second"}, {"type": "image", "source": {}}]},
    ]
    answer = client.ask(token, messages=messages)
    assert answer.json()["content"][0]["text"] == "Sandbox answer to: second"


def test_a_token_of_another_shape_needs_no_beta_of_claude_s(client: OAuthClient) -> None:
    client.provider.settings(claude_tokens=False)
    token = client.login("bob")["access_token"]
    assert not token.startswith("sk-ant-")
    plain = {name: value for name, value in client.api_headers(token).items() if name != "anthropic-beta"}
    body = {
        "model": "claude-sonnet-4-20250514",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    answer = client.http.post(f"{client.provider.url}/v1/messages", json=body, headers=plain)
    assert answer.status_code == 200, answer.text
    refused = client.http.post(f"{client.provider.url}/v1/messages", json=body, headers={"x-api-key": token})
    assert refused.status_code == 401


def test_max_tokens_cuts_the_answer_off(client: OAuthClient, token: str) -> None:
    message = client.ask(token, "one two three", max_tokens=4).json()
    assert message["content"][0]["text"] == "Sandbox answer to: one"
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("max_tokens", 4)


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "weather"}, {"type": "any"}])
def test_a_forced_tool_is_used_with_what_its_schema_requires(
    client: OAuthClient, token: str, choice: dict[str, str]
) -> None:
    message = client.ask(token, tools=[TOOL], tool_choice=choice).json()
    (block,) = message["content"]
    assert (block["type"], block["name"]) == ("tool_use", "weather")
    assert block["input"] == {"city": "sandbox", "days": 1, "unit": "C"}
    assert message["stop_reason"] == "tool_use"


def test_tools_that_are_not_forced_are_left_alone(client: OAuthClient, token: str) -> None:
    assert client.ask(token, tools=[TOOL]).json()["stop_reason"] == "end_turn"


def stream(client: OAuthClient, token: str, **body: Any) -> list[tuple[str, dict[str, Any]]]:
    answer = client.ask(token, "a b", stream=True, **body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in answer.text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    assert all(name == data["type"] for name, data in events)
    return events


def test_a_stream_is_the_true_sequence_of_events(client: OAuthClient, token: str) -> None:
    events = stream(client, token)
    assert [name for name, _ in events] == [
        "message_start",
        "content_block_start",
        "ping",
        *["content_block_delta"] * 5,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    message = events[0][1]["message"]
    assert (message["content"], message["stop_reason"]) == ([], None)
    text = "".join(data["delta"]["text"] for name, data in events if name == "content_block_delta")
    assert text == "Sandbox answer to: a b"
    assert events[-2][1]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[-2][1]["usage"] == {"output_tokens": 5}


def test_a_streamed_tool_use_spells_its_input_in_pieces(client: OAuthClient, token: str) -> None:
    events = stream(client, token, tools=[TOOL], tool_choice={"type": "any"})
    deltas = [data["delta"] for name, data in events if name == "content_block_delta"]
    assert {delta["type"] for delta in deltas} == {"input_json_delta"}
    assert json.loads("".join(delta["partial_json"] for delta in deltas))["days"] == 1
    assert events[1][1]["content_block"]["input"] == {}


def test_a_stream_arrives_piece_by_piece(client: OAuthClient, token: str) -> None:
    client.provider.settings(stream_pause_seconds=0.02)
    body = {
        "model": "claude-x",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "a"}],
        "stream": True,
    }
    url, headers = f"{client.provider.url}/v1/messages", client.api_headers(token)
    with client.http.stream("POST", url, json=body, headers=headers) as answer:
        assert len(list(answer.iter_raw())) > 5


def test_tokens_are_counted(client: OAuthClient, token: str) -> None:
    answer = client.ask(token, "one two", path="messages/count_tokens", max_tokens=None)
    assert answer.json() == {"input_tokens": 5}


def test_models_are_listed_and_any_of_the_family_is_known(client: OAuthClient, token: str) -> None:
    url, headers = f"{client.provider.url}/v1/models", client.api_headers(token)
    listed = client.http.get(url, headers=headers).json()
    assert "claude-3-opus-20240229" in [model["id"] for model in listed["data"]]
    assert client.http.get(f"{url}/claude-new", headers=headers).json()["id"] == "claude-new"
    assert client.http.get(f"{url}/gpt-4", headers=headers).status_code == 404
    assert client.ask(token, model="claude-of-tomorrow").json()["model"] == "claude-of-tomorrow"
    assert api_error(client.ask(token, model="gpt-4")) == (404, "not_found_error")


def _headers(client: OAuthClient, token: str, **changes: str | None) -> dict[str, str]:
    headers = {**client.api_headers(token), **{k.replace("_", "-"): v for k, v in changes.items()}}
    return {name: value for name, value in headers.items() if value is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {"authorization": None},
        {"authorization": "Bearer sk-ant-oat01-sandbox-unknown"},
        {"authorization": "Basic YTpi"},
        {"x_api_key": "oauth"},
        {"authorization": None, "x_api_key": "sk-ant-api03-x"},
        {"anthropic_beta": None},
        {"anthropic_beta": f"not-{OAUTH_BETA}"},
    ],
)
@pytest.mark.parametrize("path", ["messages", "messages/count_tokens", "models"])
def test_who_has_no_bearer_token_of_ours_gets_a_401(
    client: OAuthClient, token: str, path: str, changes: dict[str, str | None]
) -> None:
    method = "GET" if path == "models" else "POST"
    answer = client.http.request(
        method, f"{client.provider.url}/v1/{path}", headers=_headers(client, token, **changes)
    )
    assert api_error(answer) == (401, "authentication_error")


def test_the_beta_header_may_name_other_features_too(client: OAuthClient, token: str) -> None:
    headers = _headers(client, token, anthropic_beta=f"fine-grained, {OAUTH_BETA},x")
    assert client.http.get(f"{client.provider.url}/v1/models", headers=headers).status_code == 200


def test_an_expired_token_gets_a_401_and_says_so(client: OAuthClient, token: str) -> None:
    assert client.provider.expire("bob") == {"access_tokens": 0}
    assert client.ask(token).status_code == 200
    assert client.provider.expire("alice") == {"access_tokens": 1}
    answer = client.ask(token)
    assert api_error(answer) == (401, "authentication_error")
    assert "expired" in answer.json()["error"]["message"]


def test_a_token_lives_as_long_as_its_answer_says(client: OAuthClient) -> None:
    client.provider.settings(access_token_seconds=100)
    tokens = client.login()
    assert tokens["expires_in"] == 100
    client.provider.settings(clock_skew_seconds=99)
    assert client.ask(tokens["access_token"]).status_code == 200
    client.provider.settings(clock_skew_seconds=101)
    assert client.ask(tokens["access_token"]).status_code == 401


def test_a_token_without_the_scope_gets_a_403(client: OAuthClient) -> None:
    token = client.login(scope="user:profile")["access_token"]
    assert api_error(client.ask(token)) == (403, "permission_error")


@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"max_tokens": None},
        {"max_tokens": 0},
        {"max_tokens": "10"},
        {"max_tokens": True},
        {"messages": None},
        {"messages": []},
        {"messages": ["x"]},
        {"messages": [{"role": "system", "content": "x"}]},
        {"messages": [{"role": "assistant", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": [{"text": "no type"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        {"system": 5},
        {"stream": "yes"},
        {"tools": "x"},
        {"tools": [{}]},
        {"tool_choice": {"type": "always"}},
        {"tool_choice": {"type": "any"}},
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}},
    ],
)
def test_a_body_that_the_api_would_refuse_is_refused(
    client: OAuthClient, token: str, change: dict[str, Any]
) -> None:
    assert api_error(client.ask(token, **change)) == (400, "invalid_request_error")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_json_object_is_refused(client: OAuthClient, token: str, content: bytes) -> None:
    answer = client.http.post(
        f"{client.provider.url}/v1/messages", content=content, headers=client.api_headers(token)
    )
    assert api_error(answer) == (400, "invalid_request_error")


def test_text_that_is_not_valid_unicode_comes_back_as_it_was(client: OAuthClient, token: str) -> None:
    body = (
        rb'{"model": "claude-\ud800", "max_tokens": 9, "messages": [{"role": "user", "content": "\ud83d"}]}'
    )
    url, headers = f"{client.provider.url}/v1/messages", client.api_headers(token)
    answer = client.http.post(url, content=body, headers=headers)
    assert answer.status_code == 200
    assert rb"to: \ud83d" in answer.content
    assert client.provider.requests()[0]["model"] == "claude-\ud800"


def test_the_version_header_is_needed(client: OAuthClient, token: str) -> None:
    headers = _headers(client, token, anthropic_version=None)
    answer = client.http.get(f"{client.provider.url}/v1/models", headers=headers)
    assert api_error(answer) == (400, "invalid_request_error")


def test_each_call_is_recorded_without_its_token(client: OAuthClient, token: str) -> None:
    client.ask(token, stream=True)
    headers = _headers(client, "sk-ant-api03-a-real-secret", x_api_key="also-secret", anthropic_beta=None)
    client.http.post(f"{client.provider.url}/v1/messages", json={}, headers=headers)
    good, bad = client.provider.requests()
    assert good.pop("at") <= bad.pop("at")
    assert {"authorization", "anthropic-beta", "anthropic-version", "host"} <= set(good.pop("headers"))
    assert "x-api-key" in bad["headers"]
    fields = good.pop("fields")
    assert set(fields) == {"max_tokens", "messages", "model", "stream"}
    assert (fields["stream"], fields["max_tokens"]) == (fingerprint("true"), fingerprint("100"))
    assert good == {
        "path": "/v1/messages",
        "account": "alice",
        "token_sha256": fingerprint(token),
        "token_prefix": "sk-ant-oat01-s",
        "beta": OAUTH_BETA,
        "has_x_api_key": False,
        "host": client.provider.url.removeprefix("http://"),
        "model": "claude-sonnet-4-20250514",
        "question": "hello",
        "stream": True,
        "status": 200,
    }
    assert (bad["account"], bad["has_x_api_key"], bad["beta"], bad["status"]) == (None, True, None, 401)
    assert "secret" not in str(bad)


def test_records_can_be_asked_for_since_a_moment_and_by_account(client: OAuthClient, token: str) -> None:
    client.ask(token)
    client.ask(client.login("bob")["access_token"])
    first, second = client.provider.requests()
    assert client.provider.requests(since=second["at"]) == [second]
    assert client.provider.requests(account="alice") == [first]
    assert client.provider.counters()["requests"] == {"/v1/messages": {"200": 2}}
