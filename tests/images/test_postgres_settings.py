"""What the gateway's role sets for its database takes no effect in what the kit runs there as superuser."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import jinja2
import pytest
import testinfra
import yaml
from docker.models.containers import Container
from docker.types import Mount
from testinfra.backend.base import CommandResult

from support.stack import until

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/postgres"
MIGRATIONS = ROOT / "migrations/add_claude_oauth_tokens.sql"
SCRIPT = "/docker-entrypoint-initdb.d/10-litellm.sh"
NAMES = {"postgres_user": "llmproxy", "postgres_database": "litellm", "service_stack": "tests"}
DESCRIPTION: dict[str, Any] = yaml.safe_load((ROLE / "vars/main.yml").read_text())["postgres_service"]
SUPERUSER = "psql --no-psqlrc -U postgres -d litellm -Atc"
# By the owner of the database: each of them ends or changes a session in which it takes effect.
EVIL = [
    "ALTER DATABASE litellm SET role = 'llmproxy'",
    "ALTER DATABASE litellm SET search_path = evil, public",
    "ALTER DATABASE litellm SET statement_timeout = 1",
    "ALTER ROLE llmproxy SET local_preload_libraries = 'evil'",
    "ALTER DATABASE litellm SET local_preload_libraries = 'evil'",
]
LOADED = "could not access file"


def run(container: Container, line: str) -> CommandResult:
    """As `docker exec` runs it: in the container's environment."""
    return testinfra.get_host(f"docker://{container.name}").run(line)


def done(container: Container, line: str) -> str:
    result = run(container, line)
    assert result.rc == 0, result.stderr
    return str(result.stdout).strip()


def as_superuser(container: Container, *statements: str) -> None:
    for statement in statements:
        done(container, f"psql --no-psqlrc -U postgres -c {shlex.quote(statement)}")


def loads(container: Container) -> int:
    """How often a session has tried to load the library so far."""
    return int(container.logs().decode().count(LOADED))


