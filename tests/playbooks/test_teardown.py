"""teardown.yml gives up the data of its own stack, and nothing of a folder that is not the kit's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def teardown(folder: Path) -> subprocess.CompletedProcess[str]:
    """With ``data=true``, for a stack that does not exist, so that only the folder is there to be removed."""
    extra = {
        "confirm": True,
        "data": True,
        "service_stack": "teardown-test",
        "service_directory": str(folder),
    }
    command = ["ansible-playbook", "playbooks/teardown.yml", "--extra-vars", json.dumps(extra)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_a_folder_without_the_kits_secrets_is_left_as_it_is(tmp_path: Path) -> None:
    for name in ("config", "secrets"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "of somebody else").write_text("precious")
    result = teardown(tmp_path)
    assert result.returncode == 0, result.stdout
    for name in ("config", "secrets"):
        assert (tmp_path / name / "of somebody else").read_text() == "precious"


def test_of_the_kits_own_folder_only_what_the_kit_made_is_removed(tmp_path: Path) -> None:
    (tmp_path / "secrets/source").mkdir(parents=True)
    (tmp_path / "config").mkdir()
    (tmp_path / "of somebody else").write_text("precious")
    result = teardown(tmp_path)
    assert result.returncode == 0, result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["of somebody else"]
