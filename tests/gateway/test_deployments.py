"""A token goes to deployments the operator marked, to allowed addresses, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from litellm_oauth.errors import Forbidden, InvalidInput
from litellm_oauth.gateway.deployments import destination_of

HOME = "https://api.example.com"
ALLOWED = (HOME,)


def deployment(**params: Any) -> dict[str, Any]:
    return {"litellm_params": {"model": "anthropic/claude", "api_base": HOME, "api_key": "oauth"} | params}


DEPLOYMENTS = {
    "marked": deployment(),
    "plain": deployment(api_key="sk-ant-api-x"),
    "foreign": deployment(api_base="https://elsewhere.example.com"),
    "openai": deployment(model="openai/gpt-4o"),
    "bare": {"litellm_params": {"model": "anthropic/claude", "api_key": "oauth"}},
}


def provider_of(params: Mapping[str, Any]) -> str:
    return str(params["model"]).split("/")[0]


def base_of(kwargs: dict[str, Any], allowed: tuple[str, ...] = ALLOWED) -> str | None:
    destination = destination_of(kwargs, DEPLOYMENTS.get, provider_of, lambda: allowed)
    return None if destination is None else destination.base


def call(identifier: str, **more: Any) -> dict[str, Any]:
    return {"model_info": {"id": identifier}, "api_key": "oauth", "api_base": HOME} | more


def test_a_marked_deployment_at_an_allowed_address_gets_a_token() -> None:
    assert base_of(call("marked")) == HOME


def test_a_slash_at_the_end_of_the_address_makes_no_difference() -> None:
    assert base_of(call("marked", api_base=HOME + "/"), (HOME + "/",)) == HOME


def test_a_deployment_with_an_api_key_is_left_alone() -> None:
    assert base_of(call("plain", api_key="sk-ant-api-x")) is None


def test_a_call_that_has_its_token_already_is_left_alone() -> None:
    assert base_of(call("marked", api_key="sk-ant-oat01-x")) is None


@pytest.mark.parametrize(
    "info", [{"id": "throw-away"}, {"id": "throw-away", "original_model_id": "plain"}, {}]
)
def test_the_mark_in_a_clients_body_gains_nothing(info: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="neither api_key nor api_base"):
        base_of(call("", model_info=info))


@pytest.mark.parametrize("key", ["oauth", "sk-ant-oat01-own", "sk-other"])
def test_a_clients_own_key_on_a_marked_deployment_is_refused(key: str) -> None:
    info = {"id": "throw-away", "original_model_id": "marked"}
    with pytest.raises(InvalidInput, match="neither api_key nor api_base"):
        base_of(call("", model_info=info, api_key=key))


def test_a_clients_own_key_on_another_deployment_is_none_of_our_business() -> None:
    info = {"id": "throw-away", "original_model_id": "plain"}
    assert base_of(call("", model_info=info, api_key="sk-own")) is None


@pytest.mark.parametrize(("deployment", "key"), [("plain", "sk-ant-api-x"), ("marked", "oauth")])
@pytest.mark.parametrize(
    "way",
    [{"custom_llm_provider": "openai"}, {"azure": True}, {"deployment_id": "x"}, {"use_litellm_proxy": True}],
)
def test_no_credentials_go_to_another_provider(deployment: str, key: str, way: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="provider"):
        base_of(call(deployment, api_key=key, **way))
    info = {"id": "throw-away", "original_model_id": deployment}
    with pytest.raises(InvalidInput):
        base_of(call("", model_info=info, api_key="sk-own", **way))


@pytest.mark.parametrize("name", ["api_base", "base_url"])
def test_an_address_that_is_not_the_deployments_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="address"):
        base_of(call("marked", **{name: "https://evil.example.com"}))


def test_no_token_goes_to_an_address_that_is_not_allowed() -> None:
    with pytest.raises(Forbidden, match="allowed_api_bases"):
        base_of(call("foreign", api_base="https://elsewhere.example.com"))


def test_no_token_goes_to_another_provider() -> None:
    with pytest.raises(Forbidden, match="not anthropic"):
        base_of(call("openai"))


@pytest.mark.parametrize("provider", ["gigachat", "replicate", "openai", "Anthropic", 1, ["anthropic"]])
def test_a_client_cannot_choose_the_provider(provider: object) -> None:
    with pytest.raises(InvalidInput, match="chooses the provider itself"):
        base_of(call("marked", custom_llm_provider=provider))


@pytest.mark.parametrize("name", ["use_litellm_proxy", "use_xai_oauth"])
def test_a_client_cannot_send_the_token_another_way(name: str) -> None:
    with pytest.raises(InvalidInput, match="chooses the provider itself"):
        base_of(call("marked", **{name: True}))


@pytest.mark.parametrize("provider", [None, "", "anthropic"])
def test_the_provider_that_is_meant_may_be_named(provider: str | None) -> None:
    assert base_of(call("marked", custom_llm_provider=provider)) == HOME


def test_a_deployment_without_an_address_is_pinned_to_the_providers_own() -> None:
    kwargs = {"model_info": {"id": "bare"}, "api_key": "oauth"}
    assert base_of(kwargs, ("https://api.anthropic.com",)) == "https://api.anthropic.com"
    with pytest.raises(Forbidden):
        base_of(kwargs)
