"""What the gateway is told, of what people set: workers, fallbacks, direct messages, a private CA."""

from __future__ import annotations

from typing import Any

import pytest

from litellm_oauth.gateway.direct import HOOK, direct_models, settings_of_litellm
from support.role import RefusedError, rendered


@pytest.mark.parametrize(("workers", "processors", "count"), [("auto", 3, 3), ("auto", 64, 8), (5, 3, 5)])
def test_there_are_as_many_workers_as_processors_or_as_is_said(
    workers: object, processors: int, count: int
) -> None:
    facts = {"docker_engine_answer": {"host_info": {"NCPU": processors}}}
    service = rendered({"litellm_oauth_workers": workers}, facts=facts).service
    assert service["environment"]["NUM_WORKERS"] == str(count)
    assert service["memory"] == f"{512 + 512 * count}m"


def test_a_word_is_no_number_of_workers() -> None:
    with pytest.raises(RefusedError, match="litellm_oauth_workers is"):
        rendered({"litellm_oauth_workers": "many"})


def test_a_fallback_reaches_the_module_and_not_litellm() -> None:
    models = [
        {"name": "moving", "model": "claude-x", "fallback_to_api_key": "os.environ/KEY"},
        {"name": "plain", "model": "claude-x"},
    ]
    variables = {"litellm_oauth_models": models, "litellm_oauth_api_keys": {"KEY": "obviously-fake-key"}}
    config = rendered(variables).config
    assert config["claude_oauth"]["fallback_to_api_key"] == {"moving": "os.environ/LITELLM_OAUTH_KEY_KEY"}
    assert "KEY" not in str(config["model_list"])


@pytest.mark.parametrize(
    ("variables", "level", "detailed"),
    [
        ({}, "INFO", "false"),
        ({"litellm_oauth_log_level": "DEBUG", "litellm_oauth_detailed_debug": True}, "DEBUG", "true"),
    ],
)
def test_the_log_says_as_much_as_is_asked_for(variables: dict[str, Any], level: str, detailed: str) -> None:
    environment = rendered(variables).service["environment"]
    assert (environment["LITELLM_LOG_LEVEL"], environment["DETAILED_DEBUG"]) == (level, detailed)


def test_a_private_ca_is_mounted_and_trusted() -> None:
    service = rendered({"litellm_oauth_ca_file": "/etc/ssl/certs/ca-certificates.crt"}).service
    target = service["environment"]["SSL_CERT_FILE"]
    source = "/etc/ssl/certs/ca-certificates.crt"
    assert [{"type": "bind", "source": source, "target": target, "read_only": True}] in service["mounts"]


def test_all_models_of_the_kit_can_be_direct() -> None:
    """What the role writes beside them must not keep messages on LiteLLM's router."""
    models: list[dict[str, Any]] = [
        {"name": "by-token", "model": "claude-x"},
        {"name": "by-key", "model": "claude-x", "api_key": "os.environ/KEY"},
    ]
    config = rendered({"litellm_oauth_models": models, "litellm_oauth_api_keys": {"KEY": "fake"}}).config
    assert config["claude_oauth"]["direct_messages"] is True
    assert direct_models(config) == {"by-token", "by-key"}


def test_what_is_open_to_users_reaches_the_module() -> None:
    told = rendered(
        {
            "litellm_oauth_extra_routes": ["/v1/rerank", "/v1/files/{file_id}", "/vector_stores/*"],
            "litellm_oauth_max_body_mb": "600",
            "litellm_oauth_trusted_proxies": ["10.0.0.0/8", "host"],
        }
    ).config["claude_oauth"]
    assert told["extra_routes"] == ["/v1/rerank", "/v1/files/{file_id}", "/vector_stores/*"]
    # an upload is never less than any other body, also if nothing is said of it
    assert (told["max_body_mb"], told["max_upload_mb"]) == (600, 600)
    assert told["trusted_proxies"] == ["10.0.0.0/8", "host"]


