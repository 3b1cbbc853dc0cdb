"""What the operations of ``service.TokenService`` take and return. No secret is in a repr."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

RefreshResult = Literal["refreshed", "fresh"]
ResultOfUser = Literal["refreshed", "fresh", "failed", "skipped"]
JobStatus = Literal["running", "finished", "stopped", "interrupted"]


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
    ``whole_address``: only the whole address that consent leads to completes it (RFC 9207 §2.4).
    """

    authorization_url: str = field(repr=False)
    state: str = field(repr=False)
    user_id: str
    expires_at: float
    expires_in: float
    redirect_uri: str
    whole_address: bool


@dataclass(frozen=True, slots=True)
class RefreshOutcome:
    """``refreshed``: the provider gave a new token. ``fresh``: the stored one is good for long enough."""

    user_id: str
    result: RefreshResult
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """A refresh of all users: of those who have at most ``min_validity`` seconds left, or by ``force``."""

    min_validity: float
    force: bool
    actor: Actor


@dataclass(frozen=True, slots=True)
class UserResult:
    """What a refresh of all users meant for one of them.

    ``refreshed``: there is a newer token than before. ``fresh``: the one there is good for long enough.
    ``failed``: ``code`` and ``message`` say why, as the error of a single refresh would. ``skipped``: not
    tried, because the whole was stopped before.
    """

    user_id: str
    result: ResultOfUser
    code: str | None
    message: str | None
    generation_before: int
    generation: int
    expires_at: float | None


@dataclass(slots=True)
class ResultCounts:
    """How many users had each result."""

    refreshed: int = 0
    fresh: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, result: UserResult) -> None:
        setattr(self, result.result, getattr(self, result.result) + 1)

    @property
    def done(self) -> int:
        """How many users were looked at."""
        return self.refreshed + self.fresh + self.failed + self.skipped


@dataclass(frozen=True, slots=True)
class RefreshedAll:
    """How a refresh of all users ended. ``stopped``: before its time; ``message`` says why."""

    status: Literal["finished", "stopped"]
    message: str | None
    counts: ResultCounts


@dataclass(frozen=True, slots=True)
class Job:
    """A refresh of all users that runs by itself, or has run. Times are seconds since the epoch.

    ``running``; ``finished``: everybody was looked at; ``stopped``: it gave up, ``message`` says why;
    ``interrupted``: its process is gone. ``total``: how many were logged in when it began.
    """

    job_id: UUID
    status: JobStatus
    actor: str
    min_validity: float
    force: bool
    started_at: float
    finished_at: float | None
    total: int
    counts: ResultCounts
    message: str | None
