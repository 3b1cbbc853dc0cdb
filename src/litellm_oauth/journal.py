"""The record of every attempt to spend a refresh token, and of what came of it until the store has it.

A provider that rotates has taken the old refresh token back before we see the new one. So before it is
asked a record lies on the disk, with room for the answer, and the answer goes there in the moment in which
it goes to the store. Whichever has it first, what was answered is found again; see ``attempts``.

A record is one file of two lines, ``<sha256> <json>`` each: the attempt, then its outcome. Tokens in it are
sealed as in every other tier. The folder also holds the name of this host and the locks between its
processes, because all of them belong together: whoever shares the records shares the locks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from .disk import FILE_MODE, Disk, UnfitFile, make_private, read_private, sync_folder, write_all
from .errors import SettingsError, StorageUnavailable
from .hostlock import HostLocks
from .results import Actor
from .stores import Attempt, Claim, Failure, Note, Sealed

_log = logging.getLogger(__name__)
# Room for two tokens of the longest kind (see ``grant``), sealed, and what belongs to them.
RECORD_BYTES = 65_536
_SUFFIX = ".attempt"
_SET_ASIDE = ".unreadable"


@dataclass(frozen=True, slots=True)
class Received:
    """The provider gave tokens."""

    sealed: Sealed
    note: Note


@dataclass(frozen=True, slots=True)
class Failed:
    """The provider gave none."""

    failure: Failure
    note: Note


@dataclass(frozen=True, slots=True)
class Condemned:
    """The provider refused the refresh token for good."""

    last_error: str
    note: Note


Outcome = Received | Failed | Condemned


@dataclass(frozen=True, slots=True)
class Entry:
    """A record that was read back. ``outcome`` None: it shows no answer.

    ``spent`` names the sealed refresh token that the attempt was about (see ``name_of``), ``logged_in_at``
    the login that it came from: a generation may come twice where a store was put back to an older state.
    """

    path: Path
    user_id: str
    generation: int
    attempt: Attempt
    outcome: Outcome | None
    spent: str
    logged_in_at: float | None


class Record:
    """The open record of one attempt."""

    def __init__(self, disk: Disk, path: Path, descriptor: int) -> None:
        self._disk = disk
        self.path = path
        self._descriptor = descriptor

    async def keep(self, outcome: Outcome) -> None:
        """Write the outcome to the disk. Raises OSError."""
        await self._disk.run(_append, self._descriptor, _line(_outcome_document(outcome)))

    async def close(self, *, remove: bool) -> None:
        """Close the record; ``remove`` it where the store has what it holds, or nothing was spent."""
        await self._disk.run(self._close, remove)

    def _close(self, remove: bool) -> None:
        with suppress(OSError):
            if remove:
                self.path.unlink()
            else:
                # The room for an answer is not needed any more.
                os.ftruncate(self._descriptor, os.lseek(self._descriptor, 0, os.SEEK_CUR))
        os.close(self._descriptor)


class Journal:
    """The records of one host. ``host`` names the journal: it is new where the folder is."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        """Raises SettingsError where the folder cannot be used: without a journal nothing may be spent."""
        self._folder = folder
        self._records = folder / "attempts"
        self._disk = disk
        self._complained: set[Path] = set()
        try:
            make_private(folder)
            make_private(self._records)
            self.host = _host_name(folder / "host")
            self.locks = HostLocks(folder / "locks")
        except OSError as error:
            raise SettingsError(
                [
                    f"claude_oauth.journal_dir: {folder} cannot be used ({error.strerror or error}); "
                    f"make it a folder on a disk of its own that uid {os.geteuid()} may write to"
                ]
            ) from None

    @property
    def folder(self) -> Path:
        """Where this host keeps what must survive with its records."""
        return self._folder

    async def begin(self, claim: Claim) -> Record:
        """A durable record of the attempt, with room for the answer. Raises StorageUnavailable."""
        try:
            return await self._disk.run(self._begin, claim)
        except OSError as error:
            raise _unwritable(self._records, error) from None

    async def entries(self, user: str | None = None) -> Sequence[Entry]:
        """All records, or those of one user, in the order of their generations. Raises StorageUnavailable."""
        try:
            return await self._disk.run(self._read_all, user)
        except OSError as error:
            raise _unwritable(self._records, error) from None

    async def began(self, user: str, attempt_id: UUID) -> bool:
        """Whether there is a record of this attempt, be it readable or not."""
        return await self._disk.run(self._path(user, attempt_id).exists)

    async def set_aside(self, user: str, attempt_id: UUID) -> None:
        """Have a record that cannot be read lie there for a person, and count no more."""
        path = self._path(user, attempt_id)
        with suppress(OSError):
            await self._disk.run(path.rename, path.with_suffix(_SET_ASIDE))

    async def remove(self, entry: Entry) -> None:
        """Remove a record that is settled."""
        with suppress(OSError):
            await self._disk.run(entry.path.unlink)

    def close(self) -> None:
        self.locks.close()

    def _path(self, user: str, attempt_id: UUID) -> Path:
        return self._records / f"{_prefix(user)}{attempt_id}{_SUFFIX}"

    def _begin(self, claim: Claim) -> Record:
        path = self._path(claim.row.user_id, claim.attempt.attempt_id)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            # A disk that fills up while the provider answers still takes the answer.
            os.posix_fallocate(descriptor, 0, RECORD_BYTES)
            _append(descriptor, _line(_attempt_document(claim)))
            sync_folder(self._records)
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()
            raise
        return Record(self._disk, path, descriptor)

    def _read_all(self, user: str | None) -> Sequence[Entry]:
        prefix = "" if user is None else _prefix(user)
        with os.scandir(self._records) as found:
            names = [item.name for item in found]
        paths = [self._records / name for name in names if name.startswith(prefix) and name.endswith(_SUFFIX)]
        entries = [entry for path in paths if (entry := self._read(path)) is not None]
        return sorted(entries, key=lambda entry: (entry.user_id, entry.generation))

    def _read(self, path: Path) -> Entry | None:
        """The record; None where it cannot be read, which is nobody's concern but its user's."""
        try:
            return _read(path)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            if path not in self._complained:
                reason = error if isinstance(error, UnfitFile) else type(error).__name__
                _log.error("the record %s of the journal cannot be read (%s)", path, reason)
                self._complained.add(path)
            return None


def _unwritable(folder: Path, error: OSError) -> StorageUnavailable:
    return StorageUnavailable(
        f"The journal of refreshes cannot be used ({error.strerror or type(error).__name__}), so no refresh "
        f"token is spent. Look at the disk of {folder}."
    )


def _host_name(path: Path) -> str:
    """The name that this folder got when it was first used."""
    if (content := read_private(path)) is None:
        name = f"{socket.gethostname()}-{uuid4().hex[:8]}"
        temporary = path.with_name(f".host.{uuid4().hex}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            write_all(descriptor, name.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # Of two processes that start at the same moment, one names the folder.
        with suppress(FileExistsError):
            path.hardlink_to(temporary)
        temporary.unlink()
        sync_folder(path.parent)
        content = read_private(path) or b""
    return content.decode("utf-8", "replace")


def name_of(sealed: str | None) -> str:
    """A name for a sealed value that tells nothing about it."""
    return hashlib.sha256((sealed or "").encode("utf-8", "surrogatepass")).hexdigest()


def _prefix(user: str) -> str:
    """With what the names of a user's records begin, so that nobody else's have to be read."""
    return f"{name_of(user)[:32]}."


def _append(descriptor: int, line: bytes) -> None:
    write_all(descriptor, line)
    os.fdatasync(descriptor)


def _line(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode()
    return hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n"


def _documents(content: bytes) -> list[dict[str, Any]]:
    """The whole lines of a record, as far as they were written."""
    found = []
    for line in content.rstrip(b"\0").splitlines():
        digest, _, text = line.partition(b" ")
        if hashlib.sha256(text).hexdigest().encode() != digest:
            break
        found.append(json.loads(text))
    return found


def _read(path: Path) -> Entry | None:
    """The record, or None for one that its process did not come to write down. Raises what damage brings."""
    documents = _documents(read_private(path) or b"")
    if not documents:
        return None
    attempt = documents[0]
    return Entry(
        path=path,
        user_id=attempt["user_id"],
        generation=attempt["generation"],
        attempt=Attempt(UUID(attempt["attempt_id"]), UUID(attempt["owner"]), attempt["host"]),
        outcome=_outcome(documents[1]) if len(documents) > 1 else None,
        spent=attempt["spent"],
        logged_in_at=attempt["logged_in_at"],
    )


def _attempt_document(claim: Claim) -> dict[str, Any]:
    return {
        "user_id": claim.row.user_id,
        "generation": claim.row.generation,
        "attempt_id": str(claim.attempt.attempt_id),
        "owner": str(claim.attempt.owner),
        "host": claim.attempt.host,
        "spent": name_of(claim.row.refresh_token),
        "logged_in_at": claim.row.logged_in_at,
    }


def _outcome_document(outcome: Outcome) -> dict[str, Any]:
    return {"kind": type(outcome).__name__, **asdict(outcome)}


def _outcome(document: dict[str, Any]) -> Outcome:
    kind = document.pop("kind")
    note = Note(**{**document["note"], "actor": Actor(**document["note"]["actor"])})
    if kind == "Received":
        sealed = document["sealed"]
        return Received(Sealed(**{**sealed, "scopes": tuple(sealed["scopes"])}), note)
    if kind == "Failed":
        return Failed(Failure(**document["failure"]), note)
    return Condemned(document["last_error"], note)
