"""The shapes an encryption key may be written in. No key is ever made up here."""

from __future__ import annotations

import base64
import binascii
import re

KEY_BYTES = 32
_HEX = re.compile(r"[0-9a-fA-F]{64}")


def decode_key(text: str) -> bytes:
    """The 32 bytes behind a Fernet key, 64 hex digits, or base64 (either alphabet) of 32 bytes.

    Raises ValueError with a reason that does not contain the key.
    """
    if _HEX.fullmatch(text):
        raw = bytes.fromhex(text)
    else:
        try:
            standard = text.replace("-", "+").replace("_", "/")
            raw = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        except (binascii.Error, ValueError):
            raw = b""
    if len(raw) != KEY_BYTES:
        raise ValueError(
            f"text of {len(text)} characters, not a key (a Fernet key, 64 hex digits, or base64 of 32 bytes)"
        )
    if len(set(raw)) == 1:
        raise ValueError("one byte repeated, a placeholder and not a key")
    return raw
