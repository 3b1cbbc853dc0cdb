"""What goes to the API on the routes that are not LiteLLM's, and what comes back."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import httpx
import pytest
from starlette.types import Message

from litellm_oauth.errors import InvalidInput, NotLoggedIn, ReauthRequired, StorageUnavailable
from litellm_oauth.gateway.errors import BodyTooLarge, UploadInterrupted
from litellm_oauth.gateway.forward import Forwarder, Outgoing, Upstream, relay
from litellm_oauth.gateway.runtime import Runtime
from litellm_oauth.http_client import http_client
from litellm_oauth.service import TokenService
from litellm_oauth.settings import parse_settings
from litellm_oauth.tokens import AccessToken
from support.forwarding import forwarding

CONTENT = b'{"model": "m"}'
BASE = "https://api.example/base"
EVENTS = {"content-type": "text/event-stream"}
STOP = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Tokens:
    """A user's tokens, one a generation.

    ``dead``: what is raised where one was rejected; ``none``: what is raised always.
    """

    def __init__(
        self, prefix: str = "sk-ant-oat01-", dead: Exception | None = None, none: Exception | None = None
    ) -> None:
        self._none = none
        self.generation = 1
        self.rejected: list[int] = []
        self._prefix = prefix
        self._dead = dead

    async def access_token(self, user: str) -> AccessToken:
        if self._none is not None:
            raise self._none
        return AccessToken(f"{self._prefix}{user}-{self.generation}", self.generation, 1e12)

    async def replace_rejected(self, user: str, generation: int) -> AccessToken:
        self.rejected.append(generation)
        if self._dead is not None:
            raise self._dead
        self.generation += 1
        return await self.access_token(user)


class Api(httpx.AsyncBaseTransport):
    """The API behind the gateway: keeps what it got, and answers 200, or as it is told."""

    def __init__(self) -> None:
        self.got: list[httpx.Request] = []
        self.answers: list[httpx.Response | Exception] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.got.append(request)
        answer = self.answers.pop(0) if self.answers else httpx.Response(200, json={"input_tokens": 7})
        if isinstance(answer, Exception):
            raise answer
        if not answer.is_stream_consumed:
            return answer
        # As it comes from a network: not read yet.
        stream = httpx.ByteStream(answer.content)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=stream)


class Stream(httpx.AsyncByteStream):
    """A body that comes in these pieces, and counts how often it is closed."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = pieces
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
def api() -> Api:
    return Api()


def runtime(tokens: Tokens) -> Runtime:
    settings = parse_settings(
        {
            "sandbox": True,
            "enabled": False,
            "public_url": "http://gateway",
            "fallback_to_api_key": {"moving": "os.environ/PLAIN"},
        },
        {},
    )
    return Runtime(settings, cast(TokenService, tokens), {"PLAIN": "obviously-fake-api-key"})


def gateway(api: Api, tokens: Tokens, upstream: Upstream) -> httpx.AsyncClient:
    """A client of a gateway that sends everything on for alice."""
    forwarder = Forwarder(runtime(tokens), http_client(transport=api))
    app = forwarding(forwarder, upstream, lambda _: "alice", "http://gateway")
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


async def test_a_request_goes_out_with_the_caller_s_token_and_nothing_of_the_client_s_credentials(
    api: Api,
) -> None:
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        answer = await client.post(
            "/v1/messages?beta=true",
            content=b'{"model": "m",  "x": 1}',
            headers={
                "Authorization": "Bearer sk-of-the-gateway",
                "x-api-key": "sk-of-the-gateway",
                "x-litellm-oauth-user": "alice",
                "Cookie": "session=1",
                "Content-Type": "application/json",
                "anthropic-beta": "tools-1, tools-2",
                "anthropic-version": "2024-01-01",
            },
        )
    assert (answer.status_code, answer.json()) == (200, {"input_tokens": 7})
    (sent,) = api.got
    assert str(sent.url) == f"{BASE}/v1/messages?beta=true"
    assert sent.content == b'{"model": "m",  "x": 1}'
    assert {name: value for name, value in sent.headers.items() if name not in ("user-agent", "accept")} == {
        "host": "api.example",
        "connection": "keep-alive",
        "content-length": "23",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "authorization": "Bearer sk-ant-oat01-alice-1",
        "anthropic-beta": "tools-1,tools-2,oauth-2025-04-20",
        "anthropic-version": "2024-01-01",
    }


