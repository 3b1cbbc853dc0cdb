"""Requests that go to the API as they are: messages, token counts, pass-through.

Each goes with the caller's own token, or for a model with an operator's credentials, with these.
Knows no LiteLLM: ``anthropic_api`` says which requests these are, and which deployment is meant.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

import httpx
from starlette.types import Send

from ..errors import (
    InvalidInput,
    LitellmOAuthError,
    ProviderUnavailable,
    TokenRefused,
)
from ..tasks import finished
from ..tokens import AccessToken
from .api_answer import demand_the_api
from .bearer import CLAUDE_PREFIX
from .errors import UploadInterrupted
from .event_stream import is_event_stream, whole_events
from .exchange import is_for_the_client
from .headers import for_the_api
from .runtime import ApiKey, Runtime

_log = logging.getLogger(__name__)
# A model may think for long before it says a word; a host that cannot be reached says so at once.
TIMEOUT = httpx.Timeout(600, connect=10, pool=10)
LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)

OAUTH_BETA = "oauth-2025-04-20"
MESSAGES = "v1/messages"
_DEFAULTS = {"anthropic-version": "2023-06-01"}
# Not packed, so that an event can be added to what breaks off.
_ALWAYS = {"accept-encoding": "identity"}
# The gateway takes keys out of some queries.
_QUERY_CREDENTIALS = frozenset(("key", "api_key", "api-key", "access_token"))
_ANSWER_HEADERS = frozenset(("content-type", "content-encoding", "content-length", "content-disposition"))


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request for the API.

    ``path`` is below the API's address; ``content`` may be a stream, which goes out once.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    content: bytes | AsyncIterable[bytes] = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a request goes, and with which credentials.

    ``credentials``: headers with the operator's; None: the caller's own token goes. ``fallback``: what
    clients call the model whose API key stands in for callers without a login; None: none.
    """

    base: str
    credentials: Mapping[str, str] | None = field(default=None, repr=False)
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class _Call:
    """A request as it goes to the API, but for the credentials."""

    method: str
    url: httpx.URL
    headers: Mapping[str, str] = field(repr=False)
    content: bytes | AsyncIterable[bytes] = field(repr=False)


class _Once(httpx.AsyncByteStream):
    """A body that is let go of when it has been sent.

    httpx keeps a request with its answer, and the answer in a circle with its own stream, which only the
    garbage collector finds. It counts objects, not their size, so large bodies would pile up.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content, self._content = self._content, b""
        yield content


class Forwarder:
    """Sends requests on."""

    def __init__(self, runtime: Runtime, client: httpx.AsyncClient) -> None:
        self._runtime = runtime
        self._client = client

    async def send(self, outgoing: Outgoing, upstream: Upstream, user: str) -> httpx.Response:
        """The API's answer, its body not read yet.

        With the caller's token, a 401 has the token replaced and the request sent once more. Raises
        LitellmOAuthError: among others TokenRefused after two refused tokens, ProviderUnavailable if the API
        does not answer, RedirectedAnswer if it answers with a redirect, NotTheApi if something else answers.
        """
        call = _Call(
            outgoing.method,
            _url(upstream.base, outgoing.path, outgoing.query),
            {**_DEFAULTS, **(for_the_api(outgoing.headers) or {}), **_ALWAYS},
            outgoing.content,
        )
        if upstream.credentials is not None:
            return await self._sent(call, upstream.credentials)
        token = await self._runtime.credential(user, upstream.fallback)
        if isinstance(token, ApiKey):
            return await self._sent(call, {"x-api-key": token.value})
        _log.debug("a request goes on with the token of %s (generation %d)", user, token.generation)
        answer = await self._sent(call, _bearer(token, call.headers))
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            return answer
        await close(answer)
        service = self._runtime.service
        token = await service.replace_rejected(user, token.generation)
        if not isinstance(call.content, bytes):
            raise UploadInterrupted
        answer = await self._sent(call, _bearer(token, call.headers))
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            return answer
        await close(answer)
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
            content: _Once | AsyncIterable[bytes] | None = None
            if not isinstance(call.content, bytes):
                content = call.content
            elif call.content:
                lines.append((b"content-length", str(len(call.content)).encode()))
                content = _Once(call.content)
            request = self._client.build_request(call.method, call.url, headers=lines, content=content)
            answer = await self._client.send(request, stream=True, follow_redirects=False)
        except httpx.HTTPError as error:
            kind = type(error).__name__
            _log.warning("the API did not answer: %s", kind)
            raise ProviderUnavailable(
                f"The API at {call.url.host} did not answer ({kind}). Try again; "
                "ask the operator if it stays so.",
                reason="network",
            ) from None
        try:
            demand_the_api(request, answer, time.time())
        except LitellmOAuthError:
            await close(answer)
            raise
        return answer


async def relay(answer: httpx.Response, send: Send, *, message: bool, body: bool = True) -> None:
    """Hand the API's answer on as it comes. However that ends, the connection to the API is free again.

    ``message``: whether it answers a request of the Messages API, whose stream has an end of its own.
    ``body``: whether the client wants more than the headers (RFC 9110 §9.3.2). If a stream of events breaks
    off, an event says so; any other answer is broken off as well.
    """
    try:
        await send({"type": "http.response.start", "status": answer.status_code, "headers": _headers(answer)})
        if body:
            async for piece in _pieces(answer, message=message):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        await close(answer)


async def close(answer: httpx.Response) -> None:
    """Give the connection to the API back, whoever stops waiting for that.

    httpx takes an answer for closed from the moment it begins to close it, and its pool never sees the
    connection again if it is cancelled then.
    """
    await finished(asyncio.create_task(answer.aclose()))


def _headers(answer: httpx.Response) -> list[tuple[bytes, bytes]]:
    # One more event may be added to a stream.
    dropped = {b"content-length"} if is_event_stream(answer) else frozenset()
    return [
        (name.lower(), value)
        for name, value in answer.headers.raw
        if name.lower() not in dropped and _travels(name.decode("latin-1").lower())
    ]


def _travels(name: str) -> bool:
    return name in _ANSWER_HEADERS or is_for_the_client(name)


async def _pieces(answer: httpx.Response, *, message: bool) -> AsyncIterator[bytes]:
    if not is_event_stream(answer):
        async for piece in _raw(answer):
            yield piece
        return
    try:
        async for events in whole_events(_raw(answer), message=message and answer.is_success):
            yield events
    except httpx.HTTPError as error:
        _log.warning("the API broke off its answer: %s", type(error).__name__)
        detail = {"type": "api_error", "message": "The API broke off its answer. Try again."}
        yield f"event: error\ndata: {json.dumps({'type': 'error', 'error': detail})}\n\n".encode()


async def _raw(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes. Unlike ``aiter_raw`` it closes nothing: ``close`` does, whoever is cancelled."""
    if not isinstance(answer.stream, httpx.AsyncByteStream):
        raise TypeError("the answer was not asked for with a client for asyncio")
    async for piece in answer.stream:
        yield piece


def _url(base: str, path: str, query: str) -> httpx.URL:
    kept = "&".join(pair for pair in query.split("&") if not _is_credential(pair))
    root = httpx.URL(base)
    target = f"{root.raw_path.decode().rstrip('/')}/{path}"
    try:
        return root.copy_with(raw_path=f"{target}?{kept}".encode("latin-1") if kept else target.encode())
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
