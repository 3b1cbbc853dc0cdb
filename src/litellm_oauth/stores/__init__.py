"""Where tokens live. One small protocol; the service composes the stores and is the only one that writes.

Each method is one step that happens whole or not at all, and raises StorageUnavailable where the store cannot
be reached. A ``note`` is written to the audit table in the same step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from ..results import Actor
from .rows import (
    Attempt,
    CachedToken,
    Claim,
    Failure,
    NewLogin,
    Note,
    PendingLogin,
    ProviderState,
    RowStatus,
    Sealed,
    TokenRow,
    Tombstone,
)

__all__ = [
    "Attempt",
    "CachedToken",
    "Claim",
    "Failure",
    "LoginStore",
    "NewLogin",
    "Note",
    "PendingLogin",
    "ProviderState",
    "RowStatus",
    "Sealed",
    "TokenCache",
    "TokenRow",
    "TokenStore",
    "Tombstone",
]


class TokenStore(Protocol):
    """The authority for token rows. Generations only grow; every write checks what it replaces."""

    @property
    def source(self) -> str:
        """The name of this tier, shown in a user's status."""
        ...

    @property
    def down(self) -> bool:
        """Whether the store failed so recently that a request had better not wait for it."""
        ...

    @property
    def steady(self) -> bool:
        """Whether the store has answered for so long that others could save what came in an outage."""
        ...

    @property
    def look_again(self) -> float:
        """Seconds after which somebody who waits for another process looks at the row again."""
        ...

    async def now(self) -> float:
        """Seconds since the epoch by the authority's clock."""
        ...

    async def load(self, user: str) -> TokenRow | None:
        """The user's row, or None for somebody who never logged in."""
        ...

    async def page(self, after: str | None, limit: int) -> Sequence[TokenRow]:
        """Up to ``limit`` rows with a user id after ``after``, in order of the user id."""
        ...

    async def unfinished(self, host: str, limit: int) -> Sequence[TokenRow]:
        """Rows with an attempt of ``host``, be its process alive or not."""
        ...

    async def claim(
        self,
        row: TokenRow,
        attempt: Attempt,
        lease: float,
        actor: Actor,
        *,
        doubtful: bool = False,
        forced: bool = False,
    ) -> Claim | None:
        """Take the lease on exactly this generation for ``lease`` seconds, and commit the attempt.

        None where it cannot be had: another lease lives, the generation moved, there is nothing to spend, the
        provider rests, or an attempt is in doubt. With ``doubtful`` an attempt in doubt of another host is
        followed by another one, once the access token has expired; that is written to the audit table in the
        same step. A ``forced`` one is counted.
        """
        ...

    async def due(
        self, buffer: float, after: TokenRow | None, limit: int, host: str, *, doubtful: bool
    ) -> Sequence[TokenRow]:
        """Rows whose token expires within ``buffer`` seconds and that ``host`` could claim now.

        The most urgent first; ``after`` is the last row of the page before.
        """
        ...

    async def renew(self, claim: Claim, lease: float) -> bool:
        """Prolong an own lease. False where it is no longer the own one."""
        ...

    async def save(self, claim: Claim, sealed: Sealed, note: Note) -> TokenRow | None:
        """Write what the provider gave and end the attempt. None where generation or attempt moved on."""
        ...

    async def replay(self, claim: Claim, sealed: Sealed, note: Note) -> TokenRow | None:
        """Write what came for this generation, whatever became of the attempt. None where it moved on."""
        ...

    async def restore(self, row: TokenRow, note: Note, *, missing: bool) -> TokenRow | None:
        """Take over the row of another tier where its generation is higher; None where it is not.

        ``missing``: also where this store has no row of the user at all.
        """
        ...

    async def mirror(self, row: TokenRow) -> bool:
        """Have the lower tiers agree with a row of this store. False where one could not be written."""
        ...

    async def fail(self, claim: Claim, failure: Failure, note: Note) -> bool:
        """End the attempt without a token. False where generation or attempt moved on."""
        ...

    async def abandon(self, row: TokenRow, attempt: Attempt) -> None:
        """End an attempt on this row that spent nothing, if it was ever committed."""
        ...

    async def condemn(self, claim: Claim, last_error: str, note: Note) -> bool:
        """End the attempt and mark the login dead, where the refresh token that was spent is still stored."""
        ...

    async def cool(self, row: TokenRow, failure: Failure, note: Note) -> bool:
        """Leave the provider in peace for this user, where the generation is still this one."""
        ...

    async def log_in(
        self, login: PendingLogin, claimed_by: UUID, sealed: Sealed, note: Note
    ) -> TokenRow | None:
        """Use up a claimed login, write its tokens, end any attempt. None where the claim was lost."""
        ...

    async def import_login(
        self, user: str, sealed: Sealed, note: Note, *, logged_in_at: float | None, over: int | None
    ) -> TokenRow | None:
        """Write tokens from elsewhere as the user's login, and end any attempt.

        ``logged_in_at``: when the person consented; now where that is unknown or would be in the future.
        ``over``: the only generation that may be replaced, 0 for no row at all; None replaces any. Returns
        None where it is another one.
        """
        ...

    async def rename(self, row: TokenRow, to: TokenRow, note: Note) -> TokenRow | None:
        """Put ``to`` in place of ``row``, which becomes a logout; both happen or none.

        None where ``row`` moved on or is being refreshed, or where the new user is logged in.
        """
        ...

    async def log_out(self, user: str, note: Note) -> Tombstone | None:
        """Take the tokens away, raise the generation, end any attempt. None where nobody was logged in."""
        ...

    async def next_due_in(self, buffer: float) -> float | None:
        """Seconds until the next token is due and may be tried (negative: it is); None if there is none."""
        ...

    async def touch(self, last_used: Mapping[str, float]) -> None:
        """Record when tokens were last handed out."""
        ...

    async def forward_notes(self) -> None:
        """Take over audit lines that lower tiers wrote while this store was away."""
        ...

    async def write_note(self, note: Note) -> None:
        """Add a line to the audit table on its own."""
        ...

    async def key_checks(self) -> Mapping[str, str]:
        """The check values of the encryption keys in use, by key id."""
        ...

    async def add_key_check(self, key_id: str, check_value: str, known: Sequence[str]) -> bool:
        """Store a key's check value, unless there is one of a key that is neither it nor ``known``."""
        ...


