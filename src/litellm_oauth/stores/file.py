"""Token rows in the files of one gateway host: the authority without a database, else its stand-in.

Every step reads, compares and writes under the user's lock on this host, in a thread. There are no leases:
``refresh`` holds the host's lock for as long as it asks the provider.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard, TypeVar
from uuid import UUID

from ..backoff import cooling_for, next_attempt_at, resting_for
from ..disk import Disk
from ..errors import StorageUnavailable
from ..hostlock import HostLocks, of_document, of_refresh
from ..results import Actor
from .documents import (
    SOURCE,
    DamagedDocument,
    Document,
    Documents,
    document_of,
    row_of,
    today,
    unusable,
)
from .file_audit import FileAudit
from .rows import (
    Attempt,
    Claim,
    Failure,
    Note,
    PendingLogin,
    RowStatus,
    Sealed,
    TokenRow,
    Tombstone,
)
from .state_files import KeyChecks, ProviderFile, StateFile

_log = logging.getLogger(__name__)

T = TypeVar("T")
# A step that finds nothing to change returns this instead of a document.
Step = Callable[[TokenRow | None, Document], Document | None]


class FileTokens:
    """``stores.TokenStore`` over documents. ``clock`` is the authority's, as well as this host knows it."""

    source = SOURCE

    def __init__(
        self,
        documents: Documents,
        state: Path,
        locks: HostLocks,
        disk: Disk,
        token_url: str,
        client_id: str,
        clock: Callable[[], float],
        readable: Callable[[TokenRow], bool],
    ) -> None:
        self._documents = documents
        self._locks = locks
        self._disk = disk
        self._client_id = client_id
        self._clock = clock
        self._readable = readable
        self._provider = ProviderFile(state, locks, token_url, clock)
        self._keys = KeyChecks(state / "key_checks.json", locks)
        self._audit = FileAudit(state, locks, clock)
        self._logins = StateFile(state / "logins.json", locks)
        self._unfit: set[str] = set()

    @property
    def down(self) -> bool:
        return False

    @property
    def steady(self) -> bool:
        return True

    @property
    def look_again(self) -> float:
        return 0.05

    async def now(self) -> float:
        return self._clock()

    async def load(self, user: str) -> TokenRow | None:
        return await self._run(self._load, user)

    async def page(self, after: str | None, limit: int) -> Sequence[TokenRow]:
        def read() -> list[TokenRow]:
            names = sorted(user for user in self._documents.users() if user > (after or ""))
            # A page that is not full is the last one, so who cannot be read does not count.
            rows = (row for user in names if (row := self._load_or_none(user)) is not None)
            return list(islice(rows, limit))

        return await self._run(read)

    async def unfinished(self, host: str, limit: int) -> Sequence[TokenRow]:
        # The journal's records name them: without a lease there is none without a record for long.
        return []

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
        doubted: list[str] = []

        def step(found: TokenRow | None, document: Document) -> Document | None:
            if found is None or _judged(found) != _judged(row):
                return None
            if not self._spendable(found, attempt.host, doubtful=doubtful):
                return None
            if found.attempt_id is not None:
                doubted.append(found.attempt_host or "unknown")
                # A token in doubt is spent only after its line in the audit.
                note = Note(actor, "refresh", row.user_id, "in_doubt_retry", doubted[0])
                self._audit.write(note, found.generation)
            taken = {**document, "attemptId": str(attempt.attempt_id), "attemptHost": attempt.host}
            if forced:
                taken.update(forcedOn=today(self._clock()), forcedCount=found.forced_today + 1)
            return taken

        taken = await self._change(row.user_id, step)
        return None if taken is None else Claim(taken, attempt, doubted[0] if doubted else None)

    async def due(
        self, buffer: float, after: TokenRow | None, limit: int, host: str, *, doubtful: bool
    ) -> Sequence[TokenRow]:
        rows = await self._run(self._due, buffer, host, doubtful)
        return [row for row in rows if after is None or _urgency(row) > _urgency(after)][:limit]

    async def renew(self, claim: Claim, lease: float) -> bool:
        row = await self.load(claim.row.user_id)
        return row is not None and _is_own(row, claim)

    async def save(self, claim: Claim, sealed: Sealed, note: Note) -> TokenRow | None:
        return await self._save(claim, sealed, note, lambda found: _is_own(found, claim))

    async def replay(self, claim: Claim, sealed: Sealed, note: Note) -> TokenRow | None:
        return await self._save(
            claim,
            sealed,
            note,
            lambda found: (
                found.generation == claim.row.generation and found.status is not RowStatus.LOGGED_OUT
            ),
        )

    async def restore(self, row: TokenRow, note: Note, *, missing: bool) -> TokenRow | None:
        def step(found: TokenRow | None, document: Document) -> Document | None:
            newer = missing if found is None else found.generation < row.generation
            return document_of(row) if newer else None

        return await self._change(row.user_id, step, note)

    async def mirror(self, row: TokenRow) -> bool:
        """Take over a row of the authority, unless this one is newer. It need not survive a loss of power."""

        def step(found: TokenRow | None, document: Document) -> Document | None:
            if found is not None and _age(found) >= _age(row) and self._readable(found):
                return None
            return document_of(row)

        try:
            await self._change(row.user_id, step, durable=False, replace_damaged=True)
        except StorageUnavailable:
            return False
        return True

    async def fail(self, claim: Claim, failure: Failure, note: Note) -> bool:
        def step(found: TokenRow | None, document: Document) -> Document | None:
            if found is None or not _is_own(found, claim):
                return None
            return {**_ended(document), **self._cooled(failure)}

        failed = await self._change(claim.row.user_id, step, note) is not None
        if failed and failure.counts:
            await self._run(self._provider.rest, failure)
        return failed

    async def abandon(self, row: TokenRow, attempt: Attempt) -> None:
        def step(found: TokenRow | None, document: Document) -> Document | None:
            mine = found is not None and found.attempt_id == attempt.attempt_id
            return _ended(document) if mine else None

        await self._change(row.user_id, step)

    async def condemn(self, claim: Claim, last_error: str, note: Note) -> bool:
        def step(found: TokenRow | None, document: Document) -> Document | None:
            if found is None or not _is_own(found, claim) or found.refresh_token != claim.row.refresh_token:
                return None
            dead = {"status": RowStatus.REAUTH_REQUIRED.value, "lastError": last_error, "nextAttemptAt": None}
            return {**_ended(document), **dead}

        return await self._change(claim.row.user_id, step, note) is not None

    async def cool(self, row: TokenRow, failure: Failure, note: Note) -> bool:
        def step(found: TokenRow | None, document: Document) -> Document | None:
            if found is None or found.generation != row.generation or found.attempt_id is not None:
                return None
            return {**document, **self._cooled(failure)}

        return await self._change(row.user_id, step, note) is not None

    async def log_in(
        self, login: PendingLogin, claimed_by: UUID, sealed: Sealed, note: Note
    ) -> TokenRow | None:
        def step(found: TokenRow | None, document: Document) -> Document | None:
            if document.get("loginId") == str(login.login_id):
                # Written before, and then the login could not be used up: a refresh may have come since.
                return document
            return {**self._of_login(found, document, sealed), "loginId": str(login.login_id)}

        def log_in() -> TokenRow | None:
            with self._logins.changed() as logins:
                waiting = logins.get(str(login.login_id))
                if not _is_claimed(waiting, claimed_by):
                    return None
                # What fails here leaves the login to be tried again.
                with self._lock(login.user_id):
                    row = self._stepped(login.user_id, step, note, replace_damaged=True)
                use_up(waiting, self._clock())
                return row

        return await self._run(log_in)

    async def import_login(
        self, user: str, sealed: Sealed, note: Note, *, logged_in_at: float | None, over: int | None
    ) -> TokenRow | None:
        def step(found: TokenRow | None, document: Document) -> Document | None:
            if over not in (None, found.generation if found is not None else 0):
                return None
            return self._of_login(found, document, sealed, logged_in_at)

        def take() -> TokenRow | None:
            with self._lock(user), self._documents.all_or_none(user):
                return self._stepped(user, step, note, replace_damaged=True)

        return await self._run(take)

    async def rename(self, row: TokenRow, to: TokenRow, note: Note) -> TokenRow | None:
        def leave(found: TokenRow | None, document: Document) -> Document | None:
            if found is None or (found.generation, found.attempt_id) != (row.generation, None):
                return None
            return {"status": RowStatus.LOGGED_OUT.value, "generation": found.generation + 1}

        def arrive(found: TokenRow | None, document: Document) -> Document | None:
            if found is not None and found.status is not RowStatus.LOGGED_OUT:
                return None
            # Between the two writes there are two copies, never none.
            generation = 1 + max(row.generation, found.generation if found is not None else 0)
            return document_of(replace(to, generation=generation))

        def rename() -> TokenRow | None:
            first, second = sorted((row.user_id, to.user_id))
            with (
                self._lock(first),
                self._lock(second),
                self._documents.all_or_none(to.user_id, row.user_id),
            ):
                before = self._documents.read(row.user_id)
                if before is None or leave(self._row(row.user_id, before), before) is None:
                    return None
                arrived = self._stepped(to.user_id, arrive)
                if arrived is not None:
                    self._stepped(row.user_id, leave)
                    self._audit.write(note, arrived.generation)
                return arrived

        return await self._run(rename)

    async def log_out(self, user: str, note: Note) -> Tombstone | None:
        before: list[TokenRow] = []

        def end_logins(logins: dict[str, Any]) -> None:
            for waiting in logins.values():
                if waiting["userId"] == user and waiting["usedAt"] is None:
                    use_up(waiting, self._clock())

        def step(found: TokenRow | None, document: Document) -> Document | None:
            if found is None or found.status is RowStatus.LOGGED_OUT:
                return None
            before.append(found)
            return {"status": RowStatus.LOGGED_OUT.value, "generation": found.generation + 1}

        # First, and not inside the user's lock: ``log_in`` takes the two in the other order.
        await self.change_logins(end_logins)
        gone = await self._change(user, step, note)
        if gone is None:
            return None
        return Tombstone(gone.generation, before[0].access_token, before[0].refresh_token)

    async def next_due_in(self, buffer: float) -> float | None:
        def read() -> float | None:
            rests = self._provider.standing()
            found = [
                _may_be_tried(row, buffer, self._clock()) - self._clock()
                for user in self._documents.users()
                if (row := self._load_or_none(user)) is not None and self._refreshable(row)
            ]
            return max(min(found), resting_for(rests)) if found else None

        return await self._run(read)

    async def touch(self, last_used: Mapping[str, float]) -> None:
        """Nothing: when a token was last used is no reason to write a file."""

    async def forward_notes(self) -> None:
        """Nothing: there is no tier below."""

    async def write_note(self, note: Note) -> None:
        await self._run(self._audit.write, note, None)

    async def take_notes(self) -> Sequence[tuple[float, Note]]:
        """The audit lines with their times, which the caller now has to keep. Raises StorageUnavailable."""
        return await self._run(self._audit.take)

    async def forget_taken(self) -> None:
        """What ``take_notes`` gave is kept elsewhere now."""
        await self._run(self._audit.forget)

    async def key_checks(self) -> Mapping[str, str]:
        return await self._run(self._keys.read)

    async def note_key(self, key_id: str, check_value: str) -> None:
        """Note the one key that the authority was found to be written with. Raises StorageUnavailable."""

        def note() -> None:
            with self._keys.changed() as checks:
                if key_id not in checks or len(checks) > 1:
                    checks.clear()
                    checks[key_id] = check_value

        await self._run(note)

    async def add_key_check(self, key_id: str, check_value: str, known: Sequence[str]) -> bool:
        def add() -> bool:
            with self._keys.changed() as checks:
                if set(checks) - {*known, key_id}:
                    return False
                checks.setdefault(key_id, check_value)
                return True

        return await self._run(add)

    async def read_logins(self) -> dict[str, Any]:
        """The pending logins by their ids. Raises StorageUnavailable."""
        return await self._run(self._logins.read)

    async def change_logins(self, step: Callable[[dict[str, Any]], T]) -> T:
        """Have ``step`` change the pending logins in place. Raises StorageUnavailable."""

        def change() -> T:
            with self._logins.changed() as logins:
                return step(logins)

        return await self._run(change)

    async def _run(self, call: Callable[..., T], *arguments: Any) -> T:
        try:
            return await self._disk.run(call, *arguments)
        except (OSError, DamagedDocument) as error:
            raise unusable(error) from None

    def _load(self, user: str) -> TokenRow | None:
        document = self._documents.read(user)
        return None if document is None else self._row(user, document)

    def _row(self, user: str, document: Document) -> TokenRow:
        row = row_of(user, document, self._clock(), self._provider.standing())
        if row.attempt_id is None:
            return row
        # Whoever asks the provider now holds the user's lock: there is no doubt yet.
        hold = self._locks.try_hold(of_refresh(user))
        if hold is not None:
            hold.release()
        return replace(row, in_doubt=hold is not None)

    def _due(self, buffer: float, host: str, doubtful: bool) -> list[TokenRow]:
        found = [row for user in self._documents.users() if (row := self._load_or_none(user)) is not None]
        now = self._clock()
        due = [
            row
            for row in found
            if self._spendable(row, host, doubtful=doubtful)
            and (row.attempt_id is None or row.in_doubt)
            and (row.expires_at or 0.0) <= now + buffer
            and cooling_for(row, now) <= 0
        ]
        return sorted(due, key=_urgency)

    def _load_or_none(self, user: str) -> TokenRow | None:
        """The user's row; None, with one warning, where the document cannot be used."""
        try:
            row = self._load(user)
        except (OSError, DamagedDocument) as error:
            if user not in self._unfit:
                _log.warning("%s is left out: %s", user, error)
            self._unfit.add(user)
            return None
        self._unfit.discard(user)
        return row

    def _spendable(self, row: TokenRow, host: str, *, doubtful: bool) -> bool:
        """Whether ``host`` may spend the token, while nobody of this host is doing so."""
        if not self._refreshable(row) or resting_for(row.provider) > 0:
            return False
        if row.attempt_id is None:
            return True
        # What this host left behind is settled by its journal first.
        return doubtful and row.attempt_host != host and (row.expires_at or 0.0) <= self._clock()

    def _refreshable(self, row: TokenRow) -> bool:
        usable = row.refresh_token is not None and row.is_for(self._client_id)
        return usable and row.status is RowStatus.ACTIVE

    def _of_sealed(self, sealed: Sealed) -> Document:
        return {
            "accessToken": sealed.access_token,
            "refreshToken": sealed.refresh_token,
            "expiresAt": sealed.expires_at,
            "refreshExpiresAt": sealed.refresh_expires_at,
            "scopes": list(sealed.scopes),
            "account": sealed.account,
            "clientId": sealed.client_id,
            "status": RowStatus.ACTIVE.value,
            "lastError": None,
            "nextAttemptAt": None if sealed.rest is None else self._clock() + sealed.rest,
        }

    def _of_login(
        self, found: TokenRow | None, document: Document, sealed: Sealed, logged_in_at: float | None = None
    ) -> Document:
        """A login in the place of what ``found`` was; see ``TokenStore.import_login`` for the moment."""
        now = self._clock()
        return {
            **_ended(document),
            **self._of_sealed(sealed),
            "generation": found.generation + 1 if found is not None else 1,
            "loggedInAt": now if logged_in_at is None else min(logged_in_at, now),
            "updatedAt": now,
        }

    def _cooled(self, failure: Failure) -> Document:
        now = self._clock()
        return {"lastError": failure.last_error, "nextAttemptAt": now + failure.wait, "updatedAt": now}

    async def _save(
        self, claim: Claim, sealed: Sealed, note: Note, allowed: Callable[[TokenRow], bool]
    ) -> TokenRow | None:
        def step(found: TokenRow | None, document: Document) -> Document | None:
            if found is None or not allowed(found):
                return None
            self._provider.has_given()
            return {
                **_ended(document),
                **self._of_sealed(sealed),
                "generation": found.generation + 1,
                "refreshCount": found.refresh_count + 1,
                "updatedAt": self._clock(),
            }

        return await self._change(claim.row.user_id, step, note)

    async def _change(
        self,
        user: str,
        step: Step,
        note: Note | None = None,
        *,
        durable: bool = True,
        replace_damaged: bool = False,
    ) -> TokenRow | None:
        """Run a step under the user's lock; returns the row it wrote, or None where it wrote nothing."""

        def change() -> TokenRow | None:
            with self._lock(user):
                return self._stepped(user, step, note, durable=durable, replace_damaged=replace_damaged)

        return await self._run(change)

    def _lock(self, user: str) -> AbstractContextManager[None]:
        """Another one than is held while the provider is asked: a person's act does not wait."""
        return self._locks.briefly(of_document(user))

    def _stepped(
        self,
        user: str,
        step: Step,
        note: Note | None = None,
        *,
        durable: bool = True,
        replace_damaged: bool = False,
    ) -> TokenRow | None:
        """Run a step; the caller holds the lock of the user's document."""
        try:
            before = self._documents.read(user)
        except DamagedDocument:
            if not replace_damaged:
                raise
            self._documents.set_aside(user)
            before = self._documents.read(user)
        row = None if before is None else self._row(user, before)
        after = step(row, before or {})
        if after is None:
            return None
        self._documents.write(user, after, durable=durable)
        written = self._row(user, after)
        if note is not None:
            self._audit.write(note, written.generation)
        return written


