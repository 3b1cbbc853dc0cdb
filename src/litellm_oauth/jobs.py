"""Refreshes of all users that run by themselves: somebody asks, and looks later how it went.

A job belongs to nobody's request. Its results go to the store in batches, with a sign of life every few
seconds: a job whose process is gone falls silent, and whoever looks is told so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

from .bulk import Bulk
from .errors import NoSuchJob, StorageUnavailable
from .results import Job, ResultCounts, UserResult, Wanted
from .stores.job_store import INTERRUPTED, Ended, JobStore

_log = logging.getLogger(__name__)
# So many results are written in one go.
BATCH = 200
# Seconds between signs of life; what has come until then is written with them.
BEAT = 5.0
# So often, a second apart, the end of a job is tried to be written.
TRIES = 20
# Seconds that a process which ends waits for that; without it the job is found to be silent.
CLOSING_GRACE = 2.0


@dataclass(frozen=True, slots=True)
class StartedJob:
    """``joined``: it was running already, for somebody who may have wanted something else."""

    job: Job
    joined: bool


class Jobs:
    """Starts jobs and tells of them. Every method raises StorageUnavailable."""

    def __init__(self, store: JobStore, bulk: Bulk, *, beat: float = BEAT) -> None:
        self._store = store
        self._bulk = bulk
        self._beat = beat
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, wanted: Wanted) -> StartedJob:
        """Begin to refresh all users, unless that is being done already, here or elsewhere."""
        job_id = uuid4()
        job = await self._store.start(job_id, wanted, await self._bulk.total())
        if job.job_id != job_id:
            return StartedJob(job, joined=True)
        task = asyncio.create_task(self._run(job_id, wanted), name="litellm_oauth job")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return StartedJob(job, joined=False)

    async def look(self, job_id: UUID) -> Job:
        """How a job stands. Raises NoSuchJob."""
        job = await self._store.load(job_id)
        if job is None:
            raise NoSuchJob(
                f"There is no refresh of all users with the id {job_id}, or not any more: they are forgotten "
                "after a day. Without a database only the process that ran it knows."
            )
        return job

    async def results(
        self, job_id: UUID, *, after: str | None, limit: int, result: str | None = None
    ) -> Sequence[UserResult]:
        """What became of users, in order of their ids; see ``stores.jobs.JobStore.results``."""
        return await self._store.results(job_id, after=after, limit=limit, result=result)

    async def purge(self) -> None:
        """Forget jobs of long ago."""
        await self._store.purge()

    async def close(self) -> None:
        """End what runs, and say so; refreshes that have begun come to their own end."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSING_GRACE)

    async def _run(self, job_id: UUID, wanted: Wanted) -> None:
        ledger = _Ledger(self._store, job_id)
        beating = asyncio.create_task(self._keep_beating(ledger), name="litellm_oauth job's beat")
        status: Ended = "interrupted"
        message: str | None = INTERRUPTED
        tries = 1
        try:
            done = await self._bulk.everybody(wanted, ledger.add, name=f"job {job_id}")
            status, message, tries = done.status, done.message, TRIES
        except StorageUnavailable as error:
            status, message, tries = "stopped", error.message, TRIES
        except Exception:
            _log.exception("the refresh of all users failed")
            status, message, tries = "stopped", "The gateway failed. Its log says why.", TRIES
        finally:
            beating.cancel()
            await self._end(ledger, status, message, tries)

    async def _keep_beating(self, ledger: _Ledger) -> None:
        while True:
            await asyncio.sleep(self._beat)
            with suppress(StorageUnavailable):
                await ledger.write()

    async def _end(self, ledger: _Ledger, status: Ended, message: str | None, tries: int) -> None:
        for left in reversed(range(tries)):
            try:
                await ledger.write()
                await self._store.end(ledger.job_id, status, message)
            except StorageUnavailable as error:
                if left == 0:
                    # Whoever looks finds it silent.
                    _log.warning("the end of job %s cannot be written: %s", ledger.job_id, error.message)
                else:
                    await asyncio.sleep(1.0)
            else:
                return


class _Ledger:
    """The results of one job on their way into the store. Few are held at any moment."""

    def __init__(self, store: JobStore, job_id: UUID) -> None:
        self.job_id = job_id
        self._store = store
        self._waiting: list[UserResult] = []
        self._counts = ResultCounts()
        self._writing = asyncio.Lock()

    async def add(self, result: UserResult) -> None:
        """Raises StorageUnavailable where the store does not take them, or has given the job up."""
        self._waiting.append(result)
        self._counts.add(result)
        if len(self._waiting) >= BATCH and not await self.write(at_least=BATCH):
            raise StorageUnavailable("The job was silent for too long, so that others hold it for dead.")

    async def write(self, *, at_least: int = 0) -> bool:
        """Write what has come, unless that is less than ``at_least``. False where the job was given up."""
        async with self._writing:
            batch = self._waiting[:]
            if len(batch) < at_least:
                # Somebody else has written it while this one waited.
                return True
            alive = await self._store.save(self.job_id, batch, replace(self._counts))
            del self._waiting[: len(batch)]
            return alive