@pytest.mark.parametrize(("source", "asks"), [("oidc/google/aud", True), (None, False)])
def test_the_cloud_is_asked_only_if_a_model_wants_a_token_of_it(source: str | None, asks: bool) -> None:
    identity = {"federation_rule_id": "r", "organization_id": "o", "identity_token": source}
    models: list[dict[str, Any]] = [{"name": "plain", "model": "claude-x"}]
    if source:
        models.append(
            {"name": "f", "model": "m", "workload_identity": identity, "api_base": "https://api.example.com"}
        )
    variables = {"litellm_oauth_models": models}
    bases = ["https://api.example.com", "{{ litellm_oauth_api_base }}"]
    config = rendered({**variables, "litellm_oauth_allowed_api_bases": bases}).config
    assert config["claude_oauth"]["cloud_metadata"] is asks
    if source:
        told = rendered(
            {**variables, "litellm_oauth_allowed_api_bases": bases, "litellm_oauth_cloud_metadata": "false"}
        )
        assert told.config["claude_oauth"]["cloud_metadata"] is False


def test_a_model_s_key_has_a_name_in_the_process_that_litellm_does_not_know() -> None:
    """Under ANTHROPIC_API_KEY, LiteLLM would send it for every model of the provider, federated ones too."""
    identity = {
        "federation_rule_id": "r",
        "organization_id": "o",
        "identity_source": "keycloak",
        "keycloak_token_url": "https://keycloak.example.com/token",
        "keycloak_client_id": "gateway",
        "keycloak_client_secret_ref": "os.environ/ANTHROPIC_AUTH_TOKEN",
    }
    base = "https://api.example.com"
    models: list[dict[str, Any]] = [
        {"name": "by-key", "model": "m", "api_key": "os.environ/ANTHROPIC_API_KEY"},
        {"name": "federated", "model": "m", "workload_identity": identity, "api_base": base},
        {"name": "moving", "model": "m", "fallback_to_api_key": "os.environ/ANTHROPIC_API_KEY"},
    ]
    found = rendered(
        {
            "litellm_oauth_models": models,
            "litellm_oauth_allowed_api_bases": [base, "{{ litellm_oauth_api_base }}"],
            "litellm_oauth_api_keys": {"ANTHROPIC_API_KEY": "fake", "ANTHROPIC_AUTH_TOKEN": "fake"},
            "litellm_oauth_callback_keys": {"LANGFUSE_SECRET_KEY": "fake secret", "DD_SITE": "dd.example"},
        }
    )
    inside = "os.environ/LITELLM_OAUTH_KEY_ANTHROPIC_"
    by_key, federated, moving = (model["litellm_params"] for model in found.config["model_list"])
    assert by_key["api_key"] == inside + "API_KEY"
    assert federated["anthropic_keycloak_client_secret_ref"] == inside + "AUTH_TOKEN"
    assert federated["anthropic_keycloak_token_url"] == "https://keycloak.example.com/token"
    assert moving["api_key"] == "oauth"
    assert found.config["claude_oauth"]["fallback_to_api_key"] == {"moving": inside + "API_KEY"}
    environment = found.service["environment"]
    assert environment["LITELLM_OAUTH_API_KEYS"] == "ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN"
    assert environment["LITELLM_OAUTH_CALLBACK_KEYS"] == "DD_SITE LANGFUSE_SECRET_KEY"
    # what the process is started with holds none of the keys, under no name
    assert not {"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "LANGFUSE_SECRET_KEY", "DD_SITE"} & set(
        environment
    )
    assert "fake" not in str(found)


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "x"}, "holds AWS_SECRET_ACCESS_KEY, which LiteLLM would use for models"),
        ({"LD_PRELOAD": "x"}, "holds LD_PRELOAD, which no callback or guardrail reads; write one of ARIZE_"),
        ({"lower": "x"}, "holds a name that is not of capital letters"),
        ({"LANGFUSE_HOST": "hunter2\u00e4"}, "is malformed (its values are not shown)"),
        ({"LANGFUSE_HOST": "hunter2\nx"}, "is malformed (its values are not shown)"),
        ({"LANGFUSE_HOST": " "}, "is malformed (its values are not shown)"),
        ({"DD_API_KEY": "x"}, "holds DD_API_KEY, which the models' keys hold too"),
    ],
    ids=str,
)
def test_a_callback_s_key_that_is_none_is_refused(keys: dict[str, str], fault: str) -> None:
    with pytest.raises(RefusedError) as caught:
        rendered(
            {"litellm_oauth_callback_keys": keys, "litellm_oauth_api_keys": {"DD_API_KEY": "obviously-fake"}}
        )
    assert f"litellm_oauth_callback_keys {fault}" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_litellm_s_own_settings_reach_it_and_leave_messages_past_the_router() -> None:
    """Open WebUI, LibreChat and n8n send what Claude does not know; LiteLLM's error says drop_params."""
    plain = rendered({}).config
    assert "drop_params" not in plain["litellm_settings"]
    config = rendered(
        {
            "litellm_oauth_litellm_settings": {"drop_params": True, "modify_params": False},
            "litellm_oauth_general_settings": {"disable_error_logs": True},
        }
    ).config
    assert config["litellm_settings"] == {
        **plain["litellm_settings"],
        "drop_params": True,
        "modify_params": False,
    }
    assert config["general_settings"] == {**plain["general_settings"], "disable_error_logs": True}
    assert direct_models(config) == direct_models(plain) != frozenset()


