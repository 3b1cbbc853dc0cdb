"""A small HTTP server that answers what no gateway does: byte for byte what a test wants, or nothing."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from support.sandbox import http_client


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived. ``ended`` is set when the test ends, for answers that never come."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    ended: threading.Event = field(repr=False)


# What goes over the line, piece by piece; then the connection is closed.
Answering = Callable[[Asked], Iterable[bytes]]


class Stranger:
    """One running server and what it was asked."""

    def __init__(self, url: str, stop: Callable[[], None]) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self.stop = stop


def reply(body: object, status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer: text as it is, all else as JSON. ``Content_Type`` names the header Content-Type."""
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def passed_on(asked: Asked, url: str) -> bytes:
    """The real gateway's answer to the same request."""
    sent = {name: value for name, value in asked.headers.items() if name in ("authorization", "content-type")}
    with http_client() as client:
        answer = client.request(asked.method, url + asked.path, content=asked.body, headers=sent)
    return reply(answer.text, f"{answer.status_code} {answer.reason_phrase}")


def login(user: str = "alice", **fields: Any) -> dict[str, Any]:
    """A status as the gateway gives it."""
    return {
        "user_id": user,
        "authenticated": True,
        "status": "active",
        "generation": 1,
        "expires_in": 60,
        **fields,
    }


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextmanager
def running(
    answering: Answering | bytes, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[Stranger]:
    """Serve until the block ends. Bytes are the answer to everything."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.close_connection = True
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, body, ended)
            found.asked.append(asked)
            try:
                for piece in [answering] if isinstance(answering, bytes) else answering(asked):
                    self.wfile.write(piece)
            except OSError:
                # Who asked went away, which several tests are about.
                return

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = _Server(("127.0.0.1", port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)

    def stop() -> None:
        server.shutdown()
        server.server_close()

    scheme = "http" if tls is None else "https"
    found = Stranger(f"{scheme}://127.0.0.1:{server.server_address[1]}", stop)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        stop()
