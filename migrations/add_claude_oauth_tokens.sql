-- The tables of the OAuth module in one file, for psql by hand or in a PostgreSQL image's initdb.d:
--   psql -U llmproxy -d litellm -f add_claude_oauth_tokens.sql
-- It applies what the database lacks, records it as the gateway does, and does nothing where nothing is
-- lacking: run it any number of times, before the gateway's first start or after, as the role that owns the
-- database (the gateway's). Another superuser may make the tables with it, but is refused where they are: it
-- would run what the owner may have put in their place.
--
-- Made from files/migrations by `make migrations`. Change those.

\set ON_ERROR_STOP on
\set QUIET on
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
-- The owner of the database chooses what a session in it begins with: nothing may depend on that.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;
SET LOCAL lock_timeout = '60s';

-- A gateway that starts at this moment waits, or is waited for.
DO $$ BEGIN PERFORM pg_advisory_xact_lock(7812739710238946676); END $$;

-- What another superuser makes would not be the owner's, and to take the owner's role is no boundary: a
-- function of the owner's gives it back. So such a superuser reads and calls nothing that the owner may have
-- made. Its login tells it: the owner of the database chooses the role that a session in it begins with.
\set free false
SELECT pg_get_userbyid(datdba) AS owner, rolsuper AND me.oid <> datdba AS stranger,
  EXISTS (SELECT FROM pg_namespace WHERE nspname = 'claude_oauth') OR EXISTS (
    SELECT FROM pg_namespace JOIN pg_roles AS maker ON maker.oid = nspowner
    WHERE nspname = 'claude_oauth_audit' AND NOT maker.rolsuper) AS taken,
  NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'claude_oauth_audit') AS free
FROM pg_database, pg_roles AS me WHERE datname = current_database() AND me.rolname = session_user \gset
\if :stranger
\if :taken
DO $$
BEGIN
  RAISE EXCEPTION 'run this as the database''s owner, %',
    (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database())
    USING HINT = 'A superuser would run with its own rights what the owner may have put into claude_oauth.';
END
$$;
\endif
-- Never IF NOT EXISTS: the owner may be making one at this very moment. The second one is there until the
-- end, and keeps the owner from making what 0003 calls.
CREATE SCHEMA claude_oauth AUTHORIZATION :"owner";
\if :free
CREATE SCHEMA claude_oauth_audit AUTHORIZATION :"owner";
\endif
SET LOCAL ROLE :"owner";
\else
\set free false
\endif

SELECT to_regclass('claude_oauth.schema_migrations') IS NULL AS lacking \gset
\if :lacking
CREATE SCHEMA IF NOT EXISTS claude_oauth;
CREATE TABLE IF NOT EXISTS claude_oauth.schema_migrations (
  name       text PRIMARY KEY,
  checksum   text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);
\endif

DO $$
DECLARE
  edited text;
BEGIN
  SELECT string_agg(name, ', ' ORDER BY name) INTO edited
  FROM claude_oauth.schema_migrations AS applied JOIN (VALUES
    ('0001_claude_oauth.sql', '439fd7c1f7412e7505bef82e2c95dd0329462b35d260df65733e4da1e0e3997c'),
    ('0002_faults.sql', '9d268b2cc97fbeda0445b338f84aed55b9c46daabff692121e243568598a6dea'),
    ('0003_audit_owner.sql', '9a024de9f19880fd79ca13050cc0463678b59d9327f041af52693176bc525945'),
    ('0004_refresh_jobs.sql', 'ef8c8d42d54ba3f01df64fb2981e97a290a7f6da2eabb2afc308337cca96d845'),
    ('0005_client.sql', 'a8a6ab54dc266a32cda1f75275fee8c76225223f878481769129f639637ecff7')
  ) AS given (name, checksum) USING (name)
  WHERE applied.checksum <> given.checksum;
  IF edited IS NOT NULL THEN
    RAISE EXCEPTION 'this database was made with other content of: %', edited
      USING HINT = 'Take this file from the version of the kit that the gateway has.';
  END IF;
END
$$;

-- ----------------------------------------------------------------------------------------------------
SELECT NOT EXISTS (SELECT FROM claude_oauth.schema_migrations WHERE name = '0001_claude_oauth.sql') AS lacking \gset
\if :lacking
-- The tables of litellm_oauth, in a schema of their own: in public they would break LiteLLM's migrations.
-- The gateway applies this file once; `psql -f` may run it any number of times, as the database's owner.

CREATE SCHEMA IF NOT EXISTS claude_oauth;

