"""The running stack under test, found through the environment; by default what `make up` deploys."""

from __future__ import annotations

import html
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import docker
import httpx
import testinfra
from docker.models.containers import Container
from docker.types import Mount
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


def until(check: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"it does not hold after {seconds} s"
        time.sleep(0.1)


def until_live(url: str, seconds: float = 60.0) -> None:
    """Wait until the gateway's own part of the gateway answers, too."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health/liveliness", timeout=2).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"{url} is not live after {seconds} s")


@contextmanager
def replica(
    stack: Stack,
    *,
    own_host: bool,
    config: Path | None = None,
    files: Mapping[str, Path] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[tuple[Container, str]]:
    """A second gateway like the first, on the same host or, with volumes of its own, as on another one.

    ``config``: another configuration than the first one's. ``files``: more files, by where it finds them;
    ``environment``: more of that.
    """
    engine = stack.engine
    seen = stack.inspect("litellm")
    name = f"{stack.name}-litellm-2"
    volumes = ("oauth_tokens", "oauth_journal")
    mounts = []
    for mount in seen["Mounts"]:
        source = mount.get("Name") or mount["Source"]
        if own_host and source in [f"{stack.name}_{volume}" for volume in volumes]:
            source = f"{source}_2"
        if config is not None and mount["Destination"] == "/app/config.yaml":
            source = str(config)
        mounts.append(Mount(mount["Destination"], source, mount["Type"], read_only=not mount["RW"]))
    mounts += [Mount(target, str(file), "bind", read_only=True) for target, file in (files or {}).items()]
    networks = sorted(seen["NetworkSettings"]["Networks"])
    container = engine.containers.create(
        seen["Config"]["Image"],
        seen["Config"]["Cmd"],
        name=name,
        user=seen["Config"]["User"],
        environment=[*seen["Config"]["Env"], *(f"{k}={v}" for k, v in (environment or {}).items())],
        mounts=mounts,
        tmpfs=seen["HostConfig"]["Tmpfs"],
        read_only=True,
        network=networks[0],
        ports={"4000/tcp": ("127.0.0.1", 0)},
    )
    try:
        for network in networks[1:]:
            engine.networks.get(network).connect(container)
        container.start()
        container.reload()
        (port,) = container.ports["4000/tcp"] or [{}]
        url = f"http://127.0.0.1:{port['HostPort']}"
        until_live(url)
        yield container, url
    finally:
        container.remove(force=True, v=True)
        for volume in volumes:
            with suppress(Exception):
                engine.volumes.get(f"{stack.name}_{volume}_2").remove(force=True)
