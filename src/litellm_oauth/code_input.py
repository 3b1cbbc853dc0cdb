"""Reads what a person pastes after consent: a code, ``code#state``, or the address of the page.

A code works once. So a code is found in any text that clearly holds one. Text that clearly holds something
else, or that could be read in two ways, is refused here, before the provider counts an attempt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from .errors import CodeRejected, InvalidInput, StateMismatch

MAX_LENGTH = 8192
# Straight and typographic quotes and brackets, which mail and chat programs put around what is copied.
_QUOTES = "\"'`<>()[]{}\u201c\u201d\u2018\u2019\u00ab\u00bb,;"
# Invisible characters that browsers, mail and chat programs insert.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
# RFC 6749 A.11: a code is printable ASCII. A space inside means that more than the code was pasted. No server
# makes one of three letters; a person types them in answer to a question.
_CODE = re.compile(r"(?=.*[A-Za-z0-9])[\x21-\x7e]{4,4096}")
_MAIL = re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]+")
# What the instructions show where the code belongs. To send it would use the login up.
_PLACEHOLDERS = ("PASTE-IT-HERE", "CODE", "<CODE>", "...", "YOUR_AUTH_CODE", "true")
_ERROR = re.compile(r"[A-Za-z_]{1,64}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# A parameter of the redirect (RFC 6749 §4.1.2) at the beginning, or behind what divides an address.
_PARAMETER = re.compile(r"(?:^|[?&#])(?:code|error|code_challenge)=")
_NAMED = re.compile(r"(?:code|state|iss|scope)=")
# "Your authorization code: …", as a page or a person may put it.
_LABELLED = re.compile(r"(?i)\b(code|state)\"?\s*(?:\bis\s*)?[:=]\s*[\"']?([^\s\"']+)")
# The gateway's own states: 256 random bits in base64url.
_STATE = re.compile(r"[A-Za-z0-9_-]{43}")
_WITH_STATE = re.compile(r"([\x21-\x22\x24-\x7e]{4,4096})(?:#|%23)(?:state=)?([A-Za-z0-9_-]{43})")
# A line that is shorter was not broken by a terminal or a mail program.
_BROKEN = 20
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_TOKEN_PREFIXES = ("sk-", "gho_", "ghp_", "ghu_", "ghr_", "xoxb-", "xoxp-", "ya29.", "Bearer")
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
    plain = text.translate(_INVISIBLE).replace("\u00a0", " ").strip()
    if plain[:1] in ("(", "[", "<"):
        # The end of a sentence.
        plain = plain.rstrip(".")
    return plain.strip(_QUOTES).strip()


def _found(text: str) -> LoginCode:
    pieces = text.split()
    if len(pieces) == 1:
        return _from_piece(text)
    if '"code"' in text and (listed := _from_json(text)) is not None:
        return listed
    whole = _whole_again(text)
    if whole is not None and _PARAMETER.search(whole):
        return _from_address(whole)
    addresses = [piece for piece in _stripped(pieces) if _PARAMETER.search(piece)]
    if addresses:
        return _from_addresses(addresses, text)
    if whole is not None and _is_broken(pieces) and _WITH_STATE.fullmatch(whole):
        return _from_piece(whole)
    with_state = {found.groups() for piece in _stripped(pieces) if (found := _WITH_STATE.fullmatch(piece))}
    if with_state:
        code, state = _only(with_state)
        return LoginCode(_checked(code, named=True), state)
    return _from_labels(text) or _from_pieces(pieces, whole)


def _stripped(pieces: Iterable[str]) -> list[str]:
    """Pieces of a sentence without its marks."""
    return [piece.strip(_QUOTES).rstrip(".!").strip(_QUOTES) for piece in pieces]


def _only(found: Iterable[tuple[str | None, ...]]) -> tuple[str, str]:
    """The one pair that there is. Raises InvalidInput for several."""
    pairs = list(found)
    if len(pairs) != 1:
        raise InvalidInput(f"The text holds more than one code. {_MEND}")
    code, state = pairs[0]
    return str(code), str(state)


def _from_piece(text: str) -> LoginCode:
    """From what has no blank in it."""
    if '"code"' in text and (listed := _from_json(text)) is not None:
        return listed
    if _PARAMETER.search(text) or _SCHEME.match(text) or "%3fcode%3d" in text.lower():
        return _from_address(text)
    if (label := re.fullmatch(r"(?i)code[:=](.+)", text)) is not None:
        text = label[1].strip(_QUOTES)
    if (found := _WITH_STATE.fullmatch(text)) is not None:
        return LoginCode(_checked(found[1]), found[2])
    code, _, state = text.partition("#")
    return LoginCode(_checked(code), state or None)


def _whole_again(text: str) -> str | None:
    """What was broken into lines; None if there are words on one of them."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or any(len(line) > 1 for line in lines):
        return None
    whole = lines[0][0]
    for (line,) in lines[1:]:
        divided = whole.endswith(("?", "&", "#")) or line.startswith(("&", "#", "?"))
        whole += line if divided or not _NAMED.match(line) else f"&{line}"
    return whole