async def test_a_token_that_is_not_claude_s_goes_as_a_bearer_without_claude_s_beta(api: Api) -> None:
    async with gateway(api, Tokens(prefix="of-a-company-"), Upstream(BASE)) as client:
        await client.get("/v1/models")
    (sent,) = api.got
    assert sent.headers["authorization"] == "Bearer of-a-company-alice-1"
    assert "x-api-key" not in sent.headers
    assert "anthropic-beta" not in sent.headers
    assert sent.headers["anthropic-version"] == "2023-06-01"


async def test_after_a_401_the_token_is_replaced_and_the_request_sent_once_more(api: Api) -> None:
    tokens = Tokens()
    api.answers = [httpx.Response(401)]
    async with gateway(api, tokens, Upstream(BASE)) as client:
        answer = await client.post("/v1/messages", content=CONTENT)
    assert answer.status_code == 200
    assert tokens.rejected == [1]
    assert [sent.headers["authorization"][-1] for sent in api.got] == ["1", "2"]
    assert [sent.content for sent in api.got] == [CONTENT, CONTENT]


async def test_an_api_that_refuses_the_next_token_too_is_not_asked_a_third_time(api: Api) -> None:
    """And the service is told, so that it spends no further refresh token on it."""
    tokens = Tokens()
    api.answers = [httpx.Response(401), httpx.Response(401)]
    async with gateway(api, tokens, Upstream(BASE)) as client:
        answer = await client.post("/v1/messages", content=CONTENT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "token_refused")
    assert "GET http://gateway/auth/claude/oauth/start?user_id=alice&force=true" in answer.text
    assert len(api.got) == 2
    assert tokens.rejected == [1, 2]


async def test_who_has_no_usable_login_is_told_how_to_get_one(api: Api) -> None:
    api.answers = [httpx.Response(401)]
    tokens = Tokens(dead=ReauthRequired("Log in again."))
    async with gateway(api, tokens, Upstream(BASE)) as client:
        answer = await client.post("/v1/messages", content=CONTENT)
    assert answer.status_code == 401
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["code"] == "reauth_required"
    assert "http://gateway/auth/claude/oauth/start?user_id=alice" in answer.json()["error"]["message"]


async def test_who_never_logged_in_goes_with_the_fallback_key_and_its_401_is_final(api: Api) -> None:
    api.answers = [httpx.Response(200, json={}), httpx.Response(401, json={})]
    tokens = Tokens(none=NotLoggedIn("no login"))
    upstream = Upstream(BASE, fallback="moving")
    async with gateway(api, tokens, upstream) as client:
        answers = [(await client.post("/v1/messages", content=CONTENT)).status_code for _ in range(2)]
    assert answers == [200, 401]
    assert tokens.rejected == []
    assert len(api.got) == 2
    for sent in api.got:
        assert sent.headers["x-api-key"] == "obviously-fake-api-key"
        assert "authorization" not in sent.headers
        assert "anthropic-beta" not in sent.headers


@pytest.mark.parametrize(
    ("trouble", "status"), [(ReauthRequired("dead"), 401), (StorageUnavailable("down"), 503)]
)
async def test_a_dead_login_or_a_fault_never_falls_back(api: Api, trouble: Exception, status: int) -> None:
    upstream = Upstream(BASE, fallback="moving")
    async with gateway(api, Tokens(none=trouble), upstream) as client:
        assert (await client.post("/v1/messages", content=CONTENT)).status_code == status
    assert api.got == []


async def test_an_error_of_ours_keeps_its_status_and_its_wait(api: Api) -> None:
    api.answers = [httpx.Response(401)]
    tokens = Tokens(dead=StorageUnavailable("Later.", retry_after=7))
    async with gateway(api, tokens, Upstream(BASE)) as client:
        answer = await client.post("/v1/messages", content=CONTENT)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 529])
async def test_the_api_s_own_errors_come_through_as_they_are(api: Api, status: int) -> None:
    api.answers = [
        httpx.Response(
            status,
            content=b'{"type":  "error"}',
            headers={"retry-after": "3", "request-id": "r", "set-cookie": "a=b", "anthropic-x": "y"},
        )
    ]
    tokens = Tokens()
    async with gateway(api, tokens, Upstream(BASE)) as client:
        answer = await client.post("/v1/messages", content=CONTENT)
    assert (answer.status_code, answer.content) == (status, b'{"type":  "error"}')
    assert (answer.headers["retry-after"], answer.headers["request-id"]) == ("3", "r")
    assert answer.headers["anthropic-x"] == "y"
    assert "set-cookie" not in answer.headers
    assert tokens.rejected == []