class TokenCache(Protocol):
    """Speed, and never the truth: what it says is read again from the authority as soon as that can be.

    Nothing here raises, and nothing waits longer than the cache's time-out.
    """

    def open(self) -> None:
        """Begin to connect; without this, the first question does so."""
        ...

    async def get(self, user: str) -> CachedToken | None:
        """A token that has not expired, if there is one. It may be of an older generation."""
        ...

    def put(self, row: TokenRow) -> None:
        """Have a row of the authority written soon, unless a newer generation is there."""
        ...

    def forget(self, user: str, generation: int) -> None:
        """Have everything up to this generation forgotten soon, and not be written by anybody who is late."""
        ...

    async def bury(self, user: str, generation: int) -> None:
        """``forget``, and wait until it is done or the time-out has passed; then it is done later."""
        ...

    async def close(self) -> None:
        """Write what was put a moment ago, and disconnect."""
        ...


class LoginStore(Protocol):
    """Logins that wait for their code."""

    async def add(self, login: NewLogin, note: Note, keep: int) -> float:
        """Store a login, keeping at most ``keep`` of this user's; returns when it expires."""
        ...

    async def of_user(self, user: str) -> Sequence[PendingLogin]:
        """This user's logins, the newest first; used and expired ones too while they are remembered."""
        ...

    async def claim(self, login_id: UUID, claimed_by: UUID, lease: float) -> bool:
        """Take the login for one exchange. False where another holds it, or it was used or has expired."""
        ...

    async def release(self, login_id: UUID, claimed_by: UUID) -> None:
        """Give an own claim back; the login can be tried again."""
        ...

    async def use_up(self, login_id: UUID, claimed_by: UUID, note: Note) -> None:
        """End a claimed login whose code was refused."""
        ...

    async def purge(self, remember: float) -> int:
        """Remove logins that expired more than ``remember`` seconds ago; returns how many."""
        ...
