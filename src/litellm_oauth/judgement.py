"""Whether a refresh token may be spent now: pure decisions over a row, a need and the clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from . import messages
from .backoff import (
    CLOCK_SLACK,
    MAYBE_SPENT,
    RATE_LIMITED,
    REJECTED,
    cooling_for,
    reason_of,
    resting_for,
)
from .errors import CoolingDown, TokenRefused
from .results import Actor
from .settings import DAY
from .stores import RowStatus, TokenRow
from .tokens import AccessToken

# How long a user rests whose freshly refreshed token the API refused: refreshing does not mend that.
REJECTED_WAIT = 300.0
# How long the API's refusal causes no further refresh then: an API that refuses everything costs a user one
# refresh token an hour, and a token that dies later is replaced in the end.
REJECTED_HOLD = 3600.0


class RejectedTooSoon(TokenRefused):
    """It has just been found out; the caller persists the cooldown."""


@dataclass(frozen=True, slots=True)
class Need:
    """Why somebody wants a refresh.

    A token newer than ``generation`` satisfies, and one with more than ``min_validity`` seconds left (None:
    no time is enough). ``patient``: the old token still serves, so the rest after a refresh is respected.
    """

    MOST_URGENT: ClassVar[int] = 2

    reason: Literal["expiring", "forced", "rejected"]
    generation: int
    min_validity: float | None
    actor: Actor
    patient: bool = False

    @property
    def urgency(self) -> int:
        """Who is more urgent passes cooldowns that hold others back."""
        if self.reason == "forced":
            return self.MOST_URGENT
        return 0 if self.patient else 1

    def satisfied_by(self, token: AccessToken, now: float) -> bool:
        left = token.expires_at - now
        if left <= 0:
            return False
        return token.generation > self.generation or (
            self.min_validity is not None and left > self.min_validity
        )


@dataclass(frozen=True, slots=True)
class Refreshed:
    """``refreshed``: the provider was asked for it. ``saved``: it lies in the store."""

    token: AccessToken
    refreshed: bool
    saved: bool = True


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say. ``forced_per_day``: so often a user's refresh may be forced in a day (UTC)."""

    client_id: str
    forced_per_day: int


def judge(row: TokenRow, need: Need, now: float, rules: Rules) -> None:
    """Return where the refresh token of an idle row may be spent for ``need``.

    Raises ReauthRequired, OtherClient, CoolingDown, TokenRefused, RejectedTooSoon.
    """
    user = row.user_id
    left = (row.expires_at or now) - now
    if row.status is RowStatus.REAUTH_REQUIRED:
        raise messages.reauth_required(user)
    if row.refresh_token is None:
        raise messages.no_refresh_token(user)
    if not row.is_for(rules.client_id):
        # The provider would refuse the token as if it were dead: one wrong setting would end every login.
        raise messages.other_client(user, row.client_id)
    if row.in_doubt and left > 0:
        raise CoolingDown(
            f"An earlier refresh for {user} on {row.attempt_host or 'another host'} ended without a word, so "
            "its refresh token may be spent. It is tried once more when the access token has expired.",
            retry_after=left,
        )
    rest = resting_for(row.provider)
    if rest > 0:
        raise CoolingDown(
            f"The provider is left in peace by everybody for {rest:.0f} s more. "
            f"The reason: {row.provider.reason}",
            retry_after=rest,
        )
    if need.reason == "forced" and row.forced_today >= rules.forced_per_day:
        raise CoolingDown(
            f"The token of {user} was refreshed by force {row.forced_today} times today (UTC), which is the "
            "limit (claude_oauth.forced_refreshes_per_day). Without force it is refreshed when it is due.",
            retry_after=DAY - now % DAY,
        )
    wait = cooling_for(row, now)
    if need.reason == "rejected" and left > 0 and (hold := _hold_for(row, now)) > 0:
        raise TokenRefused(messages.token_refused(user), retry_after=hold)
    if wait > 0:
        _judge_wait(row, need, wait, left)


def _hold_for(row: TokenRow, now: float) -> float:
    """Seconds for which the API's refusal of a token causes no further refresh; 0 if it does."""
    if reason_of(row.last_error) != REJECTED or row.next_attempt_at is None:
        return 0.0
    hold = row.next_attempt_at - REJECTED_WAIT + REJECTED_HOLD - now
    # What is longer was written under a wrong clock.
    return hold if 0 < hold <= REJECTED_HOLD + CLOCK_SLACK else 0.0


def _judge_wait(row: TokenRow, need: Need, wait: float, left: float) -> None:
    user = row.user_id
    if row.last_error is None:
        if need.reason == "rejected":
            raise RejectedTooSoon(messages.token_refused(user), retry_after=REJECTED_WAIT)
        if need.patient:
            raise CoolingDown(f"The token of {user} was refreshed a moment ago.", retry_after=wait)
        return
    reason = reason_of(row.last_error)
    if reason == REJECTED and left <= 0:
        # The API refused a token that has ended since; that says nothing about the next one.
        return
    if need.reason == "forced" and reason != RATE_LIMITED and not (reason in MAYBE_SPENT and left > 0):
        return
    raise CoolingDown(
        f"The provider is left in peace for {user} for {wait:.0f} s more. The reason: {row.last_error}",
        retry_after=wait,
    )
