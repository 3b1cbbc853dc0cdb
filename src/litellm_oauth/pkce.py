"""Proof Key for Code Exchange (RFC 7636) with S256, and the ``state`` of a login (RFC 6749 §10.12)."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

# 64 random bytes are 86 unreserved characters; RFC 7636 §4.1 allows 43 to 128.
VERIFIER_BYTES = 64
STATE_BYTES = 32

RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Challenge:
    """One login's secrets. The state is random on its own: never the verifier (it travels in URLs)."""

    verifier: str = field(repr=False)
    challenge: str
    state: str = field(repr=False)


def new_challenge(random_bytes: RandomBytes = secrets.token_bytes) -> Challenge:
    """A fresh verifier, its S256 challenge (RFC 7636 §4.2) and a state."""
    verifier = _base64url(random_bytes(VERIFIER_BYTES))
    return Challenge(verifier, s256(verifier), _base64url(random_bytes(STATE_BYTES)))


def s256(verifier: str) -> str:
    """BASE64URL(SHA256(verifier)) without padding, RFC 7636 §4.2."""
    return _base64url(hashlib.sha256(verifier.encode("ascii")).digest())


def state_hash(state: str) -> str:
    """What is stored of a state: its SHA-256, so that a read of the table opens no login."""
    return hashlib.sha256(state.encode("utf-8", "surrogatepass")).hexdigest()


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
