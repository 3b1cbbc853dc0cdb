"""Which routes of LiteLLM ``extra_routes`` may open to users' keys: APIs of models, never the management.

Standard library only, and no import of this package: the check of the Ansible variables loads this file too.
"""

from __future__ import annotations

import re

# LiteLLM's management, reports on other users' requests, logins, its UI, and this package's own routes. An
# entry closes everything below it, and the same below /v1, /v2 and the like; `{}` stands for any segment.
CLOSED = tuple(
    f"/{route}"
    for route in (
        # keys, users, teams, budgets
        *("key", "user", "team", "organization", "project", "customer", "end_user", "budget", "access_group"),
        *("unified_access_group", "invitation", "onboarding", "management", "scim", "jwt", "tag"),
        # models, credentials, configuration
        *("model", "model_group", "model_hub", "model-insights", "credentials", "config", "config_overrides"),
        *("router", "auto_router", "adaptive_router", "fallback", "cache", "coordination_redis", "schedule"),
        *("reload", "settings", "get", "update", "add", "delete", "upload", "email", "alerting", "callbacks"),
        *("active", "provider", "in_product_nudges", "lazy", "plugin-proxy", "api/plugins", "vector_store"),
        *("search_tools", "indexes", "rust_control_plane", "liteadmin", "moyai"),
        # rules for requests
        *("guardrails", "apply_guardrail", "policies", "policy", "prompt", "prompts"),
        *("compliance", "tool"),
        *("utils/test_policies_and_guardrails", "utils/dotprompt_json_converter"),
        # agents, tool servers, plugins
        *("agent", "agents", "a2a/discover", "workflows", "mcp", "mcp-rest/test"),
        "claude-code/plugins/{}/enable",
        *("claude-code/plugins/{}/disable", "claude_code_gateway/managed", "claude_code_gateway/oauth"),
        "claude_code_gateway/.well-known",
        # spend, logs and traces of all users
        *(
            "spend",
            "global",
            "gateway",
            "cost",
            "cost_optimization",
            "usage",
            "audit",
            "cloudzero",
            "vantage",
        ),
        *("lens", "traces", "logs", "otel-spans", "claude_code_gateway/v1/traces"),
        *("claude_code_gateway/v1/logs", "claude_code_gateway/v1/metrics"),
        # logins
        *(
            "sso",
            "login",
            "logout",
            "session",
            "oauth",
            "authorize",
            "token",
            "register",
            "revoke",
            "callback",
        ),
        *("introspect", ".well-known", "auth"),
        # the state of the gateway, its documents and its UI
        *(
            "health",
            "routes",
            "test",
            "debug",
            "memory-usage-in-mem-cache",
            "memory-usage-in-mem-cache-items",
        ),
        *("metrics", "public", "ui", "_next", "litellm", "litellm-asset-prefix", "get_image", "get_favicon"),
        *("get_logo_url", "robots.txt", "swagger", "docs", "redoc", "openapi.json"),
    )
)
# LiteLLM counts these among its APIs of models, though they lie below what is closed.
OPEN = ("/model/info", "/v1/model/info", "/model_group/info", "/vector_store/list", "/v1/vector_store/list")
OPEN_BELOW = ("/mcp", "/v1/mcp/tools", "/v1beta/agents", "/a2a", "/v1/a2a/{}/message")

_CHARACTERS = re.compile("[A-Za-z0-9._~/{}*-]+")
_VERSION = re.compile("v[0-9]+[a-z]*")
_PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")
_LITERAL = re.compile("[A-Za-z0-9._~-]+")
_ANY = "{}"
_BELOW = "*"

SHAPE = "write it such as /v1/rerank, /v1/files/{file_id} or /v1/files/*"


def fault_of(route: object) -> str | None:
    """What is wrong with one entry of ``extra_routes``, with the mend; None if nothing is."""
    if not isinstance(route, str) or not route:
        return f"holds an entry that is no route; {SHAPE}"
    if not _CHARACTERS.fullmatch(route):
        return f"holds a route with a character that no route has; {SHAPE}, of letters, digits and ._~/{{}}*-"
    if not route.startswith("/"):
        return f"holds {route}, which does not begin with /; {SHAPE}"
    segments = route[1:].split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        return f"holds {route}, which has an empty segment, . or ..; {SHAPE}"
    if segments[0] == _BELOW:
        return f"holds {route}, which would open every route; name the routes"
    for segment in segments:
        if not (_LITERAL.fullmatch(segment) or _PARAMETER.fullmatch(segment)) and segment != _BELOW:
            return f"holds {route}, in which {{name}} and * are not whole segments; {SHAPE}"
    if _BELOW in segments[:-1]:
        return f"holds {route}, in which * is not the last segment; {SHAPE}"
    if not _LITERAL.fullmatch(segments[0]):
        return f"holds {route}, whose first segment is not written out; name the routes"
    closed = closed_by(route)
    if closed is not None:
        return (
            f"holds {route}, which would open {closed}: LiteLLM's management, reports, logins and UI stay "
            "closed to users' keys, and so do the routes of the OAuth module; leave it out"
        )
    return None


def faults_of(routes: object) -> list[str]:
    """Each fault of a list of routes, once."""
    if not isinstance(routes, list | tuple):
        return ["is no list; write [/v1/rerank, /v1/files/{file_id}]"]
    found = [fault for route in routes if (fault := fault_of(route)) is not None]
    found += [f"holds {route} twice; name it once" for route in _twice(routes)]
    return list(dict.fromkeys(found))


def closed_by(route: str) -> str | None:
    """The entry of CLOSED of which ``route`` would open a part, or None. ``route`` may be a pattern."""
    if route in OPEN:
        return None
    segments = [_ANY if _PARAMETER.fullmatch(part) else part for part in route[1:].split("/")]
    if any(_is_below(segments, _split(opened)) for opened in OPEN_BELOW):
        return None
    candidates = [segments]
    # `/v1`, or a first segment that may be it
    if _VERSION.fullmatch(segments[0]) or segments[0] == _ANY:
        candidates.append(segments[1:])
    for closed in CLOSED:
        if any(_meets(candidate, _split(closed)) for candidate in candidates):
            return closed
    return None


def _twice(routes: list[object] | tuple[object, ...]) -> list[str]:
    names = [route for route in routes if isinstance(route, str) and _CHARACTERS.fullmatch(route)]
    return [name for name in dict.fromkeys(names) if names.count(name) > 1]


def _split(route: str) -> list[str]:
    return route[1:].split("/")


def _is_below(segments: list[str], prefix: list[str]) -> bool:
    """Whether all that the pattern leads to lies at or below the prefix."""
    return segments[: len(prefix)] == prefix


def _meets(segments: list[str], closed: list[str]) -> bool:
    """Whether the pattern leads to anything at or below ``closed``."""
    for part, other in zip(segments, closed, strict=False):
        if part == _BELOW:
            return True
        if _ANY not in (part, other) and part != other:
            return False
    return len(segments) >= len(closed) or segments[-1:] == [_BELOW]
