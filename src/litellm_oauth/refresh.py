"""The refresh of one user: judge the row, take the lease, ask the provider, save where nothing moved.

One refresh at a time per user: in this process by one task per user, across processes by the row's lease.
The task belongs to nobody who waits for it, so that no cancelled caller can lose an answer.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from . import messages
from .backoff import describe, rest_after, wait_after_failure
from .changes import Changes
from .clock import AuthorityClock
from .errors import (
    CoolingDown,
    InvalidGrant,
    ProviderError,
    ProviderUnavailable,
    StorageUnavailable,
    Unreadable,
)
from .grant import Grant
from .judgement import REJECTED, Need, Refreshed, RejectedTooSoon, judge
from .late import LateSteps
from .provider import Provider
from .reader import TokenReader
from .results import Actor
from .stores import Attempt, Claim, Note, Sealed, TokenRow, TokenStore
from .tokens import AccessToken
from .vault import REFRESH, Vault

_log = logging.getLogger(__name__)
LEASE = 30.0
# How long somebody who waits for another process goes without looking (a notification may be lost).
LOOK_AGAIN = 1.0
# What a refresh takes beyond the provider's own time-out.
SLACK = 10.0
UNREADABLE_WAIT = 300.0


class Refresher:
    """Refreshes tokens; the only code that spends a refresh token."""

    def __init__(
        self,
        store: TokenStore,
        vault: Vault,
        provider: Provider,
        reader: TokenReader,
        changes: Changes,
        clock: AuthorityClock,
        *,
        host: str,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._store = store
        self._vault = vault
        self._provider = provider
        self._reader = reader
        self._memory = reader.memory
        self._changes = changes
        self._clock = clock
        self._host = host
        self._random = random
        self._process = uuid.uuid4()
        self._flights: dict[str, tuple[asyncio.Task[Refreshed], int]] = {}
        self._tasks: set[asyncio.Task[Refreshed]] = set()
        self._late = LateSteps()

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

    async def spend_due(self, buffer: float, actor: Actor) -> Refreshed | None:
        """Refresh one user of all who are due; None where nobody is left. Raises like ``ensure``."""
        attempt = self._attempt()
        try:
            claim = await self._store.claim_due(buffer, attempt, LEASE, actor, doubtful=self._store.steady)
        except StorageUnavailable:
            self._abandon(str(attempt.attempt_id), attempt)
            raise
        if claim is None:
            return None
        user = claim.row.user_id
        if user in self._flights:
            # That flight waits for this very lease, and will find the row refreshed.
            return await asyncio.shield(self._task(self._spend(claim, actor)))
        return await asyncio.shield(self._fly_alone(user, self._spend(claim, actor), Need.MOST_URGENT)[0])

    async def close(self, grace: float) -> None:
        """Let what was started come to its end, for ``grace`` seconds at most."""
        tasks = [*self._tasks, *self._late.tasks]
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=grace)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

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

    async def _fly(self, user: str, need: Need) -> Refreshed:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._provider.token_timeout + SLACK
        with self._changes.watch(user) as watch:
            while True:
                watch.reset()
                await self._late.settle(user)
                row, token = await self._reader.look(user)
                if need.satisfied_by(token, self._clock.now()):
                    return Refreshed(token, refreshed=False)
                wait = row.leased_for
                if wait <= 0:
                    await self._judge(row, need)
                    claim = await self._claim(row, need.actor)
                    if claim is not None:
                        return await self._spend(claim, need.actor)
                    wait = LOOK_AGAIN
                if loop.time() >= deadline:
                    raise ProviderUnavailable(
                        f"Another process has been refreshing the token of {user} for too long. "
                        "Try again soon.",
                        reason="refresh_pending",
                        retry_after=LOOK_AGAIN,
                    )
                await watch.wait(min(wait, LOOK_AGAIN))

    async def _judge(self, row: TokenRow, need: Need) -> None:
        try:
            judge(row, need, self._clock.now())
        except RejectedTooSoon as error:
            # Persisted, so that every process leaves this user's refresh token alone.
            note = Note(need.actor, "refresh", row.user_id, error.code, REJECTED)
            await self._store.cool(
                row.user_id, row.generation, describe(REJECTED, error.message), error.retry_after, note
            )
            raise

    async def _claim(self, row: TokenRow, actor: Actor) -> Claim | None:
        attempt = self._attempt()
        try:
            return await self._store.claim(
                row.user_id, row.generation, attempt, LEASE, actor, doubtful=self._store.steady
            )
        except StorageUnavailable:
            self._abandon(row.user_id, attempt)
            raise

    def _abandon(self, chain: str, attempt: Attempt) -> None:
        """The lease may have been taken although its answer did not come: nothing was spent, so say so."""

        async def abandon() -> None:
            await self._store.abandon(attempt)

        self._late.add(chain, "the end of an attempt that spent nothing", abandon)

    async def _spend(self, claim: Claim, actor: Actor) -> Refreshed:
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
            await self._fail(claim, actor, error, UNREADABLE_WAIT)
            raise
        asked_at = self._clock.now()
        try:
            grant = await self._ask(claim, refresh_token)
        except InvalidGrant:
            if await self._condemn(claim, actor):
                raise messages.reauth_required(user) from None
            return await self._whoever_came_first(user)
        except ProviderError as error:
            if await self._fail(claim, actor, error, self._wait(claim.row, error)):
                raise
            return await self._whoever_came_first(user)
        # From here on the only copy of a rotated token is in this process. (The journal's place.)
        return await self._keep(claim, grant, asked_at, Note(actor, "refresh", user, "refreshed"))

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

    async def _keep(self, claim: Claim, grant: Grant, asked_at: float, note: Note) -> Refreshed:
        user, before = claim.row.user_id, claim.row
        rest = rest_after(grant.expires_in)
        sealed = self._vault.seal_grant(user, grant, asked_at=asked_at, before=before, rest=rest)
        token = AccessToken(grant.access_token, before.generation + 1, sealed.expires_at)
        try:
            with self._memory.reading(user) as reading:
                row = await self._store.save(claim, sealed, note)
        except StorageUnavailable:
            self._memory.put(user, token, due_at=token.expires_at, now=self._clock.now())
            self._late.add(user, "a refreshed token", lambda: self._save_late(claim, grant, sealed, note))
            return Refreshed(token, refreshed=True, saved=False)
        if row is None:
            await self._discard(before, grant)
            return await self._whoever_came_first(user)
        self._reader.remember(row, token, overtaken=reading.overtaken)
        _log.info("refreshed the token of %s (generation %d)", user, row.generation)
        return Refreshed(token, refreshed=True)

    async def _save_late(self, claim: Claim, grant: Grant, sealed: Sealed, note: Note) -> None:
        if await self._store.save(claim, sealed, note) is not None:
            return
        # Either somebody else came first, or an earlier try was committed and only its answer was lost. Then
        # the token is in use, perhaps already refreshed again, and must not be revoked.
        row = await self._store.load(claim.row.user_id)
        next_generation = claim.row.generation + 1
        if row is None or (row.generation == next_generation and row.access_token != sealed.access_token):
            await self._discard(claim.row, grant)

    async def _whoever_came_first(self, user: str) -> Refreshed:
        """A login or a logout happened meanwhile: its act wins."""
        _, token = await self._reader.look(user)
        if token.expires_at <= self._clock.now():
            raise CoolingDown(f"The token of {user} changed meanwhile. Try again.", retry_after=LOOK_AGAIN)
        return Refreshed(token, refreshed=False)

    async def _discard(self, before: TokenRow, grant: Grant) -> None:
        """Revoke an answer that nobody will use."""
        user = before.user_id
        entry = self._memory.entries.get(user)
        if entry is not None and entry.token.value == grant.access_token:
            self._memory.drop(user)
        spent = self._vault.open_optional(before.refresh_token, user, REFRESH)
        if grant.refresh_token is not None and grant.refresh_token != spent:
            await self._provider.revoke(grant.refresh_token, "refresh_token")
        else:
            # The refresh token did not rotate and may be the one that the winner stored.
            await self._provider.revoke(grant.access_token, "access_token")

    async def _condemn(self, claim: Claim, actor: Actor) -> bool:
        """Mark the login dead. False where a login or logout came first."""
        text = describe("invalid_grant", "the provider refused the stored refresh token")
        note = Note(actor, "refresh", claim.row.user_id, "reauth_required")
        condemned = await self._write(
            claim, "the end of a login", lambda: self._store.condemn(claim, text, note)
        )
        if condemned:
            _log.warning(
                "the provider refused the refresh token of %s: a new login is needed", claim.row.user_id
            )
        return condemned

    async def _fail(self, claim: Claim, actor: Actor, error: ProviderError | Unreadable, wait: float) -> bool:
        """Record a failure. False where a login or logout came first."""
        reason = getattr(error, "reason", None) or getattr(error, "error", None) or error.code
        note = Note(actor, "refresh", claim.row.user_id, error.code, reason)
        text = describe(reason, error.message)
        _log.warning("the token of %s was not refreshed: %s", claim.row.user_id, text)
        return await self._write(claim, "a failed refresh", lambda: self._store.fail(claim, text, wait, note))

    async def _write(self, claim: Claim, what: str, step: Callable[[], Awaitable[bool]]) -> bool:
        """Run a step now, or as soon as the store is back."""

        async def again() -> None:
            await step()

        try:
            return await step()
        except StorageUnavailable:
            self._late.add(claim.row.user_id, what, again)
            return True

    def _wait(self, row: TokenRow, error: ProviderError) -> float:
        return wait_after_failure(
            row,
            self._clock.now(),
            retry_after=getattr(error, "retry_after", None),
            maybe_spent=getattr(error, "maybe_spent", False),
            random=self._random,
        )

    def _attempt(self) -> Attempt:
        return Attempt(uuid.uuid4(), self._process, self._host)
