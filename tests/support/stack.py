"""The running stack under test, found through the environment; by default what `make up` deploys."""

from __future__ import annotations

import html
import os
import re
import shlex
import subprocess
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import docker
import httpx
import testinfra
from testinfra.backend.base import CommandResult

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
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

    def exec(self, service: str, *command: str) -> CommandResult:
        """Run a command in a service's container, as ``docker exec`` does."""
        return testinfra.get_host(f"docker://{self.container(service)}").run(shlex.join(command))

    def sql(self, statement: str) -> str:
        """Run a statement as the source documents do, through the container's own psql."""
        result = self.exec("db", "psql", "-U", "llmproxy", "-d", "litellm", "-Atc", statement)
        assert result.rc == 0, result.stderr
        return str(result.stdout).strip()

    @cached_property
    def engine(self) -> docker.DockerClient:
        return docker.from_env()

    def inspect(self, service: str) -> dict[str, Any]:
        """What everybody sees who may ask the engine."""
        seen: dict[str, Any] = self.engine.api.inspect_container(self.container(service))
        return seen

    def logs(self, service: str) -> str:
        shown: bytes = self.engine.containers.get(self.container(service)).logs()
        return shown.decode()

    def secrets(self) -> dict[str, str]:
        """Every secret of the stack, by name; for proving that it shows up nowhere."""
        return {file.name: file.read_text().strip() for file in (self.directory / "secrets/source").iterdir()}


def playbook(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the kit against the stack under test."""
    extra = [f"--extra-vars={name}={value!r}" for name, value in variables.items()]
    command = ["ansible-playbook", "-i", stack_under_test().inventory, name, *extra, *arguments]
    # molecule asks for colours, which are in the way of whoever reads the output
    plain = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(
        command, cwd=ROOT, env=plain, capture_output=True, text=True, timeout=120, check=False
    )


def changed(result: subprocess.CompletedProcess[str]) -> int:
    """How many tasks say that they changed something."""
    (count,) = re.findall(r"changed=(\d+)", result.stdout)
    return int(count)


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
