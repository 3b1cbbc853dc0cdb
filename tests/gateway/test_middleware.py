"""What the outermost layer reads of a request, on HTTP/1.1 and HTTP/2. Stand-ins take LiteLLM's place."""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import AsyncIterable, Callable, Iterator
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from litellm_oauth.gateway.credentials import KeyRing
from litellm_oauth.gateway.errors import UnknownKey
from litellm_oauth.gateway.forward import Outgoing, Upstream
from litellm_oauth.gateway.key_digest import digest
from litellm_oauth.gateway.request_body import Body

MASTER, ALICE = "sk-fake-master", "sk-fake-alice"
LIMIT = 1000
LITELLM = (
    "litellm",
    "litellm.proxy",
    "litellm.proxy.proxy_server",
    "litellm.proxy._types",
    "litellm.proxy.auth",
    "litellm.proxy.auth.user_api_key_auth",
)


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module, on a LiteLLM without a database."""
    for name in LITELLM:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    server = sys.modules["litellm.proxy.proxy_server"]
    vars(server).update(prisma_client=None, llm_router=None)
    vars(sys.modules["litellm.proxy"])["proxy_server"] = server
    vars(sys.modules["litellm.proxy._types"])["ProxyException"] = type("ProxyException", (Exception,), {})
    vars(sys.modules["litellm.proxy.auth.user_api_key_auth"])["user_api_key_auth"] = None
    own = [
        f"litellm_oauth.gateway.{name}" for name in ("models", "litellm_keys", "anthropic_api", "middleware")
    ]
    for name in own:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import litellm_oauth.gateway.middleware as module

    yield module
    for name in own:
        sys.modules.pop(name, None)


@dataclass
class Plan:
    """As the layer's own, and one that can be watched as it is let go of."""

    outgoing: Outgoing
    upstream: Upstream


class Seen:
    """What came through: to LiteLLM, or to the API."""

    def __init__(self) -> None:
        self.litellm: list[tuple[Scope, bytes]] = []
        self.api: list[bytes] = []
        self.sent: list[Message] = []
        self.plan: Callable[[], Any] = lambda: None
        self.kept: list[bool] = []
        # How much of the body was taken from the line.
        self.read = 0

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        content, more = b"", True
        while more:
            message = await receive()
            content += message.get("body", b"")
            more = message.get("more_body", False)
        self.litellm.append((scope, content))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"litellm's", "more_body": False})

    def path_of(self, incoming: Any) -> str:
        return str(incoming.path).removeprefix("/anthropic/")

    async def pass_through(self, incoming: Any, body: Body | AsyncIterable[bytes], path: str) -> Any:
        assert isinstance(body, Body)
        outgoing = Outgoing(incoming.method, path, "", {}, body.content)
        plan = Plan(outgoing, Upstream("https://api.example"))
        self.plan = weakref.ref(plan)
        return plan

    async def send_on(self, outgoing: Outgoing, upstream: Upstream, user: str) -> Any:
        assert isinstance(outgoing.content, bytes)
        self.api.append(outgoing.content)
        return httpx.Response(200, content=b"{}")

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status


async def request(
    layer: ModuleType,
    path: str,
    content: bytes,
    version: str,
    key: str,
    *,
    method: str = "POST",
    told: bool = False,
    user: str | None = None,
) -> Seen:
    """One request; ``told``: whether its headers tell of a body."""
    seen = Seen()
    settings = SimpleNamespace(extra_routes=["/v1/rerank"], shared_default=False, public_url="http://gateway")
    runtime = SimpleNamespace(settings=settings, service=None)
    api = SimpleNamespace(
        path_of=seen.path_of, pass_through=seen.pass_through, is_guarded=lambda method, path: False
    )
    app = layer.GatewayMiddleware(
        seen.app,
        runtime,
        KeyRing(MASTER, {digest(ALICE): "alice"}),
        SimpleNamespace(),
        api,
        SimpleNamespace(send=seen.send_on),
        limits=layer.Limits(LIMIT, LIMIT),
        origin=lambda _: "127.0.0.1",
        description=None,
    )
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
    if user is not None:
        headers.append((b"x-litellm-oauth-user", user.encode("latin-1")))
    if told:
        headers.append((b"content-length", str(len(content)).encode()))
    elif content and version == "1.1":
        headers.append((b"transfer-encoding", b"chunked"))
    scope = {
        "type": "http",
        "http_version": version,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
    }
    messages: list[Message] = [
        {"type": "http.request", "body": content, "more_body": True},
        {"type": "http.request", "body": b"", "more_body": False},
    ]

    async def receive() -> Message:
        if messages:
            seen.read += len(messages[0]["body"])
            return messages.pop(0)
        return await asyncio.Future()

    async def send(message: Message) -> None:
        seen.sent.append(message)
        seen.kept.append(seen.plan() is not None)

    await app(scope, receive, send)
    return seen


versions = pytest.mark.parametrize("version", ["1.1", "2"])


@versions
@pytest.mark.parametrize("told", [True, False])
async def test_a_body_goes_to_the_api_whether_its_headers_tell_of_it_or_not(
    layer: ModuleType, version: str, told: bool
) -> None:
    content = b'{"requests": []}'
    seen = await request(layer, "/anthropic/v1/x", content, version, ALICE, told=told)
    assert (seen.status, seen.api) == (200, [content])


