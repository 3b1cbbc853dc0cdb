"""Run by LiteLLM once in every worker, before its configuration loads:
``LITELLM_WORKER_STARTUP_HOOKS=litellm_oauth.gateway.startup:start``."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import httpx
from fastapi import APIRouter, HTTPException, Request
from litellm.proxy import proxy_server
from litellm.proxy._types import ProxyException
from litellm.proxy.anthropic_endpoints.endpoints import router as anthropic_router
from litellm.proxy.auth.user_api_key_auth import user_api_key_auth
from litellm.proxy.health_endpoints._health_endpoints import router as health_router
from litellm.proxy.proxy_server import app
from litellm.proxy.response_api_endpoints.endpoints import router as response_router

from ..assembly import open_service
from ..errors import Forbidden, InvalidInput, LitellmOAuthError, StorageUnavailable
from ..http_client import http_client
from ..service import TokenService
from ..settings import Settings, load_document, load_settings
from .answers import UnknownKeyError
from .anthropic_routes import AnthropicRoutes
from .bearer import send_as_bearer
from .direct import direct_models, summary
from .forward import LIMITS, TIMEOUT, Forwarder
from .health import Health, look_at_marked_models
from .hook import oauth_hook
from .identity import Caller, caller_of
from .log import log_level, write_to_log
from .retry import retry_at_once
from .routes import Authenticate, build_router
from .runtime import Runtime
from .speed import busy_routes, collect_later, remember_comparisons
from .startup_failure import end_worker

_log = logging.getLogger(__name__)

# A key that may call a model may log its owner in. LiteLLM opens this route to every key, ours to few.
_ROUTE_OF_EVERY_KEY = "/v1/models"

# The event loop keeps weak references only.
_background: set[asyncio.Task[None]] = set()


async def start() -> None:
    """Open the service, mount the routes before LiteLLM's, start the background refresh."""
    try:
        write_to_log(log_level(os.environ))
        _make_haste()
        settings = load_settings()
        if settings.master_key:
            # LiteLLM wants it in its environment. Set here, no `docker inspect` and no process list show it.
            os.environ["LITELLM_MASTER_KEY"] = settings.master_key
        if not settings.enabled:
            _log.info("the OAuth module is switched off (claude_oauth.enabled)")
            return
        service = await open_service(settings, without_database=True)
        runtime = Runtime(settings, service, os.environ)
        runtime.demand_keys()
    except LitellmOAuthError as error:
        end_worker(error.message)
    send_as_bearer()
    retry_at_once(oauth_hook.waits_for_nothing)
    oauth_hook.runtime.fill(runtime)
    client = http_client(timeout=TIMEOUT, limits=LIMITS)
    forwarder = Forwarder(runtime, client)
    look_at_marked_models(Health(client, oauth_hook.provider_of, settings.allowed_api_bases))
    _mount(build_router(lambda: service, _authenticator(settings), settings))
    document = load_document()
    direct = direct_models(document) if settings.direct_messages else frozenset()
    _log.info("%s", summary(document, direct_messages=settings.direct_messages))
    _mount(AnthropicRoutes(runtime, forwarder, oauth_hook, direct).router())
    _log.info("the OAuth module is ready; logins for %s", settings.provider.issuer)
    # Also without auto_refresh: old logins are forgotten there.
    task = asyncio.create_task(service.run_background(), name="litellm_oauth background")
    _background.add(task)
    task.add_done_callback(_report)
    _close_at_the_end(service, client, task)


def _make_haste() -> None:
    """What LiteLLM can do without; where it has changed in that, requests take longer, and are answered."""
    collect_later()
    try:
        remember_comparisons()
        _mount(busy_routes(proxy_server.router, response_router, anthropic_router, health_router))
    except AttributeError as error:
        _log.warning("LiteLLM is not as it was, so requests take longer: %s", error)


def _close_at_the_end(
    service: TokenService, client: httpx.AsyncClient, background: asyncio.Task[None]
) -> None:
    """Let refreshes that run come to their end when the server is told to stop.

    LiteLLM has no hook for that; its own end calls this function by its name.
    """
    end = proxy_server.proxy_shutdown_event

    async def close_and_end(*arguments: Any, **options: Any) -> None:
        background.cancel()
        await service.close()
        await client.aclose()
        _log.info("the OAuth module has ended")
        await end(*arguments, **options)

    proxy_server.proxy_shutdown_event = close_and_end


def _mount(router: APIRouter) -> None:
    routes = app.router.routes
    known = len(routes)
    app.include_router(router)
    # LiteLLM has catch-all routes; the first match wins.
    ours = routes[known:]
    del routes[known:]
    routes[:0] = ours
    app.openapi_schema = None


def _authenticator(settings: Settings) -> Authenticate:
    async def authenticate(request: Request) -> Caller:
        try:
            holder = await user_api_key_auth(request=_key_only(request), **_key_headers(request))
        except ProxyException as error:
            raise _refusal(error, int(error.code or 401), str(error.message)) from None
        except HTTPException as error:
            raise _refusal(error, error.status_code, str(error.detail)) from None
        return caller_of(holder, shared_default=settings.shared_default)

    return authenticate


def _key_only(request: Request) -> Request:
    """The request as LiteLLM's check of the key shall see it: no body, on a route that is every key's."""
    scope = {
        **request.scope,
        "method": "GET",
        "path": _ROUTE_OF_EVERY_KEY,
        "raw_path": _ROUTE_OF_EVERY_KEY.encode(),
        "query_string": b"",
        "state": {},
        "headers": [
            pair
            for pair in request.scope["headers"]
            if pair[0].lower() not in (b"content-length", b"content-type", b"transfer-encoding")
        ],
    }

    async def nothing() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    return Request(scope, nothing)


def _key_headers(request: Request) -> dict[str, Any]:
    headers = request.headers
    return {
        "api_key": headers.get("Authorization"),
        "azure_api_key_header": headers.get("API-Key"),
        "anthropic_api_key_header": headers.get("x-api-key"),
        "google_ai_studio_api_key_header": headers.get("x-goog-api-key"),
        "azure_apim_header": headers.get("Ocp-Apim-Subscription-Key"),
        "custom_litellm_key_header": headers.get("x-litellm-api-key"),
    }


def _refusal(error: Exception, status: int, message: str) -> LitellmOAuthError:
    if status == 400:
        return InvalidInput(message)
    if status == 403:
        return Forbidden(message)
    if status >= 500:
        return StorageUnavailable("LiteLLM could not check the key just now. Try again in a moment.")
    _log.info("A key was refused: %s", type(error).__name__)
    return UnknownKeyError(
        "The gateway does not know this key, or no key was sent. "
        "Send the master key or a user's key: Authorization: Bearer sk-..."
    )


def _report(task: asyncio.Task[None]) -> None:
    _background.discard(task)
    if not task.cancelled() and task.exception() is not None:
        _log.error("The background refresh ended: %s. Tokens are refreshed when used.", task.exception())
