"""What the tests of the documents do besides the documents' own lines, on a host with a running stack."""

from __future__ import annotations

import json
from typing import Any

from support.docker_host import DockerHost

PSQL = "docker exec litellm-db-1 psql -U llmproxy -d litellm"
CLAUDE = "docker exec litellm-litellm-1 litellm claude"


def setting(host: DockerHost, name: str, file: str = ".env") -> str:
    """One value out of an env file."""
    return host.run(f"sed -n s/^{name}=//p {file}").strip()


def status(host: DockerHost, user: str = "default") -> dict[str, Any]:
    """How a login stands, by the command line."""
    found: dict[str, Any] = json.loads(host.run(f"{CLAUDE} status --json --user {user}", code=None))
    return found


def log_in(host: DockerHost, user: str = "default") -> None:
    """A new login, whoever is logged in."""
    started = json.loads(host.run(f"{CLAUDE} login --force --json --user {user}"))
    host.run(f"{CLAUDE} callback --user {user} '{host.approve(started['authorization_url'])}'")


def tokens(host: DockerHost, user: str = "default") -> dict[str, Any]:
    """The login itself, as it is exported."""
    found: dict[str, Any] = json.loads(host.run(f"{CLAUDE} export --user {user} 2>/dev/null"))
    return found


def chat(host: DockerHost, model: str = "claude-haiku", *, key: str) -> str:
    """The answer to a question."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]})
    return host.run(
        f"curl --silent http://localhost:4000/v1/chat/completions -H 'Authorization: Bearer {key}' "
        f"-H 'Content-Type: application/json' -d '{body}'"
    )


def settled(host: DockerHost, compose: str, service: str = "") -> None:
    """Bring the stack, or one service of it, to what its files say, and wait until it is healthy."""
    host.run(f"{compose} up -d --wait --wait-timeout 150 {service}", timeout=200)
