"""Fixtures: a real gateway that listens on a port, and the modules pointed at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.ansible_modules import Result, run
from support.live_gateway import MASTER_KEY, LiveGateway, live_gateway
from support.postgres import TestDatabase, database, migrated_template, postgres_server
from support.sandbox import SandboxProvider, sandbox, sandbox_process
from support.service import Gateways

__all__ = ["database", "migrated_template", "postgres_server", "sandbox", "sandbox_process"]


@pytest.fixture
def gateway(database: TestDatabase, sandbox: SandboxProvider) -> Iterator[LiveGateway]:
    with live_gateway(Gateways(database, sandbox).settings(), sandbox) as live:
        yield live


@pytest.fixture
def module(gateway: LiveGateway) -> Callable[..., Result]:
    """Runs a module against the real gateway with the master key."""

    def run_module(name: str, **options: Any) -> Result:
        return run(name, **{"gateway_url": gateway.url, "api_key": MASTER_KEY, **options})

    return run_module
