"""The audit: the gateway's role writes lines and reads them, and can do nothing else to them."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from litellm_oauth.stores.migrations import migrate, migrations_folder, read_migrations
from support.postgres import AUDIT, TOKENS, TestDatabase

ALL = read_migrations(migrations_folder())
NUMBERS = 'claude_oauth."LiteLLM_ClaudeOAuthAudit_audit_id_seq"'
TRIGGER = "claude_oauth_audit_insert_only"
NOTE = f"INSERT INTO {AUDIT} (actor, origin, action, user_id, outcome) VALUES ('a', 'b', 'c', 'd', 'e')"
CHANGES = [f"UPDATE {AUDIT} SET actor = 'x'", f"DELETE FROM {AUDIT}", f"TRUNCATE {AUDIT}"]
EMPTY_TRIGGER = "RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
OWNERS = """
SELECT n.nspowner::regrole::text AS schema, c.relowner::regrole::text AS audit,
  s.relowner::regrole::text AS numbers, p.proowner::regrole::text AS function
FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'LiteLLM_ClaudeOAuthAudit'
JOIN pg_class s ON s.relnamespace = n.oid AND s.relname = 'LiteLLM_ClaudeOAuthAudit_audit_id_seq'
JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = 'refuse_change'
WHERE n.nspname = 'claude_oauth'"""


def refused(database: TestDatabase, statement: str) -> str:
    """The role may not even try, so that no trigger has to stop it. What is not refused is taken back."""
    with database.transaction() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
        connection.execute(statement.encode())
    message = str(caught.value)
    assert "added to and read" not in message
    return message


def protected(database: TestDatabase) -> bool:
    owners = set(database.one(OWNERS).values())
    assert owners in ({"llmproxy"}, {"claude_oauth_audit"})
    return owners == {"claude_oauth_audit"}


def apply(database: TestDatabase, *, until: str = "9999") -> None:
    asyncio.run(migrate(database.parameters, [m for m in ALL if m.name < until]))


def protect(database: TestDatabase) -> None:
    """A play's run."""
    database.server.protect_audit(database.name)


def test_lines_are_numbered_and_dated_by_the_database_and_can_be_read(database: TestDatabase) -> None:
    database.query(NOTE)
    database.query(NOTE)
    first, second = database.query(f"SELECT *, clock_timestamp() - at AS age FROM {AUDIT} ORDER BY audit_id")
    assert first["audit_id"] < second["audit_id"]
    assert timedelta(0) <= second["age"] <= first["age"] < timedelta(minutes=1)
    assert (first["actor"], first["outcome"], first["generation"]) == ("a", "e", None)
    # pg_dump of the whole database reads this too
    assert database.one(f"SELECT last_value FROM {NUMBERS}") == {"last_value": second["audit_id"]}


@pytest.mark.parametrize(
    "statement",
    [
        *CHANGES,
        f"INSERT INTO {AUDIT} (at, actor, origin, action, user_id, outcome) "
        "VALUES (now() - interval '1 year', 'a', 'b', 'c', 'd', 'e')",
        f"INSERT INTO {AUDIT} (audit_id, actor, origin, action, user_id, outcome) OVERRIDING SYSTEM VALUE "
        "VALUES (-1, 'a', 'b', 'c', 'd', 'e')",
        f"SELECT setval('{NUMBERS}', 1)",
        f"DROP TABLE {AUDIT}",
        f"ALTER TABLE {AUDIT} DISABLE TRIGGER {TRIGGER}",
        f"ALTER TABLE {AUDIT} ALTER COLUMN at SET DEFAULT '2000-01-01'",
        f"ALTER TABLE {AUDIT} OWNER TO llmproxy",
        f"DROP TRIGGER {TRIGGER} ON {AUDIT}",
        f"CREATE TRIGGER own BEFORE INSERT ON {AUDIT} "
        "FOR EACH ROW EXECUTE FUNCTION claude_oauth.notify_change()",
        f"CREATE RULE own AS ON INSERT TO {AUDIT} DO INSTEAD NOTHING",
        f"CREATE TABLE claude_oauth.more () INHERITS ({AUDIT})",
        f"CREATE OR REPLACE FUNCTION claude_oauth.refuse_change() {EMPTY_TRIGGER}",
        "DROP FUNCTION claude_oauth.refuse_change() CASCADE",
        "DROP SCHEMA claude_oauth CASCADE",
        "ALTER SCHEMA claude_oauth RENAME TO other",
        "ALTER SCHEMA claude_oauth OWNER TO llmproxy",
        "SET ROLE claude_oauth_audit",
        "GRANT claude_oauth_audit TO llmproxy",
        "REASSIGN OWNED BY claude_oauth_audit TO llmproxy",
        "SELECT claude_oauth_audit.found_amiss()",
        f"CREATE OR REPLACE FUNCTION claude_oauth_audit.protect() {EMPTY_TRIGGER}",
        "DROP SCHEMA claude_oauth_audit CASCADE",
    ],
)
def test_the_gateways_role_is_refused(database: TestDatabase, statement: str) -> None:
    database.query(NOTE)
    refused(database, statement)


