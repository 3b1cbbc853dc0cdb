"""Which headers of a request go to the API beside a user's token: those that it has a use for, and no others.

Everything else, credentials and ``Host`` first, is between client and gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = frozenset(
    (
        "accept",
        "content-type",
        "user-agent",
        "idempotency-key",
        "anthropic-version",
        "anthropic-beta",
        "anthropic-dangerous-direct-browser-access",
    )
)
# Where a call of LiteLLM's holds them, beside `provider_specific_header`.
_OF_A_CALL = ("headers", "extra_headers")
# What the API's own client libraries say of themselves.
_PREFIX = "x-stainless-"


def for_the_api(headers: object) -> dict[str, Any] | None:
    """A copy of ``headers`` with what may travel, by lower-case names; None where they are no mapping.

    Several lines of one name become one list (RFC 9110 §5.3).
    """
    if not isinstance(headers, Mapping):
        return None
    found: dict[str, Any] = {}
    for name, value in headers.items():
        lower = str(name).lower()
        if lower in _NAMES or lower.startswith(_PREFIX):
            found[lower] = f"{found[lower]}, {value}" if lower in found else value
    return found


def choose_headers(call: dict[str, Any], params: Mapping[str, Any]) -> None:
    """Leave in a call of LiteLLM's what may travel of the client's headers, and all of the operator's.

    ``params``: the operator's ``litellm_params``.
    """
    for name in _OF_A_CALL:
        chosen = for_the_api(call.get(name))
        own = params.get(name)
        if chosen is not None or isinstance(own, Mapping):
            call[name] = {**(chosen or {}), **(own if isinstance(own, Mapping) else {})}
    scoped = call.get("provider_specific_header")
    if isinstance(scoped, Mapping):
        call["provider_specific_header"] = _chosen_scope(scoped)
    elif isinstance(scoped, list):
        call["provider_specific_header"] = [_chosen_scope(one) for one in scoped]


def _chosen_scope(scope: Any) -> Any:
    if not isinstance(scope, Mapping):
        return scope
    return {**scope, "extra_headers": for_the_api(scope.get("extra_headers")) or {}}


def values_of(headers: object, name: str) -> list[str]:
    """All values of a header, whatever its case. ``name`` is in lower case."""
    if not isinstance(headers, Mapping):
        return []
    return [str(value) for key, value in headers.items() if str(key).lower() == name]
