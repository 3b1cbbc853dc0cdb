"""When a refresh token may be spent, how long the provider is left in peace, how a row reads to people."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from litellm_oauth.backoff import (
    LONGEST_REST,
    LONGEST_WAIT,
    RATE_LIMITED,
    cooling_for,
    describe,
    failure_of,
    rest_after,
    rest_for_all,
    resting_for,
)
from litellm_oauth.backoff import REJECTED as REJECTED_BY_API
from litellm_oauth.errors import (
    CoolingDown,
    InvalidInput,
    OtherClient,
    ProviderRefused,
    ProviderUnavailable,
    ReauthRequired,
    TokenRefused,
)
from litellm_oauth.gateway.views import moment
from litellm_oauth.grant import MAX_RETRY_AFTER
from litellm_oauth.judgement import Need, RejectedTooSoon, Rules
from litellm_oauth.judgement import judge as judge_by_rules
from litellm_oauth.results import Actor
from litellm_oauth.settings import DAY
from litellm_oauth.status import LoginAge, user_status
from litellm_oauth.stores import ProviderState, RowStatus, TokenRow
from litellm_oauth.stores.memory import RECHECK, TokenMemory
from litellm_oauth.tokens import (
    LAST_MOMENT,
    AccessToken,
    Freshness,
    Status,
    UserStatus,
    check_user_id,
    freshness,
    moment_of,
)
from support.rows import NOW, ROW

ACTOR = Actor("test", "here")
CLIENT = "the-configured-client"
EXPIRING = Need("expiring", 3, 300.0, ACTOR)
PATIENT = Need("expiring", 3, 300.0, ACTOR, patient=True)
FORCED = Need("forced", 3, None, ACTOR)
REJECTED = Need("rejected", 3, None, ACTOR)


def judge(row: TokenRow, need: Need, now: float) -> None:
    judge_by_rules(row, need, now, Rules(CLIENT, 3))


def read(row: TokenRow | None, *, readable: bool = True) -> UserStatus:
    age = LoginAge(27 * DAY, 3 * DAY)
    return user_status(
        "alice",
        row,
        now=NOW,
        refresh_buffer=300,
        age=age,
        client_id=CLIENT,
        readable=readable,
        source="database",
    )


def failed(reason: str, **changes: Any) -> TokenRow:
    return replace(ROW, last_error=describe(reason, "because"), next_attempt_at=NOW + 60, **changes)


@pytest.mark.parametrize("need", [EXPIRING, PATIENT, FORCED, REJECTED])
def test_an_idle_row_may_be_spent(need: Need) -> None:
    judge(ROW, need, NOW)
    judge(replace(ROW, client_id=CLIENT), need, NOW)


@pytest.mark.parametrize("need", [EXPIRING, PATIENT, FORCED, REJECTED])
def test_a_token_of_another_client_is_not_spent(need: Need) -> None:
    with pytest.raises(OtherClient, match="made with the client another"):
        judge(replace(ROW, client_id="another"), need, NOW)


def test_the_status_says_that_a_token_is_another_clients() -> None:
    status = read(replace(ROW, client_id="another"))
    assert (status.status, status.authenticated, status.has_refresh_token) == (Status.ACTIVE, True, False)
    assert status.warning is not None
    assert "Put that client back" in status.warning
    assert not read(replace(ROW, client_id="another", expires_at=NOW - 1)).authenticated


@pytest.mark.parametrize("need", [EXPIRING, FORCED, REJECTED])
def test_a_dead_login_is_never_spent(need: Need) -> None:
    with pytest.raises(ReauthRequired):
        judge(replace(ROW, status=RowStatus.REAUTH_REQUIRED), need, NOW)
    with pytest.raises(ReauthRequired):
        judge(replace(ROW, refresh_token=None), need, NOW)


def test_a_rest_after_a_refused_token_ends_with_that_token() -> None:
    refused = failed(REJECTED_BY_API)
    with pytest.raises(CoolingDown):
        judge(refused, EXPIRING, NOW)
    judge(replace(refused, expires_at=NOW), EXPIRING, NOW)


def test_a_token_that_was_refused_though_fresh_is_not_replaced_for_an_hour_but_by_force() -> None:
    """However often the API refuses: each hour of its refusals costs a user one refresh."""
    refused = replace(ROW, last_error=describe(REJECTED_BY_API, "because"), next_attempt_at=NOW + 300)
    long_lived = replace(refused, expires_at=NOW + 9 * 3600)
    for later in (0, 300, 3599):
        with pytest.raises(TokenRefused, match="only by force"):
            judge(long_lived, REJECTED, NOW + later)
    judge(long_lived, REJECTED, NOW + 3600)
    judge(refused, FORCED, NOW + 301)
    judge(refused, EXPIRING, NOW + 301)
    judge(replace(refused, expires_at=NOW + 400), REJECTED, NOW + 400)
    # A wrong clock wrote this.
    judge(replace(long_lived, next_attempt_at=NOW + 30 * DAY), REJECTED, NOW)


@pytest.mark.parametrize("need", [EXPIRING, FORCED, REJECTED])
def test_a_token_in_doubt_is_left_alone_until_the_access_token_has_expired(need: Need) -> None:
    doubted = replace(ROW, in_doubt=True, attempt_host="other")
    with pytest.raises(CoolingDown, match="other") as caught:
        judge(doubted, need, NOW)
    assert caught.value.retry_after == 3600
    judge(replace(doubted, expires_at=NOW), need, NOW)


@pytest.mark.parametrize("need", [EXPIRING, REJECTED])
def test_a_cooldown_holds_back_everybody_but_who_forces(need: Need) -> None:
    with pytest.raises(CoolingDown) as caught:
        judge(failed("server_error"), need, NOW)
    assert caught.value.retry_after == 60
    judge(failed("server_error"), need, NOW + 60)


def test_force_passes_a_cooldown_but_no_rate_limit_and_no_token_that_may_be_spent() -> None:
    judge(failed("wrong_host"), FORCED, NOW)
    for reason in ("rate_limited", "timeout", "answer_lost", "garbage"):
        with pytest.raises(CoolingDown):
            judge(failed(reason), FORCED, NOW)
    judge(failed("timeout", expires_at=NOW), FORCED, NOW)


def test_the_rest_after_a_refresh_holds_back_the_background_and_rejected_tokens_only() -> None:
    resting = replace(ROW, next_attempt_at=NOW + 30)
    judge(resting, EXPIRING, NOW)
    judge(resting, FORCED, NOW)
    with pytest.raises(CoolingDown):
        judge(resting, PATIENT, NOW)
    with pytest.raises(RejectedTooSoon):
        judge(resting, REJECTED, NOW)


def test_a_need_is_satisfied_by_a_newer_token_or_by_enough_time_left() -> None:
    assert EXPIRING.satisfied_by(AccessToken("x", 3, NOW + 301), NOW)
    assert not EXPIRING.satisfied_by(AccessToken("x", 3, NOW + 299), NOW)
    assert EXPIRING.satisfied_by(AccessToken("x", 4, NOW + 1), NOW)
    assert not EXPIRING.satisfied_by(AccessToken("x", 4, NOW), NOW)
    assert not FORCED.satisfied_by(AccessToken("x", 3, NOW + 9999), NOW)
    assert FORCED.satisfied_by(AccessToken("x", 4, NOW + 9999), NOW)


def wait(
    row: TokenRow, retry_after: float | None = None, maybe_spent: bool = False, random: float = 0.0
) -> float:
    error = ProviderUnavailable("because", reason="timeout", retry_after=retry_after, maybe_spent=maybe_spent)
    return failure_of(row, error, NOW, lambda: random).wait


def test_waits_double_up_to_a_limit_with_up_to_a_quarter_of_jitter() -> None:
    assert wait(ROW) == 5
    assert wait(ROW, random=1.0) == 6.25
    assert wait(failed("server_error")) == 120
    assert wait(failed("server_error", updated_at=NOW - 9999)) == LONGEST_WAIT


def test_no_attempt_is_later_than_the_end_of_the_token_that_it_serves() -> None:
    long = failed("server_error", updated_at=NOW - 9999)
    assert wait(replace(long, expires_at=NOW + 206)) == 206
    assert wait(replace(long, expires_at=NOW - 1)) == LONGEST_WAIT
    assert wait(replace(long, expires_at=NOW + 206), retry_after=400) == 400
    # What the API refused says nothing about the provider.
    refused = failed(REJECTED_BY_API, updated_at=NOW - 9999)
    assert wait(refused) == 5
    assert wait(replace(refused, expires_at=NOW + 206), maybe_spent=True) == 206


@pytest.mark.parametrize("failures", [0, 1, 20])
@pytest.mark.parametrize("named", [1.0, 7.0, 400.0, 4000.0])
def test_after_a_429_the_time_it_named_counts_and_a_quarter_more_at_most(failures: int, named: float) -> None:
    error = ProviderUnavailable("because", reason="rate_limited", retry_after=named)
    for random in (0.0, 0.5, 1.0):
        row = replace(
            failed("rate_limited", updated_at=NOW - 9999, expires_at=NOW + 9),
            provider=ProviderState(failures),
        )
        failure = failure_of(row, error, NOW, lambda value=random: value)  # type: ignore[misc]
        assert failure.wait == failure.rest == named * (1 + random / 4)
    longest = ProviderUnavailable("because", reason="rate_limited", retry_after=MAX_RETRY_AFTER)
    assert failure_of(ROW, longest, NOW, lambda: 1.0).wait == MAX_RETRY_AFTER


def test_retry_after_prolongs_a_wait_and_never_shortens_it() -> None:
    assert wait(ROW, retry_after=4000) == 4000
    assert wait(failed("server_error"), retry_after=1) == 120


def test_a_token_that_may_be_spent_is_not_tried_before_the_access_token_is_used_up() -> None:
    assert wait(ROW, maybe_spent=True) == 3600
    assert wait(replace(ROW, expires_at=NOW - 1), maybe_spent=True) == 5


REFUSALS = [
    ProviderUnavailable("It answered HTTP 400.", reason="http_400"),
    ProviderUnavailable("It answered HTTP 401.", reason="http_401"),
    ProviderRefused("It refused.", error="invalid_request"),
    ProviderRefused("It refused.", error="of_tomorrow"),
]
NO_REFUSALS = [
    ProviderRefused("It refused.", error="invalid_client"),
    ProviderUnavailable("It is slow.", reason="http_408"),
    ProviderUnavailable("It is busy.", reason="http_503"),
    ProviderUnavailable("It cannot be reached.", reason="network"),
]


@pytest.mark.parametrize("error", [*REFUSALS, *NO_REFUSALS])
@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("ended", [True, False])
def test_what_is_refused_again_and_again_may_need_a_new_login(
    error: ProviderUnavailable | ProviderRefused, again: bool, ended: bool
) -> None:
    """A provider's own word for a login that is over is not known, and to ask for ever helps nobody."""
    reason = error.error if isinstance(error, ProviderRefused) else error.reason
    row = failed(reason if again else "http_404", expires_at=NOW if ended else NOW + 9)
    told = failure_of(row, error, NOW, lambda: 0.0).last_error
    advised = "A new login may be needed" in told
    assert advised is (again and ended and error in REFUSALS)
    assert ("litellm claude login --user alice --force" in told) is advised


