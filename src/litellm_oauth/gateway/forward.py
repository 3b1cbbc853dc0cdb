"""Requests that go to the API as they are, with the caller's own token: token counts and the pass-through.

LiteLLM has no hook on these routes: it would send them with a key of its own, or count by itself. They are
answered here where the model is one that the operator marked ``api_key: oauth``; all others are LiteLLM's.
Knows no LiteLLM: ``anthropic_routes`` says which deployment is meant.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import httpx
from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from .. import messages
from ..errors import InvalidInput, LitellmOAuthError, NotLoggedIn, ProviderUnavailable, TokenRefused
from ..service import TokenService
from ..tokens import AccessToken
from .answers import ErrorAnswer, chat_answer_for
from .bearer import CLAUDE_PREFIX
from .headers import for_the_api

_log = logging.getLogger(__name__)
# A model may think for long before it says a word; a host that cannot be reached says so at once.
TIMEOUT = httpx.Timeout(600, connect=10, pool=10)
LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)

OAUTH_BETA = "oauth-2025-04-20"
_DEFAULTS = {"anthropic-version": "2023-06-01"}
# Not packed, so that an event can be added to what breaks off.
_ALWAYS = {"accept-encoding": "identity"}
# Where the API is, below its address. A token opens nothing else of the host.
_API = "v1/"
# LiteLLM takes gateway keys out of some queries.
_QUERY_CREDENTIALS = frozenset(("key", "api_key", "api-key", "access_token"))
_ANSWER_HEADERS = frozenset(
    ("content-type", "content-encoding", "content-length", "retry-after", "request-id", "x-should-retry")
)
_ANSWER_PREFIX = "anthropic-"
_EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Body:
    """What a client sent. ``document`` is the JSON object in it, where it is one."""

    content: bytes = field(repr=False)
    document: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def model(self) -> str | None:
        """The model that it names."""
        model = None if self.document is None else self.document.get("model")
        return model if isinstance(model, str) and model else None

    def named(self, model: str | None) -> bytes:
        """The body with the API's own name of the model; untouched where it has that already.

        Raises InvalidInput for numbers that JSON has no form for.
        """
        if model is None or self.document is None or self.model in (None, model):
            return self.content
        try:
            text = json.dumps({**self.document, "model": model}, ensure_ascii=False, allow_nan=False)
            return text.encode()
        except ValueError:
            raise InvalidInput("The body holds a number or a character that cannot be sent on.") from None


def parse_body(content: bytes, content_type: str) -> Body:
    """Raises InvalidInput for JSON that is no object, or is not UTF-8: nobody else could read it."""
    if not content or "json" not in (content_type or "json").lower():
        return Body(content)
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InvalidInput("The body is not a JSON object in UTF-8.")
    return Body(content, document)


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a request goes: the API's address, and its name of the model (None: none is named).

    ``fallback_key`` gives the operator's API key for who never logged in, or None.
    """

    base: str
    model: str | None = None
    fallback_key: Callable[[], str | None] = field(default=lambda: None, repr=False)


@dataclass(frozen=True, slots=True)
class _Call:
    """A request as it goes to the API, but for the credentials."""

    method: str
    url: httpx.URL
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)