def _from_addresses(addresses: list[str], text: str) -> LoginCode:
    """From the addresses, or what was copied of them, among other words."""
    found = {_from_address(address) for address in addresses}
    if len(found) != 1:
        raise InvalidInput(f"The text holds more than one code. {_MEND}")
    (code,) = found
    if code.state is None and "state" in text:
        # What belongs to the address stands somewhere else, and so may the rest of the code.
        labelled = _LABELLED.findall(text)
        states = [value for name, value in labelled if name.lower() == "state"]
        if len(states) != 1 or "&state=" in text or "&amp;" in text:
            raise InvalidInput(f"The address is broken in two. {_MEND}")
        return LoginCode(code.code, states[0].strip(_QUOTES), code.issuer)
    return code


def _from_json(text: str) -> LoginCode | None:
    """An object with ``code`` in it, also without the braces that were stripped or not copied."""
    for whole in (text, f"{{{text}}}", f"{text}}}", f"{{{text}", f'{{{text}"}}'):
        try:
            value = json.loads(whole)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and isinstance(value.get("code"), str):
            code, _, behind = value["code"].strip().partition("#")
            state, issuer = value.get("state"), value.get("iss")
            return LoginCode(
                _checked(code, named=True),
                behind or (state if isinstance(state, str) and state else None),
                issuer if isinstance(issuer, str) else None,
            )
    return None


def _from_labels(text: str) -> LoginCode | None:
    labelled = [(name.lower(), value.strip(_QUOTES + ".")) for name, value in _LABELLED.findall(text)]
    codes = {value for name, value in labelled if name == "code"}
    states = {value for name, value in labelled if name == "state"}
    if not codes:
        return None
    if len(codes) > 1 or len(states) > 1:
        raise InvalidInput(f"The text holds more than one code. {_MEND}")
    code, _, state = codes.pop().partition("#")
    return LoginCode(_checked(code, named=True), state or (states.pop() if states else None))


def _from_pieces(pieces: list[str], whole: str | None) -> LoginCode:
    """A code and its state on two lines, or a code that was broken into lines."""
    if len(pieces) == 2 and _STATE.fullmatch(pieces[1].removeprefix("#")):
        return LoginCode(_checked(pieces[0].removesuffix("#")), pieces[1].removeprefix("#"))
    if len(pieces) == 3 and pieces[1] == "#":
        return LoginCode(_checked(pieces[0]), pieces[2])
    if whole is None or not _is_broken(pieces):
        raise InvalidInput(f"No authorization code was found in the text. {_MEND}")
    return _from_piece(whole)


def _is_broken(lines: list[str]) -> bool:
    """Whether lines are as long as those that a terminal or a mail program makes."""
    return all(len(line) >= _BROKEN for line in lines[:-1])


def _from_address(text: str) -> LoginCode:
    """The parameters of an address, or of what was copied of one."""
    parameters, fragment = _parameters(text)
    if not {"code", "error", "code_challenge"} & parameters.keys():
        # A page that passes the address on may hold it as a whole.
        inner = [value for values in parameters.values() for value in values if _PARAMETER.search(value)]
        if len(inner) == 1:
            parameters, fragment = _parameters(inner[0])
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
    code, _, rest = parameters.get("code", [""])[0].strip(_QUOTES).partition("#")
    # Some pages put the state behind the code, as code#state: then it is the URL's fragment.
    state = parameters.get("state", [rest or ("" if "=" in fragment else fragment)])[0].strip(_QUOTES)
    return LoginCode(_checked(code, named=True), state or None, parameters.get("iss", [None])[0])


def _parameters(text: str) -> tuple[Mapping[str, list[str]], str]:
    """Those of the query before those of the fragment, and the fragment itself."""
    text = re.sub(r"&(?:amp|#38|#x26);", "&", text)
    before, _, fragment = text.partition("#")
    first = re.search(r"[?=]", before)
    query = before[first.end() :] if first is not None and first[0] == "?" else before
    try:
        return {
            **parse_qs(fragment, max_num_fields=50),
            **parse_qs(query, max_num_fields=50),
        }, fragment
    except ValueError:
        raise InvalidInput(f"The address cannot be read. {_MEND}") from None


def _checked(code: str, *, named: bool = False) -> str:
    """``named``: something says that it is the code."""
    if not named and (code.startswith(_TOKEN_PREFIXES) or _JWT.fullmatch(code)):
        raise InvalidInput(f"That is a token or a key, and no authorization code. {_MEND}")
    if not _CODE.fullmatch(code) or _MAIL.fullmatch(code) or code in _PLACEHOLDERS:
        raise InvalidInput(f"No authorization code was found in the text. {_MEND}")
    return code


def _refusal(error: str) -> str:
    if error == "access_denied":
        return "Consent was refused on the provider's page (access_denied). Start a new login and approve it."
    word = error if _ERROR.fullmatch(error) else "an unknown error"
    return f"The provider ended the login with an error ({word}). Start a new login."
