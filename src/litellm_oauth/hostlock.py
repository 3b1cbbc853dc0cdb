"""Locks between the processes of one host: workers, replicas that share the volume, the command line.

They are open file description locks (fcntl(2)) on single bytes of one file, so that the kernel gives them
back when a process dies, however it dies, and nothing is left to be cleaned up.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from .disk import FILE_MODE

# A place below 2^62: file offsets are signed.
_PLACE_BITS = 62
# Seconds that ``briefly`` waits.
BRIEFLY = 5.0


def of_refresh(user: str) -> str:
    """The name of the lock that is held while a user's refresh token is spent."""
    return f"refresh/{user}"


def of_document(user: str) -> str:
    """The name of the lock that is held for the moment in which a user's document changes."""
    return f"document/{user}"


class HostLocks:
    """One lock a name. Raises OSError where the file cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        # The kernel does not keep two holders of this process apart: they share the descriptor.
        self._held: set[int] = set()
        self._held_lock = threading.Lock()

    def try_hold(self, name: str) -> Hold | None:
        """The lock, or None where somebody else has it."""
        place = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8])
        place >>= 64 - _PLACE_BITS
        with self._held_lock:
            if place in self._held:
                return None
            try:
                fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, place))
            except (BlockingIOError, PermissionError):
                return None
            self._held.add(place)
        return Hold(self, place)

    @contextmanager
    def briefly(self, name: str) -> Iterator[None]:
        """Hold the lock for a few milliseconds, and wait for others who do so; for threads.

        Raises TimeoutError where somebody has had it for too long.
        """
        deadline = time.monotonic() + BRIEFLY
        while (hold := self.try_hold(name)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError("another process of this host does not let go of it")
            time.sleep(0.002)
        with hold:
            yield

    def release(self, place: int) -> None:
        """Give one lock back; ``Hold`` does it."""
        with self._held_lock:
            if place not in self._held:
                return
            self._held.discard(place)
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, place))

    def close(self) -> None:
        """Give all locks back."""
        self._held.clear()
        os.close(self._descriptor)


class Hold:
    """A lock that is held until it is released, or the block ends."""

    def __init__(self, locks: HostLocks, place: int) -> None:
        self._locks: HostLocks | None = locks
        self._place = place

    def release(self) -> None:
        """Give it back; the second time does nothing."""
        locks, self._locks = self._locks, None
        if locks is not None:
            locks.release(self._place)

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _flock(kind: int, place: int) -> bytes:
    """``struct flock``: type, whence, start, length, pid (0 for these locks)."""
    return struct.pack("hhqqi", kind, os.SEEK_SET, place, 1, 0)
