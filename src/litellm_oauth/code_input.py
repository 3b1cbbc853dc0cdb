"""Reads what a person pastes after consent: a bare code, ``code#state``, or the whole redirect URL."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from .errors import CodeRejected, InvalidInput, StateMismatch

MAX_LENGTH = 8192
# Straight and typographic quotes, which mail and chat programs put around what is copied.
_QUOTES = "\"'`<>\u201c\u201d\u2018\u2019"
# RFC 6749 A.11: a code is printable ASCII. A space inside means that more than the code was pasted.
_CODE = re.compile(r"[\x21-\x7e]{1,4096}")
# What the instructions show where the code belongs. To send it would use the login up.
_PLACEHOLDERS = ("PASTE-IT-HERE", "CODE", "<CODE>", "...", "YOUR_AUTH_CODE")
_ERROR = re.compile(r"[A-Za-z_]{1,64}")
_MEND = "Paste the code, code#state, or the whole address of the page that shows it."


@dataclass(frozen=True, slots=True)
class LoginCode:
    """``issuer`` is the redirect's ``iss`` parameter (RFC 9207), where the provider sends one."""

    code: str = field(repr=False)
    state: str | None = field(repr=False)
    issuer: str | None = None


def parse_code(text: str, state: str | None = None) -> LoginCode:
    """Split the pasted text; ``state`` is the one given beside it, if any.

    Raises InvalidInput for text that holds no code, CodeRejected for a redirect that carries an error
    (RFC 6749 §4.1.2.1), and StateMismatch where the text's state and ``state`` differ.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidInput(f"The code is longer than {MAX_LENGTH} characters. {_MEND}")
    cleaned = _clean(text)
    if not cleaned:
        raise InvalidInput(f"The code is empty. {_MEND}")
    found = _from_url(cleaned) if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", cleaned) else _from_code(cleaned)
    given = _clean(state) if state else None
    if given and found.state and given != found.state:
        raise StateMismatch(
            "The state inside the code and the state beside it differ. Paste one login's code only."
        )
    return LoginCode(found.code, given or found.state, found.issuer)


def _clean(text: str) -> str:
    return text.strip().strip(_QUOTES).strip()


def _from_code(text: str) -> LoginCode:
    code, _, state = text.partition("#")
    return LoginCode(_checked(code), state or None)


def _from_url(url: str) -> LoginCode:
    try:
        split = urlsplit(url)
        query = parse_qs(split.query, max_num_fields=50)
        fragment = parse_qs(split.fragment, max_num_fields=50)
    except ValueError:
        raise InvalidInput(f"The address cannot be read. {_MEND}") from None
    parameters = {**fragment, **query}
    error = parameters.get("error", [""])[0]
    if error:
        raise CodeRejected(_refusal(error))
    if "code_challenge" in parameters:
        raise InvalidInput(
            "That is the address to open, not the page that it leads to. Open it, approve, and paste what "
            "the page shows then."
        )
    code, _, rest = parameters.get("code", [""])[0].partition("#")
    # Some pages put the state behind the code, as code#state: then it is the URL's fragment.
    bare_fragment = split.fragment if split.fragment and "=" not in split.fragment else ""
    state = parameters.get("state", [rest or bare_fragment])[0]
    return LoginCode(_checked(code), state or None, parameters.get("iss", [None])[0])


def _checked(code: str) -> str:
    if not _CODE.fullmatch(code) or code in _PLACEHOLDERS:
        raise InvalidInput(f"No authorization code was found in the text. {_MEND}")
    return code


def _refusal(error: str) -> str:
    if error == "access_denied":
        return "Consent was refused on the provider's page (access_denied). Start a new login and approve it."
    word = error if _ERROR.fullmatch(error) else "an unknown error"
    return f"The provider ended the login with an error ({word}). Start a new login."
