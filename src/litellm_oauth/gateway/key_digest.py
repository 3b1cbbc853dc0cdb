"""How a user's gateway key is kept."""

from __future__ import annotations

import hashlib


def digest(key: str) -> str:
    """A key's SHA-256 in hexadecimal. No salt could improve on 256 random bits."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
