"""Fixtures: a real gateway that listens on a port, servers that are none, and the modules pointed at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.ansible_modules import Result, run
from support.live_gateway import MASTER_KEY, LiveGateway, live_gateway
from support.postgres import TestDatabase, database, migrated_template, postgres_server
from support.sandbox import SandboxProvider, sandbox, sandbox_process
from support.service import Gateways
from support.stranger import Answering, Stranger, running

__all__ = ["database", "migrated_template", "postgres_server", "sandbox", "sandbox_process"]


@pytest.fixture
def stored(database: TestDatabase, sandbox: SandboxProvider, tmp_path: Path) -> Gateways:
    """The rows of the gateway, to plant some and to change them."""
    return Gateways(database, sandbox, tmp_path)


@pytest.fixture
def gateway(stored: Gateways) -> Iterator[LiveGateway]:
    with live_gateway(stored.settings(), stored.sandbox) as live:
        yield live


@pytest.fixture
def module(gateway: LiveGateway) -> Callable[..., Result]:
    """Runs a module against the real gateway with the master key."""

    def run_module(name: str, **options: Any) -> Result:
        return run(name, **{"gateway_url": gateway.url, "api_key": MASTER_KEY, **options})

    return run_module


@pytest.fixture
def unsent(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a module that is to end before it sends anything: nothing listens there, which it would tell.

    An option that is None is left out.
    """
    monkeypatch.setattr("ansible.module_utils.litellm_oauth_http.RETRY_PAUSES", ())

    def run_module(name: str, **options: Any) -> Result:
        given = {"gateway_url": "http://127.0.0.1:1", "api_key": MASTER_KEY, **options}
        result = run(name, **{option: value for option, value in given.items() if value is not None})
        assert "Nothing listens" not in result.get("msg", "")
        return result

    return run_module


@pytest.fixture
def stranger() -> Iterator[Callable[..., Stranger]]:
    """Starts servers that answer as told, until the test ends."""
    with ExitStack() as stack:

        def start(answering: Answering | bytes, **options: Any) -> Stranger:
            return stack.enter_context(running(answering, **options))

        yield start
