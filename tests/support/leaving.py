"""A client that goes away before it has been answered."""

from __future__ import annotations

import http.client
import json
import time

import httpx

from .asking import Form
from .running_gateway import USER_KEYS, RunningGateway
from .scripted_api import ScriptedApi


def ask(gateway: RunningGateway, form: Form, user: str = "alice") -> http.client.HTTPConnection:
    """Send a question, and do not wait for the answer."""
    address = httpx.URL(gateway.url)
    connection = http.client.HTTPConnection(address.host, address.port or 80, timeout=20)
    headers = {"Authorization": f"Bearer {USER_KEYS[user]}", "Content-Type": "application/json"}
    connection.request("POST", form.path, json.dumps(form.body), headers)
    return connection


def leave(gateway: RunningGateway, api: ScriptedApi, form: Form) -> float:
    """Ask, wait until the API has been asked, go away. Returns how long the API was kept busy after that.

    Nothing has been asked of the API before, and it says nothing.
    """
    api.always(form.api_path, lambda received: received.wait_closed(10) or [])  # type: ignore[func-returns-value]
    connection = ask(gateway, form)
    deadline = time.monotonic() + 10
    while not api.received:
        assert time.monotonic() < deadline, "the API was never asked"
        time.sleep(0.01)
    left = time.monotonic()
    connection.close()
    assert api.last.closed.wait(5), "the API works on for nobody"
    return api.last.closed_at - left