def test_callbacks_stand_beside_the_module_s_own_and_take_messages_through_the_router() -> None:
    settings = {
        "callbacks": ["langfuse_otel"],
        "success_callback": ["datadog"],
        "fallbacks": [{"claude-opus-4": ["claude-sonnet-4"]}],
        "request_timeout": 90,
    }
    config = rendered({"litellm_oauth_litellm_settings": settings}).config
    assert config["litellm_settings"] == {
        **settings,
        "callbacks": [HOOK, "langfuse_otel"],
        "telemetry": False,
    }
    assert direct_models(config) == frozenset()


def test_guardrails_reach_litellm_and_take_messages_through_the_router() -> None:
    assert "guardrails" not in rendered({}).config
    guardrails = [
        {
            "guardrail_name": "ours",
            "litellm_params": {
                "guardrail": "generic_guardrail_api",
                "mode": ["pre_call", "post_call"],
                "default_on": True,
                "api_base": "https://guardrail.example.com",
                "api_key": "os.environ/GUARDRAIL_KEY",
            },
        },
        {
            "guardrail_name": "words",
            "litellm_params": {
                "guardrail": "litellm_content_filter",
                "mode": "pre_call",
                "patterns": [{"pattern_type": "regex", "pattern": r"\bPRJ-\d{4}", "action": "BLOCK"}],
            },
        },
    ]
    found = rendered(
        {"litellm_oauth_guardrails": guardrails, "litellm_oauth_callback_keys": {"GUARDRAIL_KEY": "fake-key"}}
    )
    assert found.config["guardrails"] == guardrails
    assert direct_models(found.config) == frozenset()
    assert settings_of_litellm(found.config) == ["guardrails"]
    assert found.service["environment"]["LITELLM_OAUTH_CALLBACK_KEYS"] == "GUARDRAIL_KEY"
    assert "fake-key" not in str(found)


def test_a_guardrail_that_would_not_look_is_refused() -> None:
    params = {"guardrail": "generic_guardrail_api", "mode": "pre_call", "api_key": "hunter2"}
    with pytest.raises(RefusedError) as caught:
        rendered({"litellm_oauth_guardrails": [{"guardrail_name": "ours", "litellm_params": params}]})
    said = str(caught.value)
    assert "litellm_oauth_guardrails holds ours, which lacks api_base" in said
    assert "It holds ours, whose api_key is written out; write os.environ/GUARDRAIL_KEY" in said
    assert "hunter2" not in said


def test_what_would_do_harm_is_refused_in_one_message() -> None:
    with pytest.raises(RefusedError) as caught:
        rendered(
            {
                "litellm_oauth_litellm_settings": {
                    "cache": True,
                    "drop_params": "true",
                    "openai_key": "hunter2",
                },
                "litellm_oauth_general_settings": {"master_key": "hunter2", "alerting": ["slack"]},
            }
        )
    said = str(caught.value)
    assert "litellm_oauth_litellm_settings holds cache, which is refused: a cache of answers" in said
    assert (
        "It holds drop_params, which is no boolean; write true or false. It holds openai_key, which is"
        in said
    )
    assert "litellm_oauth_general_settings holds master_key, which is refused" in said
    assert "It holds alerting, which the kit does not pass on; these can be set: disable_error_logs" in said
    assert "hunter2" not in said
