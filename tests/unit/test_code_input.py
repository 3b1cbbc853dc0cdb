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


CODE, STATE = "aZ09-_xYz1234567890", "Q" * 43
ADDRESS = f"{CALLBACK}?code={CODE}&state={STATE}"


@pytest.mark.parametrize(
    "text",
    [
        # an address, or what was copied of one
        ADDRESS,
        f"<{ADDRESS}>",
        f"({ADDRESS}).",
        f"It shows {ADDRESS} now",
        f"[the page]({ADDRESS})",
        f"Location: {ADDRESS}",
        ADDRESS.replace("&", "&amp;"),
        ADDRESS.removeprefix("https://"),
        ADDRESS.replace("https://", "view-source:https://"),
        f"localhost:8080/callback?code={CODE}&state={STATE}",
        f"com.example.app:/callback?code={CODE}&state={STATE}",
        f"/callback?code={CODE}&state={STATE}",
        f"?code={CODE}&state={STATE}",
        f"code={CODE}&state={STATE}",
        f"state={STATE}&code={CODE}",
        f"#code={CODE}&state={STATE}",
        f"GET /callback?code={CODE}&state={STATE} HTTP/1.1",
        f"curl '{ADDRESS}'",
        f"{CALLBACK}?\ncode={CODE}&\nstate={STATE}",
        f"{ADDRESS[:70]}\n{ADDRESS[70:]}",
        f"{ADDRESS[:70]}\r\n  {ADDRESS[70:]}",
        f"{CALLBACK}?scope=a+b&code={CODE}&state={STATE}&session_state=x",
        f"https://elsewhere.example/?next={quote(ADDRESS, safe='')}",
        # the code and its state
        f"{CODE}#{STATE}",
        f"{CODE} # {STATE}",
        f"{CODE}%23{STATE}",
        f"{CODE}#state={STATE}",
        f"{CODE}\n{STATE}",
        f"{CODE} {STATE}",
        f"{CODE}#\n{STATE}",
        f"{CODE}#{STATE[:20]}\n   {STATE[20:]}",
        f"\u200b{CODE}#{STATE}\ufeff",
        f"\u201c{CODE}#{STATE}\u201d",
        f"\u00a0{CODE}#{STATE}\u00a0",
        f"'{CODE}#{STATE}',",
        f"Authorization code: {CODE}#{STATE}",
        f"Your code is {CODE}#{STATE}",
        f"code = {CODE}\nstate = {STATE}",
        f"Code: {CODE}\nState: {STATE}",
        f"ansible-playbook oauth_login.yml -e code={CODE}#{STATE}",
        f"-e 'code={CODE}#{STATE}'",
        # an object
        f'{{"code": "{CODE}", "state": "{STATE}"}}',
        f'{{"code": "{CODE}#{STATE}"}}',
        f'"code": "{CODE}", "state": "{STATE}"',
        f'{{\n  "state": "{STATE}",\n  "code": "{CODE}"\n}}',
    ],
)
def test_what_holds_the_code_is_understood(text: str) -> None:
    assert parse_code(text) == LoginCode(CODE, STATE)


@pytest.mark.parametrize(
    "text", [CODE, f"code={CODE}", f"Code: {CODE}", f"{CODE}#", f"The code is: {CODE}", f"code='{CODE}'"]
)
def test_a_code_may_come_without_its_state(text: str) -> None:
    assert parse_code(text) == LoginCode(CODE, None)


LONG = "aZ09-_xYz1" * 9


@pytest.mark.parametrize("state", [STATE, None])
def test_a_long_code_may_be_broken_into_lines(state: str | None) -> None:
    text = LONG if state is None else f"{LONG}#{state}"
    for width in (40, 72):
        broken = "\n".join(text[at : at + width] for at in range(0, len(text), width))
        assert parse_code(broken) == LoginCode(LONG, state)


@pytest.mark.parametrize(
    ("text", "code", "state"),
    [
        (f"{CALLBACK}?code={CODE}&state={STATE}&return_to=%2Fapp%3Fcode%3DOTHER", CODE, STATE),
        (f"{CALLBACK}?code={CODE}&state={STATE}&return_to=/app?code=OTHER", CODE, STATE),
        (f"{CALLBACK}?code={CODE}&state={STATE}&iss=https://idp.example/x?y=1", CODE, STATE),
        (f"{CALLBACK}?code={CODE}&region=eu&copy=1&state={STATE}&timestamp=17", CODE, STATE),
        (f"{CALLBACK}?state={STATE}&code=abcdefgh.", "abcdefgh.", STATE),
        (
            f"{CALLBACK}?code=eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln&state={STATE}",
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln",
            STATE,
        ),
        (f"code={CODE}\nstate={STATE}", CODE, STATE),
        (f"code={CODE} state={STATE}", CODE, STATE),
        (f"code='{CODE}' state='{STATE}'", CODE, STATE),
        (f"Code\n{CODE}#{STATE}", CODE, STATE),
        (f"Your code is shown below.\n{CODE}#{STATE}", CODE, STATE),
        (f"Your authorization code: {CODE}\nThis code is valid for 10 minutes.", CODE, None),
        (f"Authorization code: {CODE}.", CODE, None),
    ],
)
def test_what_stands_around_the_code_is_not_taken_for_it(text: str, code: str, state: str | None) -> None:
    found = parse_code(text)
    assert (found.code, found.state) == (code, state)


@pytest.mark.parametrize(
    "text",
    [
        "your code is ready abcdefgh",
        "Authorization code is here: abc123def",
        f"{CALLBACK}?code=abcdefgh ijkl&state={STATE}",
        f"See {CALLBACK}?code=abcdefgh\nijkl&state={STATE}",
        f"> {CALLBACK}?code=abcdefgh\n> ijkl&state={STATE}",
        f"{CALLBACK}?code=abcdefgh {CALLBACK}?code=ijklmnop",
        "code: abcdefgh code: ijklmnop",
        f"abcdefgh#{STATE} ijklmnop#{STATE}",
        "Code\nabcdefgh",
    ],
)
def test_what_could_be_read_in_two_ways_costs_no_login(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_code(text)


@pytest.mark.parametrize(
    "text",
    [
        "sk-ant-oat01-obviously-fake",
        "sk-ant-ort01-obviously-fake",
        "sk-obviously-fake-key",
        "Bearer obviously-fake",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln",
    ],
)
def test_a_token_is_no_code_and_is_sent_nowhere(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"token or a key|No authorization code") as caught:
        parse_code(text)
    assert "fake" not in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        f"{CALLBACK}?code=a1b2c3d4&code=e5f6g7h8&state=s",
        f"{CALLBACK}?code=a1b2c3d4&state=s&state=t",
        f"{CALLBACK}?code=a1b2c3d4&state=s&state=s",
        f"{CALLBACK}?code=a1b2c3d4&state=s&iss=https%3A%2F%2Fa.example&iss=https%3A%2F%2Fb.example",
        f"{CALLBACK}?error=access_denied&error=x",
    ],
)
def test_what_stands_twice_in_an_address_is_refused(text: str) -> None:
    """RFC 6749 §3.1: parameters do not repeat, so nobody can tell which one is meant."""
    with pytest.raises(InvalidInput, match="more than once"):
        parse_code(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://login.example/",
        "someone@example.com",
        "I approved it",
        "the code",
        "yes",
        "ok",
        "----",
        "{}",
        '{"state": "x"}',
        "?",
    ],
)
def test_what_holds_no_code_costs_no_login(text: str) -> None:
    with pytest.raises(InvalidInput):
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
