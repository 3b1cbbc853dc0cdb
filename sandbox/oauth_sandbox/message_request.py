"""The request of the Messages API, as far as an answer needs it, checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .api_errors import ApiError, invalid

_ROLES = ("user", "assistant")


@dataclass(frozen=True, slots=True)
class MessageRequest:
    """What was asked. ``tool`` is the tool that the caller forces, by name and input schema."""

    model: str
    stream: bool
    max_tokens: int
    last_user_text: str
    input_tokens: int
    tool: tuple[str, dict[str, Any]] | None


def parse_document(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises ApiError."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise invalid("The request body is not valid JSON.") from None
    if not isinstance(document, dict):
        raise invalid("The request body must be a JSON object.")
    return document


def parse_message_request(document: dict[str, Any], *, counting: bool = False) -> MessageRequest:
    """Check the members that Anthropic requires. ``counting`` is for count_tokens. Raises ApiError."""
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise invalid("model: Field required")
    check_model(model)
    max_tokens = document.get("max_tokens", 1 if counting else None)
    if max_tokens is None:
        raise invalid("max_tokens: Field required")
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1:
        raise invalid("max_tokens: Input should be a whole number greater than or equal to 1")
    stream = document.get("stream", False)
    if not isinstance(stream, bool):
        raise invalid("stream: Input should be a valid boolean")
    messages = document.get("messages")
    if not isinstance(messages, list):
        raise invalid("messages: Field required")
    if not messages:
        raise invalid("messages: at least one message is required")
    texts = [_message_text(index, message) for index, message in enumerate(messages)]
    if messages[0]["role"] != "user":
        raise invalid("messages: first message must use the 'user' role")
    system = _text_of("system", document.get("system") or "")
    user_texts = [text for text, message in zip(texts, messages, strict=True) if message["role"] == "user"]
    return MessageRequest(
        model=model,
        stream=stream,
        max_tokens=max_tokens,
        last_user_text=user_texts[-1],
        input_tokens=count_tokens(system, *texts) + 3 * len(messages),
        tool=_forced_tool(document),
    )


def check_model(model: str) -> None:
    """Any id of the Claude family is known. Raises ApiError."""
    if not model.startswith("claude-"):
        raise ApiError(404, "not_found_error", f"model: {model[:100]}")


def count_tokens(*texts: str) -> int:
    """One token a word: simple enough to be foretold in a test."""
    return sum(len(text.split()) for text in texts)


def _message_text(index: int, message: object) -> str:
    where = f"messages.{index}"
    if not isinstance(message, dict):
        raise invalid(f"{where}: Input should be an object")
    role = message.get("role")
    if role not in _ROLES:
        raise invalid(f"{where}.role: Input should be 'user' or 'assistant'")
    if "content" not in message:
        raise invalid(f"{where}.content: Field required")
    text = _text_of(f"{where}.content", message["content"])
    if not message["content"] and role == "user":
        raise invalid(f"{where}: user messages must have non-empty content")
    return text


def _text_of(where: str, content: object) -> str:
    """The text of a string or of a list of blocks; blocks other than text count for nothing."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid(f"{where}: Input should be a string or a list of content blocks")
    texts = []
    for index, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise invalid(f"{where}.{index}.type: Field required")
        if block["type"] == "text":
            if not isinstance(block.get("text"), str):
                raise invalid(f"{where}.{index}.text: Field required")
            texts.append(block["text"])
    return " ".join(texts)


def _forced_tool(document: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    tools = document.get("tools") or []
    if not isinstance(tools, list):
        raise invalid("tools: Input should be a list")
    schemas: dict[str, dict[str, Any]] = {}
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            raise invalid(f"tools.{index}.name: Field required")
        schema = tool.get("input_schema", {})
        if not isinstance(schema, dict):
            raise invalid(f"tools.{index}.input_schema: Input should be an object")
        schemas[tool["name"]] = schema
    choice = document.get("tool_choice") or {"type": "auto"}
    if not isinstance(choice, dict) or choice.get("type") not in {"auto", "any", "tool", "none"}:
        raise invalid("tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'")
    if choice["type"] in {"auto", "none"}:
        return None
    if not schemas:
        raise invalid("tool_choice: tool_choice may only be specified while providing tools")
    name = choice.get("name") if choice["type"] == "tool" else next(iter(schemas))
    if not isinstance(name, str) or name not in schemas:
        raise invalid("tool_choice.name: Tool not found in provided tools")
    return name, schemas[name]
