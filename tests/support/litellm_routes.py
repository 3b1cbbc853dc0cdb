"""All routes of the LiteLLM in the gateway's image, with who may call them. Runs inside the image."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any


def main() -> None:
    from litellm.proxy._lazy_features import LAZY_FEATURES
    from litellm.proxy.proxy_server import app

    from litellm_oauth.gateway.route_policy import RoutePolicy

    for feature in LAZY_FEATURES:
        feature.register_fn(app, importlib.import_module(feature.module_path))
    policy = RoutePolicy()
    for method, path in sorted(set(routes(app.router.routes))):
        verdict = policy.of(example(path))
        allowed = not verdict.methods or method in verdict.methods
        print(verdict.access.value if allowed else "none", method, path)  # noqa: T201 -- its result


def routes(found: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of each route, of included routers and mounted applications as well."""
    for route in found:
        path: Any = getattr(route, "path", None)
        inner: Any = getattr(route, "app", None)
        if hasattr(route, "effective_candidates"):
            yield from routes(route.effective_candidates(), prefix)
            yield from routes(route.effective_low_priority_routes(), prefix)
        elif getattr(route, "methods", None):
            yield from ((method, prefix + path) for method in route.methods)
        elif path is not None and "WebSocket" in type(route).__name__:
            yield "WEBSOCKET", prefix + path
        elif path is not None and getattr(inner, "routes", None):
            yield from routes(inner.routes, prefix + path)
        elif path is not None:
            yield "MOUNT", prefix + path
        else:
            raise AssertionError(f"a route of an unknown kind: {route!r}")


def example(path: str) -> str:
    """A path that this route answers."""
    parts = (part for piece in path.split("{") for part in piece.split("}", 1))
    # Every second part is the name of a parameter.
    return "".join(part if number % 2 == 0 else "x" for number, part in enumerate(parts))


main()