def test_the_rest_after_a_refresh_fits_the_life_of_the_token() -> None:
    assert [rest_after(seconds) for seconds in (1, 60, 28800)] == [10, 30, 60]


@pytest.mark.parametrize(
    ("row", "readable", "status", "authenticated"),
    [
        (None, True, Status.LOGGED_OUT, False),
        (
            replace(ROW, status=RowStatus.LOGGED_OUT, access_token=None, expires_at=None),
            True,
            Status.LOGGED_OUT,
            False,
        ),
        (ROW, True, Status.ACTIVE, True),
        (ROW, False, Status.UNREADABLE, False),
        (replace(ROW, expires_at=NOW + 300), True, Status.DUE, True),
        (replace(ROW, expires_at=NOW), True, Status.EXPIRED, True),
        (replace(ROW, expires_at=NOW, refresh_token=None), True, Status.EXPIRED, False),
        (replace(ROW, status=RowStatus.REAUTH_REQUIRED), True, Status.REAUTH_REQUIRED, True),
        (replace(ROW, status=RowStatus.REAUTH_REQUIRED, expires_at=NOW), True, Status.REAUTH_REQUIRED, False),
        (replace(ROW, in_doubt=True), True, Status.IN_DOUBT, True),
        (failed("server_error"), True, Status.COOLING_DOWN, True),
        (replace(ROW, next_attempt_at=NOW + 30), True, Status.ACTIVE, True),
    ],
)
def test_a_row_reads_as_what_a_person_has_to_know(
    row: TokenRow | None, readable: bool, status: Status, authenticated: bool
) -> None:
    found = read(row, readable=readable)
    assert (found.status, found.authenticated) == (status, authenticated)
    assert found.generation == (0 if row is None else 3)


