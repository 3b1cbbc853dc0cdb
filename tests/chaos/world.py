"""A small world for the state machine: hosts with processes, a database, a provider, and one clock for all.

The processes are services of this process, so that one can die at an exact step: what it had begun is
cancelled where it stands, its locks and connections are gone, as the kernel would have it. The database, the
provider and the disks are real; only their clocks run ahead of ours.
"""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chaos.books import REUSE, Family, families
from litellm_oauth.attempts import Attempts
from litellm_oauth.cipher import Cipher
from litellm_oauth.errors import LitellmOAuthError, ProviderUnavailable, StorageUnavailable
from litellm_oauth.grant import Grant
from litellm_oauth.journal import Journal, Outcome, Record
from litellm_oauth.provider import Provider
from litellm_oauth.service import TokenService
from litellm_oauth.stores import Claim, Note, Sealed, TokenRow
from litellm_oauth.stores.database import Limits
from litellm_oauth.stores.file import FileTokens
from litellm_oauth.stores.postgres import PostgresTokens
from litellm_oauth.vault import REFRESH
from support.postgres import TOKENS, TestDatabase
from support.sandbox import SandboxProvider, fingerprint
from support.service import ACTOR, KEY, Gateways

# Where in a refresh a process can die: after claim, record, answer, fsync, save and mirror.
STEPS = ("claimed", "recorded", "answered", "kept", "saved", "mirrored")
LIMITS = Limits(connect=1, pool=0.3, pool_when_down=0.1, step=2.0, down=0.3)
FOR_EVER = 3 * 10**8
_CLOCK = f"""
CREATE SCHEMA world;
CREATE TABLE world.clock AS SELECT 0::float8 AS ahead;
CREATE FUNCTION world.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
  'SELECT pg_catalog.clock_timestamp() + make_interval(secs => (SELECT ahead FROM world.clock))';
CREATE FUNCTION world.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS
  'SELECT pg_catalog.statement_timestamp() + make_interval(secs => (SELECT ahead FROM world.clock))';
CREATE TABLE world.backup AS SELECT * FROM {TOKENS} WITH NO DATA;
"""


class Death(BaseException):
    """Ends what a process was doing where it stands."""


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """One process of a host."""

    host: str
    service: TokenService


@dataclass(frozen=True, slots=True)
class Holding:
    """A refresh token in a tier or in a journal. ``expires_at`` is its access token's."""

    place: str
    host: str | None
    user: str
    token: str | None
    generation: int
    expires_at: float


@contextmanager
def clock_of_the_world(database: TestDatabase) -> Iterator[None]:
    """The database tells the time by ``world.clock``; a table for a backup is there as well."""
    database.query(_CLOCK)
    path = "world, pg_catalog, public, claude_oauth"
    database.query(f"ALTER ROLE CURRENT_USER IN DATABASE {database.name} SET search_path = {path}")
    try:
        yield
    finally:
        database.let_in()
        database.query(f"ALTER ROLE CURRENT_USER IN DATABASE {database.name} RESET search_path")
        database.query("DROP SCHEMA world CASCADE")