@pytest.mark.parametrize(
    "path", ["v1/%2e%2e/admin", "v1/%2E%2e%2fadmin", "v1/%2e/x", "v1/..%5cadmin", "v1/%5cadmin"]
)
async def test_no_path_leads_out_of_the_api(api: Api, path: str) -> None:
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        url = client.base_url.copy_with(raw_path=f"/{path}".encode())
        answer = await client.post(url)
    assert answer.status_code == 400, answer.text
    assert api.got == []


@pytest.mark.parametrize(
    "path",
    [
        "@evil.example/v1/x",
        "//evil.example/v1/x",
        "%2f%2fevil.example/v1",
        ":1/v1/x",
        "control/logins",
        "",
        "v1",
        "V1/messages",
        "v1%2fmessages",
    ],
)
async def test_no_path_leads_to_another_host_or_past_the_api(api: Api, path: str) -> None:
    async with gateway(api, Tokens(), Upstream("https://api.example")) as client:
        answer = await client.post(client.base_url.copy_with(raw_path=f"/{path}".encode()))
    assert answer.status_code == 400, answer.text
    assert api.got == []


async def test_a_path_goes_out_as_it_was_read(api: Api) -> None:
    async with gateway(api, Tokens(), Upstream("https://api.example")) as client:
        await client.post(client.base_url.copy_with(raw_path=b"/%761/%6dessages"), content=CONTENT)
    assert api.got[0].url.raw_path == b"/v1/messages"


@pytest.mark.parametrize("name", ["key", "api_key", "api-key", "access_token", "KEY", "%20key", "%61pi_key"])
async def test_a_gateway_key_in_the_query_stays_here(api: Api, name: str) -> None:
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        await client.get(f"/v1/models?limit=2&{name}=sk-of-the-gateway&after=x")
    assert str(api.got[0].url) == f"{BASE}/v1/models?limit=2&after=x"


@pytest.mark.parametrize("path", ["v1/oauth/token", "v1//OAuth/token", "v1/%6fauth/token"])
async def test_no_token_opens_the_token_endpoint(api: Api, path: str) -> None:
    """What it refuses is not about the token that came along, and must cost nobody a refresh."""
    tokens = Tokens()
    async with gateway(api, tokens, Upstream(BASE)) as client:
        assert (await client.post(f"http://gateway/{path}", content=CONTENT)).status_code == 400
    assert (api.got, tokens.rejected) == ([], [])


async def test_no_redirect_carries_a_credential_to_another_host(api: Api) -> None:
    away = {"location": "https://elsewhere.example/"}
    api.answers = [httpx.Response(307, headers=away), httpx.Response(307, headers=away)]
    none = Tokens(none=NotLoggedIn("no login"))
    for tokens, upstream in ((Tokens(), Upstream(BASE)), (none, Upstream(BASE, fallback="moving"))):
        async with gateway(api, tokens, upstream) as client:
            answer = await client.post("/v1/messages", content=CONTENT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "redirected")
        assert "location" not in answer.headers
        assert "elsewhere" not in answer.text
    assert {sent.url.host for sent in api.got} == {"api.example"}


async def test_the_connection_of_a_401_is_given_back(api: Api) -> None:
    streams = Stream(b"{}"), Stream(b"{}")
    api.answers = [httpx.Response(401, stream=stream) for stream in streams]
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        await client.post("/v1/messages", content=CONTENT)
    assert [stream.closed for stream in streams] == [1, 1]


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_an_answer_that_breaks_off_is_no_whole_one(api: Api, kind: str) -> None:
    stream = Stream(b'{"half": ', httpx.ReadError("broken off"))
    headers = {"content-type": kind, "content-length": "100"}
    api.answers = [httpx.Response(200, headers=headers, stream=stream)]
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        if kind == "application/json":
            with pytest.raises(httpx.ReadError):
                await client.post("/v1/messages", content=CONTENT)
        else:
            answer = await client.post("/v1/messages", content=CONTENT)
            assert "event: error" in answer.text
            assert "content-length" not in answer.headers