def test_the_provider_that_rests_is_told_of_where_it_is_needed() -> None:
    resting = ProviderState(3, 40.0, "rate_limited: because")
    found = read(replace(ROW, expires_at=NOW, provider=resting))
    assert (found.status, found.last_error, found.next_attempt_at) == (
        Status.COOLING_DOWN,
        "rate_limited: because",
        NOW + 40,
    )
    assert read(replace(ROW, provider=resting)).status is Status.ACTIVE
    with pytest.raises(CoolingDown, match="by everybody for 40 s"):
        judge(replace(ROW, provider=resting), FORCED, NOW)


def test_so_many_forced_refreshes_a_day_and_no_more() -> None:
    judge(replace(ROW, forced_today=2), FORCED, NOW)
    with pytest.raises(CoolingDown, match="by force 3 times today") as caught:
        judge(replace(ROW, forced_today=3), FORCED, NOW)
    assert caught.value.retry_after == 86_400 - NOW
    judge(replace(ROW, forced_today=3), EXPIRING, NOW)


@pytest.mark.parametrize(
    ("changes", "ends_at", "warned"),
    [
        ({}, NOW - 60 + 27 * DAY, False),
        ({"logged_in_at": NOW - 24 * DAY - 1}, NOW + 3 * DAY - 1, True),
        ({"refresh_expires_at": NOW + 90 * DAY, "logged_in_at": NOW - 26 * DAY}, NOW + 90 * DAY, False),
        ({"refresh_expires_at": NOW + 2 * DAY}, NOW + 2 * DAY, True),
        ({"logged_in_at": None}, None, False),
        ({"refresh_token": None}, None, False),
    ],
)
def test_the_end_of_a_login_is_told_days_ahead(
    changes: dict[str, Any], ends_at: float | None, warned: bool
) -> None:
    found = read(replace(ROW, **changes))
    assert found.login_ends_at == ends_at
    assert (found.warning is not None) == warned
    assert not warned or "oauth_login.yml -e user=alice" in (found.warning or "")


