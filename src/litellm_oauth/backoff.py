"""How long the provider is left in peace after a failure, and how that is written into a row."""

from __future__ import annotations

from collections.abc import Callable

from .stores import TokenRow

FIRST_WAIT = 5.0
LONGEST_WAIT = 900.0
# After a success: a token that is refused or already due again within this time is not refreshed at once.
SHORTEST_REST = 10.0
LONGEST_REST = 60.0
RATE_LIMITED = "rate_limited"
# After these the refresh token may be used up although no answer came.
MAYBE_SPENT = frozenset({"timeout", "answer_lost", "garbage", "server_error"})


def rest_after(expires_in: float) -> float:
    """Seconds of rest after a refresh, so that a token that lives for seconds causes no storm."""
    return min(LONGEST_REST, max(SHORTEST_REST, expires_in / 2))


def wait_after_failure(
    row: TokenRow, now: float, *, retry_after: float | None, maybe_spent: bool, random: Callable[[], float]
) -> float:
    """Seconds until the next try: twice the last wait and up to a quarter more, or longer by Retry-After.

    Where the refresh token may be spent, another try could end the login at the provider (reuse detection),
    so the current access token is used up first.
    """
    last = row.next_attempt_at - row.updated_at if row.last_error and row.next_attempt_at else 0.0
    wait = min(LONGEST_WAIT, max(FIRST_WAIT, 2 * last)) * (1 + random() / 4)
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


def cooling_for(row: TokenRow, now: float) -> float:
    """Seconds that the row still asks to leave the provider in peace; 0 if it does not."""
    return max(0.0, row.next_attempt_at - now) if row.next_attempt_at is not None else 0.0
