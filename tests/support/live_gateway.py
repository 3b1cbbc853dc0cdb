"""The routes on a real loopback port, with the real service behind them, for what asks from outside."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from litellm_oauth.assembly import open_service
from litellm_oauth.service import TokenService
from litellm_oauth.settings import Settings

from .gateway import build_gateway
from .sandbox import SandboxProvider, http_client

MASTER_KEY = "sk-master"
_START_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class LiveGateway:
    """A gateway that listens, a way to ask it directly, and a person who logs in."""

    url: str
    sandbox: SandboxProvider = field(repr=False)

    def call(self, method: str, path: str, *, json: object = None, **query: str) -> Any:
        """The JSON answer to a request with the master key."""
        headers = {"Authorization": f"Bearer {MASTER_KEY}"}
        with http_client(base_url=f"{self.url}/auth/claude/oauth", headers=headers) as client:
            response = client.request(method, path, params=query, json=json)
        assert response.status_code == 200, response.text
        return response.json()

    def status(self, user: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("GET", "/status", user_id=user)
        return answer

    def code(self, user: str) -> str:
        """``code#state`` of a new login that waits for it."""
        started = self.call("GET", "/start", user_id=user, force="true")
        return self.sandbox.approve(started["authorization_url"], login_hint=user)

    def log_in(self, *users: str) -> None:
        for user in users:
            self.call("POST", "/exchange", json={"code": self.code(user)}, user_id=user)


@contextmanager
def live_gateway(settings: Settings, sandbox: SandboxProvider) -> Iterator[LiveGateway]:
    """Serve until the block ends. The service lives in the server's own thread and event loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    opened: list[TokenService] = []
    app = build_gateway(lambda: opened[0], settings, sandbox).app
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    failure: list[BaseException] = []
    ends: list[Callable[[], object]] = []

    async def serve() -> None:
        service = await open_service(settings)
        opened.append(service)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        loop = asyncio.get_running_loop()
        # Cancelled, because its own way to end takes two tenths of a second, which every test would wait.
        ends.append(lambda: loop.call_soon_threadsafe(serving.cancel))
        try:
            with suppress(asyncio.CancelledError):
                await serving
        finally:
            await service.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="live gateway", daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        _wait_for(server, thread, failure)
        yield LiveGateway(url, sandbox)
    finally:
        if thread.is_alive():
            for end in ends:
                end()
        thread.join(20)
        listener.close()


def _wait_for(server: uvicorn.Server, thread: threading.Thread, failure: list[BaseException]) -> None:
    pause = threading.Event()
    for _ in range(int(_START_SECONDS / 0.01)):
        if server.started:
            return
        if not thread.is_alive():
            raise AssertionError("the gateway did not start") from (failure[0] if failure else None)
        pause.wait(0.01)
    raise AssertionError(f"the gateway did not start within {_START_SECONDS:g} s")
