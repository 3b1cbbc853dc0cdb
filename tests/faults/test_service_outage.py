"""A database that is away, slow or foreign: valid tokens are served, nothing is lost, no key is made up."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from litellm_oauth.errors import SettingsError, StorageUnavailable
from litellm_oauth.settings import DatabaseSettings
from litellm_oauth.stores.database import MAX_CONNECTIONS, Database, Limits
from support.postgres import USER_KEYS, TestDatabase
from support.service import ACTOR, KEY, PATIENT, QUICK, Gateways, MovableClock, eventually

OTHER_KEY = KEY[::-1]


@pytest.fixture(autouse=True)
def quick_limits(gateways: Gateways) -> None:
    gateways.limits = QUICK


async def test_without_the_database_a_valid_token_is_served_and_an_expired_one_is_not(
    gateways: Gateways,
) -> None:
    clock = MovableClock()
    service = await gateways.open(clock=clock)
    await gateways.log_in(service)
    gateways.database.cut_off()
    for ahead in (0, 10, 28_000):
        clock.ahead = ahead
        started = time.monotonic()
        assert (await service.access_token("alice")).generation == 1
        assert time.monotonic() - started < 2.0
    clock.ahead = 28_900
    with pytest.raises(StorageUnavailable) as caught:
        await service.access_token("alice")
    assert caught.value.retry_after > 0
    assert not await service.database_reachable()
    gateways.database.let_in()
    clock.ahead = 0
    await _until_reachable(gateways, service.database_reachable)
    assert (await service.access_token("alice")).generation == 1


async def test_what_a_person_does_without_the_database_changes_nothing(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    login = await service.export_login("alice", actor=ACTOR)
    started = await service.start_login("alice", actor=ACTOR, again=True)
    before = gateways.row()
    calls = gateways.sandbox.token_calls()["total"]
    gateways.database.cut_off()
    for operation in (
        service.start_login("bob", actor=ACTOR),
        service.complete_login("alice", f"code#{started.state}", actor=ACTOR),
        service.logout("alice", actor=ACTOR),
        service.export_login("alice", actor=ACTOR),
        service.import_login("alice", login, actor=ACTOR),
        service.import_login("alice", login, actor=ACTOR, again=True),
        service.import_login("bob", login, actor=ACTOR),
        service.refresh("bob", actor=ACTOR),
    ):
        with pytest.raises(StorageUnavailable):
            await operation
    assert (await service.status("alice")).source == "file"
    gateways.database.let_in()
    assert gateways.row() == before
    assert gateways.sandbox.token_calls()["total"] == calls
    assert gateways.sandbox.counters().get("revocations", 0) in (0, {})


async def test_an_answer_that_comes_while_the_database_is_away_is_saved_later(
    gateways: Gateways,
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await gateways.expire()
    gateways.sandbox.fault("token", "slow", seconds=0.4, after=True)
    request = asyncio.create_task(service.access_token("alice"))
    await eventually(lambda: gateways.row()["attempt_id"] is not None)
    gateways.database.cut_off()
    token = await request
    assert token.generation == 2
    assert gateways.accepts(token.value)
    assert (await service.access_token("alice")).value == token.value
    gateways.database.let_in()
    await eventually(lambda: gateways.row()["generation"] == 2, seconds=10)
    assert gateways.row()["attempt_id"] is None
    other = await gateways.open()
    assert (await other.access_token("alice")).value == token.value
    assert gateways.refreshes() == 1


async def test_a_refresh_asked_for_whose_answer_cannot_be_saved_says_so(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    gateways.sandbox.fault("token", "slow", seconds=0.4, after=True)
    request = asyncio.create_task(service.refresh("alice", force=True, actor=ACTOR))
    await eventually(lambda: gateways.row()["attempt_id"] is not None)
    gateways.database.cut_off()
    with pytest.raises(StorageUnavailable, match="cannot be saved yet"):
        await request
    gateways.database.let_in()
    await eventually(lambda: gateways.row()["generation"] == 2, seconds=10)


async def test_a_failure_that_comes_while_the_database_is_away_leaves_no_doubt(
    gateways: Gateways,
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    gateways.sandbox.fault("token", "slow", seconds=0.4, grant_type="refresh_token")
    gateways.sandbox.expire("alice", refresh_tokens=True)
    request = asyncio.create_task(service.refresh("alice", force=True, actor=ACTOR))
    await eventually(lambda: gateways.row()["attempt_id"] is not None)
    gateways.database.cut_off()
    await asyncio.gather(request, return_exceptions=True)
    gateways.database.let_in()
    await eventually(lambda: gateways.row()["status"] == "reauth_required", seconds=10)
    assert gateways.row()["attempt_id"] is None


async def test_after_an_outage_changes_by_others_are_noticed_again(gateways: Gateways) -> None:
    first, second = await gateways.open(), await gateways.open()
    await gateways.log_in(first)
    await second.access_token("alice")
    gateways.database.cut_off()
    await asyncio.sleep(0.1)
    gateways.database.let_in()
    await _until_reachable(gateways, first.database_reachable)
    await first.refresh("alice", force=True, actor=ACTOR)
    for _ in range(300):
        if (await second.access_token("alice")).generation == 2:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the other process serves the old token for more than six seconds")


async def _until_reachable(gateways: Gateways, reachable: object) -> None:
    assert callable(reachable)
    for _ in range(50):
        if await reachable():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the service does not find back to the database")


@asynccontextmanager
async def _deaf_server() -> AsyncIterator[int]:
    """A server that accepts connections and never answers."""
    server = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_a_database_that_accepts_and_never_answers_holds_nobody_up_for_long() -> None:
    async with _deaf_server() as port:
        database = Database(DatabaseSettings(f"postgresql://llmproxy@127.0.0.1:{port}/litellm", None))
        await database.open()
        started = time.monotonic()
        with pytest.raises(StorageUnavailable):
            await database.one("SELECT 1")
        assert time.monotonic() - started < 7
        assert database.down
        await database.close()


async def test_a_statement_that_is_wrong_does_not_make_the_database_look_down(database: TestDatabase) -> None:
    pool = Database(database.settings)
    await pool.open()
    for wrong in ("SELECT 1/0", "SELECT 'x'::int", "SELECT nothing"):
        with pytest.raises(StorageUnavailable):
            await pool.one(wrong)
        assert not pool.down
    database.query(f"INSERT INTO {USER_KEYS} (key_hash, user_id) VALUES ('hash', 'alice')")
    with database.transaction() as other:
        other.execute(f"SELECT FROM {USER_KEYS} FOR UPDATE")
        with pytest.raises(StorageUnavailable):
            await pool.one(f"SELECT FROM {USER_KEYS} FOR UPDATE NOWAIT")
        assert not pool.down
    await pool.close()


async def test_a_start_with_another_key_stops_with_the_reason(gateways: Gateways) -> None:
    await gateways.open()
    with pytest.raises(SettingsError, match="CLAUDE_TOKEN_ENCRYPTION_KEYS_OLD") as caught:
        await gateways.open(encryption_key=OTHER_KEY)
    assert OTHER_KEY not in caught.value.message
    assert len(gateways.database.query("SELECT 1 FROM claude_oauth.key_checks")) == 1


async def test_a_new_key_beside_the_old_one_reads_what_was_stored(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    both = await gateways.open_with_old_keys(OTHER_KEY, KEY)
    assert (await both.access_token("alice")).generation == 1
    await both.refresh("alice", force=True, actor=ACTOR)
    assert len(gateways.database.query("SELECT 1 FROM claude_oauth.key_checks")) == 2
    with pytest.raises(SettingsError):
        await gateways.open()


async def test_of_two_first_starts_with_different_keys_one_wins(gateways: Gateways) -> None:
    results = await asyncio.gather(
        *(gateways.open(encryption_key=key) for key in (KEY, OTHER_KEY, KEY, OTHER_KEY)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, SettingsError) for result in results) == 2
    assert len(gateways.database.query("SELECT 1 FROM claude_oauth.key_checks")) == 1


async def test_without_its_database_there_is_no_start_unless_it_is_asked_for(
    gateways: Gateways, database: TestDatabase
) -> None:
    database.cut_off()
    with pytest.raises(StorageUnavailable):
        await gateways.open()
    service = await gateways.open(without_database=True)
    with pytest.raises(StorageUnavailable):
        await service.access_token("alice")
    database.let_in()
    await _until_reachable(gateways, service.database_reachable)
    await gateways.log_in(service)
    assert (await service.access_token("alice")).generation == 1


async def test_rows_that_somebody_holds_do_not_make_the_database_look_down(database: TestDatabase) -> None:
    """All connections wait for one row, and another statement waits for one of them."""
    pool = Database(database.settings, limits=QUICK)
    await pool.open()
    database.query(f"INSERT INTO {USER_KEYS} (key_hash, user_id) VALUES ('hash', 'alice')")
    with database.transaction() as other:
        other.execute(f"SELECT FROM {USER_KEYS} FOR UPDATE")
        waiting = [pool.one(f"SELECT FROM {USER_KEYS} FOR UPDATE") for _ in range(MAX_CONNECTIONS)]
        *refused, found = await asyncio.gather(*waiting, pool.one("SELECT 1 AS one"), return_exceptions=True)
        assert [type(error) for error in refused] == [StorageUnavailable] * MAX_CONNECTIONS
        assert found == {"one": 1}
        assert not pool.down
    await pool.close()


@pytest.mark.parametrize("limits", [Limits(), QUICK, PATIENT])
def test_a_row_is_waited_for_shorter_than_a_connection_or_a_statement(limits: Limits) -> None:
    assert 0 < limits.lock < min(limits.pool, limits.statement)
