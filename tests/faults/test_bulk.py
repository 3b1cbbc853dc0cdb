"""Refresh of many users: streamed, a few at a time, and one user's trouble is nobody else's."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from litellm_oauth import bulk
from litellm_oauth.errors import InvalidInput, StorageUnavailable
from litellm_oauth.results import RefreshedAll, UserResult
from litellm_oauth.service import TokenService
from litellm_oauth.stores import TokenRow
from support.postgres import AUDIT, TOKENS
from support.service import ACTOR, QUICK, Gateways

LATER = 7200.0
SOON = 100.0


async def refresh_all(service: TokenService, **wanted: Any) -> tuple[RefreshedAll, dict[str, UserResult]]:
    """A pass over all users, and the results by user."""
    results: dict[str, UserResult] = {}

    async def keep(result: UserResult) -> None:
        assert result.user_id not in results
        results[result.user_id] = result

    return await service.refresh_all(keep, actor=ACTOR, **wanted), results


def words(results: dict[str, UserResult]) -> dict[str, str]:
    return {user: one.result for user, one in sorted(results.items())}


class Crowd:
    """Counts how many are inside a method at the same time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.most = self.inside = self.entered = 0
        method: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def counted(*arguments: Any, **options: Any) -> Any:
            self.entered += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
            try:
                return await method(*arguments, **options)
            finally:
                self.inside -= 1

        monkeypatch.setattr(owner, name, counted)


async def test_everybody_is_looked_at_and_only_who_needs_it_is_refreshed(gateways: Gateways) -> None:
    gateways.log_in_many(["carol", "alice"], expires_in=SOON)
    gateways.log_in_many(["bob"], expires_in=LATER)
    service = await gateways.open()
    done, results = await refresh_all(service)
    assert words(results) == {"alice": "refreshed", "bob": "fresh", "carol": "refreshed"}
    assert (done.status, done.message, done.counts.refreshed, done.counts.fresh) == ("finished", None, 2, 1)
    alice = results["alice"]
    assert (alice.generation_before, alice.generation, alice.code) == (1, 2, None)
    assert alice.expires_at == pytest.approx(gateways.row("alice")["expires_at"].timestamp())
    assert gateways.refreshes() == 2
    again, _ = await refresh_all(service)
    assert (again.counts.fresh, gateways.refreshes()) == (3, 2)


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [({"min_validity": SOON - 50}, 0), ({"min_validity": LATER + 60}, 2), ({"force": True}, 2)],
)
async def test_min_validity_and_force_decide_who_needs_it(
    gateways: Gateways, wanted: dict[str, Any], asked: int
) -> None:
    gateways.log_in_many(["alice"], expires_in=SOON)
    gateways.log_in_many(["bob"], expires_in=LATER)
    done, _ = await refresh_all(await gateways.open(), **wanted)
    assert (done.counts.refreshed, gateways.refreshes()) == (asked, asked)


async def test_an_odd_min_validity_is_refused(gateways: Gateways) -> None:
    with pytest.raises(InvalidInput):
        await refresh_all(await gateways.open(), min_validity=-1.0)