-- Queries that name a table without its schema find it. Takes effect for new connections.
DO $$
BEGIN
  IF (SELECT pg_has_role(current_user, datdba, 'USAGE') FROM pg_database WHERE datname = current_database()) THEN
    EXECUTE format('ALTER DATABASE %I SET search_path = public, claude_oauth', current_database());
  ELSE
    EXECUTE format('ALTER ROLE %I IN DATABASE %I SET search_path = public, claude_oauth',
                   current_user, current_database());
  END IF;
END
$$;

-- One row a user. No foreign key to LiteLLM's tables. A logout keeps the row, so that generation goes on counting.
CREATE TABLE IF NOT EXISTS claude_oauth."LiteLLM_ClaudeOAuthTokens" (
  token_id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id                 text COLLATE "C" NOT NULL UNIQUE CHECK (length(user_id) BETWEEN 1 AND 255),
  access_token_encrypted  text,
  refresh_token_encrypted text,
  expires_at              timestamptz,
  refresh_expires_at      timestamptz,
  scopes                  text[] NOT NULL DEFAULT '{}',
  account                 jsonb,
  generation              bigint NOT NULL DEFAULT 1 CHECK (generation >= 1),
  status                  text NOT NULL DEFAULT 'active'
                          CHECK (status IN ('active', 'reauth_required', 'logged_out')),
  last_error              text,
  -- The provider is not asked again for this user before this moment.
  next_attempt_at         timestamptz,
  -- Who may spend the refresh token, until when. An attempt that outlives its lease is in doubt.
  lease_owner             uuid,
  lease_until             timestamptz,
  attempt_id              uuid,
  attempt_host            text,
  last_used               timestamptz,
  refresh_count           bigint NOT NULL DEFAULT 0,
  created_at              timestamptz NOT NULL DEFAULT now(),
  created_by              text NOT NULL DEFAULT current_user,
  updated_at              timestamptz NOT NULL DEFAULT now(),
  updated_by              text NOT NULL DEFAULT current_user,
  CHECK ((status = 'logged_out') = (access_token_encrypted IS NULL)),
  CHECK (access_token_encrypted IS NULL OR expires_at IS NOT NULL)
);

CREATE INDEX IF NOT EXISTS claude_oauth_tokens_due ON claude_oauth."LiteLLM_ClaudeOAuthTokens" (expires_at)
  WHERE status = 'active' AND refresh_token_encrypted IS NOT NULL;

-- Logins that wait for their code (10 minutes). The verifier is encrypted and dropped once used.
CREATE TABLE IF NOT EXISTS claude_oauth."LiteLLM_ClaudeOAuthLogins" (
  login_id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  state_hash         text NOT NULL UNIQUE,
  user_id            text COLLATE "C" NOT NULL,
  verifier_encrypted text,
  issuer             text NOT NULL,
  redirect_uri       text NOT NULL,
  expires_at         timestamptz NOT NULL,
  -- One exchange at a time: who holds the login, until when.
  claimed_by         uuid,
  claimed_until      timestamptz,
  used_at            timestamptz,
  created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  created_by         text NOT NULL
);

CREATE INDEX IF NOT EXISTS claude_oauth_logins_user
  ON claude_oauth."LiteLLM_ClaudeOAuthLogins" (user_id, created_at DESC);
CREATE INDEX IF NOT EXISTS claude_oauth_logins_expiry ON claude_oauth."LiteLLM_ClaudeOAuthLogins" (expires_at);

-- Who did what, for whom, when, from where, with which outcome. Never a token.
CREATE TABLE IF NOT EXISTS claude_oauth."LiteLLM_ClaudeOAuthAudit" (
  audit_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  actor      text NOT NULL,
  origin     text NOT NULL,
  action     text NOT NULL,
  user_id    text COLLATE "C" NOT NULL,
  outcome    text NOT NULL,
  detail     text,
  generation bigint
);

CREATE INDEX IF NOT EXISTS claude_oauth_audit_user ON claude_oauth."LiteLLM_ClaudeOAuthAudit" (user_id, audit_id);

CREATE OR REPLACE FUNCTION claude_oauth.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit table may be added to and read, not changed (%)', TG_OP
    USING ERRCODE = 'insufficient_privilege';
END
$$;

-- The owner could grant the rights back to itself; the trigger holds even then.
CREATE OR REPLACE TRIGGER claude_oauth_audit_insert_only
  BEFORE UPDATE OR DELETE OR TRUNCATE ON claude_oauth."LiteLLM_ClaudeOAuthAudit"
  FOR EACH STATEMENT EXECUTE FUNCTION claude_oauth.refuse_change();
