"""The process: what it keeps, what it prints, and how it refuses to start."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from support.oauth_client import OAuthClient
from support.sandbox import SandboxProvider

ROOT = Path(__file__).parents[2]
COUNTS = [f"SELECT count(*) FROM {table}" for table in ("families", "codes", "tokens")]  # noqa: S608 (fixed names)
DAY = 24 * 3600


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_logins_outlive_the_process(own_sandbox: SandboxProvider, end: str) -> None:
    client = OAuthClient(own_sandbox)
    tokens, code = client.login(), client.code("bob")
    getattr(own_sandbox, end)()
    own_sandbox.start()
    assert client.ask(tokens["access_token"]).status_code == 200
    assert client.refresh(tokens["refresh_token"]).status_code == 200
    assert client.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert client.exchange(code).status_code == 200


def test_no_code_and_no_token_is_in_the_database_or_the_log(own_sandbox: SandboxProvider) -> None:
    client = OAuthClient(own_sandbox)
    shown = own_sandbox.approve(client.authorization_url(), "alice")
    code = shown.partition("#")[0]
    old = client.exchange(code).json()
    new = client.refresh(old["refresh_token"]).json()
    client.ask(new["access_token"])
    client.refresh(old["refresh_token"])
    client.revoke(new["refresh_token"])
    kept = b"".join(path.read_bytes() for path in own_sandbox.folder.iterdir())
    secrets = [code, client.verifier, client.state]
    secrets += [tokens[name] for tokens in (old, new) for name in ("access_token", "refresh_token")]
    for secret in secrets:
        assert secret.encode() not in kept
    assert "alice@sandbox.example" in own_sandbox.log_text


def test_what_has_been_dead_for_a_day_is_forgotten_at_the_start(own_sandbox: SandboxProvider) -> None:
    client = OAuthClient(own_sandbox)
    own_sandbox.settings(clock_skew_seconds=-100 * DAY)
    client.login("old")
    client.code("old")
    own_sandbox.settings(clock_skew_seconds=0)
    tokens = client.login("new")
    own_sandbox.restart()
    assert [login["account"] for login in own_sandbox.logins()] == ["new"]
    assert client.ask(tokens["access_token"]).status_code == 200
    with closing(sqlite3.connect(own_sandbox.folder / "sandbox.sqlite3")) as database:
        counts = [database.execute(query).fetchone()[0] for query in COUNTS]
    assert counts == [1, 1, 2]


def test_wrong_settings_are_all_named_at_once(tmp_path: Path) -> None:
    done = _start(
        SANDBOX_PORT="http",
        SANDBOX_ACCESS_TOKEN_SECONDS="0",
        SANDBOX_REDIRECT_URIS="localhost/cb",
        SANDBOX_CLIENT_ID=" ",
        SANDBOX_DATABASE=str(tmp_path / "missing" / "file"),
    )
    assert done.returncode == 2
    for name in ("PORT", "ACCESS_TOKEN_SECONDS", "REDIRECT_URIS", "CLIENT_ID", "DATABASE"):
        assert f"SANDBOX_{name}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_and_a_file_that_is_no_database_are_said_plainly(
    own_sandbox: SandboxProvider, tmp_path: Path
) -> None:
    database = str(tmp_path / "database")
    done = _start(SANDBOX_PORT=str(own_sandbox.port), SANDBOX_DATABASE=database)
    assert (done.returncode, "cannot listen" in done.stderr) == (2, True)
    Path(database).write_text("not a database" * 100)
    done = _start(SANDBOX_PORT="0", SANDBOX_DATABASE=database)
    assert (done.returncode, "cannot use its database" in done.stderr) == (2, True)


def test_the_judge_shares_no_code_with_the_judged() -> None:
    script = "import json, sys, oauth_sandbox.app; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'sandbox'}{os.pathsep}{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not [name for name in json.loads(done.stdout) if name.startswith("litellm")]


def _start(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "oauth_sandbox"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "sandbox"), **environment},
        capture_output=True,
        text=True,
        timeout=20,
    )
