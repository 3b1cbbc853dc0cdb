"""TokenService: the one writer of tokens, whoever asks: a request, the background loop, the command line."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar
from uuid import UUID

from . import messages
from .background import Background
from .bulk import Bulk, Keep
from .clock import AuthorityClock
from .errors import (
    AlreadyLoggedIn,
    CoolingDown,
    InvalidInput,
    LitellmOAuthError,
    StorageUnavailable,
    Unreadable,
)
from .jobs import Jobs, StartedJob
from .judgement import Need
from .login import LoginFlow
from .provider import Provider
from .reader import TokenReader
from .refresh import LOOK_AGAIN, Refresher
from .results import (
    Actor,
    Job,
    LogoutOutcome,
    RefreshCounts,
    RefreshedAll,
    RefreshOutcome,
    StartedLogin,
    UserResult,
    Wanted,
)
from .status import LoginAge, user_status
from .stores import Note, RowStatus, TokenRow, TokenStore, Tombstone
from .stores.memory import Entry
from .tokens import AccessToken, ExportedLogin, UserStatus, check_user_id
from .transfer import Transfer
from .vault import ACCESS, REFRESH, Vault

_log = logging.getLogger(__name__)
# How long a request that holds a valid token waits for the row to be read again (seconds).
REREAD_PATIENCE = 0.5
# How long after one background refresh of a user the next one is tried.
KICK_PAUSE = 5.0
# How long close() waits for refreshes that run: less than a container is given to stop.
CLOSING_GRACE = 4.0
MAX_MIN_VALIDITY = 366 * 86_400.0
MAX_PAGE = 1000
# Seconds between two audit lines about refusals of one actor, and of how many actors that is kept.
REFUSAL_PAUSE = 60.0
REFUSALS = 10_000

T = TypeVar("T")


class TokenService:
    """Read path, single-flight refresh, login and logout, export and import.

    Make one with ``assembly.open_service``.
    Every operation may raise InvalidInput (bad user id) and, unless said otherwise, StorageUnavailable.
    """

    def __init__(
        self,
        tokens: TokenStore,
        vault: Vault,
        provider: Provider,
        reader: TokenReader,
        clock: AuthorityClock,
        refresher: Refresher,
        login: LoginFlow,
        transfer: Transfer,
        background: Background,
        bulk: Bulk,
        jobs: Jobs,
        resources: AsyncExitStack,
        *,
        actor: Actor,
        refresh_buffer: float,
        auto_refresh: bool,
        age: LoginAge,
    ) -> None:
        self._age = age
        self._tokens = tokens
        self._vault = vault
        self._provider = provider
        self._reader = reader
        self._memory = reader.memory
        self._entries = reader.memory.entries
        self._clock = clock
        self._refresher = refresher
        self._login = login
        self._transfer = transfer
        self._background = background
        self._bulk = bulk
        self._jobs = jobs
        self._resources = resources
        self._actor = actor
        self._buffer = refresh_buffer
        self._auto_refresh = auto_refresh
        self._tasks: set[asyncio.Task[Any]] = set()
        self._refused_at: dict[str, float] = {}

    async def access_token(self, user: str) -> AccessToken:
        """The token for a request upstream.

        Valid: from memory, no I/O. Due: served, and a refresh starts in the background. Expired: waits for
        the one refresh. A token in memory that has not expired is served while the database is down.

        Raises NotLoggedIn, ReauthRequired, Unreadable, CoolingDown, ProviderUnavailable, ProviderRefused and,
        where no valid token is in memory, StorageUnavailable.
        """
        entry = self._entries.get(user)
        if entry is not None:
            now = self._clock.now()
            if now < entry.due_at and self._memory.trusted(entry, now):
                entry.used_at = now
                return entry.token
        return await self._look_up(user)

    async def replace_rejected(self, user: str, generation: int) -> AccessToken:
        """The token to retry with after an upstream 401 for the token of ``generation``.

        A newer stored token is returned as it is. Otherwise one refresh, at most once per generation. A token
        that is rejected within a minute of its refresh makes the user cool down instead, and for an hour no
        rejection causes a refresh: TokenRefused.
        Raises what ``access_token`` raises.
        """
        check_user_id(user)
        entry = await asyncio.shield(self._reader.read(user))
        now = self._clock.now()
        if entry.token.generation > generation and now < entry.token.expires_at:
            return entry.token
        if not self._auto_refresh:
            raise messages.refresh_is_off(user)
        # A generation that was never handed out does not lift the limit of one refresh each.
        seen = min(generation, entry.token.generation)
        result = await self._refresher.ensure(user, Need("rejected", seen, None, self._actor))
        return result.token

    async def start_login(self, user: str, *, actor: Actor, again: bool = False) -> StartedLogin:
        """Begin a login. Raises AlreadyLoggedIn where a working login exists, unless ``again``."""
        check_user_id(user)
        if not again and (await self.status(user)).works:
            raise AlreadyLoggedIn(
                f"{user} is logged in already. Ask for another login on purpose (force), or log out first."
            )
        return await self._login.start(user, actor)

    async def complete_login(
        self, user: str, code_input: str, state: str | None = None, *, actor: Actor
    ) -> UserStatus:
        """Exchange the code and store the token set.

        ``code_input`` is a bare code, ``code#state`` or the whole redirect URL. A bare code without ``state``
        counts for the user's newest pending login only.
        Raises InvalidInput, NoPendingLogin, StateMismatch, CodeRejected, ProviderRefused and
        ProviderUnavailable.
        """
        check_user_id(user)
        # The task is nobody's: a caller who hangs up must not lose the answer to a code that works once.
        login = self._login.complete(user, code_input, state, actor)
        return await asyncio.shield(self._task(self._serve(user, login, "logged in")))

    async def export_login(self, user: str, *, actor: Actor) -> ExportedLogin:
        """The user's login with its tokens in the clear, after the audit has been told who took it.

        Waits for a refresh that runs. Raises NotLoggedIn, ReauthRequired (also where there is nothing left to
        use), Unreadable, and ProviderUnavailable where the refresh does not end.
        """
        check_user_id(user)
        return await self._transfer.give(user, actor)

    async def import_login(
        self, user: str, login: ExportedLogin, *, actor: Actor, again: bool = False
    ) -> UserStatus:
        """Store a login from elsewhere as the user's. Tokens that this gateway's keys sealed are opened.

        It ends a refresh that runs, as a login does. Nothing is revoked: what it replaces is left alone.
        Raises InvalidInput for what cannot be a login, and AlreadyLoggedIn where a working one exists, unless
        ``again``. Then nothing has changed.
        """
        check_user_id(user)
        work = self._import(user, login, actor, again=again)
        return await asyncio.shield(self._task(self._serve(user, work, "was imported")))

    async def status(self, user: str) -> UserStatus:
        """How the user's login stands. Somebody unknown reads as logged_out with generation 0."""
        check_user_id(user)
        return self._status(user, await self._tokens.load(user))

    async def statuses(self, *, after: str | None = None, limit: int = 100) -> list[UserStatus]:
        """Up to ``limit`` (1 to 1000) users whose id sorts after ``after``, in order of their id."""
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidInput(f"limit is a number from 1 to {MAX_PAGE}.")
        return [self._status(row.user_id, row) for row in await self._tokens.page(after, limit)]

    async def refresh(
        self, user: str, *, min_validity: float | None = None, force: bool = False, actor: Actor
    ) -> RefreshOutcome:
        """Refresh where less than ``min_validity`` seconds (default: refresh_buffer) are left, or forced.

        Raises NotLoggedIn, ReauthRequired, Unreadable, CoolingDown, ProviderUnavailable, ProviderRefused.
        """
        check_user_id(user)
        wanted = self._checked_validity(min_validity)
        before = (await asyncio.shield(self._reader.read(user))).token.generation
        need = Need("forced" if force else "expiring", before, None if force else wanted, actor)
        result = await self._refresher.ensure(user, need)
        if not result.saved:
            raise StorageUnavailable(
                f"A new token of {user} was received and serves requests, but cannot be saved yet; "
                "that is tried again and again. Look at the database."
            )
        return RefreshOutcome(
            user_id=user,
            result="refreshed" if result.token.generation > before else "fresh",
            generation_before=before,
            generation=result.token.generation,
            expires_at=result.token.expires_at,
            expires_in=max(0.0, result.token.expires_at - self._clock.now()),
        )

    async def logout(self, user: str, *, actor: Actor) -> LogoutOutcome:
        """Forget the tokens and revoke them at the provider as well as that can be done. Idempotent."""
        check_user_id(user)
        return await asyncio.shield(self._task(self._log_out(user, actor)))

    async def rename(self, user: str, new_user: str, *, actor: Actor) -> UserStatus:
        """Give the login of ``user`` to ``new_user``: its values are encrypted again, the old id logged out.

        Raises NotLoggedIn, AlreadyLoggedIn where the new user has a login, Unreadable, ProviderUnavailable.
        """
        check_user_id(user)
        check_user_id(new_user)
        if user == new_user:
            raise InvalidInput(f"{user} already has that name. Give another one.")
        row = await asyncio.shield(self._task(self._rename(user, new_user, actor)))
        _log.info("%s is called %s now (generation %d)", user, new_user, row.generation)
        return self._status(new_user, row)

    async def note_refusal(self, user: str, *, actor: Actor) -> None:
        """Note in the audit that ``actor`` wanted to act for ``user`` and may not.

        Once a minute for each actor, so that nobody can fill the table. Fails no request.
        """
        now = self._clock.now()
        if now - self._refused_at.get(actor.name, 0.0) < REFUSAL_PAUSE:
            return
        if len(self._refused_at) >= REFUSALS:
            self._refused_at.clear()
        self._refused_at[actor.name] = now
        _log.warning("%s tried to act for %s", actor.name, user)
        with suppress(StorageUnavailable):
            await self._tokens.write_note(Note(actor, "act_for", user, "forbidden"))

    async def refresh_due(self, *, actor: Actor) -> RefreshCounts:
        """One pass over all users whose token is due. Errors of single users are counted, not raised."""
        return await self._bulk.due(self._buffer, actor)

    async def count_users(self) -> int:
        """How many users are logged in."""
        return await self._bulk.total()

    async def refresh_all(
        self, keep: Keep, *, min_validity: float | None = None, force: bool = False, actor: Actor
    ) -> RefreshedAll:
        """Look at everybody who is logged in, and refresh as ``refresh`` would.

        ``keep`` gets each user's result as it comes. Errors of single users are results, not raised.
        """
        wanted = Wanted(self._checked_validity(min_validity), force, actor)
        return await self._bulk.everybody(wanted, keep, name="one process")

    async def start_refresh_all(
        self, *, min_validity: float | None = None, force: bool = False, actor: Actor
    ) -> StartedJob:
        """The same as a job that nobody waits for. One that runs already, anywhere, is joined."""
        return await self._jobs.start(Wanted(self._checked_validity(min_validity), force, actor))

    async def job(self, job_id: UUID) -> Job:
        """How a job stands, whichever process runs it. Raises NoSuchJob."""
        return await self._jobs.look(job_id)

    async def job_results(
        self, job_id: UUID, *, after: str | None = None, limit: int = 100, result: str | None = None
    ) -> Sequence[UserResult]:
        """Up to ``limit`` (1 to 1000) of a job's results in order of the user id; of one kind, if asked."""
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidInput(f"limit is a number from 1 to {MAX_PAGE}.")
        return await self._jobs.results(job_id, after=after, limit=limit, result=result)

    async def run_background(self) -> None:
        """Refresh what becomes due and forget old logins and jobs, until cancelled. Outlives outages."""
        self._reader.cache.open()
        await self._background.run()

    async def database_reachable(self) -> bool:
        """Whether the database answers now; for the health route."""
        try:
            await self._tokens.now()
        except StorageUnavailable:
            return False
        return True

    async def close(self) -> None:
        """Let running refreshes end (a few seconds), then give back the connections."""
        # The jobs first, so that they begin no more.
        await self._jobs.close()
        acts = [asyncio.wait([*self._tasks], timeout=CLOSING_GRACE)] if self._tasks else []
        await asyncio.gather(*acts, self._refresher.close(CLOSING_GRACE))
        await self._resources.aclose()

    def _checked_validity(self, min_validity: float | None) -> float:
        """Seconds; refresh_buffer where None is given. Raises InvalidInput."""
        wanted = self._buffer if min_validity is None else min_validity
        if not math.isfinite(wanted) or not 0 <= wanted <= MAX_MIN_VALIDITY:
            raise InvalidInput(f"min_validity is a number of seconds from 0 to {MAX_MIN_VALIDITY:.0f}.")
        return wanted

    async def _look_up(self, user: str) -> AccessToken:
        """Where memory alone does not settle it: due, not trusted, expired, or not there."""
        check_user_id(user)
        entry = self._entries.get(user)
        if entry is None:
            entry = await self._reader.recall(user)
            now = self._clock.now()
            if entry is not None and entry.recalled and now < entry.due_at:
                # It serves at once; whether it still should is found out meanwhile.
                self._reader.read(user)
                entry.used_at = now
                return entry.token
        now = self._clock.now()
        serves = entry is not None and now < entry.token.expires_at
        if entry is None or not serves or not (self._memory.trusted(entry, now) or self._tokens.down):
            entry = await self._reread(user, entry if serves else None)
            now = self._clock.now()
        if now < entry.token.expires_at:
            # Another reading may have put a new entry in the place of this one meanwhile.
            self._entries.get(user, entry).used_at = now
            if now >= entry.due_at:
                self._kick(user, entry, now)
            return entry.token
        if not self._auto_refresh:
            raise messages.refresh_is_off(user)
        need = Need("expiring", entry.token.generation, 0.0, self._actor)
        return (await self._refresher.ensure(user, need)).token

    async def _reread(self, user: str, serving: Entry | None) -> Entry:
        """The user's entry, read again. One that still serves also does where the store is slow or away."""
        read = self._reader.read(user)
        if serving is None:
            return await asyncio.shield(read)
        await asyncio.wait([read], timeout=REREAD_PATIENCE)
        if not read.done():
            return serving
        try:
            return read.result()
        except StorageUnavailable:
            return serving

    def _kick(self, user: str, entry: Entry, now: float) -> None:
        """Start a refresh that nobody waits for, unless one was tried a moment ago."""
        if now < entry.quiet_until:
            return
        entry.quiet_until = now + KICK_PAUSE
        need = Need("expiring", entry.token.generation, self._buffer, self._actor, patient=True)

        async def refresh() -> None:
            try:
                await self._refresher.ensure(user, need)
            except CoolingDown as error:
                entry.quiet_until = now + error.retry_after
            except LitellmOAuthError:
                # Written down where it happened; the next request or pass tries again.
                return

        self._task(refresh())

    async def _serve(self, user: str, login: Coroutine[Any, Any, TokenRow], what: str) -> UserStatus:
        """Wait until a login is stored, and serve it from memory. ``what`` happened, for the log."""
        with self._memory.reading(user) as reading:
            row = await login
        self._clock.observe(row.read_at)
        self._reader.remember(row, self._vault.open_access(row), overtaken=reading.overtaken)
        _log.info("%s %s (generation %d)", user, what, row.generation)
        return self._status(user, row)

    async def _import(self, user: str, login: ExportedLogin, actor: Actor, *, again: bool) -> TokenRow:
        while True:
            over = None if again else await self._replaceable(user)
            row = await self._transfer.take(user, login, actor, over=over)
            if row is not None:
                return row

    async def _replaceable(self, user: str) -> int:
        """The generation of a row whose login nobody needs; 0 for no row. Raises AlreadyLoggedIn."""
        row = await self._tokens.load(user)
        if row is None:
            return 0
        if self._status(user, self._transfer.demand_authority(row)).works:
            raise AlreadyLoggedIn(
                f"{user} is logged in already, and an import would take the place of that login. Ask for it "
                "on purpose (force), or log out first."
            )
        return row.generation

    async def _rename(self, user: str, new_user: str, actor: Actor) -> TokenRow:
        row = await self._refresher.rename(user, new_user, actor)
        # Its generation is not below the one that the old id was left with.
        await self._forget(user, row.generation)
        return row

    async def _log_out(self, user: str, actor: Actor) -> LogoutOutcome:
        before = await self._tokens.load(user)
        try:
            tombstone = await self._tokens.log_out(user, Note(actor, "logout", user, "logged_out"))
        except StorageUnavailable:
            tombstone = await self._logged_out_all_the_same(user, before)
        if tombstone is None:
            row = await self._tokens.load(user)
            generation = row.generation if row is not None else 0
            await self._forget(user, generation)
            return LogoutOutcome(user, False, None, generation)
        await self._forget(user, tombstone.generation)
        _log.info("%s logged out (generation %d)", user, tombstone.generation)
        return LogoutOutcome(user, True, await self._revoke(user, tombstone), tombstone.generation)

    async def _forget(self, user: str, generation: int) -> None:
        """The cache first: until it has forgotten the token, it could bring it back into memory."""
        await self._reader.cache.bury(user, generation)
        self._memory.drop(user)

    async def _logged_out_all_the_same(self, user: str, before: TokenRow | None) -> Tombstone:
        """What a logout took away that was committed, although its confirmation was lost.

        Raises StorageUnavailable where that cannot be told, or it was not.
        """
        await asyncio.sleep(LOOK_AGAIN)
        row = await self._tokens.load(user)
        if before is None or row is None or row.generation != before.generation + 1:
            raise _not_logged_out(user)
        if row.status is not RowStatus.LOGGED_OUT:
            raise _not_logged_out(user)
        return Tombstone(row.generation, before.access_token, before.refresh_token)

    async def _revoke(self, user: str, tombstone: Tombstone) -> bool | None:
        """RFC 7009 §2.1: revoking the refresh token ends the access tokens of its grant as well."""
        try:
            token = self._vault.open_optional(tombstone.refresh_token, user, REFRESH)
            if token is not None:
                return await self._provider.revoke(token, "refresh_token")
            token = self._vault.open_optional(tombstone.access_token, user, ACCESS)
            return await self._provider.revoke(token, "access_token") if token is not None else None
        except Unreadable:
            # What does not decrypt cannot be named to the provider.
            return False

    def _status(self, user: str, row: TokenRow | None) -> UserStatus:
        if row is not None:
            self._clock.observe(row.read_at)
        return user_status(
            user,
            row,
            now=self._clock.now(),
            refresh_buffer=self._buffer,
            age=self._age,
            client_id=self._provider.client_id,
            readable=row is None or self._vault.readable(row),
            source=self._tokens.source if row is None else row.source,
        )

    def _task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _not_logged_out(user: str) -> StorageUnavailable:
    return StorageUnavailable(
        f"The database did not confirm that {user} is logged out. Look at the status, and log out again."
    )
