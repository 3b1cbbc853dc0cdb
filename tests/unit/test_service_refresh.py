"""Refresh: one at a time everywhere, never an answer lost, never a token blamed for the provider's faults."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import uuid
from contextlib import nullcontext
from typing import Any

import pytest

from litellm_oauth.errors import (
    AlreadyLoggedIn,
    CoolingDown,
    InvalidInput,
    LitellmOAuthError,
    NotLoggedIn,
    OtherClient,
    ProviderRefused,
    ProviderUnavailable,
    ReauthRequired,
    Unreadable,
)
from litellm_oauth.service import TokenService
from litellm_oauth.stores import TokenRow
from litellm_oauth.tokens import Status
from support.postgres import AUDIT, TOKENS
from support.sandbox import fingerprint
from support.service import ACTOR, Gateways, eventually


async def test_many_requests_in_two_processes_on_an_expired_token_make_one_call(
    gateways: Gateways,
) -> None:
    await gateways.log_in(await gateways.open())
    await gateways.expire()
    # Cold ones: a token that memory takes for valid is served on where the database is slow to tell.
    first, second = await gateways.open(), await gateways.open()
    tokens = await asyncio.gather(
        *(service.access_token("alice") for service in (first, second) for _ in range(200))
    )
    assert {token.generation for token in tokens} == {2}
    assert len({token.value for token in tokens}) == 1
    assert gateways.accepts(tokens[0].value)
    assert gateways.refreshes() == 1


async def test_a_due_token_is_served_at_once_and_refreshed_behind_the_request(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await gateways.expire(seconds_left=200)
    gateways.sandbox.fault("token", "slow", seconds=0.2)
    old = await asyncio.wait_for(service.access_token("alice"), 0.15)
    assert old.generation == 1
    await eventually(lambda: gateways.row()["generation"] == 2)
    assert gateways.refreshes() == 1
    # The notification and the next look-up need a moment each.
    for _ in range(100):
        if (await service.access_token("alice")).generation == 2:
            break
        await asyncio.sleep(0.02)
    assert (await service.access_token("alice")).generation == 2


async def test_many_requests_for_a_due_token_start_one_refresh(gateways: Gateways) -> None:
    first, second = await gateways.open(), await gateways.open()
    await gateways.log_in(first)
    await gateways.expire(seconds_left=200)
    for _ in range(20):
        await asyncio.gather(first.access_token("alice"), second.access_token("alice"))
        await asyncio.sleep(0.01)
    await eventually(gateways.refreshes)
    assert gateways.refreshes() == 1


async def test_a_caller_who_goes_away_does_not_take_the_answer_along(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await gateways.expire()
    gateways.sandbox.fault("token", "slow", seconds=0.3, after=True)
    request = asyncio.create_task(service.access_token("alice"))
    await asyncio.sleep(0.1)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await eventually(lambda: gateways.row()["generation"] == 2)
    assert gateways.accepts((await service.access_token("alice")).value)


async def test_a_login_during_a_refresh_wins_and_the_refreshed_token_is_revoked(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    # long enough for a whole login on a busy machine, and shorter than the tests' token_timeout
    gateways.sandbox.fault("token", "slow", seconds=1.5, after=True, grant_type="refresh_token")
    refresh = asyncio.create_task(service.refresh("alice", force=True, actor=ACTOR))
    await eventually(lambda: gateways.row()["attempt_id"] is not None)
    await gateways.log_in(service)
    outcome = await refresh
    row = gateways.row()
    assert (outcome.generation, row["generation"], row["attempt_id"]) == (2, 2, None)
    token = await service.access_token("alice")
    assert gateways.accepts(token.value)
    # The refresh belonged to the first login, which nobody can use any more; the second one lives.
    assert [bool(login["revoked_because"]) for login in gateways.sandbox.logins()] == [True, False]


async def test_a_logout_during_a_refresh_wins_and_nothing_is_resurrected(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    gateways.sandbox.fault("token", "slow", seconds=0.4, after=True)
    refresh = asyncio.create_task(service.refresh("alice", force=True, actor=ACTOR))
    await eventually(lambda: gateways.row()["attempt_id"] is not None)
    await service.logout("alice", actor=ACTOR)
    with pytest.raises(NotLoggedIn):
        await refresh
    row = gateways.row()
    assert (row["status"], row["generation"]) == ("logged_out", 2)
    assert row["access_token_encrypted"] is row["refresh_token_encrypted"] is None
    with pytest.raises(NotLoggedIn):
        await service.access_token("alice")


async def test_a_rename_during_a_refresh_takes_what_it_brought_along(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    gateways.sandbox.fault("token", "slow", seconds=0.4, after=True)
    refresh = asyncio.create_task(service.refresh("alice", force=True, actor=ACTOR))
    await eventually(lambda: gateways.row()["attempt_id"] is not None)
    renamed = await service.rename("alice", "alicia", actor=ACTOR)
    await refresh
    assert (renamed.user_id, renamed.generation, renamed.refresh_count) == ("alicia", 3, 1)
    assert (gateways.row("alice")["status"], gateways.row("alice")["generation"]) == ("logged_out", 3)
    assert gateways.accepts((await service.access_token("alicia")).value)
    assert (await service.refresh("alicia", force=True, actor=ACTOR)).generation == 4
    with pytest.raises(NotLoggedIn):
        await service.access_token("alice")


async def test_a_rename_needs_a_login_and_a_name_that_is_free(gateways: Gateways) -> None:
    service = await gateways.open()
    for user in ("alice", "bob"):
        await gateways.log_in(service, user)
    before = [gateways.row(user) for user in ("alice", "bob")]
    with pytest.raises(AlreadyLoggedIn, match="bob has a login already"):
        await service.rename("alice", "bob", actor=ACTOR)
    with pytest.raises(NotLoggedIn):
        await service.rename("carol", "dave", actor=ACTOR)
    with pytest.raises(InvalidInput):
        await service.rename("alice", "alice", actor=ACTOR)
    assert [gateways.row(user) for user in ("alice", "bob")] == before
    await service.logout("bob", actor=ACTOR)
    assert (await service.rename("alice", "bob", actor=ACTOR)).generation == 3


async def test_after_a_429_nobody_asks_before_its_time_from_any_process(gateways: Gateways) -> None:
    first, second = await gateways.open(), await gateways.open(host="two")
    for user in ("alice", "bob"):
        await gateways.log_in(first, user)
    gateways.sandbox.fault("token", "status", status=429, retry_after=2)
    with pytest.raises(ProviderUnavailable, match="429"):
        await first.refresh("alice", force=True, actor=ACTOR)
    gateways.sandbox.clear_faults()
    calls = gateways.refreshes()
    for service in (first, second):
        with pytest.raises(CoolingDown, match="by everybody") as caught:
            await service.refresh("bob", force=True, actor=ACTOR)
        assert 0 < caught.value.retry_after <= 40
        assert (await service.access_token("bob")).generation == 1
    await gateways.expire("bob", 10)
    assert (await second.status("bob")).status is Status.COOLING_DOWN
    assert (await second.refresh_due(actor=ACTOR)).attempted == 0
    assert gateways.refreshes() == calls
    gateways.database.query("UPDATE claude_oauth.provider_rests SET rests_until = now()")
    assert (await second.refresh("bob", force=True, actor=ACTOR)).generation == 2
    rests = gateways.database.one("SELECT failures, rests_until FROM claude_oauth.provider_rests")
    assert (rests["failures"], rests["rests_until"]) == (0, None)


async def test_a_provider_that_keeps_failing_is_left_in_peace_by_everybody(gateways: Gateways) -> None:
    service = await gateways.open()
    users = ("alice", "bob", "carol", "dave")
    for user in users:
        await gateways.log_in(service, user)
    gateways.sandbox.fault("token", "status", status=404, times=None)
    for user in users[:3]:
        with pytest.raises(ProviderUnavailable):
            await service.refresh(user, force=True, actor=ACTOR)
    with pytest.raises(CoolingDown, match="by everybody"):
        await service.refresh("dave", force=True, actor=ACTOR)
    assert {gateways.row(user)["status"] for user in users} == {"active"}


async def test_no_more_forced_refreshes_a_day_than_the_settings_allow(gateways: Gateways) -> None:
    first = await gateways.open(forced_refreshes_per_day=2)
    await gateways.log_in(first)
    for generation in (2, 3):
        assert (await first.refresh("alice", force=True, actor=ACTOR)).generation == generation
    second = await gateways.open(forced_refreshes_per_day=2)
    with pytest.raises(CoolingDown, match="by force 2 times today"):
        await second.refresh("alice", force=True, actor=ACTOR)
    await gateways.expire()
    assert (await second.access_token("alice")).generation == 4
    await gateways.change("forced_on = forced_on - 1, next_attempt_at = NULL")
    assert (await second.refresh("alice", force=True, actor=ACTOR)).generation == 5


async def test_invalid_grant_ends_the_login_but_a_valid_access_token_is_served_on(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    gateways.sandbox.expire("alice", refresh_tokens=True)
    with pytest.raises(ReauthRequired, match="oauth_login"):
        await service.refresh("alice", force=True, actor=ACTOR)
    status = await service.status("alice")
    assert (status.status, status.generation) == (Status.REAUTH_REQUIRED, 1)
    assert (await service.access_token("alice")).generation == 1
    calls = gateways.refreshes()
    await gateways.expire()
    with pytest.raises(ReauthRequired):
        await service.access_token("alice")
    assert gateways.refreshes() == calls


async def test_invalid_grant_never_condemns_another_token_than_the_one_spent(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    gateways.sandbox.fault("token", "slow", seconds=0.3, grant_type="refresh_token")
    gateways.sandbox.expire("alice", refresh_tokens=True)
    refresh = asyncio.create_task(service.refresh("alice", force=True, actor=ACTOR))
    await eventually(lambda: gateways.row()["attempt_id"] is not None)
    gateways.database.query(f"UPDATE {TOKENS} SET refresh_token_encrypted = refresh_token_encrypted || 'x'")
    await asyncio.gather(refresh, return_exceptions=True)
    assert gateways.row()["status"] == "active"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"kind": "status", "status": 429, "retry_after": 60}, "rate_limited"),
        ({"kind": "status", "status": 500}, "server_error"),
        ({"kind": "status", "status": 404}, "wrong_host"),
        ({"kind": "garbage"}, "garbage"),
        ({"kind": "garbage", "after": True}, "garbage"),
        ({"kind": "cut"}, "answer_lost"),
        ({"kind": "lost_answer"}, "answer_lost"),
        ({"kind": "silence", "seconds": 30}, "timeout"),
    ],
)
async def test_a_fault_of_the_provider_cools_down_everywhere_while_the_old_token_serves(
    gateways: Gateways, fault: dict[str, Any], reason: str
) -> None:
    first, second = await gateways.open(provider={"token_timeout": 1}), await gateways.open()
    await gateways.log_in(first)
    gateways.sandbox.fault("token", times=1, **fault)
    with pytest.raises(ProviderUnavailable) as caught:
        await first.refresh("alice", min_validity=10**6, actor=ACTOR)
    assert caught.value.reason == reason
    status = await second.status("alice")
    assert (status.status, status.generation, status.has_refresh_token) == (Status.COOLING_DOWN, 1, True)
    assert status.last_error is not None
    assert status.last_error.startswith(f"{reason}: ")
    assert status.next_attempt_at is not None
    for service in (first, second):
        with pytest.raises(CoolingDown) as cooling:
            await service.refresh("alice", min_validity=10**6, actor=ACTOR)
        assert 0 < cooling.value.retry_after < 28800
        assert (await service.access_token("alice")).generation == 1
    counts = await first.refresh_due(actor=ACTOR)
    assert counts.attempted == 0


async def test_a_rotation_whose_answer_was_lost_is_not_tried_before_the_access_token_is_used_up(
    gateways: Gateways,
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    gateways.sandbox.fault("token", "lost_answer")
    with pytest.raises(ProviderUnavailable):
        await service.refresh("alice", force=True, actor=ACTOR)
    row = gateways.row()
    assert row["next_attempt_at"] >= row["expires_at"]
    with pytest.raises(CoolingDown):
        await service.refresh("alice", force=True, actor=ACTOR)
    await gateways.change("expires_at = now(), next_attempt_at = now()")
    with pytest.raises(ReauthRequired):
        await service.access_token("alice")


async def test_a_cooldown_is_passed_by_force_and_ended_by_success(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    gateways.sandbox.fault("token", "status", status=404)
    with pytest.raises(ProviderUnavailable, match="token_url"):
        await service.refresh("alice", force=True, actor=ACTOR)
    outcome = await service.refresh("alice", force=True, actor=ACTOR)
    assert outcome.result == "refreshed"
    assert (await service.status("alice")).last_error is None


async def test_a_refused_client_costs_no_login(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    # Written by others, so that only the provider can tell.
    await gateways.change("client_id = NULL")
    stranger = await gateways.open(provider={"client_id": "somebody-else"})
    with pytest.raises((ProviderRefused, LitellmOAuthError)) as caught:
        await stranger.refresh("alice", force=True, actor=ACTOR)
    assert not isinstance(caught.value, ReauthRequired)
    assert gateways.row()["status"] == "active"


async def test_refresh_takes_up_who_has_too_little_time_left_only(
    gateways: Gateways,
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    fresh = await service.refresh("alice", actor=ACTOR)
    assert (fresh.result, fresh.generation_before, fresh.generation) == ("fresh", 1, 1)
    refreshed = await service.refresh("alice", min_validity=10**6, actor=ACTOR)
    assert (refreshed.result, refreshed.generation_before, refreshed.generation) == ("refreshed", 1, 2)
    assert 28_700 < refreshed.expires_in <= 28_800
    forced = await service.refresh("alice", force=True, actor=ACTOR)
    assert (forced.result, forced.generation) == ("refreshed", 3)
    assert gateways.row()["refresh_count"] == 2


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e12])
async def test_an_odd_min_validity_is_refused(gateways: Gateways, seconds: float) -> None:
    service = await gateways.open()
    with pytest.raises(InvalidInput):
        await service.refresh("alice", min_validity=seconds, actor=ACTOR)


async def test_an_answer_without_a_refresh_token_keeps_the_old_one(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    gateways.sandbox.settings(rotate=False, send_refresh_token=False)
    before = gateways.row()["refresh_token_encrypted"]
    await service.refresh("alice", force=True, actor=ACTOR)
    assert gateways.row()["refresh_token_encrypted"] == before
    assert (await service.refresh("alice", force=True, actor=ACTOR)).generation == 3


async def test_tokens_that_live_for_a_second_cause_no_storm(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    gateways.sandbox.settings(access_token_seconds=1)
    await service.refresh("alice", force=True, actor=ACTOR)
    for _ in range(3):
        assert (await service.refresh_due(actor=ACTOR)).attempted == 0
    await asyncio.sleep(1.05)
    await asyncio.gather(*(service.access_token("alice") for _ in range(50)))
    assert gateways.refreshes() == 2


async def _in_doubt(gateways: Gateways, expires_in: float) -> None:
    await gateways.change(
        "attempt_id = %(id)s, attempt_host = 'gone', lease_owner = %(id)s, "
        "lease_until = now() - interval '1 second', expires_at = now() + make_interval(secs => %(left)s)",
        values={"id": uuid.uuid4(), "left": expires_in},
    )


async def test_a_token_in_doubt_serves_and_is_not_spent_while_it_is_valid(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await _in_doubt(gateways, 100)
    assert (await service.status("alice")).status is Status.IN_DOUBT
    assert (await service.access_token("alice")).generation == 1
    with pytest.raises(CoolingDown, match="gone"):
        await service.refresh("alice", force=True, actor=ACTOR)
    assert (await service.refresh_due(actor=ACTOR)).attempted == 0
    assert gateways.refreshes() == 0


async def test_a_forced_refresh_does_not_wait_for_a_flight_that_has_just_failed(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    # The flight has ended, and the callbacks that forget it have not run yet.
    failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    failed.set_exception(CoolingDown("A less urgent refresh gave way.", retry_after=60))
    service._refresher._flights["alice"] = (failed, 0)  # type: ignore[assignment]  # a future is enough here
    outcome = await service.refresh("alice", force=True, actor=ACTOR)
    assert (outcome.result, gateways.refreshes()) == ("refreshed", 1)


async def test_a_token_in_doubt_is_tried_once_it_has_expired_and_audited(
    gateways: Gateways,
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await _in_doubt(gateways, -1)
    assert (await service.access_token("alice")).generation == 2
    assert gateways.refreshes() == 1
    noted = gateways.database.query(
        f"SELECT outcome, detail FROM {AUDIT} WHERE action = 'refresh' ORDER BY audit_id"
    )
    assert noted == [
        {"outcome": "in_doubt_retry", "detail": "gone"},
        {"outcome": "refreshed", "detail": None},
    ]


async def test_after_an_outage_others_get_time_to_save_before_doubt_is_tried(
    gateways: Gateways,
) -> None:
    service = await gateways.open(settling=1.0)
    await gateways.log_in(service)
    await _in_doubt(gateways, -1)
    waiting = asyncio.create_task(service.access_token("alice"))
    await asyncio.sleep(0.4)
    assert gateways.refreshes() == 0
    assert (await waiting).generation == 2


async def test_a_process_waits_for_anothers_refresh_and_takes_its_result(gateways: Gateways) -> None:
    first, second = await gateways.open(), await gateways.open()
    await gateways.log_in(first)
    await gateways.expire()
    gateways.sandbox.fault("token", "slow", seconds=0.5)
    running = asyncio.create_task(first.access_token("alice"))
    await eventually(lambda: gateways.row()["attempt_id"] is not None)
    started = asyncio.get_running_loop().time()
    assert (await second.access_token("alice")).generation == 2
    assert asyncio.get_running_loop().time() - started < 1.0, "waiters are woken, they do not poll"
    assert (await running).generation == 2
    assert gateways.refreshes() == 1


async def test_a_rejected_token_is_replaced_by_a_newer_stored_one_without_a_call(
    gateways: Gateways,
) -> None:
    first, second = await gateways.open(), await gateways.open()
    await gateways.log_in(first)
    await second.access_token("alice")
    await first.refresh("alice", force=True, actor=ACTOR)
    assert (await second.replace_rejected("alice", 1)).generation == 2
    assert gateways.refreshes() == 1


async def test_many_rejections_of_one_generation_cause_one_refresh(gateways: Gateways) -> None:
    first, second = await gateways.open(), await gateways.open()
    await gateways.log_in(first)
    tokens = await asyncio.gather(
        *(service.replace_rejected("alice", 1) for service in (first, second) for _ in range(50))
    )
    assert {token.generation for token in tokens} == {2}
    assert gateways.refreshes() == 1


async def test_a_token_rejected_right_after_its_refresh_cools_the_user_down(
    gateways: Gateways,
) -> None:
    first, second = await gateways.open(), await gateways.open()
    await gateways.log_in(first)
    await first.replace_rejected("alice", 1)
    for service in (first, second):
        with pytest.raises(CoolingDown):
            await service.replace_rejected("alice", 2)
    assert gateways.refreshes() == 1
    status = await second.status("alice")
    assert status.status is Status.COOLING_DOWN
    assert (await second.access_token("alice")).generation == 2


async def test_one_pass_refreshes_each_due_user_once_though_two_processes_run_it(gateways: Gateways) -> None:
    first, second = await gateways.open(), await gateways.open()
    users = [f"user-{n}" for n in range(12)]
    for user in users:
        await gateways.log_in(first, user)
    for user in users[:-1]:
        await gateways.expire(user, 100)
    counts = await asyncio.gather(first.refresh_due(actor=ACTOR), second.refresh_due(actor=ACTOR))
    assert sum(count.refreshed for count in counts) == len(users) - 1
    assert gateways.refreshes() == len(users) - 1
    assert [gateways.row(user)["generation"] for user in users] == [2] * 11 + [1]


async def test_a_pass_ends_when_the_provider_keeps_failing(gateways: Gateways) -> None:
    service = await gateways.open()
    users = [f"user-{n}" for n in range(20)]
    gateways.plant(users, expires_in=-1)
    gateways.sandbox.fault("token", "status", status=503, times=None)
    counts = await service.refresh_due(actor=ACTOR)
    assert counts.stopped_early
    assert counts.refreshed == 0
    assert gateways.sandbox.control("GET", "faults")["struck"]["token:status"] < len(users)


async def test_a_row_that_somebody_holds_keeps_nobody_else_from_being_refreshed(gateways: Gateways) -> None:
    service = await gateways.open()
    for user in ("alice", "bob"):
        await gateways.log_in(service, user)
        await service.access_token(user)
    await gateways.expire("bob", seconds_left=100)
    with gateways.database.transaction() as other:
        other.execute(f"SELECT FROM {TOKENS} WHERE user_id = 'alice' FOR UPDATE")
        loop = asyncio.create_task(service.run_background())
        await eventually(lambda: gateways.row("bob")["generation"] == 2, seconds=2)
        await eventually(lambda: gateways.row("bob")["last_used"] is not None, seconds=2)
        loop.cancel()


async def test_those_who_wait_for_a_slow_provider_take_what_it_gave_the_first(gateways: Gateways) -> None:
    """Also where its tokens live for a shorter time than it takes to answer."""
    service = await gateways.open()
    await gateways.log_in(service)
    gateways.sandbox.settings(access_token_seconds=1)
    gateways.sandbox.fault("token", "slow", seconds=1.2, times=9)
    await gateways.expire()
    await asyncio.gather(*(service.access_token("alice") for _ in range(10)))
    assert gateways.refreshes() == 1


async def test_without_auto_refresh_only_who_asks_gets_a_refresh(gateways: Gateways) -> None:
    service = await gateways.open(auto_refresh=False)
    await gateways.log_in(service)
    await gateways.expire(seconds_left=100)
    assert (await service.access_token("alice")).generation == 1
    await gateways.expire()
    with pytest.raises(ReauthRequired, match="auto_refresh"):
        await service.access_token("alice")
    assert gateways.refreshes() == 0
    assert (await service.refresh("alice", actor=ACTOR)).result == "refreshed"


async def test_a_row_that_does_not_decrypt_is_unreadable_for_that_user_only(gateways: Gateways) -> None:
    service = await gateways.open()
    for user in ("alice", "bob"):
        await gateways.log_in(service, user)
    # Bob's values in Alice's row: she must not get his token.
    gateways.database.query(
        f"UPDATE {TOKENS} a SET access_token_encrypted = b.access_token_encrypted, "
        f"refresh_token_encrypted = b.refresh_token_encrypted FROM {TOKENS} b "
        "WHERE a.user_id = 'alice' AND b.user_id = 'bob'"
    )
    await gateways.expire("alice")
    other = await gateways.open()
    with pytest.raises(Unreadable):
        await other.access_token("alice")
    assert (await other.status("alice")).status is Status.UNREADABLE
    assert (await other.refresh_due(actor=ACTOR)).unreadable == 1
    assert (await other.refresh_due(actor=ACTOR)).attempted == 0
    assert (await other.access_token("bob")).generation == 1
    assert gateways.refreshes() == 0


async def test_a_change_by_another_process_is_noticed(gateways: Gateways) -> None:
    first, second = await gateways.open(), await gateways.open()
    await gateways.log_in(first)
    assert (await second.access_token("alice")).generation == 1
    await first.refresh("alice", force=True, actor=ACTOR)
    await _until_generation(second, 2)
    await first.logout("alice", actor=ACTOR)
    with pytest.raises(NotLoggedIn):
        await _until_generation(second, 99)


async def _until_generation(service: TokenService, generation: int) -> None:
    for _ in range(100):
        if (await service.access_token("alice")).generation == generation:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the other process did not notice")


async def test_the_provider_saw_the_very_tokens_that_were_handed_out(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    token = await service.access_token("alice")
    assert gateways.accepts(token.value)
    assert gateways.sandbox.requests()[-1]["token_sha256"] == fingerprint(token.value)


async def test_a_task_that_ends_while_the_service_closes_is_no_fault(gateways: Gateways) -> None:
    async def nothing() -> None: ...

    service = await gateways.open()
    service._task(nothing())
    # It is over; that it is to be forgotten has not been heard of.
    await asyncio.sleep(0)
    await service.close()


@pytest.mark.parametrize("use_database", [True, False])
async def test_a_wrong_client_id_ends_nobodys_login(gateways: Gateways, use_database: bool) -> None:
    service = await gateways.open(use_database=use_database)
    for user in ("alice", "bob"):
        await gateways.log_in(service, user)
    wrong = await gateways.open(use_database=use_database, provider={"client_id": "somebody-elses-client"})
    assert (await wrong.access_token("alice")).generation == 1
    with pytest.raises(OtherClient, match="Put that client back, or log in again"):
        await wrong.refresh("alice", force=True, actor=ACTOR)
    counts = await wrong._background._bulk.due(1e6, ACTOR)
    assert (counts.attempted, counts.reauth_required) == (0, 0)
    assert await wrong._tokens.next_due_in(1e6) is None
    assert gateways.refreshes() == 0
    status = await wrong.status("alice")
    assert (status.status, status.has_refresh_token, status.last_error) == (Status.ACTIVE, False, None)
    again = await gateways.open(use_database=use_database)
    assert (await again.refresh("alice", force=True, actor=ACTOR)).generation == 2
    assert (await again._background._bulk.due(1e6, ACTOR)).refreshed == 1


async def test_a_login_of_unknown_origin_belongs_to_the_client_that_refreshes_it(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await gateways.change("client_id = NULL")
    await service.refresh("alice", force=True, actor=ACTOR)
    assert gateways.row()["client_id"] == gateways.settings().provider.client_id
    await service.logout("alice", actor=ACTOR)
    assert gateways.row()["client_id"] is None


async def test_who_was_overtaken_between_the_look_and_the_lock_takes_what_came(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quicker one's record still lies in the journal, so that the slower one reads the row again."""
    quick, slow = await gateways.open(), await gateways.open()
    await gateways.log_in(quick)
    monkeypatch.setattr(quick._refresher._attempts, "_settled", lambda *_: asyncio.sleep(0))
    # As if it had let go of the lock a moment ago.
    monkeypatch.setattr(quick._refresher._attempts, "hold", lambda _: nullcontext())
    settle = slow._refresher._attempts.settle

    async def overtaken(row: TokenRow) -> TokenRow | None:
        if gateways.refreshes() == 0:
            await quick.refresh(row.user_id, force=True, actor=ACTOR)
        return await settle(row)

    monkeypatch.setattr(slow._refresher._attempts, "settle", overtaken)
    assert (await slow.replace_rejected("alice", 1)).generation == 2
    assert gateways.refreshes() == 1
    assert gateways.row()["last_error"] is None
