"""A login taken out as it is, to be brought in elsewhere. The provider is not asked, and nothing is revoked.

What is given out can be brought in: a login that is over is not worth moving.
"""

from __future__ import annotations

import re

from . import messages
from .clock import AuthorityClock
from .errors import InvalidInput, StorageUnavailable, Unreadable
from .grant import is_access_token, is_refresh_token
from .refresh import Refresher
from .results import Actor
from .stores import Note, RowStatus, TokenRow, TokenStore
from .tokens import ExportedLogin
from .vault import Vault

# RFC 6749 A.1
_CLIENT_ID = re.compile(r"[\x20-\x7e]{1,255}")


class Transfer:
    """Exports and imports logins, by the authority alone: what stands in for it may be older."""

    def __init__(self, store: TokenStore, vault: Vault, refresher: Refresher, clock: AuthorityClock) -> None:
        self._store = store
        self._vault = vault
        self._refresher = refresher
        self._clock = clock

    async def give(self, user: str, actor: Actor) -> ExportedLogin:
        """The user's login with its tokens, after the audit has been told of it.

        Raises NotLoggedIn, ReauthRequired, Unreadable, StorageUnavailable, and ProviderUnavailable where a
        refresh does not come to its end: its refresh token may be spent this very moment.
        """
        row = self.demand_authority(await self._refresher.undisturbed(user, _as_it_is))
        if row.status is RowStatus.REAUTH_REQUIRED:
            raise messages.reauth_required(user)
        login = self._vault.open_login(row)
        if login.is_over(self._clock.now()):
            raise messages.no_refresh_token(user)
        await self._store.write_note(Note(actor, "export", user, "exported"))
        return login

    async def take(
        self, user: str, login: ExportedLogin, actor: Actor, *, over: int | None
    ) -> TokenRow | None:
        """Write ``login`` as the user's; ``over`` as in ``TokenStore.import_login``.

        Raises InvalidInput for what cannot be a login, StorageUnavailable.
        """
        checked = self._checked(user, login)
        origin = None if login.user_id in (None, user) else f"from {login.user_id}"
        return await self._store.import_login(
            user,
            self._vault.seal_login(user, checked),
            Note(actor, "import", user, "imported", origin),
            logged_in_at=login.logged_in_at,
            over=over,
        )

    def demand_authority(self, row: TokenRow) -> TokenRow:
        """The row, where the authority holds it. Raises StorageUnavailable."""
        if row.source != self._store.source:
            raise StorageUnavailable(
                f"The database is away, and what this host holds of {row.user_id} may be older. Nothing was "
                "changed. Try again when the database is back."
            )
        return row

    def _checked(self, user: str, login: ExportedLogin) -> ExportedLogin:
        """The login with tokens in the clear. Raises InvalidInput, which never quotes them."""
        try:
            plain = self._vault.unsealed(login, user)
        except Unreadable:
            raise InvalidInput(
                f"The tokens are encrypted, and not for {user} with this gateway's keys. Take what `litellm "
                "claude export` prints where they are in use."
            ) from None
        if not is_access_token(plain.access_token):
            raise InvalidInput("accessToken holds what no access token may hold (RFC 6749, appendix A.12).")
        if plain.refresh_token is not None and not is_refresh_token(plain.refresh_token):
            raise InvalidInput("refreshToken holds what no refresh token may hold (RFC 6749, appendix A.17).")
        if plain.client_id is not None and _CLIENT_ID.fullmatch(plain.client_id) is None:
            raise InvalidInput("clientId holds what no client id may hold (RFC 6749, appendix A.1).")
        if plain.is_over(self._clock.now()):
            raise InvalidInput(
                "The access token has expired, and there is no refresh token to replace it. "
                f"Log in with {messages.how_to_log_in(user)}."
            )
        return plain


async def _as_it_is(row: TokenRow) -> TokenRow:
    return row
