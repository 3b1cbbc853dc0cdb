"""``python -m litellm_oauth.prepare``, as the role runs it before it replaces the gateway."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from litellm_oauth.stores.migrations import migrations_folder
from support.gateway import Configuration

Prepare = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def prepare(command_environment: dict[str, str]) -> Prepare:
    def run(**environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "litellm_oauth.prepare"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=command_environment | environ,
        )

    return run


def test_an_empty_database_gets_its_tables_and_a_second_run_says_nothing(
    prepare: Prepare, empty_database_url: dict[str, str]
) -> None:
    first = prepare(**empty_database_url)
    assert (first.returncode, first.stderr) == (0, "")
    names = sorted(path.name for path in migrations_folder().glob("*.sql"))
    assert first.stdout == "".join(f"applied the migration {name}\n" for name in names)
    second = prepare(**empty_database_url)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")


def test_a_key_that_is_not_the_databases_ends_it_with_a_sentence(
    prepare: Prepare, configuration: Configuration
) -> None:
    assert prepare().returncode == 0
    configuration.change(encryption_key="fedcba9876543210" * 4)
    result = prepare()
    assert result.returncode == 1
    assert "put that key back" in result.stderr
    assert "Traceback" not in result.stderr
    assert "fedcba98" not in result.stderr


def test_a_fault_of_the_settings_ends_it_with_a_sentence(
    prepare: Prepare, configuration: Configuration
) -> None:
    configuration.change(refresh_buffer="soon")
    result = prepare()
    assert result.returncode == 1
    assert "claude_oauth.refresh_buffer" in result.stderr
    assert "Traceback" not in result.stderr
