"""Load from this process: clients on connections of their own, each asking as soon as it is answered."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway on loopback, the keys that ask it, and what they ask."""

    name: str
    port: int
    keys: tuple[str, ...]
    path: str = "/v1/messages"
    stream: bool = False

    def requests(self) -> Iterator[bytes]:
        """The requests to send, for ever, one key after the other."""
        content = {"model": "claude", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9}
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
    """``latencies`` and ``first_bytes`` are in seconds, in no order; ``seconds`` is how long it took."""

    seconds: float
    latencies: list[float]
    first_bytes: list[float]

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds

    @property
    def p99(self) -> float:
        ordered = sorted(self.latencies)
        return ordered[math.ceil(0.99 * len(ordered)) - 1]


async def load(
    target: Target, clients: int, *, seconds: float = math.inf, count: float = math.inf
) -> Measured:
    """Ask until the time is over or so many are answered. Raises RuntimeError where one is not 200."""
    requests = target.requests()
    latencies: list[float] = []
    first_bytes: list[float] = []
    begun = 0
    start = time.perf_counter()

    async def ask() -> None:
        nonlocal begun
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        while begun < count and time.perf_counter() - start < seconds:
            begun += 1
            sent = time.perf_counter()
            writer.write(next(requests))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not head.startswith(b"http/1.1 200"):
                raise RuntimeError(f"{target.name} answered {head.splitlines()[0].decode()}")
            first_bytes.append(await _read_body(reader, head) - sent)
            latencies.append(time.perf_counter() - sent)
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(ask())
    return Measured(time.perf_counter() - start, latencies, first_bytes)


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
