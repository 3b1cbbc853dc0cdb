"""oauth_schedule.yml puts the refresh on a schedule, changes it, takes it away; its script does its part.

The playbook is the real one, its folders are temporary, and neither cron nor systemd is started. Where the
question is not how a refresh goes but how its end is told, another command stands in for ansible-playbook.
"""

from __future__ import annotations

import configparser
import fcntl
import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import pytest

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("systemd", "cron")
ACCOUNT = "nobody"  # whose schedule the script's tests run: another account than root, which starts them
LIMIT = 3  # seconds until a run that hangs is ended

Result = subprocess.CompletedProcess[str]
Snapshot = dict[str, str]


@dataclass(frozen=True, slots=True)
class Folders:
    """Where one schedule lies. None is made before the playbook runs: a bare host may lack /etc/cron.d."""

    root: Path

    @property
    def script(self) -> Path:
        return self.root / "bin/litellm-oauth-refresh"

    @property
    def log(self) -> Path:
        return self.root / "litellm-oauth-log/refresh.log"

    @property
    def status(self) -> Path:
        return self.root / "litellm-oauth-state/refresh.status"

    @property
    def lock(self) -> Path:
        return self.root / "litellm-oauth-state/refresh.lock"

    @property
    def begun(self) -> Path:
        return self.root / "litellm-oauth-state/refresh.begun"

    def play(
        self,
        variables: dict[str, Any],
        *arguments: str,
        kit: Path = ROOT,
        inventory: str = "inventories/sandbox",
        **environment: str,
    ) -> Result:
        folders = {"bin": "bin", "units": "units", "cron": "cron.d"}
        own = {"log": "litellm-oauth-log", "state": "litellm-oauth-state"}
        extra = {f"schedule_{name}": f"{self.root}/{path}" for name, path in (folders | own).items()}
        # the checkout may be another account's than root's, which runs these tests
        if ROOT.owner() != pwd.getpwuid(os.getuid()).pw_name:
            extra["schedule_user"] = ROOT.owner()
        command = ["ansible-playbook", "playbooks/oauth_schedule.yml", "--inventory", inventory]
        return subprocess.run(
            [
                *command,
                *arguments,
                "--extra-vars",
                json.dumps({**extra, "schedule_start": False, **variables}),
            ],
            cwd=kit,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def snapshot(self) -> Snapshot:
        """Every file with its text."""
        return {
            str(file.relative_to(self.root)): file.read_text()
            for file in sorted(self.root.rglob("*"))
            if file.is_file()
        }


def changed(result: Result) -> int:
    assert result.returncode == 0, result.stdout + result.stderr
    return int(re.findall(r"changed=(\d+)", result.stdout)[-1])


def said(result: Result) -> str:
    """One line of what a playbook printed."""
    return " ".join((result.stdout + result.stderr).split())


# --- The runs of the playbook, and what stands in for a refresh

# Says how it was run, and ends as the file `mode` beside it says.
COMMAND = """#!/bin/sh
folder=$(dirname "$0")
{ pwd; printf '%s\\n' "$@"; } >"$folder/arguments"
env >"$folder/environment"
id -un >"$folder/account"
ls "/proc/$$/fd" >"$folder/open"
flock --nonblock "@LOCK@" true && echo free >"$folder/lock" || echo held >"$folder/lock"
echo "a line of the command"
case $(cat "$folder/mode") in
  ok) exit 0 ;;
  failed) exit 2 ;;
  hangs) sleep 600 & echo $! >"$folder/child"; wait ;;
  # what `systemctl stop` does to all of a unit: to the script, which started timeout, which started this
  stopped) kill -TERM "$(cut -d ' ' -f 4 "/proc/$PPID/stat")"; exit 143 ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """A schedule of a command that stands in for ansible-playbook, in a kit whose path no shell may split."""

    folders: Folders
    kit: Path
    made: Result

    @property
    def beside(self) -> Path:
        return self.folders.root / "command"

    def run(self, mode: str, *arguments: str, **environment: str) -> Result:
        for name in ("arguments", "environment", "account", "open", "lock", "child"):
            (self.beside / name).unlink(missing_ok=True)
        (self.beside / "mode").write_text(mode)
        return subprocess.run(
            [self.folders.script, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def saw(self, name: str) -> list[str]:
        """What the command saw; nothing if it was not run."""
        file = self.beside / name
        return file.read_text().splitlines() if file.exists() else []

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.folders.status.read_text())
        return status

    def log(self) -> str:
        return self.folders.log.read_text()


def copy_kit(kit: Path) -> Path:
    """What the playbook needs of the repository, where it can be moved and opened."""
    for folder in ("playbooks", "inventories", "library"):
        shutil.copytree(ROOT / folder, kit / folder)
    for file in ("ansible.cfg", "oauth_refresh.yml"):
        shutil.copy(ROOT / file, kit / file)
    return kit


def install(root: Path) -> Installed:
    kit = copy_kit(root / "it's the kit, 100% of it")
    (kit / "vault password").write_text("not used: nothing here is vaulted")
    folders = Folders(root)
    command = root / "command/ansible-playbook"
    command.parent.mkdir()
    shutil.chown(command.parent, ACCOUNT)
    command.write_text(COMMAND.replace("@LOCK@", str(folders.lock)))
    command.chmod(0o755)
    variables = {
        "schedule_user": ACCOUNT,
        "schedule_command": str(command),
        "schedule_limit": LIMIT,
        "schedule_kind": "cron",
    }
    made = folders.play(variables, kit=kit, ANSIBLE_VAULT_PASSWORD_FILE="vault password")
    return Installed(folders, kit, made)


@pytest.fixture
def schedule(runs: Runs) -> Installed:
    """As it is after its installation: nothing has run yet."""
    installed = runs.installed.result()
    assert installed.made.returncode == 0, installed.made.stdout + installed.made.stderr
    for file in (*installed.folders.log.parent.iterdir(), *installed.folders.status.parent.iterdir()):
        file.unlink()
    return installed


@dataclass(slots=True)
class Life:
    """One schedule from a clean host to nothing left: each step's result, and the files after it."""

    folders: Folders
    steps: dict[str, tuple[Result, Snapshot]] = field(default_factory=dict)
    verified: Result | None = None

    def step(self, name: str, variables: dict[str, Any], *arguments: str) -> None:
        result = self.folders.play(variables, *arguments)
        self.steps[name] = (result, self.folders.snapshot())


def live(kind: str, root: Path) -> Life:
    life = Life(Folders(root))
    wanted = {"schedule_kind": kind}
    life.step("checked", wanted, "--check")
    life.step("installed", wanted)
    if kind == "systemd" and shutil.which("systemd-analyze"):
        units = [str(root / f"units/litellm-oauth-refresh.{suffix}") for suffix in ("service", "timer")]
        life.verified = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *units],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    life.step("repeated", wanted)
    if kind == "systemd":
        # an interval that no cron field can say
        life.step("slower", {**wanted, "interval_minutes": 45})
        life.step("in cron", {"schedule_kind": "cron", "interval_minutes": 45})
    life.folders.status.write_text("{}")  # what a run leaves
    life.folders.log.write_text("")
    life.step("removed", {**wanted, "state": "absent"})
    return life


