"""The gateways that are compared, each in a container of its own on loopback, with what they need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from socket import create_server
from typing import Any

import psycopg
import yaml
from psycopg import sql

from load import Target
from postgres import image, postgres
from prepared import ROOT
from support.sandbox import SandboxProvider, running_sandbox

USERS = 50
MASTER_KEY = "sk-obviously-fake-master-key"
PLAIN = "litellm-oauth/plain:1.106.2"


@dataclass(frozen=True, slots=True)
class Bench:
    """What all gateways share, and where they put their files. ``gateway``: the image of ours."""

    folder: Path
    api: int
    sandbox: SandboxProvider
    database: str
    gateway: str

    @property
    def api_base(self) -> str:
        return f"http://127.0.0.1:{self.api}"

    def counts(self) -> dict[str, int]:
        """How many requests and different credentials the API saw."""
        with urllib.request.urlopen(self.api_base) as answer:
            counts: dict[str, int] = json.load(answer)
        return counts

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o444)
        return path

    @contextmanager
    def running(
        self, name: str, config: dict[str, Any], image: str, *arguments: str, **environment: str
    ) -> Iterator[Target]:
        """A gateway in a container, until the block ends; asked with the master key."""
        port = free_port()
        path = self.file(f"{name}.yaml", yaml.safe_dump(config))
        container = container_of(name)
        options = ["--network", "host", "--tmpfs", "/tmp", "--volume", f"{self.folder}:/bench:ro"]  # noqa: S108 -- the container's
        for folder in (".litellm", ".litellm_journal"):
            options += ["--tmpfs", f"/app/{folder}:uid=10001,mode=700"]
        for key, value in environment.items():
            options += ["--env", f"{key}={value}"]
        arguments = (f"--config=/bench/{path.name}", "--host=127.0.0.1", f"--port={port}", *arguments)
        # The image's own probe starts a Python every ten seconds, on the processors that are measured.
        options.append("--no-healthcheck")
        docker("run", "--detach", "--rm", "--name", container, *options, image, *arguments)
        try:
            until_live(container, port)
            yield Target(name, port, (MASTER_KEY,))
        finally:
            docker("rm", "--force", "--volumes", container)

    def of(self, gateway: str, name: str) -> Bench:
        """The same with another image of ours, and with a database of this name: both may run at once."""
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        database = f"{self.database.rpartition('/')[0]}/{name}"
        return replace(self, gateway=gateway, database=database)

    @contextmanager
    def with_tokens(self, workers: int, name: str = "tokens", **section: object) -> Iterator[Target]:
        """Our gateway, each request with the token of one of many users, asked with their own keys.

        ``section``: more of ``claude_oauth``.
        """
        name = f"{name}-{workers}"
        keys = {f"user-{number}": f"sk-obviously-fake-{number}" for number in range(USERS)}
        self.file("encryption_key", "0123456789abcdef" * 4)
        self.file(
            "user_keys",
            "".join(f"{sha256(key.encode()).hexdigest()}  {user}\n" for user, key in keys.items()),
        )
        config = self.config("oauth")
        config["litellm_settings"]["callbacks"] = ["litellm_oauth.gateway.hook.oauth_hook"]
        config["general_settings"] |= {
            "custom_auth": "litellm_oauth.gateway.keys.authenticate",
            "custom_auth_run_common_checks": True,
        }
        config["claude_oauth"] = {
            "sandbox": True,
            "single_host": True,
            "public_url": "http://localhost",
            "allowed_api_bases": [self.api_base],
            "provider": self.sandbox.provider_settings(),
            "login_lifetime": 0,
            **section,
        }
        with self.ours(
            name,
            config,
            workers,
            LITELLM_OAUTH_DATABASE_URL=self.database,
            LITELLM_OAUTH_USER_KEYS_FILE="/bench/user_keys",
            CLAUDE_TOKEN_ENCRYPTION_KEY_FILE="/bench/encryption_key",  # noqa: S106 -- where it is
        ) as target:
            for user in keys:
                self.log_in(target.port, user)
            yield replace(target, keys=tuple(keys.values()))

    @contextmanager
    def with_key(self, workers: int) -> Iterator[Target]:
        """The same gateway with a static API key, and the module switched off."""
        config = self.config("sk-ant-obviously-fake")
        config["claude_oauth"] = {"enabled": False}
        with self.ours(f"key-{workers}", config, workers) as target:
            yield target

    @contextmanager
    def ours(self, name: str, config: dict[str, Any], workers: int, **environment: str) -> Iterator[Target]:
        """The kit's image as the kit starts it."""
        with self.running(
            name,
            config,
            self.gateway,
            "--run_granian",
            NUM_WORKERS=str(workers),
            LITELLM_OAUTH_CONFIG=f"/bench/{name}.yaml",
            LITELLM_MASTER_KEY=MASTER_KEY,
            **environment,
        ) as target:
            yield target

    @contextmanager
    def plain(self, workers: int) -> Iterator[Target]:
        """A plain LiteLLM with a static API key, as it starts by default."""
        # With two workers its server kills them while they import, unless it is told to wait.
        more = ["--num_workers", str(workers), "--timeout_worker_healthcheck", "60"] if workers > 1 else []
        with self.running(
            f"plain-{workers}",
            self.config("sk-ant-obviously-fake"),
            PLAIN,
            *more,
            # There may be no network here, and the default asks it for a newer list of models.
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            LITELLM_MASTER_KEY=MASTER_KEY,
        ) as target:
            yield target

    def config(self, api_key: str) -> dict[str, Any]:
        params = {
            "model": "anthropic/claude-haiku-4-5-20251001",
            "api_base": self.api_base,
            "api_key": api_key,
        }
        return {
            "model_list": [{"model_name": "claude", "litellm_params": params}],
            "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
            "litellm_settings": {"telemetry": False},
        }

    def log_in(self, port: int, user: str) -> None:
        def call(method: str, path: str, body: object = None) -> Any:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/auth/claude/oauth/{path}",
                None if body is None else json.dumps(body).encode(),
                {"Authorization": f"Bearer {MASTER_KEY}", "Content-Type": "application/json"},
                method=method,
            )
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)

        started = call("GET", f"start?user_id={user}&force=true")
        code = self.sandbox.approve(started["authorization_url"], login_hint=user)
        call("POST", f"exchange?user_id={user}", {"code": code})


