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
