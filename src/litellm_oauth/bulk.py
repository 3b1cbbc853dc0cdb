"""Refresh of many users: streamed from the store, a few at a time, in memory that does not grow with them.

One user's error is that user's. What is everybody's ends the whole: a provider that keeps failing, or that
all leave in peace, and a store that is away.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import replace

from . import messages
from .backoff import resting_for
from .clock import AuthorityClock
from .errors import (
    CoolingDown,
    LitellmOAuthError,
    NotLoggedIn,
    OtherClient,
    ProviderError,
    ReauthRequired,
    StorageUnavailable,
    Unreadable,
)
from .judgement import Need
from .refresh import Refresher
from .results import Actor, RefreshCounts, RefreshedAll, ResultCounts, UserResult, Wanted
from .stores import Note, RowStatus, TokenRow, TokenStore
from .vault import Vault

_log = logging.getLogger(__name__)
# Refreshes that run at the same time, each on a lease of its own; more leases would only lie idle.
CONCURRENCY = 8
# So many failures in a row end a pass: the provider is down, and asking for each user helps nobody.
TOO_MANY_FAILURES = 5
# So many rows are read at once: their tokens are sealed text of a few kilobytes each.
PAGE = 100
NOT_TRIED = "not_tried"
# Stands in the audit where a user's name does.
EVERYBODY = "*"

# Takes one user's result. What it waits for holds the pass up, so that nothing piles up.
Keep = Callable[[UserResult], Awaitable[None]]


class _Outlook:
    """Whether to go on helps anybody; ``hopeless`` says why it does not."""

    def __init__(self) -> None:
        self.hopeless: str | None = None
        self._failures = 0

    def good(self) -> None:
        """The provider answered for somebody."""
        self._failures = 0

    def bad(self, error: Exception) -> None:
        """Somebody's refresh failed by no fault of that user."""
        self._failures += 1
        if self._failures >= TOO_MANY_FAILURES:
            last = error.message if isinstance(error, LitellmOAuthError) else type(error).__name__
            self.give_up(f"{self._failures} refreshes failed in a row, the last one so: {last}")

    def give_up(self, why: str) -> None:
        self.hopeless = self.hopeless or why


