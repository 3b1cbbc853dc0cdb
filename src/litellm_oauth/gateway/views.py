"""What the routes and ``litellm claude --json`` show of the service's results: one shape for both."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, overload

from ..jobs import StartedJob
from ..results import Job, LogoutOutcome, RefreshOutcome, StartedLogin, UserResult
from ..tokens import UserStatus, showable

if TYPE_CHECKING:
    from . import shapes


@overload
def moment(seconds: float) -> str: ...
@overload
def moment(seconds: None) -> None: ...
@overload
def moment(seconds: float | None) -> str | None: ...
def moment(seconds: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC, whole seconds (RFC 3339), or None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(math.floor(showable(seconds)), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def started_login(started: StartedLogin) -> shapes.StartedLogin:
    """A login that waits for its code."""
    return {
        "authorization_url": started.authorization_url,
        "state": started.state,
        "user_id": started.user_id,
        "redirect_uri": started.redirect_uri,
        "whole_address": started.whole_address,
        "expires_in": math.floor(started.expires_in),
        "expires_at": moment(started.expires_at),
    }


def status(status: UserStatus) -> shapes.LoginStatus:
    """A user's login without its tokens."""
    return {
        "user_id": status.user_id,
        "authenticated": status.authenticated,
        "status": status.status.value,
        "expires_at": moment(status.expires_at),
        "expires_in": None if status.expires_in is None else math.floor(status.expires_in),
        "refresh_expires_at": moment(status.refresh_expires_at),
        "login_ends_at": moment(status.login_ends_at),
        "warning": status.warning,
        "generation": status.generation,
        "scopes": list(status.scopes),
        "account": None if status.account is None else dict(status.account),
        "refresh_count": status.refresh_count,
        "has_refresh_token": status.has_refresh_token,
        "last_error": status.last_error,
        "next_attempt_at": moment(status.next_attempt_at),
        "updated_at": moment(status.updated_at),
        "source": status.source,
    }


def refresh(outcome: RefreshOutcome) -> shapes.RefreshedLogin:
    """What a refresh did."""
    return {
        "user_id": outcome.user_id,
        "result": outcome.result,
        "generation_before": outcome.generation_before,
        "generation": outcome.generation,
        "expires_at": moment(outcome.expires_at),
        "expires_in": math.floor(outcome.expires_in),
    }


def job(job: Job) -> shapes.RefreshJob:
    """How a refresh of all users stands."""
    return {
        "job_id": str(job.job_id),
        "status": job.status,
        "message": job.message,
        "started_at": moment(job.started_at),
        "finished_at": moment(job.finished_at),
        "actor": job.actor,
        "min_validity": job.min_validity,
        "force": job.force,
        "total": job.total,
        "counts": {
            "refreshed": job.counts.refreshed,
            "fresh": job.counts.fresh,
            "failed": job.counts.failed,
            "skipped": job.counts.skipped,
        },
    }


def started_job(started: StartedJob, location: str) -> shapes.StartedRefreshJob:
    """A refresh of all users that has begun, now or before."""
    message = (
        "A refresh of all users runs already; this is the one. Ask for it at location."
        if started.joined
        else "The refresh of all users has begun. Ask at location how it goes."
    )
    return {
        **job(started.job),
        "message": message,
        "already_running": started.joined,
        "location": location,
    }


def user_result(result: UserResult) -> shapes.RefreshedUser:
    """What a refresh of all users meant for one of them."""
    return {
        "user_id": result.user_id,
        "result": result.result,
        "code": result.code,
        "message": result.message,
        "generation_before": result.generation_before,
        "generation": result.generation,
        "expires_at": moment(result.expires_at),
    }


def logout(outcome: LogoutOutcome) -> shapes.LoggedOut:
    """What a logout did."""
    return {
        "user_id": outcome.user_id,
        "was_logged_in": outcome.was_logged_in,
        "revoked": outcome.revoked,
        "generation": outcome.generation,
    }