async def test_headers_beyond_ascii_go_as_they_came(api: Api) -> None:
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        headers = [(b"user-agent", "café".encode("latin-1"))]
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
    assert dict(api.got[0].headers.raw)[b"user-agent"] == "café".encode("latin-1")


@pytest.mark.parametrize("gone", [OSError("gone"), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize("sends", [0, 1])
async def test_the_api_s_connection_is_given_back_if_the_client_has_gone(
    api: Api, gone: BaseException, sends: int
) -> None:
    """However a server tells it: before the first byte of the answer, or after it."""
    stream = Stream(b"piece", b"piece")
    api.answers = [httpx.Response(200, stream=stream)]
    forwarder = Forwarder(runtime(Tokens()), http_client(transport=api))
    sent: list[Message] = []

    async def send(message: Message) -> None:
        if len(sent) == sends:
            raise gone
        sent.append(message)

    answer = await forwarder.send(Outgoing("GET", "v1/models", "", {}), Upstream(BASE), "a")
    with pytest.raises(type(gone)):
        await relay(answer, send, message=False)
    assert stream.closed == 1


async def test_a_host_that_does_not_answer_is_a_503_with_a_sentence(api: Api) -> None:
    api.answers = [httpx.ConnectError("no")]
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        answer = await client.post("/v1/messages", content=CONTENT)
    assert answer.status_code == 503
    assert answer.json()["error"]["message"].startswith(
        "The API at api.example did not answer (ConnectError)"
    )


async def test_a_stream_comes_piece_by_piece_and_says_where_it_breaks_off(api: Api) -> None:
    stream = Stream(b"event: one\ndata: {}\n\n", httpx.ReadError("gone"))
    api.answers = [httpx.Response(200, headers=EVENTS, stream=stream)]
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        answer = await client.post("/v1/messages", content=CONTENT)
    first, _, last = answer.text.partition("\n\n")
    assert first == "event: one\ndata: {}"
    assert last.strip().startswith("event: error\ndata: {")
    assert json.loads(last.partition("data: ")[2])["error"]["type"] == "api_error"


@pytest.mark.parametrize("ended", [True, False])
async def test_a_stream_that_ends_politely_too_early_says_so(api: Api, ended: bool) -> None:
    pieces = [b"event: message_start\ndata: {}\n\n", *([STOP] if ended else [])]
    api.answers = [httpx.Response(200, headers=EVENTS, stream=Stream(*pieces))]
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        answer = await client.post("/v1/messages", content=CONTENT)
    assert answer.content.startswith(b"".join(pieces))
    assert ("event: error" in answer.text) is not ended


async def test_what_is_added_to_a_stream_never_completes_an_event_that_broke_off(api: Api) -> None:
    half = b'event: content_block_delta\ndata: {"text": "half'
    api.answers = [httpx.Response(200, headers=EVENTS, stream=Stream(half, httpx.ReadError("gone")))]
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        answer = await client.post("/v1/messages", content=CONTENT)
    assert answer.text.startswith("event: error\n")
    assert "half" not in answer.text


async def test_a_stream_of_another_route_ends_as_it_likes(api: Api) -> None:
    api.answers = [httpx.Response(200, headers=EVENTS, stream=Stream(b"data: 1\n\n"))]
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        assert (await client.get("/v1/sessions/x/events")).content == b"data: 1\n\n"


async def test_an_error_in_the_form_of_a_stream_ends_as_it_likes(api: Api) -> None:
    api.answers = [httpx.Response(529, headers=EVENTS, stream=Stream(b"data: busy\n\n"))]
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        answer = await client.post("/v1/messages", content=CONTENT)
    assert (answer.status_code, answer.content) == (529, b"data: busy\n\n")


async def test_a_packed_answer_is_handed_on_as_it_is(api: Api) -> None:
    """Nobody asked for one, and nothing can be added to it."""
    packed = gzip.compress(b"data: 1\n\n")
    headers = {**EVENTS, "content-encoding": "gzip", "content-length": str(len(packed))}
    api.answers = [httpx.Response(200, headers=headers, stream=Stream(packed))]
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        answer = await client.post("/v1/messages", content=CONTENT)
    assert answer.headers["content-length"] == str(len(packed))
    assert answer.content == b"data: 1\n\n"


async def test_who_wants_the_headers_alone_gets_no_body_and_the_connection_is_given_back(api: Api) -> None:
    stream = Stream(b"1234567")
    api.answers = [httpx.Response(200, headers={"content-length": "7"}, stream=stream)]
    forwarder = Forwarder(runtime(Tokens()), http_client(transport=api))
    answer = await forwarder.send(Outgoing("GET", "v1/models", "", {}), Upstream(BASE), "a")
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await relay(answer, send, message=False, body=False)
    start, end = sent
    assert (b"content-length", b"7") in start["headers"]
    assert (end["body"], end["more_body"]) == (b"", False)
    assert stream.closed == 1


async def test_the_operator_s_credentials_go_alone_and_their_401_is_final(api: Api) -> None:
    api.answers = [httpx.Response(401, json={})]
    tokens = Tokens()
    upstream = Upstream(BASE, {"x-api-key": "obviously-fake-api-key"}, fallback="moving")
    async with gateway(api, tokens, upstream) as client:
        headers = {"authorization": "Bearer sk-of-the-gateway", "x-api-key": "sk-of-the-gateway"}
        answer = await client.post("/v1/messages", content=CONTENT, headers=headers)
    assert answer.status_code == 401
    (sent,) = api.got
    assert sent.headers["x-api-key"] == "obviously-fake-api-key"
    assert "authorization" not in sent.headers
    assert tokens.rejected == []


async def upload(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_an_upload_goes_out_as_it_comes(api: Api) -> None:
    outgoing = Outgoing("POST", "v1/files", "", {"content-type": "multipart/form-data"}, upload(b"a", b"b"))
    forwarder = Forwarder(runtime(Tokens()), http_client(transport=api))
    assert (await forwarder.send(outgoing, Upstream(BASE), "alice")).status_code == 200
    (sent,) = api.got
    assert sent.content == b"ab"
    assert sent.headers["transfer-encoding"] == "chunked"


async def test_an_upload_whose_token_is_refused_is_asked_for_again_with_the_next_token(api: Api) -> None:
    tokens = Tokens()
    stream = Stream(b"{}")
    api.answers = [httpx.Response(401, stream=stream)]
    outgoing = Outgoing("POST", "v1/files", "", {}, upload(b"a"))
    forwarder = Forwarder(runtime(tokens), http_client(transport=api))
    with pytest.raises(UploadInterrupted):
        await forwarder.send(outgoing, Upstream(BASE), "alice")
    assert (tokens.rejected, len(api.got), stream.closed) == ([1], 1, 1)


async def test_an_upload_that_breaks_a_rule_on_its_way_is_told_as_that(api: Api) -> None:
    async def too_large() -> AsyncIterator[bytes]:
        yield b"a"
        raise BodyTooLarge(1)

    outgoing = Outgoing("POST", "v1/files", "", {}, too_large())
    forwarder = Forwarder(runtime(Tokens()), http_client(transport=api))
    with pytest.raises(BodyTooLarge):
        await forwarder.send(outgoing, Upstream(BASE), "alice")


@pytest.mark.parametrize(
    "outgoing",
    [("v1/" + "a" * 70_000, ""), ("v1/x", "a=" + "b" * 70_000), ("v1/x", "a=\n")],
    ids=["path", "query", "line end"],
)
async def test_what_no_url_can_hold_is_refused(api: Api, outgoing: tuple[str, str]) -> None:
    forwarder = Forwarder(runtime(Tokens()), http_client(transport=api))
    with pytest.raises(InvalidInput):
        await forwarder.send(Outgoing("GET", *outgoing, {}), Upstream(BASE), "alice")
    assert api.got == []


async def test_what_travels_of_the_api_s_headers(api: Api) -> None:
    headers = [
        ("Request-Id", "r"),
        ("X-Should-Retry", "false"),
        ("anthropic-ratelimit-requests-remaining", "9"),
        ("x-ratelimit-a", "1"),
        ("Set-Cookie", "a=b"),
        ("Set-Cookie", "c=d"),
        ("Location", "https://elsewhere.example"),
        ("Server", "s"),
        ("Connection", "close"),
        ("Content-Disposition", "attachment; filename=caf\u00e9"),
    ]
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    api.answers = [httpx.Response(201, headers=encoded, stream=Stream(b"{}"))]
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        answer = await client.get("/v1/files/x/content")
    stay = ("Set-Cookie", "Location", "Server", "Connection")
    assert dict(answer.headers.raw) == {
        name.lower().encode(): value.encode("latin-1") for name, value in headers if name not in stay
    }
