"""Who a key belongs to, and for whom its holder may act."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pytest

from litellm_oauth.errors import Forbidden, InvalidInput
from litellm_oauth.gateway.identity import Caller, caller_of, named_in_header, user_to_act_for


class Role(StrEnum):
    """LiteLLM's roles are an enumeration of texts."""

    PROXY_ADMIN = "proxy_admin"
    INTERNAL_USER = "internal_user"


@dataclass
class Holder:
    user_id: str | None
    user_role: object = Role.INTERNAL_USER


MASTER = Holder("default_user_id", Role.PROXY_ADMIN)


def test_the_master_key_owns_default_and_is_an_administrator() -> None:
    assert caller_of(MASTER, shared_default=False) == Caller("default", is_admin=True)


def test_a_role_given_as_plain_text_counts_as_well() -> None:
    assert caller_of(Holder("default_user_id", "proxy_admin"), shared_default=False).is_admin


def test_a_users_key_acts_for_that_user() -> None:
    assert caller_of(Holder("alice"), shared_default=False) == Caller("alice", is_admin=False)


def test_an_administrator_of_another_name_has_a_login_of_their_own() -> None:
    assert caller_of(Holder("carol", Role.PROXY_ADMIN), shared_default=False) == Caller(
        "carol", is_admin=True
    )


@pytest.mark.parametrize("user_id", [None, ""])
def test_a_key_without_a_user_is_forbidden_and_told_why(user_id: str | None) -> None:
    with pytest.raises(Forbidden, match="belongs to no user"):
        caller_of(Holder(user_id), shared_default=False)


@pytest.mark.parametrize("user_id", ["default", "default_user_id"])
def test_nobody_gets_the_master_keys_login_by_choosing_a_name(user_id: str) -> None:
    with pytest.raises(Forbidden, match="master key alone"):
        caller_of(Holder(user_id), shared_default=False)


@pytest.mark.parametrize("user_id", [None, "default", "default_user_id"])
def test_shared_default_lets_them_use_default_without_making_them_administrators(user_id: str | None) -> None:
    assert caller_of(Holder(user_id), shared_default=True) == Caller("default", is_admin=False)


def test_a_user_id_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(InvalidInput):
        caller_of(Holder("a\nb"), shared_default=False)


def test_who_names_nobody_acts_for_themselves() -> None:
    assert user_to_act_for(Caller("alice", is_admin=False), None, None) == "alice"


def test_an_administrator_acts_for_the_named_user() -> None:
    assert user_to_act_for(Caller("default", is_admin=True), "alice", None) == "alice"
    assert user_to_act_for(Caller("default", is_admin=True), None, "alice") == "alice"


def test_anybody_else_may_name_only_themselves() -> None:
    alice = Caller("alice", is_admin=False)
    assert user_to_act_for(alice, "alice") == "alice"
    with pytest.raises(Forbidden, match="Only an administrator"):
        user_to_act_for(alice, "bob")


def test_a_header_and_a_parameter_that_differ_are_refused() -> None:
    with pytest.raises(InvalidInput, match="different users"):
        user_to_act_for(Caller("default", is_admin=True), "alice", "bob")


def test_an_empty_name_is_refused_and_does_not_mean_oneself() -> None:
    with pytest.raises(InvalidInput):
        user_to_act_for(Caller("default", is_admin=True), "")


def test_a_header_names_a_user_once_and_in_ascii() -> None:
    assert named_in_header([]) is None
    assert named_in_header(["alice"]) == "alice"
    with pytest.raises(InvalidInput, match="more than once"):
        named_in_header(["alice", "bob"])
    with pytest.raises(InvalidInput, match="beyond ASCII"):
        named_in_header(["rv-\u00e9"])
