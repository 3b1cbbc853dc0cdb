"""Refreshes of all users as jobs: one at a time, told of by any process, and never silent about their end."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from litellm_oauth import jobs
from litellm_oauth.errors import NoSuchJob, StorageUnavailable
from litellm_oauth.results import Job, ResultCounts, UserResult, Wanted
from litellm_oauth.service import TokenService
from litellm_oauth.stores.job_store import INTERRUPTED, KEPT, REMEMBERED
from litellm_oauth.stores.jobs import JOBS, RESULTS
from litellm_oauth.stores.memory_jobs import KEPT as KEPT_IN_MEMORY
from litellm_oauth.stores.memory_jobs import MemoryJobs
from support.postgres import AUDIT
from support.service import ACTOR, QUICK, Gateways, MovableClock, eventually

LATER = 7200.0
SOON = 100.0
USERS = [f"user-{n:02}" for n in range(12)]


async def ended(service: TokenService, job_id: UUID, seconds: float = 10.0) -> Job:
    """The job, once it runs no more."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        job = await service.job(job_id)
        if job.status != "running":
            return job
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


def outcomes(gateways: Gateways) -> list[str]:
    rows = gateways.database.query(
        f"SELECT outcome FROM {AUDIT} WHERE action = 'refresh_all' ORDER BY audit_id"
    )
    return [row["outcome"] for row in rows]


async def test_one_process_runs_it_and_another_tells_how_it_goes(gateways: Gateways) -> None:
    gateways.log_in_many(USERS, expires_in=SOON)
    gateways.log_in_many(["zoe"], expires_in=LATER)
    gateways.sandbox.revoke("user-03")
    gateways.sandbox.fault("token", "slow", seconds=0.1, times=None)
    first, second = await gateways.open(), await gateways.open(host="two")
    started = await first.start_refresh_all(actor=ACTOR)
    assert (started.joined, started.job.status, started.job.total) == (False, "running", 13)
    job_id = started.job.job_id
    running = await second.job(job_id)
    assert (running.status, running.actor, running.finished_at) == ("running", "tester", None)
    job = await ended(second, job_id)
    assert (job.status, job.message, job.counts) == ("finished", None, ResultCounts(11, 1, 1, 0))
    assert job.finished_at is not None
    assert job.started_at < job.finished_at
    page = await second.job_results(job_id, limit=5)
    rest = await second.job_results(job_id, after=page[-1].user_id)
    assert [one.user_id for one in [*page, *rest]] == [*USERS, "zoe"]
    assert [one.result for one in page] == [*["refreshed"] * 3, "failed", "refreshed"]
    (failed,) = await second.job_results(job_id, result="failed")
    assert (failed.user_id, failed.code, failed.generation) == ("user-03", "reauth_required", 1)
    assert failed.message is not None
    assert rest[-1].expires_at == pytest.approx(gateways.row("zoe")["expires_at"].timestamp())
    assert outcomes(gateways) == ["started", "finished"]


async def test_a_second_one_joins_the_first_while_it_runs(gateways: Gateways) -> None:
    gateways.log_in_many(USERS, expires_in=SOON)
    gateways.sandbox.fault("token", "slow", seconds=0.2, times=None)
    services = [await gateways.open(), await gateways.open(host="two")]
    both = await asyncio.gather(*(one.start_refresh_all(actor=ACTOR) for one in services))
    again = await services[0].start_refresh_all(force=True, actor=ACTOR)
    assert len({one.job.job_id for one in (*both, again)}) == 1
    assert sorted([one.joined for one in both]) == [False, True]
    assert (again.joined, again.job.force) == (True, False)
    await ended(services[1], again.job.job_id)
    assert gateways.refreshes() == len(USERS)
    another = await services[1].start_refresh_all(actor=ACTOR)
    assert not another.joined
    assert (await ended(services[0], another.job.job_id)).counts.fresh == len(USERS)


