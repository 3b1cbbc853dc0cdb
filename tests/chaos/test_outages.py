"""PostgreSQL is stopped, killed, frozen, read-only or full while requests come in and refreshes run."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from chaos.books import kept_states
from chaos.fleet import Fleet, Worker
from chaos.server import OwnServer, own_server
from chaos.verdict import Verdict
from litellm_oauth.service import TokenService
from litellm_oauth.stores.migrations import migrate, migrations_folder, read_migrations
from support.postgres import TestDatabase
from support.service import QUICK, Gateways

# Seconds: how long a token lives, and an outage lasts after the only host had to help itself.
LIFE = 3.0
OUTAGE = 0.5
LIMITS = replace(QUICK, step=1.0)
USERS = ("alice", "bob")
HOSTS = ("one", "two")
ALONE: dict[str, Any] = {"single_host": True}


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with own_server() as found:
        found.postgres.create_owner()
        yield found


@pytest.fixture(scope="module")
def own_database(server: OwnServer) -> TestDatabase:
    server.postgres.create_database("outages")
    found = TestDatabase(server.postgres, "outages", server.postgres.settings("outages"))
    server.postgres.protect_audit(found.name)
    asyncio.run(migrate(found.parameters, read_migrations(migrations_folder())))
    return found


@pytest.fixture
def database(own_database: TestDatabase) -> Iterator[TestDatabase]:
    """The services of these tests use this database instead of the one that all tests share."""
    yield own_database
    own_database.empty()


@pytest.mark.parametrize("outage", ["stopped", "killed", "frozen", "read_only", "full"])
async def test_an_outage_fails_no_request_that_a_token_can_serve_and_spends_none_that_cannot_be_saved(
    gateways: Gateways, fleet: Fleet, server: OwnServer, figure: Callable[[str], None], outage: str
) -> None:
    """Two hosts share two users; a third one is alone with a third user, as the only host of a kit is."""
    gateways.limits = LIMITS
    gateways.sandbox.settings(access_token_seconds=LIFE)
    person = await gateways.open(host="person")
    with kept_states(gateways.database):
        for user in (*USERS, "carol"):
            await gateways.log_in(person, user)
        shared, alone, forcing = await _start(fleet)
        await _moment(fleet, person, forcing[0], gateways)
        with getattr(server, outage)():
            began = time.time()
            await fleet.heard(alone[0], "served", since=len(alone[0].events))
            await asyncio.sleep(OUTAGE)
            ended = time.time()
            gateways.sandbox.clear_faults()
        for worker in forcing:
            await fleet.heard(worker, "refresh", since=len(worker.events), seconds=30)
        await fleet.stop(*shared, *alone, *forcing)
        newest = {user: _newest(fleet, user) for user in (*USERS, "carol")}
        for host, users, settings in (("one", USERS, {}), ("two", USERS, {}), ("three", ["carol"], ALONE)):
            await _agree(gateways, host, users, settings)
        assert [user for user in newest if gateways.row(user)["attempt_id"] is not None] == []
        verdict = Verdict(gateways, fleet)

    counts = [next(worker.all("counted")) for worker in (*shared, *alone)]
    failed_while_valid = sum(count["failed_while_valid"] for count in counts)
    failed_alone = sum(count["failed"] for count in counts[2:])
    asked = [event["at"] for worker in (*shared, *forcing) for event in worker.all("asking")]
    # One whose claim was committed in the last moment is on its way.
    spent = [at - began for at in asked if began + 0.5 < at < ended]
    meanwhile = {event["generation"] for event in alone[0].all("served") if began < event["at"] < ended}
    figure(
        f"database {outage}: failed while a token was valid {failed_while_valid} "
        f"of {sum(count['served'] for count in counts)} requests; spent meanwhile {len(spent)}; "
        f"answers lost {len(verdict.journaled_and_lost())}; "
        f"on the only host failed {failed_alone}, refreshed meanwhile {len(meanwhile)}"
    )
    assert (failed_while_valid, failed_alone) == (0, 0)
    # A full disk takes the one thing and refuses the next; what it has refused lies in a journal.
    assert spent == [] or outage == "full"
    assert verdict.journaled_and_lost() == verdict.never_in_a_journal() == set()
    assert verdict.vanished == []
    assert not verdict.presented_again()
    assert verdict.falling_generations() == []
    assert not any(login["revoked_because"] for login in gateways.sandbox.logins())
    for user, generation in newest.items():
        assert gateways.row(user)["generation"] >= generation


async def _start(fleet: Fleet) -> tuple[list[Worker], list[Worker], list[Worker]]:
    """Who uses the shared users' tokens, who is alone with carol's, and who refreshes the shared ones."""
    # The background loop refreshes all of a database's users: nobody would be alone with carol.
    quiet = {"background": False}
    found = (
        [await fleet.start("use", USERS, host=host, ready=False, order=quiet) for host in HOSTS],
        [
            await fleet.start("use", ["carol"], host="three", settings=ALONE, ready=False, order=quiet)
            for _ in range(2)
        ],
        [
            await fleet.start("force", USERS, host=host, order={"forced": 1.0, **quiet}, ready=False)
            for host in HOSTS
        ],
    )
    for worker in itertools.chain(*found):
        await fleet.heard(worker, "ready")
    return found


async def _moment(fleet: Fleet, person: TokenService, forcing: Worker, gateways: Gateways) -> None:
    """Return when carol's token has a second left, and the provider is asked for a token of the others."""
    status = await person.status("carol")
    await asyncio.sleep(max(0.0, (status.expires_in or 0.0) - 1))
    gateways.sandbox.fault("token", "slow", seconds=0.3, after=True, times=None)
    await fleet.heard(forcing, "asking", since=len(forcing.events))


def _newest(fleet: Fleet, user: str) -> int:
    """The highest generation that any worker spoke of."""
    events = (event for worker in fleet.workers.values() for event in worker.all("served", "refresh"))
    return max(int(event["generation"]) for event in events if event["user"] == user)


async def _agree(gateways: Gateways, host: str, users: Sequence[str], settings: dict[str, Any]) -> None:
    """After each user was looked at once on a host, its files hold what the database does."""
    service = await gateways.open(host=host, **settings)
    for user in users:
        await service.status(user)
        row = gateways.row(user)
        files = [json.loads(path.read_text()) for path in (gateways.tokens(host).parent / "users").iterdir()]
        (kept,) = [file for file in files if file["userId"] == user]
        assert kept["generation"] == row["generation"]
        assert kept["refreshToken"] == row["refresh_token_encrypted"]
    # What a process left when it ended is the next pass of the background loop's; so is a claim whose
    # confirmation was lost.
    await service._refresher.replay()
    assert list((gateways.journal(host) / "attempts").iterdir()) == []
