"""What a client sends: how much of it is taken, and how it arrives at the API."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from support.asking import CALLED, COUNTS, FORMS, MESSAGE, MODEL, PLAIN, Form
from support.running_gateway import USER_KEYS, RunningGateway, configuration, running_gateway
from support.scripted_api import Received, ScriptedApi, message, reply

MEGABYTE = 1 << 20
FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
JSON = {"Content-Type": "application/json"}
# What the Messages API has today and LiteLLM's list has not, what it may have tomorrow, and what is misspelt.
FIELDS: dict[str, Any] = {
    "billing_policy": {"mode": "strict"},
    "diagnostics": True,
    "fallback_credit_token": "obviously-fake",
    "thread": {"id": "t"},
    "user_profile_id": "up_1",
    "speed": "fast",
    "workspace_id": "w_1",
    "sytem": "misspelt",
    "betas": ["b-1"],
    "stream_options": {"include_usage": True},
    "of_tomorrow": [1, {"a": None}],
}


@FORM
@pytest.mark.parametrize("coding", ["gzip", "zstd", "br", "deflate", "x-unknown", "GZIP"])
def test_a_packed_body_is_a_415(alice: httpx.Client, api: ScriptedApi, form: Form, coding: str) -> None:
    packed = gzip.compress(json.dumps(form.body).encode())
    answer = alice.post(form.path, content=packed, headers={**JSON, "Content-Encoding": coding})
    assert answer.status_code == 415, answer.text
    assert answer.headers["accept-encoding"] == "identity"
    assert api.received == []


@FORM
def test_a_second_line_of_the_header_counts_as_well(
    alice: httpx.Client, api: ScriptedApi, form: Form
) -> None:
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Encoding", "identity"),
        ("Content-Encoding", "gzip"),
    ]
    assert alice.post(form.path, content=json.dumps(form.body), headers=headers).status_code == 415
    assert api.received == []


@pytest.mark.parametrize(
    "path", ["/v1/messages", "/v1/chat/completions", "/anthropic/v1/messages", "/auth/claude/oauth/refresh"]
)
def test_a_broken_chunk_is_the_client_s_fault(gateway: RunningGateway, path: str) -> None:
    address = httpx.URL(gateway.url)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER_KEYS['alice']}\r\n"
    with socket.create_connection((address.host, address.port or 80), timeout=20) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\nno number\r\n".encode())
        assert b" 400 " in connection.recv(1000).partition(b"\r\n")[0]


@FORM
@pytest.mark.parametrize("coding", ["", "identity"])
def test_a_plain_body_may_say_that_it_is_plain(
    alice: httpx.Client, api: ScriptedApi, form: Form, coding: str
) -> None:
    headers = {**JSON, "Content-Encoding": coding}
    assert alice.post(form.path, content=json.dumps(form.body), headers=headers).status_code == 200


@FORM
@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "", "application/json; charset=utf-8"]
)
def test_a_body_is_read_as_json_whatever_its_kind_is_said_to_be(
    alice: httpx.Client, api: ScriptedApi, form: Form, kind: str
) -> None:
    answer = alice.post(form.path, content=json.dumps(form.body), headers={"Content-Type": kind})
    assert answer.status_code == 200, answer.text
    assert api.last.json["model"] == CALLED


@FORM
@pytest.mark.parametrize(
    "doubled",
    [
        '"model":"keyed",',
        '"\\u006dodel":"keyed",',
        '"metadata":{"user_id":"a","user_id":"b"},',
        '"tools":[{"name":"x","input_schema":{"type":"object","properties":{"a":{"type":"string","type":"null"}}}}],',
    ],
)
def test_a_doubled_key_is_refused(alice: httpx.Client, api: ScriptedApi, form: Form, doubled: str) -> None:
    content = "{" + doubled + json.dumps(form.body)[1:]
    answer = alice.post(form.path, content=content, headers=JSON)
    assert answer.status_code == 400, answer.text
    assert "twice" in answer.json()["error"]["message"]
    assert api.received == []


def test_a_doubled_key_is_refused_on_the_login_s_routes_too(alice: httpx.Client) -> None:
    answer = alice.post("/auth/claude/oauth/exchange", content='{"code":"a","code":"b"}', headers=JSON)
    assert (answer.status_code, "twice" in answer.text) == (400, True)


@FORM
@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff\xfe", b"nul", b'{"model": NaN}', b'"text"', b"[" * 100_000, b'{"a":' * 5000],
)
def test_what_is_no_json_object_is_a_400(
    alice: httpx.Client, api: ScriptedApi, form: Form, content: bytes
) -> None:
    answer = alice.post(form.path, content=content, headers=JSON)
    assert answer.status_code == 400, answer.text
    assert api.received == []


@pytest.mark.parametrize("form", [FORMS[0], FORMS[2], FORMS[5], FORMS[7]], ids=lambda form: form.name)
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_the_gateway_does_not_know_goes_on_as_it_came(
    alice: httpx.Client, api: ScriptedApi, form: Form, field: str
) -> None:
    more = {
        field: FIELDS[field],
        "max_tokens": 40_000,
        "thinking": {"type": "enabled", "budget_tokens": 31_999},
        "output_config": {"effort": "high"},
        "metadata": {"user_id": "u", "of_tomorrow": 1},
    }
    answer = alice.post(f"{form.path}?beta=true", json={**form.body, **more})
    assert answer.status_code == 200, answer.text
    assert api.last.json == {**form.body, **more, "model": CALLED}
    assert (api.last.path, api.last.query) == ("/v1/messages", "beta=true")


def test_fallbacks_of_the_api_s_own_go_on_by_its_names(alice: httpx.Client, api: ScriptedApi) -> None:
    body = {
        **MESSAGE,
        "fallbacks": [{"model": "claude-haiku-3.5"}],
        "tools": [{"type": "advisor", "model": MODEL}],
    }
    for path in ("/v1/messages", "/anthropic/v1/messages"):
        assert alice.post(path, json=body).status_code == 200
        assert api.last.json == {
            **body,
            "model": CALLED,
            "fallbacks": [{"model": "claude-3-5-haiku-20241022"}],
            "tools": [{"type": "advisor", "model": CALLED}],
        }


@pytest.mark.parametrize("model", [MODEL, "keyed"])
def test_tools_name_models_as_the_api_does_through_the_router_too(
    alice: httpx.Client, api: ScriptedApi, model: str
) -> None:
    tools: list[dict[str, Any]] = [
        {"type": "advisor_20260301", "name": "advisor", "model": "claude-haiku-3.5"},
        {"name": "model", "input_schema": {"type": "object", "properties": {"model": {"type": "string"}}}},
    ]
    answer = alice.post("/v1/messages", json={**MESSAGE, "model": model, "num_retries": 0, "tools": tools})
    assert answer.status_code == 200, answer.text
    assert api.last.json["tools"] == [{**tools[0], "model": "claude-3-5-haiku-20241022"}, tools[1]]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_the_router_would_lose_is_named(
    alice: httpx.Client, api: ScriptedApi, field: str
) -> None:
    answer = alice.post("/v1/messages", json={**MESSAGE, "num_retries": 0, field: FIELDS[field]})
    if answer.status_code == 200:
        assert api.last.json[field] == FIELDS[field]
    else:
        assert answer.status_code == 400, answer.text
        assert field in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "path", ["/v1/messages", "/v1/chat/completions", "/v1/responses", "/anthropic/v1/messages"]
)
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_is_a_413_before_it_is_read(
    gateway: RunningGateway, api: ScriptedApi, path: str, declared: bool
) -> None:
    status, sent = _upload(gateway, path, USER_KEYS["alice"], 200 * MEGABYTE, declared=declared)
    assert status == 413
    assert sent < 64 * MEGABYTE
    assert api.received == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages",
        "/v1/chat/completions",
        "/anthropic/v1/files",
        "/v1/files",
        "/key/generate",
        "/no/such/route",
        "/v1/audio/transcriptions",
    ],
)
@pytest.mark.parametrize("declared", [True, False])
def test_without_a_key_no_body_is_read(gateway: RunningGateway, path: str, declared: bool) -> None:
    status, sent = _upload(gateway, path, "sk-nobody-knows", 600 * MEGABYTE, declared=declared)
    assert status == 401
    assert sent < 64 * MEGABYTE


def _upload(gateway: RunningGateway, path: str, key: str, size: int, *, declared: bool) -> tuple[int, int]:
    """Send that much. Returns the status, and how much the gateway took before it answered."""
    address = httpx.URL(gateway.url)
    connection = http.client.HTTPConnection(address.host, address.port or 80, timeout=60)
    connection.putrequest("POST", path)
    connection.putheader("Authorization", f"Bearer {key}")
    connection.putheader("Content-Type", "application/json")
    if declared:
        connection.putheader("Content-Length", str(size))
    else:
        connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    piece = b"A" * 65_536
    framed = piece if declared else b"%x\r\n%b\r\n" % (len(piece), piece)
    sent = 0
    try:
        while sent < size:
            connection.send(framed)
            sent += len(piece)
    except OSError:
        # The gateway has closed its side.
        pass
    answer = connection.getresponse()
    assert answer.getheader("connection") == "close"
    connection.close()
    return answer.status, sent


def test_a_file_streams_to_the_api_with_the_caller_s_own_token(alice: httpx.Client, api: ScriptedApi) -> None:
    content = os.urandom(40 * MEGABYTE)
    answer = alice.post("/anthropic/v1/files", files={"file": ("a.bin", content)})
    assert answer.status_code == 200, answer.text
    assert content in api.last.body
    assert api.last.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert api.last.token.startswith("sk-ant-oat01-fake-")


def test_a_file_is_sent_again_by_who_has_it_when_the_token_was_dead(
    gateway: RunningGateway, api: ScriptedApi
) -> None:
    gateway.log_in("bob")
    api.forget()
    api.then("/v1/files", b"HTTP/1.1 401 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    with gateway.client("bob") as bob:
        answer = bob.post("/anthropic/v1/files", files={"file": ("a", b"x" * 1000)})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert bob.post("/anthropic/v1/files", files={"file": ("a", b"x" * 1000)}).status_code == 200
    assert len(api.token_calls) == 1


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedApi) -> Iterator[RunningGateway]:
    """A gateway with the memory that the kit gives to one worker."""
    folder = tmp_path_factory.mktemp("small")
    limit = ("--memory", "1g", "--memory-swap", "1g")
    with running_gateway(folder, configuration(scripted), scripted, *limit) as gateway:
        for user in ("alice", "bob"):
            gateway.log_in(user)
        yield gateway


def _body_of(size: int, form: Form) -> bytes:
    text = "A" * size
    body = {**form.body, "input": text} if form.name == "response" else form.body
    if form.name != "response":
        body = {**form.body, "messages": [{"role": "user", "content": text}]}
    return json.dumps(body).encode()


def _post(gateway: RunningGateway, form: Form, content: bytes, user: str = "alice") -> int:
    headers = {"Authorization": f"Bearer {USER_KEYS[user]}", **JSON}
    return httpx.post(f"{gateway.url}{form.path}", content=content, headers=headers, timeout=120).status_code


@pytest.mark.timeout(400)
def test_what_large_bodies_held_is_free_when_their_requests_end(
    small: RunningGateway, scripted: ScriptedApi
) -> None:
    """The long rounds, of thirty of each form, are in benchmarks/memory."""
    forms = [*PLAIN, COUNTS[0]]
    bodies = [(form, _body_of(31 * MEGABYTE, form)) for form in forms]

    def all_at_once() -> None:
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda one=one: answers.append(_post(small, *one)))
            for one in (*bodies, *bodies[:2])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        scripted.forget()
        assert answers == [200] * 8

    def one_by_one() -> None:
        for form, content in bodies:
            assert _post(small, form, content) == 200
            scripted.forget()

    seen: list[int] = []
    # What is kept for later is had after some rounds, fewer if nothing else runs; what leaks grows with each.
    while len(seen) < 2 or (len(seen) < 5 and seen[-1] > seen[-2] * 1.05):
        one_by_one()
        all_at_once()
        seen.append(_settled(small))
    assert seen[-1] <= seen[-2] * 1.05
    assert "Respawning" not in small.logs()


def _settled(gateway: RunningGateway) -> int:
    """The memory once what goes on after an answer has come to its end."""
    seen = [gateway.memory()]
    for _ in range(10):
        time.sleep(0.3)
        seen.append(gateway.memory())
    return min(seen[-5:])


def test_one_user_s_chats_leave_room_for_another_s(small: RunningGateway, scripted: ScriptedApi) -> None:
    """Each of alice's takes all that she may have, and the API thinks about it for long."""
    chat = PLAIN[3]
    thinks = threading.Event()
    scripted.always(chat.api_path, lambda one: _slowly(one, thinks))
    content = _body_of(31 * MEGABYTE, chat)
    threads = [threading.Thread(target=_post, args=(small, chat, content)) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while not scripted.received and time.monotonic() < deadline:
            time.sleep(0.05)
        assert scripted.received
        started = time.monotonic()
        assert _post(small, chat, _body_of(MEGABYTE, chat), "bob") == 200
        assert time.monotonic() - started < 20
        assert len(scripted.received) == 2
    finally:
        thinks.set()
        for thread in threads:
            thread.join()
        scripted.forget()


def _slowly(received: Received, thinks: threading.Event) -> list[bytes]:
    if len(received.body) > 10 * MEGABYTE:
        thinks.wait(60)
    return [reply(message())]


@pytest.mark.parametrize("value", [b"[]", b"[[]]", b'{"":0}', b'"a"', b'{"":' * 150 + b"0" + b"}" * 150])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/anthropic/v1/messages/batches"])
def test_no_number_of_values_ends_a_worker(small: RunningGateway, path: str, value: bytes) -> None:
    """Each takes up to fifty times its size once it has been read."""
    before = small.workers()
    values = b",".join([value] * (30 * MEGABYTE // (len(value) + 1)))
    content = b'{"model":"%b","max_tokens":9,"messages":[%b]}' % (MODEL.encode(), values)
    headers = {"Authorization": f"Bearer {USER_KEYS['alice']}", **JSON}
    answer = httpx.post(f"{small.url}{path}", content=content, headers=headers, timeout=120)
    # Beside its requests a batch has a limit of its own.
    assert (answer.status_code, "parts" in answer.text) == (400, True) or path.endswith("batches")
    assert answer.is_client_error
    assert small.workers() == before


@pytest.mark.parametrize("form", [*PLAIN, COUNTS[0]], ids=lambda form: form.name)
def test_what_litellm_translates_has_fewer_parts(alice: httpx.Client, api: ScriptedApi, form: Form) -> None:
    """It looks at each for so long that others would wait for seconds."""
    body = json.loads(_body_of(1, form))
    body["input" if form.name == "response" else "messages"] = [{"role": "user", "content": "A"}] * 15_000
    answer = alice.post(form.path, json=body)
    translated = form.name in ("message through the router", "chat", "response")
    assert answer.status_code == (400 if translated else 200), answer.text
    assert ("more than 100,000 parts" in answer.text) is translated
    assert len(api.received) == (0 if translated else 1)


def test_names_of_no_model_are_forgotten(small: RunningGateway) -> None:
    before = small.workers()
    headers = {"Authorization": f"Bearer {USER_KEYS['alice']}", **JSON}
    for number in range(25):
        content = json.dumps({**MESSAGE, "model": f"{number}{'A' * 30 * MEGABYTE}"})
        answer = httpx.post(f"{small.url}/v1/messages", content=content, headers=headers, timeout=120)
        assert answer.status_code == 400
    assert small.workers() == before


def test_who_sends_large_bodies_slowly_keeps_nobody_else_waiting(
    small: RunningGateway, scripted: ScriptedApi
) -> None:
    address = httpx.URL(small.url)
    head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {USER_KEYS['alice']}\r\n"
    connections = [socket.create_connection((address.host, address.port or 80), timeout=40) for _ in range(3)]
    try:
        for connection in connections:
            connection.sendall(f"{head}Content-Length: {32 * MEGABYTE}\r\n\r\n{{".encode())
        time.sleep(1)
        started = time.monotonic()
        assert _post(small, PLAIN[0], _body_of(MEGABYTE, PLAIN[0]), "bob") == 200
        assert time.monotonic() - started < 10
        # Alice's own next one waits until the slow ones are broken off.
        assert _post(small, PLAIN[0], _body_of(MEGABYTE, PLAIN[0])) == 200
        assert b" 408 " in connections[0].recv(1000).partition(b"\r\n")[0]
    finally:
        for connection in connections:
            connection.close()
        scripted.forget()


def test_uploads_without_a_key_disturb_nobody(small: RunningGateway, scripted: ScriptedApi) -> None:
    headers = {"Authorization": f"Bearer {USER_KEYS['alice']}"}

    def chat(number: int) -> list[float]:
        times = []
        with httpx.Client(base_url=small.url, headers=headers, timeout=30) as client:
            for _ in range(number):
                started = time.monotonic()
                assert client.post("/v1/messages", json=MESSAGE).status_code == 200
                times.append(time.monotonic() - started)
        return times

    chat(20)
    quiet = statistics.median(chat(100))
    stop = threading.Event()
    statuses: list[int] = []

    def upload() -> None:
        while not stop.is_set():
            statuses.append(
                _upload(small, "/v1/messages", "sk-nobody-knows", 600 * MEGABYTE, declared=False)[0]
            )
            time.sleep(0.05)

    threads = [threading.Thread(target=upload) for _ in range(20)]
    for thread in threads:
        thread.start()
    try:
        busy = chat(100)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {401}
    # Twenty threads of this test share two cores with the gateway: benchmarks/memory has the figure.
    assert statistics.median(busy) < quiet * 20
    assert "Respawning" not in small.logs()


def test_a_worker_that_dies_is_replaced_while_the_others_serve(tmp_path: Any, scripted: ScriptedApi) -> None:
    with running_gateway(tmp_path, configuration(scripted), scripted, workers=2) as gateway:
        gateway.log_in("alice")
        with gateway.client("alice") as client:
            _until(lambda: len(gateway.workers()) == 2)
            for _ in range(3):
                before = gateway.workers()
                os.kill(before[0], signal.SIGKILL)
                workers: list[int] = []
                while len(workers) != 2 or before[0] in workers:
                    time.sleep(0.05)
                    workers = gateway.workers()
                assert before[1] in workers
                answers = [_retrying(gateway, client) for _ in range(10)]
                assert set(answers) == {200}


def _until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"it does not hold after {seconds} s"
        time.sleep(0.1)


def _retrying(gateway: RunningGateway, client: httpx.Client) -> int:
    """A connection that the dead worker had accepted is reset; the next one is not."""
    for _ in range(20):
        try:
            return client.post("/v1/messages", json=MESSAGE).status_code
        except httpx.TransportError:
            time.sleep(0.2)
    return 0


def test_parameters_that_ask_for_nothing_can_be_dropped(tmp_path: Any, scripted: ScriptedApi) -> None:
    """As LiteLLM's own message advises."""
    config = configuration(scripted)
    config["litellm_settings"]["drop_params"] = True
    more = {"frequency_penalty": 0, "presence_penalty": 0, "seed": 1, "logit_bias": {}}
    with running_gateway(tmp_path, config, scripted) as gateway:
        gateway.log_in("alice")
        with gateway.client("alice") as client:
            answer = client.post("/v1/chat/completions", json={**MESSAGE, **more})
            assert answer.status_code == 200, answer.text
            assert not scripted.last.json.keys() & more.keys()
            # Messages go past the router all the same.
            answer = client.post("/v1/messages", json=MESSAGE)
            assert "x-litellm-call-id" not in answer.headers
