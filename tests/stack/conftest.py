"""The running stack under test, found through the environment; by default what `make up` deploys."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Stack:
    """Names and addresses of one deployed stack."""

    name: str
    gateway_url: str
    sandbox_url: str
    directory: Path
    key: str = field(repr=False)

    def container(self, service: str) -> str:
        return f"{self.name}-{service}-1"

    def exec(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        return docker("exec", self.container(service), *command)

    def logs(self, service: str) -> str:
        result = docker("logs", self.container(service))
        return result.stdout + result.stderr

    def secrets(self) -> dict[str, str]:
        """Every secret of the stack, by name; for proving that it shows up nowhere."""
        return {file.name: file.read_text().strip() for file in (self.directory / "secrets/source").iterdir()}


def docker(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *command], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="session")
def stack() -> Stack:
    directory = Path(os.environ.get("LITELLM_OAUTH_TEST_DIRECTORY", "/etc/litellm-oauth"))
    return Stack(
        name=os.environ.get("LITELLM_OAUTH_TEST_STACK", "litellm"),
        gateway_url=os.environ.get("LITELLM_OAUTH_TEST_GATEWAY_URL", "http://127.0.0.1:4000"),
        sandbox_url=os.environ.get("LITELLM_OAUTH_TEST_SANDBOX_URL", "http://127.0.0.1:4010"),
        directory=directory,
        key=(directory / "secrets/gateway/master_key").read_text().strip(),
    )


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