FAULTS: list[tuple[int, str, Any, str]] = [
    # the run, the variable, a wrong value, and what the sentence says of it
    (0, "interval_minutes", 0, "interval_minutes: give whole minutes from 1 to 1440"),
    (0, "state", "maybe", "state: say present or absent"),
    (0, "schedule_name", "../refresh", "schedule_name: use up to 40 small letters, digits and -"),
    (0, "schedule_kind", "at", "schedule_kind: say systemd or cron"),
    (1, "interval_minutes", "5000", "interval_minutes: give whole minutes from 1 to 1440"),
    (1, "schedule_name", "a/b", "schedule_name: use up to 40 small letters, digits and -"),
    (1, "schedule_user", "no-such-account", "schedule_user: name an account that this host has"),
    (1, "schedule_log", "/var/log", "/var/log: give absolute paths"),
    (1, "schedule_limit", 0, "schedule_limit: give seconds"),
    (2, "interval_minutes", "abc", "interval_minutes: give whole minutes from 1 to 1440"),
    (2, "min_validity", "1h", "min_validity: give seconds from 0 to 31622400"),
    (2, "schedule_name", "refresh\n", "schedule_name: use up to 40 small letters, digits and -"),
    (2, "schedule_bin", "/usr/local/50% bin", "/usr/local/50% bin"),
    (2, "schedule_state", "/var/lib/litellm-oauth/..", "/var/lib/litellm-oauth/.."),
    (1, "the kit", None, "everybody can write to this folder"),
    (2, "the inventory", None, "inventory: it has no host in the group gateway"),
    (2, "schedule_command", "/nowhere/ansible-playbook", "ansible-playbook: there is none"),
]


