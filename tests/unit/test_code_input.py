"""The code that a person pastes, in its three forms and with what clings to it."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_oauth.code_input import LoginCode, parse_code
from litellm_oauth.errors import CodeRejected, InvalidInput, LitellmOAuthError, StateMismatch

base64url = st.text("ABCXYZabcxyz0189-_", min_size=8, max_size=60)
clinging = st.text(" \t\r\n", max_size=3)
quotes = st.sampled_from(["", '"', "'", "`"])
CALLBACK = "https://login.example/oauth/code/callback"


@given(base64url, base64url, clinging, clinging, quotes)
def test_the_three_forms_mean_the_same(code: str, state: str, before: str, after: str, mark: str) -> None:
    wanted = LoginCode(code, state)
    for form in (
        f"{code}#{state}",
        f"{CALLBACK}?{urlencode({'code': code, 'state': state})}",
        f"{CALLBACK}#{urlencode({'state': state, 'code': code})}",
        f"{CALLBACK}?code={quote(code)}#{state}",
    ):
        assert parse_code(f"{before}{mark}{form}{mark}{after}") == wanted
    assert parse_code(f"{before}{mark}{code}{mark}{after}") == LoginCode(code, None)
    assert parse_code(code, f"{before}{state}{after}") == wanted


@given(st.text(max_size=300), st.none() | st.text(max_size=50))
def test_any_text_gives_a_code_or_a_sentence(text: str, state: str | None) -> None:
    try:
        found = parse_code(text, state)
    except LitellmOAuthError as error:
        said = error.message
    else:
        said = "."
        assert found.code
        assert not any(c.isspace() for c in found.code)
    assert said.endswith(".")


@pytest.mark.parametrize(
    "text", ["", "   ", "#state", f"{CALLBACK}?state=x", "two words", "x" * 9000, "https://[broken", "cödé"]
)
def test_text_without_a_code_is_refused_with_what_to_paste(text: str) -> None:
    with pytest.raises(InvalidInput, match="Paste the code"):
        parse_code(text)


@pytest.mark.parametrize("text", ["PASTE-IT-HERE", "<CODE>", "CODE", "YOUR_AUTH_CODE"])
def test_the_words_of_the_instructions_are_no_code(text: str) -> None:
    with pytest.raises(InvalidInput, match="Paste the code"):
        parse_code(text)


def test_the_address_to_open_is_told_from_the_page_that_shows_the_code() -> None:
    """Its parameter ``code=true`` would be taken for a code, and the pending login used up."""
    address = "https://claude.example/oauth/authorize?code=true&state=s&code_challenge=c"
    with pytest.raises(InvalidInput, match="the address to open"):
        parse_code(address)


def test_refused_consent_is_said_in_a_sentence() -> None:
    with pytest.raises(CodeRejected, match="Consent was refused"):
        parse_code(f"{CALLBACK}?error=access_denied&state=x")


def test_another_error_in_the_redirect_is_named_unless_it_is_no_word() -> None:
    with pytest.raises(CodeRejected, match="invalid_scope"):
        parse_code(f"{CALLBACK}?error=invalid_scope")
    with pytest.raises(CodeRejected) as caught:
        parse_code(f"{CALLBACK}?error=%3Cscript%3E")
    assert "script" not in caught.value.message


def test_two_different_states_are_refused() -> None:
    with pytest.raises(StateMismatch):
        parse_code("code#one", "two")


def test_the_issuer_of_a_redirect_is_kept() -> None:
    found = parse_code(f"{CALLBACK}?code=c0de&state=s&iss=https%3A%2F%2Flogin.example")
    assert found.issuer == "https://login.example"


def test_a_code_is_in_no_repr() -> None:
    assert "c0de" not in repr(parse_code("c0de#st4te"))
    assert "st4te" not in repr(parse_code("c0de#st4te"))
