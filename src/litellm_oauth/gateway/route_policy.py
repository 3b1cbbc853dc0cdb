"""Which routes a key opens: an allow-list, so that a route that LiteLLM adds tomorrow is closed to users.

A user's key calls models, looks at the list of models and manages the user's own login. Everything else that
LiteLLM offers belongs to administrators, unless the operator opens it by name (``extra_routes``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

OWN = "/auth/claude/oauth"
PASS_THROUGH = "/anthropic/"  # noqa: S105 -- a route
OPENAPI = "/openapi.json"

MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
MODELS = ("/v1/models", "/models")
# The body of each names a model.
ASKING = frozenset(
    (
        MESSAGES,
        COUNT_TOKENS,
        "/v1/chat/completions",
        "/chat/completions",
        "/v1/completions",
        "/completions",
        "/v1/responses",
        "/responses",
    )
)
# What clients of Anthropic's API know the shape of.
_ANTHROPIC = (MESSAGES, PASS_THROUGH)
# Probes of load balancers and of people who try an address; they say nothing that a version does not.
_PUBLIC = frozenset(("/", "/health/liveliness", "/health/liveness", "/health/readiness"))
# Logins to LiteLLM's own user interface, which works only with a database of LiteLLM's own.
_INTERFACE = frozenset(
    (
        "/login",
        "/v2/login",
        "/v3/login",
        "/fallback/login",
        "/get_image",
        "/get_favicon",
        "/get_logo_url",
        "/get/ui_theme_settings",
        "/.well-known/litellm-ui-config",
        "/litellm/.well-known/litellm-ui-config",
        "/sso/key/generate",
        "/sso/callback",
        "/sso/cli/poll",
        "/onboarding/get_token",
        "/onboarding/claim_token",
    )
)
_OWN_ROUTES = re.compile(
    re.escape(OWN) + r"/(?:start|exchange|status|refresh(?:/[^/]+)?|logout|users|health)"
)
_INTERFACE_PREFIXES = ("/ui/", "/sso/", "/_next/", "/litellm-asset-prefix/")
# Actions on a model in the form of Google's API; a name in the list does not end so.
_ACTIONS = (":generateContent", ":streamGenerateContent", ":countTokens")
# Static folders: their index answers with a slash at the end only.
_FOLDERS = ("/ui", "/swagger")
_ALL_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))
_READ = frozenset(("GET", "HEAD"))
_ASK = frozenset(("POST",))


class Access(Enum):
    """Who may call a route."""

    PUBLIC = "public"
    # The routes of this package, which look at the key themselves.
    OWN = "own"
    USER = "user"
    # Opened by the operator; no API key of the operator's goes out with it.
    EXTRA = "extra"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who may call a route, and with which methods (empty: LiteLLM says)."""

    access: Access
    methods: frozenset[str] = frozenset()


_ADMIN = Verdict(Access.ADMIN)
_TABLE = {
    **{path: Verdict(Access.PUBLIC, _READ) for path in _PUBLIC},
    **{path: Verdict(Access.USER, _ASK) for path in ASKING},
    **{path: Verdict(Access.USER, _READ) for path in (*MODELS, OPENAPI)},
}


class RoutePolicy:
    """The verdict on each route.

    ``extra``: routes that the operator opens; ``{name}`` stands for one segment, ``/*`` for all that is
    below. ``interface``: whether LiteLLM's user interface can work.
    """

    def __init__(self, extra: Iterable[str] = (), *, interface: bool = False) -> None:
        self._extra = [re.compile(_pattern(route)) for route in extra]
        self._interface = interface

    def of(self, path: str) -> Verdict:
        """The verdict on a decoded path without its query."""
        found = _TABLE.get(path)
        if found is not None:
            return found
        if _OWN_ROUTES.fullmatch(path):
            return Verdict(Access.OWN)
        if path.startswith(PASS_THROUGH):
            return Verdict(Access.USER, _ALL_METHODS)
        if model_in(path) is not None and not path.endswith(_ACTIONS):
            return Verdict(Access.USER, _READ)
        if any(pattern.fullmatch(path) for pattern in self._extra):
            return Verdict(Access.EXTRA)
        if path.startswith("/swagger/"):
            return Verdict(Access.PUBLIC, _READ)
        if self._interface and (path in _INTERFACE or path.startswith(_INTERFACE_PREFIXES)):
            return Verdict(Access.PUBLIC)
        return _ADMIN


def _pattern(route: str) -> str:
    below = route.endswith("/*")
    parts = re.split(r"\{[^}]*\}", route.removesuffix("/*"))
    return "[^/]+".join(re.escape(part) for part in parts) + ("/.+" if below else "")


def model_in(path: str) -> str | None:
    """The model that ``/v1/models/{id}`` names; None for any other path."""
    for prefix in MODELS:
        name = path.removeprefix(prefix + "/")
        if name != path and name:
            return name
    return None


def is_anthropic(path: str) -> bool:
    """Whether errors on this path have Anthropic's shape."""
    return path.startswith(_ANTHROPIC)


def without_slash(path: str) -> str:
    """The path meant by one with a slash at its end: no client is redirected, least of all to http."""
    if path in _FOLDERS:
        return path + "/"
    if path in ("/", PASS_THROUGH) or path.startswith(tuple(f"{one}/" for one in _FOLDERS)):
        return path
    if path == PASS_THROUGH.rstrip("/"):
        return PASS_THROUGH
    return path.rstrip("/") or "/"
