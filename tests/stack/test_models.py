"""Models of other kinds beside those that take the caller's own token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from support.stack import Stack, log_in, log_out, replica

USER = "model-user"
KEY = "OBVIOUSLY_FAKE_API_KEY"


@pytest.fixture(scope="module")
def mixed(stack: Stack) -> Iterator[httpx.Client]:
    """A second gateway of the stack, with a model that takes a key from its environment."""
    mounts = {mount["Destination"]: Path(mount["Source"]) for mount in stack.inspect("litellm")["Mounts"]}
    path = mounts["/app/config.yaml"]
    document = yaml.safe_load(path.read_text())
    like = next(m for m in document["model_list"] if m["model_name"] == "claude-haiku")["litellm_params"]
    document["model_list"] += [
        {
            "model_name": "by-key",
            "litellm_params": {**like, "api_key": f"os.environ/LITELLM_OAUTH_KEY_{KEY}"},
            "model_info": {"cooldown_time": 0},
        },
        {"model_name": "claude-*", "litellm_params": {**like, "model": "anthropic/claude-*"}},
        {"model_name": "moving", "litellm_params": {**like}},
    ]
    document["claude_oauth"]["direct_messages"] = False
    document["claude_oauth"]["fallback_to_api_key"] = dict.fromkeys(
        ("moving", "claude-*"), f"os.environ/LITELLM_OAUTH_KEY_{KEY}"
    )
    config = path.with_name("mixed.yaml")
    config.write_text(yaml.safe_dump(document))
    config.chmod(0o444)
    headers = {"Authorization": f"Bearer {stack.key}", "x-litellm-oauth-user": USER}
    with (
        replica(stack, own_host=True, config=config) as (_, url),
        httpx.Client(base_url=url, headers=headers, timeout=60) as client,
    ):
        yield client
    config.unlink()


@pytest.fixture
def account(gateway: httpx.Client) -> Iterator[str]:
    found = log_in(gateway, USER)["account"]["account"]["email_address"].split("@")[0]
    yield str(found)
    log_out(gateway, USER)


def body(model: str) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_model_with_a_key_goes_with_that_key_and_nobody_s_token(
    mixed: httpx.Client, sandbox: httpx.Client, account: str, path: str
) -> None:
    before = len(sandbox.get("/control/requests").json())
    answer = mixed.post(path, json=body("by-key"))
    # The sandbox takes no keys, and says so.
    assert answer.status_code == 401, answer.text
    assert "An x-api-key was sent" in answer.text
    seen = sandbox.get("/control/requests").json()[before:]
    assert seen
    assert {(one["has_x_api_key"], one["account"], one["token_prefix"]) for one in seen} == {
        (True, None, None)
    }
    assert "obviously-fake-api-key" not in answer.text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_token_that_a_client_brings_does_not_go_in_the_place_of_the_key(
    mixed: httpx.Client, sandbox: httpx.Client, stack: Stack, path: str
) -> None:
    before = len(sandbox.get("/control/requests").json())
    headers = {"Authorization": "Bearer sk-ant-oat01-of-the-client", "x-litellm-api-key": stack.key}
    answer = mixed.post(path, json=body("by-key"), headers=headers)
    assert "An x-api-key was sent" in answer.text
    seen = sandbox.get("/control/requests").json()[before:]
    assert {(one["has_x_api_key"], one["token_prefix"]) for one in seen} == {(True, None)}


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/messages", "/anthropic/v1/messages", "/v1/messages/count_tokens"]
)
def test_a_wildcard_leads_to_what_the_client_asked_for(
    mixed: httpx.Client, sandbox: httpx.Client, account: str, path: str
) -> None:
    answer = mixed.post(path, json=body("claude-sonnet-4-20250514"))
    assert answer.status_code == 200, answer.text
    seen = sandbox.get("/control/requests", params={"account": account}).json()
    assert seen[-1]["model"] == "claude-sonnet-4-20250514"


@pytest.mark.parametrize("model", ["moving", "claude-opus-4-20250514"])
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/messages", "/anthropic/v1/messages", "/v1/messages/count_tokens"]
)
def test_who_has_not_logged_in_yet_is_served_with_the_api_key(
    mixed: httpx.Client, sandbox: httpx.Client, path: str, model: str
) -> None:
    before = len(sandbox.get("/control/requests").json())
    answer = mixed.post(path, json=body(model), headers={"x-litellm-oauth-user": "never-logged-in"})
    # The sandbox takes no keys, and says so.
    assert answer.status_code == 401, answer.text
    assert "An x-api-key was sent" in answer.text
    seen = sandbox.get("/control/requests").json()[before:]
    assert {(one["has_x_api_key"], one["account"], one["token_prefix"]) for one in seen} == {
        (True, None, None)
    }


def test_who_has_logged_in_goes_with_their_own_token(
    mixed: httpx.Client, sandbox: httpx.Client, account: str
) -> None:
    for path in ("/v1/chat/completions", "/v1/messages", "/anthropic/v1/messages"):
        answer = mixed.post(path, json=body("moving"))
        assert answer.status_code == 200, answer.text
    seen = sandbox.get("/control/requests", params={"account": account}).json()
    assert len(seen) == 3


def test_messages_go_through_litellm_where_that_is_asked_for(mixed: httpx.Client, account: str) -> None:
    answer = mixed.post("/v1/messages", json=body("moving"))
    assert (answer.status_code, "x-litellm-call-id" in answer.headers) == (200, True)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_dead_login_does_not_fall_back_to_the_key(
    mixed: httpx.Client, sandbox: httpx.Client, account: str, path: str
) -> None:
    sandbox.post("/control/revoke", json={"account": account}).raise_for_status()
    before = len(sandbox.get("/control/requests").json())
    answer = mixed.post(path, json=body("moving"))
    assert answer.status_code == 401, answer.text
    assert f"no longer accepts the login of {USER}" in answer.text
    seen = sandbox.get("/control/requests").json()[before:]
    assert not any(one["has_x_api_key"] for one in seen)


@pytest.mark.parametrize("path", ["/anthropic/v1/files", "/anthropic/v1/organizations/api_keys"])
def test_the_api_key_opens_models_and_nothing_else(mixed: httpx.Client, path: str) -> None:
    answer = mixed.post(path, json=body("moving"), headers={"x-litellm-oauth-user": "never-logged-in"})
    assert answer.status_code == 401, answer.text
    assert "not_logged_in" in answer.text


def test_no_key_is_in_what_a_client_can_ask_about_models(mixed: httpx.Client) -> None:
    for path in ("/v1/models", "/v1/model/info", "/model_group/info"):
        assert "obviously-fake-api-key" not in mixed.get(path).text


def test_no_key_shows_in_the_gateway_s_description(stack: Stack) -> None:
    assert KEY in str(stack.inspect("litellm")["Config"]["Env"])
    assert "obviously-fake-api-key" not in str(stack.inspect("litellm"))
