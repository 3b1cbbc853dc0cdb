"""A workload with an identity of its own: an issuer's key, and the assertions that it signs (RFC 7523)."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(frozen=True)
class Workload:
    """Registered by ``rule``; ``name`` makes its issuer, its rule and its account its own."""

    name: str
    key: ECKey | RSAKey = field(
        default_factory=lambda: ECKey.generate_key("P-256", auto_kid=True), repr=False
    )

    @property
    def identity(self) -> dict[str, str]:
        """What an exchange names, by the provider's names."""
        return {
            "federation_rule_id": f"fdrl_{self.name}",
            "organization_id": "00000000-0000-4000-8000-000000000001",
            "service_account_id": f"svac_{self.name}",
        }

    @property
    def issuer(self) -> str:
        return f"https://{self.name}.issuer.example"

    @property
    def audience(self) -> str:
        return "https://provider.example"

    def rule(self, **changes: Any) -> dict[str, Any]:
        """The body for the sandbox's control route."""
        return {
            **self.identity,
            "issuer_url": self.issuer,
            "subject": f"workload:{self.name}",
            "audience": self.audience,
            "jwks": {"keys": [self.key.as_dict(private=False)]},
            "account": self.name,
            **changes,
        }

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What an assertion says; None leaves a claim out."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": f"workload:{self.name}",
            "aud": self.audience,
            "iat": now,
            "exp": now + 300,
            "jti": str(uuid.uuid4()),
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def assertion(self, *, key: ECKey | RSAKey | None = None, **changes: Any) -> str:
        """A fresh one, signed by this issuer, or by whoever has ``key``."""
        signing = key or self.key
        algorithm = "RS256" if isinstance(signing, RSAKey) else "ES256"
        header = {"alg": algorithm, **({"kid": signing.kid} if signing.kid else {})}
        return jwt.encode(header, self.claims(**changes), signing)
