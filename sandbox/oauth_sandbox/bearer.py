"""Who calls the API: bearer tokens that this sandbox issued, that live, and nothing else (RFC 6750)."""

from __future__ import annotations

from collections.abc import Mapping

from .api_errors import ApiError, unauthenticated
from .clock import Clock
from .ledger import Ledger, Token

BETA = "oauth-2025-04-20"
CLAUDE_PREFIX = "sk-ant-oat"


def presented(headers: Mapping[str, str]) -> str | None:
    """The bearer token of the Authorization header, whatever it is worth."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def authenticate(headers: Mapping[str, str], found: Token | None, clock: Clock) -> Token:
    """The token, which is good. ``found`` is what the ledger knows of it. Raises ApiError."""
    if "x-api-key" in headers:
        raise unauthenticated(
            "An x-api-key was sent. This API takes OAuth bearer tokens, and one credential at a time."
        )
    token = presented(headers)
    if token is None:
        raise unauthenticated("The Authorization header is missing, or is not 'Bearer' and a token.")
    if token.startswith(CLAUDE_PREFIX) and BETA not in (
        part.strip() for part in headers.get("anthropic-beta", "").split(",")
    ):
        raise unauthenticated(f"OAuth tokens need the header 'anthropic-beta: {BETA}'.")
    if found is None:
        raise unauthenticated("Invalid bearer token: this provider did not issue it as an access token.")
    if found.revoked_because is not None or found.spent:
        raise unauthenticated("The OAuth token has been revoked. Log in again.")
    if found.expires_at <= clock.now():
        raise unauthenticated("The OAuth token has expired. Refresh it, or log in again.")
    return found


def need_scope(token: Token, scope: str) -> None:
    """Raises ApiError where the token does not carry the scope (RFC 6750 §3.1)."""
    if scope not in token.scope.split():
        raise ApiError(403, "permission_error", f"The OAuth token does not have the scope {scope}.")


def look_up(headers: Mapping[str, str], ledger: Ledger) -> Token | None:
    token = presented(headers)
    return None if token is None else ledger.token(token, "access")
