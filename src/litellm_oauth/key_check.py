"""Tells a start with a wrong encryption key from a damaged row, by the check values that a store holds."""

from __future__ import annotations

from .cipher import Cipher
from .errors import SettingsError
from .stores import TokenStore

IN_DATABASE = "the table claude_oauth.key_checks"
IN_FILES = "key_checks.json in claude_oauth.journal_dir"


async def check_key(tokens: TokenStore, cipher: Cipher, where: str) -> None:
    """Compare the keyring with the check values in the store; add the current key's where it is new.

    ``where``: the place of the check values, for the fault.

    Raises SettingsError where the store was written with a key that is not in the keyring: to go on would
    make every stored login unreadable.
    """
    checks = await tokens.key_checks()
    known = [key_id for key_id, value in checks.items() if cipher.matches(key_id, value)]
    if len(known) == len(checks):
        if cipher.key_id in checks:
            return
        if await tokens.add_key_check(cipher.key_id, cipher.check_value(), known):
            return
        # Another gateway began at the same moment, with another key.
        checks = await tokens.key_checks()
    wrong = ", ".join(sorted(set(checks) - set(known) - {cipher.key_id})) or cipher.key_id
    raise SettingsError(
        [
            f"claude_oauth.encryption_key: is key {cipher.key_id}, but the stored tokens were written with "
            f"key {wrong}; put that key back, or list it in CLAUDE_TOKEN_ENCRYPTION_KEYS_OLD. If it is "
            f"lost, all have to log in again: delete it from {where} first"
        ]
    )