async def test_a_process_that_closes_says_that_its_job_is_interrupted(gateways: Gateways) -> None:
    users = [f"user-{n:02}" for n in range(30)]
    gateways.log_in_many(users, expires_in=SOON)
    first, second = await gateways.open(), await gateways.open(host="two")
    gateways.sandbox.fault("token", "slow", seconds=0.3, times=None)
    job_id = (await first.start_refresh_all(actor=ACTOR)).job.job_id
    await eventually(lambda: gateways.refreshes() >= 8)
    await first.close()
    job = await second.job(job_id)
    assert (job.status, job.message) == ("interrupted", INTERRUPTED)
    assert outcomes(gateways) == ["started", "interrupted"]
    # What was asked of the provider was kept; who was not asked is taken up by the next one.
    gateways.sandbox.clear_faults()
    kept = gateways.database.query(
        'SELECT FROM claude_oauth."LiteLLM_ClaudeOAuthTokens" WHERE generation = 2'
    )
    assert 8 <= len(kept) < len(users)
    again = await ended(second, (await second.start_refresh_all(actor=ACTOR)).job.job_id)
    assert (again.counts.fresh, again.counts.refreshed) == (len(kept), len(users) - len(kept))


async def test_a_job_that_fell_silent_reads_as_interrupted_and_makes_room(gateways: Gateways) -> None:
    gateways.log_in_many(USERS, expires_in=SOON)
    first, second = await gateways.open(), await gateways.open(host="two")
    gateways.sandbox.fault("token", "slow", seconds=0.3, times=8)
    job_id = (await first.start_refresh_all(actor=ACTOR)).job.job_id
    assert (await second.start_refresh_all(actor=ACTOR)).joined
    gateways.database.query(f"UPDATE {JOBS} SET heartbeat_at = heartbeat_at - interval '31 seconds'")
    silent = await second.job(job_id)
    assert (silent.status, silent.message) == ("interrupted", INTERRUPTED)
    assert silent.finished_at is not None
    another = await second.start_refresh_all(actor=ACTOR)
    assert not another.joined
    assert (await ended(second, another.job.job_id)).status == "finished"
    # The first one was alive all the same; it has no say any more.
    await eventually(lambda: outcomes(gateways).count("finished") == 2)
    assert (await second.job(job_id)).status == "interrupted"
    assert await second.job_results(job_id) == []
    assert gateways.refreshes() == len(USERS)


async def test_a_job_gives_signs_of_life_and_writes_what_it_has(gateways: Gateways) -> None:
    gateways.log_in_many(USERS, expires_in=LATER)
    gateways.log_in_many(["zoe"], expires_in=SOON)
    service = await gateways.open()
    service._jobs._beat = 0.05
    gateways.sandbox.fault("token", "slow", seconds=0.5)
    job_id = (await service.start_refresh_all(actor=ACTOR)).job.job_id
    await eventually(lambda: gateways.database.one(f"SELECT fresh FROM {JOBS}")["fresh"] == len(USERS))
    assert len(await service.job_results(job_id)) == len(USERS)
    before = gateways.database.one(f"SELECT heartbeat_at FROM {JOBS}")["heartbeat_at"]
    await eventually(
        lambda: gateways.database.one(f"SELECT heartbeat_at FROM {JOBS}")["heartbeat_at"] > before
    )
    assert (await service.job(job_id)).status == "running"
    assert (await ended(service, job_id)).counts.refreshed == 1