def refuse(run: int, root: Path) -> tuple[Result, Snapshot]:
    kit, folders = copy_kit(root / "kit"), Folders(root / "schedule")
    if run == 1:
        kit.chmod(0o777)
    result = folders.play(
        {name: value for number, name, value, _ in FAULTS if number == run and value is not None},
        kit=kit,
        inventory="elsewhere.example.com," if run == 2 else "inventories/sandbox",
    )
    return result, folders.snapshot()


@dataclass(frozen=True, slots=True)
class Runs:
    """All runs of the playbook that these tests look at, two at a time: each takes some seconds."""

    lives: dict[str, Future[Life]]
    refused: list[Future[tuple[Result, Snapshot]]]
    installed: Future[Installed]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    # not in pytest's own folder, which is closed to other accounts
    public = Path(tempfile.mkdtemp(prefix="schedule-"))
    public.chmod(0o755)
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield Runs(
            # the first, since the tests begin with it
            installed=pool.submit(install, public),
            lives={kind: pool.submit(live, kind, tmp_path_factory.mktemp(kind)) for kind in KINDS},
            refused=[pool.submit(refuse, run, tmp_path_factory.mktemp("refused")) for run in range(3)],
        )
        pool.shutdown(cancel_futures=True)  # who asked for a few tests does not wait for the rest
    shutil.rmtree(public)


@pytest.fixture(scope="module", params=KINDS)
def life(request: pytest.FixtureRequest, runs: Runs) -> Life:
    return runs.lives[request.param].result()


@pytest.fixture(scope="module")
def units(runs: Runs) -> Snapshot:
    return runs.lives["systemd"].result().steps["slower"][1]


@pytest.fixture(scope="module")
def refused(runs: Runs) -> list[tuple[Result, Snapshot]]:
    return [run.result() for run in runs.refused]


# --- The script, while the playbook still runs


def test_a_good_run_is_told_in_the_status_file_the_log_and_the_exit_code(schedule: Installed) -> None:
    earliest = datetime.now(UTC).replace(microsecond=0)
    result = schedule.run("ok")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"the refresh ended: ok (exit code 0); see {schedule.folders.log}\n" == result.stdout
    status = schedule.status()
    started, finished = (datetime.fromisoformat(status.pop(name)) for name in ("started_at", "finished_at"))
    assert earliest <= started <= finished <= datetime.now(UTC)
    assert status == {"exit_code": 0, "result": "ok", "log": str(schedule.folders.log)}
    lines = [re.sub(r"^\S+Z ", "", line) for line in schedule.log().splitlines()]
    assert lines == ["the refresh begins", "a line of the command", "the refresh ended: ok (exit code 0)"]


def test_a_failed_run_keeps_its_exit_code_and_speaks_up(schedule: Installed) -> None:
    result = schedule.run("failed")
    assert result.returncode == 2
    # cron throws the output away and mails what went wrong
    assert (result.stdout, "failed (exit code 2)" in result.stderr) == ("", True)
    assert (schedule.status()["exit_code"], schedule.status()["result"]) == (2, "failed")


