"""Batches of messages: what of them arrives at the API, and what a gateway does meanwhile."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import statistics
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest

from support.asking import CALLED, MESSAGE, MODEL
from support.running_gateway import (
    OPERATOR_KEY,
    SECRETS,
    USER_KEYS,
    RunningGateway,
    configuration,
    running_gateway,
)
from support.scripted_api import Received, ScriptedApi, reply, scripted_api

PATH = "/anthropic/v1/messages/batches"
API_PATH = "/v1/messages/batches"
MEGABYTE = 1 << 20
HAIKU, HAIKU_CALLED = "claude-haiku-3.5", "claude-3-5-haiku-20241022"
DEAD = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


def request(number: int = 0, **params: Any) -> dict[str, Any]:
    return {"custom_id": f"request-{number}", "params": {**MESSAGE, **params}}


def send(
    client: httpx.Client, content: bytes | Iterable[bytes], kind: str = "application/json"
) -> httpx.Response:
    return client.post(PATH, content=content, headers={"Content-Type": kind}, timeout=60)


def batch_of(*requests: object, **beside: object) -> bytes:
    return json.dumps({"requests": requests, **beside}).encode()


def long_batch(end: bytes, many: int = 300) -> Iterator[bytes]:
    """Much of it is good."""
    yield b'{"requests":['
    for number in range(many):
        yield json.dumps(request(number, system="x" * 1000)).encode() + b","
    yield json.dumps(request(many)).encode() + end


# What arrives


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "", "multipart/form-data; boundary=a"])
def test_a_batch_goes_on_with_the_caller_s_own_token_and_the_api_s_names(
    alice: httpx.Client, api: ScriptedApi, kind: str
) -> None:
    requests = [
        request(0, fallbacks=[{"model": HAIKU}], tools=[{"type": "advisor", "model": MODEL}]),
        request(1, model=HAIKU, n=[2**70, 1.0, 1], system='é \\u006d "model": "keyed"'),
        request(2, requests=[request(3)]),
        {"custom_id": "4", "params": {"model": CALLED}},
    ]
    answer = send(alice, batch_of(*requests, model=MODEL), kind)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"path": API_PATH}
    requests[0]["params"] |= {
        "model": CALLED,
        "fallbacks": [{"model": HAIKU_CALLED}],
        "tools": [{"type": "advisor", "model": CALLED}],
    }
    requests[1]["params"]["model"] = HAIKU_CALLED
    requests[2]["params"] |= {"model": CALLED, "requests": [request(3, model=CALLED)]}
    assert json.dumps(api.last.json) == json.dumps({"requests": requests, "model": CALLED})
    assert api.last.token.startswith("sk-ant-oat01-fake-")
    assert not [secret for secret in SECRETS if secret in str(api.last.headers)]


def test_a_batch_streams_whether_its_length_is_told_or_not(alice: httpx.Client, api: ScriptedApi) -> None:
    content = b"".join(long_batch(b"]}"))
    for sent in (content, long_batch(b"]}")):
        assert send(alice, sent).status_code == 200
        assert api.last.body == content.replace(MODEL.encode(), CALLED.encode())
        assert "content-length" not in api.last.headers


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("GET", PATH, None),
        ("GET", f"{PATH}?limit=2", None),
        ("HEAD", PATH, None),
        ("GET", PATH, b""),
        ("GET", f"{PATH}/msgbatch_1/results", None),
        ("POST", f"{PATH}/msgbatch_1/cancel", b"{}"),
        ("POST", f"{PATH}/msgbatch_1/cancel", None),
        ("DELETE", f"{PATH}/msgbatch_1", None),
    ],
)
def test_all_else_that_is_done_with_batches_is_as_before(
    alice: httpx.Client, api: ScriptedApi, method: str, path: str, content: bytes | None
) -> None:
    assert alice.request(method, path, content=content).status_code == 200
    assert (api.last.method, api.last.body) == (method.replace("HEAD", "GET"), content or b"")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_a_model_in_a_body_of_another_method_is_looked_at_as_well(
    alice: httpx.Client, api: ScriptedApi, method: str
) -> None:
    assert alice.request(method, PATH, content=batch_of(request(model="nobody's"))).status_code in (400, 404)
    assert api.received == []


def test_other_methods_are_refused(gateway: RunningGateway, api: ScriptedApi) -> None:
    status, _, _ = gateway.raw("PROPFIND", PATH)
    assert status == 405
    assert api.received == []


# What does not


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b"[]", 400),
        (b'{"requests":[]}', 400),
        (batch_of({"params": {}}), 400),
        (b'{"requests":{}}', 400),
        (json.dumps({"requests": "x", "model": MODEL}).encode(), 400),
        (b"\xef\xbb\xbf" + batch_of(request()), 400),
        (batch_of(request()) + b"x", 400),
        (batch_of(request()).replace(b'"max_tokens"', b'"model"'), 400),
        (batch_of(request(), 1), 400),
        (batch_of(request(model="nobody's")), 404),
        (batch_of(request(fallbacks=[{"model": "nobody's"}])), 404),
        (batch_of(request(fallbacks=["nobody's"])), 404),
        (batch_of(request(tools=[{"model": "nobody's"}])), 404),
        (batch_of(request(), model="nobody's"), 404),
        (batch_of(request(model="keyed")), 403),
        (batch_of(request(), request(tools=[{"model": "keyed"}])), 403),
        (batch_of(model="keyed"), 403),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("user", ["alice", None])
def test_a_batch_that_is_bad_from_the_start_is_refused(
    gateway: RunningGateway, api: ScriptedApi, content: bytes, status: int, user: str | None
) -> None:
    with gateway.client(user) as client:
        answer = send(client, content)
    assert answer.status_code in ((400, 404) if status == 404 else (status,)), answer.text
    assert answer.json()["type"] == "error"
    assert not [one for one in api.received if one.whole]


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        (b"", 400, "not a JSON object"),
        (b"]", 400, "not a JSON object"),
        (b"]}x", 400, "not a JSON object"),
        (b'],"requests":[]}', 400, "twice"),
        (b',{"params":{"x":{"a":1,"\\u0061":2}}}]}', 400, "twice"),
        (b',{"a":NaN}]}', 400, "not JSON"),
        (b",1]}", 400, "JSON object"),
        (b',{"params":{"model":"nobody\'s"}}]}', 404, "There is no model"),
        (b',{"params":{"model":"keyed"}}]}', 403, "operator's"),
        (b'],"model":"keyed"}', 403, "operator's"),
    ],
)
@pytest.mark.parametrize("told", [True, False])
def test_a_batch_that_turns_out_to_be_bad_is_no_whole_request_at_the_api(
    alice: httpx.Client, api: ScriptedApi, end: bytes, status: int, said: str, told: bool
) -> None:
    answer = send(alice, b"".join(long_batch(end)) if told else long_batch(end))
    assert answer.status_code in ((400, 404) if status == 404 else (status,)), answer.text
    assert said in answer.json()["error"]["message"]
    _until_received(api)
    assert [one.whole for one in api.received] == [False]
    assert len(api.last.body) > 100_000
    for name in (b"nobody", b"keyed"):
        assert name not in api.last.body
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(api.last.body)
    # The gateway serves on, with this client too.
    assert send(alice, batch_of(request())).status_code == 200


def _until_received(api: ScriptedApi, many: int = 1) -> None:
    deadline = time.monotonic() + 5
    while len(api.received) < many:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedApi) -> Iterator[RunningGateway]:
    """A gateway with low limits and two APIs, in the memory that the kit gives to one worker."""
    with scripted_api() as second:
        config = configuration(scripted, max_body_mb=1, max_upload_mb=100)
        config["claude_oauth"]["allowed_api_bases"].append(second.url)
        elsewhere = {"model": "anthropic/elsewhere", "api_base": second.url, "api_key": "oauth"}
        config["model_list"].append(
            {"model_name": "elsewhere", "litellm_params": elsewhere, "model_info": {"cooldown_time": 0}}
        )
        limit = ("--memory", "1g", "--memory-swap", "1g")
        with running_gateway(tmp_path_factory.mktemp("small"), config, scripted, *limit) as gateway:
            gateway.log_in("alice")
            yield gateway


def test_all_models_of_a_batch_are_at_one_api(small: RunningGateway, api: ScriptedApi) -> None:
    with small.client() as alice:
        assert send(alice, batch_of(request(model="elsewhere"))).status_code == 200
        assert api.received == []
        answer = send(alice, batch_of(request(), request(model="elsewhere")))
        assert (answer.status_code, "same API" in answer.text) == (400, True)
        answer = send(alice, long_batch(b',{"params":{"model":"elsewhere"}}]}'))
        assert (answer.status_code, "same API" in answer.text) == (400, True)
    _until_received(api)
    assert not [one for one in api.received if one.whole or b"elsewhere" in one.body]


@pytest.mark.parametrize("told", [True, False])
def test_a_batch_over_its_limit_is_a_413(small: RunningGateway, api: ScriptedApi, told: bool) -> None:
    """Declared, it is refused unread."""
    address = httpx.URL(small.url)
    connection = http.client.HTTPConnection(address.host, address.port or 80, timeout=30)
    connection.putrequest("POST", PATH)
    connection.putheader("Authorization", f"Bearer {USER_KEYS['alice']}")
    connection.putheader(
        *(("Content-Length", str(101 * MEGABYTE)) if told else ("Transfer-Encoding", "chunked"))
    )
    connection.endheaders()
    piece = json.dumps(request(system="x" * 500_000)).encode() + b","
    content = b'{"requests":[' + piece
    sent = 0
    try:
        while sent < 120 * MEGABYTE:
            connection.send(content if told else b"%x\r\n%b\r\n" % (len(content), content))
            sent += len(content)
            content = piece
    except OSError:
        # The gateway has closed its side.
        pass
    answer = connection.getresponse()
    assert answer.status == 413, answer.read()
    connection.close()
    assert sent < 115 * MEGABYTE
    if told:
        assert api.received == []
    else:
        _until_received(api)
        assert not api.last.whole


def test_one_request_of_a_batch_has_the_limit_of_a_body(small: RunningGateway, api: ScriptedApi) -> None:
    with small.client() as alice:
        fits = request(system="x" * (MEGABYTE - 1000))
        assert send(alice, batch_of(*[fits] * 4)).status_code == 200
        assert len(api.last.body) > 3 * MEGABYTE
        answer = send(alice, batch_of(*[fits] * 4, request(system="x" * (2 * MEGABYTE))))
    assert answer.status_code == 413
    assert "A request of the batch is larger than 1 MB" in answer.text


# The API and the client


def test_a_batch_is_sent_again_by_who_has_it_when_the_token_was_dead(
    gateway: RunningGateway, api: ScriptedApi
) -> None:
    gateway.log_in("dora")
    api.forget()
    api.then(API_PATH, DEAD)
    with gateway.client("dora") as dora:
        answer = send(dora, batch_of(request()))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert send(dora, batch_of(request())).status_code == 200
    assert len(api.token_calls) == 1


def test_the_api_s_refusal_comes_as_it_is(alice: httpx.Client, api: ScriptedApi) -> None:
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "later"}}
    api.then(API_PATH, reply(error, "429 Later", [("retry-after", "7")]))
    answer = send(alice, long_batch(b"]}"))
    assert (answer.status_code, answer.headers["retry-after"], answer.json()) == (429, "7", error)


def test_who_has_no_login_is_told_so(gateway: RunningGateway, api: ScriptedApi) -> None:
    with gateway.client("carol") as carol:
        answer = send(carol, long_batch(b"]}"))
    assert (answer.status_code, "/auth/claude/oauth/start" in answer.text) == (401, True)
    assert api.received == []


def test_a_client_that_leaves_amid_its_batch_ends_it_at_the_api(
    gateway: RunningGateway, api: ScriptedApi
) -> None:
    address = httpx.URL(gateway.url)
    with socket.create_connection((address.host, address.port or 80)) as line:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER_KEYS['alice']}\r\n"
        line.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for piece in long_batch(b""):
            line.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        time.sleep(0.3)
    _until_received(api)
    assert not api.last.whole


def test_a_client_that_leaves_before_the_answer_ends_it_at_the_api(
    gateway: RunningGateway, api: ScriptedApi
) -> None:
    def silent(received: Received) -> Iterable[bytes]:
        received.wait_closed(20)
        return []

    for content in (batch_of(request()), b"".join(long_batch(b"]}"))):
        api.forget()
        api.then(API_PATH, silent)
        address = httpx.URL(gateway.url)
        connection = http.client.HTTPConnection(address.host, address.port or 80, timeout=20)
        connection.request("POST", PATH, content, {"Authorization": f"Bearer {USER_KEYS['alice']}"})
        _until_received(api)
        left = time.monotonic()
        connection.close()
        assert api.last.closed.wait(5), "the API works on for nobody"
        assert api.last.closed_at - left < 2


# Many of them


def test_a_large_batch_of_small_requests_passes_in_little_memory_while_others_are_served(
    small: RunningGateway, scripted: ScriptedApi
) -> None:
    scripted.forget()
    seen: list[tuple[int, str]] = []

    def keep(received: Received) -> Iterable[bytes]:
        seen.append((len(received.body), hashlib.sha256(received.body).hexdigest()))
        received.body = b""
        return [reply({"id": "msgbatch_1"})]

    scripted.always(API_PATH, keep)
    number = 72_000
    body = json.dumps(request(0, system='You are told "much"\n' * 45)).encode()
    pieces = [b'{"requests":[', *[b",".join([body] * 72) + b","] * (number // 72), body + b"]}"]
    meant = hashlib.sha256()
    size = 0
    for piece in pieces:
        changed = piece.replace(MODEL.encode(), CALLED.encode())
        meant.update(changed)
        size += len(changed)
    assert size > 76 * MEGABYTE
    memory: list[int] = []
    waits: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        with small.client() as client:
            while not ended.wait(0.1):
                started = time.monotonic()
                assert client.get("/health/liveliness").status_code == 200
                waits.append(time.monotonic() - started)
                memory.append(small.memory())

    with small.client() as alice:
        assert send(alice, iter(pieces[:40] + pieces[-1:])).status_code == 200
        before = small.memory()
        watching = threading.Thread(target=watch)
        watching.start()
        spent = small.worked()
        try:
            answer = send(alice, iter(pieces))
            spent = small.worked() - spent
        finally:
            ended.set()
            watching.join()
    scripted.forget()
    assert answer.status_code == 200, answer.text
    assert seen[-1] == (size, meant.hexdigest())
    assert max(memory) - before < 16 * MEGABYTE
    # Others share the two cores; these seconds are the worker's own.
    assert spent < 10
    assert statistics.median(waits) < 0.1


def test_an_operator_s_key_never_goes_out_with_a_batch(gateway: RunningGateway, api: ScriptedApi) -> None:
    for user in ("alice", "carol", None):
        with gateway.client(user) as client:
            for model in ("keyed", MODEL):
                send(client, batch_of(request(model=model)))
    assert not [one for one in api.received if OPERATOR_KEY in str(one.headers)]
