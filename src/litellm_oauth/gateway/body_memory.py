"""The memory of a worker that large bodies share: each owner gets a share, and the rest waits in line."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from .errors import TooManyBodies

# Smaller bodies are not counted: a thousand of them are no more than what one large one takes.
UNCOUNTED = 256 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """A place in the line for memory."""

    owner: str
    amount: int
    granted: asyncio.Future[None]


class BodyMemory:
    """Memory for large bodies, in bytes: who comes when it is full waits in line, up to ``patience`` seconds.

    A worker's memory has an end, and a body takes several times its size on its way through a router.
    ``share``: how much one owner may hold, so that there is some for others.
    """

    def __init__(self, size: int, *, share: int | None = None, patience: float = 60.0) -> None:
        self._free = size
        self._share = size if share is None else share
        self._patience = patience
        self._held: dict[str, int] = {}
        self._waiting: deque[_Place] = deque()

    async def take(self, owner: str, wanted: int) -> int:
        """Wait for that much memory. Returns what was taken, to be given back. Raises TooManyBodies."""
        amount = min(wanted, self._share)
        if amount <= UNCOUNTED:
            return 0
        place = _Place(owner, amount, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        self._serve()
        try:
            # Not wait_for: before Python 3.12 it swallows a cancellation that arrives with a result.
            async with asyncio.timeout(self._patience):
                await place.granted
        except TimeoutError:
            if not _is_granted(place):
                raise TooManyBodies from None
        except asyncio.CancelledError:
            if _is_granted(place):
                self.give_back(owner, amount)
            raise
        finally:
            if place in self._waiting:
                self._waiting.remove(place)
                self._serve()
        return amount

    def give_back(self, owner: str, amount: int) -> None:
        """Let the next ones in."""
        self._free += amount
        self._held[owner] -= amount
        if not self._held[owner]:
            del self._held[owner]
        self._serve()

    def _serve(self) -> None:
        """Let in whom there is room for. An owner with a full share is passed by; nobody else is."""
        passed: set[str] = set()
        for place in list(self._waiting):
            held = self._held.get(place.owner, 0)
            if place.owner in passed or (held and held + place.amount > self._share):
                passed.add(place.owner)
                continue
            if place.amount > self._free:
                return
            self._waiting.remove(place)
            if not place.granted.done():
                self._free -= place.amount
                self._held[place.owner] = held + place.amount
                place.granted.set_result(None)


def _is_granted(place: _Place) -> bool:
    return place.granted.done() and not place.granted.cancelled()


class HeldMemory:
    """What one request holds of the memory for bodies. ``owner``: whose share it counts in."""

    def __init__(self, memory: BodyMemory, owner: str = "") -> None:
        self._memory = memory
        self._amount = 0
        self.owner = owner

    @property
    def is_held(self) -> bool:
        """Whether others may have to wait for this request."""
        return self._amount > 0

    async def hold(self, size: int) -> None:
        """Take that much, once. Raises TooManyBodies."""
        if not self._amount:
            self._amount = await self._memory.take(self.owner, size)

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        amount, self._amount = self._amount, 0
        if amount:
            self._memory.give_back(self.owner, amount)
