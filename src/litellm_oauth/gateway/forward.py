"""Requests that go to the API as they are, with the caller's own token: messages, token counts, pass-through.

Knows no LiteLLM: ``anthropic_routes`` says which requests these are, and which deployment is meant.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import httpx
from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from ..errors import InvalidInput, LitellmOAuthError, ProviderUnavailable, TokenRefused
from ..tokens import AccessToken
from .answers import ErrorAnswer, chat_answer_for
from .bearer import CLAUDE_PREFIX
from .headers import for_the_api
from .runtime import ApiKey, Runtime

_log = logging.getLogger(__name__)
# A model may think for long before it says a word; a host that cannot be reached says so at once.
TIMEOUT = httpx.Timeout(600, connect=10, pool=10)
LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)

OAUTH_BETA = "oauth-2025-04-20"
_DEFAULTS = {"anthropic-version": "2023-06-01"}
# Not packed, so that an event can be added to what breaks off.
_ALWAYS = {"accept-encoding": "identity"}
# Kinds of bodies that name no model.
_FORMS = frozenset(("application/x-www-form-urlencoded", "multipart/form-data"))
_BINARIES = frozenset(("application/x-protobuf", "application/protobuf"))
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
        return None if self.document is None else _name(self.document.get("model"))

    @property
    def models(self) -> frozenset[str]:
        """All models that it names: its own, and those of the requests of a batch."""
        document = self.document or {}
        requests = document.get("requests")
        batch = requests if isinstance(requests, list) else []
        params = [one.get("params") for one in batch if isinstance(one, dict)]
        asking = [document, *(one for one in params if isinstance(one, dict))]
        return frozenset(name for one in asking if (name := _name(one.get("model"))) is not None)

    def named(self, model: str | None) -> bytes:
        """The body with the API's own name of the model; the bytes that came where it has that already.

        Raises InvalidInput for a number or a character that JSON in UTF-8 has no form for.
        """
        if model is None or self.document is None or self.model is None:
            return self.content
        if self.model == model and self.content.count(b'"model"') == 1 and b"\\u00" not in self.content:
            return self.content
        # Also where the name may stand twice: each reader would take another one.
        try:
            text = json.dumps({**self.document, "model": model}, ensure_ascii=False, allow_nan=False)
            return text.encode()
        except ValueError:
            raise InvalidInput("The body holds a number or a character that cannot be sent on.") from None


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def parse_body(content: bytes, content_type: str) -> Body:
    """The body as LiteLLM's check of the key reads it, so that both see the same model.

    Raises InvalidInput for JSON that is no object, or is not UTF-8: nobody else could read it.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if not content or kind in _FORMS:
        return Body(content)
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        return Body(content, document)
    if kind in _BINARIES:
        return Body(content)
    raise InvalidInput("The body is not a JSON object in UTF-8.")


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a request goes: the API's address, and its name of the model (None: none is named).

    ``fallback``: what clients call the model whose API key stands in for users without a login; None: none.
    """

    base: str
    model: str | None = None
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class _Call:
    """A request as it goes to the API, but for the credentials."""

    method: str
    url: httpx.URL
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)


class Forwarder:
    """Sends requests on."""

    def __init__(self, runtime: Runtime, client: httpx.AsyncClient) -> None:
        self._runtime = runtime
        self._client = client

    async def send(self, request: Request, path: str, body: Body, upstream: Upstream, user: str) -> Response:
        """The API's answer to the request, with this user's token.

        After a 401 the token is replaced, and the request sent once more.
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
            return error_response(
                chat_answer_for(error, user=user, public_url=self._runtime.settings.public_url)
            )
        return _Forwarded(answer)

    async def _answer(self, call: _Call, upstream: Upstream, user: str) -> httpx.Response:
        token = await self._runtime.credential(user, upstream.fallback)
        if isinstance(token, ApiKey):
            return await self._sent(call, {"x-api-key": token.value})
        _log.debug("a request goes on with the token of %s (generation %d)", user, token.generation)
        answer = await self._sent(call, _bearer(token, call.headers))
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            return answer
        await answer.aclose()
        service = self._runtime.service
        token = await service.replace_rejected(user, token.generation)
        answer = await self._sent(call, _bearer(token, call.headers))
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            return answer
        await answer.aclose()
        # The service is told, so that it spends no further refresh token on this.
        await service.replace_rejected(user, token.generation)
        raise TokenRefused("The API refused two tokens of this user, one after the other.", retry_after=0)

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
    if "oauth" in segments_of(plain.lower()):
        # What an authorization server refuses says nothing about the token that came along.
        raise InvalidInput("The path is none of the API's: logins are made at /auth/claude/oauth.")
    kept = "&".join(pair for pair in query.split("&") if not _is_credential(pair))
    root = httpx.URL(base)
    target = f"{root.raw_path.decode().rstrip('/')}/{path}"
    try:
        return root.copy_with(raw_path=f"{target}?{kept}".encode() if kept else target.encode())
    except (httpx.InvalidURL, ValueError):
        raise InvalidInput("The path or the query is too long, or holds what no URL can hold.") from None


def segments_of(path: str) -> list[str]:
    """The parts of a path, as a server may read them that is lenient about slashes."""
    return [part for part in unquote(path).split("/") if part]


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
