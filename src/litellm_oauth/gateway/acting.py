"""For whom a request acts. Who tries to act for somebody else leaves a line in the audit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..results import Actor
from ..service import TokenService
from .identity import Caller, KeyHolder, NotTheirs, caller_of, named_in_header, user_to_act_for
from .runtime import Runtime


async def acting_for(
    service: Callable[[], TokenService], caller: Caller, origin: str, *named: str | None
) -> str:
    """``identity.user_to_act_for``, which says what it raises. ``origin``: where the request came from."""
    try:
        return user_to_act_for(caller, *named)
    except NotTheirs as error:
        await service().note_refusal(error.user, actor=Actor(error.caller, origin))
        raise


async def user_behind(holder: KeyHolder, named: Sequence[str], origin: str, runtime: Runtime) -> str:
    """Whose login a request for a model uses.

    ``holder``: what LiteLLM knows of the key. ``named``: all that the header ``x-litellm-oauth-user`` says.
    Raises Forbidden, InvalidInput.
    """
    caller = caller_of(holder, shared_default=runtime.settings.shared_default)
    return await acting_for(lambda: runtime.service, caller, origin, named_in_header(named))
