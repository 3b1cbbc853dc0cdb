"""What the provider saw. Requests are kept in a ring; counters are kept for good. No token is in either."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

RING = 20_000


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One API call, ``at`` seconds since the epoch. The token is there by hash and first letters only, and of
    the headers, but for two, their names. ``question`` is how the last text of the user begins; ``fields``
    has the first letters of the SHA-256 of each field of the body, as compact JSON with sorted keys."""

    at: float
    path: str
    account: str | None
    token_sha256: str | None
    token_prefix: str | None
    beta: str | None
    has_x_api_key: bool
    host: str | None
    headers: tuple[str, ...]
    model: str | None
    question: str | None
    fields: Mapping[str, str]
    stream: bool
    status: int


class Records:
    """The sandbox's memory of who called what."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._calls: deque[ApiCall] = deque(maxlen=RING)
        self._requests: Counter[tuple[str, int]] = Counter()
        self._token_calls: Counter[tuple[str | None, str, str]] = Counter()
        self._events: Counter[str] = Counter()

    def api_call(self, call: ApiCall) -> None:
        self._calls.append(call)
        self._requests[call.path, call.status] += 1

    def token_call(self, account: str | None, grant_type: str, outcome: str) -> None:
        self._token_calls[account, grant_type, outcome] += 1

    def event(self, name: str, times: int = 1) -> None:
        if times:
            self._events[name] += times

    def calls(self, since: float, account: str | None) -> Iterator[ApiCall]:
        """The calls in the ring, oldest first."""
        for call in self._calls:
            if call.at >= since and account in (None, call.account):
                yield call

    def token_calls(self, account: str | None) -> dict[str, object]:
        """``{"total": 3, "refresh_token": {"ok": 2, "invalid_grant": 1}, …}``, of one account or of all."""
        answer: dict[str, dict[str, int]] = {"authorization_code": {}, "refresh_token": {}}
        total = 0
        for (name, grant_type, outcome), times in self._token_calls.items():
            if account in (None, name):
                outcomes = answer.setdefault(grant_type, {})
                outcomes[outcome] = outcomes.get(outcome, 0) + times
                total += times
        return {"total": total, **answer}

    def counters(self) -> dict[str, object]:
        requests: dict[str, dict[str, int]] = {}
        for (path, status), times in sorted(self._requests.items()):
            requests.setdefault(path, {})[str(status)] = times
        return {"requests": requests, "events": dict(sorted(self._events.items()))}
