"""The rules that every HTTP client of LiteLLM's keeps while a request is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from litellm_oauth.gateway.exchange import Exchange, current
from litellm_oauth.gateway.http_clients import RefusedByGatewayError, watch_http_clients
from litellm_oauth.provider import OF_THE_PROVIDER

KEY, OTHER_KEY = "obviously-fake-operator-key", "another-obviously-fake-key"
BASE = "https://api.example/base"
EVENTS = {"content-type": "text/event-stream"}
STOP = b"event: message_stop\ndata: {}\n\n"


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules hold for the whole process; monkeypatch puts back what was there."""
    for client in (httpx.Client, httpx.AsyncClient):
        monkeypatch.setattr(client, "send", client.send)
    watch_http_clients([KEY, OTHER_KEY], cloud_metadata=False)


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    """The exchange of the request that is answered."""
    exchange = Exchange()
    exchange.begin(BASE)
    token = current.set(exchange)
    yield exchange
    current.reset(token)


class Api:
    """The other side: what it got, and what it answers."""

    def __init__(self, answer: httpx.Response | None = None) -> None:
        self.got: list[httpx.Request] = []
        self._answer = answer or httpx.Response(200, json={})

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.got.append(request)
        return self._answer


def away() -> httpx.Response:
    return httpx.Response(307, headers={"location": "https://elsewhere.example/"})


def ask_sync(
    transport: httpx.MockTransport, url: str, headers: dict[str, str], *, follow: bool
) -> httpx.Response:
    with httpx.Client(transport=transport, follow_redirects=follow) as client:
        return client.send(client.build_request("POST", url, headers=headers, content=b"{}"))


def send_sync(transport: httpx.MockTransport, request: httpx.Request) -> httpx.Response:
    with httpx.Client(transport=transport) as client:
        return client.send(request)


