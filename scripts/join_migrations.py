"""Writes migrations/add_claude_oauth_tokens.sql: what files/migrations/ holds, as one file for psql.

make migrations
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from litellm_oauth.stores.migrations import (  # noqa: E402 -- the package is not installed where it is written
    LOCK,
    TABLE,
    Migration,
    read_migrations,
)

TARGET = ROOT / "migrations/add_claude_oauth_tokens.sql"

_BEGIN = """\
-- The tables of the OAuth module in one file, for psql by hand or in a PostgreSQL image's initdb.d:
--   psql -U llmproxy -d litellm -f add_claude_oauth_tokens.sql
-- It applies what the database lacks, records it as the gateway does, and does nothing where nothing is
-- lacking: run it any number of times, before the gateway's first start or after, as the role that owns the
-- database (the gateway's). Another superuser may make the tables with it, but is refused where they are: it
-- would run what the owner may have put in their place.
--
-- Made from files/migrations by `make migrations`. Change those.

\\set ON_ERROR_STOP on
\\set QUIET on
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
-- The owner of the database chooses what a session in it begins with: nothing may depend on that.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;
SET LOCAL lock_timeout = '60s';

-- A gateway that starts at this moment waits, or is waited for.
DO $$ BEGIN PERFORM pg_advisory_xact_lock({lock}); END $$;

-- What another superuser makes would not be the owner's, and to take the owner's role is no boundary: a
-- function of the owner's gives it back. So such a superuser reads and calls nothing that the owner may have
-- made. Its login tells it: the owner of the database chooses the role that a session in it begins with.
\\set free false
SELECT pg_get_userbyid(datdba) AS owner, rolsuper AND me.oid <> datdba AS stranger,
  EXISTS (SELECT FROM pg_namespace WHERE nspname = 'claude_oauth') OR EXISTS (
    SELECT FROM pg_namespace JOIN pg_roles AS maker ON maker.oid = nspowner
    WHERE nspname = 'claude_oauth_audit' AND NOT maker.rolsuper) AS taken,
  NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'claude_oauth_audit') AS free
FROM pg_database, pg_roles AS me WHERE datname = current_database() AND me.rolname = session_user \\gset
\\if :stranger
\\if :taken
DO $$
BEGIN
  RAISE EXCEPTION 'run this as the database''s owner, %',
    (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database())
    USING HINT = 'A superuser would run with its own rights what the owner may have put into claude_oauth.';
END
$$;
\\endif
-- Never IF NOT EXISTS: the owner may be making one at this very moment. The second one is there until the
-- end, and keeps the owner from making what 0003 calls.
CREATE SCHEMA claude_oauth AUTHORIZATION :"owner";
\\if :free
CREATE SCHEMA claude_oauth_audit AUTHORIZATION :"owner";
\\endif
SET LOCAL ROLE :"owner";
\\else
\\set free false
\\endif

SELECT to_regclass('claude_oauth.schema_migrations') IS NULL AS lacking \\gset
\\if :lacking
{table}
\\endif

DO $$
DECLARE
  edited text;
BEGIN
  SELECT string_agg(name, ', ' ORDER BY name) INTO edited
  FROM claude_oauth.schema_migrations AS applied JOIN (VALUES
{checksums}
  ) AS given (name, checksum) USING (name)
  WHERE applied.checksum <> given.checksum;
  IF edited IS NOT NULL THEN
    RAISE EXCEPTION 'this database was made with other content of: %', edited
      USING HINT = 'Take this file from the version of the kit that the gateway has.';
  END IF;
END
$$;
"""

_ONE = """
-- ----------------------------------------------------------------------------------------------------
SELECT NOT EXISTS (SELECT FROM claude_oauth.schema_migrations WHERE name = '{name}') AS lacking \\gset
\\if :lacking
{sql}
INSERT INTO claude_oauth.schema_migrations (name, checksum)
VALUES ('{name}', '{checksum}');
\\echo {name}: applied
\\else
\\echo {name}: was there already
\\endif
"""

_END = """
\\if :free
DROP SCHEMA claude_oauth_audit;
\\endif
COMMIT;
\\set QUIET off
"""


def joined(migrations: list[Migration]) -> str:
    """The text of the one file."""
    checksums = ",\n".join(f"    ('{one.name}', '{one.checksum}')" for one in migrations)
    parts = [_BEGIN.format(lock=LOCK, table=TABLE.strip(), checksums=checksums)]
    parts += [_ONE.format(name=one.name, sql=one.sql.strip(), checksum=one.checksum) for one in migrations]
    return "".join([*parts, _END])


if __name__ == "__main__":
    TARGET.write_text(joined(read_migrations(ROOT / "files/migrations")), encoding="utf-8")
