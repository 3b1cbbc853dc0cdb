"""The JWT bearer grant (RFC 7523 §2.1): a workload's signed assertion for a short-lived token."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from authlib.oauth2.rfc6749 import InvalidGrantError, InvalidRequestError
from authlib.oauth2.rfc7523 import JWTBearerGrant
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry

from .accounts import Account
from .federation import Rule
from .oauth_models import WORKLOAD_SCOPE, Workload

if TYPE_CHECKING:
    from .oauth_request import SandboxRequest
    from .oauth_server import SandboxServer

_REQUIRED = ("assertion", "federation_rule_id", "organization_id", "service_account_id")
_LEEWAY_SECONDS = 5
# The longest that an issuer may let an assertion live; a request with a later end was not meant for one use.
_MOST_SECONDS = 49 * 3600
_log = logging.getLogger(__name__)


class DeniedError(InvalidGrantError):  # type: ignore[misc]  # authlib ships no types
    """The same answer whatever is wrong, as Claude's is: only the administrator learns the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            "The exchange was denied. The control route counters has the reason.", status_code=401
        )
        self.reason = reason


class FederationGrant(JWTBearerGrant):  # type: ignore[misc]  # authlib ships no types
    """Assertions of a registered issuer, for the subject of the rule that is named, each good once."""

    request: SandboxRequest
    server: SandboxServer

    def validate_token_request(self) -> None:
        """Raises InvalidRequestError for what is left out, DeniedError for what is wrong."""
        form = self.request.form
        for name in _REQUIRED:
            if name not in form:
                raise InvalidRequestError(f"Missing '{name}' in request.")
        try:
            self._rule = self._named_rule(form)
            super().validate_token_request()
        except InvalidGrantError as error:
            reason = error.reason if isinstance(error, DeniedError) else "assertion_invalid"
            self.server.records.event(f"exchanges_denied_{reason}")
            _log.info("an exchange was denied: %s", reason)
            raise DeniedError(reason) from None

    def _named_rule(self, form: dict[str, str]) -> Rule:
        rule = self.server.rules.find(form["federation_rule_id"])
        if rule is None:
            raise DeniedError("rule_unknown")
        for name, reason in (("organization_id", "organization"), ("service_account_id", "service_account")):
            if form[name] != getattr(rule, name):
                raise DeniedError(f"{reason}_mismatch")
        workspace = form.get("workspace_id")
        if workspace is None and len(rule.workspaces) > 1:
            raise DeniedError("workspace_id_required")
        if workspace is not None and workspace not in rule.workspaces:
            raise DeniedError("workspace_mismatch")
        return rule

    def process_assertion_claims(self, assertion: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = super().process_assertion_claims(assertion)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # The library reads header and payload before it checks them, and neither has to make sense.
            raise DeniedError("assertion_invalid") from None
        return claims

    def resolve_issuer_client(self, issuer: str) -> Workload:
        if issuer != self._rule.issuer_url:
            raise DeniedError("issuer_mismatch")
        return Workload(self._rule)

    def resolve_client_public_key(self, client: Workload) -> KeySet:
        return KeySet.import_key_set(self._rule.jwks)  # type: ignore[arg-type]  # checked when it was registered

    def verify_claims(self, claims: dict[str, Any]) -> None:
        """RFC 7523 §3; the signature is good by now. An assertion that passes is used up."""
        rule = self._rule
        registry = JWTClaimsRegistry(
            now=int(self.server.clock.now()),
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": rule.issuer_url},
            aud={"essential": True, "value": rule.audience},
            sub={"essential": True, "value": rule.subject},
            exp={"essential": True},
            iat={"essential": True},
            jti={"essential": True},
        )
        try:
            registry.validate(claims)
        except JoseError as error:
            # The library names several where several are missing.
            name = str(getattr(error, "claim", "claims")).partition(",")[0]
            raise DeniedError(f"{name}_refused") from None
        if claims["exp"] - claims["iat"] > _MOST_SECONDS:
            raise DeniedError("exp_refused")
        if not self.server.rules.use_up(rule.issuer_url, claims["jti"], claims["exp"]):
            raise DeniedError("jti_reused")

    def authenticate_user(self, subject: str) -> Account:
        return self._rule.owner

    def has_granted_permission(self, client: Workload, user: Account) -> bool:
        """The rule grants it."""
        return True

    def save_token(self, token: dict[str, Any]) -> None:
        """Write down what is about to be handed out: a login of its own, without a refresh token."""
        ledger, account = self.server.ledger, self._rule.owner
        ledger.remember(account)
        ledger.add_token(
            token["access_token"],
            kind="access",
            family=ledger.add_family(account, self._rule.federation_rule_id, WORKLOAD_SCOPE),
            scope=WORKLOAD_SCOPE,
            expires_at=self.server.clock.now() + self._rule.token_seconds,
        )

    def create_token_response(self) -> tuple[int, dict[str, Any], Any]:
        """RFC 6749 §5.1."""
        token = self.server.new_access_token(self._rule.token_seconds, WORKLOAD_SCOPE)
        self.save_token(token)
        return 200, token, self.TOKEN_RESPONSE_HEADER
