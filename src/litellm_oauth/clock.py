"""The authority's clock as this process knows it.

Expiry, buffers and waits are all told by the database's clock: with a clock of its own that is minutes off, a
host would refresh for ever or serve dead tokens. Each row that is read carries the authority's time.
"""

from __future__ import annotations

from collections.abc import Callable


class AuthorityClock:
    """The local clock plus the difference last seen to the authority's."""

    def __init__(self, local: Callable[[], float]) -> None:
        self._local = local
        self._offset = 0.0

    def now(self) -> float:
        """Seconds since the epoch by the authority's clock."""
        return self._local() + self._offset

    def observe(self, authority_time: float | None) -> None:
        """Take in a time that the authority told just now; the way it took (milliseconds) does not matter.

        None: it came from a tier that has no clock but this one.
        """
        if authority_time is not None:
            self._offset = authority_time - self._local()