@versions
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_request_without_a_body_needs_none(layer: ModuleType, version: str, method: str) -> None:
    seen = await request(layer, "/anthropic/v1/x/cancel", b"", version, ALICE, method=method)
    assert (seen.status, seen.api) == (200, [b""])


@versions
@pytest.mark.parametrize(("path", "key"), [("/v1/rerank", ALICE), ("/v1/embeddings", MASTER)])
@pytest.mark.parametrize("told", [True, False])
async def test_the_rules_of_bodies_hold_on_litellm_s_routes(
    layer: ModuleType, version: str, path: str, key: str, told: bool
) -> None:
    good = await request(layer, path, b'{"a": 1}', version, key, told=told)
    assert [content for _, content in good.litellm] == [b'{"a": 1}']
    large = await request(layer, path, b" " * (LIMIT + 1), version, key, told=told)
    assert (large.status, large.litellm) == (413, [])
    doubled = await request(layer, path, b'{"a": 1, "a": 2}', version, key, told=told)
    assert (doubled.status, doubled.litellm) == (400, [])


async def test_what_is_refused_on_the_routes_of_logins_is_not_kept_either(layer: ModuleType) -> None:
    seen = await request(layer, "/auth/claude/oauth/status", b"", "1.1", ALICE, method="GET", user="é")
    assert (seen.status, seen.litellm) == (400, [])
    assert (b"cache-control", b"no-store") in seen.sent[0]["headers"]


@versions
async def test_a_closed_route_is_refused_unread(layer: ModuleType, version: str) -> None:
    seen = await request(layer, "/v1/embeddings", b'{"a": 1}', version, ALICE)
    assert (seen.status, seen.litellm) == (403, [])


async def test_a_question_is_let_go_of_before_its_answer_comes(layer: ModuleType) -> None:
    """The one may be large, the other long."""
    seen = await request(layer, "/anthropic/v1/x", b'{"requests": []}', "1.1", ALICE)
    assert seen.kept
    assert not any(seen.kept)


VIRTUAL = "sk-fake-virtual"


@pytest.fixture
def asked(layer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The keys that LiteLLM was asked about, whose database has carol's and an administrator's."""
    asked: list[bytes] = []
    holders = {
        VIRTUAL: SimpleNamespace(user_id="carol", user_role="internal_user"),
        "sk-fake-admin": SimpleNamespace(user_id="root", user_role="proxy_admin"),
        "sk-fake-nobody-s": SimpleNamespace(user_id=None, user_role="internal_user"),
    }

    async def holder_of_key(scope: Scope) -> SimpleNamespace:
        credentials = [value for name, value in scope["headers"] if name in (b"authorization", b"x-api-key")]
        (credential,) = credentials
        asked.append(credential)
        holder = holders.get(credential.decode().removeprefix("Bearer "))
        if holder is None:
            raise UnknownKey
        return holder

    monkeypatch.setattr(layer, "has_database", lambda: True)
    monkeypatch.setattr(layer, "holder_of_key", holder_of_key)
    return asked


async def test_a_virtual_key_is_looked_up_before_the_body_is_read(
    layer: ModuleType, asked: list[bytes]
) -> None:
    for path in ("/v1/messages", "/v1/chat/completions", "/v1/rerank", "/key/generate", "/anthropic/v1/x"):
        seen = await request(layer, path, b'{"a": 1}', "1.1", "sk-fake-unknown")
        assert (seen.status, seen.read, seen.litellm) == (401, 0, [])
        assert (b"connection", b"close") in seen.sent[0]["headers"]
    assert set(asked) == {b"Bearer sk-fake-unknown"}


@pytest.mark.parametrize(
    ("key", "path", "status"),
    [
        (VIRTUAL, "/v1/rerank", 200),
        (VIRTUAL, "/v1/embeddings", 403),
        (VIRTUAL, "/key/generate", 403),
        (VIRTUAL, "/login", 200),
        ("sk-fake-admin", "/key/generate", 200),
        ("sk-fake-admin", "/v1/embeddings", 200),
        ("sk-fake-nobody-s", "/v1/rerank", 403),
        ("sk-ant-oat01-of-the-client", "/v1/rerank", 401),
    ],
)
async def test_a_virtual_key_opens_what_its_role_does(
    layer: ModuleType, asked: list[bytes], key: str, path: str, status: int
) -> None:
    seen = await request(layer, path, b'{"a": 1}', "1.1", key)
    assert seen.status == status
    assert bool(seen.litellm) == (status == 200)


async def test_without_a_key_a_form_is_taken_and_no_more(layer: ModuleType, asked: list[bytes]) -> None:
    for told in (True, False):
        seen = await request(layer, "/login", b"a" * (1 << 20), "1.1", "", told=told)
        assert seen.status == 200
        seen = await request(layer, "/login", b"a" * ((1 << 20) + 1), "1.1", "", told=told)
        assert (seen.status, seen.litellm) == (413, [])


async def test_a_login_of_the_provider_s_is_not_litellm_s_to_judge(
    layer: ModuleType, asked: list[bytes]
) -> None:
    await request(layer, "/v1/rerank", b"{}", "1.1", "sk-ant-oat01-of-the-client")
    assert asked == []


async def test_a_key_of_ours_is_not_looked_up_in_the_database(layer: ModuleType, asked: list[bytes]) -> None:
    seen = await request(layer, "/v1/rerank", b"{}", "1.1", ALICE)
    assert (seen.status, asked) == (200, [])
