"""What the routes say about themselves in the OpenAPI document; ``bodies`` checks what comes in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from ..results import ResultOfUser
from ..service import MAX_MIN_VALIDITY
from ..tokens import MAX_USER_ID_LENGTH
from . import shapes
from .bodies import MAX_PAGE, MAX_TEXT
from .identity import USER_HEADER

Answers = dict[int | str, dict[str, Any]]

RESULTS: tuple[str, ...] = get_args(ResultOfUser)

# What every route may answer: who calls is asked at LiteLLM first, and the service may be in trouble.
_ALWAYS = (400, 401, 403, 500, 503)
# The one of these that gives the document the shape of an error; the others refer to it.
_WITH_MODEL = 500
_DESCRIPTIONS = {
    400: "What was sent cannot be used",
    401: "No key, an unknown key, or a login that is dead",
    403: "Not for this caller",
    404: "Not logged in, or no such job",
    409: "Logged in already",
    429: "The provider is left in peace for a while",
    500: "A fault of the gateway's own; its log says more",
    502: "The provider refused",
    503: "The provider or the database cannot be reached",
}


def _header(description: str, schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"description": description, "required": required, "schema": schema}


_CACHE_CONTROL = _header("For the one who asked, now", {"type": "string", "const": "no-store"})
_CHALLENGE = _header("How to say who calls (RFC 6750 §3)", {"type": "string", "const": "Bearer"})
_LOCATION = _header("Where the job tells of itself", {"type": "string", "format": "uri-reference"})


def _wait(*, required: bool) -> dict[str, Any]:
    return _header("Seconds until the next try", {"type": "integer", "minimum": 1}, required=required)


_ERROR_HEADERS = {
    401: {"WWW-Authenticate": _CHALLENGE},
    429: {"Retry-After": _wait(required=True)},
    503: {"Retry-After": _wait(required=False)},
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One route in the document. ``errors`` are those beside what every route may answer."""

    answer: type
    description: str
    errors: tuple[int, ...] = ()
    parameters: Sequence[dict[str, Any]] = ()
    body: dict[str, Any] | None = None
    job: type | None = None
    for_anybody: bool = False

    def responses(self) -> Answers:
        """What the route answers, by status."""
        answers: Answers = {200: _answer(self.answer, self.description)}
        if self.job is not None:
            answers[202] = _answer(
                self.job, "The refresh of all users has begun, or runs already", Location=_LOCATION
            )
            answers[202]["links"] = {"job": _JOB_LINK}
        for status in sorted({*_ALWAYS, *self.errors}):
            answers[status] = _error(status)
        return answers

    def extra(self, *, anonymous_api: bool) -> dict[str, Any]:
        """What FastAPI cannot see: the routes read the request themselves."""
        extra: dict[str, Any] = {"parameters": list(self.parameters)}
        if self.body is not None:
            extra["requestBody"] = self.body
        if self.for_anybody and anonymous_api:
            # FastAPI adds this to the key that it knows of: with one or without.
            extra["security"] = [{}]
        return extra


def _answer(model: type, description: str, **headers: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": model,
        "description": description,
        "headers": {"Cache-Control": _CACHE_CONTROL, **headers},
    }


def _error(status: int) -> dict[str, Any]:
    headers = _ERROR_HEADERS.get(status, {})
    answer = _answer(shapes.OAuthError, _DESCRIPTIONS[status], **headers)
    if status != _WITH_MODEL:
        # FastAPI works a model out again wherever it is named, which took most of the time to build the
        # routes.
        del answer["model"]
        answer["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/OAuthError"}}}
    return answer


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _body(*, required: bool, **fields: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": fields, "additionalProperties": False}
    if required:
        schema["required"] = [name for name, field in fields.items() if field["type"] == "string"]
    return {"required": required, "content": {"application/json": {"schema": schema}}}


# As ``tokens.check_user_id`` wants it: printable, and no space at either end.
_PRINTABLE = r"[^\p{C}\p{Z}]"
_USER = _query(
    "user_id",
    "Act for this user (administrators only)",
    {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_USER_ID_LENGTH,
        "pattern": f"^{_PRINTABLE}+( +{_PRINTABLE}+)*$",
    },
)
_USER_IN_HEADER = {
    "name": USER_HEADER,
    "in": "header",
    "required": False,
    "description": "The same as user_id; where both are sent, they have to agree",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_USER_ID_LENGTH,
        "pattern": "^[!-~]+( +[!-~]+)*$",
    },
}
_ACTING = (_USER, _USER_IN_HEADER)
_TEXT = {"maxLength": MAX_TEXT, "pattern": r"^[^\u0000]*$"}

_PAGE = (
    _query("after", "The user id to go on after", {"type": "string", **_TEXT}),
    _query("limit", "Users in one answer", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}),
)

_JOB_LINK = {
    "operationId": "claude_oauth_refresh_job",
    "parameters": {"job_id": "$response.body#/job_id"},
    "description": "How the job goes",
}

OPERATIONS: dict[str, Operation] = {
    "start": Operation(
        shapes.StartedLogin,
        "Open authorization_url in a browser",
        errors=(409,),
        parameters=(*_ACTING, _query("force", "Start a login though one works", {"type": "boolean"})),
        for_anybody=True,
    ),
    "exchange": Operation(
        shapes.CompletedLogin,
        "The user is logged in",
        errors=(502,),
        parameters=_ACTING,
        body=_body(
            required=True,
            code={"type": "string", "minLength": 1, **_TEXT},
            state={"type": ["string", "null"], **_TEXT},
        ),
        for_anybody=True,
    ),
    "status": Operation(shapes.LoginStatus, "How the login stands", parameters=_ACTING, for_anybody=True),
    "refresh": Operation(
        shapes.RefreshedLogin,
        "What the refresh did",
        errors=(404, 429, 502),
        parameters=_ACTING,
        body=_body(
            required=False,
            min_validity={"type": ["number", "null"], "minimum": 0, "maximum": MAX_MIN_VALIDITY},
            force={"type": "boolean"},
            all={"type": "boolean"},
        ),
        job=shapes.StartedRefreshJob,
    ),
    "refresh_job": Operation(
        shapes.RefreshJobPage,
        "How the job goes, and what became of users",
        errors=(404,),
        parameters=(
            {
                "name": "job_id",
                "in": "path",
                "required": True,
                "description": "As POST /refresh with all gives it",
                "schema": {"type": "string", "format": "uuid"},
            },
            *_PAGE,
            _query("result", "Users with this result only", {"type": "string", "enum": list(RESULTS)}),
        ),
    ),
    "logout": Operation(shapes.LoggedOut, "What the logout did", parameters=_ACTING),
    "users": Operation(shapes.UserPage, "Some of the users, in order of their ids", parameters=_PAGE),
    "health": Operation(shapes.ModuleHealth, "Whether the module works"),
}
