"""The people who can sign in: anybody, by name. The same name is always the same account."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

DOMAIN = "sandbox.example"  # RFC 2606: no mail can ever reach it
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, DOMAIN)
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]{0,63}(@[a-z0-9][a-z0-9.-]{0,189})?")


class AccountNameError(Exception):
    """The name cannot be an account's; the message says what can."""


@dataclass(frozen=True, slots=True)
class Account:
    """A person, and the organization of one that they belong to."""

    name: str

    @property
    def email(self) -> str:
        return self.name if "@" in self.name else f"{self.name}@{DOMAIN}"

    @property
    def uuid(self) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"account:{self.name}"))

    def described(self) -> dict[str, dict[str, str]]:
        """The two members that a token answer carries beyond RFC 6749."""
        organization = str(uuid.uuid5(_NAMESPACE, f"organization:{self.name}"))
        return {
            "account": {"uuid": self.uuid, "email_address": self.email},
            "organization": {"uuid": organization, "name": f"{self.email}'s Organization"},
        }


def named(text: str) -> Account:
    """The account of a name or address as a person typed it. Raises AccountNameError."""
    name = text.strip().lower().removesuffix(f"@{DOMAIN}")
    if not _NAME.fullmatch(name):
        raise AccountNameError(
            "An account is a name such as alice, or an address: "
            "only letters, digits and the signs . _ + - are allowed."
        )
    return Account(name)
