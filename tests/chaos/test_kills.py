"""Processes are killed at any moment of a refresh, again and again: no answer that reached a disk is lost.

What is lost is what the provider had given and no disk had yet: the few milliseconds between the provider's
commit and ours. Each of these ends in a login that is asked for with its reason, never in silence.
"""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import psycopg
import pytest

from chaos.books import BY_CLIENT, REUSE, kept_states
from chaos.fleet import Fleet, Worker
from chaos.scale import KILLS, SEED
from chaos.verdict import Verdict
from litellm_oauth.backoff import FIRST_REST
from litellm_oauth.errors import LitellmOAuthError, StorageUnavailable
from litellm_oauth.service import TokenService
from support.postgres import TOKENS
from support.service import QUICK, Gateways, eventually

USERS = [f"user-{number}" for number in range(8)]
HOSTS = ("one", "two")
PROCESSES = 2
# Refreshes before the first kill, for the width of the window.
QUIET = 60


class Hunt:
    """Kills workers by a plan that the seed makes, and lets everything else go on."""

    def __init__(self, gateways: Gateways, fleet: Fleet, person: TokenService) -> None:
        self._gateways = gateways
        self._sandbox = gateways.sandbox
        self._fleet = fleet
        self._person = person
        self._random = random.Random(SEED)  # noqa: S311 -- to be repeated, not to be secret
        self._alive: list[Worker] = []
        self.kills = 0

    async def populate(self) -> None:
        for host in HOSTS * PROCESSES:
            await self._start(host)
        await self._all_ready()

    async def _all_ready(self) -> None:
        for worker in self._alive:
            await self._fleet.heard(worker, "ready")

    async def run(self, kills: int) -> None:
        plans = (self._at_any_moment, self._while_asking, self._slow, self._whole_host, self._database_away)
        async with self._care():
            while self.kills < kills:
                (plan,) = self._random.choices(plans, (1, 2, 4, 1, 2))
                await plan()
                self._sandbox.clear_faults()

    async def settle(self) -> None:
        """No more kills: what was begun comes to its end."""
        await self._all_ready()
        await self._fleet.stop(*self._alive)
        services = [await self._gateways.open(host=host) for host in HOSTS]
        loops = [asyncio.create_task(service.run_background()) for service in services]
        async with self._care():
            # the last faults may have made everybody leave the provider in peace for so long
            deadline = time.monotonic() + 20 + 2 * FIRST_REST
            while not self._settled():
                assert time.monotonic() < deadline, (self._unsettled(), self._fleet.errors)
                for user in USERS:
                    with suppress(LitellmOAuthError):
                        await services[0].access_token(user)
                await asyncio.sleep(0.05)
        for loop in loops:
            loop.cancel()

    def _settled(self) -> bool:
        return not self._unsettled()

    def _unsettled(self) -> list[object]:
        """What has not come to its end: rows and records."""
        rows = self._gateways.database.query(
            f"SELECT user_id, attempt_id, status, last_error, next_attempt_at - now() AS waits FROM {TOKENS}"
        )
        records = [path for host in HOSTS for path in (self._gateways.journal(host) / "attempts").iterdir()]
        begun = [row for row in rows if row["status"] != "active" or row["attempt_id"] or row["last_error"]]
        return [*begun, *records]

    async def _at_any_moment(self) -> None:
        await asyncio.sleep(self._random.uniform(0, 0.1))
        await self._kill(self._random.choice(self._alive))

    async def _while_asking(self) -> None:
        victim = await self._asking()
        await asyncio.sleep(self._random.uniform(0, 0.03))
        await self._kill(victim)

    async def _slow(self) -> None:
        seconds = self._random.uniform(0.02, 0.1)
        self._slow_down(seconds, after=self._random.random() < 0.5)
        victim = await self._asking()
        await asyncio.sleep(self._random.uniform(0, seconds + 0.05))
        await self._kill(victim)

    async def _whole_host(self) -> None:
        """As a host does that loses its power, but for its disk."""
        victim = await self._asking()
        for worker in [worker for worker in self._alive if worker.host == victim.host]:
            await self._kill(worker)

    async def _database_away(self) -> None:
        """The provider answers while nothing can be saved: only the journal holds the answer."""
        self._slow_down(0.1, after=True)
        victim = await self._asking()
        with self._outage():
            if self._random.random() < 0.5:
                await asyncio.sleep(self._random.uniform(0.1, 0.3))
            else:
                # It has told somebody of an answer that it could not save, so it must have kept it.
                with suppress(AssertionError):
                    await self._fleet.heard(victim, "unsaved", since=len(victim.events), seconds=2.0)
            await self._kill(victim)

    @contextmanager
    def _outage(self) -> Iterator[None]:
        self._gateways.database.cut_off()
        try:
            yield
        finally:
            self._gateways.database.let_in()

    def _slow_down(self, seconds: float, *, after: bool) -> None:
        details = {"seconds": seconds, "after": after, "times": None, "grant_type": "refresh_token"}
        self._sandbox.fault("token", "slow", **details)

    async def _asking(self) -> Worker:
        """Any worker in the moment in which it asks the provider."""
        victim = self._random.choice(
            [worker for worker in self._alive if any(worker.all("ready"))] or self._alive
        )
        await self._fleet.heard(victim, "asking", since=len(victim.events))
        return victim

    async def _kill(self, victim: Worker) -> None:
        await self._fleet.kill(victim)
        self._alive.remove(victim)
        self.kills += 1
        await self._start(victim.host)

    async def _start(self, host: str) -> None:
        order = {"tasks": 2, "pause": 0.05, "seed": self._random.random()}
        self._alive.append(await self._fleet.start("force", USERS, host=host, ready=False, order=order))

    @asynccontextmanager
    async def _care(self) -> AsyncIterator[None]:
        """People who are asked to log in do so, and tokens in doubt expire, so that the run goes on."""
        caring = asyncio.create_task(self._care_for_ever())
        try:
            yield
            assert not caring.done(), caring.exception()
        finally:
            caring.cancel()
            with suppress(asyncio.CancelledError):
                await caring

    async def _care_for_ever(self) -> None:
        while True:
            # While the database is away nobody can do anything.
            with suppress(psycopg.Error, StorageUnavailable):
                for row in await asyncio.to_thread(self._needy):
                    if row["status"] == "reauth_required":
                        await self._gateways.log_in(self._person, row["user_id"])
            await asyncio.sleep(0.05)

    def _needy(self) -> Sequence[dict[str, Any]]:
        self._gateways.database.query(
            f"UPDATE {TOKENS} SET expires_at = now(), next_attempt_at = now() "
            "WHERE last_error LIKE 'answer_lost:%' AND attempt_id IS NULL AND expires_at > now()"
        )
        return self._gateways.database.query(f"SELECT user_id, status FROM {TOKENS}")


