"""Refresh tokens rotate; one that comes back ends the whole login (RFC 6749 §6, RFC 9700 §4.14.2)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support.oauth_client import OAuthClient
from support.sandbox import fingerprint


def refused(answer: httpx.Response, error: str = "invalid_grant") -> None:
    assert (answer.status_code, answer.json()["error"]) == (400, error), answer.text


def good(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


@pytest.mark.parametrize("form", [False, True])
def test_a_refresh_gives_two_new_tokens_and_the_old_access_token_lives_on(
    client: OAuthClient, form: bool
) -> None:
    old = client.login()
    new = good(client.refresh(old["refresh_token"], form=form))
    assert new["access_token"] != old["access_token"]
    assert new["refresh_token"] != old["refresh_token"]
    assert new["account"] == old["account"]
    assert client.ask(new["access_token"]).status_code == 200
    assert client.ask(old["access_token"]).status_code == 200


def test_logins_without_a_browser_are_logins_like_any_other(client: OAuthClient) -> None:
    alice, bob = client.provider.log_in("alice", "bob")
    by_browser = client.login("carol")
    assert alice.keys() == by_browser.keys()
    assert alice["account"]["email_address"] == "alice@sandbox.example"
    assert client.ask(bob["access_token"]).status_code == 200
    good(client.refresh(alice["refresh_token"]))
    refused(client.refresh(alice["refresh_token"]))
    assert [bool(login["revoked_because"]) for login in client.provider.logins("alice")] == [True]
    assert client.ask(bob["access_token"]).status_code == 200


def test_a_spent_refresh_token_that_comes_back_revokes_the_whole_family(client: OAuthClient) -> None:
    first = client.login()
    second = good(client.refresh(first["refresh_token"]))
    third = good(client.refresh(second["refresh_token"]))
    refused(client.refresh(first["refresh_token"]))
    refused(client.refresh(third["refresh_token"]))
    for tokens in (first, second, third):
        assert client.ask(tokens["access_token"]).status_code == 401
    assert client.provider.counters()["events"]["families_revoked_refresh_token_reuse"] == 1
    assert client.provider.logins("alice")[0]["revoked_because"] == "refresh_token_reuse"


def test_reuse_does_not_touch_another_login_of_the_same_account(client: OAuthClient) -> None:
    first, other = client.login("alice"), client.login("alice")
    good(client.refresh(first["refresh_token"]))
    refused(client.refresh(first["refresh_token"]))
    assert client.ask(other["access_token"]).status_code == 200
    good(client.refresh(other["refresh_token"]))


def test_of_many_simultaneous_refreshes_one_wins_and_the_family_is_gone(client: OAuthClient) -> None:
    token = client.login()["refresh_token"]
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: client.refresh(token).status_code, range(8)))
    assert sorted(statuses) == [200] + [400] * 7
    assert client.provider.logins()[0]["live_refresh_tokens"] == []


def test_an_access_token_is_no_refresh_token(client: OAuthClient) -> None:
    refused(client.refresh(client.login()["access_token"]))
    assert client.ask(client.login()["refresh_token"]).status_code == 401


def test_a_foreign_client_cannot_refresh(client: OAuthClient) -> None:
    refused(client.refresh(client.login()["refresh_token"], client_id="somebody-else"), "invalid_client")
    refused(client.refresh("x", refresh_token=None), "invalid_request")


def test_scope_can_be_narrowed_for_the_access_token_and_never_widened(client: OAuthClient) -> None:
    narrow = client.login(scope="user:profile")
    refused(client.refresh(narrow["refresh_token"], scope="user:profile user:inference"), "invalid_scope")
    wide = client.login()
    less = good(client.refresh(wide["refresh_token"], scope="user:profile"))
    assert less["scope"] == "user:profile"
    assert client.ask(less["access_token"]).status_code == 403
    again = good(client.refresh(less["refresh_token"]))
    assert again["scope"] == "user:inference user:profile"


def test_the_life_of_refresh_tokens_is_counted_from_the_login(client: OAuthClient) -> None:
    client.provider.settings(refresh_token_seconds=1000)
    token = client.login()["refresh_token"]
    client.provider.settings(clock_skew_seconds=600)
    renewed = good(client.refresh(token))
    assert 398 <= renewed["refresh_token_expires_in"] <= 400
    client.provider.settings(clock_skew_seconds=1001)
    refused(client.refresh(renewed["refresh_token"]))


def test_lifetimes_can_be_told_wrong_and_left_out(client: OAuthClient) -> None:
    client.provider.settings(expires_in=-5, send_refresh_token_expires_in=False)
    tokens = client.login()
    assert tokens["expires_in"] == -5
    assert "refresh_token_expires_in" not in tokens
    assert client.ask(tokens["access_token"]).status_code == 200


def test_a_provider_that_does_not_rotate_sends_the_same_token_again(client: OAuthClient) -> None:
    client.provider.settings(rotate=False)
    token = client.login()["refresh_token"]
    assert [good(client.refresh(token))["refresh_token"] for _ in range(2)] == [token, token]


def test_a_provider_that_sends_no_refresh_token_keeps_the_old_one_good(client: OAuthClient) -> None:
    token = client.login()["refresh_token"]
    client.provider.settings(send_refresh_token=False)
    assert "refresh_token" not in good(client.refresh(token))
    assert "refresh_token" not in good(client.refresh(token))


def test_the_list_of_logins_names_what_is_alive_by_fingerprint(client: OAuthClient) -> None:
    old = client.login()
    new = good(client.refresh(old["refresh_token"]))
    (login,) = client.provider.logins("alice")
    assert login["live_refresh_tokens"] == [fingerprint(new["refresh_token"])]
    assert login["live_access_tokens"] == [fingerprint(t["access_token"]) for t in (old, new)]


def test_a_login_withdrawn_by_its_owner_is_dead(client: OAuthClient) -> None:
    alice, bob = client.login("alice"), client.login("bob")
    client.provider.revoke("alice")
    refused(client.refresh(alice["refresh_token"]))
    assert client.ask(alice["access_token"]).status_code == 401
    good(client.refresh(bob["refresh_token"]))


def test_a_revoked_refresh_token_ends_its_family(client: OAuthClient) -> None:
    tokens = client.login()
    answer = client.revoke(tokens["refresh_token"], token_type_hint="refresh_token")
    assert (answer.status_code, answer.json()) == (200, {})
    # the access token first: a spent refresh token that comes back would end it as well
    assert client.ask(tokens["access_token"]).status_code == 401
    refused(client.refresh(tokens["refresh_token"]))
    assert client.provider.logins("alice")[0]["revoked_because"] == "revoked_by_client"


@pytest.mark.parametrize("hint", [None, "access_token", "refresh_token", "nonsense"])
def test_a_revoked_access_token_ends_alone_whatever_the_hint(client: OAuthClient, hint: str | None) -> None:
    tokens = client.login()
    assert client.revoke(tokens["access_token"], form=True, token_type_hint=hint).status_code == 200
    assert client.ask(tokens["access_token"]).status_code == 401
    good(client.refresh(tokens["refresh_token"]))


def test_revocation_is_idempotent_and_asks_for_client_and_token(client: OAuthClient) -> None:
    token = client.login()["refresh_token"]
    assert [client.revoke(token).status_code for _ in range(2)] == [200, 200]
    assert client.revoke("never issued").status_code == 200
    refused(client.revoke(token, client_id="somebody-else"), "invalid_client")
    refused(client.revoke("x", token=None), "invalid_request")
