"""Token rows in the files of one gateway host: the authority without a database, else its stand-in.

Every step reads, compares and writes under the user's lock on this host, in a thread. There are no leases:
``refresh`` holds the host's lock for as long as it asks the provider.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard, TypeVar
from uuid import UUID

from ..backoff import cooling_for, next_attempt_at, resting_for
from ..disk import FILE_MODE, MAX_FILE_BYTES, Disk, UnfitFile, read_private, write_all, write_private
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
from .rows import (
    Attempt,
    Claim,
    Failure,
    Note,
    PendingLogin,
    ProviderState,
    RowStatus,
    Sealed,
    TokenRow,
    Tombstone,
)

_log = logging.getLogger(__name__)
# The end of the year 9999: no moment after it can be shown.
_LAST_MOMENT = 253_402_300_800.0

T = TypeVar("T")
# A step that finds nothing to change returns this instead of a document.
Step = Callable[[TokenRow | None, Document], Document | None]


class StateFile:
    """One JSON object that the processes of this host change together."""

    def __init__(self, path: Path, locks: HostLocks) -> None:
        self._path = path
        self._locks = locks

    def read(self) -> dict[str, Any]:
        """The object; an empty one where there is none, or one that cannot be read. Raises OSError."""
        return self._object() or {}

    def _object(self) -> dict[str, Any] | None:
        """The object, an empty one where there is none, None where it is damaged."""
        content = read_private(self._path)
        try:
            found = {} if content is None else json.loads(content)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    @contextmanager
    def changed(self) -> Iterator[dict[str, Any]]:
        """The object, to be changed in place; it is written at the end of the block. Raises OSError."""
        with self._locks.briefly(f"file/{self._path.name}"):
            document = self.read()
            before = json.dumps(document)
            yield document
            after = json.dumps(document)
            if after != before:
                if len(after) > MAX_FILE_BYTES:
                    raise UnfitFile(f"{self._path} would become larger than {MAX_FILE_BYTES} bytes")
                write_private(self._path, after.encode(), durable=True)


class KeyChecks(StateFile):
    """The check values of the keys. Damage is no "nothing known": that would let a wrong key in."""

    def read(self) -> dict[str, Any]:
        """The check values by their key ids. Raises OSError and DamagedDocument."""
        found = self._object()
        if found is None or not all(isinstance(value, str) for value in found.values()):
            raise DamagedDocument(
                f"{self._path} is damaged, so nobody knows which key the tokens were written with; put it "
                "back from a backup, or delete it if claude_oauth.encryption_key is surely the right one"
            )
        return found


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
        clock: Callable[[], float],
        readable: Callable[[TokenRow], bool],
    ) -> None:
        self._documents = documents
        self._locks = locks
        self._disk = disk
        self._clock = clock
        self._readable = readable
        self._token_url = token_url
        self._provider = StateFile(state / "provider.json", locks)
        self._keys = KeyChecks(state / "key_checks.json", locks)
        self._audit = state / "audit.jsonl"
        self._logins = StateFile(state / "logins.json", locks)
        self._unfit: set[str] = set()
        # Which file ``take_notes`` gave: another process may have taken the next one meanwhile.
        self._taken_as: tuple[int, int, int] | None = None

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
                self._write_note(note, found.generation)
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
            await self.rest(failure)
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

    async def rest(self, failure: Failure) -> None:
        def rest() -> None:
            with self._provider.changed() as state:
                same = state.get("tokenUrl") == self._token_url
                state["failures"] = (_failures(state) if same else 0) + 1
                until = 0.0 if failure.rest is None else self._clock() + failure.rest
                state["restsUntil"] = max(until, _rests_until(state) if same else 0.0)
                state.update(tokenUrl=self._token_url, reason=failure.last_error)

        await self._run(rest)

    async def log_in(
        self, login: PendingLogin, claimed_by: UUID, sealed: Sealed, note: Note
    ) -> TokenRow | None:
        def step(found: TokenRow | None, document: Document) -> Document | None:
            if document.get("loginId") == str(login.login_id):
                # Written before, and then the login could not be used up: a refresh may have come since.
                return document
            now = self._clock()
            generation = found.generation + 1 if found is not None else 1
            return {
                **_ended(document),
                **self._of_sealed(sealed),
                "generation": generation,
                "loginId": str(login.login_id),
                "loggedInAt": now,
                "updatedAt": now,
            }

        def log_in() -> TokenRow | None:
            with self._logins.changed() as logins:
                waiting = logins.get(str(login.login_id))
                if not _is_claimed(waiting, claimed_by):
                    return None
                # What fails here leaves the login to be tried again.
                row = self._change_now(login.user_id, step, note, replace_damaged=True)
                use_up(waiting, self._clock())
                return row

        return await self._run(log_in)

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
                self._locks.briefly(of_document(first)),
                self._locks.briefly(of_document(second)),
                self._documents.all_or_none(to.user_id, row.user_id),
            ):
                before = self._documents.read(row.user_id)
                if before is None or leave(self._row(row.user_id, before), before) is None:
                    return None
                arrived = self._stepped(to.user_id, arrive)
                if arrived is not None:
                    self._stepped(row.user_id, leave)
                    self._write_note(note, arrived.generation)
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
            rests = self._provider_state()
            found = [
                _may_be_tried(row, buffer, self._clock()) - self._clock()
                for user in self._documents.users()
                if (row := self._load_or_none(user)) is not None and _refreshable(row)
            ]
            return max(min(found), resting_for(rests)) if found else None

        return await self._run(read)

    async def touch(self, last_used: Mapping[str, float]) -> None:
        """Nothing: when a token was last used is no reason to write a file."""

    async def forward_notes(self) -> None:
        """Nothing: there is no tier below."""

    async def write_note(self, note: Note) -> None:
        await self._run(self._write_note, note, None)

    async def take_notes(self) -> Sequence[tuple[float, Note]]:
        """The audit lines with their times, which the caller now has to keep. Raises StorageUnavailable."""
        return await self._run(self._take_notes)

    async def forget_taken(self) -> None:
        """What ``take_notes`` gave is kept elsewhere now."""
        await self._run(self._forget_taken)

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
        row = row_of(user, document, self._clock(), self._provider_state())
        if row.attempt_id is None:
            return row
        # Whoever asks the provider now holds the user's lock: there is no doubt yet.
        hold = self._locks.try_hold(of_refresh(user))
        if hold is not None:
            hold.release()
        return replace(row, in_doubt=hold is not None)

    def _provider_state(self) -> ProviderState:
        state = self._provider.read()
        if state.get("tokenUrl") != self._token_url:
            return ProviderState()
        rests_for = max(0.0, _rests_until(state) - self._clock())
        reason = state.get("reason")
        return ProviderState(_failures(state), rests_for, reason if isinstance(reason, str) else None)

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
        if not _refreshable(row) or resting_for(row.provider) > 0:
            return False
        if row.attempt_id is None:
            return True
        # What this host left behind is settled by its journal first.
        return doubtful and row.attempt_host != host and (row.expires_at or 0.0) <= self._clock()

    def _of_sealed(self, sealed: Sealed) -> Document:
        return {
            "accessToken": sealed.access_token,
            "refreshToken": sealed.refresh_token,
            "expiresAt": sealed.expires_at,
            "refreshExpiresAt": sealed.refresh_expires_at,
            "scopes": list(sealed.scopes),
            "account": sealed.account,
            "status": RowStatus.ACTIVE.value,
            "lastError": None,
            "nextAttemptAt": None if sealed.rest is None else self._clock() + sealed.rest,
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
            with self._provider.changed() as state:
                # A success that was under way does not end what the provider asked for meanwhile.
                if _rests_until(state) <= self._clock():
                    state.clear()
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
        return await self._run(self._change_now, user, step, note, durable, replace_damaged)

    def _change_now(
        self,
        user: str,
        step: Step,
        note: Note | None = None,
        durable: bool = True,
        replace_damaged: bool = False,
    ) -> TokenRow | None:
        # Another lock than the one that is held while the provider is asked: a person's act does not wait.
        with self._locks.briefly(of_document(user)):
            return self._stepped(user, step, note, durable, replace_damaged)

    def _stepped(
        self,
        user: str,
        step: Step,
        note: Note | None = None,
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
            self._write_note(note, written.generation)
        return written

    @property
    def _taken(self) -> Path:
        return self._audit.with_suffix(".taken")

    def _take_notes(self) -> list[tuple[float, Note]]:
        with self._audit_lock():
            # What was taken before and not forgotten comes first: a line twice is better than none.
            if not self._taken.exists():
                if not self._audit.exists():
                    return []
                self._audit.rename(self._taken)
            with os.fdopen(_open_own(self._taken, os.O_RDONLY), "rb") as file:
                self._taken_as = _identity(os.fstat(file.fileno()))
                lines = file.read().split(b"\n")
        read = [_parsed_note(line) for line in lines if line]
        notes = [note for note in read if note is not None]
        if len(notes) < len(read):
            _log.warning(
                "%d lines of %s cannot be read; they are left out", len(read) - len(notes), self._audit
            )
        return notes

    def _forget_taken(self) -> None:
        """Remove what this process took, unless another one did so and took what came after it."""
        with self._audit_lock(), suppress(FileNotFoundError):
            if _identity(self._taken.lstat()) == self._taken_as:
                self._taken.unlink()

    def _audit_lock(self) -> AbstractContextManager[None]:
        return self._locks.briefly(f"file/{self._audit.name}")

    def _write_note(self, note: Note, generation: int | None) -> None:
        line = {
            "at": self._clock(),
            "actor": note.actor.name,
            "origin": note.actor.origin,
            "action": note.action,
            "user_id": note.user_id,
            "outcome": note.outcome,
            "detail": note.detail,
            "generation": generation,
        }
        content = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        with self._audit_lock():
            descriptor = _open_own(self._audit, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                write_all(descriptor, content)
            finally:
                os.close(descriptor)


def use_up(login: dict[str, Any], now: float) -> None:
    """End a pending login of the file ``logins``."""
    login.update(usedAt=now, verifier=None, claimedBy=None, claimedUntil=None)


def _open_own(path: Path, flags: int) -> int:
    """A descriptor of a regular file of this user or root. Raises OSError, UnfitFile for anything else."""
    safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags | safe, FILE_MODE)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_uid in (0, os.geteuid()):
        return descriptor
    os.close(descriptor)
    raise UnfitFile(f"{path} is no regular file of this user; move it away")


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _parsed_note(line: bytes) -> tuple[float, Note] | None:
    """One audit line with its time; None where it is damaged."""
    try:
        found = json.loads(line)
        at = float(found["at"])
        actor = Actor(found["actor"], found["origin"])
        note = Note(actor, found["action"], found["user_id"], found["outcome"], found["detail"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    texts = (actor.name, actor.origin, note.action, note.user_id, note.outcome, note.detail or "")
    whole = all(isinstance(text, str) for text in texts) and 0 <= at < _LAST_MOMENT
    return (at, note) if whole else None


def _rests_until(state: Mapping[str, Any]) -> float:
    found = state.get("restsUntil")
    return float(found) if isinstance(found, (int, float)) and 0 < found < _LAST_MOMENT else 0.0


def _failures(state: Mapping[str, Any]) -> int:
    found = state.get("failures")
    return found if isinstance(found, int) and found > 0 else 0


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


def _refreshable(row: TokenRow) -> bool:
    return row.status is RowStatus.ACTIVE and row.refresh_token is not None


def _ended(document: Document) -> Document:
    return {**document, "attemptId": None, "attemptHost": None}
