"""What goes to the API on the routes that are not LiteLLM's, and what comes back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from litellm_oauth.errors import InvalidInput, NotLoggedIn, ReauthRequired, StorageUnavailable
from litellm_oauth.gateway.forward import Forwarder, Upstream, _url, parse_body
from litellm_oauth.gateway.runtime import Runtime
from litellm_oauth.http_client import http_client
from litellm_oauth.service import TokenService
from litellm_oauth.settings import parse_settings
from litellm_oauth.tokens import AccessToken

CONTENT = b'{"model": "m"}'
BASE = "https://api.example/base"
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
    app = FastAPI()
    client = http_client(transport=api)
    forwarder = Forwarder(runtime(tokens), client)

    @app.api_route("/{path:path}", methods=["GET", "POST", "DELETE"])
    async def forward(request: Request, path: str) -> Response:
        body = parse_body(await request.body(), request.headers.get("content-type", ""))
        return await forwarder.send(request, request.scope["raw_path"].decode()[1:], body, upstream, "alice")

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


async def test_the_model_goes_by_the_name_that_the_api_knows(api: Api) -> None:
    async with gateway(api, Tokens(), Upstream(BASE, "its-own-name")) as client:
        await client.post("/v1/messages", json={"model": "ours", "messages": ["é"]})
    assert json.loads(api.got[0].content) == {"model": "its-own-name", "messages": ["é"]}


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


@pytest.mark.parametrize("path", ["..", "v1/../../admin", "./v1", "v1\\admin"])
def test_no_path_leads_out_of_the_api_as_it_is(path: str) -> None:
    # No client of ours would send these.
    with pytest.raises(InvalidInput):
        _url(BASE, path, "")


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
        "%761/messages",
        "V1/messages",
        "v1%2fmessages",
    ],
)
async def test_no_path_leads_to_another_host_or_past_the_api(api: Api, path: str) -> None:
    async with gateway(api, Tokens(), Upstream("https://api.example")) as client:
        answer = await client.post(client.base_url.copy_with(raw_path=f"/{path}".encode()))
    assert answer.status_code == 400, answer.text
    assert api.got == []


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
            assert (await client.post("/v1/messages", content=CONTENT)).status_code == 307
    assert {sent.url.host for sent in api.got} == {"api.example"}


async def test_the_connection_of_a_401_is_given_back(api: Api) -> None:
    closed = []

    class Stream(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"{}"

        async def aclose(self) -> None:
            closed.append(True)

    api.answers = [httpx.Response(401, stream=Stream()), httpx.Response(401, stream=Stream())]
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        await client.post("/v1/messages", content=CONTENT)
    assert len(closed) == 2


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_an_answer_that_breaks_off_is_no_whole_one(api: Api, kind: str) -> None:
    class Broken(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b'{"half": '
            raise httpx.ReadError("broken off")

    headers = {"content-type": kind, "content-length": "100"}
    api.answers = [httpx.Response(200, headers=headers, stream=Broken())]
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


@pytest.mark.parametrize("version", ["2.0", "2.3", "2.4"])
async def test_the_api_s_connection_is_given_back_where_the_client_has_gone(version: str) -> None:
    """However a server tells it: the client is gone before the first byte of the answer."""
    closed: list[bool] = []

    class Stream(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"piece"

        async def aclose(self) -> None:
            closed.append(True)

    api = Api()
    api.answers = [httpx.Response(200, stream=Stream())]
    forwarder = Forwarder(runtime(Tokens()), http_client(transport=api))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": version},
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": [],
        "server": ("gateway", 80),
        "scheme": "http",
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        raise OSError("gone")

    answer = await forwarder.send(
        Request(scope, receive), "v1/models", parse_body(b"", ""), Upstream(BASE), "a"
    )
    with suppress(BaseException):
        await answer(scope, receive, send)
    assert closed == [True]


async def test_a_host_that_does_not_answer_is_a_503_with_a_sentence(api: Api) -> None:
    api.answers = [httpx.ConnectError("no")]
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        answer = await client.post("/v1/messages", content=CONTENT)
    assert answer.status_code == 503
    assert answer.json()["error"]["message"].startswith(
        "The API at api.example did not answer (ConnectError)"
    )


async def test_a_stream_comes_piece_by_piece_and_says_where_it_breaks_off(api: Api) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"event: one\ndata: {}\n\n"
        raise httpx.ReadError("gone")

    api.answers = [httpx.Response(200, headers={"content-type": "text/event-stream"}, content=pieces())]
    async with gateway(api, Tokens(), Upstream(BASE)) as client:
        answer = await client.post("/v1/messages", content=CONTENT)
    first, _, last = answer.text.partition("\n\n")
    assert first == "event: one\ndata: {}"
    assert last.strip().startswith("event: error\ndata: {")
    assert json.loads(last.partition("data: ")[2])["error"]["type"] == "api_error"


@pytest.mark.parametrize(
    ("content", "model"),
    [(b'{"model": "m"}', "m"), (b'{"model": 1}', None), (b'{"model": ""}', None), (b"{}", None), (b"", None)],
)
def test_the_model_of_a_body(content: bytes, model: str | None) -> None:
    assert parse_body(content, "application/json").model == model


@pytest.mark.parametrize("content", [b"[]", b"{", b"[" * 100_000, '{"model": "m"}'.encode("utf-16"), b"\xff"])
def test_json_that_nobody_else_could_read_is_refused(content: bytes) -> None:
    for kind in ("application/json", "", "application/vnd.x+json"):
        with pytest.raises(InvalidInput, match="not a JSON object in UTF-8"):
            parse_body(content, kind)


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("text/plain", "m"),
        ("application/x-protobuf", "m"),
        ("APPLICATION/JSON; charset=utf-8", "m"),
        ("text/plain; a=x-www-form-urlencoded", "m"),
        ("multipart/form-data; boundary=x", None),
        ("application/x-www-form-urlencoded; a=json", None),
    ],
)
def test_the_model_is_seen_where_litellm_s_check_of_the_key_sees_it(kind: str, model: str | None) -> None:
    assert parse_body(CONTENT, kind).model == model


def test_a_body_that_is_no_text_may_be_sent_as_what_it_is() -> None:
    assert parse_body(b"\xff\x00", "application/x-protobuf").content == b"\xff\x00"


def test_a_batch_names_the_models_of_all_its_requests() -> None:
    requests = [{"params": {"model": "a"}}, {"params": {"model": "b"}}, {"params": 1}, 2]
    assert parse_body(json.dumps({"requests": requests}).encode(), "").models == {"a", "b"}
    assert parse_body(b'{"requests": {"params": {"model": "a"}}, "model": "m"}', "").models == {"m"}


@pytest.mark.parametrize(
    "content", [b'{"model": "other", "model": "m"}', rb'{"\u006dodel": "other", "model": "m"}']
)
def test_a_name_that_stands_twice_goes_out_once(content: bytes) -> None:
    assert parse_body(content, "").named("m") == b'{"model": "m"}'


@pytest.mark.parametrize("value", [b"1e999", rb'"\ud800"'])
def test_what_json_in_utf_8_cannot_hold_is_not_sent_on(value: bytes) -> None:
    body = parse_body(b'{"model": "ours", "x": ' + value + b"}", "application/json")
    with pytest.raises(InvalidInput):
        body.named("its-own-name")
