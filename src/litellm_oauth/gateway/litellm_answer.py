"""LiteLLM's answer on its way to the client: with what the API said of it, under the API's own names.

LiteLLM renames the API's headers or leaves them out, and turns some errors into others.
"""

from __future__ import annotations

import gzip
import json
import logging
import re
import zlib

from starlette.types import Message, Send

from .answers import ErrorAnswer, error_body
from .exchange import Exchange, is_for_the_client
from .route_policy import ASKING, is_anthropic

_log = logging.getLogger(__name__)
_RENAMED = b"llm_provider-"
_COOKIE = b"set-cookie"
# Anthropic's API is overloaded; OpenAI's clients know that as 503.
_OVERLOADED, _UNAVAILABLE = 529, 503
_UNREADABLE = ErrorAnswer(
    400,
    "The body has a shape that this route cannot translate for the API. "
    "Compare it with the route's documentation.",
    "invalid_body",
)


_UNUSABLE = ErrorAnswer(
    502, "The API's answer could not be translated. The gateway's log says more.", "unusable_answer"
)
# What LiteLLM says of a field that it refuses, with 401, on which clients throw their key away.
_REJECTED = re.compile(rb'Rejected Request: ([^."\\]{1,200})')
# LiteLLM shows its own in some messages, near their beginning.
_LOOKED_AT = 65_536
_GZIP = b"\x1f\x8b"
# What a client has sent may hold one as well, and an error of the API's quotes it.
_TRACEBACK = re.compile(rb"Traceback \(most recent call last\).{0,4000}?[/\\]site-packages[/\\]", re.DOTALL)


class LitellmAnswer:
    """Passes an answer on. ``body``: whether the client wants more than the headers."""

    def __init__(self, path: str, exchange: Exchange, send: Send, *, body: bool) -> None:
        self._path = path
        self._asking = path in ASKING
        self._exchange = exchange
        self._send = send
        self._wants_body = body
        self._started = False
        self._replaced = False
        # An error that has not been sent yet.
        self._held: Message | None = None
        self._error = b""

    def has_started(self) -> bool:
        """Whether the client has been told how it went."""
        return self._started

    async def send(self, message: Message) -> None:
        """What LiteLLM's application calls."""
        if message["type"] == "http.response.start":
            self._started = True
            instead = self._instead(message["status"])
            if instead is not None:
                await self._replace(instead)
                return
            start = {**message, "status": self._status(message["status"]), "headers": self._headers(message)}
            if self._asking and message["status"] >= 400:
                # Small, and looked into before it goes out.
                self._held = start
                return
            await self._send(start)
        elif self._replaced:
            return
        elif self._held is not None and message["type"] == "http.response.body":
            await self._send_error(self._held, message)
        else:
            if not self._wants_body and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await self._send(message)

    async def _send_error(self, start: Message, message: Message) -> None:
        self._error += message.get("body", b"")
        if message.get("more_body", False):
            return
        self._held = None
        content = _unpacked(self._error)
        rejected = _REJECTED.search(content) if start["status"] == 401 else None
        if rejected is not None:
            await self._replace(_refusing(rejected[1]))
            return
        if _TRACEBACK.search(content[:_LOOKED_AT]):
            unreadable = start["status"] < 500 or not self._exchange.asked
            await self._replace(_UNREADABLE if unreadable else _UNUSABLE)
            return
        await self._send(start)
        await self._send({**message, "body": self._error if self._wants_body else b""})

    async def _replace(self, answer: ErrorAnswer) -> None:
        self._replaced = True
        await respond(self._send, answer, anthropic=is_anthropic(self._path), body=self._wants_body)

    def _instead(self, status: int) -> ErrorAnswer | None:
        """The answer that takes the place of LiteLLM's."""
        if status < 400:
            return None
        if self._exchange.refusal is not None:
            return self._exchange.refusal
        if self._asking and status == 500 and not self._exchange.asked:
            # The API was never asked, so it is the translation that failed, on what the client sent.
            _log.info("LiteLLM could not translate a request for %s", self._path)
            return _UNREADABLE
        return None

    def _status(self, status: int) -> int:
        said = self._exchange.status
        if status < 400 or said is None or said < 400 or not self._asking:
            return status
        return _UNAVAILABLE if said == _OVERLOADED and not is_anthropic(self._path) else said

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        kept: list[tuple[bytes, bytes]] = []
        found: dict[bytes, bytes] = {
            name.encode("latin-1"): value.encode("latin-1") for name, value in self._exchange.headers.items()
        }
        for name, value in message.get("headers", ()):
            lower = name.lower()
            if lower.startswith(_RENAMED):
                own = lower.removeprefix(_RENAMED)
                if own == _COOKIE:
                    continue
                if is_for_the_client(own.decode("latin-1")):
                    found.setdefault(own, value)
            elif lower == _COOKIE and self._asking:
                continue
            kept.append((name, value))
        names = {name.lower() for name, _ in kept}
        return kept + [pair for pair in found.items() if pair[0] not in names]


def _refusing(reason: bytes) -> ErrorAnswer:
    """``reason``: what LiteLLM says of the field."""
    said = reason.decode("utf-8", "replace").strip()
    message = f"{said}. The gateway chooses addresses and credentials itself."
    return ErrorAnswer(400, message, "invalid_input")


def _unpacked(content: bytes) -> bytes:
    """The content as LiteLLM wrote it, before it was packed for a client that takes gzip."""
    if not content.startswith(_GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return content


async def respond(
    send: Send, answer: ErrorAnswer, *, anthropic: bool, close: bool = False, body: bool = True
) -> None:
    """An error of the gateway's own. ``close``: the rest of the request will not be read."""
    headers = {**answer.headers, **({"Connection": "close"} if close else {})}
    content = json.dumps(error_body(answer, anthropic=anthropic)).encode()
    await respond_with(send, answer.status, content, headers, body=body)


async def respond_with(
    send: Send, status: int, content: bytes, headers: dict[str, str] | None = None, *, body: bool = True
) -> None:
    """An answer of the gateway's own, in JSON."""
    lines = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()
    ]
    if content:
        lines.append((b"content-type", b"application/json"))
    if content or status != 204:
        lines.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": content if body else b"", "more_body": False})
