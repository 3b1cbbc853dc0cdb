"""Login: start it, and complete it with the code (RFC 6749 §4.1, RFC 7636, RFC 9700)."""

from __future__ import annotations

import asyncio
import hmac
import uuid
from collections.abc import Sequence

from .clock import AuthorityClock
from .code_input import LoginCode, parse_code
from .errors import (
    CodeRejected,
    InvalidGrant,
    InvalidInput,
    LitellmOAuthError,
    LoginError,
    NoPendingLogin,
    ProviderError,
    StateMismatch,
    StorageUnavailable,
    Unreadable,
)
from .grant import Grant
from .messages import how_to_log_in
from .pkce import RandomBytes, new_challenge, state_hash
from .provider import Provider
from .results import Actor, StartedLogin
from .stores import LoginStore, NewLogin, Note, PendingLogin, Sealed, TokenRow, TokenStore
from .vault import Vault

# Seconds a login waits for its code, and how long it is remembered after that, to say "used" or "expired".
LIFETIME = 600.0
REMEMBER = 3600.0
# A user's logins that wait at the same time; the oldest make room.
MAX_PENDING = 5
# Saves of an answer to a code are tried this often; then the answer is revoked, for nobody can use it.
_SAVE_PAUSES = (0.2, 0.5, 1.0, 2.0)
_SLACK = 20.0


