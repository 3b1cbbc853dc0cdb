"""A token answer is read however it is packed, and nothing in it takes more memory than an answer may."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_oauth.answer_body import MAX_ANSWER_BYTES, members
from litellm_oauth.errors import InvalidGrant
from support.token_endpoint import GOOD, SECRET, Handler, answering, provider, sending, unavailable


def packed(*forms: str, content: bytes = b"") -> bytes:
    """The content, packed in these forms, one after the other."""
    for form in forms:
        raw = zlib.compressobj(wbits=-15)
        content = {
            "gzip": gzip.compress(content),
            "deflate": zlib.compress(content),
            "raw": raw.compress(content) + raw.flush(),
        }[form]
    return content


NAMED = {**GOOD, "account": {"email_address": "Zoë@example.com"}}
TEXT = json.dumps(NAMED, ensure_ascii=False)


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"content-encoding": "gzip"}, packed("gzip", content=TEXT.encode())),
        ({"content-encoding": "X-GZIP"}, packed("gzip", content=TEXT.encode())),
        ({"content-encoding": "deflate"}, packed("deflate", content=TEXT.encode())),
        ({"content-encoding": "deflate"}, packed("raw", content=TEXT.encode())),
        ({"content-encoding": "deflate, gzip"}, packed("deflate", "gzip", content=TEXT.encode())),
        ({"content-encoding": "identity, gzip"}, packed("gzip", content=TEXT.encode())),
        ({}, packed("gzip", content=TEXT.encode())),
        ({}, packed("deflate", content=TEXT.encode())),
        ({"content-encoding": "identity"}, packed("gzip", content=TEXT.encode())),
        ({"content-encoding": "gzip"}, packed("gzip", "gzip", content=TEXT.encode())),
        ({"content-encoding": "br"}, packed("gzip", content=TEXT.encode())),
        ({"content-encoding": "gzip"}, packed("deflate", content=TEXT.encode())),
        ({"content-encoding": "gzip"}, TEXT.encode()),
        ({"content-encoding": "deflate"}, TEXT.encode()),
        ({"content-encoding": "of-tomorrow"}, TEXT.encode()),
        # Two parts, a wrong sum, and a sum that is missing.
        (
            {"content-encoding": "gzip"},
            packed("gzip", content=TEXT.encode()[:40]) + packed("gzip", content=TEXT.encode()[40:]),
        ),
        ({"content-encoding": "gzip"}, packed("gzip", content=TEXT.encode())[:-8] + b"12345678"),
        ({"content-encoding": "gzip"}, packed("gzip", content=TEXT.encode())[:-8]),
        ({"content-type": "application/json; charset=ISO-8859-1"}, TEXT.encode("latin-1")),
        ({"content-type": "application/json"}, TEXT.encode("latin-1")),
        ({"content-type": "application/json; charset=utf-8"}, TEXT.encode("latin-1")),
        ({"content-type": "application/json; charset=ISO-8859-1"}, TEXT.encode()),
        ({"content-type": 'application/json; charset="windows-1252"'}, TEXT.encode("cp1252")),
        ({"content-type": "application/json;charset=of-tomorrow"}, TEXT.encode()),
        ({"content-type": "application/json;charset=hex"}, TEXT.encode("latin-1")),
        ({"content-type": "application/json; charset=cp037"}, TEXT.encode("cp037")),
        ({}, TEXT.encode("utf-8-sig")),
        ({}, TEXT.encode("utf-16")),
        ({"content-type": "application/json; charset=utf-16le"}, TEXT.encode("utf-16-le")),
        ({}, TEXT.encode("utf-32")),
        (
            {"content-encoding": "gzip", "content-type": "application/json; charset=ISO-8859-1"},
            packed("gzip", content=TEXT.encode("latin-1")),
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
async def test_an_answer_is_read_however_it_is_packed(headers: dict[str, str], content: bytes) -> None:
    grant = await provider(sending(200, content, headers)).refresh(SECRET)
    assert (grant.refresh_token, grant.expires_in) == ("ort-2", 28_800)
    assert grant.account == {"account": {"email_address": "Zoë@example.com"}}


@pytest.mark.parametrize("form", ["gzip", "deflate"])
@pytest.mark.parametrize("named", [True, False])
async def test_an_error_is_read_however_it_is_packed(form: str, named: bool) -> None:
    headers = {"content-encoding": form} if named else {}
    content = packed(form, content=json.dumps({"error": "invalid_grant"}).encode())
    with pytest.raises(InvalidGrant):
        await provider(sending(400, content, headers)).refresh(SECRET)


@pytest.mark.parametrize("form", ["gzip", "deflate", "raw"])
@pytest.mark.parametrize("times", [1, 2])
async def test_what_unpacks_to_too_much_is_not_kept(form: str, times: int) -> None:
    bomb = packed(*[form] * times, content=b" " * 20_000_000)
    name = {"raw": "deflate"}.get(form, form)
    tracemalloc.start()
    error = await unavailable(sending(200, bomb[:MAX_ANSWER_BYTES], {"content-encoding": name}))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.reason == "garbage"
    assert most < 10 * MAX_ANSWER_BYTES


@given(st.binary(max_size=300), st.sampled_from(["", "gzip", "deflate", "gzip,gzip,gzip,deflate,gzip"]))
def test_no_bytes_are_more_than_an_answer_that_says_nothing(content: bytes, coding: str) -> None:
    for start in (b"", b"\x1f\x8b\x08\x00", b"x\x9c", b"{"):
        assert isinstance(members(start + content, coding, "text/plain; charset=utf-16"), dict | None)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain; charset=utf-8", ""])
async def test_a_form_is_read_as_well(kind: str) -> None:
    form = b"access_token=oat-1&expires_in=28800&refresh_token=ort%2D2&scope=a+b&token_type=bearer"
    grant = await provider(answering(200, form, {"content-type": kind})).refresh(SECRET)
    assert (grant.access_token, grant.refresh_token, grant.scopes) == ("oat-1", "ort-2", ("a", "b"))
    error = b"error=bad_refresh_token&error_description=x"
    with pytest.raises(InvalidGrant):
        await provider(answering(200, error, {"content-type": kind})).refresh(SECRET)


def cut(content: bytes) -> Handler:
    async def pieces() -> AsyncIterator[bytes]:
        yield content
        raise httpx.RemoteProtocolError("cut")

    return lambda request: httpx.Response(200, content=pieces())


async def test_an_answer_that_is_whole_before_it_breaks_off_is_read() -> None:
    assert (await provider(cut(json.dumps(GOOD).encode())).refresh(SECRET)).refresh_token == "ort-2"


@pytest.mark.parametrize(
    "content", [json.dumps(GOOD).encode()[:-1], b"access_token=oat-1&refresh_token=ort", b""]
)
async def test_half_an_answer_is_lost(content: bytes) -> None:
    error = await unavailable(cut(content))
    assert (error.reason, error.maybe_spent) == ("answer_lost", True)


async def test_an_answer_whose_end_does_not_come_is_read() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield json.dumps(GOOD).encode()
        await asyncio.sleep(5)

    grant = await provider(lambda request: httpx.Response(200, content=pieces())).refresh(SECRET)
    assert grant.refresh_token == "ort-2"
