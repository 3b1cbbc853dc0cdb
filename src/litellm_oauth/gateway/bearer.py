"""Has LiteLLM send any token as a bearer (RFC 6750 §2.1), not only those that look like Claude's.

LiteLLM tells tokens from API keys by their first letters. A token of another provider would go out as an
``x-api-key``, on every route. Proven on LiteLLM 1.106.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What LiteLLM knows by itself, and gives Claude's beta header to.
CLAUDE_PREFIX = "sk-ant-oat"
# Goes before any other token on its way through LiteLLM. No provider's token can hold a space.
_MARK = "litellm_oauth bearer "


def as_api_key(token: str) -> str:
    """The token as ``api_key``, in the form that leads to a bearer."""
    return token if token.startswith(CLAUDE_PREFIX) else f"{_MARK}{token}"


def send_as_bearer() -> None:
    """Teach LiteLLM what ``as_api_key`` says. Both its ways to a credential end in this one function.

    Raises AttributeError where this LiteLLM has no such function, so that no token goes out in another form.
    """
    from litellm.llms.anthropic.common_utils import AnthropicModelInfo

    original = AnthropicModelInfo._make_api_key_auth_header

    def header(api_key: str, *arguments: Any, **options: Any) -> Mapping[str, str]:
        if api_key.startswith(_MARK):
            return {"authorization": f"Bearer {api_key.removeprefix(_MARK)}"}
        found: Mapping[str, str] = original(api_key, *arguments, **options)
        return found

    AnthropicModelInfo._make_api_key_auth_header = staticmethod(header)
