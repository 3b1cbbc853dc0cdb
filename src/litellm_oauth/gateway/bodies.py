"""Reading what a client sent: the query and the JSON body, checked field by field.

Every fault is an InvalidInput that names the field and the shape that is wanted, never the value: a code may
stand in the wrong field. A field nobody knows is a fault too, since a misspelt ``user_id`` would act for
somebody else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidInput
from .request_body import NotJson, parse_json

MAX_BODY_BYTES = 65_536
MAX_TEXT = 8_192
MAX_PAGE = 1_000
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def parse_object(raw: bytes, allowed: Sequence[str]) -> dict[str, Any]:
    """The JSON object in ``raw``; an empty body reads as an empty object. Raises InvalidInput."""
    if len(raw) > MAX_BODY_BYTES:
        raise InvalidInput(f"The body is larger than {MAX_BODY_BYTES} bytes.")
    if not raw.strip():
        return {}
    try:
        value = parse_json(raw)
    except NotJson:
        raise InvalidInput(f"The body is not JSON. Send a JSON object with: {', '.join(allowed)}.") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"The body is not a JSON object. Send one with: {', '.join(allowed)}.")
    _refuse_unknown("The body", value, allowed)
    return value


def parse_query(pairs: Sequence[tuple[str, str]], allowed: Sequence[str]) -> dict[str, str]:
    """The query parameters, each at most once. Raises InvalidInput."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise InvalidInput("A query parameter is sent twice; send it once.")
        values[name] = value
    _refuse_unknown("The query", values, allowed)
    return values


def text(values: Mapping[str, Any], name: str) -> str | None:
    """A text, or None where it is missing."""
    value = values.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be a text.")
    if len(value) > MAX_TEXT or "\x00" in value or any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise InvalidInput(f"{name} is too long or holds characters that cannot be stored.")
    return value


def required_text(values: Mapping[str, Any], name: str, what: str) -> str:
    """A text that must be there; ``what`` says what belongs into it."""
    value = text(values, name)
    if value is None or not value.strip():
        raise InvalidInput(f"{name} is missing: send {what}.")
    return value


def boolean(values: Mapping[str, Any], name: str) -> bool:
    """true or false (as text in a query); false where it is missing."""
    value = values.get(name, False)
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    raise InvalidInput(f"{name} must be true or false.")


def seconds(values: Mapping[str, Any], name: str) -> float | None:
    """A number of seconds that is not negative, or None where it is missing."""
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"{name} must be a number of seconds.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0:
        raise InvalidInput(f"{name} must be a number of seconds, 0 or more.")
    return number


def count(values: Mapping[str, Any], name: str, *, default: int, high: int) -> int:
    """A whole number from 1 to ``high``, given as text."""
    value = values.get(name)
    if value is None:
        return default
    digits = str(value)
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10 and 1 <= int(digits) <= high):
        raise InvalidInput(f"{name} must be a whole number from 1 to {high}.")
    return int(digits)


def one_of(values: Mapping[str, Any], name: str, allowed: Sequence[str]) -> str | None:
    """One of these words, or None where it is missing."""
    value = values.get(name)
    if value is not None and value not in allowed:
        raise InvalidInput(f"{name} must be one of: {', '.join(allowed)}.")
    return value


def _refuse_unknown(where: str, values: Mapping[str, Any], allowed: Sequence[str]) -> None:
    if any(name not in allowed for name in values):
        known = ", ".join(allowed) if allowed else "nothing"
        raise InvalidInput(f"{where} holds a field that is not known here. Known: {known}.")
