"""A process of a gateway for fault tests: the real service, and reports of what it does on standard output.

``python -m chaos.worker`` is the nursery. It has imported everything once, and forks a worker for each order
it reads (a line of JSON, see ``fleet``), so that a test can start and kill hundreds. Nothing outlives it.

A report is one short line, written at once: what a worker has said is heard even if it is killed right after.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import httpx

from litellm_oauth import journal
from litellm_oauth.assembly import open_service
from litellm_oauth.cipher import Cipher
from litellm_oauth.errors import LitellmOAuthError
from litellm_oauth.grant import Grant
from litellm_oauth.provider import Provider
from litellm_oauth.service import REREAD_PATIENCE, TokenService
from litellm_oauth.settings import Settings, parse_settings
from litellm_oauth.stores import Claim, Note, Sealed, TokenRow
from litellm_oauth.stores.database import Limits
from litellm_oauth.stores.postgres import PostgresTokens
from litellm_oauth.vault import REFRESH
from support.sandbox import fingerprint
from support.service import ACTOR

Order = dict[str, Any]
# Limits that nobody reaches unless the test is about them.
FORCED_PER_DAY = 10**9
_PARENT_DEATH_SIGNAL = 1


class Worker:
    """One process of a host."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._users: list[str] = order["users"]
        self._random = random.Random(order["seed"])  # noqa: S311 -- to be repeated, not to be secret
        self._stopped = asyncio.Event()
        self._ahead: float = order["clock_ahead"]

    async def run(self) -> None:
        settings = settings_of(self._order)
        self._watch(Cipher(settings.encryption_key))
        for number, act in ((signal.SIGTERM, self._stopped.set), (signal.SIGUSR1, _tell_where)):
            asyncio.get_running_loop().add_signal_handler(number, act)
        # Whatever becomes of who started it, it ends.
        async with asyncio.timeout(self._order["seconds"]):
            service = await open_service(
                settings,
                transport=httpx.AsyncHTTPTransport(verify=False),
                clock=lambda: time.time() + self._ahead,
                limits=Limits(**self._order["limits"]),
                patience=0.0,
                without_database=True,
            )
            loops = [asyncio.create_task(service.run_background())] if self._order["background"] else []
            self._report("ready")
            await getattr(self, f"_{self._order['program']}")(service)
            for loop in loops:
                loop.cancel()
            await service.close()
        self._report("ended")

    async def _force(self, service: TokenService) -> None:
        """Refresh by force, and use what comes of it, over and over."""

        async def work() -> None:
            while not self._stopped.is_set():
                user = self._random.choice(self._users)
                if self._random.random() < self._order["forced"]:
                    await self._try("refresh", user, service.refresh(user, force=True, actor=ACTOR))
                else:
                    await self._try("use", user, service.access_token(user))
                await asyncio.sleep(self._random.uniform(0, self._order["pause"]))

        await asyncio.gather(*(work() for _ in range(self._order["tasks"])))

    async def _use(self, service: TokenService) -> None:
        """Serve requests, and note whatever was not served although a valid token had been."""
        last: dict[str, tuple[float, object]] = {}
        counts = {"served": 0, "failed": 0, "failed_while_valid": 0}
        while not self._stopped.is_set():
            for user in self._users:
                until, before = last.get(user, (0.0, None))
                # Long enough to outlive the wait for a database that is slow.
                valid = until - time.time() > REREAD_PATIENCE + 0.2
                try:
                    token = await service.access_token(user)
                    last[user] = (token.expires_at, token.generation)
                    counts["served"] += 1
                    if token.generation != before:
                        self._report("served", user=user, generation=token.generation)
                except LitellmOAuthError as error:
                    last[user] = (until, error.code)
                    counts["failed_while_valid" if valid else "failed"] += 1
                    if error.code != before:
                        after = getattr(error, "retry_after", None)
                        self._report("unserved", user=user, code=error.code, valid=valid, retry_after=after)
            await asyncio.sleep(self._order["pause"])
        self._report("counted", **counts)

    async def _crowd(self, service: TokenService) -> None:
        """Wait for the file ``gate``, then ask for all users' tokens at the same moment, many times."""
        gate = Path(self._order["gate"])
        while not gate.exists():  # noqa: ASYNC110 -- it is another process that opens it
            await asyncio.sleep(0.001)
        asked = [service.access_token(user) for user in self._users for _ in range(self._order["tasks"])]
        found = await asyncio.gather(*asked, return_exceptions=True)
        failures = Counter(type(one).__name__ for one in found if isinstance(one, BaseException))
        tokens = Counter(fingerprint(one.value) for one in found if not isinstance(one, BaseException))
        self._report("crowd", failures=failures, tokens=tokens)

    async def _try(self, what: str, user: str, work: Awaitable[Any]) -> None:
        try:
            result = await work
            self._report(what, user=user, generation=result.generation)
        except LitellmOAuthError as error:
            unsaved = "cannot be saved yet" in error.message
            self._report("unsaved" if unsaved else f"{what} failed", user=user, code=error.code)

    def _watch(self, cipher: Cipher) -> None:
        """Report what is spent, what came of it, and where it lies, in the moment in which it is so."""
        ask, append, save = Provider.refresh, journal._append, PostgresTokens.save

        def opened(sealed: str, user: str) -> str:
            return fingerprint(cipher.decrypt(sealed, user=user, field=REFRESH))

        async def asked(provider: Provider, refresh_token: str) -> Grant:
            spent = fingerprint(refresh_token)
            self._report("asking", spent=spent)
            grant = await ask(provider, refresh_token)
            self._report("answered", given=fingerprint(grant.refresh_token or ""))
            return grant

        def appended(descriptor: int, line: bytes) -> None:
            append(descriptor, line)
            document = json.loads(line.partition(b" ")[2])
            if document.get("kind") == "Received":
                user = document["note"]["user_id"]
                self._report("kept", user=user, given=opened(document["sealed"]["refresh_token"], user))

        async def saved(store: PostgresTokens, claim: Claim, sealed: Sealed, note: Note) -> TokenRow | None:
            row = await save(store, claim, sealed, note)
            self._report("saved", given=opened(sealed.refresh_token or "", claim.row.user_id))
            return row

        # This process exists for nothing else.
        Provider.refresh = asked  # type: ignore[assignment,method-assign]
        PostgresTokens.save = saved  # type: ignore[assignment,method-assign]
        journal._append = appended

    def _report(self, event: str, **details: Any) -> None:
        line = {"worker": self._order["name"], "event": event, "at": time.time(), **details}
        # Less than PIPE_BUF: it is never mixed with another one's.
        os.write(1, json.dumps(line).encode() + b"\n")


