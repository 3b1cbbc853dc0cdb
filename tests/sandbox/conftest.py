"""One sandbox a test module, cleaned before each test, and a client that speaks to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.oauth_client import OAuthClient
from support.sandbox import SandboxProvider, own_sandbox, sandbox, sandbox_process

__all__ = ["own_sandbox", "sandbox", "sandbox_process"]


@pytest.fixture
def client(sandbox: SandboxProvider) -> Iterator[OAuthClient]:
    found = OAuthClient(sandbox)
    yield found
    found.http.close()
