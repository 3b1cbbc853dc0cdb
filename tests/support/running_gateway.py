"""The gateway's image with the code of this checkout, on loopback, in front of a scripted API."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from socket import create_server
from typing import Any

import httpx
import yaml

from .scripted_api import TOKEN_PATH, ScriptedApi

ROOT = Path(__file__).resolve().parents[2]
MASTER_KEY = "sk-obviously-fake-master"
USER_KEYS = {name: f"sk-obviously-fake-{name}" for name in ("alice", "bob", "carol", "dora")}
OPERATOR_KEY = "obviously-fake-operator-key"
# What is never to be seen upstream, in a log or in an answer.
SECRETS = (MASTER_KEY, *USER_KEYS.values(), OPERATOR_KEY)
# How the scripted provider's tokens begin, those of access and of refresh.
TOKENS = ("sk-ant-oat01-", "sk-ant-ort01-")


@dataclass(frozen=True)
class RunningGateway:
    """A gateway that listens, and what is behind it."""

    url: str
    container: str
    api: ScriptedApi = field(repr=False)

    def client(self, user: str | None = "alice", **headers: str) -> httpx.Client:
        """Asks with this user's key, or with the master key."""
        key = MASTER_KEY if user is None else USER_KEYS[user]
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {key}", **headers}, timeout=15
        )

    def log_in(self, user: str | None) -> None:
        with self.client(user) as client:
            started = client.get("/auth/claude/oauth/start", params={"force": "true"}).json()
            answer = client.post(
                "/auth/claude/oauth/exchange", json={"code": f"obviously-fake-code#{started['state']}"}
            )
        assert answer.status_code == 200, answer.text

    def logs(self) -> str:
        result = docker("logs", self.container)
        return result.stdout + result.stderr

    def memory(self) -> int:
        """What all its processes hold, in bytes; memory that they share counts once."""
        return sum(_proportional(pid) for pid in [self._server, *self.workers()])

    def worked(self) -> float:
        """How long its workers have worked, in seconds of a processor."""
        found = 0
        for pid in self.workers():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found += int(fields[11]) + int(fields[12])
        return found / os.sysconf("SC_CLK_TCK")

    def workers(self) -> list[int]:
        """The processes that serve, by their ids on this machine."""
        listed = Path(f"/proc/{self._server}/task/{self._server}/children").read_text()
        return [int(pid) for pid in listed.split()]

    @property
    def _server(self) -> int:
        found: int = json.loads(docker("inspect", self.container).stdout)[0]["State"]["Pid"]
        return found

    def raw(
        self, method: str, path: str, body: bytes | None = None, user: str | None = "alice", **headers: str
    ) -> tuple[int, str, dict[str, str]]:
        """Ask with a path as it is, which no client library would send. Returns status, text and headers."""
        address = httpx.URL(self.url)
        connection = http.client.HTTPConnection(address.host, address.port or 80, timeout=20)
        key = MASTER_KEY if user is None else USER_KEYS[user]
        connection.request(method, path, body, {"Authorization": f"Bearer {key}", **headers})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, {name.lower(): value for name, value in answer.getheaders()}

    def python(self, code: str) -> str:
        """What a program prints that runs in its container."""
        return docker("exec", self.container, "python", "-c", code).stdout


def _proportional(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))) * 1024


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)


def image() -> str:
    """The gateway's image that `make images` made last."""
    listed = docker(
        "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "litellm-oauth/gateway"
    ).stdout.split()
    assert listed, "there is no image of the gateway; run: make images"
    return listed[0]


@cache
def code_of_this_checkout() -> tuple[str, str]:
    """Options of docker's that have the image run the code of this checkout."""
    code = "import litellm_oauth as m; print(m.__path__[0])"
    site = docker("run", "--rm", "--entrypoint", "python", image(), "-c", code).stdout.strip()
    return "--volume", f"{ROOT}/src/litellm_oauth:{site}:ro"


def in_the_image(*arguments: str) -> list[str]:
    """The lines that the image's Python prints; it has the code of this checkout, and tests' in /support."""
    shown = docker(
        *("run", "--rm", "--network", "none", "--env", "LITELLM_LOCAL_MODEL_COST_MAP=True"),
        *code_of_this_checkout(),
        *("--volume", f"{ROOT}/tests/support:/support:ro", "--entrypoint", "python"),
        *(image(), *arguments),
    ).stdout
    return [line for line in shown.splitlines() if line]


