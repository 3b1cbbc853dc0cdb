"""The running stack under test, found through the environment; by default what `make up` deploys."""

from __future__ import annotations

import html
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Stack:
    """Names and addresses of one deployed stack."""

    name: str
    gateway_url: str
    sandbox_url: str
    inventory: str
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


def stack_under_test() -> Stack:
    """The stack that the environment names."""
    directory = Path(os.environ.get("LITELLM_OAUTH_TEST_DIRECTORY", "/etc/litellm-oauth"))
    return Stack(
        name=os.environ.get("LITELLM_OAUTH_TEST_STACK", "litellm"),
        gateway_url=os.environ.get("LITELLM_OAUTH_TEST_GATEWAY_URL", "http://127.0.0.1:4000"),
        sandbox_url=os.environ.get("LITELLM_OAUTH_TEST_SANDBOX_URL", "http://127.0.0.1:4010"),
        inventory=os.environ.get("LITELLM_OAUTH_TEST_INVENTORY", "inventories/sandbox"),
        directory=directory,
        key=(directory / "secrets/gateway/master_key").read_text().strip(),
    )


def approve(url: str) -> str:
    """What `curl -L` does with an authorization URL: ends on the page that shows `code#state`."""
    page = httpx.get(url, follow_redirects=True)
    assert page.status_code == 200
    (shown,) = re.findall(r'id="code"[^>]*>\s*([^<]+?)\s*<', page.text)
    return html.unescape(str(shown))


def log_in(gateway: httpx.Client, user: str) -> dict[str, Any]:
    """Log ``user`` in over HTTP; returns how the login stands then."""
    query = {"user_id": user}
    started = gateway.get("/auth/claude/oauth/start", params={**query, "force": "true"}).json()
    body = {"code": approve(started["authorization_url"])}
    answer = gateway.post("/auth/claude/oauth/exchange", params=query, json=body)
    assert answer.status_code == 200, answer.text
    return status(gateway, user)


def log_out(gateway: httpx.Client, user: str) -> None:
    gateway.post("/auth/claude/oauth/logout", params={"user_id": user}).raise_for_status()


def status(gateway: httpx.Client, user: str) -> dict[str, Any]:
    answer: dict[str, Any] = gateway.get("/auth/claude/oauth/status", params={"user_id": user}).json()
    return answer