REVOKE UPDATE, DELETE, TRUNCATE ON claude_oauth."LiteLLM_ClaudeOAuthAudit" FROM PUBLIC, CURRENT_USER;

-- Gateway keys of users where LiteLLM has no database of its own. Only the key's hash is kept.
CREATE TABLE IF NOT EXISTS claude_oauth."LiteLLM_ClaudeOAuthUserKeys" (
  key_hash   text PRIMARY KEY,
  user_id    text COLLATE "C" NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL DEFAULT current_user
);

CREATE INDEX IF NOT EXISTS claude_oauth_user_keys_user ON claude_oauth."LiteLLM_ClaudeOAuthUserKeys" (user_id);

-- One check value for each encryption key in use: a start with a wrong key is told apart from a damaged row.
CREATE TABLE IF NOT EXISTS claude_oauth.key_checks (
  key_id      text PRIMARY KEY,
  check_value text NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now()
);

-- Tells every process what changed for whom: "<generation> <status> <user id>". A trigger, so that a change
-- made by hand is noticed too. Taking and renewing a lease changes nothing that others wait for.
CREATE OR REPLACE FUNCTION claude_oauth.notify_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    PERFORM pg_notify('claude_oauth_tokens', OLD.generation || ' logged_out ' || OLD.user_id);
  ELSIF TG_OP = 'INSERT'
    OR (NEW.generation, NEW.status, NEW.expires_at, NEW.access_token_encrypted, NEW.refresh_token_encrypted,
        NEW.next_attempt_at, NEW.last_error)
       IS DISTINCT FROM
       (OLD.generation, OLD.status, OLD.expires_at, OLD.access_token_encrypted, OLD.refresh_token_encrypted,
        OLD.next_attempt_at, OLD.last_error)
    OR (OLD.lease_owner IS NOT NULL AND NEW.lease_owner IS NULL)
  THEN
    PERFORM pg_notify('claude_oauth_tokens', NEW.generation || ' ' || NEW.status || ' ' || NEW.user_id);
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER claude_oauth_tokens_changed
  AFTER INSERT OR UPDATE OR DELETE ON claude_oauth."LiteLLM_ClaudeOAuthTokens"
  FOR EACH ROW EXECUTE FUNCTION claude_oauth.notify_change();
INSERT INTO claude_oauth.schema_migrations (name, checksum)
VALUES ('0001_claude_oauth.sql', '439fd7c1f7412e7505bef82e2c95dd0329462b35d260df65733e4da1e0e3997c');
\echo 0001_claude_oauth.sql: applied
\else
\echo 0001_claude_oauth.sql: was there already
\endif

-- ----------------------------------------------------------------------------------------------------
SELECT NOT EXISTS (SELECT FROM claude_oauth.schema_migrations WHERE name = '0002_faults.sql') AS lacking \gset
\if :lacking
-- What keeps a fault from costing a login: one rest of the provider for everybody, a limit on forced refreshes,
-- and the day of the login, from which the end of its refresh token is told where the provider does not tell it.

ALTER TABLE claude_oauth."LiteLLM_ClaudeOAuthTokens"
  ADD COLUMN IF NOT EXISTS logged_in_at timestamptz,
  ADD COLUMN IF NOT EXISTS forced_on date,
  ADD COLUMN IF NOT EXISTS forced_count integer NOT NULL DEFAULT 0;

-- The nearest that is known of logins made before this was recorded.
UPDATE claude_oauth."LiteLLM_ClaudeOAuthTokens" SET logged_in_at = created_at
WHERE logged_in_at IS NULL AND status <> 'logged_out';

-- What a host left unfinished is looked for at each of its starts.
CREATE INDEX IF NOT EXISTS claude_oauth_tokens_attempts ON claude_oauth."LiteLLM_ClaudeOAuthTokens" (attempt_host)
  WHERE attempt_id IS NOT NULL;

