"""Run by LiteLLM once in every worker, before its configuration loads:
``LITELLM_WORKER_STARTUP_HOOKS=litellm_oauth.gateway.startup:start``."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

import httpx
from fastapi import APIRouter, Request
from litellm.proxy import proxy_server
from litellm.proxy.anthropic_endpoints.endpoints import router as anthropic_router
from litellm.proxy.health_endpoints._health_endpoints import router as health_router
from litellm.proxy.proxy_server import app
from litellm.proxy.response_api_endpoints.endpoints import router as response_router
from starlette.types import Scope

from ..assembly import open_service
from ..errors import LitellmOAuthError
from ..http_client import http_client
from ..service import TokenService
from ..settings import Settings, load_document, load_settings
from .anthropic_api import AnthropicApi
from .bearer import send_as_bearer
from .cloud_metadata import refuse_cloud_metadata
from .credentials import KeyRing
from .description import Description
from .direct import direct_models, summary
from .forward import LIMITS, TIMEOUT, Forwarder
from .guarded import demand_guardrails
from .health import Health, look_at_marked_models
from .hook import oauth_hook
from .http_clients import watch_http_clients
from .identity import Caller, caller_of
from .litellm_keys import holder_of_key
from .log import log_level, write_to_log
from .middleware import GatewayMiddleware, Limits
from .models import Models
from .origin import client_origin, host_addresses
from .request_body import MEGABYTE
from .retry import retry_at_once
from .routes import Authenticate, build_router
from .runtime import Runtime, operator_keys
from .speed import busy_routes, collect_later, remember_comparisons, remember_model_info
from .startup_failure import end_worker

_log = logging.getLogger(__name__)

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
    retry_at_once(oauth_hook.waits_for_nothing, oauth_hook.is_final)
    oauth_hook.runtime.fill(runtime)
    watch_http_clients(operator_keys(os.environ), cloud_metadata=settings.cloud_metadata)
    if not settings.cloud_metadata:
        refuse_cloud_metadata()
    client = http_client(timeout=TIMEOUT, limits=LIMITS)
    look_at_marked_models(Health(client, oauth_hook.provider_of, settings.allowed_api_bases))
    _mount(build_router(lambda: service, _authenticator(settings), settings))
    document = load_document()
    direct = direct_models(document) if settings.direct_messages else frozenset()
    _log.info("%s", summary(document, direct_messages=settings.direct_messages))
    guarded = bool(document.get("guardrails"))
    if guarded:
        demand_guardrails()
    _wrap(runtime, client, direct, guarded=guarded)
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
        remember_model_info()
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


def _wrap(runtime: Runtime, client: httpx.AsyncClient, direct: frozenset[str], *, guarded: bool) -> None:
    """Put our layer round LiteLLM's application, which has put its own together already."""
    settings = runtime.settings
    models = Models(oauth_hook.provider_of)
    app.router.redirect_slashes = False
    app.middleware_stack = GatewayMiddleware(
        app.middleware_stack,
        runtime,
        KeyRing(settings.master_key, settings.user_keys),
        models,
        AnthropicApi(models, oauth_hook.provider_of, settings.allowed_api_bases, direct, guarded=guarded),
        Forwarder(runtime, client),
        limits=Limits(settings.max_body_mb * MEGABYTE, settings.max_upload_mb * MEGABYTE),
        origin=_origins(settings),
        description=Description(app).json,
    )


def _origins(settings: Settings) -> Callable[[Scope], str]:
    """Tells where a request comes from, for the audit."""
    here = host_addresses()
    trusted = settings.trusted_proxies

    def origin(scope: Scope) -> str:
        client = scope.get("client")
        forwarded = [
            value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"
        ]
        return client_origin(client[0] if client else None, forwarded, trusted, here)

    return origin


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
        return caller_of(await holder_of_key(request.scope), shared_default=settings.shared_default)

    return authenticate


def _report(task: asyncio.Task[None]) -> None:
    _background.discard(task)
    if not task.cancelled() and task.exception() is not None:
        _log.error("The background refresh ended: %s. Tokens are refreshed when used.", task.exception())