def test_a_run_that_hangs_is_ended_with_all_it_started(schedule: Installed) -> None:
    began = time.monotonic()
    result = schedule.run("hangs")
    assert time.monotonic() - began < LIMIT + 10
    assert result.returncode == 124
    assert schedule.status()["result"] == "timed out"
    (child,) = schedule.saw("child")
    assert not Path(f"/proc/{child}/cmdline").exists() or not Path(f"/proc/{child}/cmdline").read_bytes()


def test_a_run_that_is_stopped_still_says_how_it_ended(schedule: Installed) -> None:
    assert schedule.run("stopped").returncode == 143
    assert (schedule.status()["exit_code"], schedule.status()["result"]) == (143, "failed")


def test_a_kit_that_has_moved_is_told_with_the_mend(schedule: Installed) -> None:
    elsewhere = schedule.kit.rename(schedule.kit.with_name("elsewhere"))
    result = schedule.run("ok")
    elsewhere.rename(schedule.kit)
    assert result.returncode == 127
    assert "run playbooks/oauth_schedule.yml from where the kit is now" in schedule.log()
    assert schedule.status()["exit_code"] == 127


def test_a_second_run_at_the_same_time_does_nothing(schedule: Installed) -> None:
    assert schedule.run("ok").returncode == 0
    assert schedule.saw("lock") == ["held"]
    assert "9" not in schedule.saw("open"), "what outlives the run would keep the lock"
    schedule.folders.status.unlink()
    with schedule.folders.lock.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = schedule.run("ok")
    assert result.returncode == 0
    assert schedule.saw("arguments") == []
    assert "another run is at work; nothing was done" in schedule.log()
    assert not schedule.folders.status.exists()


def test_the_refresh_gets_the_kit_the_inventory_and_who_is_due(schedule: Installed) -> None:
    schedule.run("ok")
    inventory = str(schedule.kit / "inventories/sandbox")  # it was given relative
    assert schedule.saw("arguments") == [
        str(schedule.kit),
        *("--inventory", inventory),
        *("oauth_refresh.yml", "--extra-vars", "min_validity=2280"),
    ]


def test_the_environment_is_the_same_whoever_starts_it(schedule: Installed) -> None:
    schedule.run("ok", ANSIBLE_INVENTORY="/else", ANSIBLE_STDOUT_CALLBACK="json", SOME_TOKEN="sk-secret")
    environment = dict(line.split("=", 1) for line in schedule.saw("environment"))
    assert "sk-secret" not in environment.values()
    assert not {"ANSIBLE_INVENTORY", "ANSIBLE_STDOUT_CALLBACK"} & set(environment)
    assert environment["HOME"] == pwd.getpwnam(ACCOUNT).pw_dir
    assert environment["LC_ALL"] == "C.UTF-8"
    assert environment["ANSIBLE_CONFIG"] == str(schedule.kit / "ansible.cfg")
    assert environment["ANSIBLE_VAULT_PASSWORD_FILE"] == str(schedule.kit / "vault password")


def test_root_runs_it_as_its_account(schedule: Installed) -> None:
    schedule.run("ok")
    assert schedule.saw("account") == [ACCOUNT]
    assert {file.owner() for file in (schedule.folders.log, schedule.folders.lock)} == {ACCOUNT}


def test_everybody_reads_the_result_but_not_the_log_and_nobody_holds_the_lock(schedule: Installed) -> None:
    """Whoever can open the lock, if only for reading, can keep every refresh from running."""
    schedule.run("ok", "0", "2250")
    modes = {file.name: file.stat().st_mode & 0o777 for file in schedule.folders.status.parent.iterdir()}
    assert modes == {"refresh.status": 0o644, "refresh.lock": 0o600, "refresh.begun": 0o600}
    assert schedule.folders.log.stat().st_mode & 0o777 == 0o600


