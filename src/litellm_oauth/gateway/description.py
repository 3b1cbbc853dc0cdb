"""The OpenAPI document of the whole gateway: put together once, beside the requests and not in their way."""

from __future__ import annotations

import asyncio
import json

from fastapi import FastAPI


class Description:
    """Makes the document when it is first asked for. LiteLLM's routes are hundreds, and take many seconds."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._making: asyncio.Task[bytes] | None = None

    async def json(self) -> bytes:
        """The document as JSON. Who stops waiting does not take it from the others."""
        if self._making is None or (self._making.done() and self._making.exception() is not None):
            self._making = asyncio.create_task(
                asyncio.to_thread(self._make), name="litellm_oauth description"
            )
        return await asyncio.shield(self._making)

    def _make(self) -> bytes:
        return json.dumps(self._app.openapi(), ensure_ascii=False).encode()
