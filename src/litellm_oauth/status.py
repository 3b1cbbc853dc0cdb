"""How a row reads to people: see ``tokens.Status``."""

from __future__ import annotations

from .backoff import cooling_for
from .stores import RowStatus, TokenRow
from .tokens import Freshness, Status, UserStatus, freshness


def user_status(
    user: str, row: TokenRow | None, *, now: float, refresh_buffer: float, readable: bool, source: str
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
        )
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
        has_refresh_token=row.refresh_token is not None,
        last_error=row.last_error,
        next_attempt_at=row.next_attempt_at if row.last_error else None,
        updated_at=row.updated_at,
        source=source,
    )


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
    if row.last_error and cooling_for(row, now) > 0:
        return Status.COOLING_DOWN
    return {
        Freshness.VALID: Status.ACTIVE,
        Freshness.DUE: Status.DUE,
        Freshness.EXPIRED: Status.EXPIRED,
    }[freshness(row.expires_at, now, refresh_buffer)]
