"""People log in, log out and are renamed while processes refresh their tokens: the person's act wins."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from chaos.books import BY_CLIENT, REUSE, kept_states
from chaos.fleet import Fleet
from chaos.scale import KILLS, SEED
from chaos.verdict import Verdict
from litellm_oauth.service import TokenService
from litellm_oauth.stores import RowStatus
from support.service import ACTOR, Gateways

ROUNDS = KILLS
ACCOUNTS = ("alice", "bob", "carol")
HOSTS = ("one", "one", "two", "two")
OUT = RowStatus.LOGGED_OUT.value


@dataclass(slots=True)
class Person:
    """Somebody with an account at the provider and one of two names at the gateway."""

    account: str
    name: str
    logged_in: bool = False

    @property
    def other_name(self) -> str:
        return f"{self.account}-too" if self.name == self.account else self.account


class Acts:
    """What people do, at random, and how it must look in the end."""

    def __init__(self, gateways: Gateways, services: list[TokenService]) -> None:
        self._gateways = gateways
        self._services = services
        self._random = random.Random(SEED)  # noqa: S311 -- to be repeated, not to be secret
        self.people = [Person(account, account) for account in ACCOUNTS]
        self.counts: Counter[str] = Counter()
        # Per name, how often somebody came and went.
        self.came: Counter[str] = Counter()
        self.went: Counter[str] = Counter()

    async def act(self) -> None:
        """One act of one person, while refreshes of all of them are under way."""
        person = self._random.choice(self.people)
        service = self._random.choice(self._services)
        seconds = self._random.uniform(0, 0.1)
        self._gateways.sandbox.clear_faults()
        self._gateways.sandbox.fault(
            "token",
            "slow",
            seconds=seconds,
            after=self._random.random() < 0.7,
            times=None,
            grant_type="refresh_token",
        )
        await asyncio.sleep(self._random.uniform(0, 0.1))
        act = self._random.choice(("login", "logout", "rename")) if person.logged_in else "login"
        await getattr(self, f"_{act}")(service, person)
        self.counts[act] += 1

    async def _login(self, service: TokenService, person: Person) -> None:
        await self._gateways.log_in(service, person.name, person.account)
        self.came[person.name] += not person.logged_in
        person.logged_in = True
        assert self._gateways.row(person.name)["status"] == "active"

    async def _logout(self, service: TokenService, person: Person) -> None:
        outcome = await service.logout(person.name, actor=ACTOR)
        self.went[person.name] += 1
        person.logged_in = False
        assert (outcome.was_logged_in, outcome.revoked) == (True, True)
        assert self._gateways.row(person.name)["status"] == OUT

    async def _rename(self, service: TokenService, person: Person) -> None:
        await service.rename(person.name, person.other_name, actor=ACTOR)
        self.went[person.name] += 1
        person.name = person.other_name
        self.came[person.name] += 1
        assert self._gateways.row(person.name)["status"] == "active"


@pytest.mark.timeout(120 + ROUNDS)
async def test_whatever_people_do_while_their_tokens_are_refreshed_wins_and_nothing_is_resurrected(
    gateways: Gateways, fleet: Fleet, figure: Callable[[str], None]
) -> None:
    services = [await gateways.open(host=host) for host in ("one", "three")]
    acts = Acts(gateways, services)
    names = [name for person in acts.people for name in (person.name, person.other_name)]
    with kept_states(gateways.database):
        order = {"tasks": 3, "pause": 0.03}
        workers = [await fleet.start("force", names, host=host, order=order) for host in HOSTS]
        for _ in range(ROUNDS):
            await acts.act()
        await fleet.stop(*workers)
        verdict = Verdict(gateways, fleet)

    refreshed = sum(1 for worker in workers for _ in worker.all("saved"))
    came, went = verdict.comings_and_goings(OUT)
    counts = ", ".join(f"{act} {count}" for act, count in sorted(acts.counts.items()))
    figure(
        f"acts while refreshing {ROUNDS} (seed {SEED}): {counts}, refreshes meanwhile {refreshed}; "
        f"resurrected {sum((came - acts.came).values())}, "
        f"older logins that came back {len(verdict.returned_logins())}, "
        f"answers that nobody holds left alive {len(verdict.left_alive())}, "
        f"logins revoked for reuse {len(verdict.revoked(REUSE))}"
    )
    assert (came, went) == (acts.came, acts.went)
    assert verdict.returned_logins() == []
    assert verdict.left_alive() == []
    assert verdict.revoked(REUSE) == []
    assert not verdict.presented_again()
    assert verdict.falling_generations() == []
    for person in acts.people:
        if person.logged_in:
            assert gateways.accepts((await services[0].access_token(person.name)).value), person
        else:
            assert verdict.newest(person.account).revoked_because == BY_CLIENT
