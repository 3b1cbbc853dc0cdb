"""What the operations of ``service.TokenService`` take and return. No secret is in a repr."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asked, for the audit table: a user id or a part of the gateway, and an address or host."""

    name: str
    origin: str


@dataclass(frozen=True, slots=True)
class StartedLogin:
    """A login that waits for its code until ``expires_at``, for ``expires_in`` seconds (10 minutes).

    The URL and the state open one login of one user only together with the stored verifier (RFC 7636).
    They are shown to the person who logs in and are left out of the repr so that no log keeps them.
    """

    authorization_url: str = field(repr=False)
    state: str = field(repr=False)
    user_id: str
    expires_at: float
    expires_in: float
    redirect_uri: str


@dataclass(frozen=True, slots=True)
class RefreshOutcome:
    """``refreshed``: the provider gave a new token. ``fresh``: the stored one is good for long enough."""

    user_id: str
    result: Literal["refreshed", "fresh"]
    generation_before: int
    generation: int
    expires_at: float
    expires_in: float


@dataclass(frozen=True, slots=True)
class LogoutOutcome:
    """``revoked``: whether the provider confirmed the revocation (RFC 7009). None where there was nothing to
    revoke, or the provider has no revocation endpoint."""

    user_id: str
    was_logged_in: bool
    revoked: bool | None
    generation: int


@dataclass(frozen=True, slots=True)
class RefreshCounts:
    """One pass over the due users. ``stopped_early``: the provider kept failing, so the pass ended."""

    refreshed: int = 0
    reauth_required: int = 0
    unavailable: int = 0
    unreadable: int = 0
    superseded: int = 0
    stopped_early: bool = False

    @property
    def attempted(self) -> int:
        """How many users were taken up."""
        return self.refreshed + self.reauth_required + self.unavailable + self.unreadable + self.superseded
