"""Reads the token endpoint's answers: tokens (RFC 6749 §5.1), errors (§5.2), Retry-After (RFC 9110 §10.2.3).

An answer to a refresh may be the only copy of a single-use token. So whatever is usable in it is used: only
an answer without a usable access token counts as garbage.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from .errors import ProviderUnavailable

_log = logging.getLogger(__name__)
# RFC 6749 §5.1 lets the server leave expires_in out; an hour is the usual life of an access token.
DEFAULT_EXPIRES_IN = 3600
MAX_EXPIRES_IN = 366 * 86_400
MAX_RETRY_AFTER = 86_400.0
# RFC 6749 A.12 and A.17: any printable ASCII. RFC 6750 §2.1 has less for a bearer; servers issue more.
_TOKEN = re.compile(r"[\x20-\x7e]{1,16384}")
# RFC 6749 A.4
_SCOPE = re.compile(r"[!#-\[\]-~]{1,255}")
# RFC 6749 A.12 allows more; nothing longer or odder is repeated in messages.
_ERROR_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
# What providers call a grant that is good no more, in lower case, each with its source.
DEAD_GRANT = {
    "invalid_grant": "RFC 6749 §5.2",
    "bad_refresh_token": "GitHub, Refreshing user access tokens; HubSpot, OAuth (as status)",
    "invalid_refresh_token": "Slack, tooling.tokens.rotate",
    "refresh_token_not_found": "Supabase Auth, Error codes",
    "refresh_token_already_used": "Supabase Auth, Error codes",
    "refresh_token_expired": "OpenAI, github.com/openai/codex, login",
    "refresh_token_reused": "OpenAI, github.com/openai/codex, login (#24830)",
    "refresh_token_invalidated": "OpenAI, github.com/openai/codex, login",
}


@dataclass(frozen=True, slots=True)
class Grant:
    """A token answer. Lengths of time are in seconds; None means that the provider did not say."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_in: int
    refresh_expires_in: int | None
    scopes: tuple[str, ...] | None
    account: Mapping[str, Any] | None


def is_access_token(value: str) -> bool:
    """Whether it has the form of an access token. No header can carry a blank at its end (RFC 9110 §5.5)."""
    return _TOKEN.fullmatch(value) is not None and value == value.strip(" ")


def is_refresh_token(value: str) -> bool:
    """Whether it has the form of a refresh token."""
    return _TOKEN.fullmatch(value) is not None


def parse_grant(answer: Mapping[str, Any] | None) -> Grant:
    """Validate a successful answer (HTTP 2xx). Raises ProviderUnavailable (reason ``garbage``)."""
    if answer is None:
        raise _garbage("is not a JSON object")
    if not _has_access_token(answer):
        raise _garbage("holds no usable access_token")
    access_token: str = answer["access_token"]
    token_type = answer.get("token_type", "Bearer")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise _garbage("holds a token that is not of the type Bearer")
    refresh_token = answer.get("refresh_token")
    usable = isinstance(refresh_token, str) and is_refresh_token(refresh_token)
    if refresh_token is not None and not usable:
        _log.error("the provider sent a refresh token of a form that RFC 6749 does not know; it is left out")
    return Grant(
        access_token=access_token,
        refresh_token=refresh_token if usable else None,
        expires_in=_seconds(answer.get("expires_in")) or DEFAULT_EXPIRES_IN,
        refresh_expires_in=_seconds(answer.get("refresh_token_expires_in")),
        scopes=scopes_of(answer.get("scope")),
        account=account_of(answer),
    )


def is_error(answer: Mapping[str, Any] | None) -> bool:
    """Whether an answer is an error, also with the status of a success.

    One that holds a usable access token as well is none: that token may be the only copy.
    """
    if answer is None or _has_access_token(answer):
        return False
    return bool(answer.get("error")) or is_dead(answer)


def is_dead(answer: Mapping[str, Any] | None) -> bool:
    """Whether an answer says that the grant, a code or a refresh token, is good no more."""
    if answer is None or _has_access_token(answer):
        return False
    found = [*_error_words(answer), *(answer.get(name) for name in ("status", "reason", "type"))]
    return any(isinstance(word, str) and word.lower() in DEAD_GRANT for word in found)


def error_code(answer: Mapping[str, Any] | None) -> str | None:
    """The error code, or None. Some servers put it elsewhere than RFC 6749 §5.2 has it."""
    return None if answer is None else next(_error_words(answer), None)


def _error_words(answer: Mapping[str, Any]) -> Iterator[str]:
    """What can only be an error code: ``error``, its members, the first of ``errors``, and ``error_code``."""
    error, listed = answer.get("error"), answer.get("errors")
    first = listed[0] if isinstance(listed, list) and listed else None
    found = [error]
    for holder in (error, first):
        if isinstance(holder, dict):
            found += [holder.get(name) for name in ("code", "error_code", "type", "reason", "status")]
    found += [answer.get("error_code"), answer.get("code")]
    yield from (word for word in found if isinstance(word, str) and _ERROR_CODE.fullmatch(word))


def _has_access_token(answer: Mapping[str, Any]) -> bool:
    token = answer.get("access_token")
    return isinstance(token, str) and is_access_token(token)


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait, from a number of seconds or an HTTP date; at most a day; None where unusable."""
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = (
            float(text)
            if re.fullmatch(r"[0-9]{1,9}", text)
            else parsedate_to_datetime(text).timestamp() - now
        )
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _seconds(value: object) -> int | None:
    """A positive whole number of seconds out of a number or a numeric text, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or number <= 0:
        return None
    return int(min(max(number, 1), MAX_EXPIRES_IN))


def scopes_of(scope: object) -> tuple[str, ...] | None:
    """What was granted. A word that is no scope is left out: the tokens beside it are worth more."""
    words = scope.split() if isinstance(scope, str) else []
    return tuple(word for word in words if _SCOPE.fullmatch(word)) or None


def _is_short_text(value: object) -> bool:
    """Whether it can be stored and shown: no control characters, no halves of characters."""
    return isinstance(value, str) and len(value) <= 320 and value.isprintable()


def account_of(answer: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Who consented: short texts out of ``account`` and ``organization``, nothing else that was sent."""
    found: dict[str, Any] = {}
    for part, names in (("account", ("uuid", "email_address")), ("organization", ("uuid", "name"))):
        given = answer.get(part)
        if isinstance(given, dict):
            kept = {n: given[n] for n in names if _is_short_text(given.get(n))}
            if kept:
                found[part] = kept
    return found or None


def _garbage(what: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"The provider answered with success, but the answer {what}. Check claude_oauth.provider.token_url.",
        reason="garbage",
        maybe_spent=True,
    )
