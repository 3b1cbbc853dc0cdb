"""The consent and code pages: a person decides, once, in their own browser."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import httpx
import pytest

from support.oauth_client import OAuthClient, redirected
from support.sandbox import SandboxProvider, shown_code


def test_a_browser_is_asked_and_nothing_is_granted_by_looking(client: OAuthClient) -> None:
    with client.provider.browser() as browser:
        page = browser.get(client.authorization_url(login_hint="alice"), follow_redirects=False)
    assert page.status_code == 200
    for text in ("Sandbox sign-in", "stand-in", client.provider.client_id, "user:inference", "user:profile"):
        assert text in page.text
    assert 'value="alice"' in page.text
    assert client.provider.counters()["events"] == {}


def test_a_script_in_a_page_is_asked_too_although_it_accepts_anything(client: OAuthClient) -> None:
    answer = client.http.get(
        client.authorization_url(), headers={"accept": "*/*", "sec-fetch-mode": "no-cors"}
    )
    assert (answer.status_code, "location" in answer.headers) == (200, False)


def test_allow_leads_to_the_code_page_and_the_code_works(client: OAuthClient) -> None:
    shown = client.provider.approve(client.authorization_url(), "carol")
    code, _, state = shown.partition("#")
    assert state == client.state
    assert client.exchange(code).json()["account"]["email_address"] == "carol@sandbox.example"


def test_the_code_page_says_what_to_do_next(client: OAuthClient) -> None:
    with client.provider.browser() as browser:
        page = client.provider.press(browser, browser.get(client.authorization_url()), "allow")
    command = f"ansible-playbook oauth_login.yml -e code=&#x27;{shown_code(page)}&#x27;"
    assert command in page.text
    assert page.text.count('id="code"') == 1


def test_deny_leads_back_with_access_denied_and_the_page_explains(client: OAuthClient) -> None:
    with client.provider.browser() as browser:
        page = client.provider.press(browser, browser.get(client.authorization_url()), "deny")
    assert page.status_code == 200
    assert "Access was denied" in page.text
    assert redirected(page.history[-1]) == {
        "error": "access_denied",
        "error_description": "The resource owner or authorization server denied the request",
        "state": client.state,
    }
    assert client.provider.counters()["events"] == {"authorizations_denied": 1}


def test_the_form_is_answered_with_303_so_that_no_browser_sends_it_on(client: OAuthClient) -> None:
    with client.provider.browser() as browser:
        page = client.provider.press(browser, browser.get(client.authorization_url()), "allow")
    assert page.history[0].status_code == 303


def test_a_wrong_account_name_is_asked_for_again(client: OAuthClient) -> None:
    with client.provider.browser() as browser:
        page = browser.get(client.authorization_url())
        again = client.provider.press(browser, page, "allow", account="<b>")
        assert again.status_code == 400
        assert 'aria-invalid="true"' in again.text
        assert "<b>" not in again.text
        assert client.provider.press(browser, again, "allow", account="alice").status_code == 200


def test_a_form_works_once(client: OAuthClient) -> None:
    with client.provider.browser() as browser:
        page = browser.get(client.authorization_url())
        assert client.provider.press(browser, page, "allow").status_code == 200
        _refused(client.provider.press(browser, page, "allow"))


def test_a_form_works_in_the_browser_that_got_it_only(client: OAuthClient) -> None:
    with client.provider.browser() as browser, client.provider.browser() as other:
        page = browser.get(client.authorization_url())
        _refused(client.provider.press(other, page, "allow"))
        other.get(client.authorization_url())
        _refused(client.provider.press(other, page, "allow"))


def test_a_form_works_for_the_request_it_was_made_for_only(client: OAuthClient) -> None:
    with client.provider.browser() as browser:
        page = browser.get(client.authorization_url())
        token = re.search(r'name="form_token" value="([^"]+)"', page.text)
        assert token
        other = client.authorization_url(state="another")
        _refused(browser.post(other, data={"form_token": token[1], "decision": "allow"}))


def test_a_form_works_for_ten_minutes(client: OAuthClient) -> None:
    with client.provider.browser() as browser:
        page = browser.get(client.authorization_url())
        client.provider.settings(clock_skew_seconds=601)
        _refused(client.provider.press(browser, page, "allow"))


@pytest.mark.parametrize("forged", ["", "x.y.z", "x.99999999999.z", f"x.{'9' * 5000}.z", "é.1.2"])
def test_a_forged_form_is_refused(client: OAuthClient, forged: str) -> None:
    with client.provider.browser() as browser:
        browser.get(client.authorization_url())
        _refused(browser.post(client.authorization_url(), data={"form_token": forged, "decision": "allow"}))


def _refused(page: httpx.Response) -> None:
    assert page.status_code == 403
    assert not page.history
    assert "This form cannot be used" in page.text


def test_pages_may_do_nothing_but_what_they_are_for(client: OAuthClient) -> None:
    with client.provider.browser() as browser:
        page = browser.get(client.authorization_url())
        code_page = client.provider.press(browser, page, "allow")
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(client.provider.redirect_uri))
    for found in (page, code_page):
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert found.headers["referrer-policy"] == "no-referrer"
        assert found.headers["cache-control"] == "no-store"
        assert not re.search(r"""(src|href)=["']https?:""", found.text)
    assert f"form-action 'self' {origin};" in page.headers["content-security-policy"]
    assert "HttpOnly" in page.headers["set-cookie"]
    assert "SameSite=lax" in page.headers["set-cookie"]


def test_the_code_page_shows_hostile_parameters_as_text(sandbox: SandboxProvider) -> None:
    hostile = "<script>alert(1)</script>'\"&"
    with sandbox.browser() as browser:
        page = browser.get(sandbox.redirect_uri, params={"code": hostile, "state": hostile})
        error = browser.get(sandbox.redirect_uri, params={"error": hostile, "error_description": hostile})
        nothing = browser.get(sandbox.redirect_uri)
    assert shown_code(page) == f"{hostile}#{hostile}"
    assert "<script>alert" not in page.text + error.text
    assert nothing.status_code == 400


def test_unknown_addresses_get_a_page_or_json_as_asked(sandbox: SandboxProvider) -> None:
    with sandbox.browser() as browser:
        assert "There is nothing here" in browser.get(f"{sandbox.url}/nowhere").text
        answer = browser.get(f"{sandbox.url}/v1/oauth/token", headers={"accept": "application/json"})
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"
        assert answer.json()["type"] == "error"
        assert browser.get(sandbox.url).status_code == 200
