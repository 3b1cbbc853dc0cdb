"""The refresh of one user: judge the row, take the lease, ask the provider, save where nothing moved.

One refresh at a time per user: in this process by one task per user, on this host by a lock, everywhere by
the row's lease. The task belongs to nobody who waits for it, so that no cancelled caller can lose an answer.
How an answer outlives the process is in ``attempts``.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from . import messages
from .attempts import Attempts
from .backoff import REJECTED, describe, failure_of, reason_of, rest_after
from .changes import Changes
from .clock import AuthorityClock
from .errors import (
    AlreadyLoggedIn,
    CoolingDown,
    InvalidGrant,
    ProviderError,
    ProviderRefused,
    ProviderUnavailable,
    StorageUnavailable,
    Unreadable,
)
from .grant import Grant
from .journal import Condemned, Failed, Record
from .judgement import Need, Refreshed, RejectedTooSoon, Rules, judge
from .provider import Provider
from .reader import TokenReader
from .results import Actor
from .status import LoginAge, warning_of
from .stores import Attempt, Claim, Failure, Note, RowStatus, TokenRow, TokenStore
from .tasks import end
from .tokens import AccessToken
from .vault import REFRESH, Vault

_log = logging.getLogger(__name__)
LEASE = 30.0
# When somebody whose token changes under his hands had better ask again.
LOOK_AGAIN = 1.0
# The same after what this host had left of an attempt was brought to its end (seconds).
SETTLED = 0.02
# So many due users are read at once. Each is claimed when its turn comes: nobody waits behind an idle lease.
DUE_PAGE = 64
# What a refresh takes beyond the provider's own time-out.
SLACK = 10.0

T = TypeVar("T")


class DuePass:
    """Everybody who is due, one after the other, to several workers. Few rows are held at any moment."""

    def __init__(
        self, refresher: Refresher, store: TokenStore, host: str, buffer: float, actor: Actor
    ) -> None:
        self._refresher = refresher
        self._store = store
        self._host = host
        self._buffer = buffer
        self._actor = actor
        self._rows: deque[TokenRow] = deque()
        self._last: TokenRow | None = None
        self._over = False
        self._reading = asyncio.Lock()

    async def spend_next(self) -> Refreshed | None:
        """Refresh the next user; None where nobody is left. Raises like ``Refresher.ensure``."""
        row = await self._next()
        return None if row is None else await self._refresher.spend_due(row, self._buffer, self._actor)

    async def _next(self) -> TokenRow | None:
        async with self._reading:
            if not self._rows and not self._over:
                found = await self._store.due(
                    self._buffer, self._last, DUE_PAGE, self._host, doubtful=self._store.steady
                )
                self._rows.extend(found)
                self._over = not found
                self._last = found[-1] if found else None
            return self._rows.popleft() if self._rows else None


class Refresher:
    """Refreshes tokens; the only code that spends a refresh token."""

    def __init__(
        self,
        store: TokenStore,
        attempts: Attempts,
        vault: Vault,
        provider: Provider,
        reader: TokenReader,
        changes: Changes,
        clock: AuthorityClock,
        *,
        rules: Rules,
        age: LoginAge,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._store = store
        self._attempts = attempts
        self._vault = vault
        self._provider = provider
        self._reader = reader
        self._memory = reader.memory
        self._changes = changes
        self._clock = clock
        self._rules = rules
        self._age = age
        self._random = random
        self._process = uuid.uuid4()
        self._flights: dict[str, tuple[asyncio.Task[Refreshed], int]] = {}
        self._tasks: set[asyncio.Task[Refreshed]] = set()

    async def ensure(self, user: str, need: Need) -> Refreshed:
        """Have ``need`` satisfied by the one refresh of this user, started now or running already.

        Raises NotLoggedIn, ReauthRequired, Unreadable, CoolingDown, ProviderError, StorageUnavailable.
        """
        while True:
            joined = self._flights.get(user)
            if joined is not None and joined[0].done():
                # It ended this very moment and is still to be forgotten. To wait for it would not even yield.
                joined = None
            flight, urgency = joined or self._fly_alone(user, self._fly(user, need), need.urgency)
            try:
                result = await asyncio.shield(flight)
            except CoolingDown:
                # A less urgent flight gives way to a cooldown that this need may pass.
                if urgency < need.urgency:
                    continue
                raise
            # An answer that came while this one waited is taken even if it has expired on the way: a slow
            # provider of short-lived tokens would otherwise be asked once for each who waits.
            came_meanwhile = result.refreshed and result.token.generation > need.generation
            if joined is None or came_meanwhile or need.satisfied_by(result.token, self._clock.now()):
                return result

    def due_pass(self, buffer: float, actor: Actor) -> DuePass:
        """A pass over all whose token expires within ``buffer`` seconds."""
        return DuePass(self, self._store, self._attempts.host, buffer, actor)

    async def spend_due(self, row: TokenRow, buffer: float, actor: Actor) -> Refreshed:
        """Refresh a user whose row was read a moment ago, and found due. Raises like ``ensure``."""
        user = row.user_id
        need = Need("expiring", row.generation, buffer, actor, patient=True)
        if user in self._flights:
            return replace(await self.ensure(user, need), refreshed=False)
        return await asyncio.shield(self._fly_alone(user, self._fly(user, need, row), need.urgency)[0])

    async def rename(self, user: str, new_user: str, actor: Actor) -> TokenRow:
        """Give the login of ``user`` to ``new_user``, after a refresh that runs has ended.

        Raises NotLoggedIn, AlreadyLoggedIn where the new user has a login, Unreadable, StorageUnavailable,
        and ProviderUnavailable where a refresh does not come to its end.
        """

        async def give(row: TokenRow) -> TokenRow | None:
            note = Note(actor, "rename", new_user, "renamed", f"from {user}")
            renamed = await self._store.rename(row, self._vault.resealed(row, new_user), note)
            if renamed is None:
                other = await self._store.load(new_user)
                if other is not None and other.status is not RowStatus.LOGGED_OUT:
                    raise AlreadyLoggedIn(f"{new_user} has a login already. Log {new_user} out first.")
            return renamed

        renamed = await self.undisturbed(user, give)
        self._memory.drop(user)
        return renamed

    async def undisturbed(self, user: str, act: Callable[[TokenRow], Awaitable[T | None]]) -> T:
        """What ``act`` makes of the user's row after a refresh that runs has ended, and on this host none can
        begin. It is called again where it returns None: then the row moved on.

        Raises NotLoggedIn, Unreadable, StorageUnavailable, and ProviderUnavailable where a refresh does not
        come to its end.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._provider.token_timeout + SLACK
        with self._changes.watch(user) as watch:
            while True:
                watch.reset()
                row, _ = await self._reader.look(user)
                hold = self._attempts.hold(user)
                if hold is not None:
                    with hold:
                        settled = await self._attempts.settle(row)
                        if settled is not None and settled.attempt_id is None:
                            done = await act(settled)
                            if done is not None:
                                return done
                if loop.time() >= deadline:
                    raise _pending(user)
                await watch.wait(self._store.look_again)

    async def replay(self) -> None:
        """Write what processes of this host that are gone left in the journal. Raises StorageUnavailable."""
        await self._attempts.replay()

    async def close(self, grace: float) -> None:
        """Let what was started come to its end, for ``grace`` seconds at most."""
        if self._tasks:
            _, pending = await asyncio.wait([*self._tasks], timeout=grace)
            await end(*pending)
        await self._attempts.close()

    def _task(self, work: Coroutine[Any, Any, Refreshed]) -> asyncio.Task[Refreshed]:
        task = asyncio.create_task(work, name="litellm_oauth refresh")
        self._tasks.add(task)

        def ended(done: asyncio.Task[Refreshed]) -> None:
            self._tasks.discard(done)
            if not done.cancelled():
                # Whoever waits gets it too; asyncio must not complain where nobody does.
                done.exception()

        task.add_done_callback(ended)
        return task

    def _fly_alone(
        self, user: str, work: Coroutine[Any, Any, Refreshed], urgency: int
    ) -> tuple[asyncio.Task[Refreshed], int]:
        flight = (self._task(work), urgency)
        self._flights[user] = flight

        def ended(_: asyncio.Task[Refreshed]) -> None:
            if self._flights.get(user) is flight:
                del self._flights[user]

        flight[0].add_done_callback(ended)
        return flight

    async def _fly(self, user: str, need: Need, row: TokenRow | None = None) -> Refreshed:
        """Have ``need`` satisfied; ``row`` is the user's as it was read a moment ago."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._provider.token_timeout + SLACK
        with self._changes.watch(user) as watch:
            while True:
                watch.reset()
                if row is None:
                    row, token = await self._reader.look(user)
                    if need.satisfied_by(token, self._clock.now()):
                        return Refreshed(token, refreshed=False)
                own = row.attempt_host == self._attempts.host
                wait = row.leased_for
                if wait <= 0 or own:
                    # An own lease whose host lock is free belongs to a process that is gone.
                    hold = self._attempts.hold(user)
                    if hold is not None:
                        with hold:
                            result = await self._try(row, need)
                        if result is not None:
                            return result
                    wait = SETTLED if own and hold is not None else self._store.look_again
                if loop.time() >= deadline:
                    raise _pending(user)
                row = None
                await watch.wait(min(wait, self._store.look_again))

    async def _try(self, row: TokenRow, need: Need) -> Refreshed | None:
        """Spend the token under this host's lock; None where the row has to be read again."""
        settled = await self._attempts.settle(row)
        if settled is None:
            return None
        if settled.generation != row.generation:
            # Another process was quicker between the look and the lock.
            _, token = await self._reader.look(row.user_id)
            return Refreshed(token, refreshed=False) if need.satisfied_by(token, self._clock.now()) else None
        await self._judge(settled, need)
        began = asyncio.get_running_loop().time()
        claim = await self._claim(settled, need)
        return None if claim is None else await self._spend(claim, need.actor, began)

    async def _judge(self, row: TokenRow, need: Need) -> None:
        try:
            judge(row, need, self._clock.now(), self._rules)
        except RejectedTooSoon as error:
            # Persisted, so that every process leaves this user's refresh token alone.
            note = Note(need.actor, "refresh", row.user_id, error.code, REJECTED)
            failure = Failure(describe(REJECTED, error.message), error.retry_after)
            await self._store.cool(row, failure, note)
            raise

    async def _claim(self, row: TokenRow, need: Need) -> Claim | None:
        attempt = self._attempt()
        try:
            return await self._store.claim(
                row,
                attempt,
                LEASE,
                need.actor,
                doubtful=self._store.steady,
                forced=need.reason == "forced",
            )
        except StorageUnavailable:
            # The lease may have been taken although its answer did not come: nothing was spent, so say so.
            await self._attempts.abandon(row, attempt)
            raise

    async def _spend(self, claim: Claim, actor: Actor, began: float) -> Refreshed | None:
        """The one place where a refresh token is spent. The caller holds this host's lock for the user.

        ``began``: when the lease was asked for, by the event loop's clock. None where it was lost before
        the provider could be asked; then nothing was spent.
        """
        user = claim.row.user_id
        self._clock.observe(claim.row.read_at)
        if claim.doubted_host is not None:
            _log.warning(
                "an attempt of host %s for %s is in doubt; its token is tried once more",
                claim.doubted_host,
                user,
            )
        try:
            refresh_token = self._vault.open_optional(claim.row.refresh_token, user, REFRESH) or ""
        except Unreadable as error:
            await self._attempts.end(claim, None, self._failed(claim, actor, error))
            raise
        record = await self._attempts.begin(claim)
        if not await self._still_leased(claim, began):
            await self._attempts.withdraw(claim, record)
            return None
        asked_at = self._clock.now()
        try:
            grant = await self._ask(claim, refresh_token)
        except InvalidGrant:
            if await self._condemn(claim, record, actor):
                raise messages.reauth_required(user) from None
            return await self._whoever_came_first(user)
        except ProviderError as error:
            failed = self._failed(claim, actor, error)
            if await self._attempts.end(claim, record, failed):
                if isinstance(error, ProviderUnavailable | ProviderRefused):
                    error.retry_after = failed.failure.wait
                raise
            return await self._whoever_came_first(user)
        return await self._keep(claim, record, grant, asked_at, Note(actor, "refresh", user, "refreshed"))

    async def _still_leased(self, claim: Claim, began: float) -> bool:
        """Whether the lease is sure to be ours still: a disk that stalls can outlast it."""
        if asyncio.get_running_loop().time() - began < LEASE / 3:
            return True
        try:
            return await self._store.renew(claim, LEASE)
        except StorageUnavailable:
            return False

    async def _ask(self, claim: Claim, refresh_token: str) -> Grant:
        renewal = asyncio.create_task(self._renew(claim))
        try:
            return await self._provider.refresh(refresh_token)
        finally:
            renewal.cancel()

    async def _renew(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(LEASE / 3)
            try:
                if not await self._store.renew(claim, LEASE):
                    return
            except StorageUnavailable:
                continue

    async def _keep(
        self, claim: Claim, record: Record, grant: Grant, asked_at: float, note: Note
    ) -> Refreshed:
        user, before = claim.row.user_id, claim.row
        rest = rest_after(grant.expires_in)
        client_id = self._provider.client_id
        sealed = self._vault.seal_grant(
            user, grant, asked_at=asked_at, client_id=client_id, before=before, rest=rest
        )
        token = AccessToken(grant.access_token, before.generation + 1, sealed.expires_at)
        try:
            with self._memory.reading(user) as reading:
                row = await self._attempts.save(claim, record, sealed, note)
        except StorageUnavailable:
            self._memory.put(user, token, due_at=token.expires_at, now=self._clock.now())
            return Refreshed(token, refreshed=True, saved=False)
        if row is None:
            return await self._whoever_came_first(user)
        self._reader.remember(row, token, overtaken=reading.overtaken)
        _log.info("refreshed the token of %s (generation %d)", user, row.generation)
        warning = warning_of(row, self._age, self._clock.now())
        if warning is not None:
            _log.warning("%s", warning)
        return Refreshed(token, refreshed=True)

    async def _whoever_came_first(self, user: str) -> Refreshed:
        """A login or a logout happened meanwhile: its act wins."""
        _, token = await self._reader.look(user)
        if token.expires_at <= self._clock.now():
            raise CoolingDown(f"The token of {user} changed meanwhile. Try again.", retry_after=LOOK_AGAIN)
        return Refreshed(token, refreshed=False)

    async def _condemn(self, claim: Claim, record: Record, actor: Actor) -> bool:
        """Mark the login dead. False where a login or logout came first."""
        user = claim.row.user_id
        text = describe("invalid_grant", "the provider refused the stored refresh token")
        note = Note(actor, "refresh", user, "reauth_required")
        condemned = await self._attempts.end(claim, record, Condemned(text, note))
        if condemned:
            _log.warning("the provider refused the refresh token of %s: a new login is needed", user)
        return condemned

    def _failed(self, claim: Claim, actor: Actor, error: ProviderError | Unreadable) -> Failed:
        user = claim.row.user_id
        failure = failure_of(claim.row, error, self._clock.now(), self._random)
        _log.warning("the token of %s was not refreshed: %s", user, failure.last_error)
        return Failed(failure, Note(actor, "refresh", user, error.code, reason_of(failure.last_error)))

    def _attempt(self) -> Attempt:
        return Attempt(uuid.uuid4(), self._process, self._attempts.host)


def _pending(user: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"Another process has been refreshing the token of {user} for too long. Try again soon.",
        reason="refresh_pending",
        retry_after=LOOK_AGAIN,
    )