@contextmanager
def bench() -> Iterator[Bench]:
    """What the gateways share, until the block ends."""
    port = free_port()
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as name,
        api(port),
        running_sandbox() as sandbox,
        postgres(Path(name)) as database,
    ):
        files = Path(name) / "files"
        files.mkdir(mode=0o755)
        yield Bench(files, port, sandbox, database, image("gateway"))


def resident(target: Target) -> float:
    """MB of resident memory of the gateway's largest process."""
    _, *processes = docker("top", container_of(target.name), "-o", "pid,rss").splitlines()
    return max(int(line.split()[1]) for line in processes) / 1024


def processor(target: Target) -> float:
    """Seconds of a processor that the gateway's processes have taken, without those that have ended."""
    server = docker("inspect", "--format", "{{.State.Pid}}", container_of(target.name)).strip()
    workers = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return sum(map(_processor, [server, *workers]))


def _processor(pid: str) -> float:
    # The name of the process, in brackets, may hold spaces; two of the fields after it are counted in ticks.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def container_of(name: str) -> str:
    return f"litellm-oauth-benchmark-{os.getpid()}-{name}"


def docker(*arguments: str) -> str:
    """What the command says, on both its outputs. Raises subprocess.CalledProcessError."""
    result = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    return result.stdout


def free_port() -> int:
    with create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def until_live(container: str, port: int) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"{container} is not live:\n{docker('logs', '--tail', '30', container)}")


@contextmanager
def api(port: int) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, str(ROOT / "benchmarks" / "upstream.py"), str(port)])
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)
