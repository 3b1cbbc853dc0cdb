"""What PostgreSQL itself refuses: a step whose lease, attempt or generation is no longer the row's."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from litellm_oauth.disk import Disk
from litellm_oauth.hostlock import HostLocks
from litellm_oauth.stores import Attempt, Claim, Failure, Note, Sealed, TokenRow, TokenStore
from litellm_oauth.stores.database import Database
from litellm_oauth.stores.documents import Documents
from litellm_oauth.stores.file import FileTokens
from litellm_oauth.stores.postgres import PostgresTokens
from support.postgres import AUDIT, TOKENS
from support.service import ACTOR, Gateways, eventually

TOKEN_URL = "https://provider.test/token"
TIMEOUT = Failure("timeout: because", 60)
NOTE = Note(ACTOR, "refresh", "alice", "refreshed")
NEW = Sealed("sealed-access", "sealed-refresh", 4_000_000_000.0, None, (), None, 10.0)


@pytest.fixture
async def store(gateways: Gateways) -> AsyncIterator[PostgresTokens]:
    """A store with a row for alice that is due."""
    gateways.plant(["alice"], expires_in=-1)
    database = Database(gateways.database.settings)
    await database.open()
    yield PostgresTokens(database, TOKEN_URL, "client")
    await database.close()


@pytest.fixture(params=["database", "files"])
def either(request: pytest.FixtureRequest, store: PostgresTokens, tmp_path: Path) -> Iterator[TokenStore]:
    """Each of the two stores that decide."""
    if request.param == "database":
        yield store
        return
    documents = Documents(tmp_path / "tokens", tmp_path, lambda *_: pytest.fail("sealed"), authority=True)
    documents.prepare()
    locks, disk = HostLocks(tmp_path / "locks"), Disk()
    yield FileTokens(documents, tmp_path, locks, disk, TOKEN_URL, "client", time.time, lambda _row: True)
    disk.close()


async def row(store: PostgresTokens, user: str = "alice", **changes: Any) -> TokenRow:
    found = await store.load(user)
    assert found is not None
    return replace(found, **changes)


async def claim(store: PostgresTokens, lease: float = 30, user: str = "alice") -> Claim:
    attempt = Attempt(uuid.uuid4(), uuid.uuid4(), "host")
    taken = await store.claim(await row(store, user), attempt, lease, ACTOR, doubtful=True)
    assert taken is not None
    return taken


async def test_one_lease_at_a_time(store: PostgresTokens) -> None:
    await claim(store)
    other = Attempt(uuid.uuid4(), uuid.uuid4(), "other")
    assert await store.claim(await row(store), other, 30, ACTOR, doubtful=True) is None
    assert await store.due(300, None, 10, "other", doubtful=True) == []


async def test_a_lease_is_on_one_generation(store: PostgresTokens) -> None:
    other = Attempt(uuid.uuid4(), uuid.uuid4(), "other")
    assert await store.claim(await row(store, generation=2), other, 30, ACTOR, doubtful=True) is None


@pytest.mark.parametrize("change", ["generation = 2", "attempt_id = gen_random_uuid()", "attempt_id = NULL"])
async def test_every_step_of_an_attempt_ends_where_the_row_moved_on(
    store: PostgresTokens, gateways: Gateways, change: str
) -> None:
    mine = await claim(store)
    gateways.database.query(f"UPDATE {TOKENS} SET {change}")
    before = gateways.row()
    assert await store.save(mine, NEW, NOTE) is None
    assert not await store.fail(mine, TIMEOUT, NOTE)
    assert not await store.condemn(mine, "invalid_grant: because", NOTE)
    assert not await store.renew(mine, 30)
    assert gateways.row() == before


async def test_a_login_is_condemned_only_with_the_very_refresh_token_that_was_spent(
    store: PostgresTokens, gateways: Gateways
) -> None:
    mine = await claim(store)
    gateways.database.query(f"UPDATE {TOKENS} SET refresh_token_encrypted = 'another'")
    assert not await store.condemn(mine, "invalid_grant: because", NOTE)
    assert gateways.row()["status"] == "active"


async def test_a_cooldown_leaves_a_running_attempt_and_a_newer_generation_alone(
    store: PostgresTokens,
) -> None:
    assert not await store.cool(await row(store, generation=7), TIMEOUT, NOTE)
    await claim(store)
    assert not await store.cool(await row(store), TIMEOUT, NOTE)


async def test_a_lease_is_prolonged_by_its_owner_only(store: PostgresTokens) -> None:
    mine = await claim(store)
    stranger = Claim(mine.row, Attempt(mine.attempt.attempt_id, uuid.uuid4(), "host"))
    assert not await store.renew(stranger, 30)
    assert await store.renew(mine, 30)


async def test_an_attempt_that_spent_nothing_can_be_taken_back_and_no_other(
    store: PostgresTokens, gateways: Gateways
) -> None:
    mine = await claim(store)
    await store.abandon(mine.row, Attempt(uuid.uuid4(), mine.attempt.owner, "host"))
    assert gateways.row()["attempt_id"] == mine.attempt.attempt_id
    await store.abandon(mine.row, mine.attempt)
    assert (gateways.row()["attempt_id"], gateways.row()["lease_until"]) == (None, None)


async def test_a_success_under_way_does_not_end_a_rest_that_the_provider_asked_for(
    store: PostgresTokens, gateways: Gateways
) -> None:
    """Carol waits for what Bob was told, although Alice's answer, asked for before, comes after it."""
    gateways.plant(["bob", "carol"], expires_in=-1)
    alice, bob = await claim(store), await claim(store, user="bob")
    limited = Failure("rate_limited: because", 600, 600, counts=True)
    assert await store.fail(bob, limited, replace(NOTE, user_id="bob"))
    assert await store.save(alice, NEW, NOTE) is not None
    carol = await row(store, "carol")
    assert carol.provider.rests_for > 500
    other = Attempt(uuid.uuid4(), uuid.uuid4(), "other")
    assert await store.claim(carol, other, 30, ACTOR, doubtful=True) is None


