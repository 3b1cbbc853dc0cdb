"""``litellm claude`` is ours although the script is LiteLLM's, and LiteLLM is not imported for it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from litellm_oauth.launcher import is_ours

ROOT = Path(__file__).resolve().parents[2]

# What pip writes for LiteLLM's entry point.
SCRIPT = """\
#!{python}
import sys
from litellm import run_server
if __name__ == "__main__":
    sys.exit(run_server())
"""
FAKE_LITELLM = """\
print("LITELLM WAS IMPORTED")
def run_server():
    print("THE SERVER RAN")
"""


class Machine:
    """A virtual environment with a stand-in for LiteLLM and our wheel's files beside it."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.bin = folder / "bin"
        self.site = next((folder / "lib").glob("python3*/site-packages"))
        (self.site / "paths.pth").write_text(f"{ROOT / 'src'}\n{sysconfig.get_path('purelib')}\n")
        # Named to come after paths.pth, as both are read in the order of their names.
        self.install(ROOT / "src/compat/litellm_oauth.pth", "zz_litellm_oauth.pth")
        self.install_litellm()
        for name in ("claude_oauth_cli.py", "claude_oauth_flow.py"):
            self.install(ROOT / "src/compat" / name, f"litellm/proxy/auth/{name}")

    def install(self, source: Path, name: str) -> None:
        target = self.site / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())

    def install_litellm(self) -> None:
        for package in ("litellm", "litellm/proxy"):
            (self.site / package).mkdir(exist_ok=True)
            (self.site / package / "__init__.py").write_text(FAKE_LITELLM)
        script = self.bin / "litellm"
        script.write_text(SCRIPT.format(python=self.bin / "python"))
        script.chmod(0o755)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


@pytest.mark.parametrize(
    "command",
    [("litellm", "claude", "--help"), ("python", "-m", "litellm.proxy.auth.claude_oauth_cli", "--help")],
)
def test_our_commands_answer_without_importing_litellm(machine: Machine, command: tuple[str, ...]) -> None:
    result = machine.run(*command)
    assert result.returncode == 0, result.stderr
    assert "usage: litellm claude" in result.stdout
    assert "LITELLM WAS IMPORTED" not in result.stdout


@pytest.mark.parametrize(
    "command",
    [("litellm", "claude", "nonsense"), ("python", "-m", "litellm.proxy.auth.claude_oauth_cli", "nonsense")],
)
def test_the_exit_code_reaches_the_shell(machine: Machine, command: tuple[str, ...]) -> None:
    assert machine.run(*command).returncode == 2


def test_the_server_is_left_alone(machine: Machine) -> None:
    result = machine.run("litellm", "--config", "claude")
    assert "LITELLM WAS IMPORTED" in result.stdout
    assert "THE SERVER RAN" in result.stdout


def test_our_command_survives_a_reinstall_of_litellm(machine: Machine) -> None:
    (machine.bin / "litellm").unlink()
    machine.install_litellm()
    assert "usage: litellm claude" in machine.run("litellm", "claude", "--help").stdout


def test_programs_that_import_litellm_get_the_real_one(machine: Machine) -> None:
    result = machine.run("python", "-c", "import litellm", "claude")
    assert "LITELLM WAS IMPORTED" in result.stdout


@pytest.mark.parametrize(
    ("argv", "orig_argv", "ours"),
    [
        (["/opt/bin/litellm", "claude", "status"], [], True),
        (["/opt/bin/litellm", "--config", "claude"], [], False),
        (["/opt/bin/other", "claude"], [], False),
        (
            ["-m", "status"],
            ["python", "-X", "dev", "-m", "litellm.proxy.auth.claude_oauth_cli", "status"],
            True,
        ),
        (["-m", "claude"], ["python", "-m", "litellm", "claude"], False),
        (["-c", "claude"], ["python", "-c", "x", "claude"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_only_our_command_lines_are_taken(argv: list[str], orig_argv: list[str], ours: bool) -> None:
    assert is_ours(argv, orig_argv) is ours


def test_the_wheel_brings_every_file_that_the_launcher_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert [source for source in included if not (ROOT / source).exists()] == []
    assert set(included.values()) >= {
        "litellm_oauth.pth",
        "litellm/proxy/auth/claude_oauth_cli.py",
        "litellm/proxy/auth/claude_oauth_flow.py",
        "litellm_oauth/migrations",
    }


def test_the_pth_file_does_nothing_but_call_the_launcher() -> None:
    line = (ROOT / "src/compat/litellm_oauth.pth").read_text().strip()
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{line}\nimport sys\nprint(len([m for m in sys.modules if m[:4] == 'http']))",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    assert result.stdout.strip() == "0"
