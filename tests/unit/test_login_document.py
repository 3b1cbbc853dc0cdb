"""The JSON document of a login: what is exported can be imported, and what is wrong is named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from litellm_oauth.cli.document import document_of, login_of
from litellm_oauth.errors import InvalidInput
from litellm_oauth.tokens import ExportedLogin

PLAIN = {
    "accessToken": "fake-access-token",
    "refreshToken": "fake-refresh-token",
    "expiresAt": 1_900_000_000,
}
WHOLE = ExportedLogin(
    user_id="Zoë",
    access_token="fake-access-token",
    refresh_token="fake-refresh-token",
    expires_at=1_900_000_000.25,
    refresh_expires_at=1_950_000_000.5,
    scopes=("user:inference", "user:profile"),
    account={"account": {"uuid": "1", "email_address": "zoe@example.com"}, "organization": {"name": "Ö"}},
    client_id="fake client",
    logged_in_at=1_800_000_000.123456,
)


def read(document: Any) -> ExportedLogin:
    return login_of(json.dumps(document).encode())


def test_a_login_becomes_a_document_and_a_login_again() -> None:
    document = document_of(WHOLE)
    assert set(document) == {
        "userId",
        "accessToken",
        "refreshToken",
        "expiresAt",
        "refreshExpiresAt",
        "scopes",
        "account",
        "clientId",
        "loggedInAt",
    }
    assert read(document) == WHOLE


def test_what_nobody_knows_is_left_out() -> None:
    bare = replace(read(PLAIN), refresh_token=None)
    assert document_of(bare) == {"accessToken": "fake-access-token", "expiresAt": 1_900_000_000.0}
    assert read(document_of(bare)) == bare


@pytest.mark.parametrize("expires_at", [1_900_000_000, 1_900_000_000.0, 1_900_000_000_000, "1900000000"])
def test_a_plain_token_file_is_a_document_in_seconds_or_milliseconds(expires_at: object) -> None:
    login = read({**PLAIN, "expiresAt": expires_at, "note": "mine", "generation": 7})
    assert (login.access_token, login.refresh_token) == ("fake-access-token", "fake-refresh-token")
    assert (login.expires_at, login.client_id, login.user_id) == (1_900_000_000.0, None, None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_document_may_come_from_any_shell(encoding: str) -> None:
    assert login_of(json.dumps(document_of(WHOLE)).encode(encoding)) == WHOLE


def test_what_only_describes_a_login_never_stops_it() -> None:
    odd = {**PLAIN, "scopes": ["a", 5, "b\nc", "\x00"], "account": {"account": {"uuid": "a\x1b[2J"}}}
    login = read(odd)
    assert (login.scopes, login.account) == (("a", "b", "c"), None)
    assert read({**PLAIN, "scopes": "a", "account": []}).scopes == ()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no JSON"),
        (b"fake-access-token", "no JSON"),
        (b'{"accessToken": "fake', "no JSON"),
        (b"\xff\xfe\xfd", "no JSON"),
        (b"[" * 200_000, "no JSON"),
        (b"[]", "no JSON object"),
        (b'"fake-access-token"', "no JSON object"),
        (b"null", "no JSON object"),
    ],
)
def test_what_is_no_document_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence) as caught:
        login_of(content)
    assert "fake" not in caught.value.message


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"accessToken": None}, "holds no accessToken"),
        ({"accessToken": ""}, "holds no accessToken"),
        ({"accessToken": ["fake"]}, "accessToken is not a text"),
        ({"refreshToken": 5}, "refreshToken is not a text"),
        ({"expiresAt": None}, "does not say when"),
        ({"expiresAt": "soon"}, "expiresAt is no number"),
        ({"expiresAt": True}, "expiresAt is no number"),
        ({"expiresAt": -1}, "expiresAt is no number"),
        ({"expiresAt": float("nan")}, "expiresAt is no number"),
        ({"expiresAt": float("inf")}, "expiresAt is no number"),
        ({"expiresAt": 10**400}, "expiresAt is no number"),
        ({"expiresAt": 1.9e18}, "expiresAt is no number"),
        ({"refreshExpiresAt": "soon"}, "refreshExpiresAt is no number"),
        ({"loggedInAt": {}}, "loggedInAt is no number"),
        ({"clientId": 5}, "clientId is not a text"),
        ({"userId": 5}, "userId is not a text"),
        ({"userId": "a\nb"}, "user id"),
        ({"userId": "\ud800"}, "user id"),
    ],
)
def test_what_is_odd_in_a_document_is_named_and_not_quoted(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence) as caught:
        read({**PLAIN, **changes})
    assert "fake" not in caught.value.message


def test_a_login_under_one_key_of_another_program_is_no_document() -> None:
    with pytest.raises(InvalidInput, match="holds no accessToken"):
        read({"claudeAiOauth": PLAIN})