async def test_one_users_trouble_is_that_users(gateways: Gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    users = ["broken", "dead", "foreign", "good", "locked", "refused", "without", "zoe"]
    gateways.log_in_many(users, expires_in=SOON)
    # These have time left, and are told of all the same.
    gateways.database.query(
        f"UPDATE {TOKENS} SET expires_at = now() + interval '2 hours' WHERE user_id IN ('dead', 'foreign')"
    )
    change = f"UPDATE {TOKENS} SET "
    gateways.database.query(f"{change} status = 'reauth_required' WHERE user_id = 'dead'")
    gateways.database.query(f"{change} refresh_token_encrypted = NULL WHERE user_id = 'without'")
    gateways.database.query(
        f"{change} access_token_encrypted = (SELECT access_token_encrypted FROM {TOKENS} "
        "WHERE user_id = 'good') WHERE user_id = 'foreign'"
    )
    gateways.sandbox.revoke("refused")
    service = await gateways.open()
    ensure = service._refresher.ensure

    async def fails(user: str, need: Any) -> Any:
        if user == "locked":
            # One statement's fault, as of a row that somebody holds: the database itself is well.
            raise StorageUnavailable("The row is locked.")
        if user == "broken":
            raise RuntimeError("a fault of our own")
        return await ensure(user, need)

    monkeypatch.setattr(service._refresher, "ensure", fails)
    done, results = await refresh_all(service)
    assert {user: one.code for user, one in results.items() if one.result == "failed"} == {
        "broken": "internal_error",
        "dead": "reauth_required",
        "foreign": "unreadable",
        "locked": "storage_unavailable",
        "refused": "reauth_required",
        "without": "reauth_required",
    }
    assert words({user: results[user] for user in ("good", "zoe")}) == dict.fromkeys(
        ("good", "zoe"), "refreshed"
    )
    assert (done.status, done.counts.failed, done.counts.refreshed) == ("finished", 6, 2)
    assert all(one.message for one in results.values() if one.result == "failed")


async def test_who_is_logged_out_does_not_count(gateways: Gateways) -> None:
    service = await gateways.open()
    gateways.log_in_many(["alice", "bob"], expires_in=SOON)
    await service.logout("alice", actor=ACTOR)
    done, results = await refresh_all(service)
    assert (words(results), done.counts.done) == ({"bob": "refreshed"}, 1)
    assert await service.count_users() == 1


async def test_a_provider_that_is_left_in_peace_leaves_the_rest_untried(gateways: Gateways) -> None:
    users = [f"user-{n:02}" for n in range(40)]
    gateways.log_in_many(users, expires_in=SOON)
    gateways.log_in_many(["zoe"], expires_in=LATER)
    gateways.sandbox.fault("token", "status", status=429, retry_after=30, times=None)
    service = await gateways.open()
    # One at a time, so that the first failure is all that is known.
    service._bulk._concurrency = 1
    done, results = await refresh_all(service)
    assert done.status == "stopped"
    assert done.message is not None
    assert "left in peace by everybody" in done.message
    assert gateways.refreshes() == 1
    assert words(results) == {"user-00": "failed", **dict.fromkeys(users[1:], "skipped"), "zoe": "fresh"}
    last = results["user-39"]
    assert (last.result, last.code) == ("skipped", "not_tried")
    assert last.message == f"Not tried: {done.message}"


async def test_failures_in_a_row_end_a_pass_also_where_no_rest_is_known(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateways.plant([f"user-{n:02}" for n in range(30)], expires_in=SOON)
    service = await gateways.open()
    asked = 0

    async def fails(user: str, need: Any) -> Any:
        nonlocal asked
        asked += 1
        raise StorageUnavailable("The journal of refreshes cannot be used.")

    monkeypatch.setattr(service._refresher, "ensure", fails)
    done, _ = await refresh_all(service)
    assert asked <= bulk.TOO_MANY_FAILURES + bulk.CONCURRENCY
    assert (done.status, done.counts.skipped) == ("stopped", 30 - asked)


async def test_a_store_that_goes_away_ends_the_pass_as_stopped(gateways: Gateways) -> None:
    gateways.limits = QUICK
    gateways.plant([f"user-{n:03}" for n in range(2 * bulk.PAGE)], expires_in=LATER)
    service = await gateways.open()
    seen: list[UserResult] = []

    async def keep(result: UserResult) -> None:
        if not seen:
            gateways.database.cut_off()
        seen.append(result)

    done = await service.refresh_all(keep, actor=ACTOR)
    assert (done.status, len(seen)) == ("stopped", bulk.PAGE)
    assert done.message is not None
    assert "database" in done.message


@pytest.mark.parametrize("kind", ["due", "all"])
async def test_no_more_run_at_the_same_time_than_the_limit(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    gateways.log_in_many([f"user-{n:02}" for n in range(40)], expires_in=SOON)
    service = await gateways.open()
    gateways.sandbox.fault("token", "slow", seconds=0.05, times=None)
    service._bulk._concurrency = 5
    crowd = Crowd(monkeypatch, service._provider, "refresh")
    if kind == "due":
        assert (await service.refresh_due(actor=ACTOR)).refreshed == 40
    else:
        await refresh_all(service)
    assert 1 < crowd.most <= 5
    assert crowd.entered == 40


async def test_rows_and_results_are_few_however_many_users_there_are(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "PAGE", 20)
    gateways.plant([f"user-{n:04}" for n in range(400)], expires_in=LATER)
    service = await gateways.open()
    pages = Crowd(monkeypatch, service._tokens, "page")
    alive = []
    slow = asyncio.Semaphore(1)

    def held() -> int:
        # Not isinstance: there are objects that do things when they are asked for their class.
        return sum(type(one) in (UserResult, TokenRow) for one in gc.get_objects())

    # What other tests of this process have left does not count.
    gc.collect()
    before = held()

    async def keep(result: UserResult) -> None:
        # Whoever takes results slowly holds the pass up.
        async with slow:
            await asyncio.sleep(0)
            if int(result.user_id[-4:]) % 100 == 0:
                alive.append(held())

    done = await service.refresh_all(keep, actor=ACTOR)
    assert done.counts.fresh == 400
    assert pages.most == 1
    assert max(alive) - before < 80


async def test_start_and_end_are_in_the_audit_with_who_asked(gateways: Gateways) -> None:
    gateways.log_in_many(["alice"], expires_in=SOON)
    await refresh_all(await gateways.open())
    rows = gateways.database.query(
        f"SELECT actor, outcome, detail FROM {AUDIT} WHERE action = 'refresh_all' ORDER BY audit_id"
    )
    assert [(row["actor"], row["outcome"]) for row in rows] == [("tester", "started"), ("tester", "finished")]
    assert rows[1]["detail"].endswith("1 refreshed, 0 fresh, 0 failed, 0 not tried")


async def test_a_due_pass_goes_on_after_one_rows_fault(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"user-{n:02}" for n in range(12)]
    gateways.log_in_many(users, expires_in=SOON)
    service = await gateways.open()
    spend = service._refresher.spend_due

    async def fails(row: Any, *arguments: Any) -> Any:
        if row.user_id == "user-03":
            raise StorageUnavailable("The row is locked.")
        if row.user_id == "user-05":
            raise RuntimeError("a fault of our own")
        return await spend(row, *arguments)

    monkeypatch.setattr(service._refresher, "spend_due", fails)
    counts = await service.refresh_due(actor=ACTOR)
    assert (counts.refreshed, counts.unavailable, counts.stopped_early) == (10, 2, False)
