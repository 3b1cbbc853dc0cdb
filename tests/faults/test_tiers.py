"""The database and the host's files: one stands in for the other, then the higher generation wins."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from faults.test_attempts import crash, records
from litellm_oauth.errors import CoolingDown, NotLoggedIn, ProviderUnavailable, StorageUnavailable
from litellm_oauth.provider import Provider
from litellm_oauth.service import TokenService
from litellm_oauth.stores.postgres import PostgresTokens
from litellm_oauth.stores.tiers import Tiers
from litellm_oauth.tokens import Status
from support.postgres import AUDIT, TOKENS
from support.service import ACTOR, KEY, QUICK, Gateways, MovableClock, eventually


@pytest.fixture(autouse=True)
def quick_limits(gateways: Gateways) -> None:
    gateways.limits = QUICK


def mirror(gateways: Gateways, host: str = "host") -> Path:
    """Alice's file on a host."""
    (path,) = (gateways.tokens(host).parent / "users").glob("*.json")
    return path


def kept(gateways: Gateways, host: str = "host") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mirror(gateways, host).read_text())
    return found


@asynccontextmanager
async def outage(gateways: Gateways) -> AsyncIterator[None]:
    """The database is away, and comes back at the end; all services have found it by then."""
    gateways.database.cut_off()
    await asyncio.sleep(0.1)
    yield
    gateways.database.let_in()


async def agreed(gateways: Gateways, generation: int) -> None:
    """Wait until both tiers hold this generation, and the same tokens."""
    await eventually(lambda: gateways.row()["generation"] == generation, seconds=10)
    await eventually(lambda: kept(gateways)["generation"] == generation, seconds=10)
    assert kept(gateways)["accessToken"] == gateways.row()["access_token_encrypted"]
    assert kept(gateways)["refreshToken"] == gateways.row()["refresh_token_encrypted"]


