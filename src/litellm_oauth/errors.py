"""Every error this package raises on purpose.

    LitellmOAuthError
    ├─ SettingsError          settings              every fault of the settings, with its mend
    ├─ InvalidInput           invalid_input         unparsable code, bad user id, bad min_validity
    ├─ NotLoggedIn            not_logged_in         this user has no token set
    ├─ ReauthRequired         reauth_required       the stored login is dead; a new one is needed
    ├─ LoginError
    │  ├─ AlreadyLoggedIn     already_logged_in
    │  ├─ NoPendingLogin      no_pending_login      none, or expired, or already used
    │  ├─ StateMismatch       state_mismatch        forged or foreign state
    │  └─ CodeRejected        code_rejected         the provider answered invalid_grant to the code
    ├─ ProviderError
    │  ├─ ProviderRefused     provider_refused      another OAuth error (RFC 6749 §5.2), in .error
    │  ├─ InvalidGrant        invalid_grant         the refresh token or the code is refused
    │  ├─ ProviderUnavailable provider_unavailable  404, 429, 5xx, time-outs, DNS, garbage
    │  └─ CoolingDown         cooling_down          the provider is left in peace for a while
    │     └─ TokenRefused     token_refused         the API refuses a token that has just been refreshed
    ├─ StorageUnavailable     storage_unavailable   the authority cannot be reached
    ├─ Unreadable             unreadable            this user's stored values do not decrypt
    ├─ NoSuchJob              no_such_job           this refresh of all users is not known
    └─ Forbidden              forbidden             the caller may not act for that user

``message`` says what happened and what to do next, and never holds a secret. ``code`` is stable: HTTP answers
and the command line show it. Which HTTP status or exit code belongs to a type is decided where those live.
"""

# ruff: noqa: N818 -- the names say what happened (NotLoggedIn), which is what a reader of an except needs

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class LitellmOAuthError(Exception):
    """The root. ``message`` is a sentence for a person; ``code`` a stable word for a program."""

    code: ClassVar[str] = "litellm_oauth_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SettingsError(LitellmOAuthError):
    """The settings cannot be used. ``faults`` holds one sentence per fault: name, shape and mend."""

    code = "settings"

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        count = len(self.faults)
        head = f"The settings of litellm_oauth have {count} fault{'' if count == 1 else 's'}:"
        super().__init__("\n- ".join([head, *self.faults]))


class InvalidInput(LitellmOAuthError):
    """What the caller sent cannot be understood: a code, a user id, a number of seconds."""

    code = "invalid_input"


class NotLoggedIn(LitellmOAuthError):
    """The user never logged in, or logged out."""

    code = "not_logged_in"


class ReauthRequired(LitellmOAuthError):
    """The provider refused the stored refresh token for good, or there is none: log in again."""

    code = "reauth_required"


class OtherClient(ReauthRequired):
    """The stored refresh token was issued to another client than the one in the settings. It is kept."""

    code = "other_client"


class LoginError(LitellmOAuthError):
    """A login could not be started or completed. Nothing that was stored has changed."""

    code = "login_error"


class AlreadyLoggedIn(LoginError):
    """A login was started for somebody who has a working one and did not ask for another."""

    code = "already_logged_in"


class NoPendingLogin(LoginError):
    """No login waits for this code: none was started, or it expired, or it was used."""

    code = "no_pending_login"


class StateMismatch(LoginError):
    """The state belongs to no login of this user. Whose it is, if anybody's, is never said."""

    code = "state_mismatch"


class CodeRejected(LoginError):
    """The provider refused the authorization code (invalid_grant). The pending login is used up."""

    code = "code_rejected"


class ProviderError(LitellmOAuthError):
    """The provider did not give what was asked for."""

    code = "provider_error"


class ProviderRefused(ProviderError):
    """An OAuth error other than invalid_grant (RFC 6749 §5.2). ``error`` is the provider's error code.

    ``retry_after``: seconds until the next attempt; None if unknown.
    """

    code = "provider_refused"

    def __init__(self, message: str, *, error: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.error = error
        self.retry_after = retry_after


class InvalidGrant(ProviderError):
    """``invalid_grant`` (RFC 6749 §5.2): this code or refresh token is invalid, expired or revoked."""

    code = "invalid_grant"


class ProviderUnavailable(ProviderError):
    """The provider gave no usable answer. It says nothing about the token that was sent.

    ``reason`` is a stable word: ``rate_limited``, ``wrong_host``, ``server_error``, ``timeout``, ``network``,
    ``answer_lost``, ``garbage``, ``http_<status>`` or ``refresh_pending``. ``retry_after`` is in seconds,
    None where nobody knows.
    ``maybe_spent`` says that the request may have reached the provider and its answer may be lost, so that a
    single-use token may be used up.
    """

    code = "provider_unavailable"

    def __init__(
        self, message: str, *, reason: str, retry_after: float | None = None, maybe_spent: bool = False
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after
        self.maybe_spent = maybe_spent


class CoolingDown(ProviderError):
    """The provider is not asked again before ``retry_after`` seconds have passed."""

    code = "cooling_down"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TokenRefused(CoolingDown):
    """The API refuses a token that has just been refreshed, so that another refresh would not help."""

    code = "token_refused"


class StorageUnavailable(LitellmOAuthError):
    """The database cannot be reached or did not answer in time. ``retry_after`` is in seconds."""

    code = "storage_unavailable"

    def __init__(self, message: str, *, retry_after: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unreadable(LitellmOAuthError):
    """A stored value does not decrypt: another key, another user's value, or damage. Only this user's."""

    code = "unreadable"


class NoSuchJob(LitellmOAuthError):
    """There is no refresh of all users with this id, or not any more."""

    code = "no_such_job"


class Forbidden(LitellmOAuthError):
    """The caller may not act for that user."""

    code = "forbidden"