-- One row a token endpoint: who asked too often, or found it broken, holds everybody back.
CREATE TABLE IF NOT EXISTS claude_oauth.provider_rests (
  token_url   text PRIMARY KEY,
  failures    integer NOT NULL DEFAULT 0,
  rests_until timestamptz,
  reason      text,
  updated_at  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO claude_oauth.schema_migrations (name, checksum)
VALUES ('0002_faults.sql', '9d268b2cc97fbeda0445b338f84aed55b9c46daabff692121e243568598a6dea');
\echo 0002_faults.sql: applied
\else
\echo 0002_faults.sql: was there already
\endif

-- ----------------------------------------------------------------------------------------------------
SELECT NOT EXISTS (SELECT FROM claude_oauth.schema_migrations WHERE name = '0003_audit_owner.sql') AS lacking \gset
\if :lacking
-- The gateway's role owns what it makes, and an owner can undo all that protects a table. Where the kit's database
-- server offers it (roles/postgres/files/protect_audit.sql), the audit table gets an owner that nobody can log in as.
-- Any other server is left with the trigger and the rights of 0001.
-- From then on the gateway's role may not run what 0001 says about that table again; a superuser may run all of it.
DO $$
BEGIN
  IF has_function_privilege(to_regprocedure('claude_oauth_audit.protect()'), 'EXECUTE') THEN
    PERFORM claude_oauth_audit.protect();
  END IF;
END
$$;
INSERT INTO claude_oauth.schema_migrations (name, checksum)
VALUES ('0003_audit_owner.sql', '9a024de9f19880fd79ca13050cc0463678b59d9327f041af52693176bc525945');
\echo 0003_audit_owner.sql: applied
\else
\echo 0003_audit_owner.sql: was there already
\endif

-- ----------------------------------------------------------------------------------------------------
SELECT NOT EXISTS (SELECT FROM claude_oauth.schema_migrations WHERE name = '0004_refresh_jobs.sql') AS lacking \gset
\if :lacking
-- Refreshes of all users that an administrator asked for: how each one goes, and what became of every user.
-- Any gateway process can tell, whichever runs it.

CREATE TABLE IF NOT EXISTS claude_oauth.refresh_jobs (
  job_id       uuid PRIMARY KEY,
  status       text NOT NULL DEFAULT 'running'
               CHECK (status IN ('running', 'finished', 'stopped', 'interrupted')),
  actor        text NOT NULL,
  -- Who has at most so many seconds left is refreshed; with force everybody is.
  min_validity double precision NOT NULL,
  force        boolean NOT NULL,
  started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Written every few seconds while it runs: a job that falls silent has lost its process.
  heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at  timestamptz,
  -- How many were logged in when it began.
  total        bigint NOT NULL,
  refreshed    bigint NOT NULL DEFAULT 0,
  fresh        bigint NOT NULL DEFAULT 0,
  failed       bigint NOT NULL DEFAULT 0,
  skipped      bigint NOT NULL DEFAULT 0,
  message      text,
  CHECK ((status = 'running') = (finished_at IS NULL))
);

-- One at a time: two would only ask the provider for the same users.
CREATE UNIQUE INDEX IF NOT EXISTS claude_oauth_refresh_jobs_running ON claude_oauth.refresh_jobs (status)
  WHERE status = 'running';

CREATE TABLE IF NOT EXISTS claude_oauth.refresh_job_results (
  job_id            uuid NOT NULL,
  user_id           text COLLATE "C" NOT NULL,
  result            text NOT NULL CHECK (result IN ('refreshed', 'fresh', 'failed', 'skipped')),
  code              text,
  message           text,
  generation_before bigint NOT NULL,
  generation        bigint NOT NULL,
  expires_at        timestamptz,
  PRIMARY KEY (job_id, user_id)
);
INSERT INTO claude_oauth.schema_migrations (name, checksum)
VALUES ('0004_refresh_jobs.sql', 'ef8c8d42d54ba3f01df64fb2981e97a290a7f6da2eabb2afc308337cca96d845');
\echo 0004_refresh_jobs.sql: applied
\else
\echo 0004_refresh_jobs.sql: was there already
\endif

-- ----------------------------------------------------------------------------------------------------
SELECT NOT EXISTS (SELECT FROM claude_oauth.schema_migrations WHERE name = '0005_client.sql') AS lacking \gset
\if :lacking
-- The client that a refresh token was issued to. No other one may use it (RFC 6749 §6), and a provider answers
-- such a try as if the token were dead. NULL where nobody knows: written before this, or by others.
ALTER TABLE claude_oauth."LiteLLM_ClaudeOAuthTokens" ADD COLUMN IF NOT EXISTS client_id text;
INSERT INTO claude_oauth.schema_migrations (name, checksum)
VALUES ('0005_client.sql', 'a8a6ab54dc266a32cda1f75275fee8c76225223f878481769129f639637ecff7');
\echo 0005_client.sql: applied
\else
\echo 0005_client.sql: was there already
\endif

\if :free
DROP SCHEMA claude_oauth_audit;
\endif
COMMIT;
\set QUIET off
