"""Token sets and what "valid", "due" and "expired" mean. The clock is always passed in; no I/O here.

Times are seconds since the epoch (float), lengths of time are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .errors import InvalidInput

MAX_USER_ID_LENGTH = 255
# Above this a number of seconds would lie in the year 5138, so it is one of milliseconds.
_MILLISECONDS = 1e11
# 9999-12-31T23:59:59Z: no calendar of Python's or of RFC 3339 goes further.
LAST_MOMENT = 253_402_300_799.0


class Freshness(StrEnum):
    """How an access token stands against the clock."""

    VALID = "valid"
    DUE = "due"
    EXPIRED = "expired"


class Status(StrEnum):
    """How a user's login stands. Somebody who never logged in reads as ``logged_out`` with generation 0."""

    ACTIVE = "active"
    DUE = "due"
    EXPIRED = "expired"
    IN_DOUBT = "in_doubt"
    COOLING_DOWN = "cooling_down"
    REAUTH_REQUIRED = "reauth_required"
    UNREADABLE = "unreadable"
    LOGGED_OUT = "logged_out"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a request upstream needs. ``generation`` goes to ``replace_rejected`` when the answer is 401."""

    value: str = field(repr=False)
    generation: int
    expires_at: float


@dataclass(frozen=True, slots=True)
class TokenSet:
    """All that one user holds. ``generation`` counts every change, never goes back and survives a logout."""

    user_id: str
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: float
    refresh_expires_at: float | None
    scopes: tuple[str, ...]
    account: Mapping[str, Any] | None
    generation: int

    def freshness(self, now: float, refresh_buffer: float) -> Freshness:
        """See :func:`freshness`."""
        return freshness(self.expires_at, now, refresh_buffer)


@dataclass(frozen=True, slots=True)
class ExportedLogin:
    """A login with its tokens in the clear, on its way from one place to another. None: nobody knows.

    ``user_id``: whose it was where it comes from. ``client_id``: to whom the refresh token was issued (RFC
    6749 §6). ``logged_in_at``: when the person consented.
    """

    user_id: str | None
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: float
    refresh_expires_at: float | None
    scopes: tuple[str, ...]
    account: Mapping[str, Any] | None
    client_id: str | None
    logged_in_at: float | None

    def is_over(self, now: float) -> bool:
        """Whether there is nothing left to use: the access token has expired, and none can replace it."""
        return self.refresh_token is None and now >= self.expires_at


@dataclass(frozen=True, slots=True)
class UserStatus:
    """What may be told about a user's login: everything but the tokens.

    ``expires_in`` is in seconds, never negative, None where there is no access token. ``next_attempt_at`` is
    the moment before which the provider is not asked again. ``source`` names the tier that was read.
    ``has_refresh_token``: one that the configured client may use. ``login_ends_at`` is when a new login will
    be needed, as well as that is known; ``warning`` says so in words, days ahead.
    """

    user_id: str
    status: Status
    expires_at: float | None
    expires_in: float | None
    refresh_expires_at: float | None
    scopes: tuple[str, ...]
    account: Mapping[str, Any] | None
    generation: int
    refresh_count: int
    has_refresh_token: bool
    last_error: str | None
    next_attempt_at: float | None
    updated_at: float | None
    source: str
    login_ends_at: float | None
    warning: str | None

    @property
    def authenticated(self) -> bool:
        """Whether a request of this user can be served now or after a refresh, without a new login.

        True while the access token has not expired (even where the login can no longer be refreshed), and
        for an expired one that a stored refresh token can replace. False where the values do not decrypt.
        """
        if self.status in (Status.LOGGED_OUT, Status.UNREADABLE):
            return False
        if self.expires_in is not None and self.expires_in > 0:
            return True
        return self.has_refresh_token and self.status is not Status.REAUTH_REQUIRED

    @property
    def works(self) -> bool:
        """Whether no new login is wanted. An access token may outlast the login that it came with."""
        return self.authenticated and self.status is not Status.REAUTH_REQUIRED


def moment_of(value: object) -> float | None:
    """Seconds since the epoch out of a number, or a text of one; above 10^11 it is milliseconds."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    with suppress(ValueError, OverflowError):
        number = float(value)
        if 0 <= number < 1e15:
            return showable(number / 1000 if number > _MILLISECONDS else number)
    return None


def showable(moment: float) -> float:
    """The nearest moment from 1970 to the year 9999, also for infinity: whatever is stored can be shown."""
    return min(max(0.0, moment), LAST_MOMENT)


def freshness(expires_at: float, now: float, refresh_buffer: float) -> Freshness:
    """``expired`` from ``expires_at`` on, ``due`` ``refresh_buffer`` seconds before it, else ``valid``."""
    if now >= expires_at:
        return Freshness.EXPIRED
    if now >= expires_at - refresh_buffer:
        return Freshness.DUE
    return Freshness.VALID


def check_user_id(user_id: str) -> str:
    """Return ``user_id`` unchanged.

    Raises InvalidInput unless it has 1 to 255 printable characters and neither starts nor ends with a space.
    """
    if not user_id or len(user_id) > MAX_USER_ID_LENGTH:
        raise InvalidInput(f"A user id has 1 to {MAX_USER_ID_LENGTH} characters, not {len(user_id)}.")
    if not user_id.isprintable():
        raise InvalidInput("A user id holds printable characters only: no tabs, newlines or other controls.")
    if user_id != user_id.strip():
        raise InvalidInput("A user id neither starts nor ends with a space.")
    return user_id