@pytest.mark.parametrize(("over", "written"), [(0, False), (2, False), (1, True), (None, True)])
async def test_an_import_replaces_the_generation_that_was_looked_at_and_no_other(
    store: PostgresTokens, gateways: Gateways, over: int | None, written: bool
) -> None:
    """The attempt that runs is over with it, so that what it brings finds no place."""
    mine = await claim(store)
    before = gateways.row()
    note = Note(ACTOR, "import", "alice", "imported")
    imported = await store.import_login("alice", NEW, note, logged_in_at=None, over=over)
    noted = gateways.database.query(f"SELECT generation FROM {AUDIT}")
    assert (imported is not None) == written
    if not written:
        assert (gateways.row(), noted) == (before, [])
        return
    row = gateways.row()
    assert (row["generation"], row["attempt_id"], row["lease_until"]) == (2, None, None)
    assert noted == [{"generation": 2}]
    assert await store.save(mine, NEW, NOTE) is None


@pytest.mark.parametrize("over", [0, None])
async def test_an_import_needs_no_row_and_counts_from_one(either: TokenStore, over: int | None) -> None:
    note = Note(ACTOR, "import", "bob", "imported")
    row = await either.import_login("bob", NEW, note, logged_in_at=None, over=over)
    assert row is not None
    assert (row.user_id, row.generation, row.client_id) == ("bob", 1, None)


async def test_an_import_over_a_generation_whose_row_is_gone_writes_nothing(
    either: TokenStore, gateways: Gateways
) -> None:
    note = Note(ACTOR, "import", "bob", "imported")
    assert await either.import_login("bob", NEW, note, logged_in_at=None, over=1) is None
    assert await either.load("bob") is None
    assert gateways.database.query(f"SELECT FROM {AUDIT}") == []


async def test_an_import_over_a_generation_waits_for_whoever_takes_its_row_away(
    store: PostgresTokens, gateways: Gateways
) -> None:
    note = Note(ACTOR, "import", "alice", "imported")
    waiting = """SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
      WHERE NOT granted AND datname = current_database()"""
    with gateways.database.transaction() as other:
        other.execute(f"DELETE FROM {TOKENS}")
        imported = asyncio.create_task(store.import_login("alice", NEW, note, logged_in_at=None, over=1))
        await eventually(lambda: gateways.database.query(waiting))
    assert await imported is None
    assert await store.load("alice") is None
