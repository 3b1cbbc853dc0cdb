"""What PostgreSQL's image does at its first start, beside what the role postgres makes it do."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest
import testinfra
from docker.models.containers import Container
from docker.types import Mount

from support.stack import until

ROOT = Path(__file__).resolve().parents[2]
ENTRYPOINT = ROOT / "images/postgres/entrypoint"
FIRST = "/docker-entrypoint-initdb.d"
MIGRATIONS = ROOT / "migrations/add_claude_oauth_tokens.sql"


@contextmanager
def _started(folder: Path, scripts: dict[str, Path]) -> Iterator[Container]:
    """A server of the newest image of ours, with the entrypoint as it is now."""
    engine = docker.from_env()
    (image, *_) = engine.images.list("litellm-oauth/postgres")
    (folder / "password").write_text("postgres-for-tests\n")
    files = {"/run/password": folder / "password", "/usr/local/bin/postgres-entrypoint": ENTRYPOINT}
    files |= {f"{FIRST}/{name}": path for name, path in scripts.items()}
    container = engine.containers.run(
        image,
        detach=True,
        name=f"litellm-oauth-tests-{secrets.token_hex(4)}",
        network_mode="none",
        mounts=[Mount(target, str(path), "bind", read_only=True) for target, path in files.items()],
        tmpfs={"/tmp": "", "/var/lib/postgresql/data": "uid=999,gid=999,mode=0700"},  # noqa: S108 -- in there
        environment={"POSTGRES_DB": "litellm", "POSTGRES_PASSWORD_FILE": "/run/password"},
    )
    try:
        yield container
    finally:
        container.remove(force=True, v=True)


def _psql(container: Container, statement: str) -> str:
    host = testinfra.get_host(f"docker://{container.name}")
    result = host.run("psql -U postgres -d litellm -Atc %s", statement)
    assert result.rc == 0, result.stderr
    return str(result.stdout).strip()


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """One that the container's user may look into."""
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    return tmp_path


def test_it_runs_shell_scripts_and_sql_in_the_order_of_their_names(open_folder: Path) -> None:
    (open_folder / "late.sh").write_text(
        'psql -U postgres -d litellm -c "CREATE TABLE made AS SELECT count(*) '
        'FROM claude_oauth.schema_migrations"\n'
    )
    (open_folder / "later.sql").write_text("UPDATE made SET count = count + 1000;")
    scripts = {
        "01-oauth.sql": MIGRATIONS,
        "02-late.sh": open_folder / "late.sh",
        "03-later.sql": open_folder / "later.sql",
    }
    with _started(open_folder, scripts) as container:
        until(lambda: b"listening on IPv4" in container.logs(), 30)
        applied = MIGRATIONS.read_text().count("INSERT INTO claude_oauth.schema_migrations")
        until(lambda: container.exec_run("pg_isready -d litellm")[0] == 0)
        assert _psql(container, "SELECT count FROM made") == str(1000 + applied)
        assert _psql(container, 'SELECT count(*) FROM "LiteLLM_ClaudeOAuthTokens"') == "0"


def test_sql_that_fails_ends_the_start(open_folder: Path) -> None:
    (open_folder / "wrong.sql").write_text("SELECT 1 / 0;")
    with _started(open_folder, {"01-wrong.sql": open_folder / "wrong.sql"}) as container:
        assert container.wait(timeout=30)["StatusCode"] == 3
        assert b"division by zero" in container.logs()
