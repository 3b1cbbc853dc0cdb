"""A crash between any two steps of a refresh: what was answered is kept, nothing is spent twice."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import hashlib
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from litellm_oauth import refresh
from litellm_oauth.errors import CoolingDown, ReauthRequired, StorageUnavailable
from litellm_oauth.journal import Journal, Record
from litellm_oauth.provider import Provider
from litellm_oauth.service import TokenService
from litellm_oauth.stores import Claim, TokenRow
from litellm_oauth.stores.postgres import PostgresTokens
from support.postgres import AUDIT, TOKENS
from support.service import ACTOR, QUICK, Gateways, eventually


class Crash(BaseException):
    """Ends a flight where it stands, as the death of its process would: nothing after it runs."""


def records(gateways: Gateways, host: str = "host") -> list[Path]:
    return list((gateways.journal(host) / "attempts").iterdir())


def set_row(gateways: Gateways, assignments: str) -> None:
    """Change alice's row in a way that nobody is told of."""
    gateways.database.query(f"UPDATE {TOKENS} SET {assignments} WHERE user_id = 'alice'")


async def read_before(gateways: Gateways) -> tuple[TokenService, TokenRow]:
    """A service, and alice's row as a pass reads it before it comes to her."""
    service = await gateways.open()
    await gateways.log_in(service)
    row = await service._tokens.load("alice")
    assert row is not None
    return service, row


async def die(*_: Any, **__: Any) -> Any:
    raise Crash