class World:
    """Everything there is, and what must be true of it."""

    def __init__(self, gateways: Gateways, hosts: tuple[str, ...]) -> None:
        """``hosts``: a single one knows that it is alone."""
        self.gateways = gateways
        self.hosts = hosts
        self.processes: list[Process] = []
        self.database_up = True
        # user -> the login that he has. A login is named by its first refresh token.
        self.logins: dict[str, str] = {}
        # Logins whose newest token died with its process or on its way, and those that were tried once more.
        self.dropped: set[str] = set()
        self.forfeited: set[str] = set()
        # Users whose logout only a lost host knew of, after a backup from before it was put back.
        self.forgotten: set[str] = set()
        self.faults: list[str] = []
        self._ahead = 0.0
        self._dying_at: str | None = None
        self._kept = asyncio.Event()
        self._cipher = Cipher(KEY)
        self._rows: list[Holding] = []
        self._seen: dict[tuple[str, str], int] = {}

    @classmethod
    def create(
        cls,
        database: TestDatabase,
        sandbox: SandboxProvider,
        hosts: tuple[str, ...],
        patch: pytest.MonkeyPatch,
        folder: Path,
    ) -> World:
        """A world in which nothing has happened yet."""
        database.let_in()
        database.empty()
        database.query("DELETE FROM world.backup; UPDATE world.clock SET ahead = 0")
        sandbox.reset()
        sandbox.settings(refresh_token_seconds=FOR_EVER)
        gateways = Gateways(database, sandbox, folder)
        gateways.limits = LIMITS
        world = cls(gateways, hosts)
        patch.undo()
        world.install(patch)
        return world

    @property
    def single(self) -> bool:
        return len(self.hosts) == 1

    def now(self) -> float:
        return time.time() + self._ahead

    # -- processes

    async def start(self, host: str) -> Process:
        process = Process(
            host,
            await self.gateways.open(
                host=host,
                clock=self.now,
                without_database=True,
                single_host=self.single,
                forced_refreshes_per_day=10_000,
            ),
        )
        self.processes.append(process)
        return process

    async def stop(self, process: Process) -> None:
        self.processes.remove(process)
        await process.service.close()

    async def kill(self, process: Process) -> None:
        """Nothing that it had begun goes on."""
        self.processes.remove(process)
        service = process.service
        attempts = service._refresher._attempts
        tasks = [*service._tasks, *service._refresher._tasks, *attempts._tasks]
        tasks += [attempts._replaying] if attempts._replaying is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await service._resources.aclose()

    async def die(self, process: Process, user: str, step: str) -> None:
        """Have the process refresh the user's token by force, and die at a step, if it comes to that."""
        self._dying_at = step
        self._kept.clear()
        with suppress(LitellmOAuthError, Death):
            await process.service.refresh(user, force=True, actor=ACTOR)
        await self.calm()
        died = self._dying_at is None
        self._dying_at = None
        if died:
            await self.kill(process)

    async def burn(self, host: str) -> None:
        """The host is gone for good, with its disk."""
        for process in [process for process in self.processes if process.host == host]:
            await self.kill(process)
        elsewhere = {holding.token for holding in self.holdings() if holding.host != host}
        for family in self.families().values():
            if family.first in self.logins.values() and family.last not in elsewhere:
                self.dropped.add(family.first)
        others = [other for other in self.hosts if other != host]
        for row in self._database_rows() if self.database_up else self._rows:
            known = any(self._noted(other, row.user).get("loggedOut") for other in others)
            if row.token is not None and row.user not in self.logins and not known:
                self.forgotten.add(row.user)
        shutil.rmtree(self.gateways.folder / host, ignore_errors=True)
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] != f"file of {host}"}

    async def close(self) -> None:
        for process in list(self.processes):
            await self.kill(process)

    async def calm(self) -> None:
        """Wait for what is done behind the callers' backs."""
        for process in self.processes:
            tasks = [*process.service._tasks, *process.service._refresher._attempts._tasks]
            if tasks:
                await asyncio.wait(tasks, timeout=5)

    async def replay(self) -> None:
        """What the background loop of each process does first, every half a minute."""
        for process in self.processes:
            with suppress(StorageUnavailable):
                await process.service._refresher.replay()

    # -- the database

    def database_away(self) -> None:
        self._rows = self._database_rows()
        self.database_up = False
        self.gateways.database.cut_off()

    async def database_back(self) -> None:
        self.gateways.database.let_in()
        self.database_up = True
        self._tell_time()
        for process in self.processes:
            for _ in range(100):
                if await process.service.database_reachable():
                    break
                await asyncio.sleep(0.05)
        # Others get ten seconds for it before anything in doubt is tried (Limits.settling).
        await self.replay()

    def back_up(self) -> None:
        self.gateways.database.query(
            f"DELETE FROM world.backup; INSERT INTO world.backup SELECT * FROM {TOKENS}"
        )

    def put_back(self) -> None:
        self.gateways.database.query(f"DELETE FROM {TOKENS}; INSERT INTO {TOKENS} SELECT * FROM world.backup")
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] != "database"}

    def backed_up(self) -> set[str]:
        """The users in the backup."""
        return {row["user_id"] for row in self.gateways.database.query("SELECT user_id FROM world.backup")}

    # -- time

    async def wait(self, seconds: float) -> None:
        """Time passes for everybody, and the background loops run in it."""
        await self.replay()
        self._ahead += seconds
        self.gateways.sandbox.settings(clock_skew_seconds=self._ahead)
        self._tell_time()

    def _tell_time(self) -> None:
        if self.database_up:
            self.gateways.database.query("UPDATE world.clock SET ahead = %(ahead)s", {"ahead": self._ahead})

    # -- people

    async def log_in(self, process: Process, user: str) -> None:
        before = set(self.families())
        with suppress(LitellmOAuthError):
            await self.gateways.log_in(process.service, user, "somebody")
            (self.logins[user],) = set(self.families()) - before
            self.forgotten.discard(user)

    async def log_out(self, process: Process, user: str) -> None:
        with suppress(LitellmOAuthError):
            await process.service.logout(user, actor=ACTOR)
            self.logins.pop(user, None)
            self.forgotten.discard(user)

    async def rename(self, process: Process, user: str, new: str) -> None:
        with suppress(LitellmOAuthError):
            await process.service.rename(user, new, actor=ACTOR)
            self.logins[new] = self.logins.pop(user)

    # -- what there is

    def families(self) -> dict[str, Family]:
        """All logins at the provider."""
        return {family.first: family for family in families(self.gateways.sandbox)}

    def holdings(self) -> list[Holding]:
        """Everything that any tier or journal holds now."""
        found = self._database_rows() if self.database_up else list(self._rows)
        for host in self.hosts:
            found += self._documents(host)
            found += self._records(host)
        return found

    def document(self, host: str, user: str) -> Path | None:
        """The user's file on a host."""
        for path in (self.gateways.tokens(host).parent / "users").glob("*.json"):
            with suppress(ValueError):
                if json.loads(path.read_text())["userId"] == user:
                    return path
        return None

    def journal(self, host: str) -> list[Path]:
        return list((self.gateways.journal(host) / "attempts").glob("*"))

    def _database_rows(self) -> list[Holding]:
        query = (
            "SELECT user_id, refresh_token_encrypted AS token, generation, "
            f"coalesce(extract(epoch FROM expires_at), 0)::float8 AS expires_at FROM {TOKENS}"
        )
        return [
            Holding(
                "database",
                None,
                row["user_id"],
                self._opened(row["token"], row["user_id"]),
                row["generation"],
                row["expires_at"],
            )
            for row in self.gateways.database.query(query)
        ]

    def _documents(self, host: str) -> list[Holding]:
        found = []
        for path in (self.gateways.tokens(host).parent / "users").glob("*.json"):
            # One that was spoilt holds nothing.
            with suppress(ValueError, KeyError):
                kept = json.loads(path.read_text())
                user = kept["userId"]
                token = self._opened(kept["refreshToken"], user)
                place = f"file of {host}"
                found.append(Holding(place, host, user, token, kept["generation"], kept["expiresAt"]))
        return found

    def _records(self, host: str) -> list[Holding]:
        found = []
        for path in self.journal(host):
            lines = path.read_bytes().rstrip(b"\0").splitlines()
            outcome = json.loads(lines[1].partition(b" ")[2]) if len(lines) > 1 else {}
            if outcome.get("kind") == "Received":
                begun, sealed = json.loads(lines[0].partition(b" ")[2]), outcome["sealed"]
                user, generation = begun["user_id"], begun["generation"] + 1
                token = self._opened(sealed["refresh_token"], user)
                place = f"journal of {host}"
                found.append(Holding(place, host, user, token, generation, sealed["expires_at"]))
        return found

    def _opened(self, sealed: str | None, user: str) -> str | None:
        return fingerprint(self._cipher.decrypt(sealed, user=user, field=REFRESH)) if sealed else None

    # -- whether all agree

    async def see(self) -> None:
        """Each user is looked at once on each host, after its journal was replayed."""
        for host in self.hosts:
            if host not in {process.host for process in self.processes}:
                await self.start(host)
        await self.replay()
        for process in self.processes:
            for user in {holding.user for holding in self.holdings()}:
                await process.service.status(user)

    def is_saved(self, user: str) -> bool:
        """Whether the database holds the user's newest token."""
        newest = self.families()[self.logins[user]].last if user in self.logins else None
        return newest in {
            one.token for one in self.holdings() if one.place == "database" and one.user == user
        }

    def disagreements(self) -> list[str]:
        """Where the files of a host are not what the database is."""
        found = []
        for row in self._database_rows():
            for host in self.hosts:
                kept = [(one.token, one.generation) for one in self._documents(host) if one.user == row.user]
                if row.token is None:
                    noted = self._noted(host, row.user)
                    if kept or noted != {"generation": row.generation, "loggedOut": True}:
                        found.append(
                            f"{host}: {row.user} is logged out ({row.generation}), not {kept or noted}"
                        )
                elif kept != [(row.token, row.generation)]:
                    found.append(f"{host}: {row.user} has {row.token, row.generation}, not {kept}")
        return found

    def _noted(self, host: str, user: str) -> dict[str, Any]:
        """What a host remembers of a user beside the tokens."""
        floor = self.gateways.journal(host) / "generations" / _hashed(user)
        noted: dict[str, Any] = json.loads(floor.read_text()) if floor.exists() else {}
        return noted

    # -- what must be true

    def check(self) -> None:
        """No token is lost, no older one replaces a newer one, none was spent twice."""
        holdings, known = self.holdings(), self.families()
        held = {holding.token for holding in holdings}
        for user, login in self.logins.items():
            family = known[login]
            if family.revoked_because is not None:
                allowed = family.revoked_because == REUSE and login in self.forfeited
                assert allowed, f"the login of {user} was revoked: {family.revoked_because}"
            elif login not in self.dropped:
                assert family.last in held, f"the newest token of {user} is nowhere"
        for holding in holdings:
            if not holding.place.startswith("journal"):
                key = (holding.place, holding.user)
                seen = self._seen.get(key, 0)
                assert holding.generation >= seen, (
                    f"{key} went from generation {seen} to {holding.generation}"
                )
                self._seen[key] = holding.generation
        assert self.faults == []

    def forget(self, host: str, user: str) -> None:
        """Somebody laid hands on a file: its generation may fall."""
        self._seen.pop((f"file of {host}", user), None)

    def presented(self, token: str) -> None:
        """A refresh token is about to be spent: no spent one, but by the rule for doubt."""
        (family,) = [
            one for one in self.families().values() if token in {issued.token for issued in one.tokens}
        ]
        spent = {issued.token for issued in family.tokens if issued.spent}
        if token not in spent or family.revoked_because is not None:
            # A login that is over cannot be lost.
            return
        alive = {process.host for process in self.processes}
        holdings = self.holdings()
        valid = [one for one in holdings if one.token == token and one.expires_at > self.now() + 0.5]
        # A host that stays away is waited for until the access token has expired, and no longer.
        held = [
            one
            for one in holdings
            if one.token == family.last and not (one.place.startswith("journal") and one.host not in alive)
        ]
        if valid or held:
            self.faults.append(f"a spent token was presented: {valid or held}")
        self.forfeited.add(family.first)

    # -- how processes die

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Have every process look at each step whether it is to die there, and say what it spends."""
        begin, ask, keep, settled, close = (
            Journal.begin,
            Provider.refresh,
            Record.keep,
            Attempts._settled,
            Record.close,
        )

        async def begun(journal: Journal, claim: Claim) -> Record:
            self._maybe_die("claimed")
            return await begin(journal, claim)

        async def asked(provider: Provider, refresh_token: str) -> Grant:
            self._maybe_die("recorded")
            token = fingerprint(refresh_token)
            self.presented(token)
            try:
                grant = await ask(provider, refresh_token)
            except ProviderUnavailable:
                self._drop_if_spent(token)
                raise
            if self._dying_at == "answered":
                self._drop_if_spent(token)
            self._maybe_die("answered")
            return grant

        async def kept(record: Record, outcome: Outcome) -> None:
            await keep(record, outcome)
            self._kept.set()

        async def settle(attempts: Attempts, row: TokenRow, record: Record) -> None:
            self._maybe_die("saved")
            await settled(attempts, row, record)

        async def closed(record: Record, *, remove: bool) -> None:
            if remove:
                self._maybe_die("mirrored")
            await close(record, remove=remove)

        patch.setattr(Journal, "begin", begun)
        patch.setattr(Provider, "refresh", asked)
        patch.setattr(Record, "keep", kept)
        patch.setattr(Attempts, "_settled", settle)
        patch.setattr(Record, "close", closed)
        for store in (PostgresTokens, FileTokens):
            patch.setattr(store, "save", self._saving(store.save))

    def _saving(self, save: Any) -> Any:
        async def saved(store: Any, claim: Claim, sealed: Sealed, note: Note) -> TokenRow | None:
            if self._dying_at == "kept":
                # The journal is written at the same time.
                await asyncio.wait_for(self._kept.wait(), 5)
                self._maybe_die("kept")
            found: TokenRow | None = await save(store, claim, sealed, note)
            return found

        return saved

    def _maybe_die(self, step: str) -> None:
        if self._dying_at == step:
            self._dying_at = None
            raise Death

    def _drop_if_spent(self, token: str) -> None:
        for family in self.families().values():
            if token in {issued.token for issued in family.tokens if issued.spent}:
                self.dropped.add(family.first)


def _hashed(user: str) -> str:
    return hashlib.sha256(user.encode()).hexdigest()[:32]
