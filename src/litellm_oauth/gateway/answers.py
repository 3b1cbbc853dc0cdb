"""How errors look on HTTP: which status belongs to which error, and the one shape of all error bodies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..errors import (
    AlreadyLoggedIn,
    CodeRejected,
    CoolingDown,
    Forbidden,
    InvalidGrant,
    InvalidInput,
    LitellmOAuthError,
    NoPendingLogin,
    NoSuchJob,
    NotLoggedIn,
    ProviderRefused,
    ProviderUnavailable,
    ReauthRequired,
    StateMismatch,
    StorageUnavailable,
    TokenRefused,
    Unreadable,
)
from .errors import (
    BodyTooLarge,
    BodyTooSlow,
    ClosedRoute,
    MethodNotAllowed,
    NoSuchModel,
    NotTheApi,
    PackedBody,
    RedirectedAnswer,
    TooManyBodies,
    UnknownKey,
    UploadInterrupted,
)

if TYPE_CHECKING:
    from .shapes import OAuthError

# 503 tells a client to come again later; these are the errors that may pass without anybody's doing.
_STATUS: tuple[tuple[type[LitellmOAuthError], int], ...] = (
    (InvalidInput, 400),
    (CodeRejected, 400),
    (NoPendingLogin, 400),
    (StateMismatch, 400),
    (NoSuchModel, 400),
    (UnknownKey, 401),
    (ReauthRequired, 401),
    (TokenRefused, 401),
    (Forbidden, 403),
    (ClosedRoute, 403),
    (NotLoggedIn, 404),
    (NoSuchJob, 404),
    (MethodNotAllowed, 405),
    (BodyTooSlow, 408),
    (AlreadyLoggedIn, 409),
    (BodyTooLarge, 413),
    (PackedBody, 415),
    (CoolingDown, 429),
    (InvalidGrant, 502),
    (ProviderRefused, 502),
    (RedirectedAnswer, 502),
    (NotTheApi, 502),
    (ProviderUnavailable, 503),
    (StorageUnavailable, 503),
    (Unreadable, 503),
    (TooManyBodies, 503),
    (UploadInterrupted, 503),
)

# What clients of the two APIs know as the type of an error with this status.
_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
}

# Every 401 says how to authenticate (RFC 9110 §15.5.2).
_CHALLENGE: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


# What the routes of logins say is for the one who asked, now.
NO_STORE: Mapping[str, str] = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error as HTTP shows it."""

    status: int
    message: str
    code: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> OAuthError:
        """``{"error": {"message", "type", "param", "code"}}``, the shape that clients of LiteLLM know."""
        kind = _TYPES.get(self.status, "api_error")
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.code}}


def error_body(answer: ErrorAnswer, *, anthropic: bool) -> Mapping[str, object]:
    """The body of an error, in the shape that clients of Anthropic's or of OpenAI's API know."""
    return {"type": "error", **answer.body} if anthropic else answer.body


def answer_for(error: LitellmOAuthError) -> ErrorAnswer:
    """The answer of our own routes. A wait is rounded up to whole seconds (RFC 9110 §10.2.3)."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 503)
    if status == 401:
        return ErrorAnswer(401, error.message, error.code, _CHALLENGE)
    if isinstance(error, MethodNotAllowed):
        return ErrorAnswer(status, error.message, error.code, {"Allow": error.allowed})
    if isinstance(error, PackedBody):
        # What would be taken (RFC 9110 §15.5.16).
        return ErrorAnswer(status, error.message, error.code, {"Accept-Encoding": "identity"})
    waits = status in (429, 503) or isinstance(error, NotTheApi)
    return ErrorAnswer(status, error.message, error.code, _wait(error) if waits else {})


def _wait(error: LitellmOAuthError) -> Mapping[str, str]:
    wait = getattr(error, "retry_after", None)
    return {} if wait is None else {"Retry-After": str(max(1, math.ceil(wait)))}


def chat_answer_for(error: LitellmOAuthError, *, user: str, public_url: str) -> ErrorAnswer:
    """The answer to a request for a model: who has no usable login gets a 401 that says how to get one.

    A failure of the provider of logins is a 503, its limits included: they are none of the one who asks.
    """
    answer = answer_for(error)
    if isinstance(error, CoolingDown | ProviderRefused) and not isinstance(error, TokenRefused):
        return replace(answer, status=503, headers=_wait(error))
    if not isinstance(error, NotLoggedIn | ReauthRequired | TokenRefused):
        return answer
    address = f"{public_url.rstrip('/')}/auth/claude/oauth/start?user_id={quote(user, safe='')}"
    if isinstance(error, TokenRefused):
        # The login may be a good one.
        address += "&force=true"
    hint = f"Or begin here, with the key of this request: GET {address}"
    return ErrorAnswer(401, f"{error.message.rstrip()} {hint}", answer.code, _CHALLENGE)
