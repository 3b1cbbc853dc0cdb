"""How long the provider is left in peace after a failure, and how that is written into a row."""

from __future__ import annotations

from collections.abc import Callable

from . import messages
from .errors import ProviderError, ProviderRefused, ProviderUnavailable, Unreadable
from .grant import MAX_RETRY_AFTER
from .stores import Failure, ProviderState, TokenRow

FIRST_WAIT = 5.0
LONGEST_WAIT = 900.0
# For all users: after a 429 without Retry-After, and after so many failures in a row of any kind.
FIRST_REST = 30.0
FAILURES_FOR_ALL = 3
LONGEST_REST_FOR_ALL = 300.0
UNREADABLE_WAIT = 300.0
# After a success: a token that is refused or already due again within this time is not refreshed at once.
SHORTEST_REST = 10.0
LONGEST_REST = 60.0
# What two clocks may differ by.
CLOCK_SLACK = 60.0
# The most that any failure asks for; only the wait for a token that may be spent lasts as long as the access
# token beside it.
LONGEST_PAUSE = MAX_RETRY_AFTER + CLOCK_SLACK
RATE_LIMITED = "rate_limited"
# The API refused a token: that says nothing about the provider.
REJECTED = "rejected"
ANSWER_LOST = "answer_lost"
# After these the refresh token may be used up although no answer came.
MAYBE_SPENT = frozenset({"timeout", ANSWER_LOST, "garbage", "server_error"})
# What no new login mends: faults of the configuration (RFC 6749 §5.2), and what passes.
_NOT_OF_THE_LOGIN = frozenset(
    {
        *("invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope"),
        *("http_408", "http_425"),
    }
)


def rest_after(expires_in: float) -> float:
    """Seconds of rest after a refresh, so that a token that lives for seconds causes no storm."""
    return min(LONGEST_REST, max(SHORTEST_REST, expires_in / 2))


def failure_of(
    row: TokenRow, error: ProviderError | Unreadable, now: float, random: Callable[[], float]
) -> Failure:
    """What an attempt on ``row`` leaves behind that ended with ``error``."""
    reason = str(getattr(error, "reason", None) or getattr(error, "error", None) or error.code)
    text = describe(reason, error.message)
    if _may_be_over(row, error, reason, now):
        text = f"{text} {messages.may_be_over(row.user_id)}"
    if isinstance(error, Unreadable):
        return Failure(text, UNREADABLE_WAIT)
    retry_after = getattr(error, "retry_after", None)
    maybe_spent = getattr(error, "maybe_spent", False)
    if reason == RATE_LIMITED and retry_after:
        wait = _as_named(retry_after, random)
    else:
        wait = _wait(row, now, retry_after, maybe_spent, random)
    rest = rest_for_all(row.provider, reason, retry_after, random)
    return Failure(text, wait, rest, counts=True)


def _may_be_over(row: TokenRow, error: ProviderError | Unreadable, reason: str, now: float) -> bool:
    """Whether the provider refuses again what nothing but a new login may mend.

    It has no word for that which is known (``grant.DEAD_GRANT``), so the login stays, and a person is told.
    """
    refused = isinstance(error, ProviderRefused) or (
        isinstance(error, ProviderUnavailable) and reason.startswith("http_4")
    )
    ended = row.expires_at is not None and row.expires_at <= now
    return refused and ended and reason not in _NOT_OF_THE_LOGIN and reason_of(row.last_error) == reason


def rest_for_all(
    provider: ProviderState, reason: str, retry_after: float | None, random: Callable[[], float]
) -> float | None:
    """Seconds that all users leave the provider in peace after one more failure, or None.

    At once where the provider asked for it (429, or a Retry-After); after the third failure in a row where
    it is broken, because the first may be about one user only.
    """
    failures = provider.failures + 1
    if reason == RATE_LIMITED and retry_after:
        return _as_named(retry_after, random)
    jitter = 1 + random() / 4
    if reason == RATE_LIMITED:
        return min(LONGEST_WAIT, FIRST_REST * 2.0 ** min(failures - 1, 10)) * jitter
    if retry_after is not None:
        return retry_after
    if failures < FAILURES_FOR_ALL:
        return None
    return min(LONGEST_REST_FOR_ALL, FIRST_WAIT * 2.0 ** min(failures - FAILURES_FOR_ALL, 10)) * jitter


def _as_named(retry_after: float, random: Callable[[], float]) -> float:
    """The time that the provider named (RFC 9110 §10.2.3), and up to a quarter more."""
    return min(retry_after * (1 + random() / 4), MAX_RETRY_AFTER)


def _wait(
    row: TokenRow, now: float, retry_after: float | None, maybe_spent: bool, random: Callable[[], float]
) -> float:
    """Seconds until the next try: twice the last wait and up to a quarter more, or longer by Retry-After.

    It is made when the access token ends at the latest. Where the refresh token may be spent, another try
    could end the login at the provider (reuse detection), so the current access token is used up first.
    """
    failed = row.last_error is not None and reason_of(row.last_error) != REJECTED
    last = row.next_attempt_at - row.updated_at if failed and row.next_attempt_at else 0.0
    wait = min(LONGEST_WAIT, max(FIRST_WAIT, 2 * last)) * (1 + random() / 4)
    if row.expires_at is not None and row.expires_at > now:
        wait = min(wait, row.expires_at - now)
    wait = max(wait, retry_after or 0.0)
    if maybe_spent and row.expires_at is not None:
        wait = max(wait, row.expires_at - now)
    return wait


def describe(reason: str, message: str) -> str:
    """``last_error``: a stable word, a colon, a sentence."""
    return f"{reason}: {message}"


def reason_of(last_error: str | None) -> str | None:
    """The stable word of ``last_error``."""
    return last_error.partition(":")[0] if last_error else None


def next_attempt_at(row: TokenRow, now: float) -> float | None:
    """The moment before which the row asks to leave the provider in peace, or None.

    A wait that is longer than any that is ever given was written under a wrong clock, and is over.
    """
    moment = row.next_attempt_at
    return moment if moment is not None and moment - now <= _longest_wait(row, now) else None


def cooling_for(row: TokenRow, now: float) -> float:
    """Seconds that the row still asks to leave the provider in peace; 0 if it does not."""
    moment = next_attempt_at(row, now)
    return max(0.0, moment - now) if moment is not None else 0.0


def resting_for(provider: ProviderState) -> float:
    """Seconds that everybody still leaves the provider in peace; 0 where a wrong clock made them too many."""
    return provider.rests_for if provider.rests_for <= LONGEST_PAUSE else 0.0


def _longest_wait(row: TokenRow, now: float) -> float:
    if row.last_error is None:
        return LONGEST_REST + CLOCK_SLACK
    return max(LONGEST_PAUSE, (row.expires_at or now) - now + CLOCK_SLACK)
