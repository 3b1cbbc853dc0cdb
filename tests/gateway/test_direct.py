"""Which messages go past LiteLLM's router: those that it would only pass on, and no others."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from litellm_oauth.gateway.direct import (
    AUTHENTICATOR,
    HOOK,
    direct_models,
    settings_of_litellm,
    summary,
)
from litellm_oauth.litellm_options import OPTIONS

PARAMS: dict[str, Any] = {"model": "anthropic/m", "api_base": "https://api.example", "api_key": "oauth"}
CONFIGURATION: dict[str, Any] = {
    "model_list": [
        {"model_name": "ours", "litellm_params": PARAMS, "model_info": {"cooldown_time": 0}},
        {"model_name": "by-key", "litellm_params": {**PARAMS, "api_key": "os.environ/KEY"}},
        *(
            {
                "model_name": f"other-{number}",
                "litellm_params": {**PARAMS, "api_key": "os.environ/KEY", **more},
            }
            for number, more in enumerate[dict[str, Any]](
                (
                    {"model": "openai/m"},
                    {"model": "m"},
                    {"custom_llm_provider": "openai"},
                    {"api_key": "sk-written-here"},
                    {"api_key": None},
                )
            )
        ),
        {"model_name": "many-*", "litellm_params": PARAMS},
        {"model_name": "timed", "litellm_params": {**PARAMS, "timeout": 5}},
        *(
            {"model_name": f"has-{name}", "litellm_params": {**PARAMS, name: 5}}
            for name in ("rpm", "tpm", "max_budget")
        ),
        {"model_name": "by-pattern", "litellm_params": {**PARAMS, "model": "anthropic/*"}},
        {"litellm_params": PARAMS},
        {"model_name": ["a"], "litellm_params": PARAMS},
        {"model_name": "odd", "litellm_params": "x"},
        {"model_name": "odd-info", "litellm_params": PARAMS, "model_info": "x"},
        None,
        "text",
        {"model_name": "limited", "litellm_params": PARAMS, "model_info": {"max_tokens": 5}},
        {"model_name": "two", "litellm_params": PARAMS},
        {"model_name": "two", "litellm_params": {**PARAMS, "api_base": "https://other.example"}},
    ],
    "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    "litellm_settings": {"callbacks": [HOOK], "telemetry": False},
    "claude_oauth": {},
}


def test_the_kit_s_own_authenticator_has_no_part_in_a_message() -> None:
    general = {"master_key": "x", "custom_auth": AUTHENTICATOR, "custom_auth_run_common_checks": True}
    assert direct_models({**CONFIGURATION, "general_settings": general}) == {"ours", "by-key"}


def test_a_model_that_says_no_more_than_where_to_go_is_direct_and_no_other_is() -> None:
    assert direct_models(CONFIGURATION) == {"ours", "by-key"}


@pytest.mark.parametrize(
    "more",
    [
        {"router_settings": {"num_retries": 3}},
        {"guardrails": [{"guardrail_name": "g"}]},
        {"include": ["other.yaml"]},
        {"general_settings": {"database_url": "os.environ/DATABASE_URL"}},
        {"litellm_settings": {"callbacks": [HOOK, "langfuse"]}},
        {"litellm_settings": {"callbacks": [HOOK], "success_callback": ["langfuse"]}},
        {"litellm_settings": {"callbacks": [HOOK], "fallbacks": [{"ours": ["by-key"]}]}},
        {"litellm_settings": None},
        {"general_settings": {"custom_auth": "somebody.elses"}},
        {"model_list": {"a": "b"}},
    ],
    ids=str,
)
def test_where_litellm_has_a_part_nothing_is_direct(more: dict[str, Any]) -> None:
    assert direct_models({**deepcopy(CONFIGURATION), **more}) == frozenset()


@pytest.mark.parametrize(
    ("section", "name", "direct"),
    [(s, name, option.direct) for s, options in OPTIONS.items() for name, option in options.items()],
)
def test_each_setting_of_the_inventory_leaves_messages_where_its_table_says(
    section: str, name: str, direct: bool
) -> None:
    value = [HOOK, "otel"] if name == "callbacks" else True
    changed = {**CONFIGURATION, section: {**CONFIGURATION[section], name: value}}
    assert direct_models(changed) == ({"ours", "by-key"} if direct else frozenset())
    assert settings_of_litellm(changed) == ([] if direct else [f"{section}.{name}"])


def test_the_log_says_which_models_go_past_the_router_or_why_none_does() -> None:
    head = "messages go past LiteLLM's router for: "
    assert summary(CONFIGURATION, direct_messages=True) == head + "by-key, ours"
    assert summary(CONFIGURATION, direct_messages=False) == (
        head + "no model (claude_oauth.direct_messages is false)"
    )
    settings = {"callbacks": [HOOK, "otel"], "num_retries": 2, "drop_params": True}
    general = {"custom_auth": "somebody.elses", "alerting": ["slack"]}
    changed = {
        **CONFIGURATION,
        "litellm_settings": settings,
        "general_settings": general,
        "router_settings": {},
    }
    assert summary(changed, direct_messages=True) == (
        head
        + "no model (because of router_settings, general_settings.alerting, general_settings.custom_auth, "
        "litellm_settings.num_retries, litellm_settings.callbacks in config.yaml)"
    )
    assert summary({**CONFIGURATION, "model_list": {}}, direct_messages=True).endswith(
        "(because of model_list in config.yaml)"
    )
    timed = [{"model_name": "timed", "litellm_params": {**PARAMS, "timeout": 5}}]
    assert summary({**CONFIGURATION, "model_list": timed}, direct_messages=True) == (
        head + "no model (no model is Anthropic's, with oauth or os.environ/NAME as api_key and no settings "
        "beyond its address)"
    )
