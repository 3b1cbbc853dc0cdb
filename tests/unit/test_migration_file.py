"""migrations/add_claude_oauth_tokens.sql, which people run by hand or give to a PostgreSQL image."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from join_migrations import TARGET, joined
from litellm_oauth.stores.migrations import migrate, migrations_folder, read_migrations
from support.postgres import OWNER, TOKENS, TestDatabase, needs_psql
from support.service import eventually

ALL = read_migrations(migrations_folder())
NAMES = [migration.name for migration in ALL]
_WAITING = """
SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()"""
_RECORDED = "SELECT name, checksum FROM claude_oauth.schema_migrations ORDER BY name"
# All that the migrations make, with owners and rights, as PostgreSQL itself writes it down.
_TABLES = """
SELECT 'schema' AS kind, nspname AS name, nspowner::regrole::text AS owner, nspacl::text AS detail
FROM pg_namespace WHERE nspname = 'claude_oauth'
UNION ALL SELECT 'relation', oid::regclass::text, relowner::regrole::text, concat_ws(' ', relkind, relacl)
FROM pg_class WHERE relnamespace = 'claude_oauth'::regnamespace
UNION ALL SELECT 'column', attrelid::regclass || '.' || attname, NULL,
  concat_ws(' ', attnum, format_type(atttypid, atttypmod), attnotnull, attidentity,
            attcollation::regcollation, pg_get_expr(adbin, adrelid), attacl)
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE relnamespace = 'claude_oauth'::regnamespace AND relkind = 'r' AND attnum > 0
UNION ALL SELECT 'constraint', conrelid::regclass || '.' || conname, NULL, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'claude_oauth'::regnamespace
UNION ALL SELECT 'index', indexrelid::regclass::text, NULL, pg_get_indexdef(indexrelid)
FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relnamespace = 'claude_oauth'::regnamespace
UNION ALL SELECT 'trigger', tgname, NULL, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'function', oid::regprocedure::text, proowner::regrole::text, pg_get_functiondef(oid)
FROM pg_proc WHERE pronamespace = 'claude_oauth'::regnamespace
UNION ALL SELECT 'setting', NULL, NULL, setconfig::text
FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = current_database()
ORDER BY 1, 2"""


def _run(database: TestDatabase, *, superuser: bool = False) -> str:
    """What the file says where it succeeds; it complains of nothing then."""
    done = database.psql(TARGET, superuser=superuser)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _tables(database: TestDatabase) -> list[dict[str, Any]]:
    found = database.query(_TABLES)
    assert len(found) > 50
    return found


def _said(words: str) -> str:
    return "".join(f"{name}: {words}\n" for name in NAMES)


def test_the_file_is_made_from_the_numbered_ones() -> None:
    assert TARGET.read_text() == joined(ALL), "files/migrations has changed: run `make migrations`"


@needs_psql
@pytest.mark.parametrize("superuser", [False, True], ids=["owner", "superuser"])
async def test_before_the_gateway_it_makes_what_the_gateway_would_have_made(
    empty_database: TestDatabase, database: TestDatabase, superuser: bool
) -> None:
    assert _run(empty_database, superuser=superuser) == _said("applied")
    assert _run(empty_database) == _said("was there already")
    assert await migrate(empty_database.parameters, ALL) == []
    assert empty_database.query(_RECORDED) == [{"name": m.name, "checksum": m.checksum} for m in ALL]
    assert _tables(empty_database) == _tables(database)


@needs_psql
async def test_after_the_gateway_it_changes_nothing_though_the_audit_is_not_its_own(
    empty_database: TestDatabase,
) -> None:
    await migrate(empty_database.parameters, ALL)
    empty_database.query(
        f"INSERT INTO {TOKENS} (user_id, access_token_encrypted, expires_at) VALUES ('a', 'x', now())"  # noqa: S608
    )
    before = _tables(empty_database)
    assert _run(empty_database) == _said("was there already")
    assert _tables(empty_database) == before
    assert empty_database.one(f"SELECT user_id FROM {TOKENS}") == {"user_id": "a"}  # noqa: S608


@needs_psql
async def test_on_a_server_that_the_kit_has_not_made_it_works_alike(external_database: TestDatabase) -> None:
    assert _run(external_database) == _said("applied")
    assert _run(external_database) == _said("was there already")
    assert await migrate(external_database.parameters, ALL) == []
    external_database.server.protect_audit(external_database.name)
    assert _run(external_database) == _said("was there already")


@needs_psql
async def test_it_applies_what_an_older_gateway_left_out(empty_database: TestDatabase) -> None:
    await migrate(empty_database.parameters, ALL[:3])
    said = _run(empty_database).splitlines()
    assert said == [f"{n}: was there already" for n in NAMES[:3]] + [f"{n}: applied" for n in NAMES[3:]]
    assert await migrate(empty_database.parameters, ALL) == []


@needs_psql
async def test_beside_gateways_that_start_each_file_is_applied_once(empty_database: TestDatabase) -> None:
    by_hand = asyncio.gather(*(asyncio.to_thread(_run, empty_database) for _ in range(3)))
    by_gateways = asyncio.gather(*(migrate(empty_database.parameters, ALL) for _ in range(3)))
    applied = [line.removesuffix(": applied") for text in await by_hand for line in text.splitlines()]
    applied += [name for names in await by_gateways for name in names]
    assert sorted(name for name in applied if name in NAMES) == NAMES


@needs_psql
async def test_a_database_that_was_made_with_other_files_is_refused_and_left_alone(
    empty_database: TestDatabase,
) -> None:
    await migrate(empty_database.parameters, ALL[:3])
    empty_database.query(
        "UPDATE claude_oauth.schema_migrations SET checksum = '0' WHERE name = %(name)s", {"name": NAMES[0]}
    )
    before = _tables(empty_database)
    done = empty_database.psql(TARGET)
    assert done.returncode == 3
    assert f"this database was made with other content of: {NAMES[0]}" in done.stderr
    assert _tables(empty_database) == before


@needs_psql
async def test_a_superuser_who_owns_the_database_runs_it_any_number_of_times(
    external_database: TestDatabase,
) -> None:
    with external_database.server.admin() as admin:
        admin.execute(f'ALTER DATABASE "{external_database.name}" OWNER TO postgres')
    assert _run(external_database, superuser=True) == _said("applied")
    assert _run(external_database, superuser=True) == _said("was there already")


@needs_psql
async def test_another_superuser_makes_the_tables_for_the_owner_and_leaves_nothing_else(
    external_database: TestDatabase,
) -> None:
    schemas = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1"
    before = external_database.query(schemas)
    assert _run(external_database, superuser=True) == _said("applied")
    assert external_database.query(schemas) == [{"nspname": "claude_oauth"}, *before]
    assert _run(external_database) == _said("was there already")


# What its owner can leave in a database for a superuser to run: it gives the file's role back, and
# what it does then may outlast the transaction, as a sequence's number does ...
_TRAP = """
CREATE SEQUENCE public.sprung;
CREATE FUNCTION public.trap() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'none', true);
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    PERFORM nextval('public.sprung');
  END IF;
  RETURN '0';