class Forwarder:
    """Sends requests on. ``public_url`` is where people reach the gateway, for the hint how to log in."""

    def __init__(self, service: TokenService, client: httpx.AsyncClient, public_url: str) -> None:
        self._service = service
        self._client = client
        self._public_url = public_url

    async def send(self, request: Request, path: str, body: Body, upstream: Upstream, user: str) -> Response:
        """The API's answer to the request, with this user's token.

        After a 401 the token is replaced, and the request sent once more. Where the user never logged in, it
        goes with the upstream's ``fallback_key``, if it has one.
        """
        try:
            call = _Call(
                request.method,
                _url(upstream.base, path, request.url.query),
                {**_DEFAULTS, **(for_the_api(request.headers) or {}), **_ALWAYS},
                body.named(upstream.model),
            )
            answer = await self._answer(call, upstream, user)
        except LitellmOAuthError as error:
            return error_response(chat_answer_for(error, user=user, public_url=self._public_url))
        return _Forwarded(answer)

    async def _answer(self, call: _Call, upstream: Upstream, user: str) -> httpx.Response:
        try:
            token = await self._service.access_token(user)
        except NotLoggedIn:
            if (key := upstream.fallback_key()) is None:
                raise
            return await self._sent(call, {"x-api-key": key})
        answer = await self._sent(call, _bearer(token, call.headers))
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            return answer
        await answer.aclose()
        token = await self._service.replace_rejected(user, token.generation)
        answer = await self._sent(call, _bearer(token, call.headers))
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            return answer
        await answer.aclose()
        # Said to the service, which spends no further refresh token on it. Where somebody else has replaced
        # this one as well, the next request has a better chance.
        await self._service.replace_rejected(user, token.generation)
        raise TokenRefused(messages.token_refused(user), retry_after=0)

    async def _sent(self, call: _Call, credentials: Mapping[str, str]) -> httpx.Response:
        # As they came: HTTP knows bytes, and Starlette reads them as Latin-1.
        lines = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in {**call.headers, **credentials}.items()
        ]
        try:
            request = self._client.build_request(
                call.method, call.url, headers=lines, content=call.content or None
            )
            return await self._client.send(request, stream=True, follow_redirects=False)
        except httpx.HTTPError as error:
            kind = type(error).__name__
            _log.warning("the API did not answer: %s", kind)
            raise ProviderUnavailable(
                f"The API at {call.url.host} did not answer ({kind}). Try again; "
                "ask the operator if it stays so.",
                reason="network",
            ) from None


def error_response(answer: ErrorAnswer) -> Response:
    """An error in the form that clients of this API know, with the code that clients of this gateway know."""
    return JSONResponse({"type": "error", **answer.body}, answer.status, dict(answer.headers))


class _Forwarded(StreamingResponse):
    """The API's answer on its way. However that ends, the connection to the API is free again."""

    def __init__(self, answer: httpx.Response) -> None:
        headers = {
            name: value
            for name, value in answer.headers.items()
            if name.lower() in _ANSWER_HEADERS or name.lower().startswith(_ANSWER_PREFIX)
        }
        if _is_events(answer):
            # One more may be added.
            headers.pop("content-length", None)
        super().__init__(_pieces(answer), answer.status_code, headers)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Also where the client had gone before the first piece was asked for.
            await self._answer.aclose()


def _url(base: str, path: str, query: str) -> httpx.URL:
    """The path below the base. Raises InvalidInput for one that leads elsewhere than to the API."""
    plain = unquote(path)
    if "\\" in plain or any(part in (".", "..") for part in plain.split("/")):
        raise InvalidInput("The path holds . or .. or a backslash; write it without.")
    if not plain.startswith(_API) or not path.startswith(_API):
        raise InvalidInput(f"The path is none of the API's: it begins with {_API}.")
    kept = "&".join(pair for pair in query.split("&") if not _is_credential(pair))
    root = httpx.URL(base)
    target = f"{root.raw_path.decode().rstrip('/')}/{path}"
    try:
        return root.copy_with(raw_path=f"{target}?{kept}".encode() if kept else target.encode())
    except (httpx.InvalidURL, ValueError):
        raise InvalidInput("The path or the query is too long, or holds what no URL can hold.") from None


def _is_credential(pair: str) -> bool:
    return unquote(pair.partition("=")[0]).strip().lower() in _QUERY_CREDENTIALS


def _bearer(token: AccessToken, headers: Mapping[str, str]) -> dict[str, str]:
    """The token as a bearer (RFC 6750 §2.1), and what Claude's API wants beside its own tokens."""
    wanted = {"authorization": f"Bearer {token.value}"}
    if token.value.startswith(CLAUDE_PREFIX):
        betas = [beta.strip() for beta in headers.get("anthropic-beta", "").split(",") if beta.strip()]
        wanted["anthropic-beta"] = ",".join(dict.fromkeys([*betas, OAUTH_BETA]))
    return wanted


async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The answer as it comes. Where a stream of events breaks off, an event says so."""
    try:
        async for piece in answer.aiter_raw():
            yield piece
    except httpx.HTTPError as error:
        _log.warning("the API broke off its answer: %s", type(error).__name__)
        if not _is_events(answer):
            raise
        detail = {"type": "api_error", "message": "The API broke off its answer. Try again."}
        yield f"\n\nevent: error\ndata: {json.dumps({'type': 'error', 'error': detail})}\n\n".encode()


def _is_events(answer: httpx.Response) -> bool:
    return str(answer.headers.get("content-type", "")).startswith(_EVENTS)
