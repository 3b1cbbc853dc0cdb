"""A gateway without LiteLLM that sends every request on to the API."""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from litellm_oauth.errors import LitellmOAuthError
from litellm_oauth.gateway.answers import chat_answer_for
from litellm_oauth.gateway.body_memory import BodyMemory, HeldMemory
from litellm_oauth.gateway.forward import Forwarder, Outgoing, Upstream, relay
from litellm_oauth.gateway.litellm_answer import respond
from litellm_oauth.gateway.paths import api_path
from litellm_oauth.gateway.request_body import read

LARGEST = 1 << 20


def forwarding(
    forwarder: Forwarder, upstream: Upstream, user: Callable[[Headers], str], public_url: str
) -> ASGIApp:
    """An application that asks ``upstream`` for the user that ``user`` finds in the headers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(raw=scope["headers"])
        path = scope["raw_path"][1:]
        content = await read(receive, None, LARGEST, HeldMemory(BodyMemory(LARGEST)))
        try:
            outgoing = Outgoing(
                scope["method"], api_path(path), scope["query_string"].decode("latin-1"), headers, content
            )
            answer = await forwarder.send(outgoing, upstream, user(headers))
        except LitellmOAuthError as error:
            refusal = chat_answer_for(error, user=user(headers), public_url=public_url)
            await respond(send, refusal, anthropic=True)
            return
        await relay(answer, send, message=path == b"v1/messages")

    return app
