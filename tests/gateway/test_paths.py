"""Which paths below /anthropic/ are the API's: read once, and in one way only."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from litellm_oauth.errors import InvalidInput
from litellm_oauth.gateway.paths import api_path

UNRESERVED = b"ABCXYZabcxyz0189._~-"


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"v1/messages", "v1/messages"),
        (b"v1/messages/", "v1/messages"),
        (b"v1/messages/batches/msgbatch_01/results", "v1/messages/batches/msgbatch_01/results"),
        (b"v1/models/claude-3.5~x_y", "v1/models/claude-3.5~x_y"),
        (b"v1/.a", "v1/.a"),
        # RFC 3986 §2.3: the same path, in whichever form.
        (b"v1/%6dessages", "v1/messages"),
        (b"%761/messages", "v1/messages"),
        (b"v1/a%2Eb%2d%7E%5f", "v1/a.b-~_"),
    ],
)
def test_a_path_of_the_api_is_decoded_once(raw: bytes, path: str) -> None:
    assert api_path(raw) == path


@pytest.mark.parametrize(
    "segment",
    [
        b".",
        b"..",
        b"%2e",
        b"%2E%2e",
        b".%2e",
        b"%252e%252e",
        b"...",
        b"..a",
        b"a..",
        b"a%2e.b",
        b"..;",
        b"..;a=b",
        b"..%3b",
        b"a;b",
        b"a%2fb",
        b"%2f..%2f",
        b"a%5cb",
        b"a\\b",
        b"..%5c",
        b"%00",
        b"a%00",
        b"a%0d%0ab",
        b"a%0a",
        b"a\n",
        b"a b",
        b"a%20",
        b"a+b",
        b"a%",
        b"a%2",
        b"a%zz",
        b"a%23",
        b"a%3fb",
        b"a?b",
        b"a#b",
        b"a@b",
        b"a:b",
        b"a*",
        b"%c3%a9",
        "é".encode(),
        b"\xff",
        b"%c0%ae%c0%ae",
        b"%u002e",
        b"oauth",
        b"OAuth",
        b"oauth2",
        b"%6fauth",
        b"my-OAUTH-token",
    ],
)
@pytest.mark.parametrize(
    "frame", [b"v1/%s", b"v1/%s/messages", b"v1/messages/%s", b"v1/messages/%s/", b"%s/v1/messages"]
)
def test_what_could_be_read_in_two_ways_is_refused(frame: bytes, segment: bytes) -> None:
    with pytest.raises(InvalidInput):
        api_path(frame.replace(b"%s", segment))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"/",
        b"//",
        b"v1",
        b"v1/",
        b"v1//",
        b"v1//messages",
        b"/v1/messages",
        b"v1/messages//",
        b"V1/messages",
        b"v10/messages",
        b"v2/messages",
        b"v1%2fmessages",
        b"api/v1/messages",
        b"control/logins",
        b"@evil.example/v1/x",
        b"//evil.example/v1/x",
        b"%2f%2fevil.example/v1",
        b":1/v1/x",
        b"https://evil.example/v1/x",
        b"v1/messages?x=1",
    ],
)
def test_what_is_outside_of_the_api_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        api_path(raw)


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(InvalidInput) as refusal:
        api_path(b"v1/\x1b[31m")
    assert "\x1b" not in refusal.value.message


PIECES = st.sampled_from(
    [
        b"v1",
        b"/",
        b".",
        b"..",
        b"%",
        b"2e",
        b"%2e",
        b"%2f",
        b"%5c",
        b"%25",
        b"\\",
        b";",
        b"%00",
        b"a",
        b"oauth",
        b"\xe9",
    ]
)


@given(st.lists(PIECES, max_size=12).map(b"".join) | st.binary(max_size=20))
@example(b"v1/%252e%252e/oauth")
def test_a_path_that_is_let_through_is_the_same_to_every_reader(raw: bytes) -> None:
    try:
        path = api_path(raw)
    except InvalidInput:
        return
    assert unquote_to_bytes(path) == path.encode() == unquote_to_bytes(raw).removesuffix(b"/")
    segments = path.split("/")
    assert segments[0] == "v1"
    assert len(segments) > 1
    assert not {"", "."} & set(segments)
    assert ".." not in path
    assert "oauth" not in path.lower()
    assert api_path(path.encode()) == path


@given(
    st.lists(st.lists(st.sampled_from(UNRESERVED), min_size=1, max_size=6).map(bytes), min_size=1, max_size=4)
)
def test_a_path_of_unreserved_characters_goes_through_as_it_is(segments: list[bytes]) -> None:
    raw = b"/".join([b"v1", *(one for one in segments if b".." not in one and one != b".")])
    assert b"/" not in raw or api_path(raw) == raw.decode()
