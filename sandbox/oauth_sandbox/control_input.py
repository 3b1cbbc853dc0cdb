"""The bodies of control requests, checked; what is wrong is told in one sentence."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, RSAKey

from . import accounts
from .accounts import Account, AccountNameError
from .faults import ALWAYS_AFTER, ENDPOINTS, KINDS, Fault
from .federation import Rule
from .knobs import Knobs
from .oauth_models import GRANT_TYPES

_LONGEST = 3600.0
_FAULT_FIELDS = (
    "endpoint",
    "kind",
    "after",
    "times",
    "status",
    "retry_after",
    "seconds",
    "grant_type",
    "account",
)
MOST_ACCOUNTS = 1000
_RULE_NAMES = (
    "federation_rule_id",
    "organization_id",
    "service_account_id",
    "issuer_url",
    "subject",
    "audience",
    "account",
)
_MOST_KEYS = 10
_SWITCHES = ("rotate", "send_refresh_token", "send_refresh_token_expires_in", "claude_tokens")
# A negative life makes tokens that are dead when they are born, a negative expires_in only says so.
_NUMBERS = {
    "access_token_seconds": (-86_400, 315_360_000),
    "refresh_token_seconds": (-86_400, 315_360_000),
    "clock_skew_seconds": (-315_360_000, 315_360_000),
    "expires_in": (-315_360_000, 315_360_000),
    "stream_pause_seconds": (0, 60),
}


class ControlInputError(Exception):
    """What is wrong with a control request."""


def parse_object(body: bytes, allowed: Collection[str]) -> dict[str, Any]:
    """The JSON object of a body; nothing at all is an empty one. Raises ControlInputError."""
    try:
        document = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise ControlInputError("The body is not JSON.") from None
    if not isinstance(document, dict):
        raise ControlInputError("The body must be a JSON object.")
    unknown = sorted(set(document) - set(allowed))
    if unknown:
        raise ControlInputError(f"Unknown: {', '.join(unknown)[:200]}. Known: {', '.join(allowed)}.")
    return document


def parse_fault(body: bytes) -> Fault:
    """A fault to arm. Raises ControlInputError."""
    given = parse_object(body, _FAULT_FIELDS)
    endpoint = _one_of("endpoint", given.get("endpoint"), ENDPOINTS)
    kind = _one_of("kind", given.get("kind"), KINDS)
    after = given.get("after", kind in ALWAYS_AFTER)
    if not isinstance(after, bool):
        raise ControlInputError("after must be true or false.")
    if kind in ALWAYS_AFTER and not after:
        raise ControlInputError(f"{kind} strikes after the request took effect; leave 'after' out.")
    grant_type = given.get("grant_type")
    if grant_type is not None:
        _one_of("grant_type", grant_type, GRANT_TYPES)
        if endpoint != "token":
            raise ControlInputError("grant_type goes with the endpoint 'token' only.")
    for name, owner in (("status", "status"), ("retry_after", "status")):
        if name in given and kind != owner:
            raise ControlInputError(f"{name} goes with the kind {owner!r} only.")
    if "seconds" in given and kind not in {"slow", "silence"}:
        raise ControlInputError("seconds goes with the kinds 'slow' and 'silence' only.")
    if kind == "slow" and "seconds" not in given:
        raise ControlInputError("slow needs seconds.")
    times = given.get("times", 1)
    retry_after = given.get("retry_after")
    return Fault(
        endpoint=endpoint,
        kind=kind,
        after=after,
        times=None if times is None else _whole("times", times, 1, 1_000_000),
        status=_whole("status", given.get("status", 500), 400, 599),
        retry_after=None if retry_after is None else _whole("retry_after", retry_after, 0, 86_400),
        seconds=_number("seconds", given.get("seconds", 60 if kind == "silence" else 0), 0, _LONGEST),
        grant_type=grant_type,
        account=parse_account_name(given.get("account")),
    )


def parse_knobs(body: bytes) -> dict[str, float | bool | None]:
    """Changes of the knobs. Raises ControlInputError."""
    given = parse_object(body, [field.name for field in fields(Knobs)])
    for name, value in given.items():
        if name in _SWITCHES:
            if not isinstance(value, bool):
                raise ControlInputError(f"{name} must be true or false.")
        elif not (name == "expires_in" and value is None):
            _number(name, value, *_NUMBERS[name])
    return given


def parse_rule(body: bytes) -> Rule:
    """A federation rule to register. Raises ControlInputError."""
    given = parse_object(body, (*_RULE_NAMES, "jwks", "workspaces", "token_seconds"))
    named = {name: _text(name, given.get(name)) for name in _RULE_NAMES}
    workspaces = given.get("workspaces", ["default"])
    if not isinstance(workspaces, list) or not workspaces:
        raise ControlInputError("workspaces must be a list of names.")
    return Rule(
        **{**named, "account": parse_account_name(named["account"]) or ""},
        jwks=_parse_jwks(given.get("jwks")),
        workspaces=tuple(_text("workspaces", workspace) for workspace in workspaces),
        token_seconds=_number("token_seconds", given.get("token_seconds", 3600), 1, 86_400),
    )


def _parse_jwks(value: object) -> dict[str, Any]:
    """Public keys of an issuer (RFC 7517 §5). Raises ControlInputError."""
    keys = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= _MOST_KEYS:
        raise ControlInputError(f"jwks must be an object with 1 to {_MOST_KEYS} keys.")
    for key in keys:
        # A shared secret would let whoever knows the rule sign; a private key is nothing to hand out.
        if not isinstance(key, dict) or key.get("kty") not in {"EC", "RSA"} or "d" in key:
            raise ControlInputError("jwks must hold public EC or RSA keys only.")
    try:
        usable = KeySet.import_key_set({"keys": keys}).keys
    except (JoseError, ValueError, TypeError, KeyError):
        usable = []
    if len([key for key in usable if isinstance(key, ECKey | RSAKey)]) != len(keys):
        raise ControlInputError("jwks holds a key that is malformed.")
    return {"keys": keys}


def parse_account(value: object) -> Account | None:
    """The account that a request is about; None stands for all. Raises ControlInputError."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ControlInputError("account must be a string.")
    try:
        return accounts.named(value)
    except AccountNameError as error:
        raise ControlInputError(f"account: {error}") from None


