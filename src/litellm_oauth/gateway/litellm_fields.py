"""Which fields of a message are LiteLLM's own, so that it has a part in the message.

All others are the API's business, also those that it invents tomorrow. Proven on LiteLLM 1.106.2, whose own
list of its parameters is the larger part; ``tests/live/litellm_fields.txt`` has the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from .identity import USER_HEADER

# LiteLLM knows these, and so does the Messages API.
_OF_THE_API = frozenset(("metadata", "fallbacks"))
# What LiteLLM takes out of a body beside the parameters in its list.
_MORE = frozenset(
    (
        "additional_drop_params",
        "base_url",
        "content_policy_fallbacks",
        "context_window_fallbacks",
        "deployment_id",
        "disable_fallbacks",
        "drop_params",
        "extra_body",
        "extra_headers",
        "extra_query",
        "litellm_params",
        "mock_testing_content_policy_fallbacks",
        "mock_testing_context_fallbacks",
        "mock_testing_fallbacks",
        "mock_testing_rate_limit_error",
        "model_group_retry_policy",
        "modify_params",
        "policies",
        "reasoning_effort",
        "router_settings_override",
        "specific_deployment",
        "timeout",
        "user",
        "user_config",
    )
)
_HEADERS = "x-litellm-"
# These are about who is calling.
_IDENTITY_HEADERS = frozenset((USER_HEADER, "x-litellm-api-key"))


@cache
def litellm_fields() -> frozenset[str]:
    """The names of all fields that are LiteLLM's own."""
    from litellm.types.utils import all_litellm_params

    return frozenset(all_litellm_params) - _OF_THE_API | _MORE


@cache
def routed_fields() -> frozenset[str]:
    """The fields of the Messages API that LiteLLM's router hands on."""
    from litellm.types.llms.anthropic import AnthropicMessagesRequestOptionalParams

    return (
        frozenset(AnthropicMessagesRequestOptionalParams.__annotations__)
        | {"model", "messages"}
        | _OF_THE_API
    )


def asks_litellm(document: Mapping[str, Any], headers: Iterable[str]) -> bool:
    """Whether a message has something of LiteLLM's own. ``headers``: their names, in lower case."""
    return (
        not litellm_fields().isdisjoint(document)
        or _is_litellm_s(document.get("fallbacks"))
        or any(name.startswith(_HEADERS) and name not in _IDENTITY_HEADERS for name in headers)
    )


def lost_in_the_router(document: Mapping[str, Any]) -> list[str]:
    """The fields that LiteLLM's router would leave out without a word."""
    return sorted(document.keys() - routed_fields() - litellm_fields())


def _is_litellm_s(fallbacks: object) -> bool:
    """LiteLLM has fallbacks as names, and as names by name; the API has objects with a model."""
    return isinstance(fallbacks, list) and not all(
        isinstance(one, dict) and isinstance(one.get("model"), str) for one in fallbacks
    )


def fallback_names(value: object) -> Iterable[str]:
    """All models that LiteLLM's fallbacks name, in all their forms."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from fallback_names(one)
    elif isinstance(value, dict):
        if isinstance(value.get("model"), str):
            yield value["model"]
        for key, names in value.items():
            if isinstance(names, list):
                yield key
                yield from fallback_names(names)


def models_of_fallbacks(document: Mapping[str, Any]) -> Iterable[str]:
    """All models that a body may lead LiteLLM to, beside the one that it asks for."""
    override = document.get("router_settings_override")
    for holder in (document, override if isinstance(override, dict) else {}):
        for field in ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks"):
            yield from fallback_names(holder.get(field))
