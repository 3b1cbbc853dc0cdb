-- The client that a refresh token was issued to. No other one may use it (RFC 6749 §6), and a provider answers
-- such a try as if the token were dead. NULL where nobody knows: written before this, or by others.
ALTER TABLE claude_oauth."LiteLLM_ClaudeOAuthTokens" ADD COLUMN IF NOT EXISTS client_id text;
