"""LiteLLM's routes for Anthropic clients that need our help: messages, ``count_tokens`` and ``/anthropic/…``.

Each is answered by ``forward`` for a model that takes the caller's own token, else by LiteLLM's own function.
Proven on LiteLLM 1.106.2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from litellm.proxy import proxy_server
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.proxy.anthropic_endpoints.endpoints import anthropic_response, count_tokens
from litellm.proxy.auth.user_api_key_auth import user_api_key_auth
from litellm.proxy.pass_through_endpoints.llm_passthrough_endpoints import anthropic_proxy_route

from ..errors import InvalidInput, LitellmOAuthError
from .acting import acting_for
from .answers import ErrorAnswer, answer_for
from .deployments import Deployment, address_of, base_of, is_marked, named_upstream
from .direct import is_plain
from .forward import Body, Forwarder, Upstream, error_response, parse_body
from .hook import OAuthHook
from .identity import USER_HEADER, caller_of, named_in_header
from .runtime import Runtime

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_PREFIX = "/anthropic/"
_MESSAGES = "v1/messages"
_COUNT = "v1/messages/count_tokens"
# What may go with the operator's API key for who never logged in: calls of a model, no other routes.
_OF_A_MODEL = (_MESSAGES, _COUNT)


async def _read(request: Request) -> Body:
    """The body, before LiteLLM's check of the key reads it: a form could be read once only."""
    content = await request.body()
    if content and request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProxyException("The body is compressed. Send it as it is.", "invalid_request_error", None, 415)
    try:
        return parse_body(content, request.headers.get("content-type", ""))
    except InvalidInput as error:
        raise ProxyException(error.message, "invalid_request_error", None, 400) from None


_Body = Annotated[Body, Depends(_read)]
# LiteLLM checks the key, its budget and the model before a route is entered.
_Holder = Annotated[UserAPIKeyAuth, Depends(user_api_key_auth)]


class AnthropicRoutes:
    """Decides who answers. ``hook`` knows which provider LiteLLM would speak to.

    ``direct``: the models whose messages LiteLLM would only pass on, and that go without it.
    """

    def __init__(
        self, runtime: Runtime, forwarder: Forwarder, hook: OAuthHook, direct: frozenset[str]
    ) -> None:
        self._runtime = runtime
        self._forwarder = forwarder
        self._hook = hook
        self._direct = direct

    def router(self) -> APIRouter:
        """The routes, to be placed before LiteLLM's."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/v1/messages", self.messages, methods=["POST"])
        router.add_api_route("/v1/messages/count_tokens", self.count_tokens, methods=["POST"])
        router.add_api_route(_PREFIX + "{endpoint:path}", self.pass_through, methods=_METHODS)
        return router

    async def messages(
        self, request: Request, fastapi_response: Response, body: _Body, holder: _Holder
    ) -> Any:
        """A message: to the API as it came, or through LiteLLM's router."""
        if (
            body.model in self._direct
            and proxy_server.prisma_client is None
            and is_plain(body, request.headers.keys())
            and (deployment := _deployment_of(body.model)) is not None
        ):
            return await self._forward(request, holder, _MESSAGES, deployment, body)
        return await anthropic_response(fastapi_response, request, holder)

    async def count_tokens(self, request: Request, body: _Body, holder: _Holder) -> Any:
        """The API's own count of a request's tokens, which costs nothing."""
        deployment = None if body.model is None else _deployment_of(body.model)
        if deployment is None:
            return await count_tokens(request, holder)
        return await self._forward(request, holder, _COUNT, deployment, body)

    async def pass_through(
        self, request: Request, endpoint: str, fastapi_response: Response, body: _Body, holder: _Holder
    ) -> Any:
        """Any other call of the API. One that names no model goes where all models are, if to one place."""
        model = body.model
        if model is None:
            deployment = _only_one()
        else:
            deployment = _deployment_of(model) or _deployment_called(model)
            if deployment is None and not _deployments(model):
                # LiteLLM would send it with whatever key of the operator's it finds.
                return error_response(ErrorAnswer(404, f"There is no model {model!r} here.", "no_such_model"))
        if deployment is None:
            return await anthropic_proxy_route(endpoint, request, fastapi_response, holder)
        return await self._forward(request, holder, _path_below(request), deployment, body)

    async def _forward(
        self, request: Request, holder: UserAPIKeyAuth, path: str, deployment: Deployment, body: Body
    ) -> Response:
        try:
            settings = self._runtime.settings
            caller = caller_of(holder, shared_default=settings.shared_default)
            origin = request.client.host if request.client else "unknown"
            named = named_in_header(request.headers.getlist(USER_HEADER))
            user = await acting_for(lambda: self._runtime.service, caller, origin, named)
            base = address_of(
                deployment["litellm_params"], self._hook.provider_of, lambda: settings.allowed_api_bases
            )
        except LitellmOAuthError as error:
            return error_response(answer_for(error))
        if body.model is None:
            upstream = Upstream(base)
        else:
            upstream = Upstream(base, named_upstream(deployment, body.model))
            if path in _OF_A_MODEL:
                name = str(deployment.get("model_name"))
                upstream = replace(upstream, fallback_key=lambda: self._runtime.fallback_key(name, user))
        return await self._forwarder.send(request, path, body, upstream, user)


def _path_below(request: Request) -> str:
    """What follows ``/anthropic/`` in the request line; nothing where that is not how it begins there."""
    raw = str(request.scope["raw_path"].decode("latin-1")).removeprefix(request.scope.get("root_path", ""))
    return raw.removeprefix(_PREFIX) if raw.startswith(_PREFIX) else ""


def _deployments(model: str | None = None) -> list[Deployment]:
    from litellm.proxy.proxy_server import llm_router

    if llm_router is None:
        return []
    found = llm_router.get_model_list(model_name=model) or ()
    # What a wildcard leads to comes as a copy that is called as it was asked for.
    return [llm_router.get_model_info(id=one["model_info"]["id"]) or one for one in found]


def _deployment_of(model: str) -> Deployment | None:
    """One that clients know by this name; where a group has others as well, one that takes a token."""
    return next((one for one in _deployments(model) if is_marked(one)), None)


def _deployment_called(model: str) -> Deployment | None:
    """One that the API knows by this name."""
    return next((one for one in _deployments() if is_marked(one) and named_upstream(one, "") == model), None)


def _only_one() -> Deployment | None:
    marked = [one for one in _deployments() if is_marked(one)]
    places = {base_of(one["litellm_params"]) for one in marked}
    return marked[0] if len(places) == 1 else None