def parse_account_name(value: object) -> str | None:
    """The same, by name. Raises ControlInputError."""
    account = parse_account(value)
    return None if account is None else account.name


def parse_accounts(value: object) -> list[Account]:
    """The accounts that a request lists. Raises ControlInputError."""
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_ACCOUNTS:
        raise ControlInputError(f"accounts must be a list of 1 to {MOST_ACCOUNTS} names.")
    found = [parse_account(name) for name in value]
    if None in found:
        raise ControlInputError("accounts must be a list of names.")
    return [account for account in found if account is not None]


def parse_seconds(name: str, text: str | None) -> float:
    """A point in time from a query string; left out is the beginning of time. Raises ControlInputError."""
    try:
        return 0.0 if text is None else float(text)
    except ValueError:
        raise ControlInputError(f"{name} must be a number: seconds since the epoch.") from None


def parse_flag(name: str, value: object) -> bool:
    """Raises ControlInputError."""
    if not isinstance(value, bool):
        raise ControlInputError(f"{name} must be true or false.")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 300 or not value.isprintable():
        raise ControlInputError(f"{name} must be a text of 1 to 300 printable characters.")
    return value


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise ControlInputError(f"{name} must be one of {', '.join(allowed)}.")
    return value


def _number(name: str, value: object, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ControlInputError(f"{name} must be a number from {least:g} to {most:g}.")
    return value


def _whole(name: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ControlInputError(f"{name} must be a whole number from {least} to {most}.")
    return value
