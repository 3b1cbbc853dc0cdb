"""Load from this process: clients on connections of their own, each asking as soon as it is answered."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle

from figures import percentile


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway on loopback, the keys that ask it, and what they ask."""

    name: str
    port: int
    keys: tuple[str, ...]
    path: str = "/v1/messages"
    stream: bool = False
    model: str = "claude"

    def at(self, path: str) -> Target:
        """The same, asked there."""
        return replace(self, path=path)

    def requests(self) -> Iterator[bytes]:
        """The requests to send, for ever, one key after the other."""
        content = {"model": self.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9}
        body = json.dumps({**content, "stream": True} if self.stream else content).encode()
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"host: 127.0.0.1:{self.port}",
            "content-type: application/json",
        ]
        return cycle(
            "\r\n".join(
                [*lines, f"authorization: Bearer {key}", f"content-length: {len(body)}", "", ""]
            ).encode()
            + body
            for key in self.keys
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """``latencies`` and ``first_bytes`` are in seconds, in no order; ``seconds`` is how long it took.

    ``failures`` tells of each request that was not answered as it should be, which has no latency;
    ``processor`` is how many seconds of a processor the gateway took, if that was measured.
    """

    seconds: float
    latencies: list[float]
    first_bytes: list[float]
    failures: list[str]
    processor: float = 0.0

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds

    @property
    def p99(self) -> float:
        return percentile(self.latencies, 99)


async def load(
    target: Target,
    clients: int,
    *,
    seconds: float = math.inf,
    count: float = math.inf,
    failures: bool = False,
) -> Measured:
    """Ask until the time is over or so many are answered.

    ``failures``: whether requests may fail, and are counted. Raises RuntimeError for the first one otherwise.
    """
    requests = target.requests()
    measured = Measured(0.0, [], [], [])
    begun = 0
    start = time.perf_counter()

    def more() -> bool:
        return begun < count and time.perf_counter() - start < seconds

    async def connect() -> None:
        nonlocal begun
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        while more():
            begun += 1
            sent = time.perf_counter()
            writer.write(next(requests))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not head.startswith(b"http/1.1 200"):
                raise RuntimeError(f"{target.name} answered {head.splitlines()[0].decode()}")
            measured.first_bytes.append(await _read_body(reader, head) - sent)
            measured.latencies.append(time.perf_counter() - sent)
        writer.close()

    async def ask() -> None:
        while more():
            try:
                await connect()
            except (OSError, EOFError, RuntimeError) as error:
                if not failures:
                    raise
                measured.failures.append(str(error))

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(ask())
    return replace(measured, seconds=time.perf_counter() - start)


async def pairs(
    one: Target,
    other: Target,
    clients: int,
    *,
    count: int,
    seconds: float,
    processor: Callable[[Target], float] = lambda _: 0.0,
) -> list[tuple[Measured, Measured]]:
    """Both targets in turns of so many seconds, each turn with the other one first.

    ``processor`` tells how many seconds of a processor a target has taken so far.
    """

    async def turn(target: Target) -> Measured:
        before = processor(target)
        measured = await load(target, clients, seconds=seconds)
        return replace(measured, processor=processor(target) - before)

    for target in (one, other):
        await load(target, clients, seconds=seconds / 2)
    measured = []
    for number in range(count):
        order = (one, other) if number % 2 == 0 else (other, one)
        found = {target.name: await turn(target) for target in order}
        measured.append((found[one.name], found[other.name]))
    return measured


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> float:
    """Read the body to its end; returns when its first byte came."""
    length = next((line for line in head.split(b"\r\n") if line.startswith(b"content-length:")), None)
    if length is not None:
        await reader.readexactly(1)
        first = time.perf_counter()
        await reader.readexactly(int(length.split(b":")[1]) - 1)
        return first
    first = 0.0
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(1)
        first = first or time.perf_counter()
        await reader.readexactly(size + 1)
    await reader.readexactly(2)
    return first
