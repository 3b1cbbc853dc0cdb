"""What every store of jobs does: refreshes of all users, for ``jobs.Jobs``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol
from uuid import UUID

from ..results import Job, ResultCounts, UserResult, Wanted

Ended = Literal["finished", "stopped", "interrupted"]

# A job that has been silent for so many seconds has lost its process.
SILENT = 30.0
INTERRUPTED = "Its gateway process ended, or lost the database. Start it again: it goes on with who is left."
# Jobs are remembered for so many seconds, and no more than so many of them.
REMEMBERED = 86_400.0
KEPT = 50


class JobStore(Protocol):
    """Where jobs are kept. Each method raises StorageUnavailable where that cannot be reached."""

    async def start(self, job_id: UUID, wanted: Wanted, total: int) -> Job:
        """Begin a job with this id. Where one runs already, nothing is begun and that one is returned."""
        ...

    async def save(self, job_id: UUID, results: Sequence[UserResult], counts: ResultCounts) -> bool:
        """Add results, and say that the job lives. ``counts`` are those of all results so far.

        False where the job does not run any more: it was silent for too long, and was given up.
        """
        ...

    async def end(self, job_id: UUID, status: Ended, message: str | None) -> None:
        """End a job that runs."""
        ...

    async def load(self, job_id: UUID) -> Job | None:
        """The job as it stands; one that fell silent reads as ``interrupted``."""
        ...

    async def results(
        self, job_id: UUID, *, after: str | None, limit: int, result: str | None
    ) -> Sequence[UserResult]:
        """Up to ``limit`` results in order of the user id, after that of ``after``; of one kind, if asked."""
        ...

    async def purge(self) -> int:
        """Forget old jobs; returns how many."""
        ...
