"""Who is calling, and for whom they may act. Knows the shape of LiteLLM's answer, not LiteLLM.

``default`` is the master key's alone. A key that belongs to a user acts for that user. An administrator may
name another user, by the header ``x-litellm-oauth-user`` or, on our own routes, by ``?user_id=``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..errors import Forbidden, InvalidInput
from ..tokens import check_user_id

DEFAULT_USER = "default"
USER_HEADER = "x-litellm-oauth-user"

# LiteLLM gives its master key this user id and this role.
_MASTER_USER_ID = "default_user_id"
_ADMIN_ROLE = "proxy_admin"


class NotTheirs(Forbidden):
    """Somebody who is no administrator named another user. ``caller`` and ``user`` are for the audit."""

    def __init__(self, caller: str, user: str) -> None:
        super().__init__("Only an administrator may act for another user. Leave the user out.")
        self.caller = caller
        self.user = user


class KeyHolder(Protocol):
    """The part of LiteLLM's ``UserAPIKeyAuth`` that says who holds the key."""

    @property
    def user_id(self) -> str | None: ...

    @property
    def user_role(self) -> object: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: the owner of the key, and whether they may act for others."""

    user_id: str
    is_admin: bool


ANONYMOUS = Caller(user_id=DEFAULT_USER, is_admin=False)


def caller_of(holder: KeyHolder, *, shared_default: bool) -> Caller:
    """The caller behind a key that LiteLLM has accepted.

    Raises Forbidden for a key without a user (unless ``shared_default``), and for a key of a user who is
    named as the master key's own user is: nobody gets ``default`` by choosing a name.
    """
    is_admin = _role(holder) == _ADMIN_ROLE
    if holder.user_id == _MASTER_USER_ID and is_admin:
        return Caller(user_id=DEFAULT_USER, is_admin=True)
    if holder.user_id and holder.user_id not in (_MASTER_USER_ID, DEFAULT_USER):
        return Caller(user_id=check_user_id(holder.user_id), is_admin=is_admin)
    if shared_default:
        return Caller(user_id=DEFAULT_USER, is_admin=is_admin)
    if holder.user_id:
        raise Forbidden(
            f"The login {DEFAULT_USER!r} belongs to the master key alone. Use a key of another user."
        )
    raise Forbidden(
        "This key belongs to no user, so it has no login of its own. Use a key that was made for a user "
        "(user_id), or ask the operator to set shared_default."
    )


def user_to_act_for(caller: Caller, *named: str | None) -> str:
    """The user whose login is meant: the caller's own, or the one that a header or a parameter names.

    Raises InvalidInput for names that contradict each other or are no user id, Forbidden where somebody who
    is no administrator names somebody else.
    """
    names = {name for name in named if name is not None}
    if not names:
        return caller.user_id
    if len(names) > 1:
        raise InvalidInput(
            f"The header {USER_HEADER} and the parameter user_id name different users; send one."
        )
    user = check_user_id(names.pop())
    if user != caller.user_id and not caller.is_admin:
        raise NotTheirs(caller.user_id, user)
    return user


def named_in_header(values: Sequence[str]) -> str | None:
    """The user that the header ``x-litellm-oauth-user`` names; ``values`` are all that the request has of it.

    Raises InvalidInput where there are several, of which each reader would take another one, and for
    characters beyond ASCII, which headers have no agreed form for (RFC 9110 §5.5).
    """
    if not values:
        return None
    if len(values) > 1:
        raise InvalidInput(f"The header {USER_HEADER} is sent more than once; send it once.")
    if not values[0].isascii():
        raise InvalidInput(f"The header {USER_HEADER} holds characters beyond ASCII; send user_id instead.")
    return values[0]


def _role(holder: KeyHolder) -> str:
    role = holder.user_role
    return str(getattr(role, "value", role))
