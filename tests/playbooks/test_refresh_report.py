"""oauth_refresh.yml tells people who was refreshed, and of many users only who was not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from support.stranger import Asked, login, reply, running

ROOT = Path(__file__).resolve().parents[2]
JOB = {"job_id": "6f1e0c3e-5d1c-4f0b-9d63-1f6a3f2d8c11", "message": None}


def refresh(tmp_path: Path, users: int, failing: int, **job: Any) -> tuple[int, str]:
    """Exit code and output of the playbook at a gateway where the first so many of the users fail."""
    names = [f"user-{number:03}" for number in range(users)]
    bad = {name: {"result": "failed", "message": f"{name} is to log in."} for name in names[:failing]}
    asked_before: list[Asked] = []

    def answer(asked: Asked) -> Iterable[bytes]:
        if asked.method == "POST":
            return [reply({**JOB, "status": "running", "already_running": False}, "202 Accepted")]
        if "/users" in asked.path:
            asked_before.append(asked)
            generation = len(asked_before)
            found = [
                login(name, status="due", generation=1 if name in bad else generation, expires_in=60)
                for name in names
            ]
            return [reply({"users": found, "next": None})]
        good = {"result": "refreshed", "code": None, "message": None}
        results = [{"user_id": name, **bad.get(name, good)} for name in names]
        return [reply({**JOB, "status": "finished", **job, "results": results, "next": None})]

    key = tmp_path / "key"
    key.write_text("sk-an-obvious-fake")
    with running(answer) as gateway:
        extra = {"litellm_oauth_gateway_url": gateway.url, "litellm_oauth_api_key_file": str(key)}
        result = subprocess.run(
            ["ansible-playbook", "oauth_refresh.yml", "--extra-vars", json.dumps(extra)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize("failing", [0, 1])
def test_of_few_users_everybody_is_told(tmp_path: Path, failing: int) -> None:
    code, output = refresh(tmp_path, 3, failing)
    assert (code != 0) is bool(failing)
    lines = [line.split() for line in output.splitlines() if line.strip().startswith("user-")]
    assert [line[:2] for line in lines] == [
        ["user-000", "failed" if failing else "refreshed"],
        ["user-001", "refreshed"],
        ["user-002", "refreshed"],
    ]
    assert " users: " not in output


def test_of_many_users_who_are_well_the_count_is_told(tmp_path: Path) -> None:
    code, output = refresh(tmp_path, 60, 0)
    assert code == 0, output
    assert "60 users: 60 refreshed." in output
    assert "user-0" not in output
    assert "Nobody is logged in" not in output


def test_of_many_users_those_who_failed_are_told(tmp_path: Path) -> None:
    code, output = refresh(tmp_path, 120, 55, status="stopped", message="The provider is down.")
    assert code != 0
    lines = [line.split() for line in output.splitlines() if " failed  " in line]
    assert [line[0] for line in lines] == [f"user-{number:03}" for number in range(50)]
    assert "… and 5 more who failed." in output
    assert "120 users: 55 failed, 65 refreshed." in output
    told = " ".join(output.split())
    assert "The refresh of all users was stopped: The provider is down. 55 of 120 could not" in told
    assert "user-009 and 45 more. The report above says why" in told
