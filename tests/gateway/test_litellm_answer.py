"""LiteLLM's answer reaches the client with what the API said of it, under the API's own names."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from starlette.types import Message

from litellm_oauth.gateway.answers import ErrorAnswer
from litellm_oauth.gateway.exchange import Exchange
from litellm_oauth.gateway.litellm_answer import LitellmAnswer, respond, respond_with

CHAT, MESSAGES, OTHER = "/v1/chat/completions", "/v1/messages", "/v1/files"
BASE = "https://api.example"


class Sent(list[Message]):
    """What reached the client."""

    async def __call__(self, message: Message) -> None:
        self.append(message)

    @property
    def status(self) -> int:
        status: int = self[0]["status"]
        return status

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self[0]["headers"]]

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self[1:])

    @property
    def code(self) -> str:
        code: str = json.loads(self.body)["error"]["code"]
        return code


async def answered(
    path: str,
    exchange: Exchange,
    status: int,
    headers: list[tuple[str, str]] | None = None,
    *pieces: bytes,
    body: bool = True,
) -> Sent:
    """What reaches the client of LiteLLM's answer."""
    sent = Sent()
    answer = LitellmAnswer(path, exchange, sent, body=body)
    assert not answer.has_started()
    lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers or []]
    await answer.send({"type": "http.response.start", "status": status, "headers": lines})
    assert answer.has_started()
    for place, piece in enumerate(pieces or (b"litellm's",)):
        more = place + 1 < len(pieces)
        await answer.send({"type": "http.response.body", "body": piece, "more_body": more})
    return sent


def exchange_with(status: int | None = None, headers: dict[str, str] | None = None, **more: Any) -> Exchange:
    exchange = Exchange(**more)
    exchange.begin(BASE)
    exchange.asked = status is not None
    if status is not None:
        exchange.note(status, (headers or {}).items())
    return exchange


async def test_an_answer_is_handed_on_as_it_is() -> None:
    headers = [("content-type", "application/json"), ("x-litellm-model-id", "m")]
    sent = await answered(CHAT, exchange_with(200), 200, headers, b"a", b"b")
    assert (sent.status, sent.headers, sent.body) == (200, headers, b"ab")
    assert [message.get("more_body") for message in sent] == [None, True, False]


async def test_the_api_s_headers_come_under_their_own_names() -> None:
    sent = await answered(
        CHAT,
        exchange_with(200),
        200,
        [
            ("llm_provider-request-id", "r"),
            ("LLM_Provider-anthropic-ratelimit-tokens-limit", "9"),
            ("llm_provider-retry-after", "3"),
            ("llm_provider-server", "s"),
            ("content-type", "text/plain"),
        ],
    )
    names = dict(sent.headers)
    assert names["request-id"] == "r"
    assert names["anthropic-ratelimit-tokens-limit"] == "9"
    assert names["retry-after"] == "3"
    assert "server" not in names
    assert names["content-type"] == "text/plain"


async def test_what_the_api_said_last_is_told_if_litellm_leaves_it_out() -> None:
    said = {"Retry-After": "7", "x-should-retry": "false", "Set-Cookie": "a=b", "content-type": "x"}
    sent = await answered(CHAT, exchange_with(429, said), 429)
    assert sent.headers == [("retry-after", "7"), ("x-should-retry", "false")]


async def test_what_litellm_says_itself_is_not_said_twice() -> None:
    headers = [("Retry-After", "1"), ("llm_provider-retry-after", "2")]
    sent = await answered(CHAT, exchange_with(429, {"retry-after": "3"}), 429, headers)
    assert [value for name, value in sent.headers if name.lower() == "retry-after"] == ["1"]


@pytest.mark.parametrize("path", [CHAT, MESSAGES, OTHER])
async def test_a_cookie_of_the_api_s_never_travels(path: str) -> None:
    headers = [("llm_provider-set-cookie", "a=b"), ("LLM_PROVIDER-Set-Cookie", "c=d")]
    sent = await answered(path, exchange_with(200, {"set-cookie": "e=f"}), 200, headers)
    assert sent.headers == []


async def test_a_cookie_of_litellm_s_own_travels_but_on_requests_for_a_model() -> None:
    headers = [("Set-Cookie", "token=x")]
    assert (await answered("/v2/login", Exchange(), 200, headers)).headers == headers
    assert (await answered(CHAT, exchange_with(200), 200, headers)).headers == []


@pytest.mark.parametrize(
    ("path", "litellm", "api", "told"),
    [
        (CHAT, 200, 200, 200),
        # Of the first attempt; the second one went well.
        (CHAT, 200, 500, 200),
        (CHAT, 500, 404, 404),
        (CHAT, 500, 413, 413),
        (CHAT, 400, 422, 422),
        (CHAT, 503, 529, 503),
        (MESSAGES, 503, 529, 529),
        (MESSAGES, 500, 529, 529),
        (CHAT, 500, 500, 500),
        # LiteLLM refuses what the API has answered well.
        (CHAT, 400, 200, 400),
        (CHAT, 500, 200, 500),
        (OTHER, 500, 404, 500),
    ],
)
async def test_an_error_has_the_status_that_the_api_gave_it(
    path: str, litellm: int, api: int, told: int
) -> None:
    sent = await answered(path, exchange_with(api), litellm)
    assert (sent.status, sent.body) == (told, b"litellm's")


