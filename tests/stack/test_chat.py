"""Chats through the running gateway carry the caller's own token upstream, on every route."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from support.sandbox import shown_code

MODELS = [
    "claude-opus-4.1",
    "claude-opus-4",
    "claude-sonnet-4",
    "claude-sonnet-3.7",
    "claude-haiku-3.5",
    "claude-haiku",
    "claude-3-opus",
    "claude-3-sonnet",
]
MESSAGES = [{"role": "user", "content": "Hello, how are you?"}]
API = "/auth/claude/oauth"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a login of their own, for whom the master key acts."""

    name: str
    gateway: httpx.Client
    sandbox: httpx.Client

    @property
    def headers(self) -> dict[str, str]:
        return {"x-litellm-oauth-user": self.name}

    def log_in(self) -> None:
        started = self.gateway.get(f"{API}/start", params={"user_id": self.name}).raise_for_status().json()
        url = httpx.URL(started["authorization_url"]).copy_merge_params({"login_hint": self.name})
        with httpx.Client(follow_redirects=True, timeout=30) as browser:
            code = shown_code(browser.get(url))
        answer = self.gateway.post(f"{API}/exchange", params={"user_id": self.name}, json={"code": code})
        assert answer.json()["authenticated"] is True

    def log_out(self) -> None:
        self.gateway.post(f"{API}/logout", params={"user_id": self.name}).raise_for_status()

    def seen(self, *paths: str) -> list[dict[str, Any]]:
        """What the provider's API saw of this person, oldest first: messages, or what the paths name."""
        answer = self.sandbox.get("/control/requests", params={"account": self.name})
        records: list[dict[str, Any]] = answer.raise_for_status().json()
        return [record for record in records if record["path"] in (paths or ["/v1/messages"])]


@contextmanager
def logged_in(gateway: httpx.Client, sandbox: httpx.Client) -> Iterator[Person]:
    person = Person(f"chat-{secrets.token_hex(4)}", gateway, sandbox)
    person.log_in()
    yield person
    person.log_out()


@pytest.fixture(scope="module")
def person(gateway: httpx.Client, sandbox: httpx.Client) -> Iterator[Person]:
    with logged_in(gateway, sandbox) as person:
        yield person


@pytest.fixture
def other(gateway: httpx.Client, sandbox: httpx.Client) -> Iterator[Person]:
    """Somebody of this test alone."""
    with logged_in(gateway, sandbox) as person:
        yield person


def chat(client: httpx.Client, model: str, headers: dict[str, str]) -> str:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 50}
    answer = client.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def chat_stream(client: httpx.Client, model: str, headers: dict[str, str]) -> str:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 50, "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        data = _events(answer)
    assert data.pop() == "[DONE]"
    pieces = [json.loads(line)["choices"][0]["delta"].get("content") or "" for line in data]
    assert len([piece for piece in pieces if piece]) > 1, "the answer came in one piece"
    return "".join(pieces)


def messages(client: httpx.Client, model: str, headers: dict[str, str], below: str = "") -> str:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 50}
    answer = client.post(f"{below}/v1/messages", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["content"][0]["text"])


def messages_stream(client: httpx.Client, model: str, headers: dict[str, str], below: str = "") -> str:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 50, "stream": True}
    with client.stream("POST", f"{below}/v1/messages", json=body, headers=headers) as answer:
        events = [json.loads(line) for line in _events(answer)]
    assert events[-1]["type"] == "message_stop"
    deltas = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert len(deltas) > 1, "the answer came in one piece"
    return "".join(deltas)


def responses(client: httpx.Client, model: str, headers: dict[str, str]) -> str:
    answer = client.post("/v1/responses", json={"model": model, "input": "Hello"}, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["output"][0]["content"][0]["text"])


def pass_through(client: httpx.Client, model: str, headers: dict[str, str]) -> str:
    return messages(client, model, headers, "/anthropic")


def pass_through_stream(client: httpx.Client, model: str, headers: dict[str, str]) -> str:
    return messages_stream(client, model, headers, "/anthropic")


def count_tokens(client: httpx.Client, model: str, headers: dict[str, str]) -> str:
    body = {"model": model, "messages": MESSAGES}
    answer = client.post("/v1/messages/count_tokens", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["input_tokens"])


