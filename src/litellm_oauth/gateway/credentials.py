"""Which of a request's credentials is the gateway's key, and how LiteLLM gets to see that one alone.

Clients send it in different headers, with or without ``Bearer``; some send a login of the provider's beside
it, which stays here. Nothing is read but headers, so that it can be told before a body is.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import InvalidInput
from .bearer import CLAUDE_PREFIX
from .key_digest import digest

Headers = Sequence[tuple[bytes, bytes]]

# Where LiteLLM and the clients of both APIs put a key. The first is LiteLLM's own, for whoever needs the
# others.
_KEY_HEADERS = (
    b"x-litellm-api-key",
    b"authorization",
    b"x-api-key",
    b"api-key",
    b"x-goog-api-key",
    b"ocp-apim-subscription-key",
)
_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class GatewayKey:
    """A key that the gateway knows. ``user``: whose it is; None for the master key."""

    value: str = field(repr=False)
    user: str | None


class KeyRing:
    """The keys that the gateway knows by itself: the master key, and the digests of the users' keys."""

    def __init__(self, master_key: str | None, user_keys: Mapping[str, str]) -> None:
        self._master = None if master_key is None else _as_bytes(master_key)
        self._users = user_keys

    def find(self, headers: Headers) -> GatewayKey | None:
        """The key among all that the headers hold; None if the gateway knows none of them.

        Raises InvalidInput for keys of two owners: each reader would take another one (RFC 6750 §2).
        """
        found: GatewayKey | None = None
        for value in candidates(headers):
            key = self.of(value)
            if key is None or (found is not None and found.user == key.user):
                continue
            if found is not None:
                raise InvalidInput("The request carries the gateway keys of two owners. Send one key.")
            found = key
        return found

    def of(self, value: str) -> GatewayKey | None:
        """What the gateway knows of one key."""
        user = self._users.get(digest(value))
        if user is not None:
            return GatewayKey(value, user)
        if self._master is not None and hmac.compare_digest(_as_bytes(value), self._master):
            return GatewayKey(value, None)
        return None


def candidates(headers: Headers) -> Iterable[str]:
    """What may be a key of this gateway, in the order in which LiteLLM would look."""
    for wanted in _KEY_HEADERS:
        for name, raw in headers:
            if name == wanted:
                value = raw.decode("latin-1").strip()
                if value[: len(_SCHEME)].lower() == _SCHEME:
                    value = value[len(_SCHEME) :].strip()
                if value:
                    yield value


def is_of_the_provider(value: str) -> bool:
    """Whether a credential evidently is a login at the provider, and no key of a gateway."""
    return value.startswith(CLAUDE_PREFIX)


def with_key_alone(headers: Headers, key: str) -> list[tuple[bytes, bytes]]:
    """The headers with this key as a bearer, and no other credential."""
    kept = [pair for pair in headers if pair[0] not in _KEY_HEADERS]
    kept.append((b"authorization", b"Bearer " + key.encode("latin-1")))
    return kept


def _as_bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")
