"""Refreshes of all users in PostgreSQL, so that any gateway process can tell how one goes."""

# ruff: noqa: S608 -- only constants of this package go into the texts; values are always bound

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow

from ..errors import StorageUnavailable
from ..results import Job, ResultCounts, UserResult, Wanted
from .database import Database
from .job_store import INTERRUPTED, KEPT, REMEMBERED, SILENT, Ended

JOBS = "claude_oauth.refresh_jobs"
RESULTS = "claude_oauth.refresh_job_results"

_SILENT = f"status = 'running' AND heartbeat_at < clock_timestamp() - make_interval(secs => {SILENT})"
_COLUMNS = f"""job_id, CASE WHEN {_SILENT} THEN 'interrupted' ELSE status END AS status, actor,
  min_validity, force, total, refreshed, fresh, failed, skipped, message,
  extract(epoch FROM started_at)::float8 AS started_at,
  extract(epoch FROM CASE WHEN {_SILENT} THEN heartbeat_at ELSE finished_at END)::float8 AS finished_at"""
_GIVE_UP = f"""
UPDATE {JOBS} SET status = 'interrupted', finished_at = heartbeat_at, message = %(interrupted)s
WHERE {_SILENT}"""
_START = f"""
INSERT INTO {JOBS} (job_id, actor, min_validity, force, total)
VALUES (%(job)s, %(actor)s, %(min_validity)s, %(force)s, %(total)s)
ON CONFLICT (status) WHERE status = 'running' DO NOTHING
RETURNING {_COLUMNS}"""
_RUNNING = f"SELECT {_COLUMNS} FROM {JOBS} WHERE status = 'running'"
_LOAD = f"SELECT {_COLUMNS} FROM {JOBS} WHERE job_id = %(job)s"
# What was written already, though that was not confirmed, is the same.
_SAVE = f"""
WITH job AS (
  UPDATE {JOBS} SET heartbeat_at = clock_timestamp(), refreshed = %(refreshed)s, fresh = %(fresh)s,
    failed = %(failed)s, skipped = %(skipped)s
  WHERE job_id = %(job)s AND status = 'running' RETURNING job_id),
added AS (
  INSERT INTO {RESULTS} (job_id, user_id, result, code, message, generation_before, generation, expires_at)
  SELECT job.job_id, r.user_id, r.result, r.code, r.message, r.before, r.generation,
    to_timestamp(r.expires_at)
  FROM job, unnest(%(users)s::text[], %(results)s::text[], %(codes)s::text[], %(messages)s::text[],
    %(befores)s::bigint[], %(generations)s::bigint[], %(expiries)s::float8[])
    AS r (user_id, result, code, message, before, generation, expires_at)
  ON CONFLICT DO NOTHING)
SELECT job_id FROM job"""
_END = f"""
UPDATE {JOBS} SET status = %(status)s, message = %(message)s,
  finished_at = clock_timestamp(), heartbeat_at = clock_timestamp()
WHERE job_id = %(job)s AND status = 'running'"""
_RESULTS = f"""
SELECT user_id, result, code, message, generation_before, generation,
  extract(epoch FROM expires_at)::float8 AS expires_at
FROM {RESULTS}
WHERE job_id = %(job)s AND user_id > %(after)s AND (%(result)s::text IS NULL OR result = %(result)s)
ORDER BY user_id LIMIT %(limit)s"""
_PURGE = f"""
WITH gone AS (
  DELETE FROM {JOBS} WHERE heartbeat_at < clock_timestamp() - make_interval(secs => {REMEMBERED})
    OR job_id IN (SELECT job_id FROM {JOBS} WHERE status <> 'running' ORDER BY started_at DESC OFFSET {KEPT})
  RETURNING job_id),
emptied AS (DELETE FROM {RESULTS} r USING gone WHERE r.job_id = gone.job_id)
SELECT count(*) AS count FROM gone"""


class PostgresJobs:
    """``JobStore`` over the pool."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(self, job_id: UUID, wanted: Wanted, total: int) -> Job:
        values = {
            "job": job_id,
            "actor": wanted.actor.name,
            "min_validity": wanted.min_validity,
            "force": wanted.force,
            "total": total,
        }
        for _ in range(3):
            async with self._database.connection() as connection, connection.transaction():
                await connection.execute(_GIVE_UP, {"interrupted": INTERRUPTED})
                row = await (await connection.execute(_START, values)).fetchone()
                # Where there is none in either, the other one ended between the two.
                row = row or await (await connection.execute(_RUNNING)).fetchone()
            if row is not None:
                return _job(row)
        raise StorageUnavailable("Others start and end such refreshes all the time. Try again soon.")

    async def save(self, job_id: UUID, results: Sequence[UserResult], counts: ResultCounts) -> bool:
        values: dict[str, Any] = {
            "job": job_id,
            **asdict(counts),
            "users": [one.user_id for one in results],
            "results": [one.result for one in results],
            "codes": [one.code for one in results],
            "messages": [one.message for one in results],
            "befores": [one.generation_before for one in results],
            "generations": [one.generation for one in results],
            "expiries": [one.expires_at for one in results],
        }
        return await self._database.one(_SAVE, values) is not None

    async def end(self, job_id: UUID, status: Ended, message: str | None) -> None:
        await self._database.run(_END, {"job": job_id, "status": status, "message": message})

    async def load(self, job_id: UUID) -> Job | None:
        row = await self._database.one(_LOAD, {"job": job_id})
        return None if row is None else _job(row)

    async def results(
        self, job_id: UUID, *, after: str | None, limit: int, result: str | None
    ) -> Sequence[UserResult]:
        values = {"job": job_id, "after": after or "", "limit": limit, "result": result}
        return [UserResult(**row) for row in await self._database.all(_RESULTS, values)]

    async def purge(self) -> int:
        row = await self._database.one(_PURGE)
        return row["count"] if row is not None else 0


def _job(row: DictRow) -> Job:
    return Job(
        job_id=row["job_id"],
        status=row["status"],
        actor=row["actor"],
        min_validity=row["min_validity"],
        force=row["force"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        total=row["total"],
        counts=ResultCounts(row["refreshed"], row["fresh"], row["failed"], row["skipped"]),
        message=INTERRUPTED if row["status"] == "interrupted" else row["message"],
    )
