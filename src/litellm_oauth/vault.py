"""Between sealed rows and token sets: the one place where tokens are encrypted and decrypted."""

from __future__ import annotations

import re
from dataclasses import replace

from .cipher import Cipher
from .errors import Unreadable
from .grant import Grant
from .stores import Sealed, TokenRow
from .tokens import AccessToken, ExportedLogin, TokenSet

ACCESS = "access_token"
REFRESH = "refresh_token"
VERIFIER = "verifier"
# How a sealed value begins that comes from outside; tokens of some providers begin with "v1." as well.
_SEALED = re.compile(r"v1\.[0-9a-f]{16}\.|gAAAAA")


class Vault:
    """Seals and opens with the user id and the name of the field bound to each value."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    def open(self, row: TokenRow) -> TokenSet:
        """The token set in a row that holds one. Raises Unreadable."""
        if row.access_token is None or row.expires_at is None:
            raise Unreadable("The row holds no access token. Log in again.")
        user = row.user_id
        return TokenSet(
            user_id=user,
            access_token=self._cipher.decrypt(row.access_token, user=user, field=ACCESS),
            refresh_token=self.open_optional(row.refresh_token, user, REFRESH),
            expires_at=row.expires_at,
            refresh_expires_at=row.refresh_expires_at,
            scopes=row.scopes,
            account=row.account,
            generation=row.generation,
        )

    def open_access(self, row: TokenRow) -> AccessToken:
        """Only the access token of a row that holds one. Raises Unreadable."""
        if row.access_token is None or row.expires_at is None:
            raise Unreadable("The row holds no access token. Log in again.")
        value = self._cipher.decrypt(row.access_token, user=row.user_id, field=ACCESS)
        return AccessToken(value, row.generation, row.expires_at)

    def open_optional(self, sealed: str | None, user: str, field: str) -> str | None:
        """A sealed value, or None for None. Raises Unreadable."""
        return None if sealed is None else self._cipher.decrypt(sealed, user=user, field=field)

    def readable(self, row: TokenRow) -> bool:
        """Whether everything in the row decrypts."""
        try:
            if row.access_token is not None:
                self.open(row)
        except Unreadable:
            return False
        return True

    def seal_grant(
        self,
        user: str,
        grant: Grant,
        *,
        asked_at: float,
        client_id: str,
        before: TokenRow | None = None,
        rest: float | None = None,
    ) -> Sealed:
        """What to store of a token answer to a question that the client asked at ``asked_at``.

        ``before`` is the row that a refresh replaces: what the answer leaves out stays as it was (RFC 6749 §6
        for the refresh token, §5.1 for the scopes).
        """
        if grant.refresh_token is not None:
            refresh_token: str | None = self._cipher.encrypt(grant.refresh_token, user=user, field=REFRESH)
        else:
            refresh_token = before.refresh_token if before is not None else None
        if grant.refresh_expires_in is not None:
            refresh_expires_at: float | None = asked_at + grant.refresh_expires_in
        elif grant.refresh_token is None and before is not None:
            refresh_expires_at = before.refresh_expires_at
        else:
            refresh_expires_at = None
        return Sealed(
            access_token=self._cipher.encrypt(grant.access_token, user=user, field=ACCESS),
            refresh_token=refresh_token,
            expires_at=asked_at + grant.expires_in,
            refresh_expires_at=refresh_expires_at,
            scopes=grant.scopes or (before.scopes if before is not None else ()),
            account=grant.account or (before.account if before is not None else None),
            rest=rest,
            client_id=client_id,
        )

    def resealed(self, row: TokenRow, user: str) -> TokenRow:
        """The row with its values bound to another user. Raises Unreadable."""
        tokens = self.open(row)
        return replace(
            row,
            user_id=user,
            access_token=self._cipher.encrypt(tokens.access_token, user=user, field=ACCESS),
            refresh_token=self._seal_optional(tokens.refresh_token, user, REFRESH),
        )

    def open_login(self, row: TokenRow) -> ExportedLogin:
        """The login in a row that holds one. Raises Unreadable."""
        tokens = self.open(row)
        return ExportedLogin(
            user_id=row.user_id,
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            expires_at=tokens.expires_at,
            refresh_expires_at=row.refresh_expires_at,
            scopes=row.scopes,
            account=row.account,
            client_id=row.client_id,
            logged_in_at=row.logged_in_at,
        )

    def unsealed(self, login: ExportedLogin, user: str) -> ExportedLogin:
        """The login with what was sealed for this user opened. Raises Unreadable."""

        def opened(value: str, field: str) -> str:
            return self._cipher.decrypt(value, user=user, field=field) if _SEALED.match(value) else value

        refresh_token = login.refresh_token
        return replace(
            login,
            access_token=opened(login.access_token, ACCESS),
            refresh_token=None if refresh_token is None else opened(refresh_token, REFRESH),
        )

    def seal_login(self, user: str, login: ExportedLogin) -> Sealed:
        """What to store of a login from elsewhere, whose tokens are in the clear."""
        return Sealed(
            access_token=self._cipher.encrypt(login.access_token, user=user, field=ACCESS),
            refresh_token=self._seal_optional(login.refresh_token, user, REFRESH),
            expires_at=login.expires_at,
            refresh_expires_at=login.refresh_expires_at,
            scopes=login.scopes,
            account=login.account,
            client_id=login.client_id,
        )

    def seal_verifier(self, user: str, verifier: str, state: str) -> str:
        """A pending login's verifier. The state goes with it, for providers that want it in the exchange."""
        return self._cipher.encrypt(f"{verifier} {state}", user=user, field=VERIFIER)

    def open_verifier(self, user: str, sealed: str) -> tuple[str, str]:
        """The verifier and the state of a pending login. Raises Unreadable."""
        verifier, _, state = self._cipher.decrypt(sealed, user=user, field=VERIFIER).partition(" ")
        return verifier, state

    def _seal_optional(self, value: str | None, user: str, field: str) -> str | None:
        return None if value is None else self._cipher.encrypt(value, user=user, field=field)
