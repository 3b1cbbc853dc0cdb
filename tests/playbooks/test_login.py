"""oauth_login.yml: the code from a prompt, a file or the command line, unevaluated and out of every log."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from support.fixtures import database, migrated_template, postgres_server, sandbox, sandbox_process
from support.live_gateway import MASTER_KEY, LiveGateway, live_gateway
from support.postgres import TestDatabase
from support.sandbox import SandboxProvider
from support.service import Gateways
from support.stranger import Asked, Stranger, login, reply, running

__all__ = ["database", "migrated_template", "postgres_server", "sandbox", "sandbox_process"]

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "Paste here what the page shows"
# No CI service: what this machine sets must not decide whether the playbook asks.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in ("CI", "AWX_ISOLATED_DATA_DIR")
} | {"TERM": "dumb", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}

Command = Callable[..., list[str]]


@pytest.fixture
def gateway(database: TestDatabase, sandbox: SandboxProvider, tmp_path: Path) -> Iterator[LiveGateway]:
    stored = Gateways(database, sandbox, tmp_path)
    with live_gateway(stored.settings(), stored.sandbox) as live:
        yield live


def command_for(url: str, tmp_path: Path, *arguments: str) -> list[str]:
    key = tmp_path / "key"
    key.write_text(MASTER_KEY)
    extra = {"user": "alice", "litellm_oauth_gateway_url": url, "litellm_oauth_api_key_file": str(key)}
    return ["ansible-playbook", "oauth_login.yml", "--extra-vars", json.dumps(extra), *arguments]


@pytest.fixture
def command(gateway: LiveGateway, tmp_path: Path) -> Command:
    return lambda *arguments: command_for(gateway.url, tmp_path, *arguments)


def terminal(command: list[str], **environment: str) -> pexpect.spawn[str]:
    return pexpect.spawn(
        command[0],
        command[1:],
        cwd=ROOT,
        env={**ENVIRONMENT, **environment},
        encoding="utf-8",
        timeout=60,
        dimensions=(50, 4000),
    )


def ended(process: pexpect.spawn[str]) -> tuple[int | None, str]:
    """Exit code and what was shown since the last thing that was expected."""
    process.expect(pexpect.EOF)
    process.close()
    return process.exitstatus, str(process.before)


def url_in(text: str) -> str:
    (url,) = set(re.findall(r"http://\S+/oauth/authorize\?[^\s'\"]+", text))
    return str(url)


def test_a_terminal_is_asked_for_the_code_which_no_log_shows(
    command: Command, gateway: LiveGateway, sandbox: SandboxProvider, tmp_path: Path
) -> None:
    log = tmp_path / "ansible.log"
    process = terminal(command("-vvv"), ANSIBLE_LOG_PATH=str(log))
    process.expect_exact(PROMPT)
    shown = sandbox.approve(url_in(str(process.before)), login_hint="alice")
    process.expect_exact("\n")  # the prompt's own end: the terminal is read from here on
    typed = str(process.before)
    process.send(f"{shown}\r")
    code, after = ended(process)
    assert (code, "alice is logged in." in after) == (0, True), typed + after
    assert gateway.status("alice")["authenticated"]
    # The terminal's echo is all that shows it.
    assert after.count(shown.split("#")[0]) == 1
    assert PROMPT in log.read_text()
    assert shown.split("#")[0] not in log.read_text()


@pytest.mark.parametrize("key", ["\r", "\x03", "\x04"], ids=["Enter", "Ctrl-C", "Ctrl-D"])
def test_a_key_alone_leaves_the_login_started(command: Command, gateway: LiveGateway, key: str) -> None:
    process = terminal(command())
    process.expect_exact(PROMPT)
    process.expect_exact("\n")
    process.send(key)
    code, after = ended(process)
    assert (code, "failed=0" in after) == (0, True), after
    assert gateway.status("alice")["status"] == "logged_out"


def test_a_wrong_code_from_the_terminal_fails_with_the_reason(command: Command) -> None:
    process = terminal(command())
    process.expect_exact(PROMPT)
    process.expect_exact("\n")
    process.send("wrong-code-wrong-code\r")
    code, after = ended(process)
    assert (code, "The provider refused the code" in after, "Traceback" in after) == (2, True, False), after


@pytest.mark.parametrize(
    "stdin", [subprocess.PIPE, subprocess.DEVNULL, None], ids=["open", "empty", "closed"]
)
def test_without_a_terminal_nothing_is_asked(command: Command, stdin: int | None) -> None:
    """The pipe stays open and silent; what is closed at the start is not even there."""
    words = ["sh", "-c", 'exec "$@"' if stdin is not None else 'exec "$@" <&-', "sh", *command()]
    with subprocess.Popen(
        words,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.wait(60) == 0
        assert process.stdout is not None
        assert process.stderr is not None
        output = process.stdout.read()
        told = output + process.stderr.read()
    assert url_in(output)
    assert PROMPT not in told
    assert "not interactive" not in told


def test_output_into_a_pipe_is_not_waited_for(command: Command) -> None:
    parent, child = pty.openpty()
    try:
        result = subprocess.run(
            command(),
            cwd=ROOT,
            env=ENVIRONMENT,
            stdin=child,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(parent)
        os.close(child)
    assert (result.returncode, PROMPT in result.stdout) == (0, False)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        pytest.param([], {"AWX_ISOLATED_DATA_DIR": "/runner/artifacts/1"}, id="AWX"),
        pytest.param([], {"CI": "true"}, id="CI"),
        pytest.param(["--check"], {}, id="check mode"),
    ],
)
def test_a_terminal_that_no_person_reads_is_not_waited_for(
    command: Command, arguments: list[str], environment: dict[str, str]
) -> None:
    code, shown = ended(terminal(command(*arguments), **environment))
    assert (code, PROMPT in shown) == (0, False), shown


# --- What arrives is what was given


@pytest.fixture
def recorder() -> Iterator[Stranger]:
    """A gateway that completes any login, and keeps what it was sent."""
    codes: list[str] = []

    def answer(asked: Asked) -> list[bytes]:
        if asked.path.partition("?")[0].endswith("/exchange"):
            codes.append(json.loads(asked.body)["code"])
            return [reply({"authenticated": True})]
        if asked.path.partition("?")[0].endswith("/start"):
            address = "http://127.0.0.1:9/oauth/authorize?state=x"
            return [reply({"authorization_url": address, "state": "x", "expires_in": 600})]
        known: dict[str, Any] = {"generation": 1 + len(codes), "authenticated": bool(codes)}
        return [reply(login(status="active" if codes else "logged_out", **known))]

    with running(answer) as server:
        yield server


def sent(recorder: Stranger) -> list[str]:
    return [json.loads(asked.body)["code"] for asked in recorder.asked if "/exchange" in asked.path]


ODD = ["{{7*7}}#{{7*7}}", "{%raw%}a'b\"c\\d:e", "-@!&*|>%`#x", "0123456789"]


@pytest.mark.parametrize("code", ODD)
@pytest.mark.parametrize("kind", ["json", "yml"])
def test_a_code_in_a_file_arrives_as_it_was_written(
    recorder: Stranger, tmp_path: Path, kind: str, code: str
) -> None:
    file = tmp_path / f"code.{kind}"
    # YAML with the quotes that the message shows
    file.write_text(
        json.dumps({"code": code}) if kind == "json" else "code: '{}'\n".format(code.replace("'", "''"))
    )
    result = subprocess.run(
        command_for(recorder.url, tmp_path, "--extra-vars", f"@{file}"),
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert sent(recorder) == [code]
    assert code not in result.stdout + result.stderr


@pytest.mark.parametrize("code", ODD)
def test_a_code_from_the_terminal_arrives_as_it_was_typed(
    recorder: Stranger, tmp_path: Path, code: str
) -> None:
    process = terminal(command_for(recorder.url, tmp_path))
    process.expect_exact(PROMPT)
    process.expect_exact("\n")
    process.send(f"{code}\r")
    exit_code, after = ended(process)
    assert exit_code == 0, after
    assert sent(recorder) == [code]


def test_an_expression_from_the_terminal_is_not_evaluated(recorder: Stranger, tmp_path: Path) -> None:
    mark = tmp_path / "evaluated"
    process = terminal(command_for(recorder.url, tmp_path))
    process.expect_exact(PROMPT)
    process.expect_exact("\n")
    process.send(f"{{{{ lookup('pipe', 'touch {mark}') }}}}\r")
    exit_code, after = ended(process)
    assert (exit_code, "No authorization code was found" in after) == (2, True), after
    assert not mark.exists()
    assert sent(recorder) == []