async def ask(
    kind: str, api: Api, url: str = f"{BASE}/v1/messages", follow: bool = False, **headers: str
) -> httpx.Response:
    """One request, as one of httpx's two kinds of client sends it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx.MockTransport(api)
    if kind == "sync":
        return ask_sync(transport, url, named, follow=follow)
    async with httpx.AsyncClient(transport=transport, follow_redirects=follow) as other:
        answer = await other.send(other.build_request("POST", url, headers=named, content=b"{}"), stream=True)
        await answer.aread()
        return answer


both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
async def test_outside_of_a_request_a_client_works_as_ever(kind: str) -> None:
    api = Api()
    assert (await ask(kind, api, x_api_key=KEY)).status_code == 200
    assert api.got[0].headers["x-api-key"] == KEY
    assert api.got[0].headers["accept-encoding"] != "identity"


@both
async def test_no_redirect_is_followed(kind: str) -> None:
    api = Api(away())
    assert (await ask(kind, api, follow=True)).status_code == 307
    assert len(api.got) == 1


@both
async def test_a_redirect_of_the_api_s_is_told_as_that(kind: str, exchange: Exchange) -> None:
    api = Api(away())
    with pytest.raises(RefusedByGatewayError):
        await ask(kind, api, follow=True)
    assert len(api.got) == 1
    assert exchange.refusal is not None
    assert (exchange.refusal.status, exchange.refusal.code) == (502, "redirected")
    assert "elsewhere" not in exchange.refusal.message


@both
async def test_a_redirect_of_another_server_is_its_own_business(kind: str, exchange: Exchange) -> None:
    assert (await ask(kind, Api(away()), "https://callbacks.example/x", follow=True)).status_code == 307
    assert exchange.refusal is None


@both
@pytest.mark.parametrize(
    "headers",
    [
        {"x_api_key": KEY},
        {"authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer {OTHER_KEY}"},
        {"authorization": KEY},
        {"api_key": OTHER_KEY},
        {"x_goog_api_key": KEY},
        {"X_API_KEY": KEY},
    ],
    ids=str,
)
@pytest.mark.parametrize("url", [f"{BASE}/v1/messages", "https://elsewhere.example/"])
async def test_no_operator_s_key_goes_out_with_a_request_that_lends_none(
    kind: str, headers: dict[str, str], url: str, exchange: Exchange
) -> None:
    api = Api()
    with pytest.raises(RefusedByGatewayError) as error:
        await ask(kind, api, url, False, **headers)
    assert api.got == []
    assert exchange.refusal is not None
    assert exchange.refusal.status == 403
    assert not any(key in exchange.refusal.message + str(error.value) for key in (KEY, OTHER_KEY))


@both
async def test_a_key_goes_out_with_a_request_that_lends_it_and_a_user_s_token_always(
    kind: str, exchange: Exchange
) -> None:
    api = Api()
    await ask(kind, api, authorization="Bearer of-a-user")
    exchange.lends_keys = True
    await ask(kind, api, x_api_key=KEY)
    assert len(api.got) == 2
    assert exchange.refusal is None


@both
async def test_the_api_s_answer_is_noted_and_nobody_else_s(kind: str, exchange: Exchange) -> None:
    await ask(kind, Api(httpx.Response(500)), "https://callbacks.example/x")
    assert (exchange.asked, exchange.status) == (False, None)
    api = Api(httpx.Response(429, headers={"Retry-After": "3", "Set-Cookie": "a=b"}))
    await ask(kind, api)
    assert (exchange.asked, exchange.status, exchange.headers) == (True, 429, {"retry-after": "3"})
    assert api.got[0].headers["accept-encoding"] == "identity"


@both
@pytest.mark.parametrize(
    ("base", "url", "is_it"),
    [
        ("https://api.example", "https://api.example/v1/messages", True),
        ("https://API.example:443", "https://api.example/v1/messages", True),
        ("https://api.example/base", "https://api.example/base?x=1", True),
        ("https://api.example", "https://api.example.evil.example/v1", False),
        ("https://api.example", "http://api.example/v1", False),
        ("https://api.example", "https://api.example:8443/v1", False),
        ("https://api.example/base", "https://api.example/based", False),
        ("https://api.example/base", "https://api.example/", False),
        ("https://api.example", "https://elsewhere.example/https://api.example", False),
        ("https://api.example", "https://user@api.example/v1", True),
    ],
)
async def test_what_is_about_the_api_is_told_by_its_address(
    kind: str, base: str, url: str, is_it: bool, exchange: Exchange
) -> None:
    exchange.begin(base)
    await ask(kind, Api(), url)
    assert exchange.asked is is_it


@both
async def test_before_the_api_is_known_whatever_goes_out_may_be_for_it(kind: str) -> None:
    """Which provider LiteLLM asks for another model, nobody says here; that it asked, it did."""
    exchange = Exchange()
    token = current.set(exchange)
    try:
        await ask(kind, Api(httpx.Response(500)), "https://another-provider.example/x")
    finally:
        current.reset(token)
    assert (exchange.asked, exchange.status) == (True, None)


@both
async def test_a_host_that_does_not_answer_was_asked(kind: str, exchange: Exchange) -> None:
    class Silent(Api):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("no")

    with pytest.raises(httpx.ConnectError):
        await ask(kind, Silent())
    assert (exchange.asked, exchange.status) == (True, None)


class Stream(httpx.AsyncByteStream):
    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


@pytest.mark.parametrize(
    ("path", "status", "headers", "breaks"),
    [
        ("/v1/messages", 200, EVENTS, True),
        ("/v1/messages", 529, EVENTS, False),
        ("/v1/messages", 200, {"content-type": "application/json"}, False),
        ("/v1/messages/x/events", 200, EVENTS, False),
        ("/v1/messages/count_tokens", 200, EVENTS, False),
    ],
)
async def test_a_stream_of_a_message_has_to_end_as_one(
    path: str, status: int, headers: dict[str, str], breaks: bool, exchange: Exchange
) -> None:
    for pieces, whole in (((b"data: 1\n\n", STOP), True), ((b"data: 1\n\n",), False)):
        api = Api(httpx.Response(status, headers=headers, stream=Stream(*pieces)))
        if breaks and not whole:
            with pytest.raises(httpx.RemoteProtocolError):
                await ask("async", api, BASE + path)
        else:
            assert (await ask("async", api, BASE + path)).content == b"".join(pieces)


async def test_a_stream_of_another_server_s_ends_as_it_likes(exchange: Exchange) -> None:
    api = Api(httpx.Response(200, headers=EVENTS, stream=Stream(b"data: 1\n\n")))
    assert (await ask("async", api, "https://elsewhere.example/v1/messages")).content == b"data: 1\n\n"


async def test_without_operator_s_keys_none_is_looked_for(exchange: Exchange) -> None:
    """An empty value is no key."""
    watch_http_clients([], cloud_metadata=False)
    assert (await ask("async", Api())).status_code == 200


@both
async def test_the_authorization_server_may_have_the_api_s_host(kind: str, exchange: Exchange) -> None:
    """What it answers is the provider's to judge."""
    page = httpx.Response(429, headers={"content-type": "text/html", "retry-after": "77"})
    transport = httpx.MockTransport(Api(page))
    request = httpx.Request("POST", f"{BASE}/oauth/token", extensions={OF_THE_PROVIDER: True})
    if kind == "sync":
        answer = send_sync(transport, request)
    else:
        async with httpx.AsyncClient(transport=transport) as other:
            answer = await other.send(request)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "77")
    assert (exchange.asked, exchange.status, exchange.refusal) == (False, None, None)


@both
@pytest.mark.parametrize("status", [200, 503])
async def test_a_page_at_the_api_s_address_is_refused(kind: str, exchange: Exchange, status: int) -> None:
    page = httpx.Response(status, headers={"content-type": "text/html"})
    with pytest.raises(RefusedByGatewayError):
        await ask(kind, Api(page))
    assert exchange.refusal is not None
    assert (exchange.refusal.status, exchange.refusal.code) == (502, "not_the_api")
    exchange.begin(BASE)
    assert exchange.refusal is None