class LoginFlow:
    """Starts and completes logins. Nothing that was stored changes before the provider has answered."""

    def __init__(
        self,
        tokens: TokenStore,
        logins: LoginStore,
        vault: Vault,
        provider: Provider,
        clock: AuthorityClock,
        random_bytes: RandomBytes,
    ) -> None:
        self._tokens = tokens
        self._logins = logins
        self._vault = vault
        self._provider = provider
        self._clock = clock
        self._random_bytes = random_bytes

    async def start(self, user: str, actor: Actor) -> StartedLogin:
        """Store a pending login and return its authorization URL. Raises StorageUnavailable."""
        secret = new_challenge(self._random_bytes)
        login = NewLogin(
            user_id=user,
            state_hash=state_hash(secret.state),
            verifier=self._vault.seal_verifier(user, secret.verifier, secret.state),
            issuer=self._provider.issuer,
            redirect_uri=self._provider.redirect_uri,
            lifetime=LIFETIME,
            created_by=actor.name,
        )
        expires_at = await self._logins.add(login, Note(actor, "start_login", user, "started"), MAX_PENDING)
        return StartedLogin(
            authorization_url=self._provider.authorization_url(
                challenge=secret.challenge, state=secret.state
            ),
            state=secret.state,
            user_id=user,
            expires_at=expires_at,
            expires_in=LIFETIME,
            redirect_uri=self._provider.redirect_uri,
            whole_address=self._provider.requires_issuer,
        )

    async def complete(self, user: str, code_input: str, state: str | None, actor: Actor) -> TokenRow:
        """Exchange the code and store the tokens; see ``TokenService.complete_login`` for the errors."""
        try:
            code = parse_code(code_input, state)
            if code.issuer is None and self._provider.requires_issuer:
                # Whose code it is cannot be seen; it may be another server's (RFC 9207 §2.4).
                raise InvalidInput(
                    "A code of this provider counts only together with its name (iss): paste the whole "
                    "address that consent leads to."
                )
            login = self._match(code, await self._logins.of_user(user), user)
            return await self._exchange(login, code, actor)
        except StorageUnavailable:
            raise
        except LitellmOAuthError as error:
            await self._note_refusal(actor, user, error)
            raise

    def _match(self, code: LoginCode, logins: Sequence[PendingLogin], user: str) -> PendingLogin:
        """The one login the code belongs to. Only this user's are looked at, so others' stay unknown."""
        again = f"Start a new login with {how_to_log_in(user, again=True)}."
        if code.state is None:
            # Which login a bare code belongs to is not known, so it counts for the newest one only.
            login = next(iter(logins), None)
            if login is None:
                raise NoPendingLogin(f"No login of {user} is waiting for a code. {again}")
        else:
            wanted = state_hash(code.state)
            found = [item for item in logins if hmac.compare_digest(item.state_hash, wanted)]
            if not found:
                raise StateMismatch(f"The state belongs to no login of {user}. Nothing was changed. {again}")
            login = found[0]
        if login.used and code.state is None:
            raise NoPendingLogin(
                f"No login of {user} is waiting for a code: the newest was completed or refused already. "
                f"{again}"
            )
        if login.used:
            raise NoPendingLogin(f"This login of {user} was used already; a code works once. {again}")
        if login.expired or login.verifier is None:
            raise NoPendingLogin(
                f"This login of {user} waited too long ({LIFETIME / 60:.0f} minutes). {again}"
            )
        if code.issuer is not None and code.issuer != login.issuer:
            raise StateMismatch(f"The code comes from another provider than the login of {user}. {again}")
        if (login.issuer, login.redirect_uri) != (self._provider.issuer, self._provider.redirect_uri):
            raise NoPendingLogin(f"The provider's settings changed after this login of {user} began. {again}")
        return login

    async def _exchange(self, login: PendingLogin, code: LoginCode, actor: Actor) -> TokenRow:
        user = login.user_id
        claimed_by = uuid.uuid4()
        if not await self._logins.claim(login.login_id, claimed_by, self._provider.token_timeout + _SLACK):
            raise NoPendingLogin(
                f"This login of {user} is being completed by another request. Ask for the status."
            )
        asked_at = self._clock.now()
        try:
            verifier, state = self._vault.open_verifier(user, login.verifier or "")
            grant = await self._provider.exchange(code=code.code, verifier=verifier, state=state)
        except InvalidGrant:
            await self._logins.use_up(login.login_id, claimed_by, Note(actor, "login", user, "login_used_up"))
            raise CodeRejected(
                "The provider refused the code: it is wrong, was used already, or is too old. "
                f"Start a new login with {how_to_log_in(user, again=True)}."
            ) from None
        except (ProviderError, Unreadable):
            await self._logins.release(login.login_id, claimed_by)
            raise
        sealed = self._vault.seal_grant(user, grant, asked_at=asked_at, client_id=self._provider.client_id)
        return await self._save(login, claimed_by, sealed, grant, actor)

    async def _save(
        self, login: PendingLogin, claimed_by: uuid.UUID, sealed: Sealed, grant: Grant, actor: Actor
    ) -> TokenRow:
        note = Note(actor, "login", login.user_id, "logged_in")
        for pause in (*_SAVE_PAUSES, None):
            try:
                row = await self._tokens.log_in(login, claimed_by, sealed, note)
                if row is None:
                    row = await self._saved_before(login, sealed)
                break
            except StorageUnavailable:
                if pause is None:
                    # It may have been stored although nobody said so: then to revoke it would end it.
                    raise
                await asyncio.sleep(pause)
        if row is None:
            await self._revoke(grant)
            raise NoPendingLogin(
                f"This login of {login.user_id} was completed by another request meanwhile, or ended by a "
                "logout. Ask for the status."
            )
        return row

    async def _saved_before(self, login: PendingLogin, sealed: Sealed) -> TokenRow | None:
        """The row, where an earlier try was committed and only its answer was lost."""
        row = await self._tokens.load(login.user_id)
        return row if row is not None and row.access_token == sealed.access_token else None

    async def _revoke(self, grant: Grant) -> None:
        """Tokens that nobody will ever use are not left valid."""
        if grant.refresh_token is not None:
            await self._provider.revoke(grant.refresh_token, "refresh_token")
        else:
            await self._provider.revoke(grant.access_token, "access_token")

    async def _note_refusal(self, actor: Actor, user: str, error: LitellmOAuthError) -> None:
        kind = "refused" if isinstance(error, LoginError) else "failed"
        try:
            await self._tokens.write_note(Note(actor, "login", user, error.code, kind))
        except StorageUnavailable:
            # The refusal stands; it is more use to the caller than the missing line in the audit.
            return
