"""A model as the two APIs describe one.

Sources: https://docs.claude.com/en/api/models, https://platform.openai.com/docs/api-reference/models/object
"""

from __future__ import annotations

from typing import Any

# The gateway does not know when a model was made; LiteLLM's list says this moment of every model.
_CREATED = 1_677_610_602
_CREATED_AT = "2023-02-28T18:56:42Z"


def described(name: str, *, anthropic: bool) -> dict[str, Any]:
    """The object of one model. ``anthropic``: in Anthropic's form, else in OpenAI's."""
    if anthropic:
        return {"type": "model", "id": name, "display_name": name, "created_at": _CREATED_AT}
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "openai"}