ROUTES: list[Callable[[httpx.Client, str, dict[str, str]], str]] = [
    chat,
    chat_stream,
    messages,
    messages_stream,
    responses,
    pass_through,
    pass_through_stream,
]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: str(route.__name__))
@pytest.mark.parametrize("model", MODELS)
def test_a_model_answers_with_the_callers_own_token(
    person: Person, model: str, route: Callable[[httpx.Client, str, dict[str, str]], str]
) -> None:
    before = len(person.seen())
    assert route(person.gateway, model, person.headers)
    (record,) = person.seen()[before:]
    assert record["account"] == person.name
    assert record["token_prefix"].startswith("sk-ant-oat")
    assert "oauth-2025-04-20" in record["beta"]
    assert record["has_x_api_key"] is False
    assert record["status"] == 200


def test_the_models_of_the_documents_are_listed(gateway: httpx.Client) -> None:
    listed = {model["id"] for model in gateway.get("/v1/models").json()["data"]}
    assert set(MODELS) <= listed


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", f"{API}/users", "/v1/models"])
@pytest.mark.parametrize("key", ["sk-wrong-key-0123456789", "not-even-a-key", None])
def test_an_unknown_key_is_a_401(gateway: httpx.Client, path: str, key: str | None) -> None:
    body = {"model": "claude-haiku", "messages": MESSAGES, "max_tokens": 9}
    method, content = ("POST", body) if path in ("/v1/chat/completions", "/v1/messages") else ("GET", None)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = httpx.request(method, gateway.base_url.join(path), json=content, headers=headers, timeout=30)
    assert answer.status_code == 401, answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("stream", [False, True])
def test_who_is_not_logged_in_gets_a_401_that_says_how_to_log_in(
    gateway: httpx.Client, path: str, stream: bool
) -> None:
    nobody = f"nobody-{secrets.token_hex(4)}"
    body = {"model": "claude-haiku", "messages": MESSAGES, "max_tokens": 9, "stream": stream}
    answer = gateway.post(path, json=body, headers={"x-litellm-oauth-user": nobody})
    assert answer.status_code == 401, answer.text
    message = answer.json()["error"]["message"]
    assert nobody in message
    assert f"{API}/start" in message


def test_one_users_trouble_leaves_others_at_full_speed(person: Person) -> None:
    nobody = {"x-litellm-oauth-user": f"nobody-{secrets.token_hex(4)}"}
    body = {"model": "claude-haiku", "messages": MESSAGES, "max_tokens": 9}
    for path in ("/v1/chat/completions", "/v1/messages") * 3:
        assert person.gateway.post(path, json=body, headers=nobody).status_code == 401
    assert chat(person.gateway, "claude-haiku", person.headers)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("extra", [{"api_key": "oauth"}, {"api_key": "sk-ant-oat01-mine"}])
def test_a_clients_own_key_in_the_body_is_refused(person: Person, path: str, extra: dict[str, str]) -> None:
    before = len(person.seen())
    body = {"model": "claude-haiku", "messages": MESSAGES, "max_tokens": 9} | extra
    answer = person.gateway.post(path, json=body, headers=person.headers)
    assert answer.status_code == 400, answer.text
    assert len(person.seen()) == before


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/openai/deployments/claude-haiku/chat/completions"]
)
@pytest.mark.parametrize(
    "extra",
    [
        {"custom_llm_provider": "gigachat", "gigachat_auth_url": "http://127.0.0.1:9/steal"},
        {"custom_llm_provider": "replicate"},
        {"custom_llm_provider": "watsonx_text"},
        {"custom_llm_provider": "openai"},
        {"use_litellm_proxy": True},
    ],
    ids=lambda extra: str(next(iter(extra.values()))),
)
def test_a_client_cannot_have_its_token_sent_to_another_provider(
    person: Person, path: str, extra: dict[str, object]
) -> None:
    """LiteLLM lets the body choose the provider, and some providers ignore the deployment's address."""
    before = len(person.seen())
    body = {"model": "claude-haiku", "messages": MESSAGES, "prompt": "Hello", "max_tokens": 9} | extra
    answer = person.gateway.post(path, json=body, headers=person.headers)
    assert answer.status_code == 400, answer.text
    assert "chooses the provider itself" in answer.json()["error"]["message"]
    assert len(person.seen()) == before


