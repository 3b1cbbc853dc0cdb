"""``litellm claude …`` as a process of its own, with the real PostgreSQL and provider."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from litellm_oauth.flow import ClaudeOAuthFlow
from support.gateway import Configuration
from support.postgres import TestDatabase
from support.sandbox import SandboxProvider

Run = Callable[..., subprocess.CompletedProcess[str]]
LogIn = Callable[..., dict[str, Any]]

RULE = "=" * 60


@pytest.fixture
def claude(command_environment: dict[str, str]) -> Run:
    def run(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "litellm_oauth.cli", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env=command_environment | environ,
        )

    return run


def url_in(text: str) -> str:
    found = re.search(r"^ +(http\S+authorize\?\S+)$", text, re.MULTILINE)
    assert found, text
    return found[1]


@pytest.fixture
def log_in(configuration: Configuration, sandbox: SandboxProvider) -> LogIn:
    """A login through the Python interface, which takes no process."""

    async def flow(user: str) -> dict[str, Any]:
        login = ClaudeOAuthFlow(user, settings=configuration.settings())
        url, state = await login.start_flow()
        code = (await asyncio.to_thread(sandbox.approve, url)).partition("#")[0]
        return await login.complete_flow(code, state)

    return lambda user="default": asyncio.run(flow(user))


def test_login_callback_status_look_like_the_documents(claude: Run, sandbox: SandboxProvider) -> None:
    login = claude("login")
    assert login.returncode == 0
    assert login.stdout.startswith(f"🔐 Starting Claude OAuth authentication...\n{RULE}\n")
    assert "📋 Authorization URL generated!" in login.stdout
    assert f"   {sandbox.redirect_uri}\n" in login.stdout
    assert "   litellm claude callback <CODE>\n" in login.stdout
    code = sandbox.approve(url_in(login.stdout)).partition("#")[0]
    callback = claude("callback", code)
    assert (callback.returncode, callback.stdout.splitlines()[0]) == (0, "✅ Authentication successful!")
    status = claude("status")
    assert status.returncode == 0
    assert status.stdout.startswith(f"🔍 Claude OAuth Status\n{RULE}\n✅ Using tokens from: ")
    assert "📊 Token Status:\n" in status.stdout
    assert "   • Status: ✅ Valid\n" in status.stdout
    assert "   • Expires in: 8.0 hours\n" in status.stdout
    assert re.search(r"   • Account: \S+@sandbox\.example\n", status.stdout)


def test_no_command_prints_a_token(claude: Run, log_in: LogIn) -> None:
    log_in()
    results = [claude(*words) for words in (["status"], ["refresh", "--force"], ["login"], ["logout"])]
    results += [claude("status", "--json")]
    assert [result.args for result in results if "sk-ant-o" in result.stdout + result.stderr] == []


def test_the_user_comes_from_the_option_or_the_environment(claude: Run, log_in: LogIn) -> None:
    log_in("user_1")
    assert claude("status", USER_ID="user_1").returncode == 0
    assert claude("status").returncode == 1
    assert "litellm claude login --user user_2" in claude("status", USER_ID="user_2").stdout


def test_status_of_nobody_exits_with_1_and_says_how_to_log_in(claude: Run) -> None:
    result = claude("status")
    assert result.returncode == 1
    assert "❌ default is not logged in" in result.stdout
    assert "litellm claude login" in result.stdout
    as_json = claude("status", "--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["status"] == "logged_out"


def test_who_is_logged_in_is_told_so_and_starts_a_login_only_by_force(claude: Run, log_in: LogIn) -> None:
    log_in()
    again = claude("login")
    assert again.returncode == 0
    assert "litellm claude login --force" in again.stdout
    assert "authorize?" not in again.stdout
    assert json.loads(claude("login", "--json").stdout)["already_logged_in"] is True
    assert url_in(claude("login", "--force").stdout)


def test_refresh_leaves_a_fresh_token_alone_unless_forced(claude: Run, log_in: LogIn) -> None:
    log_in()
    assert "still valid for 8.0 hours" in claude("refresh").stdout
    assert "was refreshed" in claude("refresh", "--force").stdout
    outcome = json.loads(claude("refresh", "--min-validity", "86400", "--json").stdout)
    assert (outcome["result"], outcome["generation_before"], outcome["generation"]) == ("refreshed", 2, 3)


def test_refresh_of_all_counts_names_who_failed_and_has_an_exit_code(
    claude: Run, log_in: LogIn, sandbox: SandboxProvider
) -> None:
    assert "Nobody is logged in" in claude("refresh", "--all").stdout
    for user in ("alice", "bob"):
        log_in(user)
    fine = claude("refresh", "--all")
    assert (fine.returncode, fine.stderr) == (0, "")
    assert fine.stdout == "✅ 2 users: 0 refreshed, 2 still valid, 0 failed.\n"
    sandbox.revoke()
    dead = claude("refresh", "--all", "--min-validity", "86400")
    assert dead.returncode == 1
    # In the order in which they failed.
    assert dead.stdout.startswith("❌ 2 users: 0 refreshed, 0 still valid, 2 failed.\n   • ")
    for user in ("alice", "bob"):
        assert f"   • {user}: The provider " in dead.stdout
    as_json = json.loads(claude("refresh", "--all", "--json").stdout)
    assert as_json["counts"] == {"refreshed": 0, "fresh": 0, "failed": 2, "skipped": 0}
    assert sorted((one["user_id"], one["code"]) for one in as_json["failures"]) == [
        ("alice", "reauth_required"),
        ("bob", "reauth_required"),
    ]


def test_refresh_of_all_shows_how_far_it_is_on_a_terminal(
    command_environment: dict[str, str], log_in: LogIn, sandbox: SandboxProvider
) -> None:
    log_in("alice")
    sandbox.fault("token", "status", status=503)
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "litellm_oauth.cli", "refresh", "--all", "--force"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=child, env=command_environment)
    os.close(child)
    assert "\r⏳ 1 of 1 users: 0 refreshed, 0 still valid, 1 failed\r\n" in _read_until(parent, "\n")
    told = process.communicate(timeout=10)[0].decode()
    assert "⏳" not in told
    assert process.returncode == 3
    os.close(parent)


def test_logout_revokes_and_can_be_repeated(claude: Run, log_in: LogIn) -> None:
    log_in()
    first = claude("logout")
    assert (first.returncode, "revoked at the provider" in first.stdout) == (0, True)
    again = claude("logout")
    assert (again.returncode, "was not logged in" in again.stdout) == (0, True)
    assert claude("refresh").returncode == 1


@pytest.mark.parametrize("argv", [[], ["export"]])
def test_wrong_use_exits_with_2_and_shows_the_help(claude: Run, argv: list[str]) -> None:
    result = claude(*argv)
    assert result.returncode == 2
    assert "usage: litellm claude" in result.stderr


@pytest.mark.parametrize("argv", [["callback", "some-code-1234"], ["status", "--user", "a\tb"]])
def test_input_that_fits_nothing_exits_with_2_and_one_sentence(claude: Run, argv: list[str]) -> None:
    result = claude(*argv)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("❌ ")
    assert "Traceback" not in result.stderr


def test_a_code_that_the_provider_refuses_exits_with_3(claude: Run) -> None:
    claude("login")
    result = claude("callback", "wrong-code-wrong-code")
    assert (result.returncode, result.stdout) == (3, "")


def test_a_code_can_come_through_stdin_to_stay_out_of_the_process_list(
    claude: Run, sandbox: SandboxProvider
) -> None:
    code = sandbox.approve(url_in(claude("login").stdout))
    assert claude("callback", "-", stdin=f"{code}\n").returncode == 0


def test_a_database_that_is_away_exits_with_4_soon(claude: Run, database: TestDatabase) -> None:
    database.cut_off()
    began = time.monotonic()
    result = claude("status", "--json")
    assert result.returncode == 4
    assert json.loads(result.stdout)["error"]["code"] == "storage_unavailable"
    assert time.monotonic() - began < 10


def test_wrong_settings_exit_with_2_and_name_the_fault(claude: Run, configuration: Configuration) -> None:
    configuration.change(refresh_bufer=1)
    result = claude("status")
    assert result.returncode == 2
    assert "did you mean refresh_buffer" in result.stderr
    assert "Traceback" not in result.stderr


def test_status_takes_less_than_a_second_of_work(claude: Run) -> None:
    claude("status")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    claude("status")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, not the clock on the wall: other tests run at the same time.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_login_on_a_terminal_takes_the_pasted_code(
    command_environment: dict[str, str], sandbox: SandboxProvider
) -> None:
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "litellm_oauth.cli", "login"],
        stdin=child,
        stdout=child,
        stderr=child,
        env=command_environment,
    )
    os.close(child)
    shown = _read_until(parent, "later): ").replace("\r\n", "\n")
    os.write(parent, sandbox.approve(url_in(shown)).encode() + b"\n")
    assert "Authentication successful" in _read_until(parent, "Expires in")
    assert process.wait(10) == 0
    os.close(parent)


def test_the_python_interface_of_the_documents_logs_in(log_in: LogIn) -> None:
    status = log_in("alice")
    assert (status["user_id"], status["authenticated"]) == ("alice", True)


def _read_until(terminal: int, text: str) -> str:
    shown = ""
    deadline = time.monotonic() + 20
    while text not in shown and time.monotonic() < deadline:
        shown += os.read(terminal, 4096).decode(errors="replace")
    assert text in shown, shown
    return shown
