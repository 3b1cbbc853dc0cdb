"""``litellm claude …`` as a process of its own, with the real PostgreSQL and provider."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litellm_oauth.flow import ClaudeOAuthFlow
from support.gateway import Configuration, Gateway
from support.postgres import AUDIT, TestDatabase
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


def test_no_command_but_export_prints_a_token(claude: Run, log_in: LogIn) -> None:
    log_in()
    document = claude("export").stdout
    assert document.count("sk-ant-o") == 2
    commands = (
        ["status"],
        ["status", "--json"],
        ["users"],
        ["users", "--json"],
        ["import"],
        ["import", "--force"],
        ["import", "--force", "--json"],
        ["refresh", "--force"],
        ["login"],
        ["logout"],
    )
    results = [claude(*words, stdin=document) for words in commands]
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


@pytest.mark.parametrize("argv", [[], ["exports"], ["users", "--user", "alice"]])
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


@pytest.mark.parametrize("words", [["-"], []], ids=["dash", "none"])
def test_a_code_can_come_through_stdin_to_stay_out_of_the_process_list(
    claude: Run, sandbox: SandboxProvider, words: list[str]
) -> None:
    code = sandbox.approve(url_in(claude("login").stdout))
    result = claude("callback", *words, "--json", stdin=f"{code}\n")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["authenticated"] is True


def test_callback_on_a_terminal_asks_for_the_code(
    claude: Run, command_environment: dict[str, str], sandbox: SandboxProvider
) -> None:
    code = sandbox.approve(url_in(claude("login").stdout))
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "litellm_oauth.cli", "callback", "--json"],
        stdin=child,
        stdout=subprocess.PIPE,
        stderr=child,
        env=command_environment,
    )
    os.close(child)
    _read_until(parent, "Paste the code here: ")
    os.write(parent, code.encode() + b"\n")
    shown = process.communicate(timeout=20)[0]
    assert (process.returncode, json.loads(shown)["authenticated"]) == (0, True)
    os.close(parent)


@pytest.mark.parametrize("stdin", ["</dev/null", "<&-"], ids=["empty", "closed"])
def test_callback_without_any_code_exits_with_2_and_one_sentence(
    command_environment: dict[str, str], stdin: str
) -> None:
    command = f"{shlex.quote(sys.executable)} -m litellm_oauth.cli callback {stdin}"
    result = subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=command_environment,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("❌ No code was given.")
    assert "Traceback" not in result.stderr


def test_a_database_that_is_away_exits_with_4_soon(claude: Run, database: TestDatabase) -> None:
    database.cut_off()
    began = time.monotonic()
    result = claude("status", "--json")
    assert result.returncode == 4
    assert json.loads(result.stdout)["error"]["code"] == "storage_unavailable"
    assert time.monotonic() - began < 10


def exported(claude: Run, user: str = "default") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(claude("export", "--user", user).stdout)
    return document


def test_an_export_is_one_document_with_a_warning_beside_it_and_a_line_in_the_audit(
    claude: Run, log_in: LogIn, database: TestDatabase
) -> None:
    log_in("alice")
    result = claude("export", "--user", "alice")
    document = json.loads(result.stdout)
    assert result.returncode == 0
    assert list(document) == [
        "userId",
        "accessToken",
        "refreshToken",
        "expiresAt",
        "refreshExpiresAt",
        "scopes",
        "account",
        "clientId",
        "loggedInAt",
    ]
    assert document["expiresAt"] == pytest.approx(time.time() + 28_800, abs=60)
    warning, advice = result.stderr.splitlines()
    assert "can act as alice" in warning
    assert "litellm claude login --user alice --force" in advice
    assert json.loads(claude("export", "--user", "alice", "--json").stdout) == document
    lines = database.query(f"SELECT actor, user_id, outcome FROM {AUDIT} WHERE action = 'export'")
    assert lines == [{"actor": "cli", "user_id": "alice", "outcome": "exported"}] * 2


def test_nothing_is_exported_that_the_audit_does_not_take(
    claude: Run, log_in: LogIn, database: TestDatabase
) -> None:
    log_in()
    with database.server.admin(database.name) as admin:
        admin.execute(f"REVOKE INSERT ON {AUDIT} FROM llmproxy".encode())
        result = claude("export")
        admin.execute(f"GRANT INSERT ON {AUDIT} TO llmproxy".encode())
    assert (result.returncode, result.stdout) == (4, "")
    assert "sk-ant-o" not in result.stderr


def test_an_export_of_nobody_exits_with_1_and_of_an_ended_login_too(
    claude: Run, log_in: LogIn, sandbox: SandboxProvider
) -> None:
    nobody = claude("export")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "default is not logged in" in nobody.stderr
    log_in()
    sandbox.revoke()
    claude("refresh", "--force")
    ended = claude("export")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "no longer accepts the login of default" in ended.stderr


@pytest.mark.parametrize("way", ["stdin", "-", "file"])
def test_an_export_is_imported_through_a_pipe_or_a_file(
    claude: Run, log_in: LogIn, tmp_path: Path, way: str
) -> None:
    log_in("alice")
    document = claude("export", "--user", "alice").stdout
    claude("logout", "--user", "default")
    file = tmp_path / "login.json"
    file.write_text(document)
    words = {"stdin": [], "-": ["-"], "file": [str(file)]}[way]
    result = claude("import", *words, "--user", "bob", stdin="" if way == "file" else document)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("✅ bob is logged in with the imported tokens.\n")
    assert "   • Account: " in result.stdout
    moved = exported(claude, "bob")
    assert {**moved, "userId": "alice"} == json.loads(document)
    assert "was refreshed" in claude("refresh", "--force", "--user", "bob").stdout


def test_an_import_says_when_nothing_can_prolong_the_login(claude: Run) -> None:
    document = {"accessToken": "fake-access-token", "expiresAt": time.time() + 600}
    result = claude("import", stdin=json.dumps(document))
    assert "came without a refresh token" in result.stdout
    other = {**document, "refreshToken": "fake-refresh-token", "clientId": "somebody-elses-client"}
    result = claude("import", "--force", stdin=json.dumps(other))
    assert "made with the client somebody-elses-client" in result.stdout
    assert "came without" not in result.stdout


def test_a_login_that_works_is_replaced_by_force_only(claude: Run, log_in: LogIn) -> None:
    log_in()
    document = json.dumps({**exported(claude), "scopes": ["fake:scope"]})
    refused = claude("import", stdin=document)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("❌ default is logged in already")
    assert "Start a login" not in refused.stderr
    as_json = json.loads(claude("import", "--json", stdin=document).stdout)
    assert as_json["error"]["code"] == "already_logged_in"
    status = json.loads(claude("import", "--json", "--force", stdin=document).stdout)
    assert (status["generation"], status["scopes"], status["authenticated"]) == (2, ["fake:scope"], True)


def test_another_users_login_is_imported_for_whoever_is_named_only(claude: Run) -> None:
    document = json.dumps({"userId": "alice", "accessToken": "fake-token", "expiresAt": time.time() + 600})
    for environ in ({}, {"USER_ID": "bob"}):
        refused = claude("import", stdin=document, **environ)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "The login is of alice" in refused.stderr
    assert claude("import", stdin=document, USER_ID="alice").returncode == 0
    assert claude("import", "--user", "bob", stdin=document).returncode == 0
    users = json.loads(claude("users", "--json").stdout)["users"]
    assert [user["user_id"] for user in users] == ["alice", "bob"]


@pytest.mark.parametrize(
    ("words", "stdin", "sentence"),
    [
        ([], "", "That is no JSON."),
        ([], '{"error": {"message": "x"}}', "holds no accessToken"),
        ([], '{"accessToken": "fake\\ntoken", "expiresAt": 4000000000}', "accessToken holds what no access"),
        ([], '{"accessToken": "fake-token", "expiresAt": 1}', "has expired, and there is no refresh token"),
        ([], " " * 2_000_000, "is longer than"),
        (["/nowhere/login.json"], "", "/nowhere/login.json cannot be read: No such file"),
        (["/"], "", "/ cannot be read: Is a directory"),
    ],
)
def test_what_is_no_login_exits_with_2_and_one_sentence(
    claude: Run, words: list[str], stdin: str, sentence: str
) -> None:
    result = claude("import", *words, stdin=stdin)
    assert (result.returncode, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert json.loads(claude("users", "--json").stdout)["users"] == []


def test_an_import_on_a_terminal_says_what_it_waits_for(command_environment: dict[str, str]) -> None:
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "litellm_oauth.cli", "import"],
        stdin=child,
        stdout=child,
        stderr=child,
        env=command_environment,
    )
    os.close(child)
    _read_until(parent, "Paste the document")
    document = {"accessToken": "fake-access-token", "expiresAt": time.time() + 600}
    os.write(parent, json.dumps(document).encode() + b"\n\x04")
    _read_until(parent, "default is logged in with the imported tokens")
    assert process.wait(10) == 0
    os.close(parent)


def test_without_the_database_nothing_is_exported_or_imported(
    claude: Run, log_in: LogIn, database: TestDatabase
) -> None:
    log_in()
    document = claude("export").stdout
    database.cut_off()
    for words in (["export"], ["import", "--force"], ["users"]):
        result = claude(*words, stdin=document)
        assert (result.returncode, result.stdout) == (4, "")
        assert "sk-ant-o" not in result.stderr


async def test_status_and_users_say_the_same_as_the_http_routes(claude: Run, gateway: Gateway) -> None:
    assert (await gateway.log_in("sk-alice", "alice")).status_code == 200
    status = json.loads((await asyncio.to_thread(claude, "status", "--user", "alice", "--json")).stdout)
    users = json.loads((await asyncio.to_thread(claude, "users", "--json")).stdout)
    table = (await asyncio.to_thread(claude, "users")).stdout
    answers = [
        status,
        (await gateway.call("sk-alice", "GET", "/status")).json(),
        *users.pop("users"),
        *(await gateway.call("sk-master", "GET", "/users")).json()["users"],
    ]
    # The one thing that goes on by itself.
    left = [answer.pop("expires_in") for answer in answers]
    assert max(left) - min(left) < 30
    assert answers == [answers[0]] * 4
    assert status["expires_at"] is not None
    assert users == {"next": None}
    head, line = table.splitlines()
    assert head.split() == ["USER", "STATUS", "VALID", "FOR", "ACCOUNT", "OR", "LAST", "ERROR"]
    assert line.startswith("alice  active           7 h 59 min    alice@sandbox.example")


@pytest.mark.parametrize(
    "stdin", [subprocess.PIPE, subprocess.DEVNULL, None], ids=["open", "empty", "closed"]
)
def test_a_login_without_a_terminal_waits_for_nobody(
    command_environment: dict[str, str], stdin: int | None
) -> None:
    """The pipe stays open and silent; what is closed at the start is not even there."""
    command = f"exec {shlex.quote(sys.executable)} -m litellm_oauth.cli login"
    process = subprocess.Popen(
        ["sh", "-c", command if stdin is not None else f"{command} <&-"],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=command_environment,
    )
    assert process.wait(30) == 0
    assert process.stdout is not None
    assert url_in(process.stdout.read())
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


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
