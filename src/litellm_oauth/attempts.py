"""From the journal's record to the end of an attempt, also where the process that began it is gone.

The rules that keep a login alive through a crash:

* A record lies on the disk before the provider is asked; the answer goes to the disk and the store at once.
* What cannot be written to the store stays in the journal, and any process of this host writes it later.
* An attempt of this host without a record never asked: its token may be spent. One with a record but without
  an answer may have: its token is tried once more when the access token has been used up.
* An answer is replayed only where the store still holds the very token that was spent. Where a login or a
  logout came first, the answer is revoked: the person's act wins.
* The journal of another host is that host's; see ``judgement`` for how long it is waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

from .backoff import ANSWER_LOST, describe
from .clock import AuthorityClock
from .errors import StorageUnavailable, Unreadable
from .hostlock import Hold, of_refresh
from .journal import Condemned, Entry, Failed, Journal, Outcome, Received, Record, name_of
from .provider import Provider
from .results import Actor
from .stores import Attempt, Claim, Failure, Note, RowStatus, Sealed, TokenRow, TokenStore
from .stores.memory import TokenMemory
from .tasks import end, finished
from .vault import ACCESS, REFRESH, Vault

_log = logging.getLogger(__name__)
# Seconds between tries to write what the store did not take.
PAUSE = 0.5
# So many unfinished rows of this host are looked at in one go.
PAGE = 500
# Seconds that ``close`` waits for the disk.
CLOSING_GRACE = 1.0


class Attempts:
    """Begins, settles and replays the attempts of this host."""

    def __init__(
        self,
        store: TokenStore,
        journal: Journal,
        vault: Vault,
        provider: Provider,
        memory: TokenMemory,
        clock: AuthorityClock,
    ) -> None:
        self._store = store
        self._journal = journal
        self._vault = vault
        self._provider = provider
        self._memory = memory
        self._clock = clock
        self._actor = Actor("journal", journal.host)
        # Outcomes that neither the store nor the journal took; the last resort while this process lives.
        self._unwritten: dict[UUID, Entry] = {}
        self._replaying: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def host(self) -> str:
        return self._journal.host

    def hold(self, user: str) -> Hold | None:
        """This host's lock on the user's token, or None where another process has it."""
        return self._journal.locks.try_hold(of_refresh(user))

    async def begin(self, claim: Claim) -> Record:
        """The record of a claim that is about to be spent. Raises StorageUnavailable: nothing was spent."""
        try:
            return await self._journal.begin(claim)
        except StorageUnavailable:
            await self.abandon(claim.row, claim.attempt)
            raise

    async def abandon(self, row: TokenRow, attempt: Attempt) -> None:
        """Give back a claim that spent nothing. Where that cannot be written, ``settle`` finds it."""
        with suppress(StorageUnavailable):
            await self._store.abandon(row, attempt)

    async def withdraw(self, claim: Claim, record: Record) -> None:
        """End an attempt whose record was begun and whose provider was not asked."""
        await record.close(remove=True)
        await self.abandon(claim.row, claim.attempt)

    async def save(self, claim: Claim, record: Record, sealed: Sealed, note: Note) -> TokenRow | None:
        """Store what the provider gave. None where a login or logout came first; then it is revoked.

        Raises StorageUnavailable where the store does not take it now: it is in the journal, and will.
        """
        # Side by side: the sooner one of them is durable, the better, and neither needs the other.
        journaled = asyncio.create_task(self._journaled(claim, record, Received(sealed, note)))
        try:
            try:
                row = await self._store.save(claim, sealed, note)
            finally:
                # Also where this is cancelled: whoever has the host's lock next must find the answer.
                await finished(journaled)
        except StorageUnavailable:
            await record.close(remove=False)
            self._replay_soon()
            raise
        self._unwritten.pop(claim.attempt.attempt_id, None)
        if row is None:
            await self._outdone(claim, record, sealed)
            return None
        self._later(self._settled(row, record))
        return row

    async def _outdone(self, claim: Claim, record: Record, sealed: Sealed) -> None:
        """Revoke what was received where a login or a logout came first."""
        try:
            current = await self._store.load(claim.row.user_id)
        except StorageUnavailable:
            await record.close(remove=False)
            self._replay_soon()
            raise
        await self._discard(current, sealed, claim.row.logged_in_at)
        await record.close(remove=True)

    async def _settled(self, row: TokenRow, record: Record) -> None:
        """What nobody waits for: the record goes when all tiers of this host have what it holds."""
        await record.close(remove=await self._store.mirror(row))

    async def end(self, claim: Claim, record: Record | None, outcome: Failed | Condemned) -> bool:
        """End an attempt that brought no token, now or as soon as the store is back.

        False where a login or a logout came first. ``record`` is None where the provider was not even asked.
        """
        try:
            ended = await self._write(claim, outcome)
        except StorageUnavailable:
            if record is not None:
                await self._journaled(claim, record, outcome)
                await record.close(remove=False)
            self._replay_soon()
            return True
        if record is not None:
            await record.close(remove=True)
        return ended

    async def settle(self, row: TokenRow) -> TokenRow | None:
        """End what processes of this host that are gone have left of this user's token.

        The caller holds this host's lock, so whoever began it is gone; the row may have been read before.
        Returns the row to judge by; None where something changed and the row has to be read again. Raises
        StorageUnavailable.
        """
        entries = await self._entries(row.user_id)
        if entries:
            # Who left them may have done so after the row was read.
            current = await self._store.load(row.user_id)
            if current is None:
                return None
            row = current
        judged = row
        for entry in entries:
            if await self._settle(row, entry):
                return None
            doubtful = entry.outcome is None and entry.generation == row.generation
            if doubtful and row.source != self._store.source:
                # The store cannot be asked, and its attempt may have spent what the lower tier holds.
                judged = replace(judged, attempt_host=entry.attempt.host, in_doubt=True)
        if row.attempt_id is not None and row.attempt_host == self.host:
            known = any(entry.attempt.attempt_id == row.attempt_id for entry in entries)
            if not known:
                await self._settle_unrecorded(row, Attempt(row.attempt_id, UUID(int=0), self.host))
                return None
        return judged

    async def _settle_unrecorded(self, row: TokenRow, attempt: Attempt) -> None:
        """End an attempt of this host of which no record can be read."""
        if not await self._journal.began(row.user_id, attempt.attempt_id):
            await self._store.abandon(row, attempt)
            return
        await self._write(Claim(row, attempt), self._lost(row))
        await self._journal.set_aside(row.user_id, attempt.attempt_id)

    async def replay(self) -> int:
        """Settle everything that processes of this host that are gone have left. Returns what still is left.

        Raises StorageUnavailable.
        """
        users = {entry.user_id for entry in await self._entries()}
        users.update(row.user_id for row in await self._store.unfinished(self.host, PAGE))
        left = 0
        for user in sorted(users):
            hold = self.hold(user)
            if hold is None:
                # Its process lives, and does it itself.
                continue
            with hold:
                left += not await self._replayed(user)
        return left

    async def _replayed(self, user: str) -> bool:
        """Whether nothing is left of this user's. What one user's row has wrong holds up nobody else."""
        try:
            return await self._replay(user)
        except StorageUnavailable as error:
            if self._store.down:
                raise
            _log.warning("what the journal holds of %s cannot be settled now: %s", user, error.message)
        except Exception:
            _log.exception("what the journal holds of %s cannot be settled", user)
        return False

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="litellm_oauth settled")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop to write what is left; the journal keeps it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSING_GRACE)
        if self._replaying is not None:
            await end(self._replaying)

    async def _replay(self, user: str) -> bool:
        """Whether nothing is left of this user's."""
        for _ in range(10):
            row = await self._store.load(user)
            if row is None:
                # The store may have been blanked: what came for this user stays where it is.
                return True
            if await self.settle(row) is not None:
                return not await self._entries(user)
        return False

    async def _settle(self, row: TokenRow, entry: Entry) -> bool:
        """Bring one record to its end. True where the row changed by it."""
        outcome = entry.outcome
        claim = Claim(row, entry.attempt)
        mine = row.attempt_id == entry.attempt.attempt_id
        if isinstance(outcome, Received):
            return await self._settle_received(claim, entry, outcome)
        if outcome is None and not mine:
            if row.source == self._store.source:
                await self._forget(entry)
            return False
        changed = mine and await self._write(claim, outcome or self._lost(row))
        if row.source == self._store.source:
            await self._forget(entry)
        return changed

    async def _settle_received(self, claim: Claim, entry: Entry, received: Received) -> bool:
        row, sealed = claim.row, received.sealed
        if row.generation == entry.generation and name_of(row.refresh_token) == entry.spent:
            saved = await self._store.replay(claim, sealed, received.note)
            if saved is None:
                return True
            _log.warning("took a token of %s from the journal (generation %d)", row.user_id, saved.generation)
            if saved.source == self._store.source and await self._store.mirror(saved):
                await self._forget(entry)
            return True
        if row.source != self._store.source or row.generation < entry.generation:
            # What counts is not known: the store is away, or was put back to an older state.
            return False
        if row.generation <= entry.generation + 1 and row.access_token != sealed.access_token:
            await self._discard(row, sealed, entry.logged_in_at)
        mirrored = await self._store.mirror(row)
        # A later answer came after it, in a record of its own: then no tier needs this one any more.
        if mirrored or row.generation > entry.generation + 1:
            await self._forget(entry)
        return False

    async def _write(self, claim: Claim, outcome: Outcome) -> bool:
        if isinstance(outcome, Failed):
            return await self._store.fail(claim, outcome.failure, outcome.note)
        if isinstance(outcome, Condemned):
            return await self._store.condemn(claim, outcome.last_error, outcome.note)
        return await self._store.replay(claim, outcome.sealed, outcome.note) is not None

    def _lost(self, row: TokenRow) -> Failed:
        message = (
            f"a process of host {self.host} ended while the provider was asked, so the refresh token may be "
            "spent; it is tried once more when the access token has expired"
        )
        wait = max(0.0, (row.expires_at or 0.0) - self._clock.now())
        note = Note(self._actor, "refresh", row.user_id, ANSWER_LOST, self.host)
        return Failed(Failure(describe(ANSWER_LOST, message), wait), note)

    async def _journaled(self, claim: Claim, record: Record, outcome: Outcome) -> None:
        try:
            await record.keep(outcome)
        except OSError as error:
            # The store may still take it; until then this process is the only place.
            _log.error("the journal did not take an outcome (%s)", error.strerror)
            self._unwritten[claim.attempt.attempt_id] = Entry(
                record.path,
                claim.row.user_id,
                claim.row.generation,
                claim.attempt,
                outcome,
                name_of(claim.row.refresh_token),
                claim.row.logged_in_at,
            )

    async def _entries(self, user: str | None = None) -> Sequence[Entry]:
        held = [entry for entry in self._unwritten.values() if user in (None, entry.user_id)]
        return [
            *held,
            *(e for e in await self._journal.entries(user) if e.attempt.attempt_id not in self._unwritten),
        ]

    async def _forget(self, entry: Entry) -> None:
        self._unwritten.pop(entry.attempt.attempt_id, None)
        await self._journal.remove(entry)

    async def _discard(self, row: TokenRow | None, sealed: Sealed, logged_in_at: float | None) -> None:
        """Revoke an answer that nobody will use, unless it is of the very login that ``row`` holds now.

        To revoke a refresh token ends the tokens of its whole grant (RFC 7009 §2.1).
        """
        if row is None or (row.status is RowStatus.ACTIVE and row.logged_in_at == logged_in_at):
            return
        user = row.user_id
        try:
            access = self._vault.open_optional(sealed.access_token, user, ACCESS) or ""
            refresh = self._vault.open_optional(sealed.refresh_token, user, REFRESH)
        except Unreadable:
            return
        entry = self._memory.entries.get(user)
        if entry is not None and entry.token.value == access:
            self._memory.drop(user)
        if refresh is not None:
            await self._provider.revoke(refresh, "refresh_token")
        else:
            await self._provider.revoke(access, "access_token")

    def _replay_soon(self) -> None:
        if self._replaying is None or self._replaying.done():
            self._replaying = asyncio.create_task(self._replay_until_done(), name="litellm_oauth replay")

    async def _replay_until_done(self) -> None:
        _log.warning("the store does not take what a refresh brought; trying again until it does")
        while True:
            await asyncio.sleep(PAUSE)
            with suppress(StorageUnavailable):
                if await self.replay() == 0:
                    return
