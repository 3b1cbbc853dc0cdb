"""The JSON of every answer, as types: ``views`` makes them, ``openapi`` publishes them.

Only ``openapi`` loads this module; elsewhere it is there for the type checker. Its classes keep clear of the
names that LiteLLM's own models have, because one document holds both.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

# typing's own is not enough for pydantic before Python 3.12.
from typing_extensions import TypedDict

from ..results import JobStatus, RefreshResult, ResultOfUser
from ..tokens import Status

Moment = Annotated[str, Field(description="UTC, whole seconds", json_schema_extra={"format": "date-time"})]
Seconds = Annotated[int, Field(description="Seconds, rounded down")]
Generation = Annotated[int, Field(ge=0, description="Counts every change of this login; never goes back")]


class StartedLogin(TypedDict):
    """A login that waits for its code."""

    authorization_url: str
    state: str
    user_id: str
    redirect_uri: str
    whole_address: bool
    expires_in: Seconds
    expires_at: Moment


class LoginStatus(TypedDict):
    """A user's login without its tokens."""

    user_id: str
    authenticated: bool
    status: Annotated[str, Field(json_schema_extra={"enum": [status.value for status in Status]})]
    expires_at: Moment | None
    expires_in: Seconds | None
    refresh_expires_at: Moment | None
    login_ends_at: Moment | None
    warning: str | None
    generation: Generation
    scopes: list[str]
    account: dict[str, Any] | None
    refresh_count: Annotated[int, Field(ge=0)]
    has_refresh_token: bool
    last_error: str | None
    next_attempt_at: Moment | None
    updated_at: Moment | None
    source: str


class CompletedLogin(LoginStatus):
    """How a login stands that has just been completed."""

    message: str


class UserPage(TypedDict):
    """Some of the users. ``next`` goes back as ``after``; null on the last page."""

    users: list[LoginStatus]
    next: str | None


class RefreshedLogin(TypedDict):
    """What a refresh did."""

    user_id: str
    result: RefreshResult
    generation_before: Generation
    generation: Generation
    expires_at: Moment
    expires_in: Seconds


class RefreshJobCounts(TypedDict):
    """How many users had each result."""

    refreshed: int
    fresh: int
    failed: int
    skipped: int


class RefreshJob(TypedDict):
    """How a refresh of all users stands."""

    job_id: Annotated[str, Field(json_schema_extra={"format": "uuid"})]
    status: JobStatus
    message: str | None
    started_at: Moment
    finished_at: Moment | None
    actor: str
    min_validity: Annotated[float, Field(description="Seconds")]
    force: bool
    total: int
    counts: RefreshJobCounts


class StartedRefreshJob(RefreshJob):
    """A refresh of all users that has begun, now or before."""

    already_running: bool
    location: str


class RefreshedUser(TypedDict):
    """What a refresh of all users meant for one of them."""

    user_id: str
    result: ResultOfUser
    code: str | None
    message: str | None
    generation_before: Generation
    generation: Generation
    expires_at: Moment | None


class RefreshJobPage(RefreshJob):
    """A job with the results of some users. ``next`` goes back as ``after``; null on the last page."""

    results: list[RefreshedUser]
    next: str | None


class LoggedOut(TypedDict):
    """What a logout did. ``revoked`` is null where there was nothing to revoke."""

    user_id: str
    was_logged_in: bool
    revoked: bool | None
    generation: Generation


class ModuleHealth(TypedDict):
    """Whether the OAuth module works."""

    status: Literal["ok", "degraded"]
    database: bool


class OAuthErrorDetail(TypedDict):
    """``message`` is a sentence for a person; ``code`` a stable word for a program."""

    message: str
    type: str
    param: str | None
    code: str


class OAuthError(TypedDict):
    """What every error looks like."""

    error: OAuthErrorDetail
