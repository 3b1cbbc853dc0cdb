"""The documents' commands, typed on a docker host where the exported projects of Docker Compose lie."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.docker_host import ROOT, DockerHost, docker_host


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "block(heading): the command block of the document that a test runs")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with what ``export_compose.yml`` writes into it."""
    folder = tmp_path_factory.mktemp("project") / "litellm"
    folder.mkdir()
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    with subprocess.Popen(listed, cwd=ROOT, stdout=subprocess.PIPE) as files:
        pack = ["tar", "--null", "--files-from=-", "--ignore-failed-read", "-c"]
        with subprocess.Popen(pack, cwd=ROOT, stdin=files.stdout, stdout=subprocess.PIPE) as archive:
            subprocess.run(["tar", "-C", str(folder), "-x"], stdin=archive.stdout, check=True)
    exported = subprocess.run(
        ["ansible-playbook", "playbooks/export_compose.yml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert exported.returncode == 0, exported.stdout
    return folder


@pytest.fixture(scope="session")
def plain_host(project: Path) -> Iterator[DockerHost]:
    with docker_host(project) as host:
        yield host
