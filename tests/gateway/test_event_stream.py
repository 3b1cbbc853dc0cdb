"""Streams of events are cut between events, and tell how they end."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Iterable

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from litellm_oauth.gateway.event_stream import (
    BrokenOffError,
    MessageEvents,
    is_end,
    is_event_stream,
    whole_events,
)

START = b'event: message_start\ndata: {"type": "message_start"}\n\n'
STOP = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
ERROR = b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}\n\n'


async def of(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def passed(*pieces: bytes, message: bool = True) -> tuple[list[bytes], bool]:
    """What is handed on, and whether the stream ended as it should."""
    seen: list[bytes] = []
    try:
        async for events in whole_events(of(pieces), message=message):
            seen.append(events)
    except BrokenOffError:
        return seen, False
    return seen, True


@pytest.mark.parametrize("end", [STOP, ERROR], ids=["stop", "error"])
async def test_a_message_ends_with_its_last_event(end: bytes) -> None:
    assert await passed(START, end) == ([START, end], True)
    assert await passed(START) == ([START], False)
    assert await passed() == ([], False)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
async def test_all_three_line_ends_end_events(line_end: bytes) -> None:
    stream = (START + STOP).replace(b"\n", line_end)
    assert await passed(stream) == ([stream], True)
    start = START.replace(b"\n", line_end)
    assert await passed(start, b"event: x" + line_end) == ([start], False)


@pytest.mark.parametrize("blank", [b"\r\n\n", b"\n\r\n", b"\r\r\n", b"\r\n\r", b"\n\r"])
async def test_line_ends_may_differ(blank: bytes) -> None:
    """HTML Standard, 9.2.5: each line ends with any of the three."""
    stop = STOP.removesuffix(b"\n\n") + blank
    seen, whole = await passed(START, stop)
    assert b"".join(seen).rstrip() == (START + stop).rstrip()
    assert whole


async def test_one_line_end_of_two_characters_ends_no_event() -> None:
    assert await passed(b"data: 1\r\n", b"data: 2\r", b"\n", message=False) == ([], True)


async def test_half_an_event_is_never_handed_on() -> None:
    half = b'event: content_block_delta\ndata: {"half'
    assert await passed(START + half) == ([START], False)
    assert await passed(START, half, b"\n") == ([START], False)
    assert await passed(half, message=False) == ([], True)


async def test_an_end_without_its_blank_line_is_none() -> None:
    """HTML Standard, 9.2.6: it is discarded by who reads it."""
    assert await passed(START, STOP.rstrip()) == ([START], False)
    assert await passed(START, STOP.removesuffix(b"\n")) == ([START], False)


async def test_what_begins_after_the_end_and_does_not_end_is_broken_off() -> None:
    assert await passed(STOP, b"event: ping\ndata") == ([STOP], False)
    assert await passed(STOP, b"\n") == ([STOP], True)


async def test_a_stream_of_another_kind_has_no_last_event() -> None:
    assert await passed(b"data: 1\n\n", b"data: 2\n\n", message=False) == (
        [b"data: 1\n\n", b"data: 2\n\n"],
        True,
    )


@pytest.mark.parametrize(
    "events",
    [
        b"event: message_stop\n\n",
        b"event:message_stop\n\n",
        b"event: message_stop \ndata: {}\n\n",
        b"id: 1\nevent: message_stop\r\ndata: {}\r\n\r\n",
        b'data: {"type": "message_stop"}\n\n',
        b'data:{"type":"message_stop"}\n\n',
        b'data: {"type":"error","error":{}}\n\n',
        START + STOP + b"event: ping\n\n",
    ],
)
def test_what_ends_a_message(events: bytes) -> None:
    assert is_end(events)


@pytest.mark.parametrize(
    "events",
    [
        START,
        b'event: content_block_delta\ndata: {"text": "event: message_stop"}\n\n',
        rb"event: x" + b"\n" + rb'data: {"text": "\nevent: message_stop\n\n"}' + b"\n\n",
        b"data: event: message_stop\n\n",
        b": event: message_stop\n\n",
        b"event: x\ndata: {}event: message_stop\n\n",
        b"event: message_stopped\n\n",
        b"event: error_like\n\n",
        b"xevent: message_stop\n\n",
        b"Event: message_stop\n\n",
        b" event: message_stop\n\n",
        b'data: {"text": {"type": "message_stop"}}\n\n',
        b'data: {"type": "message_stop_reason"}\n\n',
        b'data: {"type": "x", "a": "message_stop"}\n\n',
        b'data: [{"type": "message_stop"}]\n\n',
    ],
)
def test_what_only_speaks_of_an_end_is_none(events: bytes) -> None:
    assert not is_end(events)


LINES = st.sampled_from(
    [
        b"event: ping",
        b"event: message_stop",
        b"event: error",
        b"data: {}",
        b'data: {"text": "event: message_stop"}',
        b": comment",
        b"",
        "data: é".encode(),
        b"data: event: error",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS).map(b"".join), max_size=12).map(b"".join)


def events_of(stream: bytes) -> list[list[bytes]]:
    """The lines of each event, as the HTML Standard has them; what is not ended does not count."""
    lines = re.split(rb"\r\n|\n|\r", stream)
    events: list[list[bytes]] = [[]]
    for line in lines[:-1]:
        if line:
            events[-1].append(line)
        elif events[-1]:
            events.append([])
    return events[:-1]


@given(STREAMS, st.lists(st.integers(0, 400)), st.booleans())
@example(START + STOP, list(range(200)), True)
@example((START + STOP).replace(b"\n", b"\r\n"), list(range(200)), True)
@example((START + STOP).replace(b"\n", b"\r"), list(range(200)), True)
async def test_the_same_events_come_through_wherever_the_stream_is_cut(
    stream: bytes, cuts: list[int], message: bool
) -> None:
    places = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})
    pieces = [stream[start:end] for start, end in itertools.pairwise(places)]
    seen, whole = await passed(*pieces, message=message)
    handed_on = b"".join(seen)
    assert stream.startswith(handed_on)
    assert events_of(handed_on) == events_of(stream)
    assert re.fullmatch(rb"|.*(\r\n|\n|\r)(\r\n|\n|\r)", handed_on, re.DOTALL)
    # Whatever is added is an event of its own.
    assert events_of(handed_on + b"event: error\n\n") == [*events_of(stream), [b"event: error"]]
    rest = stream[len(handed_on) :].strip()
    ended = any(
        line in (b"event: message_stop", b"event: error") for event in events_of(stream) for line in event
    )
    assert whole is (not message or (ended and not rest))


@given(st.lists(st.binary(max_size=20)))
async def test_no_bytes_make_it_fail_or_change(pieces: list[bytes]) -> None:
    seen, whole = await passed(*pieces, message=False)
    assert whole
    assert b"".join(pieces).startswith(b"".join(seen))


class Stream(httpx.AsyncByteStream):
    closed = False

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    async def aclose(self) -> None:
        self.closed = True


async def test_the_stream_of_a_client_breaks_off_as_a_broken_connection_does() -> None:
    whole, broken = Stream(START, STOP), Stream(START)
    assert [events async for events in MessageEvents(whole)] == [START, STOP]
    events = MessageEvents(broken)
    with pytest.raises(httpx.RemoteProtocolError):
        _ = [one async for one in events]
    await events.aclose()
    assert broken.closed


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content-type": "text/event-stream"}, True),
        ({"Content-Type": "Text/Event-Stream; charset=utf-8"}, True),
        ({"content-type": "text/event-stream", "content-encoding": "identity"}, True),
        ({"content-type": "text/event-stream", "content-encoding": "gzip"}, False),
        ({"content-type": "application/json"}, False),
        ({"content-type": "application/json; x=text/event-stream"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_what_is_a_stream_of_events(headers: dict[str, str], expected: bool) -> None:
    assert is_event_stream(httpx.Response(200, headers=headers)) is expected
