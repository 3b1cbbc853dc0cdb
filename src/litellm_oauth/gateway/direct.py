"""Which messages go to the API as they are, past LiteLLM's router: those that it would only pass on.

An operator configures LiteLLM for fallbacks, retries, callbacks, guardrails, caches, limits. If configuration
or request asks for any of these, or for what is not known here, the message goes through LiteLLM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .deployments import is_marked

# As config.yaml names them. Another authenticator may set limits that only LiteLLM's router keeps.
HOOK = "litellm_oauth.gateway.hook.oauth_hook"
AUTHENTICATOR = "litellm_oauth.gateway.keys.authenticate"

# What a configuration may say without giving LiteLLM a part in a message.
_SECTIONS = frozenset(("model_list", "general_settings", "litellm_settings", "claude_oauth"))
_GENERAL = frozenset(("master_key", "custom_auth", "custom_auth_run_common_checks"))
_LITELLM = frozenset(("callbacks", "telemetry"))
_PARAMS = frozenset(("model", "api_base", "api_key", "custom_llm_provider"))
_INFO = frozenset(("cooldown_time",))


def direct_models(configuration: Mapping[str, Any]) -> frozenset[str]:
    """The models of a config.yaml whose messages LiteLLM would only pass on; none where it has any part.

    What has not the shape that LiteLLM expects is left to LiteLLM, which says so.
    """
    general, settings = (
        _mapping(configuration.get(part)) for part in ("general_settings", "litellm_settings")
    )
    models = configuration.get("model_list")
    if not (
        configuration.keys() <= _SECTIONS
        and general.keys() <= _GENERAL
        and general.get("custom_auth") in (None, AUTHENTICATOR)
        and settings.keys() <= _LITELLM
        and settings.get("callbacks") == [HOOK]
        and isinstance(models, list)
    ):
        return frozenset()
    names = Counter(str(_mapping(model).get("model_name")) for model in models)
    return frozenset(
        model["model_name"]
        for model in models
        if isinstance(model, dict) and _is_simple(model) and names[model["model_name"]] == 1
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_simple(model: Mapping[str, Any]) -> bool:
    name, params, info = (model.get(part) for part in ("model_name", "litellm_params", "model_info"))
    return (
        isinstance(name, str)
        and isinstance(params, dict)
        and isinstance(info, dict | None)
        and is_marked(model)
        and params.keys() <= _PARAMS
        and (info or {}).keys() <= _INFO
        and "*" not in name + str(params.get("model"))
    )
