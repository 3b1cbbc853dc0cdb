"""An inventory without a gateway is a fault, and no success that did nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = [
    path
    for path in sorted((ROOT / "playbooks").glob("*.yml"))
    if any(str(play.get("hosts", "")).startswith("gateway") for play in yaml.safe_load(path.read_text()))
]


def run(inventory: str) -> subprocess.CompletedProcess[str]:
    command = ["ansible-playbook", "-i", inventory, "oauth_refresh.yml"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_an_inventory_without_a_gateway_is_refused_with_the_mend() -> None:
    result = run("elsewhere.example.com,")
    assert result.returncode != 0
    assert "has no host in the group gateway. Run this from the root of the repository" in " ".join(
        result.stdout.split()
    )


def test_an_inventory_that_is_not_there_is_refused() -> None:
    result = run("inventories/no-such")
    assert result.returncode != 0
    assert "inventories/no-such" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_each_playbook_for_the_gateway_looks_into_the_inventory_first(path: Path) -> None:
    first = yaml.safe_load(path.read_text())[0]
    assert first.get("ansible.builtin.import_playbook") == "inventory.yml"
