"""Faults strike as often as told, whom they are told to, and the request takes effect or not as told."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from support.oauth_client import OAuthClient


def test_a_status_is_answered_as_often_as_told_and_the_token_is_not_spent(client: OAuthClient) -> None:
    token = client.login()["refresh_token"]
    client.provider.fault("token", "status", status=429, retry_after=30, times=2)
    answers = [client.refresh(token) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "30"
    assert "error" in answers[0].json()
    assert client.provider.token_calls()["refresh_token"] == {"fault_status": 2, "ok": 1}


@pytest.mark.parametrize("status", [404, 500, 503, 529])
def test_any_error_status_can_be_had_from_the_api(client: OAuthClient, status: int) -> None:
    token = client.login()["access_token"]
    client.provider.fault("messages", "status", status=status)
    answer = client.ask(token)
    assert (answer.status_code, answer.json()["type"]) == (status, "error")
    record = client.provider.requests()[-1]
    assert (record["status"], record["account"]) == (status, "alice")
    assert record["model"] == "claude-sonnet-4-20250514"
    assert client.ask(token).status_code == 200


def test_an_error_can_come_after_the_rotation(client: OAuthClient) -> None:
    token = client.login()["refresh_token"]
    client.provider.fault("token", "status", status=500, after=True)
    assert client.refresh(token).status_code == 500
    assert client.refresh(token).json()["error"] == "invalid_grant"
    assert client.provider.counters()["events"]["families_revoked_refresh_token_reuse"] == 1


@pytest.mark.parametrize("kind", ["lost_answer", "cut"])
def test_an_answer_can_be_lost_after_the_rotation(client: OAuthClient, kind: str) -> None:
    token = client.login()["refresh_token"]
    client.provider.fault("token", kind)
    with pytest.raises(httpx.RemoteProtocolError):
        client.refresh(token)
    assert client.provider.token_calls()["refresh_token"] == {"ok": 1}
    assert client.refresh(token).json()["error"] == "invalid_grant"
    assert client.provider.control("GET", "faults")["struck"] == {f"token:{kind}": 1}


def test_a_stream_can_be_cut_in_the_middle(client: OAuthClient) -> None:
    token = client.login()["access_token"]
    client.provider.fault("messages", "cut")
    body = {
        "model": "claude-x",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "a"}],
        "stream": True,
    }
    url, headers = f"{client.provider.url}/v1/messages", client.api_headers(token)
    received = b""
    with client.http.stream("POST", url, json=body, headers=headers) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012 (what came before it counts)
            for piece in answer.iter_raw():
                received += piece
    assert client.provider.requests()[-1]["status"] == 0
    assert received.startswith(b"event: message_start")
    assert b"message_stop" not in received


def test_garbage_says_200_and_is_no_token_answer(client: OAuthClient) -> None:
    token = client.login()["refresh_token"]
    client.provider.fault("token", "garbage")
    answer = client.refresh(token)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert client.refresh(token).status_code == 200


@pytest.mark.parametrize("after", [False, True])
def test_a_slow_answer_is_right_and_late(client: OAuthClient, after: bool) -> None:
    token = client.login()["refresh_token"]
    client.provider.fault("token", "slow", seconds=0.2, after=after)
    started = time.monotonic()
    assert client.refresh(token).status_code == 200
    assert time.monotonic() - started >= 0.2


def test_a_slow_request_goes_on_when_its_client_has_gone(client: OAuthClient) -> None:
    token = client.login()["refresh_token"]
    client.provider.fault("token", "slow", seconds=0.2)
    with pytest.raises(httpx.ReadTimeout):
        client.http.post(
            client.provider.token_url,
            json={
                "grant_type": "refresh_token",
                "refresh_token": token,
                "client_id": client.provider.client_id,
            },
            timeout=0.05,
        )
    deadline = time.monotonic() + 5
    while client.provider.token_calls()["refresh_token"] != {"ok": 1} and time.monotonic() < deadline:
        time.sleep(0.02)
    assert client.provider.token_calls()["refresh_token"] == {"ok": 1}


def test_silence_ends_without_an_answer_and_others_are_served_meanwhile(client: OAuthClient) -> None:
    token = client.login()["refresh_token"]
    client.provider.fault("token", "silence", seconds=0.2)
    with pytest.raises(httpx.RemoteProtocolError):
        client.refresh(token)
    assert client.refresh(token).status_code == 200


def test_a_fault_can_be_about_one_grant_type_or_one_account(client: OAuthClient) -> None:
    alice, bob = client.login("alice"), client.login("bob")
    client.provider.fault("token", "status", grant_type="refresh_token", account="alice", times=None)
    assert client.refresh(bob["refresh_token"]).status_code == 200
    client.login("alice")
    assert [client.refresh(alice["refresh_token"]).status_code for _ in range(2)] == [500, 500]
    client.provider.fault("messages", "status", status=529, account="bob")
    assert client.ask(alice["access_token"]).status_code == 200
    assert client.ask(bob["access_token"]).status_code == 529
    client.provider.clear_faults()
    assert client.refresh(alice["refresh_token"]).status_code == 200


def test_faults_strike_in_the_order_in_which_they_were_armed(client: OAuthClient) -> None:
    token = client.login()["access_token"]
    for status in (500, 429):
        client.provider.fault("messages", "status", status=status)
    assert [client.ask(token).status_code for _ in range(3)] == [500, 429, 200]


def test_authorization_and_revocation_can_fail_too(client: OAuthClient) -> None:
    client.provider.fault("authorize", "status", status=503)
    assert client.authorize().status_code == 503
    token = client.login()["refresh_token"]
    client.provider.fault("revoke", "status", status=503)
    assert client.revoke(token).status_code == 503
    assert client.refresh(token).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "names"),
    [
        ("faults", {}, "endpoint"),
        ("faults", {"endpoint": "nowhere", "kind": "status"}, "endpoint"),
        ("faults", {"endpoint": "token", "kind": "odd"}, "kind"),
        ("faults", {"endpoint": "token", "kind": "status", "status": 200}, "status"),
        ("faults", {"endpoint": "token", "kind": "status", "times": 0}, "times"),
        ("faults", {"endpoint": "token", "kind": "status", "colour": 1}, "colour"),
        ("faults", {"endpoint": "token", "kind": "status", "seconds": 1}, "seconds"),
        ("faults", {"endpoint": "token", "kind": "cut", "status": 500}, "status"),
        ("faults", {"endpoint": "token", "kind": "cut", "after": False}, "after"),
        ("faults", {"endpoint": "token", "kind": "slow"}, "seconds"),
        ("faults", {"endpoint": "token", "kind": "slow", "seconds": "1"}, "seconds"),
        ("faults", {"endpoint": "messages", "kind": "cut", "grant_type": "refresh_token"}, "grant_type"),
        ("faults", {"endpoint": "token", "kind": "cut", "account": "<b>"}, "account"),
        ("faults", [], "object"),
        ("settings", {"rotate": 1}, "rotate"),
        ("settings", {"expires_in": "soon"}, "expires_in"),
        ("settings", {"access_token_seconds": None}, "access_token_seconds"),
        ("settings", {"clock_skew_seconds": 1e300}, "clock_skew_seconds"),
        ("settings", {"unknown": 1}, "unknown"),
        ("expire", {"account": 5}, "account"),
        ("reset", {"logins": "yes"}, "logins"),
        ("logins", {}, "accounts"),
        ("logins", {"accounts": []}, "accounts"),
        ("logins", {"accounts": ["alice", None]}, "accounts"),
        ("logins", {"accounts": ["alice", "<b>"]}, "account"),
        ("logins", {"accounts": ["alice"] * 1001}, "1000"),
    ],
)
def test_wrong_control_input_is_told_in_one_json_error_and_changes_nothing(
    client: OAuthClient, path: str, body: Any, names: str
) -> None:
    before = client.provider.settings()
    answer = client.http.post(f"{client.provider.url}/control/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_control_input"
    assert names in answer.json()["error"]["message"]
    assert client.provider.settings() == before
    assert client.provider.control("GET", "faults")["armed"] == []
    assert client.provider.logins() == []


def test_other_web_pages_cannot_use_the_control_routes(client: OAuthClient) -> None:
    answer = client.http.post(
        f"{client.provider.url}/control/reset", headers={"sec-fetch-site": "cross-site"}
    )
    assert answer.status_code == 403


def test_a_reset_puts_everything_back_and_keeps_logins_unless_told(client: OAuthClient) -> None:
    tokens = client.login()
    client.provider.fault("token", "status", times=None)
    client.provider.settings(clock_skew_seconds=100_000, rotate=False)
    client.provider.reset(logins=False)
    assert client.provider.settings()["rotate"] is True
    assert client.provider.token_calls()["total"] == 0
    assert client.ask(tokens["access_token"]).status_code == 200
    client.provider.reset(logins=True)
    assert client.ask(tokens["access_token"]).status_code == 401
