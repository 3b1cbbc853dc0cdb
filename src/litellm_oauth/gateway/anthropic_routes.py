"""LiteLLM's routes for Anthropic clients that need our help: messages, ``count_tokens`` and ``/anthropic/…``.

Each is answered by ``forward`` for a model that takes the caller's own token (messages: where ``direct`` says
so), else by LiteLLM's own function.
Proven on LiteLLM 1.106.2.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from litellm.proxy import proxy_server
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.proxy.anthropic_endpoints.endpoints import anthropic_response, count_tokens
from litellm.proxy.auth.user_api_key_auth import user_api_key_auth
from litellm.proxy.pass_through_endpoints.llm_passthrough_endpoints import anthropic_proxy_route

from ..errors import InvalidInput, LitellmOAuthError
from .acting import user_behind
from .answers import ErrorAnswer, answer_for
from .deployments import Deployment, address_of, base_of, is_marked, named_upstream
from .direct import is_plain
from .forward import Body, Forwarder, Upstream, error_response, parse_body, segments_of
from .hook import OAuthHook
from .identity import USER_HEADER
from .runtime import Runtime

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_PREFIX = "/anthropic/"
_MESSAGES = "v1/messages"
_COUNT = "v1/messages/count_tokens"
# What may go with the operator's API key for users without a login: calls of a model, no other routes.
_OF_A_MODEL = (_MESSAGES, _COUNT)
# What begins so asks a model, and has to say which.
_ASKING = (["v1", "messages"], ["v1", "complete"])
# How much of a client's own words is told back.
_SHOWN = 100


async def _read(request: Request) -> Body:
    """The body, before LiteLLM's check of the key reads it: a form could be read once only."""
    content = await request.body()
    if content and request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProxyException("The body is compressed. Send it as it is.", "invalid_request_error", None, 415)
    try:
        return parse_body(content, request.headers.get("content-type", ""))
    except InvalidInput as error:
        # LiteLLM's check reads the body before the key, too, and would answer so itself.
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
        router.add_api_route(f"/{_MESSAGES}", self.messages, methods=["POST"])
        router.add_api_route(f"/{_COUNT}", self.count_tokens, methods=["POST"])
        router.add_api_route(_PREFIX + "{endpoint:path}", self.pass_through, methods=_METHODS)
        return router

    async def messages(
        self, request: Request, fastapi_response: Response, body: _Body, holder: _Holder
    ) -> Any:
        """A message: to the API as it came, or through LiteLLM's router."""
        if (
            body.model in self._direct
            and not _has_database()
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
        path = _path_below(request)
        if not body.models and segments_of(path)[:2] in _ASKING and request.method == "POST":
            return error_response(
                answer_for(InvalidInput("The body names no model. Send it as JSON, with model."))
            )
        found = {model: _deployment_of(model) or _deployment_called(model) for model in body.models}
        for model, deployment in found.items():
            if deployment is None and not _deployments(model):
                # LiteLLM would send it with whatever key of the operator's it finds.
                message = f"There is no model {model[:_SHOWN]!r} here."
                return error_response(ErrorAnswer(404, message, "no_such_model"))
        deployments = list(found.values()) or [_only_one()]
        places = {None if one is None else base_of(one["litellm_params"]) for one in deployments}
        if places == {None}:
            return await anthropic_proxy_route(endpoint, request, fastapi_response, holder)
        deployment = deployments[0]
        if deployment is None or len(places) > 1:
            message = "The models of one batch must have the same API and the same kind of credentials."
            return error_response(answer_for(InvalidInput(message)))
        return await self._forward(request, holder, path, deployment, body)

    async def _forward(
        self, request: Request, holder: UserAPIKeyAuth, path: str, deployment: Deployment, body: Body
    ) -> Response:
        try:
            origin = request.client.host if request.client else "unknown"
            user = await user_behind(holder, request.headers.getlist(USER_HEADER), origin, self._runtime)
            allowed = self._runtime.settings.allowed_api_bases
            base = address_of(deployment["litellm_params"], self._hook.provider_of, allowed)
        except LitellmOAuthError as error:
            return error_response(answer_for(error))
        if body.model is None:
            return await self._forwarder.send(request, path, body, Upstream(base), user)
        # Where LiteLLM has a database, a key may have a budget, and LiteLLM sees nothing of this request.
        may_fall_back = path in _OF_A_MODEL and not _has_database()
        upstream = Upstream(
            base,
            named_upstream(deployment, body.model),
            fallback=deployment.get("model_name") if may_fall_back else None,
        )
        return await self._forwarder.send(request, path, body, upstream, user)


def _has_database() -> bool:
    """Whether LiteLLM keeps keys, budgets and spend of its own."""
    return proxy_server.prisma_client is not None


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
