"""The script that makes secrets on the target, run by a shell in a folder of its own."""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest

ROLE = Path(__file__).resolve().parents[2] / "roles" / "service" / "templates"


def run(folder: Path, *users: str, check: bool = False) -> list[str]:
    """What the script says for one secret, the digests of these users' keys."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(ROLE), trim_blocks=True, autoescape=False)  # noqa: S701 -- a shell script
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    environment.filters["b64encode"] = lambda value: base64.b64encode(value.encode()).decode()
    secret: dict[str, Any] = {
        "owner": "gateway",
        "uid": os.geteuid(),
        "name": "user_keys",
        "kind": "user_keys",
        "users": list(users),
    }
    script = environment.get_template("secrets.sh.j2").render(
        service_directory=str(folder),
        service_secrets=[secret],
        service_data_exists=False,
        ansible_check_mode=check,
    )
    done = subprocess.run(["/bin/sh", "-s"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def keys(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in (folder / "secrets" / "users").iterdir()}


def test_each_user_gets_a_key_once_and_the_gateway_its_digest(tmp_path: Path) -> None:
    assert run(tmp_path, "bob", "alice") == ["changed gateway/user_keys", "version gateway 1"]
    made = keys(tmp_path)
    assert sorted(made) == ["alice", "bob"]
    assert {len(key) for key in made.values()} == {len("sk-") + 64}
    assert len(set(made.values())) == 2
    file = tmp_path / "secrets" / "gateway" / "user_keys"
    assert file.read_text().splitlines() == [
        f"{hashlib.sha256(made[user].encode()).hexdigest()} {user}" for user in ("alice", "bob")
    ]
    modes = {path.stat().st_mode & 0o777 for path in (*(tmp_path / "secrets" / "users").iterdir(), file)}
    assert modes == {0o600}
    assert run(tmp_path, "alice", "bob") == ["version gateway 1"]
    assert keys(tmp_path) == made


def test_who_leaves_the_list_loses_the_key_and_gets_another_one_on_return(tmp_path: Path) -> None:
    run(tmp_path, "alice", "bob")
    before = keys(tmp_path)
    assert run(tmp_path, "bob") == ["changed gateway/user_keys", "version gateway 2"]
    assert keys(tmp_path) == {"bob": before["bob"]}
    run(tmp_path, "alice", "bob")
    assert keys(tmp_path)["alice"] != before["alice"]
    run(tmp_path)
    assert keys(tmp_path) == {}


@pytest.mark.parametrize("users", [["alice"], ["alice", "bob", "carol"], [], ["alice", "carol"]])
def test_check_mode_foretells_the_change_and_makes_none(tmp_path: Path, users: list[str]) -> None:
    assert run(tmp_path, "alice", "bob", check=True) == ["changed gateway/user_keys", "version gateway 0"]
    assert list(tmp_path.iterdir()) == []
    run(tmp_path, "alice", "bob")
    before = keys(tmp_path)
    assert run(tmp_path, "bob", "alice", check=True) == ["version gateway 1"]
    assert run(tmp_path, *users, check=True) == ["changed gateway/user_keys", "version gateway 1"]
    assert keys(tmp_path) == before


def test_no_user_s_key_is_lost_to_the_making_of_another_one(tmp_path: Path) -> None:
    run(tmp_path, "alice.new", "alice.given")
    before = keys(tmp_path)
    run(tmp_path, "alice", "alice.new", "alice.given")
    assert {name: key for name, key in keys(tmp_path).items() if name != "alice"} == before
