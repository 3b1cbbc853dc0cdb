"""A real PostgreSQL for tests: the one in TEST_DATABASE_URL (a superuser), else a throw-away server.

The throw-away server is made of the machine's own PostgreSQL programs, on a random loopback port, without
durability. Each test process has a database of its own; each test finds it with all migrations and no rows.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from litellm_oauth.settings import DatabaseSettings
from litellm_oauth.stores.database import connection_parameters
from litellm_oauth.stores.migrations import migrate, migrations_folder, read_migrations

T = TypeVar("T")
OWNER = "llmproxy"
TOKENS = 'claude_oauth."LiteLLM_ClaudeOAuthTokens"'
LOGINS = 'claude_oauth."LiteLLM_ClaudeOAuthLogins"'
AUDIT = 'claude_oauth."LiteLLM_ClaudeOAuthAudit"'
USER_KEYS = 'claude_oauth."LiteLLM_ClaudeOAuthUserKeys"'
_EMPTY = """
DO $$ DECLARE found name; BEGIN
  SET LOCAL session_replication_role = replica;
  FOR found IN SELECT tablename FROM pg_tables
    WHERE schemaname = 'claude_oauth' AND tablename <> 'schema_migrations'
  LOOP EXECUTE format('DELETE FROM claude_oauth.%I', found); END LOOP;
