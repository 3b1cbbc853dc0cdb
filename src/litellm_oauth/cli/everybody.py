"""``litellm claude refresh --all``: everybody in one go, with a line for people that shows how far it is."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

from ..results import Actor, RefreshedAll, ResultCounts, UserResult
from ..service import TokenService
from . import text
from .arguments import Arguments
from .exit_codes import FINE, NOT_LOGGED_IN, PROVIDER_REFUSED, STORAGE_UNAVAILABLE

# So many of those who failed are named.
NAMED = 50
# Seconds between two states of the line.
LINE_PAUSE = 0.1
_STORAGE = frozenset({"storage_unavailable", "unreadable", "internal_error"})


async def refresh_all(service: TokenService, arguments: Arguments, actor: Actor) -> int:
    """Returns the exit code. Raises StorageUnavailable where it cannot even begin."""
    tally = _Tally(await service.count_users() if sys.stderr.isatty() else None)
    try:
        done = await service.refresh_all(
            tally.keep, min_validity=arguments.min_validity, force=arguments.force, actor=actor
        )
    finally:
        tally.end_line()
    if arguments.json:
        failures = [asdict(one) for one in tally.failures]
        print(json.dumps({**asdict(done), "failures": failures}, indent=2), flush=True)
    else:
        print(text.refreshed_all(done, tally.failures), flush=True)
    return exit_code(done, tally.codes)


def exit_code(done: RefreshedAll, codes: set[str]) -> int:
    """For the worst of what went wrong; ``codes`` are those of users who failed."""
    if codes & _STORAGE:
        return STORAGE_UNAVAILABLE
    if codes - {"reauth_required"}:
        return PROVIDER_REFUSED
    if done.status == "stopped":
        return STORAGE_UNAVAILABLE
    return NOT_LOGGED_IN if codes else FINE


class _Tally:
    """Counts results and shows the counts. Of those who failed it keeps a few only."""

    def __init__(self, total: int | None) -> None:
        self.codes: set[str] = set()
        self.failures: list[UserResult] = []
        self._counts = ResultCounts()
        self._total = total
        self._shown_at = float("-inf")

    async def keep(self, result: UserResult) -> None:
        self._counts.add(result)
        if result.result == "failed":
            self.codes.add(result.code or "")
            if len(self.failures) < NAMED:
                self.failures.append(result)
        if time.monotonic() - self._shown_at >= LINE_PAUSE:
            self._show()

    def end_line(self) -> None:
        """Show the last state, and leave it standing."""
        if self._total is not None:
            self._show()
            print(file=sys.stderr, flush=True)

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        if self._total is not None:
            print(f"\r{text.progress(self._counts, self._total)}", end="", file=sys.stderr, flush=True)
