"""One gateway for all tests of a process, in front of an API that answers what a test tells it to."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from support.running_gateway import RunningGateway, configuration, running_gateway
from support.scripted_api import ScriptedApi, scripted_api


@pytest.fixture(scope="session")
def scripted() -> Iterator[ScriptedApi]:
    with scripted_api() as api:
        yield api


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedApi) -> Iterator[RunningGateway]:
    """All are logged in but carol."""
    folder = tmp_path_factory.mktemp("gateway")
    with running_gateway(folder, configuration(scripted), scripted) as gateway:
        for user in ("alice", "bob", "dora", None):
            gateway.log_in(user)
        yield gateway


@pytest.fixture
def api(scripted: ScriptedApi) -> ScriptedApi:
    """The API, of which nothing has been asked."""
    scripted.forget()
    return scripted


@pytest.fixture(scope="session")
def alice(gateway: RunningGateway) -> Iterator[httpx.Client]:
    with gateway.client("alice") as client:
        yield client
