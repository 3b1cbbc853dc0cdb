"""Without PostgreSQL's driver files do, and a setting that asks for the database is a fault."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
_WITHOUT_DRIVER = """
import sys
sys.modules.update(psycopg=None, psycopg_pool=None)
from litellm_oauth.cli import main
sys.exit(main(sys.argv[1:]))
"""


def claude(folder: Path, *arguments: str, use_database: bool) -> subprocess.CompletedProcess[str]:
    """``litellm claude`` in a process that cannot import the driver."""
    section = {
        "use_database": use_database,
        "token_file": str(folder / "tokens/claude_tokens.json"),
        "journal_dir": str(folder / "journal"),
        "provider": {
            "authorize_url": "https://login.example/oauth/authorize",
            "token_url": "https://login.example/oauth/token",
            "redirect_uri": "https://login.example/code",
            "client_id": "our-client",
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump({"claude_oauth": section}))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "src"),
        "LITELLM_OAUTH_CONFIG": str(folder / "config.yaml"),
        "LITELLM_OAUTH_DATABASE_URL": "postgresql://llmproxy@db:5432/litellm",
        "CLAUDE_TOKEN_ENCRYPTION_KEY": "0123456789abcdef" * 4,
    }
    command = [sys.executable, "-c", _WITHOUT_DRIVER, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("command", "exit_code", "shown"),
    [("login", 0, "https://login.example/oauth/authorize?"), ("status", 1, "default is not logged in")],
)
def test_files_need_no_driver(tmp_path: Path, command: str, exit_code: int, shown: str) -> None:
    done = claude(tmp_path, command, use_database=False)
    assert (done.returncode, done.stderr) == (exit_code, "")
    assert shown in done.stdout


def test_a_database_without_its_driver_is_one_sentence_with_both_ways_out(tmp_path: Path) -> None:
    done = claude(tmp_path, "status", use_database=True)
    assert done.returncode == 2
    assert "built without the database client (DATABASE_CLIENT=no)" in done.stderr
    assert "take the image that has it, or set use_database: false" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert "Traceback" not in done.stderr