def test_the_gateways_role_cannot_grant_itself_more(database: TestDatabase) -> None:
    database.query(f"GRANT ALL ON {AUDIT} TO llmproxy, PUBLIC")
    for change in CHANGES:
        refused(database, change)


def test_the_owner_of_the_audit_can_neither_log_in_nor_is_anybody_a_member_of_it(
    database: TestDatabase,
) -> None:
    assert protected(database)
    role = "FROM pg_roles WHERE rolname = 'claude_oauth_audit'"
    assert database.one(f"SELECT rolcanlogin OR rolsuper OR rolcreaterole AS more {role}") == {"more": False}
    assert database.query(f"SELECT FROM pg_auth_members WHERE roleid = (SELECT oid {role})") == []


def test_even_a_superuser_stumbles_over_the_trigger(database: TestDatabase) -> None:
    with database.server.admin(database.name) as admin:
        for change in CHANGES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="added to and read, not changed"):
                admin.execute(change.encode())


def test_the_gateways_role_goes_on_owning_all_else_in_the_schema(database: TestDatabase) -> None:
    with database.transaction() as connection:
        for statement in (
            f"ALTER TABLE {TOKENS} ADD COLUMN more int",
            f"ALTER TABLE {TOKENS} RENAME TO others",
            "CREATE TABLE claude_oauth.more (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)",
            "CREATE INDEX ON claude_oauth.more (id)",
            f"CREATE OR REPLACE FUNCTION claude_oauth.notify_change() {EMPTY_TRIGGER}",
            "DROP TABLE claude_oauth.more, claude_oauth.key_checks",
        ):
            connection.execute(statement.encode())
        connection.rollback()


def test_a_database_with_the_first_tables_only_is_protected_by_the_next_play_and_then_migrated(
    empty_database: TestDatabase,
) -> None:
    apply(empty_database, until="0002")
    assert not protected(empty_database)
    empty_database.query(NOTE)
    protect(empty_database)
    assert protected(empty_database)
    apply(empty_database)
    assert protected(empty_database)
    assert len(empty_database.query(f"SELECT FROM {AUDIT}")) == 1


def test_the_migration_protects_where_the_function_was_there_before_the_tables(
    empty_database: TestDatabase,
) -> None:
    apply(empty_database, until="0003")
    assert not protected(empty_database)
    apply(empty_database)
    assert protected(empty_database)


def test_a_database_that_was_migrated_elsewhere_is_protected_by_the_next_play(
    external_database: TestDatabase,
) -> None:
    apply(external_database)
    assert not protected(external_database)
    protect(external_database)
    assert protected(external_database)
    refused(external_database, CHANGES[0])


def test_further_plays_change_nothing_and_leave_rights_alone_that_a_superuser_gave(
    database: TestDatabase,
) -> None:
    rights = f"SELECT relacl::text FROM pg_class WHERE oid = '{AUDIT}'::regclass"
    with database.server.admin(database.name) as admin:
        admin.execute(f"GRANT SELECT ON {AUDIT} TO pg_monitor".encode())
        before = database.one(rights)
        protect(database)
        assert database.one(rights) == before
        admin.execute(f"REVOKE ALL ON {AUDIT} FROM pg_monitor".encode())
    assert protected(database)


def test_elsewhere_the_rights_and_the_trigger_of_the_first_migration_remain(
    external_database: TestDatabase,
) -> None:
    apply(external_database)
    external_database.query(NOTE)
    for change in CHANGES:
        assert "permission denied" in refused(external_database, change)
    external_database.query(f"GRANT ALL ON {AUDIT} TO CURRENT_USER")
    for change in CHANGES:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="added to and read, not changed"):
            external_database.query(change)
    assert len(external_database.query(f"SELECT FROM {AUDIT}")) == 1