def _tell_where() -> None:
    """Say on standard error what each task of this process waits for, innermost last."""
    for task in asyncio.all_tasks():
        lines = [task.get_name()]
        awaited: Any = task.get_coro()
        while awaited is not None:
            frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
            lines.append(f"  {frame}" if frame is not None else f"  {awaited!r}")
            awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
        sys.stderr.write("\n".join([*lines, ""]))


def settings_of(order: Order) -> Settings:
    settings = parse_settings(order["section"], order["environment"])
    return replace(settings, forced_refreshes_per_day=FORCED_PER_DAY)


def _become(order: Order) -> NoReturn:
    """The forked child's whole life."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        asyncio.run(Worker(order).run())
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Fork, signal and bury as ordered, until the orders end."""
    children: dict[str, int] = {}
    for line in sys.stdin:
        order = json.loads(line)
        name = order["name"]
        match order["do"]:
            case "start":
                child = os.fork()
                if child == 0:
                    _become(order)
                children[name] = child
            case "signal":
                # A child that is not buried keeps its number, so this never reaches a stranger.
                os.kill(children[name], order["number"])
            case "bury":
                _, status = os.waitpid(children.pop(name), 0)
                gone = {"worker": name, "event": "gone", "at": time.time(), "status": status}
                os.write(1, json.dumps(gone).encode() + b"\n")
    for child in children.values():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