def use_up(login: dict[str, Any], now: float) -> None:
    """End a pending login of the file ``logins``."""
    login.update(usedAt=now, verifier=None, claimedBy=None, claimedUntil=None)


def _is_claimed(login: Mapping[str, Any] | None, claimed_by: UUID) -> TypeGuard[dict[str, Any]]:
    return login is not None and login["claimedBy"] == str(claimed_by) and login["usedAt"] is None


def _judged(row: TokenRow) -> tuple[int, str | None, float | None]:
    """What a claim must find as it was judged: a wait may have begun since."""
    return row.generation, row.last_error, row.next_attempt_at


def _may_be_tried(row: TokenRow, buffer: float, now: float) -> float:
    """The moment from which on the token is due and may be spent; one in doubt has to expire first."""
    expires_at = row.expires_at or 0.0
    due_at = expires_at if row.attempt_id is not None else expires_at - buffer
    return max(due_at, next_attempt_at(row, now) or 0.0)


def _is_own(row: TokenRow, claim: Claim) -> bool:
    return (row.generation, row.attempt_id) == (claim.row.generation, claim.attempt.attempt_id)


def _urgency(row: TokenRow) -> tuple[float, str]:
    return row.expires_at or 0.0, row.user_id


def _age(row: TokenRow) -> tuple[int, float]:
    return row.generation, row.updated_at


def _ended(document: Document) -> Document:
    return {**document, "attemptId": None, "attemptHost": None}
