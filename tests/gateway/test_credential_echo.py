"""No error of the API's shows the credential that it is about, however it comes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_oauth.gateway.credential_echo import credentials_of, overwrite_in

KEY = "obviously-fake-operator-key"
STARS = b"*" * len(KEY)


class Pieces(httpx.AsyncByteStream, httpx.SyncByteStream):
    """A body as it may come over the line."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    async def aclose(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True


class SyncPieces(httpx.SyncByteStream):
    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


def request(**headers: str) -> httpx.Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Request("POST", "https://api.example/v1/messages", headers=named)


async def read(stream: httpx.AsyncByteStream, **headers: str) -> bytes:
    answer = httpx.Response(401, stream=stream)
    overwrite_in(answer, request(**headers))
    return await answer.aread()


@pytest.mark.parametrize(
    "headers",
    [
        {"x_api_key": KEY},
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY}"},
        {"api_key": KEY},
        {"x_goog_api_key": KEY},
    ],
)
async def test_the_credential_is_overwritten(headers: dict[str, str]) -> None:
    body = b'{"message": "invalid x-api-key: %b, not %b"}' % (KEY.encode(), KEY.encode())
    assert await read(Pieces(body), **headers) == body.replace(KEY.encode(), STARS)


@pytest.mark.parametrize("key", ['obviously "fake" key', "obviously/fake/key", "obviously\\\\fake key"])
@pytest.mark.parametrize("slashes", [True, False])
async def test_it_is_overwritten_as_json_has_it(key: str, slashes: bool) -> None:
    body = json.dumps({"message": f"no: {key}"})
    body = body.replace("/", "\\/") if slashes else body
    said = json.loads(await read(Pieces(body.encode()), x_api_key=key))["message"]
    assert set(said.removeprefix("no: ")) == {"*"}


def test_a_body_that_has_been_read_is_overwritten_as_well() -> None:
    answer = httpx.Response(401, content=f"no: {KEY}")
    overwrite_in(answer, request(x_api_key=KEY))
    assert answer.text == f"no: {STARS.decode()}"


def test_the_body_of_a_client_without_asyncio_is_overwritten_as_well() -> None:
    answer = httpx.Response(401, stream=SyncPieces(b"no: " + KEY[:9].encode(), KEY[9:].encode()))
    overwrite_in(answer, request(x_api_key=KEY))
    assert answer.read() == b"no: " + STARS


@given(st.data())
async def test_it_is_overwritten_wherever_the_pieces_are_cut(data: st.DataObject) -> None:
    words = st.sampled_from([KEY.encode(), KEY[:20].encode(), KEY[5:].encode(), b"no ", b"o", b"*"])
    body = b"".join(data.draw(st.lists(words, max_size=8)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert await read(Pieces(*pieces), x_api_key=KEY) == body.replace(KEY.encode(), STARS)


async def test_an_answer_is_closed_as_before() -> None:
    stream = Pieces(b"x")
    answer = httpx.Response(401, stream=stream)
    overwrite_in(answer, request(x_api_key=KEY))
    await answer.aclose()
    assert stream.closed


@pytest.mark.parametrize("headers", [{}, {"x_api_key": "short"}, {"authorization": ""}])
async def test_without_a_secret_the_answer_stays_as_it_is(headers: dict[str, str]) -> None:
    stream = Pieces(b"a short sentence")
    answer = httpx.Response(401, stream=stream)
    overwrite_in(answer, request(**headers))
    assert answer.stream is stream


def test_a_scheme_is_no_part_of_a_credential() -> None:
    assert credentials_of(request(authorization=f"Bearer {KEY}", x_api_key="other")) == {KEY, "other"}
