"""Reads what a person pastes after consent: a code, ``code#state``, or the address of the page.

A code works once. So what evidently holds it is understood, whatever clings to it, and what evidently is
something else is refused here, before the provider counts it as a try.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote

from .errors import CodeRejected, InvalidInput, StateMismatch

MAX_LENGTH = 8192
# Straight and typographic quotes and brackets, which mail and chat programs put around what is copied.
_QUOTES = "\"'`<>()[]{}\u201c\u201d\u2018\u2019\u00ab\u00bb,;"
# What browsers, mail and chat programs put between letters that nobody sees.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
# RFC 6749 A.11: a code is printable ASCII. A space inside means that more than the code was pasted.
# No server makes one of three letters; a person types them in answer to a question.
_CODE = re.compile(r"(?=.*[A-Za-z0-9])[\x21-\x7e]{4,4096}")
_MAIL = re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]+")
# What the instructions show where the code belongs. To send it would use the login up.
_PLACEHOLDERS = ("PASTE-IT-HERE", "CODE", "<CODE>", "...", "YOUR_AUTH_CODE", "true")
_ERROR = re.compile(r"[A-Za-z_]{1,64}")
# Parameters of a redirect (RFC 6749 §4.1.2) in any text; each begins a line, a query or a fragment.
_ANSWER = re.compile(r"(?:^|[\s?&#\"'(])(?:code|error|code_challenge)=")
_PARAMETERS = re.compile(r"(?:^|[\s?&#\"'(])((?:code|state|iss|scope|error|code_challenge)=\S*)")
# "Your authorization code: …", as a page or a person may put it.
_LABELLED = re.compile(r"(?i)\b(code|state)\"?\s*(?::|=|\bis\b)\s*\"?([^\s\"]+)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# The gateway's own states: 256 random bits in base64url.
_STATE = re.compile(r"[A-Za-z0-9_-]{43}")
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_TOKEN_PREFIXES = ("sk-", "gho_", "ghp_", "ghu_", "ghr_", "xoxb-", "xoxp-", "xoxe", "ya29.", "Bearer")
# What may stand once in an address (RFC 6749 §3.1, RFC 9207 §2).
_ONCE = ("code", "state", "iss", "error")
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
    found = _found(cleaned)
    given = _clean(state) if state else None
    if given and found.state and given != found.state:
        raise StateMismatch(
            "The state inside the code and the state beside it differ. Paste one login's code only."
        )
    return LoginCode(found.code, given or found.state, found.issuer)


def _clean(text: str) -> str:
    """The text without what clings to it on its way through a clipboard."""
    plain = text.translate(_INVISIBLE).replace("\u00a0", " ")
    return plain.strip().strip(_QUOTES).strip()


def _found(text: str) -> LoginCode:
    joined = "".join(text.split())
    if _SCHEME.match(text) and not _has_words(text):
        # A long address that was broken into lines.
        return _from_parameters(joined.partition("://")[2])
    if text.lstrip("([").startswith("{") or text.endswith('"') or ('"code"' in text):
        listed = _from_json(text)
        if listed is not None:
            return listed
    if _ANSWER.search(text):
        return _from_parameters(joined if not _has_words(text) else text)
    labelled = {name.lower(): value for name, value in _LABELLED.findall(text)}
    if "code" in labelled:
        code = _from_code(labelled["code"])
        return LoginCode(code.code, code.state or labelled.get("state"))
    if _SCHEME.match(text):
        return _from_parameters(text)
    return _from_lines(text)


def _has_words(text: str) -> bool:
    """Whether there is more on one line than one thing."""
    return any(len(line.split()) > 1 for line in text.splitlines())


def _from_json(text: str) -> LoginCode | None:
    """An object with ``code`` in it, also without the braces that were stripped or not copied."""
    for whole in (text, f"{{{text}}}", f"{text}}}", f"{{{text}", f'{text}"}}'):
        try:
            value = json.loads(whole)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and isinstance(value.get("code"), str):
            code, state, issuer = value["code"], value.get("state"), value.get("iss")
            found = _from_code(code)
            return LoginCode(
                found.code,
                found.state or (state if isinstance(state, str) else None),
                issuer if isinstance(issuer, str) else None,
            )
    return None


def _from_lines(text: str) -> LoginCode:
    """A code on one line or several: broken into them, or with its state on the last."""
    pieces = text.split()
    one_line = _has_words(text)
    stated = len(pieces) == 2 or (len(pieces) > 2 and not one_line)
    if stated and "#" not in text and _STATE.fullmatch(pieces[-1]):
        return LoginCode(_checked("".join(pieces[:-1])), pieces[-1])
    return _from_code(text if one_line else "".join(pieces))


def _from_code(text: str) -> LoginCode:
    text = text.strip().strip(_QUOTES)
    if "#" not in text and "%23" in text:
        text = unquote(text)
    code, _, state = text.partition("#")
    return LoginCode(_checked(code.strip()), state.strip().removeprefix("state=") or None)


def _from_parameters(text: str) -> LoginCode:
    """The parameters of an address, or of what was copied of one."""
    text = html.unescape(text)
    if re.search(r"(?i)%3f(?:[^=]*%26)?(?:code|error)%3d", text):
        # The whole of it was encoded once more, as by a page that passes it on.
        text = unquote(text)
    before, mark, fragment = text.partition("#")
    start = before.rfind("?")
    query = before[start + 1 :] if start >= 0 else before
    if start < 0 and (found := _PARAMETERS.search(before)):
        query = found[1]
    parameters = {**_parsed(fragment), **_parsed(query.split()[0] if query.split() else "")}
    if "code_challenge" in parameters:
        raise InvalidInput(
            "That is the address to open, not the page that it leads to. Open it, approve, and paste what "
            "the page shows then."
        )
    for name in _ONCE:
        if len(parameters.get(name, ())) > 1:
            raise InvalidInput(f"The address holds {name} more than once. {_MEND}")
    error = parameters.get("error", [""])[0]
    if error:
        raise CodeRejected(_refusal(error))
    code, _, rest = parameters.get("code", [""])[0].partition("#")
    # Some pages put the state behind the code, as code#state: then it is the URL's fragment.
    bare_fragment = fragment.split()[0] if mark and fragment.split() and "=" not in fragment else ""
    state = parameters.get("state", [rest or bare_fragment])[0]
    return LoginCode(_checked(code), state or None, parameters.get("iss", [None])[0])


def _parsed(query: str) -> Mapping[str, list[str]]:
    try:
        return parse_qs(query.rstrip(_QUOTES + "."), max_num_fields=50)
    except ValueError:
        raise InvalidInput(f"The address cannot be read. {_MEND}") from None


def _checked(code: str) -> str:
    if code.startswith(_TOKEN_PREFIXES) or _JWT.fullmatch(code):
        raise InvalidInput(f"That is a token or a key, and no authorization code. {_MEND}")
    if not _CODE.fullmatch(code) or _MAIL.fullmatch(code) or code in _PLACEHOLDERS:
        raise InvalidInput(f"No authorization code was found in the text. {_MEND}")
    return code


def _refusal(error: str) -> str:
    if error == "access_denied":
        return "Consent was refused on the provider's page (access_denied). Start a new login and approve it."
    word = error if _ERROR.fullmatch(error) else "an unknown error"
    return f"The provider ended the login with an error ({word}). Start a new login."