END $$"""
# ... and is in the place of what the file reads or calls.
_VIEW = """
CREATE SCHEMA claude_oauth;
CREATE VIEW claude_oauth.schema_migrations AS
SELECT '0001_claude_oauth.sql' AS name, public.trap() AS checksum, now() AS applied_at"""
_PROTECT = """
CREATE SCHEMA claude_oauth_audit;
CREATE FUNCTION claude_oauth_audit.protect() RETURNS void LANGUAGE sql AS 'SELECT public.trap()'"""


def _sprung(database: TestDatabase) -> bool:
    return bool(database.one("SELECT is_called FROM public.sprung")["is_called"])


@needs_psql
@pytest.mark.parametrize("role", [None, OWNER], ids=["own-role", "role-set-by-the-owner"])
@pytest.mark.parametrize("made", [_VIEW, _PROTECT], ids=["view", "protect"])
async def test_a_superuser_runs_nothing_that_the_database_s_owner_has_left_there(
    external_database: TestDatabase, made: str, role: str | None
) -> None:
    external_database.query(_TRAP)
    external_database.query(made)
    if role is not None:
        external_database.query(f'ALTER DATABASE "{external_database.name}" SET role = {role}')
    done = external_database.psql(TARGET, superuser=True)
    assert not _sprung(external_database)
    assert done.returncode == 3
    assert done.stderr.count("ERROR") == 1
    assert f"run this as the database's owner, {OWNER}\n" in done.stderr


@needs_psql
@pytest.mark.parametrize("held", [_PROTECT, "CREATE SCHEMA claude_oauth"], ids=["protect", "schema"])
async def test_a_superuser_runs_nothing_that_the_database_s_owner_leaves_there_meanwhile(
    external_database: TestDatabase, held: str
) -> None:
    """The owner holds the file up after it has looked, by something that is not committed yet."""
    external_database.query(_TRAP)
    with external_database.transaction() as owner:
        owner.execute(held)
        running = asyncio.create_task(asyncio.to_thread(external_database.psql, TARGET, superuser=True))
        await eventually(lambda: running.done() or external_database.query(_WAITING))
        if held != _PROTECT:
            external_database.query(_PROTECT)
            owner.rollback()
    done = await running
    assert not _sprung(external_database)
    assert done.returncode == 3
    assert "claude_oauth_audit" in done.stderr


@needs_psql
async def test_the_database_s_owner_cannot_slip_functions_under_a_superuser(
    empty_database: TestDatabase,
) -> None:
    empty_database.query(
        """CREATE FUNCTION public.format(text, name) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN ALTER ROLE llmproxy CONNECTION LIMIT 77; RETURN pg_catalog.format($1, $2); END $$"""
    )
    empty_database.query(f'ALTER DATABASE "{empty_database.name}" SET search_path = public, pg_catalog')
    _run(empty_database, superuser=True)
    limit = empty_database.one("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'llmproxy'")
    assert limit == {"rolconnlimit": -1}
