"""A provider that answers what a test tells it to: the API, byte for byte, and a token endpoint.

It listens on loopback, keeps what arrives, and notices when a connection is closed before it was answered.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import count
from socketserver import ThreadingTCPServer
from typing import Any

TOKEN_PATH = "/oauth/token"


@dataclass(slots=True)
class Received:
    """One request as it arrived. ``closed`` is set when the other side went away while it waited."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = field(repr=False)
    whole: bool = True
    closed: threading.Event = field(default_factory=threading.Event)
    closed_at: float = 0.0
    _wait_closed: Callable[[float], None] = field(default=lambda _: None, repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def token(self) -> str:
        """What came as a bearer."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    def wait_closed(self, seconds: float) -> None:
        """Say nothing until the other side goes away, for so long at most."""
        self._wait_closed(seconds)


# What goes over the line, piece by piece; then the connection is closed.
Answer = Callable[[Received], Iterable[bytes]]


def reply(body: object, status: str = "200 OK", headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """A whole answer: bytes and text as they are, all else as JSON."""
    content = (
        body
        if isinstance(body, bytes)
        else body.encode()
        if isinstance(body, str)
        else json.dumps(body).encode()
    )
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close"]
    named = list(headers)
    if not any(name.lower() == "content-type" for name, _ in named):
        named.append(("Content-Type", "application/json"))
    return (
        "\r\n".join([*lines, *(f"{name}: {value}" for name, value in named)]).encode() + b"\r\n\r\n" + content
    )


def message(text: str = "Hello back") -> dict[str, Any]:
    """A whole answer of the Messages API."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "api-model",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }


def event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n"
)


def events(text: str = "Hello back", *, end: bool = True) -> list[bytes]:
    """A streamed answer, event by event. ``end``: whether it comes to its own end."""
    start = {**message(), "content": [], "stop_reason": None}
    found = [
        event("message_start", message=start),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}),
    ]
    if end:
        found += [
            event("content_block_stop", index=0),
            event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}),
            event("message_stop"),
        ]
    return found


class ScriptedApi:
    """What the API was asked, and what it answers."""

    def __init__(self) -> None:
        self.url = ""
        self.received: list[Received] = []
        self._scripts: dict[str, deque[Answer | bytes]] = defaultdict(deque)
        self._always: dict[str, Answer | bytes] = {}
        self._tokens = count(1)
        self.token_calls: list[Received] = []
        self.token_delay = 0.0

    def then(self, path: str, *answers: Answer | bytes) -> None:
        """The next answers on this path, each once; afterwards as usual."""
        self._scripts[path].extend(answers)

    def always(self, path: str, answer: Answer | bytes) -> None:
        """Every answer on this path from now on."""
        self._always[path] = answer

    def forget(self) -> None:
        """Nothing was asked, and nothing is scripted."""
        self.received.clear()
        self.token_calls.clear()
        self._scripts.clear()
        self._always.clear()
        self.token_delay = 0.0

    @property
    def last(self) -> Received:
        return self.received[-1]

    def answer(self, received: Received) -> Iterable[bytes]:
        if received.path == TOKEN_PATH:
            self.token_calls.append(received)
            time.sleep(self.token_delay)
        else:
            self.received.append(received)
        script = self._scripts.get(received.path)
        told = script.popleft() if script else self._always.get(received.path)
        if told is not None:
            return [told] if isinstance(told, bytes) else told(received)
        return self._usual(received)

    def _usual(self, received: Received) -> Iterable[bytes]:
        if received.path == TOKEN_PATH:
            number = next(self._tokens)
            return [
                reply(
                    {
                        "access_token": f"sk-ant-oat01-fake-{number}",
                        "refresh_token": f"sk-ant-ort01-fake-{number}",
                        "token_type": "Bearer",
                        "expires_in": 28_800,
                        "scope": "user:inference",
                    }
                )
            ]
        if received.path.endswith("/count_tokens"):
            return [reply({"input_tokens": 42})]
        if received.path.endswith("/messages"):
            if received.body and received.json.get("stream"):
                return [STREAM_HEAD, *events()]
            return [reply(message())]
        return [reply({"path": received.path})]


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def scripted_api() -> Iterator[ScriptedApi]:
    """Serve until the block ends."""
    api = ScriptedApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            usable = bool(self.raw_requestline) and self.parse_request()
            self.close_connection = True
            if not usable:
                return
            body, whole = self._body()
            path, _, query = self.path.partition("?")
            headers = {name.lower(): value for name, value in self.headers.items()}
            received = Received(self.command, path, query, headers, body, whole)
            received._wait_closed = lambda seconds: self._until_closed(received, seconds)
            try:
                for piece in api.answer(received):
                    self.wfile.write(piece)
            except OSError:
                received.closed_at = time.monotonic()
                received.closed.set()

        def _until_closed(self, received: Received, seconds: float) -> None:
            self.connection.settimeout(seconds)
            try:
                gone = self.connection.recv(1) == b""
            except TimeoutError:
                return
            except OSError:
                gone = True
            if gone:
                received.closed_at = time.monotonic()
                received.closed.set()

        def _body(self) -> tuple[bytes, bool]:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                pieces: list[bytes] = []
                while True:
                    size = self.rfile.readline()
                    if not size.strip():
                        return b"".join(pieces), False
                    length = int(size, 16)
                    pieces.append(self.rfile.read(length))
                    self.rfile.readline()
                    if length == 0:
                        return b"".join(pieces), True
            declared = int(self.headers.get("Content-Length", 0))
            content = self.rfile.read(declared)
            return content, len(content) == declared

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
