"""How a row reads to people: see ``tokens.Status``."""

from __future__ import annotations

from dataclasses import dataclass

from .backoff import cooling_for, next_attempt_at, resting_for
from .messages import how_to_log_in, other_client
from .settings import DAY
from .stores import RowStatus, TokenRow
from .tokens import Freshness, Status, UserStatus, freshness


@dataclass(frozen=True, slots=True)
class LoginAge:
    """How long a login lasts where the provider does not say, and how long before its end people are warned.

    Both in seconds. A provider that ends refresh tokens some weeks after the login gives no other sign.
    """

    lifetime: float
    warning: float


def login_ends_at(row: TokenRow, age: LoginAge) -> float | None:
    """When a new login will be needed: by the provider's word, else by the login's age; None if unknown."""
    if row.refresh_expires_at is not None:
        return row.refresh_expires_at
    if row.logged_in_at is None or row.refresh_token is None:
        return None
    return row.logged_in_at + age.lifetime


def warning_of(row: TokenRow, age: LoginAge, now: float) -> str | None:
    """What a person should know days ahead, or None."""
    ends_at = login_ends_at(row, age)
    if row.status is not RowStatus.ACTIVE or ends_at is None or now < ends_at - age.warning:
        return None
    days = max(0.0, (ends_at - now) / DAY)
    judged = "the provider says" if row.refresh_expires_at is not None else "its age tells"
    return (
        f"The login of {row.user_id} ends in about {days:.1f} days, as {judged}. Before that, log in again "
        f"with {how_to_log_in(row.user_id, again=True)}."
    )


def user_status(
    user: str,
    row: TokenRow | None,
    *,
    now: float,
    refresh_buffer: float,
    age: LoginAge,
    client_id: str,
    readable: bool,
    source: str,
) -> UserStatus:
    """The status of ``user``; ``row`` None means that they never logged in."""
    if row is None:
        return UserStatus(
            user_id=user,
            status=Status.LOGGED_OUT,
            expires_at=None,
            expires_in=None,
            refresh_expires_at=None,
            scopes=(),
            account=None,
            generation=0,
            refresh_count=0,
            has_refresh_token=False,
            last_error=None,
            next_attempt_at=None,
            updated_at=None,
            source=source,
            login_ends_at=None,
            warning=None,
        )
    resting = _rests(row, now, refresh_buffer)
    usable = row.is_for(client_id)
    return UserStatus(
        user_id=row.user_id,
        status=_status(row, now, refresh_buffer, readable),
        expires_at=row.expires_at,
        expires_in=None if row.expires_at is None else max(0.0, row.expires_at - now),
        refresh_expires_at=row.refresh_expires_at,
        scopes=row.scopes,
        account=row.account,
        generation=row.generation,
        refresh_count=row.refresh_count,
        has_refresh_token=row.refresh_token is not None and usable,
        last_error=row.provider.reason if resting else row.last_error,
        next_attempt_at=_next_attempt_at(row, now, resting),
        updated_at=row.updated_at,
        source=source,
        login_ends_at=login_ends_at(row, age),
        warning=warning_of(row, age, now) if usable else other_client(row.user_id, row.client_id).message,
    )


def _rests(row: TokenRow, now: float, refresh_buffer: float) -> bool:
    """Whether this user has to wait because the provider is left in peace by everybody."""
    wanted = row.refresh_token is not None and now >= (row.expires_at or 0.0) - refresh_buffer
    return wanted and resting_for(row.provider) > cooling_for(row, now)


def _next_attempt_at(row: TokenRow, now: float, resting: bool) -> float | None:
    if resting:
        return now + row.provider.rests_for
    return next_attempt_at(row, now) if row.last_error else None


def _status(row: TokenRow, now: float, refresh_buffer: float, readable: bool) -> Status:
    """The most serious thing first: what a person has to act on hides what mends itself."""
    if row.status is RowStatus.LOGGED_OUT or row.expires_at is None:
        return Status.LOGGED_OUT
    if not readable:
        return Status.UNREADABLE
    if row.status is RowStatus.REAUTH_REQUIRED:
        return Status.REAUTH_REQUIRED
    if row.in_doubt:
        return Status.IN_DOUBT
    if (row.last_error and cooling_for(row, now) > 0) or _rests(row, now, refresh_buffer):
        return Status.COOLING_DOWN
    return {
        Freshness.VALID: Status.ACTIVE,
        Freshness.DUE: Status.DUE,
        Freshness.EXPIRED: Status.EXPIRED,
    }[freshness(row.expires_at, now, refresh_buffer)]