@pytest.mark.timeout(120 + KILLS)
async def test_no_answer_that_reached_a_disk_is_lost_however_often_processes_are_killed(
    gateways: Gateways, fleet: Fleet, figure: Callable[[str], None]
) -> None:
    gateways.limits = QUICK
    person = await gateways.open(host="person")
    with kept_states(gateways.database):
        for user in USERS:
            await gateways.log_in(person, user)
        hunt = Hunt(gateways, fleet, person)
        await hunt.populate()
        quiet = await _quiet_phase(fleet)
        started = time.monotonic()
        await hunt.run(KILLS)
        took = time.monotonic() - started
        await hunt.settle()
        verdict = Verdict(gateways, fleet)

    windows = verdict.windows(quiet)
    asked_for, explained, logins = verdict.ends()
    again = verdict.presented_again()
    moments = ", ".join(f"{name} {count}" for name, count in sorted(verdict.moments().items()))
    figure(
        f"kills {hunt.kills} (seed {SEED}, {took:.0f} s): answers in a journal {len(verdict.kept)}, "
        f"of them lost {len(verdict.journaled_and_lost())}; "
        f"logins revoked while an answer lay in a journal {len(verdict.revoked_with_an_answer())}"
    )
    figure(
        f"  between the provider's commit and our fsync {len(verdict.vanished)}: "
        f"new logins asked for {asked_for}, with the reason in the audit {explained}; "
        f"refresh tokens presented again in doubt {again['in doubt']}, otherwise {again['otherwise']}"
    )
    figure(
        f"  that window without faults: median {statistics.median(windows):.1f} ms, "
        f"longest of {len(windows)} {windows[-1]:.1f} ms; attempts hit {moments}"
    )
    assert verdict.journaled_and_lost() == verdict.never_in_a_journal() == set()
    assert verdict.revoked_with_an_answer() == []
    assert {family.revoked_because for family in verdict.vanished} <= {REUSE}
    assert [family for family in verdict.vanished if not verdict.excused(family)] == []
    assert verdict.revoked(BY_CLIENT) == []
    assert again["otherwise"] == 0
    assert verdict.falling_generations() == []
    assert asked_for == explained == logins - len(USERS) == len(verdict.vanished)
    for user in USERS:
        assert gateways.accepts((await person.access_token(user)).value), user


async def _quiet_phase(fleet: Fleet) -> list[str]:
    """Let the workers refresh for a while; returns what they received."""

    def given() -> list[str]:
        found = [event["given"] for worker in fleet.workers.values() for event in worker.all("saved")]
        return found if len(found) >= QUIET else []

    found: list[str] = await eventually(given, seconds=20)
    return found
