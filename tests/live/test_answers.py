"""What the API sends arrives: headers, statuses, streams; and what a client left behind ends."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import Any

import httpx
import pytest

from support.asking import COUNTS, FORMS, MESSAGE, MODEL, PLAIN, STREAMED, Form
from support.leaving import ask, leave
from support.running_gateway import USER_KEYS, RunningGateway
from support.scripted_api import STREAM_HEAD, Received, ScriptedApi, events, reply

OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
SAID = [
    ("Retry-After", "7"),
    ("request-id", "req_1"),
    ("anthropic-ratelimit-unified-status", "rejected"),
    ("x-should-retry", "true"),
    ("Set-Cookie", "session=of-the-api"),
]
FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)


@FORM
@pytest.mark.parametrize("status", [429, 503, 529])
def test_an_error_of_the_api_arrives_at_once_with_what_it_says(
    alice: httpx.Client, api: ScriptedApi, form: Form, status: int
) -> None:
    api.always(form.api_path, reply(OVERLOADED, f"{status} Busy", SAID))
    started = time.monotonic()
    answer = form.ask(alice)
    # OpenAI's clients know no 529.
    assert answer.status_code == (503 if status == 529 and not form.anthropic else status)
    for name, value in SAID[:-1]:
        assert answer.headers[name] == value, name
    assert not [name for name in answer.headers if "cookie" in name.lower()]
    # The API has said when to ask again, so nobody did before.
    assert len(api.received) == 1
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("form", PLAIN + COUNTS, ids=lambda form: form.name)
def test_a_good_answer_tells_the_api_s_own_names_and_no_cookie(
    alice: httpx.Client, api: ScriptedApi, form: Form
) -> None:
    usual = json.loads(next(iter(api.answer(_asked(form)))).partition(b"\r\n\r\n")[2])
    api.forget()
    api.always(form.api_path, reply(usual, headers=SAID))
    answer = form.ask(alice)
    assert answer.status_code == 200, answer.text
    assert (answer.headers["request-id"], answer.headers["anthropic-ratelimit-unified-status"]) == (
        "req_1",
        "rejected",
    )
    assert not [name for name in answer.headers if "cookie" in name.lower()]


def _asked(form: Form) -> Received:
    return Received("POST", form.api_path, "", {}, json.dumps(form.body).encode())


@FORM
@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize("model", ["keyed", MODEL])
def test_no_error_shows_the_credential_that_it_is_about(
    gateway: RunningGateway, alice: httpx.Client, api: ScriptedApi, form: Form, status: int, model: str
) -> None:
    def quoting(received: Received) -> list[bytes]:
        sent = received.headers.get("x-api-key") or received.token
        error = {"type": "authentication_error", "message": f"Not good: {sent}, that is {sent}."}
        return [reply({"type": "error", "error": error}, f"{status} No", [("Retry-After", "1")])]

    gateway.log_in("alice")
    api.always(form.api_path, quoting)
    answer = form.ask(alice, model=model)
    assert answer.is_error
    sent = {one.headers.get("x-api-key") or one.token for one in api.received}
    assert not [one for one in sent if one in answer.text]
    assert not [one for one in sent if one in gateway.logs()]


@FORM
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(alice: httpx.Client, api: ScriptedApi, form: Form, status: int) -> None:
    elsewhere = f"{api.url}/elsewhere"
    api.always(form.api_path, reply("", f"{status} Moved", [("Location", elsewhere)]))
    answer = form.ask(alice)
    assert answer.status_code == 502, answer.text
    assert "redirect" in answer.json()["error"]["message"]
    assert [one.path for one in api.received] == [form.api_path]


@FORM
@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "503 Busy"])
def test_a_page_at_the_api_s_address_is_told_as_one(
    alice: httpx.Client, api: ScriptedApi, form: Form, status: str
) -> None:
    page = reply(
        "<html>Sign in to the network</html>", status, [("Content-Type", "text/html; charset=utf-8")]
    )
    api.always(form.api_path, page)
    answer = form.ask(alice)
    assert answer.status_code == 502, answer.text
    error = answer.json()["error"]
    assert error["code"] == "not_the_api"
    assert httpx.URL(api.url).host in error["message"]
    assert "Sign in" not in answer.text
    assert len(api.received) == 1


@pytest.mark.parametrize("form", FORMS[:1] + PLAIN[1:], ids=lambda form: form.name)
def test_an_operator_s_key_follows_no_redirect_either(
    alice: httpx.Client, api: ScriptedApi, form: Form
) -> None:
    api.always(form.api_path, reply("", "307 Moved", [("Location", f"{api.url}/elsewhere")]))
    answer = form.ask(alice, model="keyed")
    assert answer.status_code == 502, answer.text
    assert [one.path for one in api.received] == [form.api_path]


@pytest.mark.parametrize("form", STREAMED, ids=lambda form: form.name)
@pytest.mark.parametrize("half", [b"", b'event: content_block_delta\ndata: {"type":"content_block_de'])
def test_an_end_that_only_the_transport_calls_good_is_told_as_an_error(
    alice: httpx.Client, api: ScriptedApi, form: Form, half: bytes
) -> None:
    pieces = b"".join(events(end=False)) + half
    packed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(pieces), pieces)
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    api.then(form.api_path, lambda _: [head, packed])
    answer = form.ask(alice)
    assert answer.status_code == 200
    assert "error" in answer.text.rpartition("Hello back")[2], answer.text
    # What came of the last event is nobody's whole event.
    assert "content_block_de\n" not in answer.text
    assert "content_block_de\r" not in answer.text


@pytest.mark.parametrize("form", STREAMED[:3], ids=lambda form: form.name)
def test_an_event_that_does_not_end_is_broken_off(alice: httpx.Client, api: ScriptedApi, form: Form) -> None:
    api.then(form.api_path, lambda _: [STREAM_HEAD, *events(end=False), b"data: ", *[b"A" * 1_000_000] * 40])
    answer = form.ask(alice)
    assert answer.status_code == 200
    assert "error" in answer.text.rpartition("Hello back")[2]
    assert len(answer.text) < 1_000_000


@pytest.mark.parametrize("form", STREAMED, ids=lambda form: form.name)
def test_a_whole_stream_ends_without_an_error(alice: httpx.Client, api: ScriptedApi, form: Form) -> None:
    answer = form.ask(alice)
    assert "Hello back" in answer.text
    assert '"error": {' not in answer.text
    assert "event: error" not in answer.text


@FORM
def test_who_leaves_before_the_first_byte_leaves_nothing_running(
    gateway: RunningGateway, api: ScriptedApi, form: Form
) -> None:
    assert leave(gateway, api, form) < 2
    assert len(api.received) == 1


def test_who_leaves_while_litellm_waits_to_try_again_is_not_asked_for_again(
    gateway: RunningGateway, api: ScriptedApi
) -> None:
    api.then("/v1/messages", reply(OVERLOADED, "500 Broken"))
    address = httpx.URL(gateway.url)
    connection = http.client.HTTPConnection(address.host, address.port or 80, timeout=20)
    headers = {"Authorization": f"Bearer {USER_KEYS['alice']}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps({**MESSAGE, "num_retries": 3}), headers)
    deadline = time.monotonic() + 10
    while not api.received:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    asked = len(api.received)
    connection.close()
    time.sleep(2.5)
    assert len(api.received) == asked


@pytest.mark.parametrize("form", [PLAIN[0], PLAIN[3]], ids=lambda form: form.name)
def test_a_client_that_closes_its_sending_half_is_taken_for_one_that_left(
    gateway: RunningGateway, api: ScriptedApi, form: Form
) -> None:
    api.always(form.api_path, lambda received: received.wait_closed(10) or [])  # type: ignore[func-returns-value]
    connection = ask(gateway, form)
    assert connection.sock is not None
    connection.sock.shutdown(socket.SHUT_WR)
    assert connection.sock.recv(1) == b""
    connection.close()
    # The API was not asked, or not for longer than that.
    assert not api.received or api.last.closed.wait(5)


# A token that has just been refreshed is not refreshed again, so each form has a user of its own.
@pytest.mark.parametrize(("form", "user"), [(PLAIN[0], "bob"), (PLAIN[3], "dora")], ids=["message", "chat"])
def test_a_refresh_goes_on_when_the_one_who_waits_for_it_leaves(
    gateway: RunningGateway, api: ScriptedApi, form: Form, user: str
) -> None:
    with gateway.client(user) as bob:
        before = bob.get("/auth/claude/oauth/status").json()["generation"]
    # Every token but the next one is dead.
    api.always(
        form.api_path,
        lambda received: [
            reply({"type": "error", "error": {"type": "authentication_error", "message": "dead"}}, "401 No")
        ],
    )
    api.token_delay = 1.5
    connection = ask(gateway, form, user)
    deadline = time.monotonic() + 10
    while not api.token_calls:
        assert time.monotonic() < deadline, "nobody asked for a new token"
        time.sleep(0.01)
    connection.close()
    with gateway.client(user) as bob:
        while bob.get("/auth/claude/oauth/status").json()["generation"] != before + 1:
            assert time.monotonic() < deadline + 5, "the refresh was thrown away"
            time.sleep(0.1)
    assert len(api.token_calls) == 1


@pytest.mark.parametrize("form", PLAIN, ids=lambda form: form.name)
@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": "Hello", "input": {"a": 1}},
        {"messages": [1], "input": [1]},
        {"messages": [{"role": "user", "content": [{"type": "no-such-block"}]}], "input": [{"type": "odd"}]},
        {"messages": None, "input": None},
        {"messages": [{"role": "user", "content": {"deep": {}}}], "input": [[]]},
        {"messages": [None], "input": [None]},
        {"messages": [{"role": "tool"}], "input": [{"role": "tool"}]},
        {"tools": "none"},
        {"tools": [{"type": "odd"}, 7]},
        {"max_tokens": "many", "max_output_tokens": "many"},
        {"metadata": "text"},
        {"litellm_params": "text"},
        {"litellm_params": [1]},
        {"stream": "perhaps"},
    ],
    ids=str,
)
def test_a_client_s_fault_is_never_a_fault_of_the_server(
    alice: httpx.Client, api: ScriptedApi, form: Form, wrong: dict[str, Any]
) -> None:
    answer = form.ask(alice, **wrong)
    assert answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text
