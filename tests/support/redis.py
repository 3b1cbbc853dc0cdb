"""A real Redis for tests, with the very rights that the deployed one gives the gateway.

It is the machine's own program where there is one, else a container of the image that the kit builds; on a
random port of loopback, and gone at the end of the test process.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
import yaml

from litellm_oauth.settings import RedisSettings
from litellm_oauth.stores.redis import key_of

from .postgres import _free_port

PASSWORD = "redis-for-tests"
_ROLE = Path(__file__).resolve().parents[2] / "roles/redis/vars/main.yml"
_OPTIONS = ["--save", "", "--appendonly", "no", "--protected-mode", "no"]


@dataclass(frozen=True, slots=True)
class RedisServer:
    """One server. ``admin`` may do everything."""

    host: str
    port: int
    admin: redis.Redis = field(repr=False)

    @property
    def url(self) -> str:
        return f"redis://litellm@{self.host}:{self.port}/0"

    def settings(self, *, timeout: float, port: int | None = None, password: str = PASSWORD) -> RedisSettings:
        """What a gateway would have, but that its port may be another one's that leads here."""
        return RedisSettings(self.host, port or self.port, 0, "litellm", password, tls=False, timeout=timeout)

    def contents(self) -> dict[str, bytes]:
        """What lies in it of users, by key."""
        found = {str(key, "ascii"): self.admin.get(key) for key in self.admin.scan_iter()}
        return {key: value for key, value in found.items() if isinstance(value, bytes) and key != key_of("")}


@pytest.fixture(scope="session")
def redis_process() -> Iterator[RedisServer]:
    """The server of this test process."""
    program = shutil.which("redis-server")
    if program is not None:
        port = _free_port()
        process = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", *_OPTIONS], stdout=subprocess.DEVNULL
        )
        yield _configured(port)
        process.terminate()
        process.wait(timeout=10)
        return
    options = ["--detach", "--publish", "127.0.0.1::6379"]
    container = _engine("run", *options, _image(), "redis-server", *_OPTIONS)
    try:
        yield _configured(int(_engine("port", container, "6379/tcp").split()[0].rpartition(":")[2]))
    finally:
        _engine("rm", "--force", "--volumes", container)


@pytest.fixture
def redis_server(redis_process: RedisServer) -> RedisServer:
    """A server with nothing in it."""
    redis_process.admin.flushall()
    return redis_process


def gateway_rights() -> str:
    """What the gateway's account may do, in Redis' own words, as the role gives it."""
    (account,) = yaml.safe_load(_ROLE.read_text())["redis_accounts_always"]
    assert account["name"] == "litellm"
    return str(account["rules"])


def _configured(port: int) -> RedisServer:
    admin = redis.Redis(port=port)
    deadline = time.monotonic() + 20
    while True:
        with suppress(redis.ConnectionError):
            admin.ping()
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)
    command: list[str] = ["ACL", "SETUSER", "litellm", "on", f">{PASSWORD}", *gateway_rights().split()]
    admin.execute_command(*command)  # type: ignore[no-untyped-call]  # the library declares no types for it
    return RedisServer("127.0.0.1", port, admin)


def _image() -> str:
    tags = _engine("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "litellm-oauth/redis").split()
    if not tags:
        raise RuntimeError("The tests find no Redis: install redis-server, or run `make images`.")
    return tags[0]


def _engine(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()