def test_forged_fields_in_the_body_change_nothing(person: Person) -> None:
    forged = {"user_api_key_user_id": "default_user_id", "user_api_key_auth": {"user_id": "default_user_id"}}
    headers = {"headers": {"x-litellm-oauth-user": "somebody-else"}}
    body = {
        "model": "claude-haiku",
        "messages": MESSAGES,
        "max_tokens": 9,
        "user": "somebody-else",
        "metadata": forged | headers,
        "litellm_metadata": forged | headers,
    }
    before = len(person.seen())
    answer = person.gateway.post("/v1/chat/completions", json=body, headers=person.headers)
    assert answer.status_code == 200, answer.text
    assert [record["account"] for record in person.seen()[before:]] == [person.name]


def test_equal_questions_of_two_users_are_both_asked_upstream(person: Person, other: Person) -> None:
    counts = len(person.seen()), len(other.seen())
    for one in (person, other):
        assert chat(one.gateway, "claude-haiku", one.headers)
    assert (len(person.seen()), len(other.seen())) == (counts[0] + 1, counts[1] + 1)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: str(route.__name__))
def test_a_token_that_died_at_the_provider_is_replaced_within_the_request(
    other: Person, route: Callable[[httpx.Client, str, dict[str, str]], str]
) -> None:
    assert route(other.gateway, "claude-haiku", other.headers)
    other.sandbox.post("/control/expire", json={"account": other.name}).raise_for_status()
    assert route(other.gateway, "claude-haiku", other.headers)
    assert [record["status"] for record in other.seen()] == [200, 401, 200]


@pytest.mark.parametrize("route", [*ROUTES, count_tokens], ids=lambda route: str(route.__name__))
def test_a_token_of_any_shape_goes_as_a_bearer_on_every_route(
    gateway: httpx.Client, sandbox: httpx.Client, route: Callable[[httpx.Client, str, dict[str, str]], str]
) -> None:
    sandbox.post("/control/settings", json={"claude_tokens": False}).raise_for_status()
    try:
        with logged_in(gateway, sandbox) as company:
            assert route(gateway, "claude-haiku", company.headers)
            (seen,) = company.seen("/v1/messages", "/v1/messages/count_tokens")
    finally:
        sandbox.delete("/control/settings")
    assert (seen["has_x_api_key"], seen["status"]) == (False, 200)
    assert not seen["token_prefix"].startswith("sk-ant")
    assert "oauth-" not in (seen["beta"] or "")


def test_tokens_are_counted_by_the_api_with_the_callers_own_token(person: Person) -> None:
    body = {"model": "claude-haiku", "messages": MESSAGES, "max_tokens": 9}
    answer = person.gateway.post("/v1/messages", json=body, headers=person.headers)
    before = len(person.seen("/v1/messages/count_tokens"))
    counted = count_tokens(person.gateway, "claude-haiku", person.headers)
    assert counted == str(answer.json()["usage"]["input_tokens"])
    (record,) = person.seen("/v1/messages/count_tokens")[before:]
    assert (record["model"], record["has_x_api_key"]) == ("claude-3-5-haiku-20241022", False)
    assert record["token_prefix"].startswith("sk-ant-oat")


def test_the_pass_through_takes_the_api_s_own_name_of_a_model_too(person: Person) -> None:
    before = len(person.seen())
    assert pass_through(person.gateway, "claude-3-5-haiku-20241022", person.headers)
    (record,) = person.seen()[before:]
    assert (record["model"], record["account"]) == ("claude-3-5-haiku-20241022", person.name)