async def test_every_save_is_mirrored_and_a_logout_takes_the_mirror_away(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await agreed(gateways, 1)
    await service.refresh("alice", force=True, actor=ACTOR)
    await agreed(gateways, 2)
    path = mirror(gateways)
    await service.logout("alice", actor=ACTOR)
    assert not path.exists()
    async with outage(gateways):
        # Alice may have logged in elsewhere since, so that she is not told that she has not.
        with pytest.raises(StorageUnavailable):
            await (await gateways.open(without_database=True)).access_token("alice")


async def test_a_start_without_the_database_serves_what_the_files_hold(gateways: Gateways) -> None:
    first = await gateways.open()
    await gateways.log_in(first)
    value = (await first.access_token("alice")).value
    async with outage(gateways):
        second = await gateways.open(without_database=True)
        assert (await second.access_token("alice")).value == value
        status = await second.status("alice")
        assert (status.source, status.generation) == ("file", 1)
    await eventually_reachable(second)
    assert (await second.status("alice")).source == "database"


async def test_what_a_file_stood_in_with_for_a_moment_is_not_served_on(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look at the database fails, while its notifications come in: none will come for that look."""
    first, second = await gateways.open(host="one"), await gateways.open(host="two")
    await gateways.log_in(first)
    await second.access_token("alice")
    await first.refresh("alice", force=True, actor=ACTOR)
    await eventually(lambda: second._memory.entries["alice"].stale)

    async def away(*_: Any) -> None:
        raise StorageUnavailable("a moment")

    with monkeypatch.context() as patch:
        patch.setattr(PostgresTokens, "load", away)
        assert (await second.access_token("alice")).generation == 1
    assert (await second.access_token("alice")).generation == 2


async def test_on_the_only_host_an_expired_token_is_refreshed_without_the_database(
    gateways: Gateways,
) -> None:
    clock = MovableClock()
    first = await gateways.open(single_host=True, clock=clock)
    second = await gateways.open(single_host=True, clock=clock)
    await gateways.log_in(first)
    async with outage(gateways):
        for generation in (2, 3):
            clock.ahead += 28_900
            tokens = await asyncio.gather(
                *(s.access_token("alice") for s in (first, second) for _ in range(5))
            )
            assert {token.generation for token in tokens} == {generation}
        assert gateways.refreshes() == 2
    assert gateways.row()["generation"] == 1
    await eventually_reachable(first)
    await first.status("alice")
    await agreed(gateways, 3)
    assert (await first.access_token("alice")).value == tokens[0].value
    assert gateways.database.one(f"SELECT detail FROM {AUDIT} WHERE outcome = 'restored'")["detail"] == "file"
    loop = asyncio.create_task(first.run_background())
    await eventually(
        lambda: (
            [
                row["detail"][:5]
                for row in gateways.database.query(f"SELECT detail FROM {AUDIT} WHERE outcome = 'refreshed'")
            ]
            == ["at 20", "at 20"]
        )
    )
    loop.cancel()


async def test_where_other_hosts_may_exist_nothing_is_spent_without_the_database(
    gateways: Gateways,
) -> None:
    clock = MovableClock()
    service = await gateways.open(clock=clock)
    await gateways.log_in(service)
    async with outage(gateways):
        assert (await service.access_token("alice")).generation == 1
        clock.ahead = 28_900
        with pytest.raises(StorageUnavailable) as caught:
            await service.access_token("alice")
        assert caught.value.retry_after > 0
    assert gateways.refreshes() == 0
    assert kept(gateways)["generation"] == 1


@pytest.mark.parametrize("single_host", [False, True])
async def test_an_answer_that_the_database_did_not_take_serves_all_processes_of_the_host(
    gateways: Gateways, single_host: bool
) -> None:
    first = await gateways.open(single_host=single_host)
    await gateways.log_in(first)
    gateways.sandbox.fault("token", "slow", seconds=0.5, after=True)
    refresh = asyncio.create_task(first.replace_rejected("alice", 1))
    await eventually(lambda: gateways.row()["attempt_id"] is not None)
    async with outage(gateways):
        token = await refresh
        assert token.generation == 2
        second = await gateways.open(without_database=True, single_host=single_host)
        assert (await second.access_token("alice")).value == token.value
        assert len(records(gateways)) == 1
    await agreed(gateways, 2)
    await eventually(lambda: records(gateways) == [])
    assert gateways.refreshes() == 1


async def test_a_token_in_doubt_is_not_spent_from_the_files(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await gateways.open(single_host=True)
    await gateways.log_in(first)
    await crash(first, monkeypatch, Provider, "refresh")
    clock = MovableClock()
    async with outage(gateways):
        second = await gateways.open(without_database=True, single_host=True, clock=clock)
        with pytest.raises(CoolingDown, match="ended without a word"):
            await second.refresh("alice", force=True, actor=ACTOR)
        assert gateways.refreshes() == 0
        clock.ahead = 28_900
        assert (await second.access_token("alice")).generation == 2
    assert gateways.refreshes() == 1
    clock.ahead = 0
    await eventually_reachable(second)
    await second.status("alice")
    await agreed(gateways, 2)


async def test_what_fails_while_the_files_stand_in_is_known_to_the_database_afterwards(
    gateways: Gateways,
) -> None:
    clock = MovableClock()
    service = await gateways.open(single_host=True, clock=clock)
    await gateways.log_in(service)
    gateways.sandbox.fault("token", "status", status=404, times=None)
    async with outage(gateways):
        clock.ahead = 28_900
        with pytest.raises(ProviderUnavailable, match="404"):
            await service.access_token("alice")
        with pytest.raises(CoolingDown, match="wrong_host"):
            await service.access_token("alice")
    assert gateways.refreshes() == 1
    clock.ahead = 0
    await eventually_reachable(service)
    await service.status("alice")
    assert gateways.row()["last_error"].startswith("wrong_host")
    await agreed(gateways, 1)


async def test_a_database_that_takes_no_claim_is_stood_in_for_by_what_the_files_say(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await gateways.open(single_host=True)
    await gateways.log_in(service)

    async def read_only(*_: Any, **__: Any) -> Any:
        raise StorageUnavailable("read only")

    gateways.sandbox.fault("token", "status", status=404, times=None)
    with monkeypatch.context() as patch:
        for name in ("claim", "restore", "save", "fail"):
            patch.setattr(PostgresTokens, name, read_only)
        for sentence in ("404", "404", "404", "by everybody"):
            with pytest.raises((ProviderUnavailable, CoolingDown), match=sentence):
                await service.refresh("alice", force=True, actor=ACTOR)
        assert gateways.refreshes() == 3
    assert gateways.row()["last_error"] is None
    fresh = await gateways.open(single_host=True)
    assert (await fresh.status("alice")).status is Status.COOLING_DOWN
    assert gateways.row()["last_error"].startswith("wrong_host")
    assert gateways.accepts((await fresh.access_token("alice")).value)


async def test_an_attempt_that_began_in_the_files_ends_there(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await gateways.open(single_host=True)
    await gateways.log_in(service)
    async with outage(gateways):
        await crash(service, monkeypatch, Provider, "refresh")
        assert kept(gateways)["attemptId"] is not None
    other = await gateways.open(single_host=True)
    with pytest.raises(CoolingDown, match="answer_lost"):
        await other.refresh("alice", force=True, actor=ACTOR)
    assert gateways.refreshes() == 0
    assert records(gateways) == []
    await agreed(gateways, 1)
    assert gateways.row()["last_error"].startswith("answer_lost")


async def test_a_database_put_back_to_an_older_state_learns_of_what_is_newer(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    backup = gateways.row()
    for _ in range(3):
        await service.refresh("alice", force=True, actor=ACTOR)
    gateways.database.query(
        f"UPDATE {TOKENS} SET generation = 1, access_token_encrypted = %(access)s, "
        "refresh_token_encrypted = %(refresh)s",
        {"access": backup["access_token_encrypted"], "refresh": backup["refresh_token_encrypted"]},
    )
    fresh = await gateways.open()
    token = await fresh.access_token("alice")
    assert token.generation == 4
    assert gateways.accepts(token.value)
    await agreed(gateways, 4)


def put_back(gateways: Gateways, backup: dict[str, Any]) -> None:
    """Alice's row is what it was, and is due."""
    gateways.database.query(
        f"UPDATE {TOKENS} SET generation = %(generation)s, access_token_encrypted = %(access)s, "
        "refresh_token_encrypted = %(refresh)s, status = %(status)s, expires_at = now(), "
        "next_attempt_at = NULL WHERE user_id = 'alice'",
        {
            "generation": backup["generation"],
            "access": backup["access_token_encrypted"],
            "refresh": backup["refresh_token_encrypted"],
            "status": backup["status"],
        },
    )


async def test_a_pass_over_a_database_put_back_to_an_older_state_takes_over_what_is_newer(
    gateways: Gateways,
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    backup = gateways.row()
    for _ in range(3):
        await service.refresh("alice", force=True, actor=ACTOR)
    put_back(gateways, backup)
    fresh = await gateways.open()
    counts = await fresh.refresh_due(actor=ACTOR)
    assert (counts.attempted, gateways.row()["generation"], gateways.refreshes()) == (0, 4, 3)
    assert gateways.accepts((await fresh.access_token("alice")).value)
    await gateways.change("expires_at = now(), next_attempt_at = NULL")
    assert (await fresh.refresh_due(actor=ACTOR)).refreshed == 1
    await agreed(gateways, 5)


@pytest.mark.parametrize("act", ["login", "logout"])
async def test_a_persons_act_on_a_database_put_back_to_an_older_state_is_not_undone(
    gateways: Gateways, act: str
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    backup = gateways.row()
    for _ in range(3):
        await service.refresh("alice", force=True, actor=ACTOR)
    put_back(gateways, backup)
    fresh = await gateways.open()
    if act == "login":
        await gateways.log_in(fresh)
    else:
        await fresh.logout("alice", actor=ACTOR)
    newest = gateways.row()
    assert newest["generation"] == 5
    await (await gateways.open()).status("alice")
    assert gateways.row() == newest


async def test_a_login_after_the_database_was_blanked_is_not_undone_by_a_file(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    for _ in range(3):
        await service.refresh("alice", force=True, actor=ACTOR)
    gateways.database.query(f"DELETE FROM {TOKENS}")
    await gateways.log_in(service)
    newest = gateways.row()
    assert newest["generation"] == 5
    assert gateways.accepts((await (await gateways.open()).access_token("alice")).value)
    assert gateways.row() == newest


async def test_an_import_after_the_database_was_blanked_goes_on_counting(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    for _ in range(2):
        await service.refresh("alice", force=True, actor=ACTOR)
    login = await service.export_login("alice", actor=ACTOR)
    await agreed(gateways, 3)
    gateways.database.query(f"DELETE FROM {TOKENS}")
    assert (await service.import_login("alice", login, actor=ACTOR)).generation == 4
    await agreed(gateways, 4)


async def test_a_refresh_token_that_may_be_spent_is_left_alone_by_the_files_too(gateways: Gateways) -> None:
    service = await gateways.open(single_host=True)
    await gateways.log_in(service)
    gateways.sandbox.fault("token", "lost_answer")
    with pytest.raises(ProviderUnavailable):
        await service.refresh("alice", force=True, actor=ACTOR)
    async with outage(gateways):
        late = await gateways.open(without_database=True, single_host=True)
        with pytest.raises(CoolingDown, match="answer_lost"):
            await late.refresh("alice", force=True, actor=ACTOR)
        assert (await late.access_token("alice")).generation == 1
    assert gateways.refreshes() == 1


async def test_that_a_refresh_token_may_be_spent_outlives_a_database_put_back_to_an_older_state(
    gateways: Gateways,
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    gateways.database.query(f"CREATE TABLE backup AS SELECT * FROM {TOKENS}")
    gateways.sandbox.fault("token", "lost_answer")
    with pytest.raises(ProviderUnavailable):
        await service.refresh("alice", force=True, actor=ACTOR)
    gateways.database.query(f"DELETE FROM {TOKENS}; INSERT INTO {TOKENS} SELECT * FROM backup")
    gateways.database.query("DROP TABLE backup")
    with pytest.raises(CoolingDown, match="answer_lost"):
        await (await gateways.open()).refresh("alice", force=True, actor=ACTOR)
    assert gateways.refreshes() == 1


async def test_a_name_given_in_a_database_put_back_to_an_older_state_is_not_taken_again(
    gateways: Gateways,
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await service.logout("alice", actor=ACTOR)
    backup = gateways.row()
    await gateways.log_in(service)
    await service.rename("alice", "bob", actor=ACTOR)
    await gateways.log_in(service)
    await service.logout("alice", actor=ACTOR)
    put_back(gateways, backup)
    renamed = await service.rename("bob", "alice", actor=ACTOR)
    assert renamed.generation == 7
    assert gateways.accepts((await (await gateways.open()).access_token("alice")).value)


@pytest.mark.parametrize("single_host", [False, True])
async def test_a_database_that_was_blanked_learns_from_the_only_host(
    gateways: Gateways, single_host: bool
) -> None:
    service = await gateways.open(single_host=single_host)
    await gateways.log_in(service)
    gateways.database.query(f"DELETE FROM {TOKENS}")
    fresh = await gateways.open(single_host=single_host)
    if single_host:
        assert (await fresh.access_token("alice")).generation == 1
        await agreed(gateways, 1)
    else:
        with pytest.raises(NotLoggedIn):
            await fresh.access_token("alice")


async def test_a_mirror_never_wins_over_the_database_by_what_a_person_does_to_it(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    old = mirror(gateways).read_bytes()
    await service.refresh("alice", force=True, actor=ACTOR)
    path = mirror(gateways)
    for content in (old, old[:50], json.dumps({**json.loads(old), "generation": None}).encode()):
        path.write_bytes(content)
        fresh = await gateways.open()
        assert (await fresh.access_token("alice")).generation == 2
        await agreed(gateways, 2)
    path.write_bytes(old)
    async with outage(gateways):
        late = await gateways.open(without_database=True, single_host=True)
        with pytest.raises(StorageUnavailable):
            await late.access_token("alice")
    assert gateways.refreshes() == 1


async def test_a_mirror_written_with_a_key_that_is_gone_is_replaced(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    for _ in range(3):
        await service.refresh("alice", force=True, actor=ACTOR)
    gateways.database.query(f"DELETE FROM {TOKENS}")
    gateways.database.query("DELETE FROM claude_oauth.key_checks")
    other = await gateways.open(encryption_key=KEY[::-1], single_host=True)
    with pytest.raises(NotLoggedIn):
        await other.access_token("alice")
    await gateways.log_in(other)
    assert (await other.access_token("alice")).generation == 1
    assert kept(gateways)["generation"] == 1


async def test_a_file_tier_that_cannot_be_written_costs_nothing_but_itself(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    users = gateways.tokens().parent / "users"
    users.rename(users.with_name("gone"))
    users.write_text("in the way")
    assert (await service.refresh("alice", force=True, actor=ACTOR)).generation == 2
    assert gateways.row()["generation"] == 2
    assert len(records(gateways)) == 1
    for _ in range(3):
        await service.refresh("alice", force=True, actor=ACTOR)
    # The newest are kept, without the room for an answer: all else would fill the journal's disk.
    await eventually(lambda: [r.stat().st_size < 8192 for r in records(gateways)] in ([True], [True] * 2))
    users.unlink()
    users.mkdir(mode=0o700)
    loop = asyncio.create_task(service.run_background())
    await agreed_soon(gateways, 5)
    await eventually(lambda: records(gateways) == [])
    loop.cancel()


async def test_a_read_only_database_serves_and_spends_nothing(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    with gateways.database.server.admin() as admin:
        name = gateways.database.name
        admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            assert (await service.access_token("alice")).generation == 1
            with pytest.raises(StorageUnavailable):
                await service.refresh("alice", force=True, actor=ACTOR)
            assert gateways.refreshes() == 0
            fresh = await gateways.open(without_database=True)
            assert (await fresh.access_token("alice")).generation == 1
        finally:
            admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
    await eventually_reachable(service)
    await asyncio.sleep(0.2)
    assert (await service.refresh("alice", force=True, actor=ACTOR)).generation == 2


async def test_a_crash_after_the_save_and_before_the_mirror_is_made_good(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await gateways.open(single_host=True)
    await gateways.log_in(service)

    async def die(*_: Any) -> bool:
        await asyncio.Event().wait()
        return False

    clock = MovableClock()
    with monkeypatch.context() as patch:
        patch.setattr(Tiers, "mirror", die)
        await service.refresh("alice", force=True, actor=ACTOR)
        assert (gateways.row()["generation"], kept(gateways)["generation"]) == (2, 1)
        for task in service._refresher._attempts._tasks:
            task.cancel()
    async with outage(gateways):
        second = await gateways.open(without_database=True, single_host=True, clock=clock)
        clock.ahead = 28_900
        token = await second.access_token("alice")
        assert gateways.refreshes() == 2
        assert token.generation == 3
    assert not any(login["revoked_because"] for login in gateways.sandbox.logins())


async def eventually_reachable(service: TokenService) -> None:
    for _ in range(100):
        if await service.database_reachable():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the service does not find back to the database")


async def agreed_soon(gateways: Gateways, generation: int) -> None:
    await eventually(lambda: list((gateways.tokens().parent / "users").glob("*.json")), seconds=10)
    await agreed(gateways, generation)
