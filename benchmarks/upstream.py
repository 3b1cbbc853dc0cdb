"""An Anthropic-shaped API that does next to nothing, in a process of its own: python upstream.py PORT.

Every POST is answered at once, by events where it asks for them, with a number where it asks for a count of
tokens. `GET /` tells how many requests and how many different credentials it saw.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
from typing import Any

_USAGE = {"input_tokens": 1, "output_tokens": 1}
_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_sequence": None}
_TEXT = "What a benchmark says matters less than what it measures."
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CREDENTIAL = re.compile(rb"\r\n(?:authorization|x-api-key): *([^\r]+)", re.IGNORECASE)


def answer(body: bytes, kind: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def events() -> bytes:
    start: dict[str, Any] = {**_MESSAGE, "content": [], "stop_reason": None, "usage": _USAGE}
    pieces: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"{word} "}}
            for word in _TEXT.split()
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {piece['type']}\ndata: {json.dumps(piece)}\n\n" for piece in pieces).encode()


WHOLE = answer(
    json.dumps(
        {
            **_MESSAGE,
            "stop_reason": "end_turn",
            "content": [{"type": "text", "text": _TEXT}],
            "usage": _USAGE,
        }
    ).encode(),
    "application/json",
)
STREAM = answer(events(), "text/event-stream")
COUNT = answer(b'{"input_tokens": 1}', "application/json")


class Api(asyncio.Protocol):
    requests = 0
    credentials: set[bytes] = set()  # noqa: RUF012 -- one count for all connections is what is meant

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._head = b""
        self._received = bytearray()
        self._wanted = 0

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._head:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = bytes(self._received[:end])
            length = _LENGTH.search(self._head)
            self._wanted = end + 4 + (int(length[1]) if length else 0)
        if len(self._received) < self._wanted:
            return
        said = self._answer(self._head, self._received)
        self._head, self._received = b"", bytearray()
        self._transport.write(said)  # type: ignore[attr-defined]  # a TCP transport

    def _answer(self, head: bytes, request: bytearray) -> bytes:
        if head.startswith(b"GET"):
            counts = {"requests": Api.requests, "credentials": len(Api.credentials)}
            return answer(json.dumps(counts).encode(), "application/json")
        Api.requests += 1
        credential = _CREDENTIAL.search(head)
        if credential:
            Api.credentials.add(hashlib.sha256(credential[1]).digest()[:8])
        if b"/count_tokens" in head.partition(b"\r\n")[0]:
            return COUNT
        return STREAM if re.search(rb'"stream": *true', request) else WHOLE


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Api, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
