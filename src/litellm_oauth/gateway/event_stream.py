"""Streams of server-sent events that tell how they end.

A connection that closes well is no proof that an answer is whole: a proxy on the way may end it politely. A
stream of the Messages API is whole with ``message_stop``, or ends with an event ``error``.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx

CONTENT_TYPE = "text/event-stream"
# A blank line ends an event. Each line ends in any of three ways (HTML Standard, 9.2.5).
_BOUNDARY = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_TAIL = 3
# What is held of an event. The API's are a thousandth of that.
_LONGEST = 32 << 20
_LAST_EVENT = re.compile(rb"(?:\A|[\r\n])event: ?(message_stop|error)[ \t]*[\r\n]")
_LAST_DATA = re.compile(rb'(?:\A|[\r\n])data: ?\{"type": ?"(?:message_stop|error)"')


class BrokenOffError(httpx.RemoteProtocolError):
    """The stream ended before the answer did."""

    def __init__(self) -> None:
        super().__init__("the stream of events ended before the answer did")


async def whole_events(pieces: AsyncIterator[bytes], *, message: bool) -> AsyncIterator[bytes]:
    """The stream, cut between events: what has come of an event goes on when the rest of it has come.

    So nothing that is added after a break completes somebody else's event. ``message``: whether it is an
    answer of the Messages API, which has an end of its own. Raises BrokenOffError if that is missing, or
    if an event does not end.
    """
    held = bytearray()
    ended = False
    async for piece in pieces:
        start = max(0, len(held) - _TAIL)
        held += piece
        cut = 0
        for found in _BOUNDARY.finditer(held, start):
            cut = found.end()
        if cut:
            whole = bytes(held[:cut])
            del held[:cut]
            ended = ended or is_end(whole)
            yield whole
        elif len(held) > _LONGEST:
            raise BrokenOffError
    if held.strip():
        # Without a blank line the last event does not count (HTML Standard, 9.2.6).
        ended = False
    if message and not ended:
        raise BrokenOffError


def is_end(events: bytes) -> bool:
    """Whether these events end an answer of the Messages API."""
    return bool(_LAST_EVENT.search(events) or _LAST_DATA.search(events))


def is_event_stream(response: httpx.Response) -> bool:
    """Whether the body is a stream of events, and not packed."""
    return str(response.headers.get("content-type", "")).lower().startswith(CONTENT_TYPE) and (
        str(response.headers.get("content-encoding", "identity")).lower() in ("", "identity")
    )


class MessageEvents(httpx.AsyncByteStream):
    """The events of an answer of the Messages API; iterating raises BrokenOffError if they end early."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in whole_events(aiter(self._stream), message=True):
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