async def test_results_are_written_in_batches(gateways: Gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    many = 2 * jobs.BATCH + 50
    gateways.plant([f"user-{n:04}" for n in range(many)], expires_in=LATER)
    service = await gateways.open()
    store = service._jobs._store
    save = store.save
    sizes = []

    async def counted(job_id: UUID, results: Any, counts: ResultCounts) -> bool:
        sizes.append(len(results))
        return await save(job_id, results, counts)

    monkeypatch.setattr(store, "save", counted)
    job = await ended(service, (await service.start_refresh_all(actor=ACTOR)).job.job_id)
    assert (job.counts.fresh, sum(sizes)) == (many, many)
    assert len(sizes) <= 4
    assert max(sizes) <= jobs.BATCH + 10
    assert gateways.database.one(f"SELECT count(*) AS n FROM {RESULTS}")["n"] == many


async def test_a_job_whose_database_goes_away_says_so_when_it_is_back(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateways.limits = QUICK
    gateways.log_in_many(USERS, expires_in=SOON)
    service = await gateways.open()
    gateways.sandbox.fault("token", "slow", seconds=0.2, times=None)
    job_id = (await service.start_refresh_all(actor=ACTOR)).job.job_id
    await eventually(lambda: gateways.refreshes() >= 8)
    store = service._jobs._store
    save, failures = store.save, []

    async def counted(job_id: UUID, results: Any, counts: ResultCounts) -> bool:
        try:
            return await save(job_id, results, counts)
        except StorageUnavailable as error:
            failures.append(error)
            raise

    monkeypatch.setattr(store, "save", counted)
    gateways.database.cut_off()
    await eventually(lambda: failures)
    gateways.database.let_in()
    found = f"SELECT status, message FROM {JOBS} WHERE job_id = %(job)s AND status <> 'running'"
    (job,) = await eventually(lambda: gateways.database.query(found, {"job": job_id}), seconds=10)
    assert job["status"] == "stopped"
    assert "database" in job["message"]


async def test_old_jobs_are_forgotten_by_the_background_loop(gateways: Gateways) -> None:
    gateways.log_in_many(["alice"], expires_in=LATER)
    service = await gateways.open()
    old, new = [
        (await ended(service, (await service.start_refresh_all(actor=ACTOR)).job.job_id)).job_id
        for _ in range(2)
    ]
    gateways.database.query(
        f"UPDATE {JOBS} SET heartbeat_at = heartbeat_at - interval '25 hours' WHERE job_id = %(job)s",
        {"job": old},
    )
    loop = asyncio.create_task(service.run_background())
    await eventually(lambda: len(gateways.database.query(f"SELECT FROM {JOBS}")) == 1)
    loop.cancel()
    with pytest.raises(NoSuchJob):
        await service.job(old)
    assert [row["job_id"] for row in gateways.database.query(f"SELECT job_id FROM {RESULTS}")] == [new]


async def test_no_more_jobs_are_kept_than_the_newest(gateways: Gateways) -> None:
    gateways.database.query(
        f"INSERT INTO {JOBS} (job_id, status, actor, min_validity, force, total, started_at, finished_at) "
        "SELECT gen_random_uuid(), 'finished', 'n' || n, 0, false, 0, now() - n * interval '1 s', now() "
        f"FROM generate_series(1, {KEPT} + 5) n"
    )
    service = await gateways.open()
    await service._jobs.purge()
    kept = {row["actor"] for row in gateways.database.query(f"SELECT actor FROM {JOBS}")}
    assert kept == {f"n{n}" for n in range(1, KEPT + 1)}


async def test_a_job_that_nobody_knows_is_told_as_such(gateways: Gateways) -> None:
    with pytest.raises(NoSuchJob, match="no refresh of all users"):
        await (await gateways.open()).job(uuid4())


async def test_without_a_database_the_process_that_runs_it_tells(gateways: Gateways) -> None:
    service = await gateways.open(use_database=False)
    for user in ("alice", "bob"):
        await gateways.log_in(service, user)
    started = await service.start_refresh_all(force=True, actor=ACTOR)
    assert (await service.start_refresh_all(actor=ACTOR)).job.job_id == started.job.job_id
    job = await ended(service, started.job.job_id)
    assert (job.status, job.total, job.counts.refreshed) == ("finished", 2, 2)
    assert [one.user_id for one in await service.job_results(job.job_id, limit=1)] == ["alice"]
    assert [one.user_id for one in await service.job_results(job.job_id, after="alice")] == ["bob"]
    assert await service.job_results(job.job_id, result="failed") == []


async def test_memory_keeps_a_few_jobs_for_a_day() -> None:
    clock = MovableClock()
    store = MemoryJobs(clock)
    wanted = Wanted(300.0, False, ACTOR)
    result = UserResult("alice", "fresh", None, None, 1, 1, None)
    ids = [uuid4() for _ in range(KEPT_IN_MEMORY + 1)]
    for job_id in ids:
        job = await store.start(job_id, wanted, 1)
        assert await store.save(job.job_id, [result], replace(job.counts, fresh=1))
        await store.end(job.job_id, "finished", None)
        assert not await store.save(job.job_id, [result], ResultCounts())
    assert [job_id for job_id in ids if await store.load(job_id) is not None] == ids[1:]
    running = await store.start(uuid4(), wanted, 1)
    clock.ahead = REMEMBERED + 60
    assert await store.purge() == KEPT_IN_MEMORY - 1
    assert (await store.load(running.job_id)) is not None
