"""What people give with -e is taken as it is: an expression in it never runs on the control node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text("sk-an-obvious-fake")
    return file


@pytest.mark.parametrize(
    ("playbook", "option"),
    [
        ("oauth_login.yml", "code"),
        ("oauth_login.yml", "user"),
        ("oauth_refresh.yml", "user"),
        ("playbooks/oauth_status.yml", "user"),
        ("playbooks/oauth_logout.yml", "user"),
    ],
)
def test_an_expression_in_an_option_is_not_evaluated(
    playbook: str, option: str, key: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "evaluated"
    given = f"{{{{ lookup('pipe', 'touch {mark}') }}}}"
    extra = {option: given, "litellm_oauth_gateway_url": NOWHERE, "litellm_oauth_api_key_file": str(key)}
    command = ["ansible-playbook", playbook, "--extra-vars", json.dumps(extra)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode != 0
    # it got as far as the use of what was given
    reached = "No authorization code was found" if option == "code" else "Nothing listens at"
    assert reached in " ".join(result.stdout.split())
    assert not mark.exists()
