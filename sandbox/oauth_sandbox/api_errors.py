"""Errors of the API, in the shape of Anthropic's: ``{"type": "error", "error": {"type", "message"}}``."""

from __future__ import annotations

from .responses import AsciiJSONResponse


class ApiError(Exception):
    """A request that the API refuses: the HTTP status, the error's type, and a message for the developer."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message

    def response(self, request_id: str) -> AsciiJSONResponse:
        return AsciiJSONResponse(
            {
                "type": "error",
                "error": {"type": self.kind, "message": self.message},
                "request_id": request_id,
            },
            self.status,
            {"request-id": request_id},
        )


def invalid(message: str) -> ApiError:
    return ApiError(400, "invalid_request_error", message)


def unauthenticated(message: str) -> ApiError:
    return ApiError(401, "authentication_error", message)
