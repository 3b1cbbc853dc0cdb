"""The outermost layer of the gateway: what every request passes before LiteLLM sees it.

In order: the route, the key, the size and shape of the body, the model. The body is read when the key is
known to be good, and no further than its limit. What is the API's business goes to the API; the rest is
LiteLLM's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from starlette.datastructures import Headers, QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import InvalidInput, LitellmOAuthError
from .acting import acting_for
from .answers import NO_STORE, ErrorAnswer, answer_for, chat_answer_for
from .anthropic_api import BATCHES, AnthropicApi, Incoming, Plan, asks_a_model
from .batch_stream import BatchStream
from .body_memory import BodyMemory, HeldMemory
from .credentials import GatewayKey, KeyRing, candidates, is_of_the_provider, with_key_alone
from .disconnect import ClientLeft, Departure
from .errors import ClosedRoute, MethodNotAllowed, NoSuchModel, PackedBody, UnknownKey
from .exchange import Exchange, current
from .forward import MESSAGES as API_MESSAGES
from .forward import Forwarder, relay
from .identity import DEFAULT_USER, USER_HEADER, Caller, caller_of, named_in_header
from .litellm_answer import LitellmAnswer, respond, respond_with
from .litellm_fields import models_of_fallbacks
from .litellm_keys import holder_of_key, holder_of_request
from .model_list import described
from .models import Models, has_database
from .request_body import (
    MEGABYTE,
    Body,
    ClientGone,
    Upload,
    json_body,
    read,
    refuse_doubled_keys,
    refuse_to_translate_many_parts,
    weight,
)
from .route_policy import (
    ASKING,
    COUNT_TOKENS,
    MESSAGES,
    OPENAPI,
    OWN,
    PASS_THROUGH,
    Access,
    RoutePolicy,
    Verdict,
    is_anthropic,
    model_in,
    without_slash,
)
from .runtime import Runtime

_log = logging.getLogger(__name__)
# Kinds of bodies that are no JSON, and so name no model.
_NO_JSON = ("multipart/", "application/octet-stream", "application/x-protobuf", "application/protobuf")
# How many of the largest bodies a worker reads at once, and how many LiteLLM has at once, which makes several
# copies of a body that it translates. One of each is always left for another user.
_READ_AT_ONCE = 3
_TRANSLATED_AT_ONCE = 2
# What LiteLLM would take from a client in place of the operator's.
_CHOSEN_HERE = frozenset(("api_key", "api_base", "base_url"))
# How much is taken of a request that needs no key, in bytes.
_WITHOUT_KEY = MEGABYTE
# What a browser's question before a request of another origin's has (Fetch Standard, 3.3.2).
_PREFLIGHT = frozenset(("origin", "access-control-request-method"))
_CLOSED = 1008


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a body may be, in bytes: one that is read whole, and one that streams through."""

    body: int
    upload: int


@dataclass(slots=True)
class _Request:
    """A request on its way through the layer."""

    scope: Scope
    receive: Receive
    send: Send
    exchange: Exchange
    headers: Headers
    memory: HeldMemory

    @property
    def path(self) -> str:
        path: str = self.scope["path"]
        return path

    @property
    def method(self) -> str:
        method: str = self.scope["method"]
        return method

    @property
    def declared(self) -> int | None:
        """Its Content-Length, if it has one."""
        value = self.headers.get("content-length", "")
        return int(value) if value.isascii() and value.isdecimal() else None

    @property
    def has_body(self) -> bool:
        """Whether a body may come. HTTP/2 frames one that nothing in the headers tells of (RFC 9113 §8.1)."""
        if self.declared is not None:
            return self.declared > 0
        return "transfer-encoding" in self.headers or self.scope.get("http_version", "1.1").startswith("2")

    def incoming(self) -> Incoming:
        query = self.scope["query_string"].decode("latin-1")
        return Incoming(self.method, self.path, self.scope["raw_path"], query, self.headers)


