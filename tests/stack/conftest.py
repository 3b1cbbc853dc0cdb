"""The running stack under test, and clients for its gateway and its sandbox."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from support.stack import Stack, stack_under_test


@pytest.fixture(scope="session")
def stack() -> Stack:
    return stack_under_test()


@pytest.fixture(scope="session")
def gateway(stack: Stack) -> Iterator[httpx.Client]:
    """The gateway, called with the master key."""
    headers = {"Authorization": f"Bearer {stack.key}"}
    with httpx.Client(base_url=stack.gateway_url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def sandbox(stack: Stack) -> Iterator[httpx.Client]:
    """The sandbox provider's control routes."""
    with httpx.Client(base_url=stack.sandbox_url, timeout=30) as client:
        yield client
