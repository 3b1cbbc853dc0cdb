"""What Schemathesis loads in its own process: keeps generated requests to users of ours."""

from __future__ import annotations

import os
from typing import Any

import schemathesis
from schemathesis import Case, GenerationMode, HookContext

USERS = os.environ["SCHEMA_USERS"].split(",")
# Set where the gateway has users of others, too.
SHARED = bool(os.environ.get("SCHEMA_SHARED"))
USER_HEADER = "x-litellm-oauth-user"


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Let a request that could act for anybody act for one of USERS.

    It also sees to what no document can say: whoever is named twice is the same, and ``all`` names nobody.
    """
    well_formed = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    for place, name in ((case.query, "user_id"), (case.headers, USER_HEADER)):
        value = place.get(name)
        if isinstance(value, str) and (well_formed or _names_somebody(value)):
            place[name] = USERS[len(value) % len(USERS)]
    if isinstance(case.body, dict) and case.body.get("all") is True:
        case.query.pop("user_id", None)
        case.headers.pop(USER_HEADER, None)
        if SHARED:
            _spare_the_others(case.body)
    elif case.query.get("user_id") in USERS and case.headers.get(USER_HEADER) in USERS:
        case.headers[USER_HEADER] = case.query["user_id"]
    elif SHARED and any(one.name == "user_id" for one in case.operation.query):
        # Without a name it would be the master key's own login.
        named = case.headers.get(USER_HEADER)
        case.query.setdefault("user_id", named if named in USERS else USERS[0])


def _names_somebody(value: str) -> bool:
    return 0 < len(value) <= 255 and value.isprintable() and value == value.strip()


def _spare_the_others(body: dict[str, Any]) -> None:
    """Let a refresh of all users find nobody who is due."""
    if body.get("force") is True:
        body["force"] = False
    if isinstance(body.get("min_validity"), int | float):
        body["min_validity"] = 0