class GatewayMiddleware:
    """Wraps LiteLLM's application."""

    def __init__(
        self,
        app: ASGIApp,
        runtime: Runtime,
        keys: KeyRing,
        models: Models,
        api: AnthropicApi,
        forwarder: Forwarder,
        *,
        limits: Limits,
        origin: Callable[[Scope], str],
        description: Callable[[], Awaitable[bytes]],
    ) -> None:
        self._app = app
        self._runtime = runtime
        self._keys = keys
        self._models = models
        self._api = api
        self._forwarder = forwarder
        self._limits = limits
        self._origin = origin
        self._description = description
        self._memory = BodyMemory(_READ_AT_ONCE * limits.body, share=(_READ_AT_ONCE - 1) * limits.body)
        self._translation = BodyMemory(_TRANSLATED_AT_ONCE * limits.body, share=limits.body)
        extra = runtime.settings.extra_routes
        self._policies = {database: RoutePolicy(extra, interface=database) for database in (False, True)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _request(scope, receive, send, Exchange(self._origin(scope)), HeldMemory(self._memory))
        path = request.path
        token = current.set(request.exchange)
        try:
            await self._answer(request)
        except LitellmOAuthError as error:
            # Whoever is refused before the body has come sends no more of it.
            await _respond(request, _answer_to(error, path), close=request.has_body)
        except ClientGone:
            # A server says the same of a body that is broken on its way, whose sender waits for an answer.
            await _respond(request, answer_for(InvalidInput("The body broke off.")), close=True)
        except ClientLeft:
            _log.debug("the client left before it was answered")
        finally:
            request.memory.release()
            current.reset(token)

    async def _answer(self, request: _Request) -> None:
        verdict = self._policy().of(request.path)
        if request.method == "OPTIONS" and set(request.headers.keys()) >= _PREFLIGHT:
            # A browser asks without a key whether it may send one; no route of LiteLLM's sees that.
            await self._hand_on(request)
            return
        if request.method == "OPTIONS" and await self._options(request, verdict):
            return
        caller = await self._caller(request, verdict)
        _check_method(request.method, verdict)
        if caller is None:
            # Who sends no key has a form to fill in at most.
            upload = Upload(request.receive, request.declared, _WITHOUT_KEY)
            request.receive = _refusing(upload, request.exchange)
            await self._hand_on(request)
            return
        named = named_in_header(request.headers.getlist(USER_HEADER))
        # Nobody but an administrator acts for others, or holds memory in their name.
        request.memory.owner = (caller.is_admin and named) or caller.user_id
        codings = request.headers.getlist("content-encoding")
        if any(coding.strip().lower() not in ("", "identity") for coding in codings):
            raise PackedBody
        if verdict.access is Access.OWN:
            await self._hand_on(request)
        elif request.path in ASKING:
            await self._ask(request, caller)
        elif request.path.startswith(PASS_THROUGH):
            await self._pass_through(request, caller)
        elif request.path == OPENAPI:
            await _respond_with(request, 200, await self._description())
        elif (model := model_in(request.path)) is not None and not has_database():
            await self._describe(request, model)
        else:
            request.exchange.lends_keys = verdict.access is Access.ADMIN
            await self._hand_on(request, await self._checked(request))

    def _policy(self) -> RoutePolicy:
        return self._policies[has_database()]

    async def _caller(self, request: _Request, verdict: Verdict) -> Caller | None:
        """Who is calling; None on a route that needs no key. Leaves this key alone in the headers.

        Raises UnknownKey, ClosedRoute.
        """
        key = self._keys.find(request.scope["headers"])
        if key is None and verdict.access is Access.PUBLIC:
            return None
        if key is None and verdict.access is Access.OWN:
            self._check_stranger(request)
            return None
        if key is None:
            caller = await self._litellm_caller(request)
        else:
            caller = _caller_with(key)
            _keep_key_alone(request, key.value)
        if verdict.access is Access.ADMIN and not caller.is_admin:
            raise ClosedRoute
        return caller

    def _check_stranger(self, request: _Request) -> None:
        """Raises UnknownKey for a key that nobody knows, and for none where one is needed to log in."""
        sent = any(candidates(request.scope["headers"]))
        if sent and not has_database():
            raise UnknownKey
        if not sent and not self._runtime.settings.anonymous_api:
            raise UnknownKey

    async def _litellm_caller(self, request: _Request) -> Caller:
        """The caller behind a key that LiteLLM keeps in its database. Raises UnknownKey."""
        key = next((one for one in candidates(request.scope["headers"]) if not is_of_the_provider(one)), None)
        if key is None or not has_database():
            raise UnknownKey
        _keep_key_alone(request, key)
        holder = await holder_of_key(request.scope)
        return caller_of(holder, shared_default=self._runtime.settings.shared_default)

    async def _options(self, request: _Request, verdict: Verdict) -> bool:
        """Answer what is asked about a route, if that is known here."""
        if not verdict.methods:
            return False
        allowed = ", ".join(sorted({*verdict.methods, "OPTIONS"}))
        await _respond_with(request, 204, b"", {"Allow": allowed})
        return True

    async def _ask(
        self, request: _Request, caller: Caller, listed: Callable[[str], str] | None = None
    ) -> None:
        """A request for a model. ``listed``: finds its name in the list."""
        listed = listed or self._models.listed
        body = json_body(await self._read(request))
        asked = body.model
        if asked is None:
            raise InvalidInput(
                "The body names no model. Send model: the name of one that GET /v1/models lists."
            )
        if "model" in QueryParams(request.scope["query_string"]):
            # LiteLLM would take it in place of the body's.
            raise InvalidInput("The query names a model. Name it in the body alone.")
        model = listed(asked)
        document = dict(body.document or {})
        if not isinstance(document.get("litellm_params"), dict | None):
            # LiteLLM reads it after it has asked the API, and asks again when it cannot.
            raise InvalidInput("litellm_params is no object. Leave it out.")
        for name in models_of_fallbacks(document):
            listed(name)
        for name in body.models - {asked}:
            self._api.listed(name)
        request.exchange.lends_keys = True
        plan = None
        if request.path == MESSAGES:
            plan = await self._api.message(request.incoming(), body, model)
        elif request.path == COUNT_TOKENS:
            plan = await self._api.count(request.incoming(), body, model)
        if plan is not None:
            plans = [plan]
            del body, document, plan
            await self._send(request, plans.pop(), caller)
            return
        if request.path == MESSAGES:
            document = self._api.for_the_router(body)
        await self._hand_on(request, Body(body.content, {**document, "model": model}))

    async def _pass_through(self, request: _Request, caller: Caller) -> None:
        """A request of another kind for the API."""
        incoming = request.incoming()
        path = self._api.path_of(incoming)
        if self._api.is_guarded(request.method, path):
            request.scope = {**request.scope, "path": MESSAGES, "raw_path": MESSAGES.encode()}
            await self._ask(request, caller, self._api.named_in_list)
            return
        if request.has_body and request.method == "POST" and path == BATCHES:
            await self._send(request, await self._api.batch(incoming, self._batch(request), path), caller)
            return
        body: Body | Upload
        if request.has_body and _is_no_json(request) and not asks_a_model(request.method, path):
            body = Upload(request.receive, request.declared, self._limits.upload)
        else:
            content = await self._read(request) if request.has_body else b""
            body = json_body(content) if content else Body(b"")
            del content
        plan = await self._api.pass_through(incoming, body, path)
        if plan is None:
            # A message to a model of another provider, which LiteLLM's router translates.
            request.exchange.lends_keys = True
            request.scope = {**request.scope, "path": f"/{path}", "raw_path": f"/{path}".encode()}
            await self._hand_on(request, body if isinstance(body, Body) else None)
            return
        del body
        # Not to be kept here as well, where it would outlive the sending of it.
        plans = [plan]
        del plan
        await self._send(request, plans.pop(), caller)

    async def _send(self, request: _Request, plan: Plan, caller: Caller) -> None:
        """Send a planned request to the API, and its answer to the client, as long as the client is there."""
        named = named_in_header(request.headers.getlist(USER_HEADER))
        user = DEFAULT_USER
        service = self._runtime.service
        content = plan.outgoing.content
        upstream = plan.upstream
        request.exchange.lends_keys = upstream.credentials is not None or upstream.fallback is not None
        async with Departure(request.receive) as departure:
            if isinstance(content, Upload):
                content.when_read(departure.start)
            else:
                departure.start()
            try:
                if has_database():
                    holder = await holder_of_request(request.scope, _replaying(content))
                    caller = caller_of(holder, shared_default=self._runtime.settings.shared_default)
                user = await acting_for(lambda: service, caller, request.exchange.origin, named)
                answer = await self._forwarder.send(plan.outgoing, plan.upstream, user)
            except LitellmOAuthError as error:
                public_url = self._runtime.settings.public_url
                refusal = chat_answer_for(error, user=user, public_url=public_url)
                await _respond(request, refusal, close=isinstance(content, Upload))
                return
            # The question may be large and the answer long.
            message = plan.outgoing.path == API_MESSAGES
            del plan, content
            request.memory.release()
            await relay(answer, request.send, message=message, body=not _wants_no_body(request))

    def _batch(self, request: _Request) -> BatchStream:
        limits = self._limits
        return BatchStream(
            request.receive, request.declared, limits.upload, largest=limits.body, memory=request.memory
        )

    async def _read(self, request: _Request) -> bytes:
        return await read(request.receive, request.declared, self._limits.body, request.memory)

    async def _checked(self, request: _Request) -> Body | None:
        """The body of a request that is LiteLLM's alone; None if it streams, or has none."""
        if not request.has_body:
            return None
        if _is_no_json(request):
            upload = Upload(request.receive, request.declared, self._limits.upload)
            request.receive = _refusing(upload, request.exchange)
            return None
        content = await self._read(request)
        refuse_doubled_keys(content)
        return Body(content)

    async def _hand_on(self, request: _Request, body: Body | None = None) -> None:
        """Have LiteLLM answer."""
        answer = LitellmAnswer(request.path, request.exchange, request.send, body=not _wants_no_body(request))
        scope = request.scope
        if _wants_no_body(request):
            scope = {**scope, "method": "GET"}
        if body is None:
            await self._app(scope, request.receive, answer.send)
            return
        refuse_to_translate_many_parts(body.content)
        size = weight(body.content)
        document = dict(body.document or {})
        if not _CHOSEN_HERE.isdisjoint(document):
            raise InvalidInput(
                "The gateway chooses the credentials and the address itself. "
                f"Leave out {', '.join(sorted(_CHOSEN_HERE & document.keys()))}."
            )
        content = [body.content]
        if body.document is not None:
            # LiteLLM keeps here what it has read of a body. It is not given the bytes beside it: tasks of
            # LiteLLM's that outlive the request would keep these.
            scope = {
                **scope,
                "parsed_body": (tuple(document), document),
                "headers": _as_json(scope["headers"]),
            }
            content = [b""]
        del body
        translation = HeldMemory(self._translation, request.memory.owner)
        async with Departure(request.receive, answer.has_started) as departure:
            departure.start()

            async def receive() -> Message:
                if not content:
                    return await departure.message()
                return {"type": "http.request", "body": content.pop(), "more_body": False}

            try:
                await translation.hold(size)
                await self._app(scope, receive, answer.send)
            finally:
                translation.release()
                document.clear()

    async def _describe(self, request: _Request, model: str) -> None:
        """One model of the list."""
        name = self._models.listed(model)
        description = described(name, anthropic="anthropic-version" in request.headers)
        await _respond_with(request, 200, json.dumps(description).encode())

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A connection that stays open is an administrator's."""
        try:
            key = self._keys.find(scope["headers"])
            admin = key is not None and key.user is None
        except InvalidInput:
            admin = False
        if admin:
            await self._app(scope, receive, send)
        else:
            await send(
                {"type": "websocket.close", "code": _CLOSED, "reason": "This key does not open this route."}
            )


def _request(scope: Scope, receive: Receive, send: Send, exchange: Exchange, memory: HeldMemory) -> _Request:
    """The request as it is meant: without a slash at the end that would cost the client a redirect."""
    root = scope.get("root_path", "")
    path = scope["path"].removeprefix(root)
    meant = without_slash(path)
    raw = scope.get("raw_path") or path.encode("utf-8")
    raw = raw.removeprefix(root.encode())
    if meant != path:
        raw = raw.rstrip(b"/") + (b"/" if meant.endswith("/") else b"")
    scope = {**scope, "path": meant, "raw_path": raw, "root_path": ""} if meant != path or root else scope
    return _Request(scope, receive, send, exchange, Headers(raw=scope["headers"]), memory)


def _answer_to(error: LitellmOAuthError, path: str) -> ErrorAnswer:
    """The answer to an error of a request for this path."""
    answer = answer_for(error)
    if isinstance(error, NoSuchModel) and (path.startswith(PASS_THROUGH) or model_in(path) is not None):
        # As the API has it. LiteLLM's own routes say 400.
        return replace(answer, status=404)
    if path.startswith(f"{OWN}/"):
        return replace(answer, headers={**NO_STORE, **answer.headers})
    return answer


def _check_method(method: str, verdict: Verdict) -> None:
    if verdict.methods and method not in verdict.methods:
        raise MethodNotAllowed(", ".join(sorted(verdict.methods)))


def _caller_with(key: GatewayKey) -> Caller:
    return Caller(DEFAULT_USER, is_admin=True) if key.user is None else Caller(key.user, is_admin=False)


def _keep_key_alone(request: _Request, key: str) -> None:
    headers = with_key_alone(request.scope["headers"], key)
    request.scope = {**request.scope, "headers": headers}
    request.headers = Headers(raw=headers)


def _wants_no_body(request: _Request) -> bool:
    return request.method == "HEAD"


def _is_no_json(request: _Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith(_NO_JSON)


def _as_json(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers for a body that was read as JSON, whatever its kind was said to be."""
    kept = [
        pair for pair in headers if pair[0] not in (b"content-type", b"content-length", b"transfer-encoding")
    ]
    return [*kept, (b"content-type", b"application/json")]


def _refusing(upload: Upload, exchange: Exchange) -> Receive:
    """The upload as LiteLLM receives it.

    What is wrong with it is told in our words, whatever LiteLLM makes of it.
    """

    async def receive() -> Message:
        try:
            return await upload.receive()
        except LitellmOAuthError as error:
            exchange.refusal = answer_for(error)
            raise

    return receive


def _replaying(content: object) -> Receive:
    async def receive() -> Message:
        body = content if isinstance(content, bytes) else b""
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _respond(request: _Request, answer: ErrorAnswer, *, close: bool = False) -> None:
    body = not _wants_no_body(request)
    await respond(request.send, answer, anthropic=is_anthropic(request.path), close=close, body=body)


async def _respond_with(
    request: _Request, status: int, content: bytes, headers: dict[str, str] | None = None
) -> None:
    await respond_with(request.send, status, content, headers, body=not _wants_no_body(request))