def ready(container: Container) -> None:
    """Over TCP the server answers only when its first start is over."""
    until(lambda: container.exec_run("pg_isready -h 127.0.0.1")[0] == 0, 60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A server as the role describes it, with the tables of the gateway."""
    folder = tmp_path_factory.mktemp("postgres")
    for path in (folder, *list(folder.parents)[:2]):
        path.chmod(0o755)
    templates = jinja2.FileSystemLoader(ROLE / "templates")
    environment = jinja2.Environment(loader=templates, trim_blocks=True, autoescape=False)  # noqa: S701 -- no HTML
    variables = {
        **NAMES,
        "ansible_managed": "",
        "lookup": lambda _, name: (ROLE / "files" / name).read_text(),
    }
    for name in ("create_database.sh", "pg_hba.conf", "pg_ident.conf"):
        (folder / name).write_text(environment.get_template(f"{name}.j2").render(variables))
    (folder / "after.sql").write_text("SELECT 1;")
    for name in ("database_password", "superuser_password"):
        (folder / name).write_text("an-obvious-fake")
    files = {f"/run/secrets/{name}": folder / name for name in ("database_password", "superuser_password")}
    files |= {f"/etc/litellm-oauth/{name}": folder / name for name in ("pg_hba.conf", "pg_ident.conf")}
    files |= {
        SCRIPT: folder / "create_database.sh",
        "/docker-entrypoint-initdb.d/20-after.sql": folder / "after.sql",
        "/usr/local/bin/postgres-entrypoint": ROOT / "images/postgres/entrypoint",
        "/migrations.sql": MIGRATIONS,
    }
    options = ["listen_addresses=*"]
    options += [f"{name}_file=/etc/litellm-oauth/pg_{name}.conf" for name in ("hba", "ident")]
    engine = docker.from_env()
    (image, *_) = engine.images.list("litellm-oauth/postgres")
    container = engine.containers.run(
        image,
        ["postgres", *(word for option in options for word in ("-c", option))],
        detach=True,
        name=f"litellm-oauth-tests-{secrets.token_hex(4)}",
        network_mode="none",
        mounts=[Mount(target, str(path), "bind", read_only=True) for target, path in files.items()],
        environment=DESCRIPTION["environment"],
    )
    try:
        ready(container)
        done(container, "psql --no-psqlrc -U llmproxy -d litellm -v ON_ERROR_STOP=1 -qf /migrations.sql")
        yield container
    finally:
        container.remove(force=True, v=True)


@pytest.fixture
def database(server: Container) -> Iterator[Container]:
    """The same, with all that the gateway's role can set for it."""
    done(server, "psql -U llmproxy -d litellm -c 'CREATE SCHEMA IF NOT EXISTS evil'")
    done(server, f"psql -U llmproxy -d litellm -c {shlex.quote('; '.join(EVIL))}")
    yield server
    as_superuser(server, "ALTER ROLE llmproxy RESET ALL", "ALTER DATABASE litellm RESET ALL")
    as_superuser(server, "ALTER DATABASE litellm SET search_path = public, claude_oauth")
    done(server, f"bash {SCRIPT}")


def test_the_settings_take_effect_where_nothing_overrides_them(database: Container) -> None:
    before = loads(database)
    as_superuser(database, "ALTER ROLE postgres IN DATABASE litellm RESET ALL")
    for role in ("postgres", "llmproxy"):
        line = f"env PGOPTIONS= psql --no-psqlrc -U {role} -d litellm -c 'SELECT 1'"
        assert LOADED in run(database, line).stderr
    assert loads(database) == before + 2
    partly = "env PGOPTIONS='-c local_preload_libraries= -c statement_timeout=0'"
    shown = done(database, f"{partly} {SUPERUSER} \"SELECT current_user, current_setting('search_path')\"")
    assert shown == "llmproxy|evil, public"


def test_the_script_of_every_run_is_not_touched_by_them(database: Container) -> None:
    """Also where the superuser's own settings are not there yet: in a database from an earlier version."""
    as_superuser(database, "ALTER ROLE postgres IN DATABASE litellm RESET ALL")
    before = loads(database)
    done(database, f"bash {SCRIPT}")
    assert loads(database) == before
    owner = "SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'protect'"
    assert done(database, f'{SUPERUSER} "{owner}"') == "postgres"


def test_its_options_alone_protect_its_session(database: Container) -> None:
    """What it does in the database does not depend on the settings that it has just made."""
    as_superuser(database, "ALTER ROLE postgres IN DATABASE litellm RESET ALL")
    as_superuser(database, "ALTER DATABASE litellm SET session_preload_libraries = 'evil'")
    script = done(database, f"cat {SCRIPT}")
    options = script.partition("psql --no-psqlrc")[0]
    names = (
        "role",
        "search_path",
        "local_preload_libraries",
        "session_preload_libraries",
        "statement_timeout",
    )
    query = f"SELECT {', '.join(f'current_setting($${name}$$)' for name in names)}"
    before = loads(database)
    shown = done(
        database, f"env PGOPTIONS= bash -c {shlex.quote(f'{options}{SUPERUSER} {shlex.quote(query)}')}"
    )
    assert shown == "none|pg_catalog,pg_temp|||0"
    assert loads(database) == before


def test_other_sessions_of_the_superuser_are_not_touched(database: Container) -> None:
    """Those of a person, also without the container's environment; whoever made the database lets more in."""
    as_superuser(database, "ALTER DATABASE litellm SET session_preload_libraries = 'evil'")
    before = loads(database)
    query = "\"SELECT current_user, current_setting('search_path') FROM pg_sleep(0.01)\""
    for prefix in ("", "env PGOPTIONS= "):
        assert done(database, f"{prefix}{SUPERUSER} {query}") == "postgres|pg_catalog,pg_temp"
    assert loads(database) == before


def test_the_health_check_loads_nothing(database: Container) -> None:
    kind, *words = DESCRIPTION["health"]["test"]
    assert kind == "CMD"
    line = shlex.join(jinja2.Template(word).render(NAMES) for word in words)
    before = loads(database)
    done(database, line)
    done(database, "psql --no-psqlrc -U llmproxy -d litellm -Atc 'SHOW local_preload_libraries'")
    assert loads(database) == before
    run(database, f"env PGOPTIONS= {line}")
    until(lambda: loads(database) == before + 1)  # it is a whole session of the role


def test_the_documents_lines_find_their_tables_as_the_gateway_s_role(database: Container) -> None:
    done(database, "psql -U llmproxy -d litellm -c 'ALTER DATABASE litellm RESET search_path'")
    done(
        database,
        "psql -U llmproxy -d litellm -c 'ALTER DATABASE litellm SET search_path = public, claude_oauth'",
    )
    done(database, "psql -U llmproxy -d litellm -c 'ALTER DATABASE litellm RESET statement_timeout'")
    before = loads(database)
    query = """'SELECT count(*) FROM "LiteLLM_ClaudeOAuthTokens"'"""
    assert done(database, f"psql -U llmproxy -d litellm -Atc {query}") == "0"
    assert "CREATE TABLE" in done(database, "pg_dump -U llmproxy -d litellm --schema-only")
    assert loads(database) == before


def test_the_first_start_over_a_cluster_from_elsewhere_loads_nothing(database: Container) -> None:
    as_superuser(
        database,
        "ALTER ROLE postgres IN DATABASE litellm RESET ALL",
        "ALTER DATABASE postgres SET local_preload_libraries = 'evil'",
        "ALTER DATABASE postgres SET session_preload_libraries = 'evil'",
    )
    done(database, 'rm "$PGDATA/.initialised"')
    before = loads(database)
    database.restart(timeout=10)
    until(lambda: run(database, 'test -e "$PGDATA/.initialised"').rc == 0, 60)
    ready(database)
    assert loads(database) == before
    assert database.logs().decode().count(f"running {SCRIPT}") == 2
    safely = "env PGOPTIONS='-c session_preload_libraries= -c local_preload_libraries='"
    done(database, f"{safely} psql -U postgres -c 'ALTER DATABASE postgres RESET ALL'")
