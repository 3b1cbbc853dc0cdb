"""The OAuth client: what it sends, and what it makes of every kind of answer."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from litellm_oauth.answer_body import MAX_ANSWER_BYTES
from litellm_oauth.errors import InvalidGrant, ProviderRefused, ProviderUnavailable
from litellm_oauth.grant import DEFAULT_EXPIRES_IN, MAX_EXPIRES_IN, parse_grant, retry_after
from support.token_endpoint import (
    GOOD,
    NOW,
    SECRET,
    answering,
    failing,
    provider,
    unavailable,
)


def test_the_authorize_url_carries_what_rfc_6749_and_7636_ask_for_and_keeps_its_own_query() -> None:
    url = provider(answering(200)).authorization_url(challenge="c", state="s")
    assert url.startswith("https://login.example/authorize?")
    assert parse_qs(urlsplit(url).query) == {
        "tenant": ["7"],
        "code": ["true"],
        "client_id": ["our-client"],
        "response_type": ["code"],
        "redirect_uri": ["https://login.example/code"],
        "scope": ["user:inference user:profile"],
        "code_challenge": ["c"],
        "code_challenge_method": ["S256"],
        "state": ["s"],
    }


@pytest.mark.parametrize("body", ["json", "form"])
async def test_an_exchange_sends_the_fields_in_the_configured_form(body: str) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=GOOD)

    await provider(handler, body=body, client_secret="cs").exchange(code="c", verifier="v", state="s")
    content = seen[0].content.decode()
    fields = json.loads(content) if body == "json" else {k: v[0] for k, v in parse_qs(content).items()}
    assert fields == {
        "grant_type": "authorization_code",
        "code": "c",
        "redirect_uri": "https://login.example/code",
        "code_verifier": "v",
        "state": "s",
        "client_id": "our-client",
        "client_secret": "cs",
    }


@pytest.mark.parametrize("body", ["json", "form"])
async def test_basic_takes_id_and_secret_out_of_every_body_and_puts_them_into_the_header(body: str) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=GOOD)

    # The client of RFC 6749 §2.3.1 and its header.
    ours = provider(
        handler,
        body=body,
        client_id="s6BhdRkqt3",
        client_secret="gX1fBat3bV",
        client_authentication="basic",
    )
    await ours.exchange(code="c", verifier="v", state=None)
    await ours.refresh(SECRET)
    await ours.revoke(SECRET, "refresh_token")
    assert [request.headers["authorization"] for request in seen] == [
        "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW"
    ] * 3
    for request in seen:
        content = request.content.decode()
        assert not {"client_id", "client_secret"} & set(
            json.loads(content) if body == "json" else parse_qs(content)
        )
        assert "gX1fBat3bV" not in content


async def test_basic_encodes_id_and_secret_as_in_a_form_before_they_are_joined() -> None:
    """A colon in the id would end it too early, and a plus be read as a space (RFC 6749 §2.3.1)."""
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"].removeprefix("Basic "))
        return httpx.Response(200, json=GOOD)

    odd = {"client_id": "our:client", "client_secret": "a+b c%/:", "client_authentication": "basic"}
    await provider(handler, **odd).refresh(SECRET)
    assert base64.b64decode(seen[0]) == b"our%3Aclient:a%2Bb+c%25%2F%3A"


async def test_a_client_in_the_body_sends_no_authorization_header() -> None:
    seen: list[httpx.Headers] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(200, json=GOOD)

    await provider(handler, client_secret="cs").refresh(SECRET)
    assert "authorization" not in seen[0]


async def test_a_refresh_sends_no_scope_so_that_the_granted_ones_stay() -> None:
    seen: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return httpx.Response(200, json=GOOD)

    grant = await provider(handler).refresh(SECRET)
    assert seen == [{"grant_type": "refresh_token", "refresh_token": SECRET, "client_id": "our-client"}]
    assert (grant.access_token, grant.refresh_token, grant.expires_in) == ("oat-1", "ort-2", 28800)


@pytest.mark.parametrize("status", [200, 201, 400, 401, 403, 422])
@pytest.mark.parametrize(
    "answer",
    [
        {"error": "invalid_grant"},
        {"error": "INVALID_GRANT", "access_token": None},
        {"error": {"type": "invalid_grant", "message": "x"}},
        {"error": "bad_refresh_token", "error_description": "x", "error_uri": "https://docs.example"},
        {"ok": False, "error": "invalid_refresh_token"},
        {"error_code": "refresh_token_not_found", "code": 400, "msg": "x"},
        {"code": "refresh_token_already_used", "message": "x"},
        {"error": {"message": "x", "type": "invalid_request_error", "code": "refresh_token_reused"}},
        {"error": {"code": "refresh_token_expired"}},
        {"error": "refresh_token_invalidated"},
        {"status": "BAD_REFRESH_TOKEN", "message": "x"},
        {"errors": [{"code": "invalid_grant"}]},
    ],
)
async def test_a_dead_grant_is_known_by_all_words_for_it(status: int, answer: Any) -> None:
    with pytest.raises(InvalidGrant):
        await provider(answering(status, answer)).refresh(SECRET)


@pytest.mark.parametrize("word", ["invalid_grant", "refresh_token_expired"])
async def test_what_stands_in_a_sentence_ends_no_login(word: str) -> None:
    said = {"error": "invalid_request", "error_description": word, "message": word, "detail": {"code": word}}
    with pytest.raises(ProviderRefused):
        await provider(answering(400, said)).refresh(SECRET)


@pytest.mark.parametrize("error", ["invalid_grant", "", None, False, "none"])
async def test_an_error_beside_tokens_costs_no_token(error: object) -> None:
    grant = await provider(answering(200, {**GOOD, "error": error})).refresh(SECRET)
    assert grant.refresh_token == "ort-2"


async def test_another_oauth_error_is_a_refusal_that_names_its_code() -> None:
    described = {"error": "invalid_client", "error_description": f"bad {SECRET}"}
    with pytest.raises(ProviderRefused) as caught:
        await provider(answering(401, described)).refresh(SECRET)
    assert caught.value.error == "invalid_client"
    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    ("status", "body", "reason", "maybe_spent"),
    [
        (404, {"error": "invalid_grant"}, "wrong_host", False),
        (302, None, "wrong_host", False),
        (429, {"error": "invalid_grant"}, "rate_limited", False),
        (500, None, "server_error", True),
        (502, b"<html>bad gateway</html>", "server_error", True),
        (503, {"error": "invalid_grant"}, "http_503", False),
        (503, {"error": "server_error"}, "http_503", False),
        (500, {"error": "server_error"}, "server_error", True),
        (529, None, "http_529", False),
        (504, None, "timeout", True),
        (403, b"<html>blocked</html>", "http_403", False),
        (400, {"error": "no such word"}, "http_400", False),
        (200, b"<html>hello</html>", "garbage", True),
        (200, [1], "garbage", True),
        (200, {**GOOD, "access_token": None}, "garbage", True),
        (200, {**GOOD, "access_token": "a b\r\nX-Evil: 1"}, "garbage", True),
        (200, {**GOOD, "token_type": "mac"}, "garbage", True),
        (201, b"<html>hello</html>", "garbage", True),
        (200, {"error": {"message": "no word"}}, "server_error", True),
        (400, {"error_code": 7, "msg": "no word"}, "http_400", False),
        (400, {"status": "error", "reason": "no word"}, "http_400", False),
        (400, {"error": "temporarily_unavailable"}, "temporarily_unavailable", False),
        (400, {"error": {"code": "server_error"}}, "server_error", True),
        (204, b"", "garbage", True),
    ],
)
async def test_an_answer_that_says_nothing_about_the_token_never_condemns_it(
    status: int, body: Any, reason: str, maybe_spent: bool
) -> None:
    error = await unavailable(answering(status, body))
    assert (error.reason, error.maybe_spent) == (reason, maybe_spent)


@pytest.mark.parametrize(
    ("error", "reason", "maybe_spent"),
    [
        (httpx.ConnectError("no route"), "network", False),
        (httpx.ConnectTimeout("slow"), "network", False),
        (httpx.ReadTimeout("slow"), "timeout", True),
        (httpx.RemoteProtocolError("cut"), "answer_lost", True),
        (httpx.ReadError("reset"), "answer_lost", True),
    ],
)
async def test_a_broken_connection_says_whether_the_token_may_be_spent(
    error: Exception, reason: str, maybe_spent: bool
) -> None:
    found = await unavailable(failing(error))
    assert (found.reason, found.maybe_spent) == (reason, maybe_spent)


async def test_a_server_that_drips_bytes_is_cut_off_after_the_time_out() -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    error = await unavailable(lambda request: httpx.Response(200, content=drip()))
    assert error.reason == "timeout"


async def test_an_endless_answer_is_not_read_into_memory() -> None:
    error = await unavailable(answering(200, b"[" * (MAX_ANSWER_BYTES + 1)))
    assert error.reason == "garbage"


@pytest.mark.parametrize("status", [200, 201, 203])
async def test_whatever_says_success_brings_tokens(status: int) -> None:
    assert (await provider(answering(status, GOOD)).refresh(SECRET)).refresh_token == "ort-2"


async def test_an_answer_is_asked_for_as_it_is() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["accept-encoding"])
        return httpx.Response(200, json=GOOD)

    await provider(handler).refresh(SECRET)
    assert asked == ["identity"]


async def test_an_answer_that_says_it_is_not_compressed_is_read() -> None:
    plain = answering(200, GOOD, {"content-encoding": "Identity"})
    assert (await provider(plain).refresh(SECRET)).access_token == "oat-1"


async def test_a_redirect_is_not_followed_with_the_token() -> None:
    hosts: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return httpx.Response(307, headers={"location": "https://elsewhere.example/token"})

    await unavailable(handler)
    assert hosts == ["login.example"]


async def test_retry_after_is_passed_on() -> None:
    assert (await unavailable(answering(429, None, {"retry-after": "17"}))).retry_after == 17


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True), 90.0),
        (format_datetime(datetime.fromtimestamp(NOW - 90, UTC), usegmt=True), 0.0),
        ("99999999", 86400.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_a_number_or_a_date_and_at_most_a_day(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (28800, 28800),
        ("28800", 28800),
        (1, 1),
        (0.5, 1),
        (10**30, MAX_EXPIRES_IN),
        (0, DEFAULT_EXPIRES_IN),
        (-5, DEFAULT_EXPIRES_IN),
        (True, DEFAULT_EXPIRES_IN),
        ("never", DEFAULT_EXPIRES_IN),
        (None, DEFAULT_EXPIRES_IN),
    ],
)
def test_an_odd_expires_in_never_costs_the_token(value: Any, seconds: int) -> None:
    assert parse_grant({**GOOD, "expires_in": value}).expires_in == seconds


def test_what_an_answer_leaves_out_is_none() -> None:
    grant = parse_grant({"access_token": "oat-1"})
    assert (grant.refresh_token, grant.refresh_expires_in, grant.scopes, grant.account) == (None,) * 4


def test_scopes_and_account_are_kept_and_nothing_else_that_was_sent() -> None:
    grant = parse_grant(
        {
            **GOOD,
            "scope": "a b",
            "refresh_token_expires_in": 100,
            "account": {"uuid": "u", "email_address": "a@b", "secret": "x"},
            "organization": {"name": "n", "billing": {"card": 1}},
        }
    )
    assert grant.scopes == ("a", "b")
    assert grant.refresh_expires_in == 100
    assert grant.account == {"account": {"uuid": "u", "email_address": "a@b"}, "organization": {"name": "n"}}


def test_no_token_is_in_the_repr_of_a_grant() -> None:
    assert "oat-1" not in repr(parse_grant(GOOD))
    assert "ort-2" not in repr(parse_grant(GOOD))


async def test_a_revocation_sends_token_and_hint_and_counts_200_only() -> None:
    seen: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return httpx.Response(200)

    assert await provider(handler).revoke(SECRET, "refresh_token") is True
    assert seen == [{"token": SECRET, "token_type_hint": "refresh_token", "client_id": "our-client"}]
    assert await provider(answering(503)).revoke(SECRET, "refresh_token") is False
    assert await provider(failing(httpx.ReadTimeout("x"))).revoke(SECRET, "refresh_token") is False
    assert await provider(answering(200), revoke_url=None).revoke(SECRET, "refresh_token") is None


@pytest.mark.parametrize("odd", ["a\x00b", "\ud800", "x\x1b]0;title\x07", "two\nlines"])
def test_what_cannot_be_stored_or_shown_is_left_out_and_costs_no_token(odd: str) -> None:
    grant = parse_grant(
        {
            "access_token": "sk-ant-oat01-x",
            "scope": f"user:inference {odd.split()[0]}",
            "account": {"uuid": "u", "email_address": odd},
            "organization": {"name": odd},
        }
    )
    assert grant.account == {"account": {"uuid": "u"}}
    assert set(grant.scopes or ()) <= {"user:inference", "two"}


@pytest.mark.parametrize(
    "token", ["M.C123_BAY.-CX!abc*def$", "a|b", "user:123 with a space", "~" * 4096, '"', "\\"]
)
def test_a_token_may_hold_what_rfc_6749_lets_it_hold(token: str) -> None:
    grant = parse_grant({"access_token": token, "refresh_token": token})
    assert (grant.access_token, grant.refresh_token) == (token, token)


@pytest.mark.parametrize("token", [" ", "a ", " a"])
def test_a_blank_at_an_end_fits_into_no_header(token: str) -> None:
    with pytest.raises(ProviderUnavailable):
        parse_grant({"access_token": token})
    assert parse_grant({"access_token": "x", "refresh_token": token}).refresh_token == token


@pytest.mark.parametrize("token", ["", "a\n", "a\x00", "é", "a\x7f", "x" * 16_385])
def test_what_is_no_token_is_not_taken(token: str) -> None:
    with pytest.raises(ProviderUnavailable):
        parse_grant({"access_token": token})
    assert parse_grant({"access_token": "x", "refresh_token": token}).refresh_token is None
