"""What the books and the workers say of a run: what was lost, what was presented twice, and why."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chaos.books import REUSE, Family, State, families, states
from chaos.fleet import Event, Fleet, Worker
from support.postgres import AUDIT
from support.service import Gateways

# An answer that lay in a process for so long was to be on its disk (seconds; a busy machine takes a while).
TOO_LONG = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """A refresh token was presented by a worker."""

    spent: str
    at: float
    worker: Worker


class Verdict:
    """What the run's books say."""

    def __init__(self, gateways: Gateways, fleet: Fleet) -> None:
        self._gateways = gateways
        self._workers = fleet.workers.values()
        self._families = families(gateways.sandbox)
        self._states = states(gateways.database)
        self._stored = {state.token for state in self._states if state.token is not None}
        self.kept = {event["given"] for event in self._events("kept")}
        self.asks: dict[str, list[Ask]] = defaultdict(list)
        for worker in self._workers:
            for event in worker.all("asking"):
                self.asks[event["spent"]].append(Ask(event["spent"], event["at"], worker))
        for asks in self.asks.values():
            asks.sort(key=lambda ask: ask.at)
        # Given by the provider, and neither in a journal nor in the store.
        self.vanished = [
            family
            for family in self._families
            if family.last not in self._stored and family.last not in self.kept
        ]

    def journaled_and_lost(self) -> set[str]:
        """Answers that were in a journal and never in a store: the database, or a file while it was away."""
        spent = {one.token for family in self._families for one in family.tokens if one.spent}
        return self.kept - self._stored - spent

    def never_in_a_journal(self) -> set[str]:
        """Answers that a worker had for long enough to write them down, and did not."""
        return {
            event["given"]
            for worker in self._workers
            for event in worker.all("answered")
            if worker.killed_at is None or worker.killed_at - event["at"] > TOO_LONG
        } - self.kept

    def revoked(self, because: str) -> list[Family]:
        return [family for family in self._families if family.revoked_because == because]

    def revoked_with_an_answer(self) -> list[Family]:
        """Ended by reuse while the answer lay in a journal or in the store."""
        return [family for family in self.revoked(REUSE) if family not in self.vanished]

    def excused(self, family: Family) -> bool:
        """Whether an answer vanished with a process that was killed before it can have been on its disk."""
        worker = self._asker(family.tokens[-2].token, family.tokens[-1].at).worker
        if worker.killed_at is None:
            return False
        answered = [event["at"] for event in worker.all("answered") if event["given"] == family.last]
        told = [event for event in worker.all("unsaved") if event["user"] == family.account]
        return not answered or (
            worker.killed_at - answered[0] < TOO_LONG and not any(event["at"] > answered[0] for event in told)
        )

    def presented_again(self) -> Counter[str]:
        """Second presentations of a refresh token: in doubt, as it is allowed, or otherwise."""
        found: Counter[str] = Counter()
        for asks in self.asks.values():
            for first, second in itertools.pairwise(asks):
                found["in doubt" if self._in_doubt(first, second) else "otherwise"] += 1
        return found

    def _in_doubt(self, first: Ask, second: Ask) -> bool:
        """The first one's process was killed over it, that was written down, and the access token expired."""
        if first.worker.killed_at is None or first.worker.killed_at > second.at:
            return False
        return any(
            state.reason == "answer_lost"
            and state.token == first.spent
            and (state.expires_at or 0.0) <= state.at <= second.at
            for state in self._states
        )

    def falling_generations(self) -> list[tuple[State, State]]:
        """Wherever a generation fell, or a token changed without a new one."""
        last: dict[str, State] = {}
        found = []
        for state in self._states:
            before = last.get(state.user)
            if before is not None:
                grown = state.generation - before.generation
                if grown < 0 or (grown == 0 and state.token != before.token):
                    found.append((before, state))
            last[state.user] = state
        return found

    def comings_and_goings(self, gone: str) -> tuple[Counter[str], Counter[str]]:
        """How often each user came and went: from the status ``gone`` to another one, and back."""
        came: Counter[str] = Counter()
        went: Counter[str] = Counter()
        last: dict[str, str] = {}
        for state in self._states:
            before = last.get(state.user, gone)
            came[state.user] += before == gone != state.status
            went[state.user] += before != gone == state.status
            last[state.user] = state.status
        return +came, +went

    def returned_logins(self) -> list[State]:
        """States of the store that hold a token of an older login than one before them."""
        number = {
            one.token: (family.account, place)
            for place, family in enumerate(self._families)
            for one in family.tokens
        }
        newest: dict[str, int] = {}
        found = []
        for state in self._states:
            if state.token is None:
                continue
            account, place = number[state.token]
            if place < newest.get(account, place):
                found.append(state)
            newest[account] = max(place, newest.get(account, place))
        return found

    def left_alive(self) -> list[Family]:
        """Logins whose newest token nobody ever stored, and that were not revoked."""
        return [
            family
            for family in self._families
            if family.last not in self._stored and family.revoked_because is None
        ]

    def newest(self, account: str) -> Family:
        """The account's newest login."""
        return [family for family in self._families if family.account == account][-1]

    def ends(self) -> tuple[int, int, int]:
        """Logins that were asked for, those of them whose audit says why, and logins that followed."""
        lines = self._gateways.database.query(
            f"SELECT user_id, outcome FROM {AUDIT} "
            "WHERE outcome IN ('answer_lost', 'reauth_required', 'logged_in') ORDER BY audit_id"
        )
        outcomes = Counter(line["outcome"] for line in lines)
        explained = 0
        before: dict[str, str] = {}
        for line in lines:
            if line["outcome"] == "reauth_required":
                explained += before.get(line["user_id"]) == "answer_lost"
            before[line["user_id"]] = line["outcome"]
        return outcomes["reauth_required"], explained, outcomes["logged_in"]

    def windows(self, tokens: Sequence[str]) -> list[float]:
        """Milliseconds between the provider's commit and the moment when the answer was durable."""
        issued = {one.token: one.at for family in self._families for one in family.tokens}
        durable: dict[str, float] = {}
        for event in self._events("kept", "saved"):
            durable[event["given"]] = min(event["at"], durable.get(event["given"], event["at"]))
        return sorted(1000 * (durable[token] - issued[token]) for token in tokens)

    def moments(self) -> Counter[str]:
        """Where in an attempt the kills landed."""
        given = {
            self._asker(old.token, new.at): new.token
            for family in self._families
            for old, new in itertools.pairwise(family.tokens)
        }
        found: Counter[str] = Counter()
        for ask in (ask for asks in self.asks.values() for ask in asks if ask.worker.killed_at is not None):
            token = given.get(ask)
            kept, saved = (
                token in {event["given"] for event in ask.worker.all(name)} for name in ("kept", "saved")
            )
            if token is None:
                found["before the provider took it"] += 1
            elif token not in self._stored and not kept:
                found["before our fsync"] += 1
            elif not saved:
                found["before the save was confirmed"] += 1
        return found

    def _asker(self, spent: str, at: float) -> Ask:
        """Who presented a token that was spent at that moment."""
        return next(ask for ask in reversed(self.asks[spent]) if ask.at <= at)

    def _events(self, *names: str) -> Iterator[Event]:
        return (event for worker in self._workers for event in worker.all(*names))
