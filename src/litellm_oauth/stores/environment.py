"""``default``'s token set out of the environment: read only, imported where nobody ever logged in."""

from __future__ import annotations

from collections.abc import Callable

from ..settings import EnvironmentTokens as Given
from .documents import DEFAULT_USER, Seal
from .rows import ProviderState, RowStatus, TokenRow

SOURCE = "environment"


class EnvironmentTokens:
    """The row that ``CLAUDE_ACCESS_TOKEN``, ``CLAUDE_REFRESH_TOKEN`` and ``CLAUDE_EXPIRES_AT`` amount to."""

    def __init__(self, given: Given, seal: Seal, clock: Callable[[], float]) -> None:
        self._given = given
        self._seal = seal
        self._clock = clock

    def load(self, user: str) -> TokenRow | None:
        """The row for ``default``, with generation 1; None for everybody else."""
        if user != DEFAULT_USER:
            return None
        refresh_token = self._given.refresh_token
        now = self._clock()
        return TokenRow(
            user_id=user,
            access_token=self._seal(user, "access_token", self._given.access_token),
            refresh_token=None if refresh_token is None else self._seal(user, "refresh_token", refresh_token),
            expires_at=self._given.expires_at,
            refresh_expires_at=None,
            scopes=(),
            account=None,
            generation=1,
            status=RowStatus.ACTIVE,
            last_error=None,
            next_attempt_at=None,
            attempt_id=None,
            attempt_host=None,
            refresh_count=0,
            forced_today=0,
            logged_in_at=None,
            updated_at=now,
            leased_for=0.0,
            in_doubt=False,
            read_at=None,
            provider=ProviderState(),
            source=SOURCE,
        )
