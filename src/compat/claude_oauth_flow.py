"""``from litellm.proxy.auth.claude_oauth_flow import ClaudeOAuthFlow``."""

from litellm_oauth.flow import ClaudeOAuthFlow

__all__ = ["ClaudeOAuthFlow"]