class Bulk:
    """The passes over many users."""

    def __init__(
        self,
        store: TokenStore,
        refresher: Refresher,
        vault: Vault,
        clock: AuthorityClock,
        *,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._store = store
        self._refresher = refresher
        self._vault = vault
        self._clock = clock
        self._concurrency = concurrency

    async def due(self, buffer: float, actor: Actor) -> RefreshCounts:
        """Refresh everybody whose token ends within ``buffer`` seconds. Raises StorageUnavailable."""
        outlook = _Outlook()
        counts: Counter[str] = Counter()
        due = self._refresher.due_pass(buffer, actor)

        async def work() -> None:
            while outlook.hopeless is None:
                try:
                    result = await due.spend_next()
                except Exception as error:
                    if isinstance(error, StorageUnavailable) and self._store.down:
                        raise
                    counts[_kind(error)] += 1
                    _weigh(error, outlook)
                else:
                    if result is None:
                        return
                    outlook.good()
                    counts["refreshed" if result.refreshed else "superseded"] += 1

        await self._side_by_side(work)
        return RefreshCounts(
            refreshed=counts["refreshed"],
            reauth_required=counts["reauth_required"],
            unavailable=counts["unavailable"],
            unreadable=counts["unreadable"],
            superseded=counts["superseded"],
            stopped_early=outlook.hopeless is not None,
        )

    async def total(self) -> int:
        """How many users are logged in. Raises StorageUnavailable."""
        total = 0
        async with aclosing(self._logged_in()) as rows:
            async for _ in rows:
                total += 1
        return total

    async def everybody(self, wanted: Wanted, keep: Keep, *, name: str) -> RefreshedAll:
        """Look at everybody who is logged in, and refresh who needs it.

        Start and end go to the audit under ``name``. Raises StorageUnavailable where not even the start does.
        """
        await self._note(wanted, "started", name)
        counts = ResultCounts()
        status, message = "interrupted", None
        try:
            message = await self._stream(wanted, keep, counts)
            status = "finished" if message is None else "stopped"
            return RefreshedAll("finished" if message is None else "stopped", message, counts)
        finally:
            told = f"{counts.refreshed} refreshed, {counts.fresh} fresh, {counts.failed} failed"
            _log.info("the refresh of all users (%s) %s: %s", name, status, told)
            with suppress(StorageUnavailable):
                await self._note(wanted, status, f"{name}: {told}, {counts.skipped} not tried")

    async def _stream(self, wanted: Wanted, keep: Keep, counts: ResultCounts) -> str | None:
        """Returns why it stopped, or None where everybody was looked at."""
        outlook = _Outlook()
        turn = asyncio.Lock()

        async def work() -> None:
            while True:
                async with turn:
                    row = await anext(rows, None)
                if row is None:
                    return
                result = await self._one(row, wanted, outlook)
                if result is not None:
                    counts.add(result)
                    await keep(result)

        async with aclosing(self._logged_in()) as rows:
            try:
                await self._side_by_side(work)
            except StorageUnavailable as error:
                outlook.give_up(error.message)
        return outlook.hopeless

    async def _one(self, row: TokenRow, wanted: Wanted, outlook: _Outlook) -> UserResult | None:
        """None for somebody who has logged out meanwhile."""
        before = UserResult(row.user_id, "fresh", None, None, row.generation, row.generation, row.expires_at)
        try:
            return await self._brought_to(wanted, row, before, outlook)
        except NotLoggedIn:
            return None
        except StorageUnavailable as error:
            if self._store.down:
                outlook.give_up(error.message)
            outlook.bad(error)
            return replace(before, result="failed", code=error.code, message=error.message)
        except LitellmOAuthError as error:
            _weigh(error, outlook)
            if isinstance(error, ProviderError):
                await self._mind_the_rest(row.user_id, outlook)
            return replace(before, result="failed", code=error.code, message=error.message)
        except Exception as error:
            _weigh(error, outlook)
            message = f"The gateway failed to refresh {row.user_id}. Its log says why."
            return replace(before, result="failed", code="internal_error", message=message)

    async def _brought_to(
        self, wanted: Wanted, row: TokenRow, before: UserResult, outlook: _Outlook
    ) -> UserResult:
        user = row.user_id
        if row.status is RowStatus.REAUTH_REQUIRED:
            raise messages.reauth_required(user)
        if not self._vault.readable(row):
            raise messages.unreadable(user)
        self._clock.observe(row.read_at)
        if not wanted.force and (row.expires_at or 0.0) - self._clock.now() > wanted.min_validity:
            return before
        if outlook.hopeless is not None:
            return replace(before, result="skipped", code=NOT_TRIED, message=f"Not tried: {outlook.hopeless}")
        need = Need(
            "forced" if wanted.force else "expiring",
            row.generation,
            None if wanted.force else wanted.min_validity,
            wanted.actor,
        )
        done = await self._refresher.ensure(user, need)
        outlook.good()
        if not done.saved:
            raise StorageUnavailable(
                f"A new token of {user} was received and serves requests, but cannot be saved yet; that is "
                "tried again and again. Look at the database."
            )
        newer = done.token.generation > row.generation
        return replace(
            before,
            result="refreshed" if newer else "fresh",
            generation=done.token.generation,
            expires_at=done.token.expires_at,
        )

    async def _mind_the_rest(self, user: str, outlook: _Outlook) -> None:
        """Give up where everybody leaves the provider in peace now: all others would be told the same."""
        with suppress(StorageUnavailable):
            row = await self._store.load(user)
            if row is not None and (rest := resting_for(row.provider)) > 0:
                outlook.give_up(
                    f"the provider is left in peace by everybody for {rest:.0f} s more. "
                    f"The reason: {row.provider.reason}"
                )

    async def _logged_in(self) -> AsyncGenerator[TokenRow, None]:
        """Page by page, so that few are held at any moment."""
        after: str | None = None
        while page := await self._store.page(after, PAGE):
            self._refuse_a_stand_in()
            after = page[-1].user_id
            for row in page:
                if row.status is not RowStatus.LOGGED_OUT:
                    yield row
        self._refuse_a_stand_in()

    def _refuse_a_stand_in(self) -> None:
        """What answers while the authority is away may know fewer users. Raises StorageUnavailable."""
        if self._store.down:
            raise StorageUnavailable(
                "The token database went away, so not everybody was looked at. Try again when it is back."
            )

    async def _side_by_side(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run several of these workers until all have ended. Raises the first error that ended one."""
        errors: list[Exception] = []

        async def guarded() -> None:
            try:
                await work()
            except Exception as error:
                errors.append(error)

        async with asyncio.TaskGroup() as workers:
            for _ in range(self._concurrency):
                workers.create_task(guarded())
        if errors:
            raise errors[0]

    async def _note(self, wanted: Wanted, outcome: str, detail: str) -> None:
        await self._store.write_note(Note(wanted.actor, "refresh_all", EVERYBODY, outcome, detail))


def _weigh(error: Exception, outlook: _Outlook) -> None:
    """What one user's failure says about the others' prospects."""
    if isinstance(error, CoolingDown | Unreadable | NotLoggedIn | OtherClient):
        # The provider was not asked.
        return
    if isinstance(error, ReauthRequired):
        outlook.good()
    elif isinstance(error, ProviderError | StorageUnavailable) or not isinstance(error, LitellmOAuthError):
        outlook.bad(error)
    if not isinstance(error, LitellmOAuthError):
        _log.error("a refresh of many met an unexpected error", exc_info=error)


def _kind(error: Exception) -> str:
    """Under which of ``RefreshCounts`` a failure counts."""
    if isinstance(error, ReauthRequired):
        return "reauth_required"
    if isinstance(error, Unreadable):
        return "unreadable"
    if isinstance(error, CoolingDown | NotLoggedIn):
        return "superseded"
    return "unavailable"