def test_what_the_owner_had_bent_before_is_put_right(empty_database: TestDatabase) -> None:
    apply(empty_database, until="0003")
    for statement in (
        NOTE,
        f"GRANT ALL ON {AUDIT} TO pg_database_owner WITH GRANT OPTION",
        f"GRANT INSERT (at), UPDATE (actor) ON {AUDIT} TO PUBLIC",
        f"GRANT ALL ON {NUMBERS} TO pg_database_owner",
        f"ALTER TABLE {AUDIT} DISABLE TRIGGER {TRIGGER}",
        f"ALTER TABLE {AUDIT} ALTER COLUMN at SET DEFAULT '2000-01-01'",
        f"CREATE OR REPLACE FUNCTION claude_oauth.refuse_change() {EMPTY_TRIGGER} SECURITY DEFINER",
    ):
        empty_database.query(statement)
    apply(empty_database)
    for statement in (
        *CHANGES,
        f"SELECT setval('{NUMBERS}', 1)",
        f"INSERT INTO {AUDIT} (at, actor, origin, action, user_id, outcome) "
        "VALUES (now(), 'a', 'b', 'c', 'd', 'e')",
    ):
        refused(empty_database, statement)
    empty_database.query(NOTE)
    written = f"SELECT count(*) FILTER (WHERE at > now() - interval '1 minute') AS lines FROM {AUDIT}"
    assert empty_database.one(written) == {"lines": 2}
    with empty_database.server.admin(empty_database.name) as admin:
        for change in CHANGES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="added to and read, not changed"):
                admin.execute(change.encode())


OWN_FUNCTION = "CREATE FUNCTION public.f(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1'; "
EXTENSION = "CREATE EXTENSION hstore; ALTER EXTENSION hstore ADD "


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (
            f"CREATE TRIGGER t BEFORE INSERT ON {AUDIT} EXECUTE FUNCTION claude_oauth.refuse_change()",
            "trigger t",
        ),
        (f"CREATE RULE r AS ON INSERT TO {AUDIT} DO INSTEAD NOTHING", "rule r"),
        (f"CREATE POLICY p ON {AUDIT} USING (false)", "policy p"),
        (f"ALTER TABLE {AUDIT} ENABLE ROW LEVEL SECURITY", "table claude_oauth"),
        (f"ALTER TABLE {AUDIT} SET UNLOGGED", "table claude_oauth"),
        (f"ALTER TABLE {AUDIT} ALTER COLUMN audit_id DROP IDENTITY", "table claude_oauth"),
        (f"CREATE TABLE public.child () INHERITS ({AUDIT})", "table public.child"),
        (
            f"CREATE TABLE public.parent (detail text); ALTER TABLE {AUDIT} INHERIT public.parent",
            "table claude_oauth",
        ),
        (f"CREATE DOMAIN public.d AS text; ALTER TABLE {AUDIT} ADD more public.d", "table claude_oauth"),
        (f"{OWN_FUNCTION} CREATE INDEX i ON {AUDIT} (public.f(actor))", "index claude_oauth.i"),
        (f"{OWN_FUNCTION} CREATE STATISTICS public.s ON (public.f(actor)) FROM {AUDIT}", "statistics object"),
        (f"{EXTENSION} TABLE {AUDIT}", "table claude_oauth"),
        (f"{EXTENSION} TYPE {AUDIT}", "type claude_oauth"),
        (f"{EXTENSION} SEQUENCE {NUMBERS}", "sequence claude_oauth"),
        (f"{EXTENSION} SCHEMA claude_oauth", "schema claude_oauth"),
        (f"{EXTENSION} FUNCTION claude_oauth.refuse_change()", "function claude_oauth"),
        (
            f"ALTER TABLE {AUDIT} RENAME TO o; CREATE VIEW {AUDIT} AS TABLE claude_oauth.o",
            "view claude_oauth",
        ),
        (
            f"ALTER TABLE {AUDIT} RENAME TO o; CREATE TABLE {AUDIT} (at timestamptz) PARTITION BY LIST (at)",
            "table claude_oauth",
        ),
    ],
)
def test_a_table_that_has_a_way_round_is_not_taken_over(
    empty_database: TestDatabase, statements: str, named: str
) -> None:
    """What hangs on the table would stay the gateway's, or be done with the rights of the new owner."""
    if statements.startswith(EXTENSION):
        _needs_an_extension(empty_database)
    apply(empty_database, until="0003")
    empty_database.query(statements)
    with pytest.raises(psycopg.errors.RaiseException, match="not as the migrations make it") as caught:
        empty_database.query("SELECT claude_oauth_audit.protect()")
    assert named in str(caught.value)
    with pytest.raises(psycopg.errors.RaiseException, match="not as the migrations make it"):
        protect(empty_database)


