"""The gateway's image without the database client (DATABASE_CLIENT=no), which keeps tokens in files."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import httpx
import pytest
import yaml
from docker.models.containers import Container
from docker.types import Mount

from support.stack import ROOT, until_live

CA_FILE = Path("/etc/ssl/certs/ca-certificates.crt")
KEY = "sk-obviously-fake-master-key"
Start = Callable[[bool], Container]


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """Built as the role container_image builds; it shares all layers with the whole image."""
    engine = docker.from_env()
    (base, *_) = engine.images.list("litellm-oauth/debian")
    name = f"litellm-oauth/tests:{secrets.token_hex(4)}"
    command = ["docker", "build", "--quiet", "--tag", name, "--build-arg", f"BASE={base.tags[0]}"]
    command += ["--build-arg", "DATABASE_CLIENT=no", str(ROOT)]
    if CA_FILE.exists():
        command[2:2] = ["--secret", f"id=ca,src={CA_FILE}"]
    # The distribution's client before any other, as in the role: not every client has BuildKit.
    path = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin"
    environment = {**os.environ, "DOCKER_BUILDKIT": "1", "PATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    yield name
    engine.images.remove(name, force=True)


@pytest.fixture(scope="module")
def start(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a gateway of that image, with or without ``use_database``."""
    containers: list[Container] = []

    def started(use_database: bool) -> Container:
        config = tmp_path_factory.mktemp("config") / "config.yaml"
        config.write_text(yaml.safe_dump(_configuration(use_database)))
        for folder in list(config.parents)[:3]:
            folder.chmod(0o755)
        container = docker.from_env().containers.run(
            image,
            detach=True,
            name=f"litellm-oauth-tests-{secrets.token_hex(4)}",
            mounts=[Mount("/app/config.yaml", str(config), "bind", read_only=True)],
            environment={
                "LITELLM_MASTER_KEY": KEY,
                "CLAUDE_TOKEN_ENCRYPTION_KEY": "0123456789abcdef" * 4,
                "LITELLM_OAUTH_DATABASE_URL": "postgresql://llmproxy@127.0.0.1:5432/litellm",
            },
            ports={"4000/tcp": ("127.0.0.1", 0)},
        )
        containers.append(container)
        return container

    yield started
    for container in containers:
        container.remove(force=True, v=True)


def _configuration(use_database: bool) -> dict[str, object]:
    provider = {
        "authorize_url": "https://login.example/oauth/authorize",
        "token_url": "https://login.example/oauth/token",
        "redirect_uri": "https://login.example/code",
        "client_id": "our-client",
    }
    return {
        "model_list": [],
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
        "claude_oauth": {"use_database": use_database, "provider": provider},
    }


def test_with_files_the_gateway_and_its_commands_do_without_the_driver(start: Start) -> None:
    container = start(False)
    assert container.exec_run("find / -xdev -iname *psycopg*", user="root") == (0, b"")
    code, shown = container.exec_run(["litellm", "claude", "login", "--user", "alice"])
    assert (code, b"https://login.example/oauth/authorize?" in shown) == (0, True), shown
    container.reload()
    (port,) = container.ports["4000/tcp"] or [{}]
    url = f"http://127.0.0.1:{port['HostPort']}"
    until_live(url)
    answer = httpx.get(f"{url}/auth/claude/oauth/status", headers={"Authorization": f"Bearer {KEY}"})
    assert (answer.status_code, answer.json()["source"]) == (200, "file")


def test_a_setting_that_asks_for_the_database_ends_the_start_with_both_ways_out(start: Start) -> None:
    container = start(True)
    assert container.wait(timeout=30)["StatusCode"] == 3
    said = container.logs().decode()
    assert said.startswith("litellm_oauth cannot start: ")
    assert "take the image that has it, or set use_database: false" in said
    assert len(said.splitlines()) == 2, said
