"""The authorization server: Authlib's protocol, with the sandbox's ledger and its strictness.

RFC 6749 (code and refresh grants), RFC 7523 (workloads), RFC 7636 (PKCE), RFC 7009 (revocation), RFC 9700
§4.14.2 (rotation).
"""

from __future__ import annotations

import hmac
import logging
import secrets
from dataclasses import dataclass
from typing import Any

from authlib.oauth2.rfc6749 import AuthorizationServer, InvalidGrantError, InvalidRequestError
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, RefreshTokenGrant
from authlib.oauth2.rfc7009 import RevocationEndpoint

from .accounts import Account
from .clock import Clock
from .federation import RuleBook
from .jwt_bearer import FederationGrant
from .knobs import KnobBoard
from .ledger import Ledger, digest
from .oauth_models import IssuedCode, IssuedToken, PublicClient
from .oauth_request import SandboxRequest
from .pkce import RequireS256
from .records import Records

ACCESS_PREFIX = "sk-ant-oat01-sandbox-"
REFRESH_PREFIX = "sk-ant-ort01-sandbox-"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OAuthAnswer:
    """What the library decided. ``outcome`` is ``ok`` or the error code of RFC 6749 §5.2."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def outcome(self) -> str:
        return str(self.body.get("error", "ok"))


class SandboxServer(AuthorizationServer):  # type: ignore[misc]  # authlib ships no types
    """Issues codes and tokens to public clients."""

    def __init__(
        self,
        *,
        clients: tuple[PublicClient, ...],
        scopes: tuple[str, ...],
        ledger: Ledger,
        rules: RuleBook,
        knobs: KnobBoard,
        clock: Clock,
        records: Records,
    ) -> None:
        super().__init__(scopes_supported=list(scopes))
        self.ledger = ledger
        self.rules = rules
        self.knobs = knobs
        self.clock = clock
        self.records = records
        self._clients = {client.client_id: client for client in clients}
        self.register_token_generator("default", self._new_tokens)
        self.register_grant(CodeGrant, [RequireS256()])
        self.register_grant(RotatingRefreshGrant)
        self.register_grant(FederationGrant)
        self.register_endpoint(Revocation)

    def query_client(self, client_id: str) -> PublicClient | None:
        return self._clients.get(client_id)

    def create_oauth2_request(self, request: SandboxRequest) -> SandboxRequest:
        return request

    def handle_response(
        self, status: int, body: dict[str, Any] | str, headers: list[tuple[str, str]]
    ) -> OAuthAnswer:
        return OAuthAnswer(status, body if isinstance(body, dict) else {}, dict(headers))

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """The library's hook for frameworks that have signals; this one has none."""

    def save_token(self, token: dict[str, Any], request: SandboxRequest) -> None:
        """Write down what is about to be handed out. Both grants of people come through here."""
        now = self.clock.now()
        if request.refresh_token is not None:
            old = request.refresh_token.token
            family, refresh_expires_at = old.family, old.expires_at  # its life is counted from the login
        else:
            family = self.ledger.start_family(request.authorization_code.code)
            refresh_expires_at = now + self.knobs.now.refresh_token_seconds
        self.ledger.add_token(
            token["access_token"],
            kind="access",
            family=family,
            scope=token["scope"],
            expires_at=now + self.knobs.now.access_token_seconds,
        )
        refresh_token = token.get("refresh_token")
        if refresh_token is None:
            return
        if request.refresh_token is None or digest(refresh_token) != request.refresh_token.token.hash:
            self.ledger.add_token(
                refresh_token,
                kind="refresh",
                family=family,
                scope=token["scope"],
                expires_at=refresh_expires_at,
            )
        if self.knobs.now.send_refresh_token_expires_in:
            token["refresh_token_expires_in"] = max(0, int(refresh_expires_at - now))

    def log_in(self, account: Account) -> dict[str, Any]:
        """The token answer of a login without a browser, for whoever needs many of them."""
        now, scope = self.clock.now(), " ".join(self.scopes_supported)
        token = self._new_tokens(user=account, scope=scope, include_refresh_token=True)
        self.ledger.remember(account)
        family = self.ledger.add_family(account, next(iter(self._clients)), scope)
        for kind, seconds in (
            ("access", self.knobs.now.access_token_seconds),
            ("refresh", self.knobs.now.refresh_token_seconds),
        ):
            self.ledger.add_token(
                token[f"{kind}_token"], kind=kind, family=family, scope=scope, expires_at=now + seconds
            )
        if self.knobs.now.send_refresh_token_expires_in:
            token["refresh_token_expires_in"] = max(0, int(self.knobs.now.refresh_token_seconds))
        return token

    def revoke_for_reuse(self, family: str, because: str, account: Account) -> None:
        if self.ledger.revoke_family(family, because):
            self.records.event(f"families_revoked_{because}")
            _log.warning("%s: a login was revoked: %s", account.email, because.replace("_", " "))

    def new_access_token(self, seconds: float, scope: str, prefix: str = ACCESS_PREFIX) -> dict[str, Any]:
        """The token answer for an access token that lives so many seconds (RFC 6749 §5.1)."""
        told = self.knobs.now.expires_in
        return {
            "access_token": prefix + secrets.token_urlsafe(48),
            "token_type": "Bearer",
            "expires_in": int(seconds if told is None else told),
            "scope": scope,
        }

    def _new_tokens(
        self, *, user: Account, scope: str, include_refresh_token: bool, **_: object
    ) -> dict[str, Any]:
        prefix = ACCESS_PREFIX if self.knobs.now.claude_tokens else ""
        answer = self.new_access_token(self.knobs.now.access_token_seconds, scope, prefix)
        token = {**answer, **user.described()}
        if include_refresh_token:
            token["refresh_token"] = REFRESH_PREFIX + secrets.token_urlsafe(48)
        return token


