"""The OpenAPI document is made once, beside the requests, whoever stops waiting for it."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from fastapi import FastAPI

from litellm_oauth.gateway.description import Description


class App(FastAPI):
    """An application that takes its time to describe itself, and fails at first if it is told to."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.made = 0
        self.go_on = threading.Event()
        self.began = threading.Event()
        self._failures = failures

    def openapi(self) -> dict[str, Any]:
        self.made += 1
        self.began.set()
        assert self.go_on.wait(10)
        if self.made <= self._failures:
            raise ValueError("no description")
        return {"openapi": "3.1.0", "info": {"title": "é"}}


async def test_all_who_ask_get_the_one_document() -> None:
    app = App()
    description = Description(app)
    asking = [asyncio.create_task(description.json()) for _ in range(5)]
    assert await asyncio.to_thread(app.began.wait, 10)
    # Others are served meanwhile.
    assert not any(task.done() for task in asking)
    app.go_on.set()
    first, *others = await asyncio.gather(*asking)
    assert json.loads(first) == {"openapi": "3.1.0", "info": {"title": "é"}}
    assert all(other is first for other in (*others, await description.json()))
    assert app.made == 1


async def test_who_stops_waiting_takes_it_from_nobody() -> None:
    app = App()
    description = Description(app)
    leaving, staying = (asyncio.create_task(description.json()) for _ in range(2))
    assert await asyncio.to_thread(app.began.wait, 10)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    app.go_on.set()
    assert json.loads(await staying)["openapi"] == "3.1.0"
    assert app.made == 1


async def test_it_is_made_anew_after_a_failure() -> None:
    app = App(failures=1)
    app.go_on.set()
    description = Description(app)
    with pytest.raises(ValueError, match="no description"):
        await description.json()
    assert json.loads(await description.json())["openapi"] == "3.1.0"
    assert app.made == 2
