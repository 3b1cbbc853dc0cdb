"""Which messages go to the API as they are, past LiteLLM's router: those that it would only pass on.

An operator configures LiteLLM for fallbacks, retries, callbacks, guardrails, caches, limits. If configuration
or request asks for any of these, or for what is not known here, the message goes through LiteLLM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..litellm_options import GENERAL_SETTINGS, LITELLM_SETTINGS, Option
from .deployments import ANTHROPIC, is_marked

# As config.yaml names them. Another authenticator may set limits that only LiteLLM's router keeps.
HOOK = "litellm_oauth.gateway.hook.oauth_hook"
AUTHENTICATOR = "litellm_oauth.gateway.keys.authenticate"


def _direct(options: Mapping[str, Option]) -> frozenset[str]:
    return frozenset(name for name, option in options.items() if option.direct)


# What a configuration may say without giving LiteLLM a part in a message: what the kit writes itself, and
# what the inventory may add.
_SECTIONS = frozenset(("model_list", "general_settings", "litellm_settings", "claude_oauth"))
_GENERAL = _direct(GENERAL_SETTINGS) | {"master_key", "custom_auth", "custom_auth_run_common_checks"}
_LITELLM = _direct(LITELLM_SETTINGS) | {"callbacks", "telemetry"}
_PARAMS = frozenset(("model", "api_base", "api_key", "custom_llm_provider"))
_INFO = frozenset(("cooldown_time",))
# How a key is named that is not written into the file.
_REFERENCE = "os.environ/"


def direct_models(configuration: Mapping[str, Any]) -> frozenset[str]:
    """The models of a config.yaml whose messages LiteLLM would only pass on; none where it has any part.

    What has not the shape that LiteLLM expects is left to LiteLLM, which says so.
    """
    if settings_of_litellm(configuration):
        return frozenset()
    models = configuration["model_list"]
    names = Counter(str(_mapping(model).get("model_name")) for model in models)
    return frozenset(
        model["model_name"]
        for model in models
        if isinstance(model, dict) and _is_simple(model) and names[model["model_name"]] == 1
    )


def settings_of_litellm(configuration: Mapping[str, Any]) -> list[str]:
    """The settings of a config.yaml that give LiteLLM a part in every message."""
    general, settings = (
        _mapping(configuration.get(part)) for part in ("general_settings", "litellm_settings")
    )
    found = [str(section) for section in configuration if section not in _SECTIONS]
    found += [f"general_settings.{name}" for name in general if name not in _GENERAL]
    if general.get("custom_auth") not in (None, AUTHENTICATOR):
        found.append("general_settings.custom_auth")
    found += [f"litellm_settings.{name}" for name in settings if name not in _LITELLM]
    if settings.get("callbacks") != [HOOK]:
        found.append("litellm_settings.callbacks")
    if not isinstance(configuration.get("model_list"), list):
        found.append("model_list")
    return found


def summary(configuration: Mapping[str, Any], *, direct_messages: bool) -> str:
    """What the log says at the start of the models whose messages go past the router, or why none's do."""
    models = sorted(direct_models(configuration)) if direct_messages else []
    if models:
        return f"messages go past LiteLLM's router for: {', '.join(models)}"
    reason = (
        "no model is Anthropic's, with oauth or os.environ/NAME as api_key and no settings beyond its address"
    )
    if not direct_messages:
        reason = "claude_oauth.direct_messages is false"
    elif settings := settings_of_litellm(configuration):
        reason = f"because of {', '.join(settings)} in config.yaml"
    return f"messages go past LiteLLM's router for: no model ({reason})"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_simple(model: Mapping[str, Any]) -> bool:
    name, params, info = (model.get(part) for part in ("model_name", "litellm_params", "model_info"))
    return (
        isinstance(name, str)
        and isinstance(params, dict)
        and isinstance(info, dict | None)
        and (is_marked(model) or _has_key_of_the_operator(params))
        and params.keys() <= _PARAMS
        and (info or {}).keys() <= _INFO
        and "*" not in name + str(params.get("model"))
    )


def _has_key_of_the_operator(params: Mapping[str, Any]) -> bool:
    """Whether these are the parameters of a model of Anthropic's API with a plain key."""
    key, provider = params.get("api_key"), params.get("custom_llm_provider")
    named = str(params.get("model")).startswith(f"{ANTHROPIC}/") and provider in (None, ANTHROPIC)
    return named and isinstance(key, str) and key.startswith(_REFERENCE)
