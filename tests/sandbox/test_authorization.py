"""The authorization endpoint: who is redirected, with what, and who never is (RFC 6749 §4.1, RFC 7636)."""

from __future__ import annotations

import shutil
import subprocess
from urllib.parse import urlencode

import pytest

from support.oauth_client import OAuthClient, redirected, s256
from support.sandbox import CLIENT_ID, SandboxProvider, running_sandbox


def test_a_right_request_is_redirected_with_a_code_and_its_state(client: OAuthClient) -> None:
    answer = client.authorize()
    assert answer.headers["location"].startswith(f"{client.provider.redirect_uri}?code=")
    assert redirected(answer)["state"] == client.state
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("end", ["/", "?x=1", "%2F", "#x", " "])
def test_a_redirect_uri_that_differs_at_its_end_is_never_redirected_to(client: OAuthClient, end: str) -> None:
    answer = client.authorize(redirect_uri=client.provider.redirect_uri + end)
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert answer.json()["error"] == "invalid_request"


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": None},
        {"redirect_uri": "http://evil.example/"},
        {"redirect_uri": 'http://evil.example/"<script>'},
        {"client_id": None},
        {"client_id": "somebody-else"},
        {"state": "line\nbreak"},
    ],
)
def test_without_a_known_client_and_its_redirect_uri_there_is_an_error_page_and_no_redirect(
    client: OAuthClient, changes: dict[str, str | None]
) -> None:
    with client.provider.browser() as browser:
        answer = browser.get(client.authorization_url(**changes), follow_redirects=False)
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert "This sign-in link is wrong" in answer.text
    assert "<script>" not in answer.text


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "s256"}, "invalid_request"),
        ({"code_challenge": s256("x")[:-1]}, "invalid_request"),
        ({"code_challenge": s256("x") + "="}, "invalid_request"),
        ({"code_challenge": "~" * 43}, "invalid_request"),
        ({"scope": "user:inference everything"}, "invalid_scope"),
        ({"response_type": "token"}, "unsupported_response_type"),
    ],
)
def test_other_faults_are_told_to_the_client_with_its_state_and_without_a_code(
    client: OAuthClient, changes: dict[str, str | None], error: str
) -> None:
    answer = client.authorize(**changes)
    assert answer.headers["location"].startswith(f"{client.provider.redirect_uri}?")
    given = redirected(answer)
    assert given["error"] == error
    assert given["state"] == client.state
    assert "code" not in given


@pytest.mark.parametrize(
    "name", ["state", "redirect_uri", "code_challenge", "code_challenge_method", "scope"]
)
def test_a_parameter_that_comes_twice_is_refused_without_a_redirect(client: OAuthClient, name: str) -> None:
    url = client.authorization_url()
    answer = client.http.get(f"{url}&{urlencode({name: 'x'})}")
    assert answer.status_code == 400
    assert "location" not in answer.headers


def test_left_out_scopes_mean_all_that_the_client_may_have(client: OAuthClient) -> None:
    assert client.login(scope=None)["scope"] == "user:inference user:profile"


def test_the_hint_names_the_account_and_the_same_name_is_the_same_account(client: OAuthClient) -> None:
    first, again = client.login("alice"), client.login(" Alice@sandbox.example ")
    assert first["account"]["email_address"] == "alice@sandbox.example"
    assert first["account"] == again["account"]
    assert first["account"]["uuid"] != client.login("bob")["account"]["uuid"]


def test_without_a_hint_each_approval_is_a_new_person(client: OAuthClient) -> None:
    client.login("person-2")
    codes = [redirected(client.authorize())["code"] for _ in range(2)]
    emails = [client.exchange(code).json()["account"]["email_address"] for code in codes]
    assert emails == ["person-1@sandbox.example", "person-3@sandbox.example"]


def test_a_hint_that_is_no_account_name_is_refused(client: OAuthClient) -> None:
    answer = client.authorize(login_hint="<b>")
    assert answer.status_code == 400
    assert "login_hint" in answer.json()["error_description"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="this machine has no curl")
def test_curl_follows_the_link_to_the_page_that_shows_code_and_state(client: OAuthClient) -> None:
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--noproxy", "*", "-L", client.authorization_url()],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    line = next(line for line in done.stdout.splitlines() if 'id="code"' in line)
    shown = line.split(">")[1].split("<")[0]
    code, _, state = shown.partition("#")
    assert state == client.state
    assert client.exchange(code).status_code == 200


def test_several_clients_and_redirect_uris_are_kept_apart_by_exact_names(sandbox: SandboxProvider) -> None:
    uris = "http://localhost:1/cb,http://localhost:1/other"
    with running_sandbox(SANDBOX_CLIENT_ID=f"{CLIENT_ID},second", SANDBOX_REDIRECT_URIS=uris) as provider:
        client = OAuthClient(provider)
        code = redirected(client.authorize(redirect_uri="http://localhost:1/cb"))["code"]
        crossed = client.exchange(code, redirect_uri="http://localhost:1/other")
        assert crossed.json()["error"] == "invalid_grant"
        foreign = client.exchange(code, redirect_uri="http://localhost:1/cb", client_id="second")
        assert (foreign.status_code, foreign.json()["error"]) == (400, "invalid_grant")
        tokens = client.exchange(code, redirect_uri="http://localhost:1/cb").json()
        assert client.refresh(tokens["refresh_token"], client_id="second").json()["error"] == "invalid_grant"
        assert client.revoke(tokens["refresh_token"], client_id="second").json()["error"] == "invalid_grant"
        assert client.refresh(tokens["refresh_token"]).status_code == 200
