"""The answer of the Messages API: whole, or as the sequence of server-sent events that Anthropic sends."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from typing import Any

from .message_request import MessageRequest, count_tokens

_WORD = re.compile(r"\s*\S+")
# What a forced tool gets for an input that its schema requires.
_SAMPLES: dict[str, object] = {
    "string": "sandbox",
    "integer": 1,
    "number": 1.5,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}


def whole_message(request: MessageRequest) -> dict[str, Any]:
    """The message that answers the request, complete."""
    content, stop_reason, output_tokens = _content(request)
    return {
        "id": f"msg_sandbox{secrets.token_hex(10)}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [content],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": _usage(request.input_tokens, output_tokens),
    }


def message_events(request: MessageRequest) -> list[bytes]:
    """The same message as a stream: one item an event."""
    message = whole_message(request)
    content = message["content"][0]
    start = {
        **message,
        "content": [],
        "stop_reason": None,
        "usage": _usage(request.input_tokens, 1),
    }
    if content["type"] == "text":
        empty: dict[str, Any] = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": word} for word in _WORD.findall(content["text"])]
    else:
        empty = {**content, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in _halves(content["input"])]
    return [
        _event("message_start", message=start),
        _event("content_block_start", index=0, content_block=empty),
        _event("ping"),
        *(_event("content_block_delta", index=0, delta=delta) for delta in deltas),
        _event("content_block_stop", index=0),
        _event(
            "message_delta",
            delta={"stop_reason": message["stop_reason"], "stop_sequence": None},
            usage={"output_tokens": message["usage"]["output_tokens"]},
        ),
        _event("message_stop"),
    ]


def _content(request: MessageRequest) -> tuple[dict[str, Any], str, int]:
    if request.tool is not None:
        name, schema = request.tool
        tool_input = _sample_input(schema)
        block = {
            "type": "tool_use",
            "id": f"toolu_sandbox{secrets.token_hex(8)}",
            "name": name,
            "input": tool_input,
        }
        return block, "tool_use", 1 + count_tokens(json.dumps(tool_input))
    words = _WORD.findall(f"Sandbox answer to: {request.last_user_text.strip()}".rstrip())
    kept = words[: request.max_tokens]
    stop_reason = "end_turn" if len(kept) == len(words) else "max_tokens"
    return {"type": "text", "text": "".join(kept)}, stop_reason, len(kept)


def _sample_input(schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    return {name: _sample(properties.get(name)) for name in required if isinstance(name, str)}


def _sample(schema: object) -> object:
    if not isinstance(schema, dict):
        return "sandbox"
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    kind = schema.get("type")
    return _SAMPLES.get(kind, "sandbox") if isinstance(kind, str) else "sandbox"


def _halves(tool_input: dict[str, Any]) -> Iterator[str]:
    text = json.dumps(tool_input)
    yield ""
    yield text[: len(text) // 2]
    yield text[len(text) // 2 :]


def _usage(input_tokens: int, output_tokens: int) -> dict[str, int]:
    return {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
    }


def _event(kind: str, **members: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()
