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
