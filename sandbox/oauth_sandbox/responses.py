"""Kinds of answers that the framework does not have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send


class AsciiJSONResponse(JSONResponse):
    """JSON of ASCII alone, so that text which is not valid Unicode can be repeated as it came."""

    def render(self, content: object) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode("ascii")


class PiecewiseResponse(Response):
    """Server-sent events. ``pause`` seconds are waited before each piece but the first."""

    def __init__(self, pieces: Sequence[bytes], headers: dict[str, str], pause: float) -> None:
        super().__init__(headers=headers, media_type="text/event-stream")
        del self.headers["content-length"]  # of the empty body that was not given
        self.pieces = pieces
        self._pause = pause

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for index, piece in enumerate(self.pieces):
            if self._pause and index:
                await asyncio.sleep(self._pause)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def pieces_of(response: Response) -> Sequence[bytes]:
    """What the response would send."""
    return response.pieces if isinstance(response, PiecewiseResponse) else [bytes(response.body)]
