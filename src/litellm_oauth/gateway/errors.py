"""Errors of requests that the gateway refuses or cannot carry, beside those of the token service."""

# ruff: noqa: N818 -- the names say what happened, which is what a reader of an except needs

from __future__ import annotations

from ..errors import LitellmOAuthError


class UnknownKey(LitellmOAuthError):
    """The request carries no key, or one that the gateway does not know."""

    code = "invalid_api_key"

    def __init__(self) -> None:
        super().__init__(
            "The gateway does not know this key, or no key was sent. "
            "Send the master key or a user's key: Authorization: Bearer sk-..."
        )


class ClosedRoute(LitellmOAuthError):
    """The key is good, and does not open this route."""

    code = "forbidden"

    def __init__(self) -> None:
        super().__init__(
            "This key does not open this route. A user's key is good for models and for the user's own "
            "login; ask the operator to add the route to extra_routes."
        )


class NoSuchModel(LitellmOAuthError):
    """The gateway's list of models has no such name."""

    code = "no_such_model"
    _SHOWN = 100

    def __init__(self, model: str) -> None:
        super().__init__(f"There is no model {model[: self._SHOWN]!r} here. GET /v1/models lists the models.")


class PackedBody(LitellmOAuthError):
    """The body has a content coding."""

    code = "unsupported_content_encoding"

    def __init__(self) -> None:
        super().__init__("The body is compressed. Send it without Content-Encoding.")


class BodyTooLarge(LitellmOAuthError):
    """The body is larger than the gateway takes on this route."""

    code = "request_too_large"

    def __init__(self, megabytes: int, what: str = "The body") -> None:
        super().__init__(f"{what} is larger than {megabytes} MB, the most that this route takes.")


class BodyTooSlow(LitellmOAuthError):
    """A large body comes so slowly that its memory is wanted for others."""

    code = "request_timeout"

    def __init__(self) -> None:
        super().__init__("The body comes too slowly. Send it again.")


class TooManyBodies(LitellmOAuthError):
    """The large bodies that are held already fill the memory set aside for them."""

    code = "overloaded"
    retry_after = 5.0

    def __init__(self) -> None:
        super().__init__(
            "The gateway holds as many large requests as its memory allows. Try again in a moment."
        )


class RedirectedAnswer(LitellmOAuthError):
    """The API answered with a redirect, which is not followed: it could lead a credential anywhere."""

    code = "redirected"

    def __init__(self, host: str, status: int) -> None:
        super().__init__(
            f"The API at {host} answered with a redirect (HTTP {status}), which the gateway does not follow. "
            "Ask the operator to correct api_base."
        )


class NotTheApi(LitellmOAuthError):
    """What answered at the API's address is not the API: a proxy's page, or another server's."""

    code = "not_the_api"

    def __init__(self, host: str, status: int, kind: str, retry_after: float | None = None) -> None:
        super().__init__(
            f"What answered at {host} is not the API: it sent {kind} (HTTP {status}). "
            "Try again; ask the operator to look at api_base and at what stands before it if it stays so."
        )
        self.retry_after = retry_after


class UploadInterrupted(LitellmOAuthError):
    """The token was refused while a body streamed, which cannot be sent a second time."""

    code = "token_replaced"
    retry_after = 1.0

    def __init__(self) -> None:
        super().__init__("The API refused the token during the upload. It has been replaced: send it again.")


class MethodNotAllowed(LitellmOAuthError):
    """The route has other methods (RFC 9110 §15.5.6)."""

    code = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"This route knows other methods: {allowed}.")
        self.allowed = allowed
