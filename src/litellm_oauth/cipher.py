"""Encrypts single values: AES-256-GCM, ``v1.<key id>.<base64url(nonce || ciphertext || tag)>``.

The key is derived by HKDF-SHA256 (RFC 5869) from the configured one. User id and field are associated data,
so that a value copied to another row or column does not decrypt. Older keys of the keyring still decrypt, and
so do Fernet values of others where a configured key is their Fernet key (a Fernet value is bound to no row).
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .errors import SettingsError, Unreadable
from .keys import KEY_BYTES, decode_key
from .pkce import RandomBytes

CONTEXT = b"litellm_oauth/v1"
NONCE_BYTES = 12
_VALUE = re.compile(r"v1\.([0-9a-f]{16})\.([A-Za-z0-9_-]+)")
_FERNET_START = "gAAAAA"
_CHECK_FIELD = "key_check"


@dataclass(frozen=True, slots=True)
class _Key:
    key_id: str
    aead: AESGCM = field(repr=False)
    fernet: Fernet = field(repr=False)


class Cipher:
    """A keyring: the current key encrypts, all keys decrypt."""

    def __init__(
        self, key: str, old_keys: Sequence[str] = (), *, random_bytes: RandomBytes = secrets.token_bytes
    ) -> None:
        """Raises SettingsError for a missing or malformed key; a key is never made up."""
        self._random_bytes = random_bytes
        faults: list[str] = []
        keys: list[_Key] = []
        for name, text in [("encryption_key", key), *(("an old encryption key", old) for old in old_keys)]:
            try:
                keys.append(_derive(decode_key(text)))
            except ValueError as error:
                faults.append(f"{name}: is {error}; make one with: openssl rand -hex 32")
        if faults:
            raise SettingsError(faults)
        self._current = keys[0]
        self._keys = {item.key_id: item for item in reversed(keys)}

    @property
    def key_id(self) -> str:
        """The id of the key that encrypts: derived from the key, and tells nothing about it."""
        return self._current.key_id

    def encrypt(self, value: str, *, user: str, field: str) -> str:
        """Seal ``value`` for this user's ``field``."""
        nonce = self._random_bytes(NONCE_BYTES)
        sealed = self._current.aead.encrypt(nonce, value.encode("utf-8"), _associated_data(user, field))
        text = base64.urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode("ascii")
        return f"v1.{self._current.key_id}.{text}"

    def decrypt(self, value: str, *, user: str, field: str) -> str:
        """Open what ``encrypt`` sealed for the same user and field, or a Fernet value. Raises Unreadable."""
        if value.startswith(_FERNET_START):
            return self._decrypt_fernet(value)
        match = _VALUE.fullmatch(value)
        if match is None:
            raise Unreadable(
                "The stored value has no form that this version knows. Log in again to replace it."
            )
        key = self._keys.get(match[1])
        if key is None:
            raise Unreadable(
                f"The stored value was encrypted with key {match[1]}, which is not configured. "
                "Put that key into CLAUDE_TOKEN_ENCRYPTION_KEYS_OLD, or log in again."
            )
        try:
            raw = base64.urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4))
            opened = key.aead.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _associated_data(user, field))
            return opened.decode("utf-8")
        except (InvalidTag, ValueError, binascii.Error):
            raise Unreadable(
                "The stored value does not decrypt: it is damaged, or belongs to another user or column. "
                "Log in again to replace it."
            ) from None

    def check_value(self) -> str:
        """What is stored once per key id and tells at the next start whether the key is still the same."""
        return self.encrypt(self.key_id, user="", field=_CHECK_FIELD)

    def matches(self, key_id: str, check_value: str) -> bool:
        """Whether the keyring holds the very key that made ``check_value``."""
        try:
            return self.decrypt(check_value, user="", field=_CHECK_FIELD) == key_id
        except Unreadable:
            return False

    def _decrypt_fernet(self, value: str) -> str:
        for key in self._keys.values():
            try:
                return key.fernet.decrypt(value.encode("ascii")).decode("utf-8")
            except (InvalidToken, ValueError):
                continue
        raise Unreadable("The stored Fernet value decrypts with none of the configured keys. Log in again.")


def _derive(raw: bytes) -> _Key:
    key = HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=CONTEXT + b"/aes-256-gcm").derive(raw)
    key_id = HKDF(hashes.SHA256(), 8, salt=None, info=CONTEXT + b"/key-id").derive(raw).hex()
    return _Key(key_id, AESGCM(key), Fernet(base64.urlsafe_b64encode(raw)))


def _associated_data(user: str, field: str) -> bytes:
    """Length-prefixed parts: no two different (user, field) pairs give the same bytes."""
    parts = (CONTEXT, user.encode("utf-8", "surrogatepass"), field.encode("utf-8"))
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)
