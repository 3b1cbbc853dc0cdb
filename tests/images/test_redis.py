"""Redis as the role starts it: who may end a script that does not end by itself, and what else they may."""

from __future__ import annotations

import re
import secrets
import shlex
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import jinja2
import pytest
import testinfra
import yaml
from docker.models.containers import Container
from docker.types import Mount
from testinfra.backend.base import CommandResult

from support.stack import until

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/redis"
SECRETS = {"redis_password": "litellm-for-tests", "redis_inspector_password": "inspector-for-tests"}
ENDLESS = "while true do end"


def command() -> list[str]:
    """What the role has the container run."""
    variables: dict[str, Any] = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    variables["redis_accounts"] = variables["redis_accounts_always"] + variables["redis_accounts_inspector"]
    environment = jinja2.Environment(trim_blocks=True, autoescape=False)  # noqa: S701 -- a shell script
    environment.filters["quote"] = shlex.quote
    words = variables["redis_service"]["command"]
    return [environment.from_string(word).render(variables) for word in words]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    folder = tmp_path_factory.mktemp("redis")
    for path in (folder, *list(folder.parents)[:2]):
        path.chmod(0o755)
    (folder / "secrets").mkdir()
    for name, value in SECRETS.items():
        (folder / "secrets" / name).write_text(value)
    template = jinja2.Template((ROLE / "templates/redis.conf.j2").read_text())
    (folder / "redis.conf").write_text(template.render(redis_maxmemory="64mb", ansible_managed="tests"))
    engine = docker.from_env()
    (image, *_) = engine.images.list("litellm-oauth/redis")
    container = engine.containers.run(
        image,
        command(),
        detach=True,
        name=f"litellm-oauth-tests-{secrets.token_hex(4)}",
        user="10003:10003",
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        tmpfs={"/tmp": "mode=1777,size=64m"},  # noqa: S108 -- in there
        mounts=[
            Mount("/run/secrets", str(folder / "secrets"), "bind", read_only=True),
            Mount("/etc/litellm-oauth/redis.conf", str(folder / "redis.conf"), "bind", read_only=True),
        ],
    )
    try:
        until(lambda: run(container, "redis-cli ping").stdout.strip() == "PONG", 30)
        yield container
    finally:
        container.remove(force=True, v=True)


def ask(container: Container, account: str, *words: str) -> str:
    """What Redis answers to an account of the role's; the password never stands in an argument."""
    files = {"litellm": "/run/secrets/redis_password", "inspector": "/run/secrets/redis_inspector_password"}
    login = "" if account == "default" else f"--no-auth-warning --user {account}"
    file = files.get(account, "/tmp/operator_password")  # noqa: S108 -- in the container
    given = "" if account == "default" else f'REDISCLI_AUTH="$(cat {file})" '
    return str(run(container, f"{given}redis-cli {login} {shlex.join(words)}").stdout).strip()


def run(container: Container, line: str) -> CommandResult:
    return testinfra.get_host(f"docker://{container.name}").run(line)


@pytest.fixture
def stuck(redis: Container) -> Iterator[threading.Thread]:
    """A script of the gateway's account that runs until somebody ends it. Redis then answers others."""
    told: list[str] = []
    thread = threading.Thread(target=lambda: told.append(ask(redis, "litellm", "eval", ENDLESS, "0")))
    thread.told = told  # type: ignore[attr-defined]
    thread.start()
    until(lambda: "BUSY" in ask(redis, "default", "ping"), 30)
    yield thread
    with suppress(Exception):
        ask(redis, "operator", "script", "kill")
    thread.join(30)


@pytest.mark.parametrize("kill", [["script", "kill"], ["function", "kill"]], ids=" ".join)
def test_only_the_operator_ends_a_script(redis: Container, kill: list[str]) -> None:
    for account in ("default", "litellm", "inspector"):
        assert ask(redis, account, *kill).startswith("NOPERM"), account
    assert ask(redis, "operator", *kill).startswith("NOTBUSY")


def test_the_documented_line_ends_a_stuck_script_and_the_gateway_s_account_cannot(
    redis: Container, stuck: threading.Thread
) -> None:
    (line,) = re.findall(r"docker exec litellm-redis-1 sh -c '([^']+)'", (ROOT / "README.md").read_text())
    for account in ("default", "litellm", "inspector"):
        assert ask(redis, account, "script", "kill").startswith("NOPERM"), account
    assert not ask(redis, "operator", "function", "stats").startswith("NOPERM")
    assert stuck.is_alive()
    assert run(redis, " ".join(line.split())).stdout.strip() == "OK"
    stuck.join(30)
    assert "Script killed by user" in stuck.told[0]  # type: ignore[attr-defined]
    assert ask(redis, "default", "ping") == "PONG"


@pytest.mark.parametrize(
    "words",
    [
        "get litellm_oauth:x",
        "set litellm_oauth:x 1",
        "eval 'return 1' 0",
        "script flush",
        "script load 'return 1'",
        "function flush",
        "function load x",
        "config get *",
        "acl list",
        "client list",
        "keys *",
        "flushall",
        "shutdown nosave",
        "info",
    ],
)
def test_the_operator_may_do_nothing_else(redis: Container, words: str) -> None:
    assert ask(redis, "operator", *shlex.split(words)).startswith("NOPERM")


def test_the_operators_password_stays_in_the_container_and_changes_with_each_start(redis: Container) -> None:
    assert run(redis, "stat -c '%a %u' /tmp/operator_password").stdout.strip() == "600 10003"
    before = run(redis, "cat /tmp/operator_password").stdout
    assert re.fullmatch("[0-9a-f]{64}", before)
    shown = " ".join(" ".join(process) for process in redis.top()["Processes"]) + redis.logs().decode()
    assert before not in shown
    redis.restart(timeout=5)
    until(lambda: run(redis, "redis-cli ping").stdout.strip() == "PONG", 30)
    after = run(redis, "cat /tmp/operator_password").stdout
    assert after != before
    assert ask(redis, "operator", "ping") == "PONG"
