"""Random histories of faults: whatever happens to the tiers, no token is lost and none is spent twice.

Hypothesis chooses what happens next; see ``world`` for what is real and what must be true after each step.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chaos.scale import SEED, STEPS
from chaos.world import STEPS as CRASHES
from chaos.world import Process, World, clock_of_the_world
from litellm_oauth.errors import LitellmOAuthError, NotLoggedIn, ReauthRequired
from support.postgres import TestDatabase
from support.sandbox import SandboxProvider
from support.service import ACTOR

USERS = ("alice", "bob")
STEPS_PER_HISTORY = 40
# Seconds: soon, longer than a lease, longer than the rests, and until every token has expired.
SPANS = (5.0, 40.0, 1200.0, 9 * 3600.0)
FAULTS: dict[str, dict[str, Any]] = {
    "429": {"kind": "status", "status": 429, "retry_after": 20},
    "500": {"kind": "status", "status": 500},
    "404": {"kind": "status", "status": 404},
    "lost answer": {"kind": "lost_answer"},
}
users = st.sampled_from(USERS)
numbers = st.integers(0, 3)
T = TypeVar("T")


class History(RuleBasedStateMachine):
    """One world, from its first login to the day on which everything is whole again."""

    def __init__(self, make: Callable[[], World], counts: Counter[str]) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._counts = counts
        self._copies: dict[tuple[str, str], bytes] = {}
        self.world = make()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def _do(self, name: str, work: Coroutine[Any, Any, object]) -> None:
        """One step, and what must be true after it."""
        self._counts[name] += 1
        self._run(work)
        self._run(self.world.calm())
        self.world.check()

    def _process(self, number: int) -> Process:
        if not self.world.processes:
            self._run(self.world.start(self.world.hosts[number % len(self.world.hosts)]))
        return self.world.processes[number % len(self.world.processes)]

    def _user(self, wish: str) -> str:
        """Somebody who is logged in, if anybody is."""
        return wish if wish in self.world.logins or not self.world.logins else next(iter(self.world.logins))

    @initialize()
    def begin(self) -> None:
        self._do("login", self.world.log_in(self._process(0), "alice"))

    # -- people

    @rule(number=numbers, user=users)
    def log_in(self, number: int, user: str) -> None:
        self._do("login", self.world.log_in(self._process(number), user))

    @rule(number=numbers, user=users)
    def log_out(self, number: int, user: str) -> None:
        self._do("logout", self.world.log_out(self._process(number), user))

    @precondition(lambda self: len(self.world.logins) == 1)
    @rule(number=numbers)
    def rename(self, number: int) -> None:
        (user,) = self.world.logins
        (new,) = set(USERS) - {user}
        self._do("rename", self.world.rename(self._process(number), user, new))

    # -- tokens

    @rule(number=numbers, user=users, force=st.booleans())
    def refresh(self, number: int, user: str, force: bool) -> None:
        service = self._process(number).service
        user = self._user(user)
        work = service.refresh(user, force=True, actor=ACTOR) if force else service.access_token(user)
        self._do("refresh" if force else "use", self._quietly(work))

    @rule(user=users)
    def race(self, user: str) -> None:
        """All processes at once."""
        self._process(0)
        user = self._user(user)

        async def run() -> None:
            async with asyncio.TaskGroup() as group:
                for process in self.world.processes:
                    group.create_task(self._quietly(process.service.access_token(user)))
                    group.create_task(self._quietly(process.service.refresh(user, force=True, actor=ACTOR)))

        self._do("race", run())

    @rule(number=numbers)
    def refresh_due(self, number: int) -> None:
        """What the background loop does, after it has replayed its journal."""
        process = self._process(number)

        async def run() -> None:
            await process.service._refresher.replay()
            await process.service.refresh_due(actor=ACTOR)

        self._do("pass", self._quietly(run()))

    @rule(name=st.sampled_from(sorted(FAULTS)))
    def provider_fails_once(self, name: str) -> None:
        self.world.gateways.sandbox.fault("token", grant_type="refresh_token", **FAULTS[name])

    # -- processes and hosts

    @precondition(lambda self: len(self.world.processes) < 4)
    @rule(number=numbers)
    def start(self, number: int) -> None:
        self._do("start", self.world.start(self.world.hosts[number % len(self.world.hosts)]))

    @rule(number=numbers)
    def stop(self, number: int) -> None:
        self._do("stop", self.world.stop(self._process(number)))

    @rule(number=numbers, user=users, step=st.sampled_from(CRASHES))
    def die(self, number: int, user: str, step: str) -> None:
        before = len(self.world.processes)
        self._do(f"refresh to die when {step}", self.world.die(self._process(number), self._user(user), step))
        self._counts[f"died when {step}"] += len(self.world.processes) < before

    @precondition(lambda self: not self.world.single)
    @rule(number=numbers)
    def burn(self, number: int) -> None:
        self._do("host burnt", self.world.burn(self.world.hosts[number % len(self.world.hosts)]))

    # -- the database and the files

    @precondition(lambda self: self.world.database_up)
    @rule()
    def database_away(self) -> None:
        self._counts["database away"] += 1
        self.world.database_away()

    @precondition(lambda self: not self.world.database_up)
    @rule()
    def database_back(self) -> None:
        self._do("database back", self.world.database_back())

    @precondition(lambda self: self.world.database_up)
    @rule()
    def back_up(self) -> None:
        self.world.back_up()

    @precondition(lambda self: self.world.database_up)
    @rule()
    def put_back(self) -> None:
        """The backup is put back, where all hosts have seen what is newer: who has not cannot know."""
        backup = self.world.backed_up()
        self._do("all seen", self.world.see())
        known = self.world.single or backup.issuperset(self.world.logins)
        if backup and known and not self.world.disagreements():
            self._counts["backup put back"] += 1
            self.world.put_back()

    @precondition(lambda self: self.world.database_up)
    @rule(number=numbers, user=users, how=st.sampled_from(("copied", "removed", "cut", "older")))
    def spoil(self, number: int, user: str, how: str) -> None:
        """Somebody lays hands on a mirror, while the database has what it holds."""
        host = self.world.hosts[number % len(self.world.hosts)]
        path = self.world.document(host, user)
        if path is None or not self.world.is_saved(user):
            return
        content = path.read_bytes()
        if how == "copied":
            self._copies[host, user] = content
        elif how == "removed":
            path.unlink()
        elif how == "cut":
            path.write_bytes(content[: len(content) // 2])
        else:
            path.write_bytes(self._copies.get((host, user), content))
        self.world.forget(host, user)
        self._counts[f"file {how}"] += 1

    @rule(span=st.sampled_from(SPANS))
    def wait(self, span: float) -> None:
        self._do("wait", self.world.wait(span))

    # -- the end

    def teardown(self) -> None:
        try:
            self._run(self._end())
        finally:
            self._run(self.world.close())
            self._runner.close()

    async def _end(self) -> None:
        """Everything is whole again: the tiers agree, the journals are empty, and people can work."""
        world = self.world
        world.gateways.sandbox.clear_faults()
        if not world.database_up:
            await world.database_back()
        await self._agreed()
        # Everything has expired by then, and no rest lasts so long.
        await world.wait(SPANS[-1])
        for process in world.processes:
            for user in USERS:
                await self._work(process, user)
        await world.calm()
        await self._agreed()

    async def _agreed(self) -> None:
        await self.world.see()
        self.world.check()
        assert self.world.disagreements() == []
        assert [path for host in self.world.hosts for path in self.world.journal(host)] == []

    async def _work(self, process: Process, user: str) -> None:
        login = self.world.logins.get(user)
        try:
            token = await process.service.access_token(user)
        except NotLoggedIn:
            assert login is None, f"{user} is logged in"
        except ReauthRequired:
            # A logout that nothing remembers has still ended the login at the provider.
            forgotten = login is None and user in self.world.forgotten
            lost = login in self.world.dropped | self.world.forfeited
            assert forgotten or lost, f"{user} lost nothing"
        else:
            assert login is not None, f"{user} is logged out"
            revoked = login in self.world.forfeited
            assert revoked or self.world.gateways.accepts(token.value), f"the token of {user} is refused"

    async def _quietly(self, work: Coroutine[Any, Any, object]) -> None:
        with suppress(LitellmOAuthError):
            await work


@pytest.mark.parametrize("hosts", [("one",), ("one", "two")], ids=["one host", "two hosts"])
@pytest.mark.timeout(120 + STEPS)
def test_whatever_happens_to_the_tiers_no_token_is_lost_and_none_is_spent_twice(
    database: TestDatabase,
    sandbox: SandboxProvider,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figure: Callable[[str], None],
    hosts: tuple[str, ...],
) -> None:
    counts: Counter[str] = Counter()
    folders: Iterator[Path] = (tmp_path / str(number) for number in range(1_000_000))
    patch = partial(World.create, database, sandbox, hosts, monkeypatch)

    def history() -> History:
        return History(partial(patch, next(folders)), counts)

    with clock_of_the_world(database):
        run_state_machine_as_test(
            seed(SEED)(history),  # type: ignore[arg-type]  # whatever makes a machine will do
            settings=settings(
                max_examples=max(1, STEPS // STEPS_PER_HISTORY),
                stateful_step_count=STEPS_PER_HISTORY,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    figure(f"{counts.total()} steps: {counts}")


def test_a_logout_that_only_lost_hosts_knew_of_brings_no_token_back(
    database: TestDatabase, sandbox: SandboxProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup from before the logout is put back, and the hosts that remember it burn."""
    with clock_of_the_world(database):
        make = partial(World.create, database, sandbox, ("one", "two"), monkeypatch, tmp_path / "world")
        state = History(make, Counter())
        state.begin()
        state.log_in(number=0, user="bob")
        state.back_up()
        state.log_out(number=0, user="bob")
        state.put_back()
        assert state._counts["backup put back"] == 1
        state.burn(number=0)
        assert state.world.forgotten == set()
        state.burn(number=1)
        assert state.world.forgotten == {"bob"}
        state.start(number=0)
        # It ends with everybody asking for a token, once all of them have expired.
        state.teardown()
