"""The tiers put together: the authority decides, the files mirror it, the environment is imported.

* Each read makes the tiers agree. The higher generation wins, never the newer clock: a file that is ahead
  holds what was refreshed in an outage, or what a database lost that was put back to an older state.
* While the database is away, the files serve. They are spent from only where ``single_host`` says that no
  other gateway host exists, because then this host's lock is everybody's.
* Login, logout and import need the authority.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from ..errors import StorageUnavailable
from ..results import Actor
from . import TokenStore
from .environment import EnvironmentTokens
from .file import FileTokens
from .rows import Attempt, Claim, Failure, Note, PendingLogin, RowStatus, Sealed, TokenRow, Tombstone

_log = logging.getLogger(__name__)
# Seconds that the files stand in after the authority did not take a claim.
STANDS_IN = 10.0


class Tiers:
    """``stores.TokenStore`` over an authority and what stands in for it.

    ``files`` is None where the files are the authority themselves.
    """

    def __init__(
        self,
        authority: TokenStore,
        files: FileTokens | None,
        environment: EnvironmentTokens | None,
        actor: Actor,
        readable: Callable[[TokenRow], bool],
        *,
        single_host: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authority = authority
        self._files = files
        self._environment = environment
        self._actor = actor
        self._readable = readable
        self._single_host = single_host
        self._files_failed = False
        self._monotonic = monotonic
        self._stands_in_until = float("-inf")

    @property
    def source(self) -> str:
        return self._authority.source

    @property
    def down(self) -> bool:
        return self._authority.down

    @property
    def steady(self) -> bool:
        return self._authority.steady

    @property
    def look_again(self) -> float:
        return self._authority.look_again

    async def now(self) -> float:
        return await self._authority.now()

    async def load(self, user: str) -> TokenRow | None:
        """The user's row by the authority, else by the files, else by the environment."""
        found, kept = await asyncio.gather(
            self._authority.load(user), self._kept(user), return_exceptions=True
        )
        if isinstance(kept, BaseException):
            raise kept
        if isinstance(found, StorageUnavailable):
            stand_in = kept or self._of_environment(user)
            if stand_in is None or stand_in.status is RowStatus.LOGGED_OUT:
                # Who logged out here may have logged in elsewhere since.
                raise found
            return stand_in
        if isinstance(found, BaseException):
            raise found
        if kept is not None and (found is None or kept.generation > found.generation):
            found = await self._take_over(kept, found)
        if found is None:
            imported = self._of_environment(user)
            return None if imported is None else await self._restored(imported, "environment", missing=True)
        if self._files is not None and (kept is None or kept.generation < found.generation):
            await self.mirror(found)
        if kept is None or kept.generation != found.generation:
            return found
        return kept if self._held_below(kept) else await self._cooled(found, kept)

    async def _cooled(self, found: TokenRow, kept: TokenRow) -> TokenRow:
        """The authority's row, which learns of a wait that began while the files stood in."""
        until = kept.next_attempt_at or 0.0
        if kept.last_error is None or found.read_at is None or kept.updated_at <= found.updated_at:
            return found
        if until <= max(found.read_at, found.next_attempt_at or 0.0):
            return found
        note = Note(self._actor, "restore", found.user_id, "cooling_down", kept.last_error.partition(":")[0])
        with suppress(StorageUnavailable):
            await self._authority.cool(found, Failure(kept.last_error, until - found.read_at), note)
        return replace(found, last_error=kept.last_error, next_attempt_at=until)

    def _held_below(self, kept: TokenRow) -> bool:
        """Whether the files have the word on a row that both tiers hold.

        An attempt that began in the files ends there. And where the authority can be read but did not take a
        claim, what is judged has to be what is claimed.
        """
        return kept.attempt_id is not None or self._monotonic() < self._stands_in_until

    async def page(self, after: str | None, limit: int) -> Sequence[TokenRow]:
        try:
            return await self._authority.page(after, limit)
        except StorageUnavailable:
            if self._files is None:
                raise
            return await self._files.page(after, limit)

    async def unfinished(self, host: str, limit: int) -> Sequence[TokenRow]:
        try:
            return await self._authority.unfinished(host, limit)
        except StorageUnavailable:
            if self._files is None or not self._single_host:
                raise
            return await self._files.unfinished(host, limit)

    async def due(
        self, buffer: float, after: TokenRow | None, limit: int, host: str, *, doubtful: bool
    ) -> Sequence[TokenRow]:
        while True:
            try:
                rows = await self._authority.due(buffer, after, limit, host, doubtful=doubtful)
            except StorageUnavailable:
                if self._files is None or not self._single_host:
                    raise
                return await self._files.due(buffer, after, limit, host, doubtful=doubtful)
            behind = await asyncio.gather(*(self._is_behind(row) for row in rows))
            current = [row for row, is_behind in zip(rows, behind, strict=True) if not is_behind]
            if current or not rows:
                return current
            after = rows[-1]

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
        if self._holder(row) is self._authority:
            try:
                return await self._authority.claim(
                    row, attempt, lease, actor, doubtful=doubtful, forced=forced
                )
            except StorageUnavailable:
                if self._files is None or not self._single_host:
                    raise
                # From the next look at the row on.
                self._stands_in_until = self._monotonic() + STANDS_IN
                return None
        kept = await self._kept(row.user_id)
        if self._files is None or kept is None or kept.generation != row.generation or not self._single_host:
            raise StorageUnavailable(
                f"The database is away, so the token of {row.user_id} is not refreshed now: another gateway "
                "host may do so. Look at the database."
            )
        return await self._files.claim(kept, attempt, lease, actor, doubtful=doubtful, forced=forced)

    async def renew(self, claim: Claim, lease: float) -> bool:
        return await self._holder(claim.row).renew(claim, lease)

    async def save(self, claim: Claim, sealed: Sealed, note: Note) -> TokenRow | None:
        store = self._holder(claim.row)
        try:
            return await store.save(claim, sealed, note)
        except StorageUnavailable:
            if store is self._authority:
                # Other processes of this host serve it meanwhile; that it is not lost is the journal's doing.
                await self.mirror(_after(claim.row, sealed))
            raise

    async def replay(self, claim: Claim, sealed: Sealed, note: Note) -> TokenRow | None:
        return await self._holder(claim.row).replay(claim, sealed, note)

    async def restore(self, row: TokenRow, note: Note, *, missing: bool) -> TokenRow | None:
        return await self._authority.restore(row, note, missing=missing)

    async def mirror(self, row: TokenRow) -> bool:
        if self._files is None:
            return True
        written = await self._files.mirror(row)
        if not written and not self._files_failed:
            _log.warning("the token files cannot be written; they will not stand in for the database")
        self._files_failed = not written
        return written

    async def fail(self, claim: Claim, failure: Failure, note: Note) -> bool:
        return await self._told(claim.row, await self._holder(claim.row).fail(claim, failure, note))

    async def abandon(self, row: TokenRow, attempt: Attempt) -> None:
        await self._holder(row).abandon(row, attempt)

    async def condemn(self, claim: Claim, last_error: str, note: Note) -> bool:
        return await self._told(claim.row, await self._holder(claim.row).condemn(claim, last_error, note))

    async def cool(self, row: TokenRow, failure: Failure, note: Note) -> bool:
        return await self._told(row, await self._holder(row).cool(row, failure, note))

    async def log_in(
        self, login: PendingLogin, claimed_by: UUID, sealed: Sealed, note: Note
    ) -> TokenRow | None:
        await self._agree(login.user_id)
        return await self._mirrored(await self._authority.log_in(login, claimed_by, sealed, note))

    async def import_login(
        self, user: str, sealed: Sealed, note: Note, *, logged_in_at: float | None, over: int | None
    ) -> TokenRow | None:
        await self._agree(user)
        row = await self._authority.import_login(user, sealed, note, logged_in_at=logged_in_at, over=over)
        return await self._mirrored(row)

    async def rename(self, row: TokenRow, to: TokenRow, note: Note) -> TokenRow | None:
        await self._agree(to.user_id)
        renamed = await self._authority.rename(row, to, note)
        if renamed is not None:
            await self.mirror(renamed)
            if (gone := await self._authority.load(row.user_id)) is not None:
                await self.mirror(gone)
        return renamed

    async def log_out(self, user: str, note: Note) -> Tombstone | None:
        tombstone = await self._authority.log_out(user, note)
        if tombstone is not None and (row := await self._authority.load(user)) is not None:
            await self.mirror(row)
        return tombstone

    async def next_due_in(self, buffer: float) -> float | None:
        return await self._authority.next_due_in(buffer)

    async def touch(self, last_used: Mapping[str, float]) -> None:
        await self._authority.touch(last_used)

    async def forward_notes(self) -> None:
        """Bring what the files noted while they stood in into the authority's audit."""
        if self._files is None:
            return
        notes = await self._files.take_notes()
        for at, note in notes:
            moment = datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="seconds")
            detail = f"{note.detail}, at {moment}" if note.detail else f"at {moment}"
            try:
                await self._authority.write_note(replace(note, detail=detail))
            except StorageUnavailable as error:
                if self._authority.down:
                    raise
                # One that it will never take must not hold up the others.
                _log.error("the audit does not take a line about %s: %s", note.user_id, error.message)
        if notes:
            await self._files.forget_taken()

    async def write_note(self, note: Note) -> None:
        await self._authority.write_note(note)

    async def key_checks(self) -> Mapping[str, str]:
        return await self._authority.key_checks()

    async def add_key_check(self, key_id: str, check_value: str, known: Sequence[str]) -> bool:
        return await self._authority.add_key_check(key_id, check_value, known)

    def _holder(self, row: TokenRow) -> TokenStore:
        """The tier that an operation on this row belongs to."""
        if self._files is not None and row.source == self._files.source:
            return self._files
        return self._authority

    async def _kept(self, user: str) -> TokenRow | None:
        """What the files hold; a file that cannot be used holds nothing."""
        if self._files is None:
            return None
        try:
            kept = await self._files.load(user)
        except StorageUnavailable as error:
            if not self._files_failed:
                _log.warning("%s", error.message)
            self._files_failed = True
            return None
        # What was written with a key that is gone must not win over what can be read.
        return kept if kept is not None and self._readable(kept) else None

    async def _agree(self, user: str) -> None:
        """Have a person's act go on counting from the highest generation that is known on this host."""
        if self._files is None or await self.load(user) is not None:
            return
        kept = await self._kept(user)
        if kept is not None:
            # The authority was blanked, and another host may know better: only the count goes on.
            await self._restored(_logged_out(kept), "file", missing=True)

    async def _mirrored(self, row: TokenRow | None) -> TokenRow | None:
        if row is not None:
            await self.mirror(row)
        return row

    async def _told(self, row: TokenRow, changed: bool) -> bool:
        """Have the files know what the authority was told of this row: they may have to stand in."""
        if changed and self._files is not None and row.source == self._authority.source:
            with suppress(StorageUnavailable):
                current = await self._authority.load(row.user_id)
                if current is not None:
                    await self.mirror(current)
        return changed

    async def _is_behind(self, row: TokenRow) -> bool:
        """Whether the files are ahead of a row of the authority, which is then told what they hold."""
        kept = await self._kept(row.user_id)
        if kept is None or kept.generation <= row.generation:
            return False
        await self._take_over(kept, row)
        return True

    async def _take_over(self, kept: TokenRow, found: TokenRow | None) -> TokenRow | None:
        """The authority's row after it was told of a file that is ahead of it."""
        try:
            restored = await self._restored(kept, "file", missing=self._single_host)
        except StorageUnavailable:
            # It can be read and not written. What is newer serves all the same.
            return kept
        return restored or await self._authority.load(kept.user_id)

    def _of_environment(self, user: str) -> TokenRow | None:
        return None if self._environment is None else self._environment.load(user)

    async def _restored(self, row: TokenRow, origin: str, *, missing: bool) -> TokenRow | None:
        note = Note(self._actor, "restore", row.user_id, "restored", origin)
        restored = await self._authority.restore(row, note, missing=missing)
        if restored is not None:
            _log.warning("took over a token of %s from the %s", row.user_id, origin)
        return restored


def _after(before: TokenRow, sealed: Sealed) -> TokenRow:
    """The row as it will be when the authority has saved what was received."""
    return replace(
        before,
        access_token=sealed.access_token,
        refresh_token=sealed.refresh_token,
        expires_at=sealed.expires_at,
        refresh_expires_at=sealed.refresh_expires_at,
        scopes=sealed.scopes,
        account=sealed.account,
        client_id=sealed.client_id,
        generation=before.generation + 1,
        refresh_count=before.refresh_count + 1,
        status=RowStatus.ACTIVE,
        last_error=None,
        next_attempt_at=None,
    )


def _logged_out(row: TokenRow) -> TokenRow:
    """What a logout would have left of the row, but for its generation."""
    return replace(
        row,
        access_token=None,
        refresh_token=None,
        expires_at=None,
        refresh_expires_at=None,
        scopes=(),
        account=None,
        client_id=None,
        status=RowStatus.LOGGED_OUT,
        last_error=None,
        next_attempt_at=None,
        logged_in_at=None,
    )
