"""The token endpoint's code exchange (RFC 6749 §4.1.3, §5; RFC 7636 §4.5)."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from support.oauth_client import OAuthClient, redirected, s256


def refused(answer: httpx.Response, error: str = "invalid_grant", status: int = 400) -> None:
    """An error of RFC 6749 §5.2, without a token."""
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "sk-ant" not in answer.text


@pytest.mark.parametrize("form", [False, True])
def test_the_right_code_and_verifier_get_tokens(client: OAuthClient, form: bool) -> None:
    answer = client.exchange(client.code("alice"), form=form)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    tokens = answer.json()
    assert tokens["access_token"].startswith("sk-ant-oat01-sandbox-")
    assert tokens["refresh_token"].startswith("sk-ant-ort01-sandbox-")
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 28800
    assert tokens["refresh_token_expires_in"] == 30 * 24 * 3600
    assert tokens["scope"] == "user:inference user:profile"
    assert set(tokens["account"]) == {"uuid", "email_address"}
    assert set(tokens["organization"]) == {"uuid", "name"}


def test_a_wrong_verifier_is_refused(client: OAuthClient) -> None:
    refused(client.exchange(client.code(), code_verifier="w" * 64))


def test_the_challenge_itself_is_no_verifier(client: OAuthClient) -> None:
    refused(client.exchange(client.code(), code_verifier=s256(client.verifier)))


@pytest.mark.parametrize(
    "verifier", [None, "", "v" * 42, "v" * 129, "v" * 50 + "+", "v" * 50 + "é", "v" * 50 + "\n"]
)
def test_a_verifier_that_is_none_is_refused_as_an_invalid_request(
    client: OAuthClient, verifier: str | None
) -> None:
    challenge = s256(verifier or "")
    refused(client.exchange(client.code(code_challenge=challenge), code_verifier=verifier), "invalid_request")


@pytest.mark.parametrize("length", [43, 128])
def test_the_shortest_and_the_longest_verifier_are_taken(client: OAuthClient, length: int) -> None:
    verifier = "-._~" + "v" * (length - 4)
    answer = client.exchange(client.code(code_challenge=s256(verifier)), code_verifier=verifier)
    assert answer.status_code == 200


def test_a_code_works_once_and_its_second_use_revokes_what_it_gave(client: OAuthClient) -> None:
    code = client.code()
    tokens = client.exchange(code).json()
    refused(client.exchange(code))
    assert client.ask(tokens["access_token"]).status_code == 401
    refused(client.refresh(tokens["refresh_token"]))
    assert client.provider.counters()["events"]["families_revoked_code_reuse"] == 1


def test_a_refused_exchange_leaves_the_code_usable(client: OAuthClient) -> None:
    code = client.code()
    refused(client.exchange(code, code_verifier="w" * 64))
    assert client.exchange(code).status_code == 200


def test_a_code_lives_ten_minutes(client: OAuthClient) -> None:
    early, late = client.code(), client.code()
    client.provider.settings(clock_skew_seconds=595)
    assert client.exchange(early).status_code == 200
    client.provider.settings(clock_skew_seconds=601)
    refused(client.exchange(late))


def test_the_redirect_uri_has_to_be_the_one_of_the_authorization(client: OAuthClient) -> None:
    for uri in (f"{client.provider.redirect_uri}/", None):
        refused(client.exchange(client.code(), redirect_uri=uri))


@pytest.mark.parametrize("client_id", ["somebody-else", None])
def test_a_foreign_or_missing_client_is_refused(client: OAuthClient, client_id: str | None) -> None:
    refused(client.exchange(client.code(), client_id=client_id), "invalid_client")


def test_a_state_is_checked_if_it_is_sent(client: OAuthClient) -> None:
    refused(client.exchange(client.code(), state="forged"))
    refused(client.exchange(client.code(state=None), state="invented"))
    assert client.exchange(client.code(), state=None).status_code == 200


@pytest.mark.parametrize("code", ["unknown", None])
def test_an_unknown_or_missing_code_is_refused(client: OAuthClient, code: str | None) -> None:
    refused(client.exchange("x", code=code), "invalid_request" if code is None else "invalid_grant")


@pytest.mark.parametrize(
    ("grant_type", "error"),
    [("password", "unsupported_grant_type"), ("client_credentials", "unsupported_grant_type"), (None, None)],
)
def test_other_grants_are_refused(client: OAuthClient, grant_type: str | None, error: str | None) -> None:
    answer = client.exchange(client.code(), grant_type=grant_type)
    assert answer.status_code == 400
    assert answer.json()["error"] in ({error} if error else {"invalid_request", "unsupported_grant_type"})


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"grant_type": 1}',
        b'{"grant_type": "refresh_token", "grant_type": "refresh_token"}',
        b'{"grant_type": "refresh_token", "client_id": "litellm-oauth-sandbox", "refresh_token": "\\ud800"}',
        b'{"grant_type": "authorization_code", "client_id": "litellm-oauth-sandbox", "code": "\\u00e9"}',
        b"\xff\xfe",
        b"[" * 50_000,
        b" " * 70_000,
    ],
)
def test_bodies_that_make_no_sense_are_refused_in_the_shape_of_the_standard(
    client: OAuthClient, content: bytes
) -> None:
    answer = client.http.post(
        client.provider.token_url, content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code in {400, 413}
    assert set(answer.json()) <= {"error", "error_description"}


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        ({"content": b"grant_type=refresh_token"}, "invalid_request"),
        ({"data": {"client_id": ["litellm-oauth-sandbox", "x"], "grant_type": "x"}}, "invalid_request"),
        ({"json": {}, "params": {"client_id": "x"}}, "invalid_request"),
        ({"json": {"client_id": "litellm-oauth-sandbox"}, "auth": ("a", "b")}, "invalid_client"),
        ({"json": {"grant_type": "refresh_token", "client_secret": "x"}}, "invalid_client"),
    ],
)
def test_parameters_come_once_in_a_typed_body_without_a_secret(
    client: OAuthClient, sent: dict[str, Any], error: str
) -> None:
    answer = client.http.post(client.provider.token_url, **sent)
    assert answer.status_code in {400, 401}
    assert answer.json()["error"] == error


def test_a_member_that_comes_twice_in_json_is_refused(client: OAuthClient) -> None:
    fields = {"grant_type": "refresh_token", "refresh_token": client.login()["refresh_token"]}
    name = json.dumps(client.provider.client_id)
    twice = f'{json.dumps(fields)[:-1]}, "client_id": {name}, "client_id": {name}}}'
    headers = {"content-type": "application/json"}
    refused(client.http.post(client.provider.token_url, content=twice, headers=headers), "invalid_request")


def test_calls_are_counted_by_grant_type_outcome_and_account(client: OAuthClient) -> None:
    alice, bob = client.login("alice"), client.login("bob")
    client.refresh(alice["refresh_token"])
    client.refresh("unknown")
    client.exchange("unknown")
    assert client.provider.token_calls() == {
        "total": 5,
        "authorization_code": {"ok": 2, "invalid_grant": 1},
        "refresh_token": {"ok": 1, "invalid_grant": 1},
    }
    assert client.provider.token_calls("alice") == {
        "total": 2,
        "authorization_code": {"ok": 1},
        "refresh_token": {"ok": 1},
    }
    assert bob["account"] != alice["account"]


def test_a_code_of_one_login_does_not_take_the_verifier_of_another(client: OAuthClient) -> None:
    other = OAuthClient(client.provider)
    code = redirected(other.authorize())["code"]
    refused(client.exchange(code, state=other.state))
