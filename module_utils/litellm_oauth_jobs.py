# SPDX-License-Identifier: MIT
"""A refresh of all users, which the gateway does by itself: begun, waited for, and read.

Standard library and Ansible only: this runs on the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import sleep
from typing import Any

from ansible.module_utils.litellm_oauth_client import Gateway
from ansible.module_utils.litellm_oauth_http import UNREACHABLE, GatewayError, one_line

# Seconds between two looks at a job: soon at first, for few users take no time.
FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.1, 5.0, 1.5
# So many looks in a row may fail, with so many seconds in between: a gateway starts again in less time.
PATIENCE, AFTER_FAILURE = 8, 2.0
# So many jobs of others are waited for.
MOST_OTHERS = 5
# Faults that may pass.
PASSING = (UNREACHABLE, "storage_unavailable")


@dataclass(frozen=True)
class RefreshOfAll:
    """A job that has ended: itself, each user's result, and how everybody's login stands since."""

    job: dict[str, Any]
    results: dict[str, dict[str, Any]]
    after: dict[str, dict[str, Any]]

    @property
    def cut_short(self) -> str | None:
        """Why not everybody was looked at, or None."""
        if self.job["status"] == "finished":
            return None
        why = one_line(str(self.job.get("message") or "the gateway does not say why")).rstrip(".")
        return f"The refresh of all users was {self.job['status']}: {why}."


def refresh_all(gateway: Gateway, *, min_validity: int | None, force: bool) -> RefreshOfAll:
    """Have all users refreshed, and wait for it. Raises GatewayError."""
    lost = False
    for _ in range(MOST_OTHERS):
        try:
            job = gateway.refresh_all(min_validity=min_validity, force=force)
        except GatewayError as error:
            if not error.uncertain:
                raise
            if lost:
                message = (
                    f"{error.message} Whether the refresh of all users has begun is unknown. Run this again."
                )
                raise GatewayError(message, error.code, error.status, error.retry_after) from None
            # It may have begun all the same.
            lost = True
            continue
        same = job.get("force") is force and min_validity in (None, job.get("min_validity"))
        mine = not job["already_running"] or (lost and same)
        job = _ended(gateway, job)
        if mine:
            results = {one["user_id"]: one for one in gateway.job_results(job["job_id"])}
            return RefreshOfAll(job, results, {one["user_id"]: one for one in gateway.statuses()})
    raise GatewayError("Others refresh all users all the time. Run this again when they have ended.")


def _ended(gateway: Gateway, job: dict[str, Any]) -> dict[str, Any]:
    """The job, once it runs no more. Raises GatewayError."""
    pause, failures = FIRST_PAUSE, 0
    while job["status"] == "running":
        sleep(pause)
        pause = min(LONGEST_PAUSE, pause * GROWTH)
        try:
            job = gateway.job(job["job_id"])
            failures = 0
        except GatewayError as error:
            failures += 1
            passing = error.uncertain or error.code in PASSING or error.status >= 500
            if not passing or failures >= PATIENCE:
                raise GatewayError(
                    f"{error.message} The refresh of all users (job {job['job_id']}) was begun; how it "
                    "ended is unknown. Run this again: who was refreshed is left alone.",
                    error.code,
                    error.status,
                    error.retry_after,
                ) from None
            pause = max(pause, AFTER_FAILURE)
    return job
