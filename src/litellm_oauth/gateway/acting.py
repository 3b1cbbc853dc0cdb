"""For whom a request acts. Who tries to act for somebody else leaves a line in the audit."""

from __future__ import annotations

from collections.abc import Callable

from ..results import Actor
from ..service import TokenService
from .identity import Caller, NotTheirs, user_to_act_for


async def acting_for(
    service: Callable[[], TokenService], caller: Caller, origin: str, *named: str | None
) -> str:
    """``identity.user_to_act_for``, which says what it raises. ``origin``: where the request came from."""
    try:
        return user_to_act_for(caller, *named)
    except NotTheirs as error:
        await service().note_refusal(error.user, actor=Actor(error.caller, origin))
        raise