def test_one_failure_rests_nobody_but_its_user_and_a_third_rests_all() -> None:
    def rest(failures: int, reason: str = "server_error", retry_after: float | None = None) -> float | None:
        return rest_for_all(ProviderState(failures), reason, retry_after, lambda: 0.0)

    assert [rest(failures) for failures in (0, 1, 2, 3, 20)] == [None, None, 5.0, 10.0, 300.0]
    assert [rest(failures, "rate_limited") for failures in (0, 1, 20)] == [30.0, 60.0, 900.0]
    assert rest(0, "rate_limited", 4000) == 4000
    assert rest(0, "http_503", 7) == 7


@pytest.mark.parametrize("need", [EXPIRING, PATIENT, FORCED, REJECTED])
@pytest.mark.parametrize("last_error", [None, describe(RATE_LIMITED, "x"), describe("timeout", "x")])
def test_a_wait_or_rest_longer_than_any_that_is_given_is_over(need: Need, last_error: str | None) -> None:
    wrong = replace(ROW, last_error=last_error, next_attempt_at=NOW + 30 * DAY)
    judge(wrong, need, NOW)
    assert read(wrong).next_attempt_at is None
    judge(replace(ROW, provider=ProviderState(1, 30 * DAY, "x")), need, NOW)


def test_the_longest_waits_that_are_given_are_kept() -> None:
    def cooling(**changes: Any) -> float:
        return cooling_for(replace(ROW, **changes), NOW)

    limited = describe(RATE_LIMITED, "x")
    assert cooling(next_attempt_at=NOW + LONGEST_REST) == LONGEST_REST
    assert cooling(last_error=limited, next_attempt_at=NOW + MAX_RETRY_AFTER) == MAX_RETRY_AFTER
    # A token that may be spent waits for the end of the access token, however far that is.
    spent = {"last_error": describe("timeout", "x"), "expires_at": NOW + 9 * DAY}
    assert cooling(**spent, next_attempt_at=NOW + 9 * DAY) == 9 * DAY
    assert resting_for(ProviderState(1, MAX_RETRY_AFTER, "x")) == MAX_RETRY_AFTER


