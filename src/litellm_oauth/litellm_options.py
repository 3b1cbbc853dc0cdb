"""Which settings of LiteLLM's own the inventory may pass on, of which type, and what each costs.

Most messages go to the API past LiteLLM's router, which would only pass them on. A setting with ``direct``
has no effect on such messages, so they go on doing so; every other one gives LiteLLM a part in each message,
and all of them go through its router, which is several times slower.

Standard library only, and no import of this package: the check of the Ansible variables loads this file too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Callbacks that send what they log by HTTP, with what the image holds, and never a request's credentials.
CALLBACKS = (
    *("arize", "arize_phoenix", "braintrust", "datadog", "datadog_llm_observability", "generic_api"),
    *("langfuse_otel", "langsmith", "logfire", "opik", "otel", "posthog"),
)
_CLOUD = "needs the cloud's credentials, which LiteLLM would use for models as well"
_PACKAGE = "needs a package that the gateway's image does not hold"
REFUSED_CALLBACKS = {
    "langfuse": f"{_PACKAGE}; write langfuse_otel, which sends to Langfuse too",
    "prometheus": f"{_PACKAGE}; take the gateway's own figures from /auth/claude/oauth/metrics",
    **dict.fromkeys(
        ("s3", "s3_v2", "aws_sqs", "dynamodb", "gcs_bucket", "gcs_pubsub", "azure_storage", "azure_sentinel"),
        f"{_CLOUD}; write another one",
    ),
}


@dataclass(frozen=True, slots=True)
class Option:
    """``fault_of`` says what is wrong with a value, with its mend. ``direct``: see above."""

    fault_of: Callable[[object], str | None]
    direct: bool


def _boolean(value: object) -> str | None:
    return None if isinstance(value, bool) else "is no boolean; write true or false"


def _number(low: float, high: float, *, whole: bool) -> Callable[[object], str | None]:
    kind = "whole number" if whole else "number"

    def fault_of(value: object) -> str | None:
        right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if right and low <= float(str(value)) <= high:
            return None
        return f"is no {kind} from {low:g} to {high:g}; write one"

    return fault_of


def _callbacks(value: object) -> str | None:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return "is no list of names; write [langfuse_otel]"
    for name in value:
        if name in REFUSED_CALLBACKS:
            return f"holds {name}, which {REFUSED_CALLBACKS[name]}"
        if name not in CALLBACKS:
            return f"holds a callback that is not known; write some of {', '.join(CALLBACKS)}"
    return None if len(set(value)) == len(value) else "names a callback twice; name it once"


def _fallbacks(value: object) -> str | None:
    mend = "write [{MODEL: [OTHER_MODEL]}]"
    if not isinstance(value, list):
        return f"is no list; {mend}"
    for entry in value:
        if not isinstance(entry, dict) or len(entry) != 1:
            return f"holds an entry that is no mapping of one model; {mend}"
        ((name, others),) = entry.items()
        names = [name, *others] if isinstance(others, list) and others else [None]
        if not all(isinstance(n, str) and n for n in names):
            return f"holds an entry that does not map a model to a list of models; {mend}"
    return None


# What LiteLLM's own messages and documents tell operators to set under `litellm_settings`.
LITELLM_SETTINGS: Mapping[str, Option] = {
    # About translating a request into the Messages API, which one of that API needs not.
    "drop_params": Option(_boolean, direct=True),
    "modify_params": Option(_boolean, direct=True),
    # About LiteLLM's own log, and what callbacks are told.
    "json_logs": Option(_boolean, direct=True),
    "redact_messages_in_exceptions": Option(_boolean, direct=True),
    "redact_user_api_key_info": Option(_boolean, direct=True),
    "turn_off_message_logging": Option(_boolean, direct=True),
    # What the router does.
    "num_retries": Option(_number(0, 10, whole=True), direct=False),
    "request_timeout": Option(_number(1, 86_400, whole=False), direct=False),
    "callbacks": Option(_callbacks, direct=False),
    "success_callback": Option(_callbacks, direct=False),
    "failure_callback": Option(_callbacks, direct=False),
    "fallbacks": Option(_fallbacks, direct=False),
    "context_window_fallbacks": Option(_fallbacks, direct=False),
    "content_policy_fallbacks": Option(_fallbacks, direct=False),
}
# And under `general_settings`.
GENERAL_SETTINGS: Mapping[str, Option] = {
    "disable_error_logs": Option(_boolean, direct=True),
    "disable_spend_logs": Option(_boolean, direct=True),
    "include_call_id_in_error_body": Option(_boolean, direct=True),
}
OPTIONS = {"litellm_settings": LITELLM_SETTINGS, "general_settings": GENERAL_SETTINGS}

_CACHE = "a cache of answers does not tell one user's from another's; leave it out"
_OWN = "the kit writes it itself; leave it out"
_IN_DATABASE = "it is about users and keys in LiteLLM's own database; leave it out"
_OPENS = "it opens the gateway beside the keys and routes that the kit checks; leave it out"
_CODE = "it names code, and none of yours is in the gateway's image; leave it out"
_FORWARDS = "it sends what clients have in their headers, their gateway key too, to the API; leave it out"
_VAULT = "the kit's secrets come from Ansible Vault or the target; leave it out"
_NO_EFFECT = "the LiteLLM of this kit does not apply it; leave it out"
_COOLDOWN = "one user's errors would take the model from all the others; leave it out"

# Names that somebody may well try, and why not.
REFUSED: Mapping[str, Mapping[str, str]] = {
    "litellm_settings": {
        **dict.fromkeys(("cache", "cache_params", "enable_redis_auth_cache", "responses"), _CACHE),
        **dict.fromkeys(("telemetry",), _OWN),
        **dict.fromkeys(
            (
                *("default_internal_user_params", "default_team_params", "default_team_settings"),
                *("default_key_generate_params", "upperbound_key_generate_params", "max_budget"),
                *("max_internal_user_budget", "internal_user_budget_duration", "max_end_user_budget"),
                *("store_audit_logs", "audit_log_callbacks"),
            ),
            _IN_DATABASE,
        ),
        **dict.fromkeys(
            ("custom_provider_map", "post_call_rules", "pre_call_rules", "input_callback"), _CODE
        ),
        **dict.fromkeys(
            ("add_user_information_to_llm_headers", "forward_traceparent_to_llm_provider"), _FORWARDS
        ),
        **dict.fromkeys(("public_routes", "public_model_groups"), _OPENS),
        **dict.fromkeys(("allowed_fails", "cooldown_time"), _COOLDOWN),
        "guardrails": "it is LiteLLM's older form; set litellm_oauth_guardrails",
        "log_raw_request_response": "it writes whole requests where others read; leave it out",
        "set_verbose": (
            "it prints beside the log, where no secret is hidden; set litellm_oauth_log_level to DEBUG"
        ),
        "ssl_verify": "the kit has a variable for CA certificates; set litellm_oauth_ca_file",
    },
    "general_settings": {
        **dict.fromkeys(("master_key", "custom_auth", "custom_auth_run_common_checks"), _OWN),
        **dict.fromkeys(
            (
                *("public_routes", "allowed_routes", "admin_only_routes", "admin_allowed_routes"),
                *("allow_user_auth", "allow_client_side_credentials", "allow_requests_on_db_unavailable"),
                *("allow_public_health_readiness_details", "dangerously_permit_weak_or_unset_master_key"),
                *(
                    "pass_through_endpoints",
                    "plugins",
                    "enable_jwt_auth",
                    "litellm_jwtauth",
                    "enable_oauth2_auth",
                ),
                *("enable_oauth2_auth", "enable_oauth2_proxy_auth"),
                *("oauth2_config_mappings", "litellm_key_header_name"),
                *(
                    "enable_claude_code_gateway",
                    "user_header_name",
                    "user_header_mappings",
                    "role_permissions",
                ),
                *("disable_responses_id_security", "allow_unmanaged_response_ids", "infer_model_from_keys"),
            ),
            _OPENS,
        ),
        **dict.fromkeys(
            (
                *("forward_client_headers_to_llm_api", "forward_llm_provider_auth_headers"),
                "forward_openai_org_id",
            ),
            _FORWARDS,
        ),
        **dict.fromkeys(
            ("key_management_system", "key_management_settings", "use_google_kms", "use_azure_key_vault"),
            _VAULT,
        ),
        **dict.fromkeys(
            ("custom_key_generate", "custom_key_update", "custom_sso", "custom_ui_sso_sign_in_handler"), _CODE
        ),
        **dict.fromkeys(("store_model_in_db", "supported_db_objects", "coordination_redis"), _IN_DATABASE),
        **dict.fromkeys(("max_parallel_requests", "global_max_parallel_requests"), _NO_EFFECT),
        "max_request_size_mb": "the kit has a variable for it; set litellm_oauth_max_body_mb",
        "max_file_size_mb": "the kit has a variable for it; set litellm_oauth_max_upload_mb",
        **dict.fromkeys(
            ("use_x_forwarded_for", "trusted_proxy_ranges"),
            "the kit has a variable for it; set litellm_oauth_trusted_proxies",
        ),
    },
}
# Families of names, where no name stands above.
_REFUSED_FAMILIES = (
    (re.compile("database_.*"), _OWN),
    (re.compile("custom_.*"), _CODE),
    (re.compile("forward_.*"), _FORWARDS),
    (re.compile(".*(_key|_keys|_token|_secret|_password)"), _VAULT),
    (re.compile("default_.*_params|.*_budget"), _IN_DATABASE),
)


def faults_of(values: object, section: str) -> list[str]:
    """What is wrong with the settings of one section of OPTIONS, each with its mend; no value is shown."""
    if not isinstance(values, dict):
        return ["is no mapping; write {NAME: value}"]
    found = (fault_of(section, name, value) for name, value in values.items())
    return [fault for fault in found if fault is not None]


def fault_of(section: str, name: object, value: object) -> str | None:
    """What is wrong with one setting, or None."""
    if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9_]{0,63}", name):
        return "holds a name that is none of a setting; write small letters, digits and _"
    options = OPTIONS[section]
    if name in options:
        fault = options[name].fault_of(value)
        return None if fault is None else f"holds {name}, which {fault}"
    reason = REFUSED[section].get(name) or next((r for p, r in _REFUSED_FAMILIES if p.fullmatch(name)), None)
    if reason is not None:
        return f"holds {name}, which is refused: {reason}"
    other = next((other for other in OPTIONS if other != section and name in OPTIONS[other]), None)
    if other is not None:
        return f"holds {name}, which belongs to {other}; move it to litellm_oauth_{other}"
    near = difflib.get_close_matches(name, options, n=1)
    mend = f"did you mean {near[0]}?" if near else f"these can be set: {', '.join(options)}"
    return f"holds {name}, which the kit does not pass on; {mend}"