@pytest.mark.parametrize(
    ("path", "anthropic"), [(CHAT, False), (MESSAGES, True), ("/anthropic/v1/messages", True)]
)
async def test_a_refusal_takes_the_place_of_litellm_s_error(path: str, anthropic: bool) -> None:
    exchange = exchange_with(307)
    exchange.refusal = ErrorAnswer(502, "Not followed.", "redirected", {"Retry-After": "3"})
    sent = await answered(path, exchange, 500, [("x-litellm-x", "1")], b"litellm's", b" own", b" words")
    assert (sent.status, sent.code) == (502, "redirected")
    assert ("type" in json.loads(sent.body)) is anthropic
    assert ("retry-after", "3") in sent.headers
    assert "x-litellm-x" not in dict(sent.headers)
    assert len(sent) == 2


async def test_a_refusal_of_an_attempt_does_not_spoil_an_answer_that_went_well() -> None:
    exchange = exchange_with(200)
    exchange.refusal = ErrorAnswer(502, "Not followed.", "redirected")
    sent = await answered(CHAT, exchange, 200)
    assert (sent.status, sent.body) == (200, b"litellm's")


async def test_what_litellm_cannot_translate_is_the_client_s_fault() -> None:
    sent = await answered(CHAT, exchange_with(), 500)
    assert (sent.status, sent.code) == (400, "invalid_body")


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_refusal_before_the_api_was_asked_keeps_its_status(status: int) -> None:
    """As while the database is away: the client has to come again."""
    sent = await answered(CHAT, exchange_with(), status, [("retry-after", "5")])
    assert (sent.status, sent.headers, sent.body) == (status, [("retry-after", "5")], b"litellm's")


PACKED = gzip.compress(b"some words that are no more than that")
TRACE = (
    b'{"error": {"message": "Traceback (most recent call last):\\n'
    b'  File \\"/app/lib/python3.13/site-packages/litellm/main.py\\", line 1, in x"}}'
)


@pytest.mark.parametrize(
    ("litellm", "api", "told", "code"),
    [(400, None, 400, "invalid_body"), (503, None, 400, "invalid_body"), (500, 200, 502, "unusable_answer")],
)
@pytest.mark.parametrize("packed", [True, False])
async def test_litellm_s_traceback_is_not_shown(
    litellm: int, api: int | None, told: int, code: str, packed: bool
) -> None:
    content = gzip.compress(TRACE) if packed else TRACE
    sent = await answered(CHAT, exchange_with(api), litellm, [], content[:30], content[30:])
    assert (sent.status, sent.code) == (told, code)
    assert b"Traceback" not in sent.body


async def test_a_traceback_that_a_client_has_sent_may_be_quoted_to_it() -> None:
    said = b'{"error": {"message": "unexpected: Traceback (most recent call last): File my.py, line 1"}}'
    sent = await answered(CHAT, exchange_with(400), 400, [], said)
    assert (sent.status, sent.body) == (400, said)


@pytest.mark.parametrize(
    "content",
    [b"\x1f\x8bnot packed", b"\x1f\x8b", PACKED[:12] + b"\xff" * 9, PACKED[:-9], b""],
    ids=["no head", "half a head", "spoilt", "cut off", "empty"],
)
async def test_an_error_that_cannot_be_looked_into_is_handed_on(content: bytes) -> None:
    sent = await answered(CHAT, exchange_with(400), 400, [], content)
    assert (sent.status, sent.body) == (400, content)


async def test_an_error_in_pieces_is_handed_on_whole() -> None:
    sent = await answered(CHAT, exchange_with(400), 400, [("content-length", "4")], b"ab", b"cd")
    assert (sent.status, sent.headers, sent.body) == (400, [("content-length", "4")], b"abcd")


async def test_a_failure_of_another_route_stays_one() -> None:
    assert (await answered(OTHER, exchange_with(), 500)).status == 500


async def test_a_failure_after_the_api_was_asked_stays_one() -> None:
    exchange = exchange_with()
    exchange.asked = True
    assert (await answered(CHAT, exchange, 500)).status == 500


async def test_who_wants_the_headers_alone_gets_no_body() -> None:
    headers = [("content-length", "4")]
    sent = await answered(OTHER, Exchange(), 200, headers, b"ab", b"cd", body=False)
    assert (sent.headers, sent.body) == (headers, b"")
    refused = Exchange(refusal=ErrorAnswer(403, "No.", "forbidden"))
    sent = await answered(OTHER, refused, 500, body=False)
    assert (sent.status, sent.body) == (403, b"")


async def test_what_is_no_part_of_an_answer_goes_through() -> None:
    sent = Sent()
    message = {"type": "http.response.trailers", "headers": []}
    await LitellmAnswer(CHAT, Exchange(), sent, body=False).send(message)
    assert sent == [message]


async def test_an_answer_of_the_gateway_s_own_is_complete() -> None:
    sent = Sent()
    await respond(sent, ErrorAnswer(413, "Too large.", "x", {"Retry-After": "1"}), anthropic=True, close=True)
    headers = dict(sent.headers)
    assert headers == {
        "retry-after": "1",
        "connection": "close",
        "content-type": "application/json",
        "content-length": str(len(sent.body)),
    }
    assert sent[-1]["more_body"] is False


async def test_an_answer_without_content_says_so() -> None:
    empty, options, head = Sent(), Sent(), Sent()
    await respond_with(empty, 200, b"")
    await respond_with(options, 204, b"", {"Allow": "GET"})
    await respond_with(head, 200, b"{}", body=False)
    assert empty.headers == [("content-length", "0")]
    # RFC 9110 §8.6: a 204 has no Content-Length.
    assert options.headers == [("allow", "GET")]
    assert (dict(head.headers)["content-length"], head.body) == ("2", b"")