END $$"""
needs_psql = pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed on this machine")
_PROTECT_AUDIT = Path(__file__).resolve().parents[2] / "roles/postgres/files/protect_audit.sql"


class PostgresServer:
    """A server that tests own. ``owner_password`` lets in the role that plays the gateway's."""

    def __init__(self, admin_dsn: str, process: subprocess.Popen[bytes] | None, folder: Path | None) -> None:
        self.admin_dsn = admin_dsn
        self.owner_password = hashlib.sha256(admin_dsn.encode()).hexdigest()
        self._process = process
        self._folder = folder
        self._kept: dict[tuple[str, bool], psycopg.Connection[dict[str, Any]]] = {}

    def admin(self, database: str | None = None) -> psycopg.Connection[dict[str, Any]]:
        """A superuser's connection in autocommit mode."""
        dsn = make_conninfo(self.admin_dsn, connect_timeout=3, **({"dbname": database} if database else {}))
        return psycopg.connect(dsn, autocommit=True, row_factory=dict_row)

    def kept(
        self, database: str, run: Callable[[psycopg.Connection[dict[str, Any]]], T], *, owner: bool = False
    ) -> T:
        """Run something on a connection that is kept open; again where it broke."""
        key = database, owner
        if (connection := self._kept.get(key)) is not None:
            try:
                return run(connection)
            except psycopg.OperationalError:
                if not connection.closed:
                    raise
        if owner:
            parameters = connection_parameters(self.settings(database))
            self._kept[key] = psycopg.connect(**parameters, autocommit=True, row_factory=dict_row)
        else:
            self._kept[key] = self.admin(database)
        return run(self._kept[key])

    def settings(self, database: str) -> DatabaseSettings:
        parts = conninfo_to_dict(self.admin_dsn)
        url = f"postgresql://{OWNER}@{parts['host']}:{parts['port']}/{database}"
        return DatabaseSettings(url=url, password=self.owner_password)

    def create_owner(self) -> None:
        """The role may exist, and other test processes may be at it; all of them set the same password."""
        with self.admin() as connection:
            connection.execute("SELECT pg_advisory_lock(hashtext('litellm_oauth tests'))")
            found = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [OWNER]).fetchone()
            connection.execute(
                sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(
                    sql.SQL("CREATE" if found is None else "ALTER"),
                    sql.Identifier(OWNER),
                    sql.Literal(self.owner_password),
                )
            )

    def create_database(self, name: str) -> None:
        with self.admin() as connection:
            query = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0")
            connection.execute(query.format(sql.Identifier(name), sql.Identifier(OWNER)))

    def protect_audit(self, database: str) -> None:
        """What the role postgres does in the gateway's database in each of its runs."""
        with self.admin(database) as connection:
            connection.execute(_PROTECT_AUDIT.read_bytes())

    def drop_database(self, name: str) -> None:
        for owner in (False, True):
            if (kept := self._kept.pop((name, owner), None)) is not None:
                kept.close()
        with self.admin() as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def stop(self) -> None:
        if self._process is not None:
            # PostgreSQL's fast shutdown: clients are cut off.
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=10)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class TestDatabase:
    """One test's database."""

    __test__ = False

    server: PostgresServer = field(repr=False)
    name: str
    settings: DatabaseSettings = field(repr=False)

    @property
    def parameters(self) -> dict[str, Any]:
        return connection_parameters(self.settings)

    def query(self, query: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run a statement as the owner, as an operator would in psql, and return its rows."""

        def run(connection: psycopg.Connection[dict[str, Any]]) -> list[dict[str, Any]]:
            cursor = connection.execute(query, values)
            return cursor.fetchall() if cursor.description is not None else []

        return self.server.kept(self.name, run, owner=True)

    def one(self, query: str, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        rows = self.query(query, values)
        assert len(rows) == 1, rows
        return rows[0]

    def psql(self, path: Path, *, superuser: bool = False) -> subprocess.CompletedProcess[str]:
        """What ``psql -f`` does with the file, as the owner unless told otherwise."""
        parameters = conninfo_to_dict(self.server.admin_dsn) if superuser else self.parameters
        address = [
            "-h",
            str(parameters["host"]),
            "-p",
            str(parameters["port"]),
            "-U",
            str(parameters["user"]),
        ]
        command = ["psql", "--no-psqlrc", *address, "-d", self.name, "-v", "ON_ERROR_STOP=1", "-f", str(path)]
        environment = {**os.environ, "PGPASSWORD": str(parameters["password"])}
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        """Somebody else's connection, whose locks last until the block ends."""
        with psycopg.connect(**self.parameters, row_factory=dict_row) as connection:
            yield connection

    def cut_off(self) -> None:
        """Nobody gets in any more, and who was in is thrown out."""
        with self.server.admin() as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(self.name))
            )
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self.name]
            )

    def empty(self) -> None:
        """Take all rows away, by a superuser those of the audit too: to make a new one takes far longer.

        A database that lets nobody in does so again.
        """
        try:
            self.server.kept(self.name, lambda connection: connection.execute(_EMPTY))
        except psycopg.OperationalError:
            self.let_in()
            self.server.kept(self.name, lambda connection: connection.execute(_EMPTY))

    def let_in(self) -> None:
        with self.server.admin() as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(self.name))
            )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of this test process."""
    given = os.environ.get("TEST_DATABASE_URL")
    server = PostgresServer(given, None, None) if given else _start_local_server()
    try:
        server.create_owner()
        yield server
    finally:
        server.stop()


@pytest.fixture
def external_database(postgres_server: PostgresServer) -> Iterator[TestDatabase]:
    """A database without any tables, on a server that the kit has not made."""
    with _database(postgres_server) as found:
        yield found


@pytest.fixture
def empty_database(postgres_server: PostgresServer) -> Iterator[TestDatabase]:
    """A database without any tables, as the kit makes it."""
    with _database(postgres_server) as found:
        postgres_server.protect_audit(found.name)
        yield found


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> Iterator[TestDatabase]:
    """The database with all migrations that the tests of this process use one after the other."""
    with _database(postgres_server) as found:
        postgres_server.protect_audit(found.name)
        asyncio.run(migrate(found.parameters, read_migrations(migrations_folder())))
        yield found


@pytest.fixture
def database(migrated_template: TestDatabase) -> Iterator[TestDatabase]:
    """A database with all migrations and no rows."""
    yield migrated_template
    migrated_template.empty()


@contextmanager
def _database(server: PostgresServer) -> Iterator[TestDatabase]:
    name = f"test_{secrets.token_hex(6)}"
    server.create_database(name)
    yield TestDatabase(server, name, server.settings(name))
    server.drop_database(name)


def _programs() -> Path:
    found = [initdb.parent for initdb in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        raise RuntimeError(
            "The tests find no PostgreSQL: set TEST_DATABASE_URL to a superuser's URL, or install postgresql."
        )
    return max(found, key=lambda path: float(path.parent.name))


def _start_local_server() -> PostgresServer:
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="litellm-oauth-pg-"))
    account = _account()
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    user, group = (account.pw_uid, account.pw_gid) if account is not None else (None, None)
    password = secrets.token_hex(16)
    (folder / "password").write_text(password)
    port = _free_port()
    start = [f"-cport={port}", "-clisten_addresses=127.0.0.1", f"-cunix_socket_directories={folder}"]
    # Tests lose nothing in a power cut.
    start += ["-cfsync=off", "-csynchronous_commit=off", "-cfull_page_writes=off", "-cmax_connections=200"]
    make = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={folder}/password", "--no-sync"]
    make += ["--no-instructions", "--encoding=UTF8", "--locale=C", f"--pgdata={folder}/data"]
    try:
        subprocess.run(
            [str(programs / "initdb"), *make], check=True, capture_output=True, cwd=folder, user=user
        )
        process = subprocess.Popen(
            [str(programs / "postgres"), f"-D{folder}/data", *start],
            stdout=subprocess.DEVNULL,
            stderr=(folder / "log").open("wb"),
            cwd=folder,
            user=user,
            group=group,
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    dsn = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
    server = PostgresServer(dsn, process, folder)
    _wait_until_up(server, process, folder / "log")
    return server


def _wait_until_up(server: PostgresServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            server.admin().close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                text = log.read_text(errors="replace")
                server.stop()
                raise RuntimeError(f"the PostgreSQL of the tests does not start:\n{text}") from None
            time.sleep(0.05)
        else:
            return


def _account() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: then its own account does."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
