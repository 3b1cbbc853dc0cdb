"""TokenService: the one writer of tokens, whoever asks: a request, the background loop, the command line."""

from __future__ import annotations

from .results import Actor, LogoutOutcome, RefreshCounts, RefreshOutcome, StartedLogin
from .tokens import AccessToken, UserStatus


class TokenService:
    """Read path, single-flight refresh, login and logout. Make one with ``assembly.open_service``.

    Every operation may raise InvalidInput (bad user id) and, unless said otherwise, StorageUnavailable.
    """

    async def access_token(self, user: str) -> AccessToken:
        """The token for a request upstream.

        Valid: from memory, no I/O. Due: served, and a refresh starts in the background. Expired: waits for
        the one refresh. A token in memory that has not expired is served while the database is down.

        Raises NotLoggedIn, ReauthRequired, Unreadable, CoolingDown, ProviderUnavailable, ProviderRefused and,
        for an expired token only, StorageUnavailable.
        """
        raise NotImplementedError

    async def replace_rejected(self, user: str, generation: int) -> AccessToken:
        """The token to retry with after an upstream 401 for the token of ``generation``.

        A newer stored token is returned as it is. Otherwise one refresh, at most once per generation. A token
        that is rejected within a minute of its refresh makes the user cool down instead: CoolingDown.
        Raises what ``access_token`` raises.
        """
        raise NotImplementedError

    async def start_login(self, user: str, *, actor: Actor, again: bool = False) -> StartedLogin:
        """Begin a login. Raises AlreadyLoggedIn where a working login exists, unless ``again``."""
        raise NotImplementedError

    async def complete_login(
        self, user: str, code_input: str, state: str | None = None, *, actor: Actor
    ) -> UserStatus:
        """Exchange the code and store the token set.

        ``code_input`` is a bare code, ``code#state`` or the whole redirect URL. A bare code without ``state``
        counts for the user's newest pending login only.
        Raises InvalidInput, NoPendingLogin, StateMismatch, CodeRejected, ProviderRefused and
        ProviderUnavailable.
        """
        raise NotImplementedError

    async def status(self, user: str) -> UserStatus:
        """How the user's login stands. Somebody unknown reads as logged_out with generation 0."""
        raise NotImplementedError

    async def statuses(self, *, after: str | None = None, limit: int = 100) -> list[UserStatus]:
        """Up to ``limit`` (1 to 1000) users whose id sorts after ``after``, in order of their id."""
        raise NotImplementedError

    async def refresh(
        self, user: str, *, min_validity: float | None = None, force: bool = False, actor: Actor
    ) -> RefreshOutcome:
        """Refresh where less than ``min_validity`` seconds (default: refresh_buffer) are left, or forced.

        Raises NotLoggedIn, ReauthRequired, Unreadable, CoolingDown, ProviderUnavailable, ProviderRefused.
        """
        raise NotImplementedError

    async def logout(self, user: str, *, actor: Actor) -> LogoutOutcome:
        """Forget the tokens and revoke them at the provider as well as that can be done. Idempotent."""
        raise NotImplementedError

    async def refresh_due(self, *, actor: Actor) -> RefreshCounts:
        """One pass over all users whose token is due. Errors of single users are counted, not raised."""
        raise NotImplementedError

    async def run_background(self) -> None:
        """Refresh what becomes due and purge old pending logins, until cancelled. Outlives outages."""
        raise NotImplementedError

    async def database_reachable(self) -> bool:
        """Whether the database answers now; for the health route."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let running refreshes end (a few seconds), then give back the connections."""
        raise NotImplementedError
