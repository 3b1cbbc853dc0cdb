"""Applies the numbered SQL files: each once, in one transaction, under a lock, with its checksum."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from ..errors import LitellmOAuthError, StorageUnavailable
from .database import describe

# Any fixed number will do, as long as every process uses the same.
LOCK = 0x6C6C6D5F6F617574
_NAME = re.compile(r"\d{4}_[a-z0-9_]+\.sql")
TABLE = """
CREATE SCHEMA IF NOT EXISTS claude_oauth;
CREATE TABLE IF NOT EXISTS claude_oauth.schema_migrations (
  name       text PRIMARY KEY,
  checksum   text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);
"""


class MigrationError(LitellmOAuthError):
    """The database and the migration files do not fit together. The start ends here."""

    code = "migration"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. ``checksum`` is the SHA-256 of its bytes in hex."""

    name: str
    sql: str
    checksum: str


def migrations_folder() -> Path:
    """Inside the installed package, or files/migrations of a source checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent.parent / "files" / "migrations"


def read_migrations(folder: Path) -> list[Migration]:
    """All migrations in their order. Raises MigrationError where there are none or a name is odd."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        if not _NAME.fullmatch(path.name):
            raise MigrationError(f"The migration {path.name} is not named NNNN_name.sql. Rename it.")
        content = path.read_bytes()
        found.append(Migration(path.name, content.decode("utf-8"), hashlib.sha256(content).hexdigest()))
    if not found:
        raise MigrationError(f"No migrations were found in {folder}. Install the package again.")
    return found


async def migrate(parameters: dict[str, Any], migrations: list[Migration]) -> list[str]:
    """Apply what is pending and return its names.

    Raises MigrationError for an applied file that has changed or a file that fails, and StorageUnavailable
    where the database cannot be reached.
    """
    # A migration may take longer than any other statement, and waits for another gateway's start.
    patient = {**parameters, "options": "-c statement_timeout=120000 -c lock_timeout=60000"}
    try:
        async with await psycopg.AsyncConnection.connect(**patient, autocommit=True) as connection:
            return await _apply(connection, migrations)
    except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction, OSError) as error:
        raise StorageUnavailable(
            f"The token database cannot be reached ({describe(error)}). Check its URL, "
            "the password and whether the server runs."
        ) from None
    except psycopg.Error as error:
        raise MigrationError(
            f"The tables cannot be prepared ({describe(error)}). The role in the URL needs "
            "to own the database."
        ) from None


async def _apply(connection: psycopg.AsyncConnection[Any], migrations: list[Migration]) -> list[str]:
    # Held by the session, so that it spans all files; the end of the connection gives it back.
    await connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    applied = await _applied(connection)
    done = []
    for migration in migrations:
        if migration.name not in applied:
            await _apply_one(connection, migration)
            done.append(migration.name)
        elif applied[migration.name] != migration.checksum:
            raise MigrationError(
                f"The migration {migration.name} was applied to this database with other content. An "
                "applied file is never edited: restore it and put the change into a new one."
            )
    return done


async def _applied(connection: psycopg.AsyncConnection[Any]) -> dict[str, str]:
    """The checksums by name. Writes nothing where nothing is missing: a standby can be asked, too."""
    cursor = await connection.execute("SELECT to_regclass('claude_oauth.schema_migrations')")
    known = await cursor.fetchone()
    if known is None or known[0] is None:
        await connection.execute(TABLE)
    cursor = await connection.execute("SELECT name, checksum FROM claude_oauth.schema_migrations")
    return dict(await cursor.fetchall())


async def _apply_one(connection: psycopg.AsyncConnection[Any], migration: Migration) -> None:
    try:
        async with connection.transaction():
            # Without values psycopg sends the file whole, as psql would.
            await connection.execute(migration.sql.encode("utf-8"))
            await connection.execute(
                "INSERT INTO claude_oauth.schema_migrations (name, checksum) VALUES (%s, %s)",
                [migration.name, migration.checksum],
            )
    except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
        raise
    except psycopg.Error as error:
        raise MigrationError(
            f"The migration {migration.name} failed ({describe(error)}) and was rolled back. The role "
            "needs to own the database; `psql -f` shows the line."
        ) from None
