"""What holds for every request that LiteLLM sends while it answers one of ours.

LiteLLM and the libraries below it make their own HTTP clients in many places, and all of them end in httpx.
There, and for all of them: no redirect is followed, no operator's key goes out with a request that lends
none, no error shows the credential that it is about, the API's answer is noted, and a stream of a message
has to end as one. Proven on LiteLLM 1.106.2 with httpx 0.28.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from functools import lru_cache
from typing import Any

import httpx

from ..errors import Forbidden, LitellmOAuthError
from ..provider import OF_THE_PROVIDER
from .answers import answer_for
from .api_answer import demand_the_api
from .cloud_metadata import MetadataRefusedError, is_metadata
from .credential_echo import credentials_of, overwrite_in
from .event_stream import MessageEvents, is_event_stream
from .exchange import Exchange, current

_MESSAGES = "/v1/messages"


class RefusedByGatewayError(httpx.RequestError):
    """A request of LiteLLM's that must not be sent, or an answer that must not be used."""


def watch_http_clients(operator_keys: Collection[str], *, cloud_metadata: bool) -> None:
    """Have all httpx clients of this process keep these rules. ``operator_keys``: values, never shown.

    ``cloud_metadata``: whether they may ask a cloud's metadata service.
    """
    keys = frozenset(operator_keys)
    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    def watched(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        if not cloud_metadata and is_metadata(request.url.host):
            # Not every event loop connects through Python's own sockets.
            raise RefusedByGatewayError(str(MetadataRefusedError()), request=request)
        exchange = current.get()
        if exchange is not None:
            _check(exchange, request, keys)
        answer = send(self, request, **{**options, "follow_redirects": False})
        if answer.is_error:
            overwrite_in(answer, request)
        return answer if exchange is None else _noted(exchange, request, answer)

    async def watched_async(
        self: httpx.AsyncClient, request: httpx.Request, **options: Any
    ) -> httpx.Response:
        if not cloud_metadata and is_metadata(request.url.host):
            # Not every event loop connects through Python's own sockets.
            raise RefusedByGatewayError(str(MetadataRefusedError()), request=request)
        exchange = current.get()
        if exchange is not None:
            _check(exchange, request, keys)
        answer = await send_async(self, request, **{**options, "follow_redirects": False})
        if answer.is_error:
            overwrite_in(answer, request)
        return answer if exchange is None else _noted(exchange, request, answer)

    httpx.Client.send = watched  # type: ignore[method-assign]
    httpx.AsyncClient.send = watched_async  # type: ignore[method-assign]


def _check(exchange: Exchange, request: httpx.Request, keys: frozenset[str]) -> None:
    if not exchange.lends_keys and keys and credentials_of(request) & keys:
        refusal = Forbidden("No API key of the operator's goes out on this route.")
        exchange.refusal = answer_for(refusal)
        raise RefusedByGatewayError(refusal.message, request=request)
    if exchange.api_base is None:
        # For a model of another provider, nobody says which API that is.
        exchange.asked = True
    about = _is_about(exchange, request)
    if about:
        exchange.asked = True
    if about or credentials_of(request):
        # A packed answer could not be looked into.
        request.headers["accept-encoding"] = "identity"


def _noted(exchange: Exchange, request: httpx.Request, answer: httpx.Response) -> httpx.Response:
    if not _is_about(exchange, request):
        return answer
    forget_content(request)
    exchange.note(answer.status_code, answer.headers.multi_items())
    try:
        demand_the_api(request, answer, time.time())
    except LitellmOAuthError as error:
        exchange.refusal = answer_for(error)
        raise RefusedByGatewayError(error.message, request=request) from None
    if answer.is_success and request.url.path.endswith(_MESSAGES) and is_event_stream(answer):
        stream = answer.stream
        if isinstance(stream, httpx.AsyncByteStream):
            answer.stream = MessageEvents(stream)
    return answer


def forget_content(request: httpx.Request) -> None:
    """Let go of what a request has sent.

    httpx keeps it with the answer, and an answer in a circle with its own stream, which only the garbage
    collector finds. It counts objects, not their size, so large bodies would pile up.
    """
    request.stream = httpx.ByteStream(b"")
    if hasattr(request, "_content"):
        request._content = b""


def _is_about(exchange: Exchange, request: httpx.Request) -> bool:
    """Whether a request asks the API that the exchange is about: a callback's own business is not noted."""
    if exchange.api_base is None or OF_THE_PROVIDER in request.extensions:
        return False
    base, url = _parsed(exchange.api_base), request.url
    return (base.scheme, base.host, base.port) == (url.scheme, url.host, url.port) and (
        f"{url.path}/".startswith(f"{base.path.rstrip('/')}/")
    )


@lru_cache(maxsize=100)
def _parsed(url: str) -> httpx.URL:
    return httpx.URL(url)
