"""The ledger's records as the OAuth library wants to see them."""

from __future__ import annotations

from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin, TokenMixin

from .accounts import Account
from .clock import Clock
from .federation import Rule
from .ledger import Code, Token

WORKLOAD_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"  # RFC 7523 §2.1
WORKLOAD_SCOPE = "user:inference"
GRANT_TYPES = ("authorization_code", "refresh_token", WORKLOAD_GRANT)


class PublicClient(ClientMixin):  # type: ignore[misc]  # authlib ships no types
    """A client without a secret (RFC 6749 §2.1); PKCE is what binds its code to it."""

    def __init__(self, client_id: str, redirect_uris: tuple[str, ...], scopes: tuple[str, ...]) -> None:
        self.client_id = client_id
        self.redirect_uris = redirect_uris
        self._scopes = scopes

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        """None: the request has to name it, so that both legs of the flow can be compared."""

    def get_allowed_scope(self, scope: str | None) -> str:
        return scope or " ".join(self._scopes)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Simple string comparison, nothing normalised (RFC 6749 §3.1.2.3, RFC 9700 §2.1)."""
        return redirect_uri in self.redirect_uris

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "none"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in {"authorization_code", "refresh_token"}


class Workload(ClientMixin):  # type: ignore[misc]  # authlib ships no types
    """Who exchanges assertions by a rule; the signature is what it proves itself with (RFC 7521 §6.3.1)."""

    def __init__(self, rule: Rule) -> None:
        self.client_id = rule.federation_rule_id

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        return WORKLOAD_SCOPE

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == WORKLOAD_GRANT


class IssuedCode(AuthorizationCodeMixin):  # type: ignore[misc]  # authlib ships no types
    """An authorization code on its way to being used."""

    code_challenge_method = "S256"

    def __init__(self, code: Code) -> None:
        self.code = code
        self.code_challenge = code.challenge

    @property
    def account(self) -> Account:
        return self.code.account

    def get_redirect_uri(self) -> str:
        return self.code.redirect_uri

    def get_scope(self) -> str:
        return self.code.scope


class IssuedToken(TokenMixin):  # type: ignore[misc]  # authlib ships no types
    """A refresh or access token that somebody presented."""

    def __init__(self, token: Token, clock: Clock) -> None:
        self.token = token
        self._clock = clock

    @property
    def account(self) -> Account:
        return self.token.account

    def check_client(self, client: PublicClient) -> bool:
        return self.token.client_id == client.client_id

    def get_scope(self) -> str:
        return self.token.family_scope

    def get_expires_in(self) -> float:
        return self.token.expires_at - self._clock.now()

    def is_expired(self) -> bool:
        return self.get_expires_in() <= 0

    def is_revoked(self) -> bool:
        return self.token.revoked_because is not None
