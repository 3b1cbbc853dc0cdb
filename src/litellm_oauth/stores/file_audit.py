"""The audit in a file of one host: without a database all of it, else what happened in an outage."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from ..disk import open_own, write_all
from ..hostlock import HostLocks
from ..results import Actor
from ..tokens import LAST_MOMENT
from .rows import Note

_log = logging.getLogger(__name__)


class FileAudit:
    """``audit.jsonl`` in ``folder``; ``clock`` dates its lines. Every method raises OSError."""

    def __init__(self, folder: Path, locks: HostLocks, clock: Callable[[], float]) -> None:
        self._path = folder / "audit.jsonl"
        self._taken = folder / "audit.taken"
        self._locks = locks
        self._clock = clock
        # Which file ``take`` gave: another process may have taken the next one meanwhile.
        self._taken_as: tuple[int, int, int] | None = None

    def write(self, note: Note, generation: int | None) -> None:
        """Add a line."""
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
        with self._lock():
            descriptor = open_own(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                write_all(descriptor, content)
            finally:
                os.close(descriptor)

    def take(self) -> Sequence[tuple[float, Note]]:
        """The lines with their times, to be kept elsewhere; what is damaged is left out with a warning."""
        with self._lock():
            # What was taken before and not forgotten comes first: a line twice is better than none.
            if not self._taken.exists():
                if not self._path.exists():
                    return []
                self._path.rename(self._taken)
            with os.fdopen(open_own(self._taken, os.O_RDONLY), "rb") as file:
                self._taken_as = _identity(os.fstat(file.fileno()))
                lines = file.read().split(b"\n")
        read = [_parsed(line) for line in lines if line]
        notes = [note for note in read if note is not None]
        if len(notes) < len(read):
            _log.warning(
                "%d lines of %s cannot be read; they are left out", len(read) - len(notes), self._path
            )
        return notes

    def forget(self) -> None:
        """Remove what this process took, unless another one did so and took what came after it."""
        with self._lock(), suppress(FileNotFoundError):
            if _identity(self._taken.lstat()) == self._taken_as:
                self._taken.unlink()

    def _lock(self) -> AbstractContextManager[None]:
        return self._locks.briefly(f"file/{self._path.name}")


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _parsed(line: bytes) -> tuple[float, Note] | None:
    """One line with its time; None where it is damaged."""
    try:
        found = json.loads(line)
        at = float(found["at"])
        actor = Actor(found["actor"], found["origin"])
        note = Note(actor, found["action"], found["user_id"], found["outcome"], found["detail"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    texts = (actor.name, actor.origin, note.action, note.user_id, note.outcome, note.detail or "")
    whole = all(isinstance(text, str) for text in texts) and 0 <= at <= LAST_MOMENT
    return (at, note) if whole else None
