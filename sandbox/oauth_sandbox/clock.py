"""The provider's clock, which can be made wrong on purpose."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Seconds since the epoch as the provider sees them: the true time plus ``skew`` seconds."""

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self.skew = 0.0

    def now(self) -> float:
        return self._source() + self.skew
