"""Refreshes of all users in the memory of one process, for a gateway without a database.

Only the process that runs a job can tell how it goes, and its results take memory until it is forgotten.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID

from ..results import Job, ResultCounts, UserResult, Wanted
from .job_store import REMEMBERED, Ended

KEPT = 3


class MemoryJobs:
    """``job_store.JobStore`` without a store. ``now``: seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._jobs: dict[UUID, Job] = {}
        self._results: dict[UUID, dict[str, UserResult]] = {}

    async def start(self, job_id: UUID, wanted: Wanted, total: int) -> Job:
        for running in self._jobs.values():
            if running.status == "running":
                return running
        for old in list(self._jobs)[: 1 - KEPT]:
            self._forget(old)
        job = Job(
            job_id=job_id,
            status="running",
            actor=wanted.actor.name,
            min_validity=wanted.min_validity,
            force=wanted.force,
            started_at=self._now(),
            finished_at=None,
            total=total,
            counts=ResultCounts(),
            message=None,
        )
        self._jobs[job_id] = job
        self._results[job_id] = {}
        return job

    async def save(self, job_id: UUID, results: Sequence[UserResult], counts: ResultCounts) -> bool:
        job = self._jobs.get(job_id)
        if job is None or job.status != "running":
            return False
        self._jobs[job_id] = replace(job, counts=counts)
        self._results[job_id].update((one.user_id, one) for one in results)
        return True

    async def end(self, job_id: UUID, status: Ended, message: str | None) -> None:
        job = self._jobs.get(job_id)
        if job is not None and job.status == "running":
            self._jobs[job_id] = replace(job, status=status, message=message, finished_at=self._now())
            # In the order in which they are asked for.
            self._results[job_id] = dict(sorted(self._results[job_id].items()))

    async def load(self, job_id: UUID) -> Job | None:
        return self._jobs.get(job_id)

    async def results(
        self, job_id: UUID, *, after: str | None, limit: int, result: str | None
    ) -> Sequence[UserResult]:
        found = self._results.get(job_id, {})
        users = sorted(user for user, one in found.items() if result in (None, one.result))
        start = bisect_right(users, after) if after is not None else 0
        return [found[user] for user in users[start : start + limit]]

    async def purge(self) -> int:
        oldest = self._now() - REMEMBERED
        old = [job.job_id for job in self._jobs.values() if (job.finished_at or oldest) < oldest]
        for job_id in old:
            self._forget(job_id)
        return len(old)

    def _forget(self, job_id: UUID) -> None:
        del self._jobs[job_id], self._results[job_id]
