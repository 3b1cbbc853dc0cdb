"""Reads the token endpoint's answers: tokens (RFC 6749 §5.1), errors (§5.2), Retry-After (RFC 9110 §10.2.3).

An answer to a refresh may be the only copy of a single-use token. So whatever is usable in it is used: only
an answer without a usable access token counts as garbage.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from .errors import ProviderUnavailable

_log = logging.getLogger(__name__)
# RFC 6749 §5.1 lets the server leave expires_in out; an hour is the usual life of an access token.
DEFAULT_EXPIRES_IN = 3600
MAX_EXPIRES_IN = 366 * 86_400
MAX_RETRY_AFTER = 86_400.0
# RFC 6750 §2.1: what an Authorization header can carry.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}")
# RFC 6749 A.17: a refresh token is sent in a body only, and may hold any printable ASCII.
_REFRESH_TOKEN = re.compile(r"[\x20-\x7e]{1,16384}")
# RFC 6749 A.4
_SCOPE = re.compile(r"[!#-\[\]-~]{1,255}")
# RFC 6749 A.12 allows more; nothing longer or odder is repeated in messages.
_ERROR_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


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
    """Whether it has the form of an access token."""
    return _TOKEN.fullmatch(value) is not None


def is_refresh_token(value: str) -> bool:
    """Whether it has the form of a refresh token."""
    return _REFRESH_TOKEN.fullmatch(value) is not None


def parse_grant(answer: Mapping[str, Any] | None) -> Grant:
    """Validate a successful answer (HTTP 2xx). Raises ProviderUnavailable (reason ``garbage``)."""
    if answer is None:
        raise _garbage("is not a JSON object")
    access_token = answer.get("access_token")
    if not isinstance(access_token, str) or not is_access_token(access_token):
        raise _garbage("holds no usable access_token")
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


def error_code(answer: Mapping[str, Any] | None) -> str | None:
    """The OAuth error code, or None. Some servers wrap it: ``{"error": {"type": …}}``."""
    error = answer.get("error") if answer is not None else None
    if isinstance(error, dict):
        error = error.get("type")
    return error if isinstance(error, str) and _ERROR_CODE.fullmatch(error) else None


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