@pytest.mark.parametrize("value", [999_999_999_999_999, "999999999999999", 1e15 - 1])
def test_a_moment_that_no_calendar_has_becomes_the_last_one(value: object) -> None:
    assert moment_of(value) == LAST_MOMENT


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00Z"),
        (NOW, "1970-01-01T00:16:40Z"),
        (1e12, "9999-12-31T23:59:59Z"),
        (float("inf"), "9999-12-31T23:59:59Z"),
        (float("-inf"), "1970-01-01T00:00:00Z"),
    ],
)
def test_every_moment_can_be_shown(seconds: float | None, shown: str | None) -> None:
    assert moment(seconds) == shown


def test_freshness_changes_exactly_at_its_limits() -> None:
    assert freshness(NOW, NOW - 300.1, 300) is Freshness.VALID
    assert freshness(NOW, NOW - 300, 300) is Freshness.DUE
    assert freshness(NOW, NOW, 300) is Freshness.EXPIRED


@pytest.mark.parametrize("user", ["", "a" * 256, " a", "a ", "a\nb", "a\x00b", "\t", "a\u2028b"])
def test_an_odd_user_id_is_refused(user: str) -> None:
    with pytest.raises(InvalidInput):
        check_user_id(user)


@pytest.mark.parametrize("user", ["default", "a b", "jörg@example.com", "a" * 255, "日本"])
def test_an_ordinary_user_id_is_taken_as_it_is(user: str) -> None:
    assert check_user_id(user) == user


def put(memory: TokenMemory, generation: int, user: str = "alice") -> None:
    memory.put(user, AccessToken("x", generation, NOW + 60), due_at=NOW + 50, now=NOW)


def test_memory_never_goes_back_to_an_older_generation() -> None:
    memory = TokenMemory()
    put(memory, 5)
    put(memory, 4)
    assert memory.entries["alice"].token.generation == 5


def test_memory_trusts_an_entry_for_seconds_only_while_nothing_is_heard() -> None:
    memory = TokenMemory()
    put(memory, 1)
    entry = memory.entries["alice"]
    assert memory.trusted(entry, NOW + RECHECK - 0.1)
    assert not memory.trusted(entry, NOW + RECHECK)
    memory.connected()
    assert not memory.trusted(entry, NOW), "what changed before the connection was not heard"
    put(memory, 2)
    assert memory.trusted(memory.entries["alice"], NOW + 40)


def test_memory_forgets_at_once_who_logged_out_and_rereads_who_changed() -> None:
    memory = TokenMemory()
    put(memory, 1)
    memory.changed("alice", 1, "active")
    assert memory.entries["alice"].stale
    memory.changed("alice", 2, "logged_out")
    assert "alice" not in memory.entries


def test_a_row_that_changes_while_it_is_read_is_known_to_be_old() -> None:
    memory = TokenMemory()
    with memory.reading("alice") as reading, memory.reading("bob") as other:
        memory.changed("alice", 2, "active")
    assert reading.overtaken
    assert not other.overtaken


def test_memory_holds_a_limited_number_of_users() -> None:
    memory = TokenMemory(max_entries=2)
    for user in ("a", "b", "c"):
        put(memory, 1, user)
    assert sorted(memory.entries) == ["b", "c"]
