"""Starts, kills and hears the workers of one test."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from litellm_oauth.stores.database import Limits
from support.service import Gateways

Event = dict[str, Any]
_ROOT = Path(__file__).resolve().parents[2]
# What an order says where the test says nothing else. No worker outlives ``seconds``, whatever becomes of it.
_USUAL = {
    "background": True,
    "clock_ahead": 0.0,
    "forced": 0.8,
    "pause": 0.02,
    "seconds": 3600,
    "tasks": 1,
}


@dataclass(slots=True)
class Worker:
    """One process, alive or dead. ``ended_at``: when it was gone for sure, by this machine's clock."""

    name: str
    host: str
    killed_at: float | None = None
    events: list[Event] = field(default_factory=list)

    def all(self, *names: str) -> Iterator[Event]:
        return (event for event in self.events if event["event"] in names)


class Fleet:
    """The workers of one test, those that are gone included. Make one with ``fleet``."""

    def __init__(self, gateways: Gateways, nursery: asyncio.subprocess.Process, errors: Path) -> None:
        self._gateways = gateways
        self._nursery = nursery
        self._errors = errors
        self._numbers = itertools.count(1)
        self._heard = asyncio.Condition()
        self.workers: dict[str, Worker] = {}

    async def start(
        self,
        program: str,
        users: Sequence[str],
        *,
        host: str,
        limits: Limits | None = None,
        settings: dict[str, Any] | None = None,
        database_url: str | None = None,
        ready: bool = True,
        order: Mapping[str, Any] | None = None,
    ) -> Worker:
        """Start a worker, and wait until its service is open unless ``ready`` is false.

        ``order`` may hold ``tasks`` (how many loops), ``pause`` (seconds, at most, between two calls),
        ``forced`` (the share of forced refreshes), ``clock_ahead`` (seconds), ``background`` (whether the
        background loop runs), ``seed`` and ``gate``.
        """
        worker = Worker(f"{host}-{next(self._numbers)}", host)
        self.workers[worker.name] = worker
        folders = self._gateways.folders(host)
        section, environment = self._gateways.given(**{**folders, **(settings or {})})
        if database_url is not None:
            environment["LITELLM_OAUTH_DATABASE_URL"] = database_url
        self._order(
            worker,
            "start",
            program=program,
            users=list(users),
            section=section,
            environment=environment,
            limits=asdict(limits or self._gateways.limits),
            **{**_USUAL, "seed": worker.name, **(order or {})},
        )
        if ready:
            await self.heard(worker, "ready")
        return worker

    async def kill(self, worker: Worker) -> None:
        """SIGKILL."""
        self.signal(worker, signal.SIGKILL)
        gone = await self._bury(worker)
        assert gone["status"] == signal.SIGKILL, f"{worker.name} had ended by itself:\n{self.errors}"
        worker.killed_at = gone["at"]

    async def stop(self, *workers: Worker) -> None:
        """SIGTERM, and wait until their services are closed."""
        for worker in workers:
            self.signal(worker, signal.SIGTERM)
        for worker in workers:
            await self._ended(worker)
            gone = await self._bury(worker)
            # One that had ended by itself may be hit by the signal after its last word.
            assert gone["status"] in (0, signal.SIGTERM), f"{worker.name} did not end well:\n{self.errors}"

    def signal(self, worker: Worker, number: signal.Signals) -> None:
        self._order(worker, "signal", number=number)

    async def heard(
        self,
        worker: Worker,
        *names: str,
        seconds: float = 20.0,
        since: int = 0,
        that: Callable[[Event], bool] = lambda _: True,
    ) -> Event:
        """The worker's first event with one of these names, after its first ``since`` ones."""
        try:
            async with asyncio.timeout(seconds), self._heard:
                while True:
                    for event in worker.events[since:]:
                        if event["event"] in names and that(event):
                            return event
                    await self._heard.wait()
        except TimeoutError:
            raise AssertionError(
                f"{worker.name} said nothing of {names} but {worker.events[since:][-5:]}\n{self.errors}"
            ) from None

    @property
    def errors(self) -> str:
        return self._errors.read_text(errors="replace")

    async def _ended(self, worker: Worker) -> None:
        try:
            await self.heard(worker, "ended")
        except AssertionError:
            # It writes down where it stands.
            self.signal(worker, signal.SIGUSR1)
            await asyncio.sleep(1)
            raise AssertionError(f"{worker.name} does not end:\n{self.errors}") from None

    async def _bury(self, worker: Worker) -> Event:
        self._order(worker, "bury")
        return await self.heard(worker, "gone")

    def _order(self, worker: Worker, act: str, **details: Any) -> None:
        assert self._nursery.stdin is not None
        line = {"do": act, "name": worker.name, **details}
        self._nursery.stdin.write(json.dumps(line, default=str).encode() + b"\n")

    async def listen(self) -> None:
        """Take in what the workers say, until they are all gone."""
        assert self._nursery.stdout is not None
        async for line in self._nursery.stdout:
            event = json.loads(line)
            self.workers[event["worker"]].events.append(event)
            async with self._heard:
                self._heard.notify_all()

    async def close(self) -> None:
        """End the orders, and with them all workers."""
        assert self._nursery.stdin is not None
        self._nursery.stdin.close()
        await asyncio.wait_for(self._nursery.wait(), 20)


@asynccontextmanager
async def fleet(gateways: Gateways) -> AsyncIterator[Fleet]:
    """A fleet of workers over the database and the provider of ``gateways``; it ends with the block."""
    errors = gateways.folder / "workers.log"
    with errors.open("wb") as log:
        nursery = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "chaos.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": f"{_ROOT / 'src'}:{_ROOT / 'tests'}"},
        )
    found = Fleet(gateways, nursery, errors)
    listening = asyncio.create_task(found.listen())
    try:
        yield found
    finally:
        await found.close()
        await listening