async def crash(service: TokenService, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """Refresh alice, and die at the beginning of ``owner.name``; the host's lock falls with the process."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die)
        with pytest.raises(Crash):
            await service.refresh("alice", force=True, actor=ACTOR)


async def test_an_answer_that_was_not_saved_is_replayed_by_another_process_of_the_host(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await crash(service, monkeypatch, PostgresTokens, "save")
    assert gateways.row()["generation"] == 1
    assert len(records(gateways)) == 1
    other = await gateways.open()
    outcome = await other.refresh("alice", min_validity=86_400, actor=ACTOR)
    assert gateways.refreshes() == 1
    assert outcome.generation == 2
    assert records(gateways) == []
    assert gateways.row()["attempt_id"] is None
    assert gateways.accepts((await other.access_token("alice")).value)


async def test_the_background_loop_replays_what_nobody_asks_for(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await crash(service, monkeypatch, PostgresTokens, "save")
    other = await gateways.open()
    loop = asyncio.create_task(other.run_background())
    await eventually(lambda: gateways.row()["generation"] == 2)
    await eventually(lambda: records(gateways) == [])
    loop.cancel()
    assert gateways.refreshes() == 1


async def test_an_answer_in_the_journal_of_another_host_is_waited_for(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await gateways.open(host="one")
    await gateways.log_in(service)
    await crash(service, monkeypatch, PostgresTokens, "save")
    set_row(gateways, "lease_until = now()")
    other = await gateways.open(host="two")
    with pytest.raises(CoolingDown, match="ended without a word"):
        await other.refresh("alice", force=True, actor=ACTOR)
    assert (await other.access_token("alice")).generation == 1
    back = await gateways.open(host="one")
    loop = asyncio.create_task(back.run_background())
    await eventually(lambda: gateways.row()["generation"] == 2)
    loop.cancel()
    assert gateways.refreshes() == 1


async def test_a_lease_without_a_record_spent_nothing_and_is_followed_at_once(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await crash(service, monkeypatch, Journal, "begin")
    assert gateways.row()["attempt_id"] is not None
    assert gateways.row()["lease_until"] is not None
    other = await gateways.open()
    assert (await other.refresh("alice", force=True, actor=ACTOR)).generation == 2
    assert gateways.refreshes() == 1


async def test_a_record_without_an_answer_is_tried_once_the_access_token_is_used_up(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await crash(service, monkeypatch, Provider, "refresh")
    other = await gateways.open()
    with pytest.raises(CoolingDown, match="answer_lost"):
        await other.refresh("alice", force=True, actor=ACTOR)
    assert gateways.refreshes() == 0
    assert records(gateways) == []
    assert gateways.row()["attempt_id"] is None
    assert (await other.access_token("alice")).generation == 1
    assert (
        gateways.database.one(f"SELECT origin FROM {AUDIT} WHERE outcome = 'answer_lost'")["origin"]
        == (gateways.journal() / "host").read_text()
    )
    await gateways.change("expires_at = now(), next_attempt_at = now()")
    assert (await other.access_token("alice")).generation == 2
    assert gateways.refreshes() == 1


async def test_a_kill_between_the_providers_commit_and_ours_ends_in_a_login_with_its_reason(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    with monkeypatch.context() as patch:
        # The answer is written to the journal and to the store side by side; neither comes to it.
        patch.setattr(PostgresTokens, "save", die)
        await crash(service, monkeypatch, Record, "keep")
    assert gateways.refreshes() == 1
    other = await gateways.open()
    await gateways.change("expires_at = now()")
    with pytest.raises(ReauthRequired):
        await other.access_token("alice")
    assert gateways.row()["status"] == "reauth_required"
    outcomes = gateways.database.query(f"SELECT outcome FROM {AUDIT} ORDER BY audit_id")
    assert [row["outcome"] for row in outcomes][-2:] == ["answer_lost", "reauth_required"]


@pytest.mark.parametrize("act", ["login", "logout"])
async def test_an_answer_is_revoked_where_a_persons_act_came_between(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    service = await gateways.open(host="one")
    await gateways.log_in(service)
    await crash(service, monkeypatch, PostgresTokens, "save")
    other = await gateways.open(host="two")
    if act == "login":
        await gateways.log_in(other)
    else:
        await other.logout("alice", actor=ACTOR)
    row = gateways.row()
    back = await gateways.open(host="one")
    loop = asyncio.create_task(back.run_background())
    await eventually(lambda: records(gateways, "one") == [])
    loop.cancel()
    assert gateways.row()["generation"] == row["generation"] == 2
    assert gateways.row()["status"] == row["status"]
    if act == "login":
        assert gateways.accepts((await back.access_token("alice")).value)


async def test_an_answer_saved_by_a_commit_whose_confirmation_was_lost_is_not_revoked(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    save = PostgresTokens.save

    async def lose_the_confirmation(store: PostgresTokens, *arguments: Any) -> Any:
        await save(store, *arguments)
        raise StorageUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(PostgresTokens, "save", lose_the_confirmation)
        with pytest.raises(StorageUnavailable, match="cannot be saved yet"):
            await service.refresh("alice", force=True, actor=ACTOR)
    await eventually(lambda: records(gateways) == [])
    assert gateways.row()["generation"] == 2
    assert gateways.accepts((await service.access_token("alice")).value)


async def test_a_logout_whose_confirmation_was_lost_revokes_all_the_same(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    token = await service.access_token("alice")
    log_out = PostgresTokens.log_out

    async def lose_the_confirmation(store: PostgresTokens, *arguments: Any) -> Any:
        await log_out(store, *arguments)
        raise StorageUnavailable("gone")

    monkeypatch.setattr(PostgresTokens, "log_out", lose_the_confirmation)
    outcome = await service.logout("alice", actor=ACTOR)
    assert (outcome.was_logged_in, outcome.revoked, outcome.generation) == (True, True, 2)
    assert not gateways.accepts(token.value)
    with pytest.raises(StorageUnavailable, match="did not confirm"):
        await service.logout("alice", actor=ACTOR)


async def test_a_process_that_lives_keeps_others_of_its_host_from_its_attempt(
    gateways: Gateways,
) -> None:
    first, second = await gateways.open(), await gateways.open()
    await gateways.log_in(first)
    gateways.sandbox.fault("token", "slow", seconds=0.5)
    slow = asyncio.create_task(first.refresh("alice", force=True, actor=ACTOR))
    await eventually(lambda: gateways.row()["attempt_id"] is not None)
    set_row(gateways, "lease_until = now()")
    loop = asyncio.create_task(second.run_background())
    assert (await second.replace_rejected("alice", 1)).generation == 2
    loop.cancel()
    await slow
    assert gateways.refreshes() == 1


async def test_without_a_journal_nothing_is_spent_and_the_old_token_serves(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    (gateways.journal() / "attempts").rmdir()
    with pytest.raises(StorageUnavailable, match="journal"):
        await service.refresh("alice", force=True, actor=ACTOR)
    assert gateways.refreshes() == 0
    assert gateways.row()["attempt_id"] is None
    assert (await service.access_token("alice")).generation == 1
    (gateways.journal() / "attempts").mkdir(mode=0o700)
    assert (await service.refresh("alice", force=True, actor=ACTOR)).generation == 2


async def test_an_outcome_that_neither_disk_nor_database_takes_is_kept_while_the_process_lives(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateways.limits = QUICK
    service = await gateways.open()
    await gateways.log_in(service)

    async def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Record, "keep", full)
    gateways.sandbox.fault("token", "slow", seconds=0.4, after=True)
    refresh = asyncio.create_task(service.refresh("alice", force=True, actor=ACTOR))
    await eventually(lambda: gateways.row()["attempt_id"] is not None)
    gateways.database.cut_off()
    with pytest.raises(StorageUnavailable, match="cannot be saved yet"):
        await refresh
    assert (await service.access_token("alice")).generation == 2
    gateways.database.let_in()
    await eventually(lambda: gateways.row()["generation"] == 2, seconds=10)
    await eventually(lambda: records(gateways) == [])


@pytest.mark.parametrize("blanked", [False, True], ids=["put back", "blanked"])
async def test_of_a_store_put_back_to_an_older_state_the_answer_stays_in_the_journal(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch, blanked: bool
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await service.refresh("alice", force=True, actor=ACTOR)
    await crash(service, monkeypatch, PostgresTokens, "save")
    gateways.tokens().parent.joinpath("users").rename(gateways.tokens().parent / "gone")
    if blanked:
        gateways.database.query(f"DELETE FROM {TOKENS}")
    else:
        set_row(gateways, f"generation = 1, attempt_id = '{uuid.uuid4()}', attempt_host = 'elsewhere'")
    other = await gateways.open()
    await asyncio.wait([asyncio.create_task(other.run_background())], timeout=0.5)
    assert blanked or gateways.row()["generation"] == 1
    assert len(records(gateways)) == 1


async def test_a_record_that_a_crash_left_torn_counts_as_no_answer(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process may have died before it asked, or after: nothing can be read of it."""
    service = await gateways.open()
    await gateways.log_in(service)
    await crash(service, monkeypatch, Provider, "refresh")
    (record,) = records(gateways)
    record.write_bytes(b"\0" * 1000)
    other = await gateways.open()
    with pytest.raises(CoolingDown, match="may be spent"):
        await other.refresh("alice", force=True, actor=ACTOR)
    assert gateways.row()["attempt_id"] is None
    assert [path.suffix for path in records(gateways)] == [".unreadable"]
    await gateways.change("expires_at = now() - interval '1 s', next_attempt_at = NULL")
    assert (await other.access_token("alice")).generation == 2


@pytest.mark.parametrize("damage", ["mode", "directory", "other fields"])
async def test_a_record_that_cannot_be_read_concerns_its_user_alone(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await gateways.log_in(service, "bob")
    await crash(service, monkeypatch, PostgresTokens, "save")
    (record,) = records(gateways)
    if damage == "mode":
        record.chmod(0o644)
    elif damage == "directory":
        record.unlink()
        record.mkdir()
    else:
        text = b'{"of":"a later version"}'
        record.write_bytes(hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n")
    other = await gateways.open()
    assert (await other.refresh("bob", force=True, actor=ACTOR)).generation == 2
    loop = asyncio.create_task(other.run_background())
    await eventually(lambda: gateways.row()["attempt_id"] is None)
    loop.cancel()
    assert gateways.row()["last_error"].startswith("answer_lost")


async def test_what_was_judged_before_others_were_told_to_wait_is_not_claimed(gateways: Gateways) -> None:
    """A pass reads its users by the page; meanwhile somebody else's attempt for one of them ends in doubt."""
    service, row = await read_before(gateways)
    set_row(gateways, "last_error = 'answer_lost: why', next_attempt_at = now() + interval '1 hour'")
    with pytest.raises(CoolingDown, match="answer_lost"):
        await service._refresher.spend_due(row, 86_400, ACTOR)
    assert gateways.refreshes() == 0


async def test_a_record_that_came_after_the_row_was_read_is_settled_and_not_forgotten(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, row = await read_before(gateways)
    other = await gateways.open()
    await crash(other, monkeypatch, Provider, "refresh")
    with pytest.raises(CoolingDown, match="may be spent"):
        await service._refresher.spend_due(row, 86_400, ACTOR)
    assert gateways.refreshes() == 0


async def test_an_answer_of_an_older_login_is_not_replayed_over_a_newer_one(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generations come twice where a database was put back to an older state and its files are gone."""
    service = await gateways.open()
    await gateways.log_in(service)
    # To be spent from the second generation on, it was refreshed once.
    await service.refresh("alice", force=True, actor=ACTOR)
    await crash(service, monkeypatch, PostgresTokens, "save")
    set_row(gateways, "generation = 1, attempt_id = NULL, lease_until = NULL")
    shutil.rmtree(gateways.tokens().parent / "users")
    shutil.rmtree(gateways.journal() / "generations")
    other = await gateways.open()
    await gateways.log_in(other)
    assert gateways.row()["generation"] == 2
    stored = gateways.row()["refresh_token_encrypted"]
    await other._refresher.replay()
    assert gateways.row()["refresh_token_encrypted"] == stored
    assert records(gateways) == []


async def test_an_answer_that_lost_to_a_refresh_of_the_same_login_is_not_revoked(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To revoke a refresh token ends its whole grant, and with it what the other refresh has brought."""
    service = await gateways.open()
    await gateways.log_in(service)
    save = PostgresTokens.save

    async def outrun(store: PostgresTokens, *arguments: Any) -> Any:
        set_row(gateways, "generation = generation + 1, attempt_id = NULL, lease_until = NULL")
        return await save(store, *arguments)

    monkeypatch.setattr(PostgresTokens, "save", outrun)
    await service.refresh("alice", min_validity=86_400, actor=ACTOR)
    assert not any(login["revoked_because"] for login in gateways.sandbox.logins())


async def test_after_a_disk_that_stalled_the_lease_is_asked_for_again(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another host may have taken the token over by then."""
    service = await gateways.open()
    await gateways.log_in(service)
    monkeypatch.setattr(refresh, "LEASE", 0.3)
    begin = Journal.begin
    owners: list[str] = []

    async def stall(journal: Journal, claim: Claim) -> Record:
        record = await begin(journal, claim)
        if not owners:
            await asyncio.sleep(0.5)
            owners.append("another host")
            set_row(gateways, f"attempt_id = '{uuid.uuid4()}', lease_until = now() + interval '1 second'")
        return record

    monkeypatch.setattr(Journal, "begin", stall)
    set_row(gateways, "attempt_host = 'another'")
    refreshed = asyncio.create_task(service.refresh("alice", force=True, actor=ACTOR))
    await eventually(lambda: owners)
    await asyncio.sleep(0.3)
    assert gateways.refreshes() == 0
    set_row(gateways, "attempt_id = NULL, lease_until = NULL")
    assert (await refreshed).generation == 2
    assert gateways.refreshes() == 1
