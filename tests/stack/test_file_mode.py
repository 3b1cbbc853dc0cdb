"""A gateway without a database: tokens in files as the documents describe them, and their test of refresh."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from docker.models.containers import Container

from support.stack import Stack, log_in, replica, status

# From the documents' test_token_refresh.py, with a shorter wait.
EXPIRE_SOON = """
import json
import time
token_file = '/app/.litellm/claude_tokens.json'
with open(token_file, 'r') as f:
    tokens = json.load(f)
tokens['expiresAt'] = int(time.time()) + 2
with open(token_file, 'w') as f:
    json.dump(tokens, f)
"""
BODY = {"model": "claude-haiku", "messages": [{"role": "user", "content": "test"}], "max_tokens": 16}


@pytest.fixture(scope="module")
def file_gateway(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Container, httpx.Client]]:
    """A gateway with two workers that keeps tokens in files, beside the deployed one."""
    (mounted,) = [m for m in stack.inspect("litellm")["Mounts"] if m["Destination"] == "/app/config.yaml"]
    document = yaml.safe_load(Path(mounted["Source"]).read_text())
    document["claude_oauth"]["use_database"] = False
    config = tmp_path_factory.mktemp("config") / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    config.parent.chmod(0o755)
    config.chmod(0o444)
    headers = {"Authorization": f"Bearer {stack.key}"}
    with (
        replica(stack, own_host=True, config=config) as (container, url),
        httpx.Client(base_url=url, headers=headers, timeout=60) as client,
    ):
        yield container, client


def chat(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/chat/completions", json=BODY)


def run(container: Container, *command: str) -> str:
    code, output = container.exec_run(list(command))
    assert code == 0, output
    assert isinstance(output, bytes)
    return output.decode()


def seen_tokens(sandbox: httpx.Client, account: str) -> list[str]:
    seen = sandbox.get("/control/requests").json()
    return [one["token_sha256"] for one in seen if one["account"] == account and one["status"] == 200]


def account_of(login: dict[str, Any]) -> str:
    return str(login["account"]["account"]["email_address"].split("@")[0])


def test_the_expiry_that_the_documents_edit_causes_one_refresh_and_a_new_token_upstream(
    file_gateway: tuple[Container, httpx.Client], sandbox: httpx.Client
) -> None:
    container, client = file_gateway
    login = log_in(client, "default")
    assert login["source"] == "file"
    assert chat(client).status_code == 200
    calls = sandbox.get("/control/token-calls").json()["refresh_token"].get("ok", 0)
    run(container, "python", "-c", EXPIRE_SOON)
    time.sleep(3)
    assert chat(client).status_code == 200
    assert sandbox.get("/control/token-calls").json()["refresh_token"]["ok"] == calls + 1
    first, second = seen_tokens(sandbox, account_of(login))
    assert first != second
    document = json.loads(run(container, "cat", "/app/.litellm/claude_tokens.json"))
    assert document["accessToken"].startswith("v1.")
    assert document["generation"] == status(client, "default")["generation"]


def test_the_files_are_private_and_a_restart_finds_them(
    file_gateway: tuple[Container, httpx.Client],
) -> None:
    container, client = file_gateway
    log_in(client, "alice")
    listing = run(container, "sh", "-c", "stat -c %a /app/.litellm/*.json /app/.litellm/users/*")
    assert set(listing.split()) == {"600"}
    assert run(container, "stat", "-c", "%a", "/app/.litellm").strip() == "700"
    assert "✅ Valid" in run(container, *shlex.split("litellm claude status --user alice"))


def test_removing_the_file_logs_out_as_the_documents_say(
    file_gateway: tuple[Container, httpx.Client],
) -> None:
    container, client = file_gateway
    log_in(client, "default")
    run(container, "sh", "-c", "rm -rf /app/.litellm/*")
    deadline = time.monotonic() + 5
    while (answer := chat(client)).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert answer.status_code == 401
    assert "not logged in" in answer.text
    for user in ("default", "alice"):
        assert log_in(client, user)["authenticated"]
    assert chat(client).status_code == 200