def test_another_account_is_told_how_to_run_it(schedule: Installed) -> None:
    command = [str(schedule.folders.script)]
    result = subprocess.run(command, user="daemon", capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert f"This runs as {ACCOUNT}: sudo {schedule.folders.script}" in result.stderr
    assert not schedule.folders.status.exists()


def test_what_another_account_has_left_locks_nobody_out(schedule: Installed) -> None:
    for file in (schedule.folders.log, schedule.folders.lock, schedule.folders.begun):
        file.touch(0o600)  # root's
    result = schedule.run("ok", "0", "2250")
    assert (result.returncode, result.stderr) == (0, "")
    assert schedule.folders.log.owner() == ACCOUNT
    assert schedule.status()["exit_code"] == 0


def test_a_full_log_stops_no_refresh(schedule: Installed) -> None:
    schedule.folders.log.symlink_to("/dev/full")
    result = schedule.run("ok")
    assert (result.returncode, schedule.status()["exit_code"]) == (0, 0)
    assert "a line of the command" in result.stderr


def test_a_large_log_is_put_aside(schedule: Installed) -> None:
    schedule.run("ok")
    before = schedule.log()
    with schedule.folders.log.open("a") as log:
        log.truncate(5_000_001)
    schedule.run("ok")
    older = schedule.folders.log.with_name("refresh.log.1")
    assert older.read_text().startswith(before)
    assert len(schedule.log().splitlines()) == 3


@pytest.mark.parametrize(
    ("minutes_ago", "runs_now"),
    [
        pytest.param(None, True, id="the first"),
        pytest.param(30, False, id="too early"),
        pytest.param(45, True, id="its time"),
        pytest.param(-600, True, id="a clock that was wrong"),
    ],
)
def test_what_comes_too_early_is_left_out(
    schedule: Installed, minutes_ago: int | None, runs_now: bool
) -> None:
    if minutes_ago is not None:
        schedule.folders.begun.touch()
        shutil.chown(schedule.folders.begun, ACCOUNT)
        os.utime(schedule.folders.begun, (time.time() - 60 * minutes_ago,) * 2)
    assert schedule.run("ok", "0", "2250").returncode == 0
    assert bool(schedule.saw("arguments")) is runs_now
    if runs_now:
        assert abs(schedule.folders.begun.stat().st_mtime - time.time()) < 30


def test_a_run_by_hand_moves_no_schedule(schedule: Installed) -> None:
    schedule.run("ok")
    assert not schedule.folders.begun.exists()


def test_the_jitter_comes_before_the_lock(schedule: Installed) -> None:
    """A person who runs it by hand meanwhile is not told that another run is at work."""
    with schedule.folders.lock.open("w") as lock:
        shutil.chown(schedule.folders.lock, ACCOUNT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        (schedule.beside / "mode").write_text("ok")
        started = subprocess.Popen([schedule.folders.script, "600"], start_new_session=True)
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                started.wait(0.5)
        finally:
            os.killpg(started.pid, 15)
            started.wait(10)
    assert not schedule.folders.log.exists()


# --- What the playbook makes, changes and removes


def test_check_mode_predicts_on_a_clean_host_and_changes_nothing(life: Life) -> None:
    result, files = life.steps["checked"]
    assert changed(result) > 0
    assert files == {}
    assert "In a real run: every 30 min" in said(result)
    assert list(life.folders.root.rglob("litellm-oauth-*")) == []


def test_the_files_of_its_kind_are_made_and_no_others(runs: Runs) -> None:
    made = {kind: set(life.result().steps["installed"][1]) for kind, life in runs.lives.items()}
    script, unit = "bin/litellm-oauth-refresh", "units/litellm-oauth-refresh"
    assert made["systemd"] == {script, f"{unit}.service", f"{unit}.timer"}
    assert made["cron"] == {script, "cron.d/litellm-oauth-refresh"}


def test_a_second_run_changes_nothing(life: Life) -> None:
    assert changed(life.steps["installed"][0]) > 0
    assert changed(life.steps["repeated"][0]) == 0
    assert life.steps["repeated"][1] == life.steps["installed"][1]


def test_another_interval_changes_when_it_runs_and_who_is_due(runs: Runs) -> None:
    steps = runs.lives["systemd"].result().steps
    (result, files), (_, before) = steps["slower"], steps["repeated"]
    script, timer = "bin/litellm-oauth-refresh", "units/litellm-oauth-refresh.timer"
    assert changed(result) == 1
    assert {name for name in files if files[name] != before[name]} == {script, timer}
    assert "min_validity=2280 " in before[script]  # 30 min, 3 min of jitter, 5 to spare
    assert "min_validity=3270 " in files[script]


def test_another_kind_leaves_nothing_of_the_one_before(runs: Runs) -> None:
    _, files = runs.lives["systemd"].result().steps["in cron"]
    assert set(files) == {"bin/litellm-oauth-refresh", "cron.d/litellm-oauth-refresh"}


def test_absent_takes_all_of_it_away(life: Life) -> None:
    result, files = life.steps["removed"]
    assert changed(result) == 1
    assert files == {}
    assert not life.folders.log.parent.exists()
    assert not life.folders.status.parent.exists()


@pytest.mark.parametrize(
    ("run", "message"), [pytest.param(run, text, id=f"{n}-{run}") for run, n, _, text in FAULTS]
)
def test_a_wrong_option_is_refused_in_a_sentence(
    refused: list[tuple[Result, Snapshot]], run: int, message: str
) -> None:
    assert message in said(refused[run][0])


def test_nothing_is_written_if_an_option_is_wrong(refused: list[tuple[Result, Snapshot]]) -> None:
    for result, files in refused:
        assert result.returncode != 0
        assert "Nothing was done." in said(result)
        assert "changed=0" in result.stdout
        assert files == {}


# --- What a run would read or execute

# In a kit of its own: what is done to it, and the path that is named then.
DOORS: list[tuple[str, int, str | None]] = [
    # path below the kit, mode, owner
    (".", 0o755, ACCOUNT),
    ("ansible.cfg", 0o666, None),
    ("playbooks/oauth_refresh.yml", 0o644, ACCOUNT),
    ("inventories/sandbox/group_vars/all/main.yml", 0o646, None),
    ("inventories/group_vars/all.yml", 0o666, None),
    ("group_vars/all.yml", 0o666, None),
    ("roles/one/tasks/main.yml", 0o666, None),
    ("library/one.py", 0o666, None),
    ("module_utils/one.py", 0o666, None),
    ("lookup_plugins/one.py", 0o666, None),
    ("action_plugins/one.py", 0o666, None),
    ("vault-password", 0o666, None),
    ("venv/lib/python3/site-packages/ansible/one.py", 0o666, None),
    ("venv/bin/ansible-playbook", 0o777, None),
]


@pytest.mark.parametrize("arguments", [["--check"], []], ids=["check mode", "real"])
def test_what_another_account_can_change_is_refused_before_anything_is_installed(
    tmp_path: Path, arguments: list[str]
) -> None:
    folders, kit = Folders(tmp_path / "schedule"), copy_kit(tmp_path / "kit")
    for path, mode, owner in DOORS:
        file = kit / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if path != ".":
            file.write_text(f"{file.read_text() if file.exists() else ''}# not empty\n")
        file.chmod(mode)
        if owner:
            shutil.chown(file, owner)
    (kit / "venv/pyvenv.cfg").touch()
    command = kit / "venv/bin/ansible-playbook"
    result = folders.play(
        {"schedule_user": "root", "schedule_command": str(command)},
        *arguments,
        "-v",
        kit=kit,
        ANSIBLE_VAULT_PASSWORD_FILE=str(kit / "vault-password"),
    )
    assert result.returncode != 0
    told = said(result)
    assert "Nothing was done: other accounts than root can change what is run. Mend this:" in told
    (listed,) = re.findall(r"refused:\n((?: +- .*\n)+)", result.stdout)
    refused = {line.strip().removeprefix("- ") for line in listed.splitlines()}
    assert refused == {str(kit / path) if path != "." else str(kit) for path, _, _ in DOORS}
    assert f"{kit} (owner {ACCOUNT}, group root, mode 0755): chown -h root {kit}" in told
    assert "changed=0" in result.stdout
    assert folders.snapshot() == {}


def test_a_schedule_is_taken_away_whoever_can_change_the_kit(tmp_path: Path) -> None:
    folders, kit = Folders(tmp_path / "schedule"), copy_kit(tmp_path / "kit")
    kit.chmod(0o777)
    assert folders.play({"state": "absent"}, kit=kit).returncode == 0


def test_a_folder_that_others_can_put_the_script_in_is_refused(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "schedule")
    folders.script.parent.mkdir(parents=True)
    folders.script.parent.chmod(0o777)
    result = folders.play({})
    assert f"{folders.script.parent} (owner root, group root, mode 0777): chmod o-w" in said(result)
    assert folders.snapshot() == {}


# --- What systemd and cron read


def test_systemd_finds_no_fault_in_the_units(runs: Runs) -> None:
    verified = runs.lives["systemd"].result().verified
    if verified is None:
        pytest.skip("there is no systemd-analyze here; the tests below read the units")
    about_ours = [line for line in verified.stderr.splitlines() if "litellm-oauth" in line]
    assert (verified.returncode, about_ours) == (0, [])


def read_unit(text: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None, delimiters=["="])
    unit.optionxform = str  # type: ignore[assignment,method-assign] # systemd tells Exec from exec
    unit.read_string(text)
    return unit


def test_the_service_runs_the_script_once_as_the_account(runs: Runs, units: Snapshot) -> None:
    service = read_unit(units["units/litellm-oauth-refresh.service"])["Service"]
    assert service["Type"] == "oneshot"
    assert service["User"] == "root"
    assert service["ExecStart"] == str(runs.lives["systemd"].result().folders.script)
    # the script ends what hangs, and says so; systemd would end the script too
    assert int(service["TimeoutStartSec"]) > 1800 + 30


def test_the_timer_repeats_and_makes_up_for_missed_runs(units: Snapshot) -> None:
    unit = read_unit(units["units/litellm-oauth-refresh.timer"])
    assert unit["Timer"]["OnActiveSec"] == "1min"
    assert unit["Timer"]["OnUnitActiveSec"] == "45min"
    assert unit["Timer"]["RandomizedDelaySec"] == "270"
    assert unit["Install"]["WantedBy"] == "timers.target"


def cron_line(text: str) -> list[str]:
    assert text.endswith("\n"), "cron ignores a last line that does not end"
    (line,) = [line for line in text.splitlines() if re.match(r"[0-9*]", line)]
    assert "%" not in line, "cron reads it as the end of the line"
    return line.split()


@pytest.mark.parametrize(
    ("kind", "step", "minutes", "options"),
    [
        pytest.param("cron", "installed", "*/30", ["180"], id="30 minutes"),
        pytest.param("systemd", "in cron", "*/15", ["270", "2250"], id="45 minutes"),
    ],
)
def test_cron_gets_times_account_and_command(
    runs: Runs, kind: str, step: str, minutes: str, options: list[str]
) -> None:
    life = runs.lives[kind].result()
    text = life.steps[step][1]["cron.d/litellm-oauth-refresh"]
    command = [str(life.folders.script), *options, ">/dev/null"]
    assert cron_line(text) == [minutes, *["*"] * 4, "root", *command]


def test_cron_keeps_every_interval_exactly() -> None:
    """Two days of each: cron starts the script, which leaves out what is too early."""
    template = ROOT / "playbooks/templates/oauth_schedule/refresh.cron.j2"
    cron = jinja2.Environment(keep_trailing_newline=True, trim_blocks=True).from_string(template.read_text())  # noqa: S701
    late = 0.1  # in minutes: cron may be late at one time and not at the next
    for interval in range(1, 1441):
        variables = {"schedule_interval": interval, "schedule_jitter": 0}
        line = cron_line(cron.render(**variables, schedule_user="root", schedule_script="script"))
        step = 60 if line[0] == "0" else int(line[0].removeprefix("*/"))
        assert 60 % step == 0
        not_within = int(line[8]) / 60 if line[8].isdigit() else 0.0
        starts: list[int] = []
        for minute in range(0, 2 * 1440, step):
            waited = minute - starts[-1] if starts else interval
            assert (waited - late > not_within) is (waited + late > not_within)
            if waited > not_within:
                starts.append(minute)
        assert {later - earlier for earlier, later in pairwise(starts)} <= {interval}
