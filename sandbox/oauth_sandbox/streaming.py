"""Answers that are sent in pieces, which are known beforehand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


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
