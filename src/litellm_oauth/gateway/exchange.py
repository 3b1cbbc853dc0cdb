"""What one request leaves behind on its way through LiteLLM, for whoever answers it.

The middleware opens an ``Exchange`` for each request. LiteLLM's tasks and threads inherit the context
variable, so the hook and the HTTP clients find the same object, however deep they are called.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field

from ..errors import LitellmOAuthError
from .answers import ErrorAnswer

# What of the API's answer is meant for the client.
_HEADERS = frozenset(("retry-after", "retry-after-ms", "request-id", "x-request-id", "x-should-retry"))
_PREFIXES = ("anthropic-", "x-ratelimit-")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a user's token that the API refused was not replaced."""

    user: str
    error: LitellmOAuthError


@dataclass(slots=True)
class Exchange:
    """One request and what the API said to it.

    ``origin``: where the request came from, for the audit. ``lends_keys``: whether an operator's API key may
    go out with it. ``api_base``: the address of the API that it is about, once that is known. ``asked``:
    whether a request went to the API. ``status`` and ``headers``: the API's last answer. ``refusal``: the
    answer that takes the place of LiteLLM's error. ``failure``: what is said beside the last attempt's 401.
    """

    origin: str = "unknown"
    lends_keys: bool = False
    api_base: str | None = None
    asked: bool = False
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    refusal: ErrorAnswer | None = None
    failure: Failure | None = None

    def begin(self, api_base: str) -> None:
        """An attempt at this API begins, of which nothing is known yet."""
        if self.api_base is None:
            # What went out before was not for this API.
            self.asked = False
        self.api_base = api_base
        self.status = None
        self.headers = {}
        self.refusal = None

    def note(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Remember the API's answer; a later one takes the place of an earlier one."""
        self.status = status
        self.headers = {name.lower(): value for name, value in headers if is_for_the_client(name)}


def is_for_the_client(name: str) -> bool:
    """Whether a header of the API's answer travels on to the client. Cookies never do."""
    lower = name.lower()
    return lower in _HEADERS or lower.startswith(_PREFIXES)


current: ContextVar[Exchange | None] = ContextVar("litellm_oauth_exchange", default=None)


def origin_or(default: str) -> str:
    """The origin of the request that is being answered; ``default`` outside of one."""
    exchange = current.get()
    return default if exchange is None else exchange.origin
