"""What stores hold and hand over: sealed rows. A store never sees a token in the clear.

Times are seconds since the epoch by the authority's clock, lengths of time are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from ..results import Actor

# Seconds. A lease that ends later was given under a wrong clock, and is over.
LONGEST_LEASE = 60.0


class RowStatus(StrEnum):
    """What a row says of itself; everything else (due, in doubt …) follows from its times and its attempt."""

    ACTIVE = "active"
    REAUTH_REQUIRED = "reauth_required"
    LOGGED_OUT = "logged_out"


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted token set as it is written. ``rest`` keeps the provider in peace for so many seconds.

    ``client_id``: to whom the refresh token was issued; None where nobody knows.
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: float
    refresh_expires_at: float | None
    scopes: tuple[str, ...]
    account: Mapping[str, Any] | None
    rest: float | None = None
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderState:
    """How the token endpoint stands, for all users: ``failures`` in a row, and ``rests_for`` so many seconds
    because of ``reason``."""

    failures: int = 0
    rests_for: float = 0.0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """What a failed attempt leaves behind. ``wait``: seconds in which the provider is left in peace for this
    user. ``counts``: it is the provider's failure and not this user's; ``rest``: seconds for everybody."""

    last_error: str
    wait: float
    rest: float | None = None
    counts: bool = False


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One user's row.

    ``leased_for`` is what is left of somebody's live lease. ``in_doubt`` says that an attempt outlived its
    lease, so that nobody knows whether the refresh token was spent; ``attempt_host`` names the journal that
    may hold the answer. ``forced_today`` counts the forced refreshes of this day (UTC). ``read_at`` is when
    the authority read it, by its clock; None where the tier has no clock of its own.
    ``provider`` is how the provider stands for everybody, ``source`` the tier that was read.
    ``client_id`` is the client that the refresh token was issued to; None where nobody knows.
    """

    user_id: str
    access_token: str | None = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: float | None
    refresh_expires_at: float | None
    scopes: tuple[str, ...]
    account: Mapping[str, Any] | None
    generation: int
    status: RowStatus
    last_error: str | None
    next_attempt_at: float | None
    attempt_id: UUID | None
    attempt_host: str | None
    refresh_count: int
    forced_today: int
    logged_in_at: float | None
    updated_at: float
    leased_for: float
    in_doubt: bool
    read_at: float | None
    provider: ProviderState
    source: str
    client_id: str | None = None

    def is_for(self, client_id: str) -> bool:
        """Whether this client may use the refresh token (RFC 6749 §6)."""
        return self.client_id in (None, client_id)


@dataclass(frozen=True, slots=True)
class CachedToken:
    """What the cache holds of a row: enough to serve a request, and nothing that could be spent.

    ``access_token`` is sealed. Without one it is a tombstone: nothing up to this generation serves.
    """

    user_id: str
    generation: int
    access_token: str | None = field(default=None, repr=False)
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """Who wants to spend a refresh token: a fresh id per attempt, the process and its host."""

    attempt_id: UUID
    owner: UUID
    host: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease that was taken: the row to be spent. A save counts only where generation and attempt match.

    ``doubted_host`` is set where the attempt before it outlived its lease: the host of that attempt.
    """

    row: TokenRow
    attempt: Attempt
    doubted_host: str | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """One line of the audit table. ``detail`` is a stable word or a short reason, never a token."""

    actor: Actor
    action: str
    user_id: str
    outcome: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What a logout left behind, and the sealed values it took away, for the revocation."""

    generation: int
    access_token: str | None = field(repr=False)
    refresh_token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewLogin:
    """A login to be stored until its code comes. ``lifetime`` is in seconds."""

    user_id: str
    state_hash: str
    verifier: str = field(repr=False)
    issuer: str
    redirect_uri: str
    lifetime: float
    created_by: str


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """A stored login. ``verifier`` is sealed, and None once the login was used."""

    login_id: UUID
    user_id: str
    state_hash: str
    verifier: str | None = field(repr=False)
    issuer: str
    redirect_uri: str
    expired: bool
    used: bool
