"""What the processes of one host know together besides tokens: pending logins, the keys, and the provider."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..disk import read_private, write_private
from ..hostlock import HostLocks
from ..tokens import LAST_MOMENT
from .documents import DamagedDocument
from .rows import Failure, ProviderState


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


class ProviderFile:
    """How the provider at ``token_url`` stands for everybody. Every method raises OSError."""

    def __init__(self, folder: Path, locks: HostLocks, token_url: str, clock: Callable[[], float]) -> None:
        self._file = StateFile(folder / "provider.json", locks)
        self._token_url = token_url
        self._clock = clock

    def standing(self) -> ProviderState:
        """What is known of the provider; what has a wrong type is not."""
        state = self._file.read()
        if state.get("tokenUrl") != self._token_url:
            return ProviderState()
        reason = state.get("reason")
        rests_for = max(0.0, _rests_until(state) - self._clock())
        return ProviderState(_failures(state), rests_for, reason if isinstance(reason, str) else None)

    def rest(self, failure: Failure) -> None:
        """Count a failure, and leave the provider in peace for as long as it asks."""
        with self._file.changed() as state:
            same = state.get("tokenUrl") == self._token_url
            state["failures"] = (_failures(state) if same else 0) + 1
            until = 0.0 if failure.rest is None else self._clock() + failure.rest
            state["restsUntil"] = max(until, _rests_until(state) if same else 0.0)
            state.update(tokenUrl=self._token_url, reason=failure.last_error)

    def has_given(self) -> None:
        """Its failures are over; a rest that it asked for while this success was under way is not."""
        with self._file.changed() as state:
            if _rests_until(state) <= self._clock():
                state.clear()


def _rests_until(state: Mapping[str, Any]) -> float:
    found = state.get("restsUntil")
    return float(found) if isinstance(found, (int, float)) and 0 < found <= LAST_MOMENT else 0.0


def _failures(state: Mapping[str, Any]) -> int:
    found = state.get("failures")
    return found if isinstance(found, int) and found > 0 else 0
