"""Proof Key for Code Exchange, stricter than the library's own default: S256 always, said in so many words.

RFC 7636 and RFC 9700 §2.1.1: ``plain`` shows the verifier to whoever reads the authorization request, and a
server has to prevent downgrades to it.
"""

from __future__ import annotations

import re
from typing import Any

from authlib.oauth2.rfc6749 import InvalidRequestError
from authlib.oauth2.rfc7636 import CodeChallenge

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # base64url of 32 bytes, unpadded (§4.2)


class RequireS256(CodeChallenge):  # type: ignore[misc]  # authlib ships no types
    """Checks the challenge; the verifier's form (§4.1) and comparing the two are the library's part."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)
    CODE_CHALLENGE_METHODS = {"S256": CodeChallenge.CODE_CHALLENGE_METHODS["S256"]}  # noqa: RUF012 (the library's shape)

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        parameters = grant.request.payload.data
        challenge = parameters.get("code_challenge")
        if not challenge:
            raise InvalidRequestError("Code challenge required (RFC 7636, 4.4.1).")
        if parameters.get("code_challenge_method") != "S256":
            # §4.3: a method that is left out means plain.
            raise InvalidRequestError(
                "Transform algorithm not supported: code_challenge_method must be S256."
            )
        if not _CHALLENGE.fullmatch(challenge):
            raise InvalidRequestError(
                "'code_challenge' must be the base64url of a SHA-256 digest: 43 characters."
            )