def test_a_call_that_names_no_model_is_passed_through(person: Person) -> None:
    answer = person.gateway.get("/anthropic/v1/models", headers=person.headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"]


def test_a_model_that_nobody_configured_gets_no_token_through_the_pass_through(person: Person) -> None:
    body = {"model": "claude-of-nobody", "messages": MESSAGES, "max_tokens": 9}
    before = len(person.seen())
    answer = person.gateway.post("/anthropic/v1/messages", json=body, headers=person.headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_model")
    assert len(person.seen()) == before


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        ("v1/messages", "text/plain", 404),
        ("v1/messages", "application/x-protobuf", 404),
        ("v1/messages", "application/x-www-form-urlencoded; a=json", 404),
        ("v1//messages", "multipart/form-data; boundary=x", 400),
        ("v1/complete", "application/x-www-form-urlencoded", 404),
        ("v1/messages/batches", "application/json", 404),
    ],
)
def test_no_model_hides_from_the_check(person: Person, path: str, kind: str, status: int) -> None:
    """Neither behind a content type that is read otherwise elsewhere, nor in a batch."""
    asked = {"model": "claude-nobody-configured", "messages": MESSAGES, "max_tokens": 9}
    body = {"requests": [{"custom_id": "one", "params": asked}]} if path.endswith("batches") else asked
    before = len(person.seen())
    answer = person.gateway.post(
        f"/anthropic/{path}", content=json.dumps(body), headers={**person.headers, "content-type": kind}
    )
    assert answer.status_code == status, answer.text
    assert len(person.seen()) == before


@pytest.mark.parametrize("path", ["/anthropic/v1/messages", "/v1/messages/count_tokens"])
def test_who_is_not_logged_in_is_told_so_there_too(gateway: httpx.Client, path: str) -> None:
    body = {"model": "claude-haiku", "messages": MESSAGES, "max_tokens": 9}
    answer = gateway.post(path, json=body, headers={"x-litellm-oauth-user": "nobody-there"})
    assert answer.status_code == 401, answer.text
    assert f"{API}/start?user_id=nobody-there" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["extra_headers", "headers"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_headers_in_a_body_reach_the_api_only_where_it_has_a_use_for_them(
    person: Person, path: str, name: str
) -> None:
    sent = {"Host": "evil.example", "Cookie": "a=b", "x-api-key": "sk-x", "anthropic-beta": "tools-1"}
    body = {"model": "claude-haiku", "messages": MESSAGES, "input": "Hello", "max_tokens": 9, name: sent}
    if path == "/v1/responses":
        del body["messages"], body["max_tokens"]
    else:
        del body["input"]
    before = len(person.seen())
    answer = person.gateway.post(path, json=body, headers=person.headers)
    assert answer.status_code == 200, answer.text
    (record,) = person.seen()[before:]
    assert record["has_x_api_key"] is False
    assert not {"cookie", "x-api-key"} & set(record["headers"])
    assert record["host"] == "sandbox:4010"


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"[1]", {"Content-Type": "application/json"}),
        (b"{bad", {"Content-Type": "application/json"}),
        (b"{}", {"Content-Type": "application/json", "Content-Encoding": "gzip"}),
    ],
)
@pytest.mark.parametrize("path", ["/anthropic/v1/messages", "/v1/messages/count_tokens"])
def test_a_body_that_cannot_be_read_is_refused_in_one_sentence(
    person: Person, path: str, content: bytes, headers: dict[str, str]
) -> None:
    answer = person.gateway.post(path, content=content, headers={**person.headers, **headers})
    assert answer.status_code in (400, 415), answer.text
    assert answer.json()["error"]["message"].startswith("The body is ")


def test_a_form_is_passed_through_whole(person: Person) -> None:
    form = {"file": ("a.txt", b"x")}
    answer = person.gateway.post("/anthropic/v1/files", files=form, headers=person.headers)
    # The sandbox has no files; what counts is that it was asked.
    assert answer.status_code == 404, answer.text
    assert "no_such_model" not in answer.text


@pytest.mark.parametrize("path", ["/anthropic/control/logins", "/%61nthropic/v1/models", "/anthropic/"])
def test_the_pass_through_leads_to_the_api_and_nowhere_else(person: Person, path: str) -> None:
    url = person.gateway.base_url.copy_with(raw_path=path.encode())
    answer = person.gateway.get(url, headers=person.headers)
    assert answer.status_code in (400, 404), answer.text


def _events(answer: httpx.Response) -> list[str]:
    if answer.status_code != 200:
        answer.read()
    assert answer.status_code == 200, answer.text
    return [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
