"""What the routes say about themselves in the OpenAPI document; ``bodies`` checks what comes in."""

from __future__ import annotations

from typing import Any

from .bodies import MAX_TEXT

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ERROR}}}


_ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error("What was sent cannot be used"),
    401: _error("No key, an unknown key, or a login that is dead"),
    403: _error("Not for this caller"),
    404: _error("Not logged in, or no such job"),
    409: _error("Logged in already"),
    429: _error("The provider is left in peace for a while; see Retry-After"),
    502: _error("The provider refused"),
    503: _error("The provider or the database cannot be reached; see Retry-After"),
}


def responses(endpoint: str) -> dict[int | str, dict[str, Any]]:
    """What a route answers beside 200."""
    if endpoint == "refresh":
        return {202: {"description": "The refresh of all users has begun, or runs already"}, **_ERRORS}
    return _ERRORS


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _path(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _body(required: bool, **fields: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": fields, "additionalProperties": False}
    if required:
        schema["required"] = [name for name, field in fields.items() if field["type"] == "string"]
    return {"required": required, "content": {"application/json": {"schema": schema}}}


_USER = _query(
    "user_id",
    "Act for this user (administrators only)",
    {"type": "string", "minLength": 1, "maxLength": 255},
)

_PAGE = [
    _query("after", "The user id to go on after", {"type": "string", "maxLength": MAX_TEXT}),
    _query("limit", "Users in one answer", {"type": "integer", "minimum": 1, "maximum": 1000}),
]

EXTRA: dict[str, dict[str, Any]] = {
    "start": {"parameters": [_USER, _query("force", "Start a login though one works", {"type": "boolean"})]},
    "exchange": {
        "parameters": [_USER],
        "requestBody": _body(
            True,
            code={"type": "string", "minLength": 1, "maxLength": MAX_TEXT},
            state={"type": ["string", "null"], "maxLength": MAX_TEXT},
        ),
    },
    "status": {"parameters": [_USER]},
    "refresh": {
        "parameters": [_USER],
        "requestBody": _body(
            False,
            min_validity={"type": ["number", "null"], "minimum": 0},
            force={"type": "boolean"},
            all={"type": "boolean"},
        ),
    },
    "refresh_job": {
        "parameters": [
            _path(
                "job_id",
                "As POST /refresh with all gives it",
                {"type": "string", "format": "uuid"},
            ),
            *_PAGE,
            _query(
                "result",
                "Users with this result only",
                {"type": "string", "enum": ["refreshed", "fresh", "failed", "skipped"]},
            ),
        ]
    },
    "logout": {"parameters": [_USER]},
    "users": {"parameters": _PAGE},
    "health": {},
}