class CodeGrant(AuthorizationCodeGrant):  # type: ignore[misc]  # authlib ships no types
    """Codes that work once, for ten minutes, for one client, one redirect URI, one verifier and one state."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
    server: SandboxServer

    @staticmethod
    def validate_authorization_redirect_uri(request: SandboxRequest, client: PublicClient) -> str:
        """Exact match. The error has no redirect_uri, so nobody is ever sent there (RFC 6749 §4.1.2.1)."""
        redirect_uri: str | None = request.payload.redirect_uri
        if redirect_uri is None:
            raise InvalidRequestError("Missing 'redirect_uri' in request.")
        if not client.check_redirect_uri(redirect_uri):
            raise InvalidRequestError(
                "The redirect URI is not registered for this client, character by character."
            )
        return redirect_uri

    def generate_authorization_code(self) -> str:
        return secrets.token_urlsafe(32)

    def save_authorization_code(self, code: str, request: SandboxRequest) -> None:
        self.server.ledger.add_code(
            code,
            account=request.user,
            client_id=request.client.client_id,
            redirect_uri=request.payload.redirect_uri,
            scope=request.scope,
            state=request.payload.state,
            challenge=request.payload.data["code_challenge"],
        )

    def query_authorization_code(self, code: str, client: PublicClient) -> IssuedCode:
        found = self.server.ledger.code(code)
        if found is None:
            raise InvalidGrantError("The authorization code is unknown.")
        if found.client_id != client.client_id:
            raise InvalidGrantError("The authorization code was issued to another client.")
        if found.family is not None:
            # RFC 6749 §4.1.2: deny, and revoke what was issued from it.
            self.server.revoke_for_reuse(found.family, "code_reuse", found.account)
            raise InvalidGrantError("The authorization code was used before; its tokens are revoked.")
        if found.expires_at <= self.server.clock.now():
            raise InvalidGrantError("The authorization code has expired.")
        state = self.request.payload.state
        if state is not None and not hmac.compare_digest(digest(state), found.state_hash or b""):
            raise InvalidGrantError("The state is not the one of the authorization request.")
        return IssuedCode(found)

    def authenticate_user(self, authorization_code: IssuedCode) -> Account:
        return authorization_code.account

    def delete_authorization_code(self, authorization_code: IssuedCode) -> None:
        """Saving the tokens has marked the code as used; its row stays, so that a second use is noticed."""


class RotatingRefreshGrant(RefreshTokenGrant):  # type: ignore[misc]  # authlib ships no types
    """Refresh tokens that work once; one that comes back ends the login for whoever holds a part of it."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
    server: SandboxServer

    def authenticate_refresh_token(self, refresh_token: str) -> IssuedToken:
        found = self.server.ledger.token(refresh_token, "refresh")
        if found is None:
            raise InvalidGrantError("The refresh token is unknown.")
        if found.revoked_because is not None:
            raise InvalidGrantError("The refresh token was revoked.")
        if found.spent:
            self.server.revoke_for_reuse(found.family, "refresh_token_reuse", found.account)
            raise InvalidGrantError("The refresh token was used before; the login is revoked.")
        if found.expires_at <= self.server.clock.now():
            raise InvalidGrantError("The refresh token has expired.")
        return IssuedToken(found, self.server.clock)

    def authenticate_user(self, refresh_token: IssuedToken) -> Account:
        return refresh_token.account

    def issue_token(self, user: Account, refresh_token: IssuedToken) -> dict[str, Any]:
        token: dict[str, Any] = self.generate_token(
            user=user,
            scope=self.request.payload.scope or refresh_token.get_scope(),
            include_refresh_token=self._rotates,
        )
        if self.server.knobs.now.send_refresh_token and not self._rotates:
            token["refresh_token"] = self.request.form["refresh_token"]
        return token

    def revoke_old_credential(self, refresh_token: IssuedToken) -> None:
        if self._rotates:
            self.server.ledger.spend(refresh_token.token)

    @property
    def _rotates(self) -> bool:
        return self.server.knobs.now.rotate and self.server.knobs.now.send_refresh_token


class Revocation(RevocationEndpoint):  # type: ignore[misc]  # authlib ships no types
    """A refresh token takes its family along, an access token only itself; unknown ones are fine (§2.2)."""

    CLIENT_AUTH_METHODS = ("none",)
    server: SandboxServer

    def check_params(self, request: SandboxRequest, client: PublicClient) -> None:
        if "token" not in request.form:
            raise InvalidRequestError("Missing 'token' in request.")

    def query_token(self, token_string: str, token_type_hint: str | None) -> IssuedToken | None:
        """The hint only saves a search elsewhere (§2.1); here there is one search."""
        found = self.server.ledger.token(token_string)
        return None if found is None else IssuedToken(found, self.server.clock)

    def revoke_token(self, token: IssuedToken, request: SandboxRequest) -> None:
        if token.token.kind == "refresh":
            self.server.ledger.revoke_family(token.token.family, "revoked_by_client")
        else:
            self.server.ledger.spend(token.token)
