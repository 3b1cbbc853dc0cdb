"""site.yml on a stack that runs: what it takes over, and what it refuses because a login would be lost."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.stack import Stack, changed, log_in, log_out, playbook, status

USER = "deployment-user"


@pytest.fixture
def login(gateway: httpx.Client) -> Iterator[int]:
    """The generation of somebody who is logged in."""
    yield int(log_in(gateway, USER)["generation"])
    log_out(gateway, USER)


def test_another_encryption_key_is_refused_and_the_one_in_use_is_kept(
    stack: Stack, gateway: httpx.Client, login: int
) -> None:
    before = stack.secrets()
    result = playbook("site.yml", litellm_oauth_encryption_key="0123456789abcdef" * 4)
    assert result.returncode != 0
    assert "is not the one that the stored logins are encrypted with" in " ".join(result.stdout.split())
    assert "0123456789abcdef" * 4 not in result.stdout
    assert changed(result) == 0
    assert stack.secrets() == before
    assert status(gateway, USER)["status"] == "active"


@pytest.fixture
def hidden_key(stack: Stack, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """The two files that hold the encryption key, each moved away; put back afterwards."""
    files = {owner: stack.directory / "secrets" / owner / "encryption_key" for owner in ("source", "gateway")}
    for owner, file in files.items():
        shutil.copy2(file, tmp_path / owner)
    yield files
    for owner, file in files.items():
        shutil.copy2(tmp_path / owner, file)
        os.chown(file, *(2 * [(tmp_path / owner).stat().st_uid if owner == "source" else 10001]))


def test_a_lost_encryption_key_is_taken_back_from_the_gateways_copy_and_never_made_anew(
    stack: Stack, gateway: httpx.Client, login: int, hidden_key: dict[str, Path]
) -> None:
    key = hidden_key["source"].read_text()
    hidden_key["source"].unlink()
    result = playbook("site.yml")
    assert (result.returncode, changed(result)) == (0, 0), result.stdout
    assert hidden_key["source"].read_text() == key
    for file in hidden_key.values():
        file.unlink()
    result = playbook("site.yml")
    assert result.returncode != 0
    assert "Put the file back from your backup" in " ".join(result.stdout.split())
    assert not any(file.exists() for file in hidden_key.values())
    assert status(gateway, USER)["status"] == "active"


def test_a_new_database_password_is_taken_over_and_no_login_is_lost(
    stack: Stack, gateway: httpx.Client, login: int
) -> None:
    password = f"an-obviously-fake-password-{secrets.token_hex(4)}"
    foretold = playbook("site.yml", "--check", postgres_password=password)
    assert (foretold.returncode, changed(foretold)) == (0, 1), foretold.stdout
    # As if every statement were slow enough to be logged.
    superuser = ("psql", "-U", "postgres", "-c")
    slow = "ALTER ROLE postgres {} log_min_duration_statement"
    assert stack.exec("db", *superuser, slow.format("SET") + " = 0").rc == 0
    result = playbook("site.yml", "-v", postgres_password=password)
    assert result.returncode == 0, result.stdout
    assert stack.exec("db", *superuser, "SELECT 'this is logged'").rc == 0
    log = stack.logs("db")
    assert "this is logged" in log
    assert password not in result.stdout + log
    assert stack.exec("db", *superuser, slow.format("RESET")).rc == 0
    assert stack.secrets()["database_password"] == password
    after = status(gateway, USER)
    assert (after["status"], after["generation"]) == ("active", login)
    assert changed(playbook("site.yml")) == 0


def refused(stack: Stack, parameters: dict[str, Any]) -> str:
    """What site.yml says of a configuration that it must refuse, while the gateway goes on as it was."""
    before = stack.inspect("litellm")
    (configuration,) = [Path(m["Source"]) for m in before["Mounts"] if m["Destination"] == "/app/config.yaml"]
    content = configuration.read_text()
    result = playbook(
        "site.yml", "--extra-vars", json.dumps({"litellm_oauth_authorize_parameters": parameters})
    )
    after = stack.inspect("litellm")
    assert result.returncode != 0
    assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
    # ... and would after a restart as well.
    assert configuration.read_text() == content
    return " ".join(result.stdout.split())


def test_a_database_of_another_key_stops_the_deployment_before_the_gateway_is_replaced(
    stack: Stack, gateway: httpx.Client, login: int
) -> None:
    """As after a restored backup: the key check of the database is not this key's."""
    rename = "UPDATE claude_oauth.key_checks SET key_id = translate(key_id, '{}', '{}')"
    digits = "0123456789abcdef", "123456789abcdef0"
    try:
        stack.sql(rename.format(*digits))
        assert "put that key back" in refused(stack, {"code": "true", "prompt": "login"})
        assert status(gateway, USER)["status"] == "active"
    finally:
        stack.sql(rename.format(*reversed(digits)))


def test_a_configuration_that_the_gateway_would_not_start_with_leaves_the_running_one_alone(
    stack: Stack, gateway: httpx.Client, login: int
) -> None:
    said = refused(stack, {"code": True})
    assert "claude_oauth.provider.authorize_parameters" in said
    assert "Traceback" not in said
    assert status(gateway, USER)["status"] == "active"
    assert changed(playbook("site.yml")) == 0


def test_a_port_that_somebody_else_holds_costs_no_running_gateway(stack: Stack) -> None:
    before = stack.inspect("litellm")["Id"]
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        port = str(somebody.getsockname()[1])
        result = playbook("site.yml", litellm_oauth_port=port)
    assert result.returncode != 0
    assert f"port {port} of localhost is taken" in " ".join(result.stdout.split())
    assert stack.inspect("litellm")["Id"] == before
    assert changed(playbook("site.yml")) == 0


def reaches_the_database(stack: Stack) -> bool:
    """Whether a new connection with the gateway's own password succeeds."""
    query = "psql -h db -U llmproxy -d litellm -c 'SELECT 1'"
    return bool(
        stack.exec("db", "sh", "-c", f'PGPASSWORD="$(cat /run/secrets/database_password)" {query}').rc == 0
    )


def test_a_password_change_that_was_broken_off_is_mended_by_the_next_run(stack: Stack) -> None:
    """The secret was written, and the database never heard of it."""
    other = "ALTER ROLE llmproxy PASSWORD 'an-obviously-fake-password'"
    assert stack.exec("db", "psql", "-U", "postgres", "-c", other).rc == 0
    assert not reaches_the_database(stack)
    result = playbook("site.yml")
    assert (result.returncode, changed(result)) == (0, 0), result.stdout
    assert reaches_the_database(stack)
