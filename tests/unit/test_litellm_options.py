"""Which settings of LiteLLM's own an inventory may pass on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from litellm_oauth.litellm_options import CALLBACKS, OPTIONS, REFUSED, REFUSED_CALLBACKS, fault_of, faults_of
from litellm_oauth.provider_keys import CALLBACK_PREFIXES

# Of the LiteLLM that is pinned; scripts/litellm_lists.py writes it.
LISTS: dict[str, Any] = json.loads(Path(__file__).with_name("litellm_lists.json").read_text())
NO_BOOLEANS: list[object] = ["true", 1, None, []]
NO_FALLBACKS: list[object] = [
    {"a": ["b"]},
    ["a"],
    [{"a": "b"}],
    [{"a": []}],
    [{"a": ["b"], "c": ["d"]}],
    [{1: ["b"]}],
]
# What LiteLLM reads without a declaration.
UNDECLARED = {"disable_error_logs", "disable_spend_logs"}


@pytest.mark.parametrize(("section", "name"), [(s, n) for s, options in OPTIONS.items() for n in options])
def test_each_setting_is_one_of_litellm_s(section: str, name: str) -> None:
    assert name in LISTS[section] or name in UNDECLARED
    assert name not in REFUSED[section]


def test_each_callback_is_one_of_litellm_s_and_its_variables_can_be_set() -> None:
    assert set(CALLBACKS) <= set(LISTS["callbacks"])
    assert not set(CALLBACKS) & set(REFUSED_CALLBACKS)
    first_words = {prefix.strip("_").split("_")[0].lower() for prefix in CALLBACK_PREFIXES} - {"guardrail"}
    names = {"datadog": "dd", "arize_phoenix": "phoenix", "datadog_llm_observability": "dd"}
    assert {names.get(name, name.split("_")[0]) for name in CALLBACKS} == first_words


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("drop_params", [True, False]),
        ("num_retries", [0, 10]),
        ("request_timeout", [1, 0.5 + 1, 86_400]),
        ("callbacks", [[], ["langfuse_otel"], list(CALLBACKS)]),
        ("fallbacks", [[], [{"a": ["b"]}, {"c": ["d", "e"]}]]),
    ],
)
def test_a_value_of_the_right_type_is_taken(name: str, values: list[object]) -> None:
    assert [fault_of("litellm_settings", name, value) for value in values] == [None] * len(values)


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        *(("drop_params", value, "is no boolean; write true or false") for value in NO_BOOLEANS),
        *(
            ("num_retries", value, "is no whole number from 0 to 10")
            for value in (-1, 11, 1.5, "3", True, None)
        ),
        *(
            ("request_timeout", value, "is no number from 1 to 86400; write one")
            for value in (0, 86_401, "60", True, float("nan"), float("inf"))
        ),
        *(("callbacks", v, "is no list of names; write [langfuse_otel]") for v in ("otel", [1], {"otel": 1})),
        ("callbacks", ["otel", "mine.callback"], "is not known; write some of arize, "),
        ("callbacks", ["langfuse"], "holds langfuse, which needs a package"),
        ("success_callback", ["s3_v2"], "holds s3_v2, which needs the cloud's credentials"),
        ("failure_callback", ["otel", "otel"], "names a callback twice"),
        *(("fallbacks", value, "; write [{MODEL: [OTHER_MODEL]}]") for value in NO_FALLBACKS),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_with_the_mend(name: str, value: object, fault: str) -> None:
    said = fault_of("litellm_settings", name, value)
    assert said is not None
    assert said.startswith(f"holds {name}, which ")
    assert fault in said
    assert "; " in said


@pytest.mark.parametrize(
    ("section", "name", "reason"),
    [
        ("litellm_settings", "cache", "does not tell one user's from another's"),
        ("litellm_settings", "cache_params", "does not tell one user's from another's"),
        ("litellm_settings", "set_verbose", "set litellm_oauth_log_level to DEBUG"),
        ("litellm_settings", "default_internal_user_params", "LiteLLM's own database"),
        ("litellm_settings", "default_user_params", "LiteLLM's own database"),
        ("litellm_settings", "max_user_budget", "LiteLLM's own database"),
        ("litellm_settings", "openai_key", "secrets come from Ansible Vault"),
        ("litellm_settings", "post_call_rules", "names code"),
        ("litellm_settings", "allowed_fails", "take the model from all the others"),
        ("litellm_settings", "ssl_verify", "set litellm_oauth_ca_file"),
        ("litellm_settings", "guardrails", "set litellm_oauth_guardrails"),
        ("general_settings", "master_key", "the kit writes it itself"),
        ("general_settings", "database_url", "the kit writes it itself"),
        ("general_settings", "database_connection_pool_limit", "the kit writes it itself"),
        ("general_settings", "custom_auth", "the kit writes it itself"),
        ("general_settings", "custom_key_policy", "names code"),
        ("general_settings", "public_routes", "opens the gateway"),
        ("general_settings", "allowed_routes", "opens the gateway"),
        ("general_settings", "pass_through_endpoints", "opens the gateway"),
        ("general_settings", "infer_model_from_keys", "opens the gateway"),
        ("general_settings", "forward_client_headers_to_llm_api", "their gateway key too"),
        ("general_settings", "forward_anything", "their gateway key too"),
        ("general_settings", "drain_endpoint_token", "secrets come from Ansible Vault"),
        ("general_settings", "global_max_parallel_requests", "does not apply it"),
        ("general_settings", "max_request_size_mb", "set litellm_oauth_max_body_mb"),
        ("general_settings", "use_x_forwarded_for", "set litellm_oauth_trusted_proxies"),
    ],
)
def test_what_would_do_harm_is_refused_with_the_reason(section: str, name: str, reason: str) -> None:
    said = fault_of(section, name, "hunter2")
    assert said is not None
    assert said.startswith(f"holds {name}, which is refused: ")
    assert reason in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("section", "name", "mend"),
    [
        ("litellm_settings", "drop_param", "did you mean drop_params?"),
        ("litellm_settings", "ui_theme", "these can be set: drop_params, "),
        ("general_settings", "alerting", "these can be set: disable_error_logs, "),
        (
            "general_settings",
            "drop_params",
            "belongs to litellm_settings; move it to litellm_oauth_litellm_settings",
        ),
        ("litellm_settings", "disable_spend_logs", "move it to litellm_oauth_general_settings"),
        ("litellm_settings", "Drop-Params", "small letters"),
        ("litellm_settings", "x: 1\ncache", "small letters"),
        ("litellm_settings", 7, "small letters"),
    ],
    ids=str,
)
def test_what_is_not_known_is_refused_with_what_is(section: str, name: object, mend: str) -> None:
    said = fault_of(section, name, True)
    assert said is not None
    assert mend in said


@pytest.mark.parametrize("section", OPTIONS)
def test_none_of_litellm_s_other_settings_is_passed_on(section: str) -> None:
    others = [name for name in LISTS[section] if name not in OPTIONS[section]]
    assert others
    assert [name for name in others if fault_of(section, name, True) is None] == []


def test_every_fault_is_said_and_what_is_no_mapping_is_one() -> None:
    assert faults_of({}, "litellm_settings") == []
    assert len(faults_of({"drop_params": 1, "cache": True, "num_retries": 2}, "litellm_settings")) == 2
    assert faults_of(["drop_params"], "litellm_settings") == ["is no mapping; write {NAME: value}"]
    assert faults_of(None, "general_settings") == ["is no mapping; write {NAME: value}"]
