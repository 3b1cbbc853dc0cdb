"""A line to the database that a test can cut, and mend again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit


class Wire:
    """Carries bytes both ways while it is whole. Make one with ``wire``."""

    def __init__(self, host: str, port: int) -> None:
        self._far = (host, port)
        self._connections: set[asyncio.Task[None]] = set()
        self._whole = asyncio.Event()
        self._whole.set()
        self._silent = False

    def cut(self, *, silent: bool) -> None:
        """No byte comes through any more. ``silent``: nobody is told, as behind a firewall that drops."""
        self._silent = silent
        self._whole.clear()
        if not silent:
            self._hang_up()

    def mend(self) -> None:
        """What comes now comes through; what was under way when it was cut does not."""
        self._hang_up()
        self._whole.set()

    def _hang_up(self) -> None:
        for connection in self._connections:
            connection.cancel()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for as long as it lasts."""
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            if not self._whole.is_set() and not self._silent:
                return
            await self._whole.wait()
            far_reader, far_writer = await asyncio.open_connection(*self._far)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump(reader, far_writer))
                    both.create_task(self._pump(far_reader, writer))
            finally:
                far_writer.close()
        except (OSError, asyncio.CancelledError, ExceptionGroup):
            # Whoever hung up: the other side is hung up on.
            return
        finally:
            self._connections.discard(connection)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._whole.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[tuple[Wire, str]]:
    """A line to the host of ``url``, and the URL that leads over it."""
    split = urlsplit(url)
    assert split.hostname is not None
    assert split.port is not None
    line = Wire(split.hostname, split.port)
    server = await asyncio.start_server(line.carry, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user = f"{split.username}@" if split.username else ""
    try:
        yield line, urlunsplit(split._replace(netloc=f"{user}127.0.0.1:{port}"))
    finally:
        server.close()
        line.cut(silent=False)
        with suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 1)
