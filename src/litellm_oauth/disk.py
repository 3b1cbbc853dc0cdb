"""What the journal and the file tier need of a file system: private, atomic, durable, off the event loop."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

FOLDER_MODE, FILE_MODE = 0o700, 0o600
# So many calls wait for the disk at the same time; file systems put their syncs together.
THREADS = 8
MAX_FILE_BYTES = 1_048_576

T = TypeVar("T")


class UnfitFile(OSError):  # noqa: N818 -- says what is wrong with it
    """A file that must not be used as it is; the text names it and the mend."""


class Disk:
    """Runs blocking calls in a few threads of its own, so that a slow disk holds nobody else up."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="litellm_oauth disk")

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run ``call(*arguments)`` in a thread and wait for it. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def close(self) -> None:
        """The threads end with what they do now. Nobody waits: a disk may hang for ever."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def make_private(folder: Path) -> None:
    """The folder, made with mode 0700 where it is missing. Raises UnfitFile where somebody else owns it."""
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        raise UnfitFile(f"{folder} belongs to another user (uid {found.st_uid}); chown it to {os.geteuid()}")


def open_own(path: Path, flags: int) -> int:
    """A descriptor of a regular file of this user or root; it follows no link and waits for no pipe.

    Raises UnfitFile for anything else, and OSError.
    """
    safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags | safe, FILE_MODE)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_uid in (0, os.geteuid()):
        return descriptor
    os.close(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise UnfitFile(f"{path} is no regular file; remove it")
    raise UnfitFile(f"{path} belongs to another user (uid {found.st_uid}); chown it to {os.geteuid()}")


def read_private(path: Path) -> bytes | None:
    """The file's content, or None where there is none.

    Raises UnfitFile for anything but a regular file of this user (or root) that nobody else may read or
    write, and OSError.
    """
    try:
        descriptor = open_own(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        found = os.fstat(descriptor)
        if found.st_mode & 0o077:
            raise UnfitFile(
                f"{path} has mode {found.st_mode & 0o777:04o}, so others may use it; chmod 600 it"
            )
        if found.st_size > MAX_FILE_BYTES:
            raise UnfitFile(f"{path} is larger than {MAX_FILE_BYTES} bytes; remove it")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read()
    finally:
        os.close(descriptor)


def write_private(path: Path, content: bytes, *, durable: bool) -> None:
    """Replace the file as a whole: who reads it sees the old content or the new one. Raises OSError.

    What ``read_private`` would refuse for its size is not written (UnfitFile).
    ``durable``: it also survives a loss of power from the moment this returns.
    """
    if len(content) > MAX_FILE_BYTES:
        raise UnfitFile(f"{path} would become larger than {MAX_FILE_BYTES} bytes")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        try:
            write_all(descriptor, content)
            if durable:
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte at the descriptor's position."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