def configuration(api: ScriptedApi, **section: object) -> dict[str, Any]:
    """A whole config.yaml: three models with the caller's own token, two with a key of the operator's."""

    def model(name: str, called: str, key: str = "oauth") -> dict[str, Any]:
        params = {"model": f"anthropic/{called}", "api_base": api.url, "api_key": key}
        return {"model_name": name, "litellm_params": params, "model_info": {"cooldown_time": 0}}

    operator = "os.environ/LITELLM_OAUTH_KEY_ANTHROPIC_API_KEY"
    return {
        "model_list": [
            model("claude-sonnet-4", "claude-sonnet-4-20250514"),
            model("claude-haiku-3.5", "claude-3-5-haiku-20241022"),
            model("same-name", "same-name"),
            model("keyed", "claude-keyed-1", operator),
            model("keyed-too", "claude-keyed-2", operator),
        ],
        "general_settings": {
            "master_key": "os.environ/LITELLM_MASTER_KEY",
            "custom_auth": "litellm_oauth.gateway.keys.authenticate",
            "custom_auth_run_common_checks": True,
        },
        "litellm_settings": {"callbacks": ["litellm_oauth.gateway.hook.oauth_hook"], "telemetry": False},
        "claude_oauth": {
            "sandbox": True,
            "use_database": False,
            "single_host": True,
            "public_url": "http://localhost",
            "allowed_api_bases": [api.url],
            "login_lifetime": 0,
            "encryption_key": "${CLAUDE_TOKEN_ENCRYPTION_KEY}",
            "provider": {
                "issuer": api.url,
                "authorize_url": f"{api.url}/oauth/authorize",
                "token_url": api.url + TOKEN_PATH,
                "redirect_uri": "http://localhost/callback",
                "client_id": "obviously-fake-client",
                "scopes": ["user:inference"],
            },
            **section,
        },
    }


@contextmanager
def running_gateway(
    folder: Path,
    config: Mapping[str, Any],
    api: ScriptedApi,
    *options: str,
    workers: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Iterator[RunningGateway]:
    """Serve until the block ends. ``options`` are more of docker's."""
    name = f"litellm-oauth-live-{os.getpid()}-{time.monotonic_ns()}"
    port = _free_port()
    secrets = {
        "config.yaml": yaml.safe_dump(dict(config)),
        "encryption_key": "0123456789abcdef" * 4,
        "master_key": MASTER_KEY,
        "ANTHROPIC_API_KEY": OPERATOR_KEY,
        "user_keys": "".join(
            f"{hashlib.sha256(key.encode()).hexdigest()}  {user}\n" for user, key in USER_KEYS.items()
        ),
    }
    folder.chmod(0o755)
    for file, text in secrets.items():
        (folder / file).write_text(text)
        (folder / file).chmod(0o444)
    variables = {
        "NUM_WORKERS": str(workers),
        "LITELLM_OAUTH_CONFIG": "/run/secrets/config.yaml",
        "LITELLM_MASTER_KEY_FILE": "/run/secrets/master_key",
        "LITELLM_OAUTH_USER_KEYS_FILE": "/run/secrets/user_keys",
        "CLAUDE_TOKEN_ENCRYPTION_KEY_FILE": "/run/secrets/encryption_key",
        "LITELLM_OAUTH_API_KEYS": "ANTHROPIC_API_KEY",
        **(environment or {}),
    }
    docker(
        *("run", "--detach", "--name", name, "--network", "host", "--tmpfs", "/tmp"),  # noqa: S108 -- the container's
        *("--volume", f"{folder}:/run/secrets:ro"),
        *code_of_this_checkout(),
        *(
            part
            for one in ("/app/.litellm", "/app/.litellm_journal")
            for part in ("--tmpfs", f"{one}:uid=10001,mode=700")
        ),
        *(part for key, value in variables.items() for part in ("--env", f"{key}={value}")),
        *options,
        image(),
        *(
            "--config",
            "/run/secrets/config.yaml",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--run_granian",
        ),
    )
    gateway = RunningGateway(f"http://127.0.0.1:{port}", name, api)
    try:
        _until_live(gateway)
        yield gateway
    finally:
        docker("rm", "--force", "--volumes", name)


def _until_live(gateway: RunningGateway, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{gateway.url}/health/liveliness", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            state = json.loads(docker("inspect", gateway.container).stdout)[0]["State"]
            assert state["Running"], gateway.logs()[-4000:]
        time.sleep(0.1)
    raise AssertionError(f"the gateway is not live after {seconds} s: {gateway.logs()[-4000:]}")


def _free_port() -> int:
    with create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
