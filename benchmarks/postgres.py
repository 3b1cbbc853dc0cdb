"""A PostgreSQL container of the built image, for figures."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


def image(name: str) -> str:
    """The newest of our images of this name."""
    images = subprocess.run(
        ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"litellm-oauth/{name}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    if not images:
        sys.exit(f"there is no image of {name} yet: make images")
    return images[0]


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL with its ordinary durability; gives the URL of its superuser."""
    password = folder / "password"
    password.write_text("postgres-for-benchmarks")
    allow = folder / "allow.sh"
    allow.write_text('echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"\n')
    folder.chmod(0o755)
    name = f"litellm-oauth-benchmark-{os.getpid()}"
    command = ["docker", "run", "--detach", "--rm", "--name", name, "--publish", "127.0.0.1::5432"]
    command += ["--tmpfs", "/tmp", "--env", "POSTGRES_PASSWORD_FILE=/run/password"]  # noqa: S108 -- the container's
    command += ["--volume", f"{password}:/run/password:ro"]
    command += ["--volume", f"{allow}:/docker-entrypoint-initdb.d/allow.sh:ro"]
    subprocess.run(
        [*command, image("postgres"), "postgres", "-c", "listen_addresses=*"], check=True, capture_output=True
    )
    try:
        port = (
            subprocess.run(["docker", "port", name, "5432/tcp"], capture_output=True, text=True, check=True)
            .stdout.split()[0]
            .rpartition(":")[2]
        )
        url = f"postgresql://postgres:postgres-for-benchmarks@127.0.0.1:{port}/postgres"
        for _ in range(120):
            try:
                psycopg.connect(url, connect_timeout=1).close()
                break
            except psycopg.OperationalError:
                time.sleep(0.5)
        yield url
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], check=False, capture_output=True)
