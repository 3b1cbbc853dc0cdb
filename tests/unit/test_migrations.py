"""The migrations: applied once, under a lock, harmless again, and the promises of the tables."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from litellm_oauth.errors import StorageUnavailable
from litellm_oauth.settings import DatabaseSettings
from litellm_oauth.stores.database import connection_parameters
from litellm_oauth.stores.migrations import (
    Migration,
    MigrationError,
    migrate,
    migrations_folder,
    read_migrations,
)
from support.postgres import TOKENS, TestDatabase, needs_psql

ALL = read_migrations(migrations_folder())
FILES = sorted(migrations_folder().glob("*.sql"))


async def test_each_file_is_applied_once_and_recorded_with_its_checksum(empty_database: TestDatabase) -> None:
    assert await migrate(empty_database.parameters, ALL) == [migration.name for migration in ALL]
    assert await migrate(empty_database.parameters, ALL) == []
    rows = empty_database.query("SELECT name, checksum FROM claude_oauth.schema_migrations ORDER BY name")
    assert rows == [{"name": m.name, "checksum": m.checksum} for m in ALL]


async def test_gateways_that_start_together_apply_each_file_once(empty_database: TestDatabase) -> None:
    done = await asyncio.gather(*(migrate(empty_database.parameters, ALL) for _ in range(4)))
    assert sorted(done, key=len) == [[], [], [], [migration.name for migration in ALL]]


async def test_an_applied_file_that_was_edited_is_refused_by_name(database: TestDatabase) -> None:
    edited = [Migration(ALL[0].name, ALL[0].sql + "\n-- more", "0" * 64)]
    with pytest.raises(MigrationError, match=ALL[0].name):
        await migrate(database.parameters, edited)


async def test_a_file_that_fails_leaves_nothing_behind(empty_database: TestDatabase) -> None:
    broken = Migration("0002_broken.sql", "CREATE TABLE claude_oauth.half (id int); SELECT 1 / 0;", "1" * 64)
    with pytest.raises(MigrationError, match=r"0002_broken\.sql"):
        await migrate(empty_database.parameters, [*ALL, broken])
    found = empty_database.query("SELECT FROM pg_tables WHERE tablename = 'half'")
    assert found == []
    assert len(empty_database.query("SELECT FROM claude_oauth.schema_migrations")) == len(ALL)


async def test_a_server_that_is_not_there_is_a_sentence_without_the_password() -> None:
    settings = DatabaseSettings("postgresql://llmproxy@127.0.0.1:1/litellm", "a-very-secret-password")
    with pytest.raises(StorageUnavailable) as caught:
        await migrate(connection_parameters(settings), ALL)
    assert "a-very-secret-password" not in caught.value.message


def test_a_name_without_a_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "add_things.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match=r"add_things\.sql"):
        read_migrations(tmp_path)


@needs_psql
async def test_psql_runs_every_file_any_number_of_times_before_and_after_the_gateway(
    external_database: TestDatabase,
) -> None:
    for path in FILES * 2:
        external_database.psql(path).check_returncode()
    await migrate(external_database.parameters, ALL)
    external_database.query(
        f"INSERT INTO {TOKENS} (user_id, access_token_encrypted, expires_at) VALUES ('a', 'x', now())"
    )
    for path in FILES:
        external_database.psql(path).check_returncode()
    assert external_database.one(f"SELECT user_id FROM {TOKENS}") == {"user_id": "a"}


@needs_psql
async def test_where_the_audit_is_not_the_gateways_a_superuser_runs_its_files_again(
    empty_database: TestDatabase,
) -> None:
    for path in FILES:
        empty_database.psql(path).check_returncode()
    owners = "SELECT oid::regclass::text, relowner::regrole::text FROM pg_class ORDER BY 1"
    before = empty_database.query(owners)
    for path in FILES[1:]:
        empty_database.psql(path).check_returncode()
    for path in FILES:
        empty_database.psql(path, superuser=True).check_returncode()
    assert empty_database.query(owners) == before


async def test_queries_find_the_tables_without_naming_the_schema(empty_database: TestDatabase) -> None:
    await migrate(empty_database.parameters, ALL)
    assert (
        empty_database.query('SELECT user_id, expires_at, refresh_count FROM "LiteLLM_ClaudeOAuthTokens"')
        == []
    )
    assert empty_database.one("SHOW search_path")["search_path"] == "public, claude_oauth"


async def test_a_role_that_does_not_own_the_database_gets_its_own_search_path(
    empty_database: TestDatabase,
) -> None:
    with empty_database.server.admin() as admin:
        admin.execute(f'ALTER DATABASE "{empty_database.name}" OWNER TO postgres')
        admin.execute(f'GRANT CREATE ON DATABASE "{empty_database.name}" TO llmproxy')
    await migrate(empty_database.parameters, ALL)
    assert empty_database.one("SHOW search_path")["search_path"] == "public, claude_oauth"


def test_a_token_row_names_its_id_itself_and_refers_to_no_table_of_others(database: TestDatabase) -> None:
    database.query(
        f"INSERT INTO {TOKENS} (user_id, access_token_encrypted, expires_at) VALUES ('a', 'x', now())"
    )
    assert database.one(f"SELECT token_id IS NOT NULL AS named FROM {TOKENS}")["named"]
    assert database.query("SELECT conname FROM pg_constraint WHERE contype = 'f'") == []
