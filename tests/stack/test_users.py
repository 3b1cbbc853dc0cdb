"""Keys of users: each is good for its own login and for no more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.stack import Stack, log_in, log_out

API = "/auth/claude/oauth"
ALICE, BOB = "key-user-1", "key-user-2"
MODEL = "claude-haiku"
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}
ROUTES: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/chat/completions", CHAT),
    ("POST", "/v1/messages", CHAT),
    ("POST", "/v1/messages/count_tokens", CHAT),
    ("POST", "/v1/responses", {"model": MODEL, "input": "Hello"}),
    ("POST", "/anthropic/v1/messages", CHAT),
    ("GET", "/v1/models", None),
    ("GET", "/health", None),
    ("GET", f"{API}/status", None),
]
# What only an administrator may do, at LiteLLM and here.
ADMIN_ROUTES: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "/key/generate", {}),
    ("POST", "/user/new", {"user_id": "x"}),
    ("POST", "/model/new", {"model_name": "x", "litellm_params": {"model": "anthropic/x"}}),
    ("POST", "/model/delete", {"id": "x"}),
    ("POST", "/config/update", {}),
    ("GET", "/get/config/callbacks", None),
    ("GET", "/config/yaml", None),
    ("POST", "/cache/flushall", None),
    ("GET", f"{API}/users", None),
    ("POST", f"{API}/refresh", {"all": True}),
]


@pytest.fixture(scope="module")
def keys(stack: Stack) -> dict[str, str]:
    return {user: (stack.directory / "secrets" / "users" / user).read_text() for user in (ALICE, BOB)}


@pytest.fixture(scope="module")
def clients(stack: Stack, keys: dict[str, str]) -> Iterator[dict[str, httpx.Client]]:
    made = {
        user: httpx.Client(base_url=stack.gateway_url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        for user, key in keys.items()
    }
    yield made
    for client in made.values():
        client.close()


@pytest.fixture
def alice(gateway: httpx.Client, clients: dict[str, httpx.Client]) -> Iterator[httpx.Client]:
    log_in(gateway, ALICE)
    yield clients[ALICE]
    log_out(gateway, ALICE)


def test_the_keys_are_root_s_and_the_gateway_has_their_digests_alone(
    stack: Stack, keys: dict[str, str]
) -> None:
    folder = stack.directory / "secrets" / "users"
    for path in (folder, *folder.iterdir()):
        assert (path.stat().st_uid, path.stat().st_mode & 0o077) == (0, 0)
    seen = stack.exec("litellm", "cat", "/run/secrets/user_keys").stdout
    assert sorted(seen.split()) == sorted(
        word for user, key in keys.items() for word in (user, hashlib.sha256(key.encode()).hexdigest())
    )


def test_a_user_s_key_uses_this_user_s_login(alice: httpx.Client, sandbox: httpx.Client) -> None:
    account = alice.get(f"{API}/status").json()["account"]["account"]["email_address"].split("@")[0]
    answer = alice.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 200, answer.text
    seen = sandbox.get("/control/requests", params={"account": account}).json()
    assert [request["path"] for request in seen][-1] == "/v1/messages"


def test_a_user_s_key_lists_the_models(clients: dict[str, httpx.Client]) -> None:
    assert MODEL in {model["id"] for model in clients[BOB].get("/v1/models").json()["data"]}


def test_who_is_not_logged_in_is_told_how_by_name(clients: dict[str, httpx.Client]) -> None:
    answer = clients[BOB].post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 401
    assert f"litellm claude login --user {BOB}" in answer.json()["error"]["message"]


def test_a_user_cannot_act_for_another(
    alice: httpx.Client, clients: dict[str, httpx.Client], stack: Stack
) -> None:
    header = {"x-litellm-oauth-user": ALICE}
    bob = clients[BOB]
    for answer in (
        bob.post("/v1/chat/completions", json=CHAT, headers=header),
        bob.post("/v1/messages", json=CHAT, headers=header),
        bob.post("/v1/responses", json={"model": MODEL, "input": "Hello"}, headers=header),
        bob.post("/anthropic/v1/messages", json=CHAT, headers=header),
        bob.post("/v1/messages/count_tokens", json=CHAT, headers=header),
        bob.get(f"{API}/status", headers=header),
        bob.get(f"{API}/status", params={"user_id": ALICE}),
        bob.post(f"{API}/logout", params={"user_id": ALICE}),
    ):
        assert answer.status_code == 403, (answer.request.url, answer.text)
    assert alice.get(f"{API}/status").json()["authenticated"] is True
    # One line a minute from each process, however often somebody tries.
    noted = stack.sql(
        'SELECT DISTINCT actor, user_id, outcome FROM "LiteLLM_ClaudeOAuthAudit" '
        "WHERE action = 'act_for' AND user_id = 'key-user-1'"
    )
    assert noted == f"{BOB}|{ALICE}|forbidden"


@pytest.mark.parametrize(("method", "path", "body"), ROUTES, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("key", ["sk-nobody-knows-this-one", "not even of the usual form", None])
def test_a_key_that_nobody_knows_is_a_401_everywhere(
    stack: Stack, method: str, path: str, body: dict[str, Any] | None, key: str | None
) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    answer = httpx.request(method, f"{stack.gateway_url}{path}", json=body, headers=headers, timeout=30)
    assert answer.status_code == 401, answer.text
    assert key is None or key not in answer.text


@pytest.mark.parametrize(("method", "path", "body"), ADMIN_ROUTES, ids=lambda value: str(value)[:30])
def test_a_user_s_key_opens_nothing_of_an_administrator_s(
    clients: dict[str, httpx.Client], method: str, path: str, body: dict[str, Any] | None
) -> None:
    answer = clients[BOB].request(method, path, json=body)
    assert answer.status_code in (401, 403), answer.text


def test_a_header_that_is_sent_twice_is_refused(gateway: httpx.Client, stack: Stack) -> None:
    twice = [
        ("Authorization", f"Bearer {stack.key}"),
        ("x-litellm-oauth-user", ALICE),
        ("x-litellm-oauth-user", BOB),
    ]
    for method, path, body in ROUTES:
        answer = httpx.request(
            method, f"{stack.gateway_url}{path}", json=body, headers=httpx.Headers(twice), timeout=30
        )
        assert answer.status_code == 400, (path, answer.text)


def test_the_audit_says_host_of_a_client_on_the_host(
    alice: httpx.Client, clients: dict[str, httpx.Client], stack: Stack
) -> None:
    """Never the address of the engine's bridge; and no header of a client's own making counts."""
    headers = {"x-litellm-oauth-user": ALICE, "X-Forwarded-For": "203.0.113.9"}
    for path, body in (("/v1/messages", CHAT), ("/v1/chat/completions", CHAT)):
        assert clients[BOB].post(path, json=body, headers=headers).status_code == 403
    origins = stack.sql(
        'SELECT DISTINCT origin FROM "LiteLLM_ClaudeOAuthAudit" '
        "WHERE user_id = 'key-user-1' AND action IN ('login', 'logout', 'act_for')"
    )
    assert origins == "host"