def test_a_transaction_that_looks_at_the_past_is_refused(empty_database: TestDatabase) -> None:
    apply(empty_database, until="0003")
    with empty_database.transaction() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(psycopg.errors.RaiseException, match="read committed"):
            connection.execute("SELECT claude_oauth_audit.protect()")
        connection.rollback()
    assert not protected(empty_database)


@pytest.mark.parametrize(
    "member",
    [f"TABLE {AUDIT}", f"TYPE {AUDIT}", "SCHEMA claude_oauth", "FUNCTION claude_oauth.refuse_change()"],
)
def test_what_becomes_an_extension_s_at_the_same_moment_is_not_taken_over(
    empty_database: TestDatabase, member: str
) -> None:
    _needs_an_extension(empty_database)
    apply(empty_database, until="0003")
    empty_database.query("CREATE EXTENSION hstore")
    with ThreadPoolExecutor() as threads:
        with empty_database.transaction() as connection:
            connection.execute(f"ALTER EXTENSION hstore ADD {member}".encode())
            call = threads.submit(empty_database.query, "SELECT claude_oauth_audit.protect()")
            _wait_until_blocked(empty_database, call)
        with pytest.raises(psycopg.errors.RaiseException, match="not as the migrations make it"):
            call.result(timeout=10)


# Runs as whoever calls it, and tells who that was.
SPY = """
CREATE FUNCTION public.spy() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE TABLE IF NOT EXISTS public.%I ()', 'seen_' || current_user);
  RETURN true;
END
$$;
CREATE DOMAIN public.text AS pg_catalog.text CHECK (public.spy());
CREATE FUNCTION public.to_regclass(pg_catalog.text) RETURNS regclass LANGUAGE sql
AS 'SELECT public.spy(); SELECT NULL::regclass';
"""
SEEN = "SELECT tablename FROM pg_tables WHERE tablename LIKE 'seen%' AND tableowner <> 'llmproxy'"


def test_the_function_runs_nothing_of_its_caller(empty_database: TestDatabase) -> None:
    apply(empty_database, until="0003")
    empty_database.query(SPY)
    empty_database.query("SET search_path = public, pg_catalog; SELECT claude_oauth_audit.protect()")
    assert protected(empty_database)
    assert empty_database.query(SEEN) == []


def test_a_play_runs_nothing_of_the_database_s_owner_and_heeds_none_of_its_settings(
    external_database: TestDatabase,
) -> None:
    apply(external_database, until="0003")
    external_database.query(SPY)
    external_database.query(
        "CREATE SCHEMA claude_oauth_audit GRANT CREATE ON SCHEMA claude_oauth_audit TO PUBLIC;"
        "CREATE FUNCTION claude_oauth_audit.protect() RETURNS void LANGUAGE sql AS 'SELECT public.spy()'"
    )
    for setting in (
        "search_path = public, pg_catalog",
        "default_transaction_isolation = serializable",
        "default_transaction_read_only = on",
    ):
        external_database.query(f"ALTER DATABASE {external_database.name} SET {setting}")
    protect(external_database)
    with external_database.server.admin() as admin:
        admin.execute(f"ALTER DATABASE {external_database.name} RESET ALL".encode())
    assert protected(external_database)
    assert external_database.query(SEEN) == []
    function = "FROM pg_proc WHERE pronamespace = 'claude_oauth_audit'::regnamespace"
    assert external_database.query(f"SELECT {function} AND proowner = 'llmproxy'::regrole") == []


def _needs_an_extension(database: TestDatabase) -> None:
    if not database.query("SELECT FROM pg_available_extensions WHERE name = 'hstore'"):
        pytest.skip("the server has no extension that the owner of a database may install")


def _wait_until_blocked(database: TestDatabase, call: Future[Any]) -> None:
    waiting = "SELECT FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
    deadline = time.monotonic() + 10
    with database.server.admin() as admin:
        while not call.done() and admin.execute(waiting, [database.name]).fetchone() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
