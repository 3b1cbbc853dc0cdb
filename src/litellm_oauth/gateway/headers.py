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
