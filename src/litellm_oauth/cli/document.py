"""A login as one JSON document: what ``export`` prints and ``import`` takes.

The names are those of the token file, so that one of those is a document as well. Times are seconds since the
epoch; above 10^11, milliseconds.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import InvalidInput
from ..grant import account_of, scopes_of
from ..tokens import ExportedLogin, check_user_id, moment_of

_MEND = (
    "Give the document that `litellm claude export` printed, or an object with accessToken, refreshToken and "
    "expiresAt."
)


def document_of(login: ExportedLogin) -> dict[str, object]:
    """The document. What is not known is left out."""
    known = {
        "userId": login.user_id,
        "accessToken": login.access_token,
        "refreshToken": login.refresh_token,
        "expiresAt": login.expires_at,
        "refreshExpiresAt": login.refresh_expires_at,
        "scopes": list(login.scopes) or None,
        "account": login.account,
        "clientId": login.client_id,
        "loggedInAt": login.logged_in_at,
    }
    return {name: value for name, value in known.items() if value is not None}


def login_of(content: bytes) -> ExportedLogin:
    """The login in a document; names that it does not know are passed over.

    Raises InvalidInput, which names what is wrong and quotes nothing. Scopes and account only describe the
    login: what they have of another form counts as not there.
    """
    document = _parsed(content)
    access_token = _text(document, "accessToken")
    if access_token is None:
        raise InvalidInput(f"The document holds no accessToken. {_MEND}")
    expires_at = _moment(document, "expiresAt")
    if expires_at is None:
        raise InvalidInput(f"The document does not say when its accessToken ends (expiresAt). {_MEND}")
    user_id = _text(document, "userId")
    scopes, account = document.get("scopes"), document.get("account")
    return ExportedLogin(
        user_id=None if user_id is None else check_user_id(user_id),
        access_token=access_token,
        refresh_token=_text(document, "refreshToken"),
        expires_at=expires_at,
        refresh_expires_at=_moment(document, "refreshExpiresAt"),
        scopes=_scopes(scopes) if isinstance(scopes, list) else (),
        account=account_of(account) if isinstance(account, dict) else None,
        client_id=_text(document, "clientId"),
        logged_in_at=_moment(document, "loggedInAt"),
    )


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidInput(f"That is no JSON. {_MEND}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"That is no JSON object. {_MEND}")
    return document


def _text(document: dict[str, Any], name: str) -> str | None:
    """A text, or None where it is missing or empty."""
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"{name} is not a text. {_MEND}")
    return value or None


def _moment(document: dict[str, Any], name: str) -> float | None:
    """A moment, or None where it is missing."""
    value = document.get(name)
    moment = moment_of(value)
    if value is not None and moment is None:
        raise InvalidInput(f"{name} is no number of seconds or milliseconds since 1970. {_MEND}")
    return moment


def _scopes(words: list[Any]) -> tuple[str, ...]:
    return scopes_of(" ".join(word for word in words if isinstance(word, str))) or ()
