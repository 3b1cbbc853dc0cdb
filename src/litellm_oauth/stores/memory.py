"""Access tokens in process memory, in the clear, so that a request with a valid token does no I/O.

An entry is trusted while the process hears of every change (see ``listener``). Without that, an entry is good
for ``recheck`` seconds after it was last read, and then has to be read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..tokens import AccessToken

RECHECK = 5.0
# Nobody tells of a file that was changed by hand.
RECHECK_FILE = 1.0
MAX_ENTRIES = 20_000


@dataclass(slots=True)
class Entry:
    """``due_at``: from then on a refresh is wanted. ``quiet_until``: no background refresh is tried before.

    ``stale``: something about the row changed; the token is served only where the row cannot be read.
    ``recalled``: the cache said so and not the authority, whose word replaces it whatever the generation.
    """

    token: AccessToken
    due_at: float
    read_at: float
    used_at: float = 0.0
    quiet_until: float = 0.0
    stale: bool = False
    recalled: bool = False


@dataclass(slots=True, eq=False)
class Reading:
    """A row that is being read. ``overtaken``: it changed meanwhile, so what was read may be old already."""

    overtaken: bool = False


class TokenMemory:
    """At most ``max_entries`` users; the one that was stored longest ago makes room."""

    def __init__(self, max_entries: int = MAX_ENTRIES, recheck: float = RECHECK) -> None:
        self.entries: dict[str, Entry] = {}
        self._max_entries = max_entries
        self._recheck = recheck
        self._listening = False
        self._readings: dict[str, list[Reading]] = {}

    def trusted(self, entry: Entry, now: float) -> bool:
        """Whether the entry may be served without looking at the row."""
        return not entry.stale and (self._listening or 0 <= now - entry.read_at < self._recheck)

    @contextmanager
    def reading(self, user: str) -> Iterator[Reading]:
        """Surrounds the read of a row and the ``put`` of what was read."""
        reading = Reading()
        self._readings.setdefault(user, []).append(reading)
        try:
            yield reading
        finally:
            same = self._readings[user]
            same.remove(reading)
            if not same:
                del self._readings[user]

    def put(self, user: str, token: AccessToken, *, due_at: float, now: float, stale: bool = False) -> Entry:
        """Keep a token, unless a newer generation is already kept. Returns what is kept."""
        old = self.entries.get(user)
        if old is not None and old.token.generation > token.generation and not old.recalled:
            return old
        entry = Entry(token, due_at, now, stale=stale)
        if old is not None:
            entry.used_at = old.used_at
            if old.token.generation == token.generation:
                entry.quiet_until = old.quiet_until
            del self.entries[user]
        elif len(self.entries) >= self._max_entries:
            del self.entries[next(iter(self.entries))]
        self.entries[user] = entry
        return entry

    def recall(self, user: str, token: AccessToken, *, due_at: float, now: float) -> Entry:
        """Keep a token out of the cache until the authority has been asked. Returns what is kept."""
        known = self.entries.get(user)
        if known is not None:
            return known
        entry = self.put(user, token, due_at=due_at, now=now, stale=True)
        entry.recalled = True
        return entry

    def drop(self, user: str) -> None:
        self.entries.pop(user, None)
        for reading in self._readings.get(user, ()):
            reading.overtaken = True

    def connected(self) -> None:
        """The listener (re)connected: what changed before was not heard."""
        self._listening = True
        for entry in self.entries.values():
            entry.stale = True
        for readings in self._readings.values():
            for reading in readings:
                reading.overtaken = True

    def disconnected(self) -> None:
        self._listening = False

    def changed(self, user: str, generation: int, status: str) -> None:
        """A row changed. A logout takes the token away at once; anything else has to be read again."""
        for reading in self._readings.get(user, ()):
            reading.overtaken = True
        entry = self.entries.get(user)
        if entry is None or generation < entry.token.generation:
            return
        if status == "logged_out":
            self.drop(user)
        else:
            entry.stale = True
