"""What a client sends is checked field by field, and every fault is named without its value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_oauth.errors import InvalidInput
from litellm_oauth.gateway import bodies


def test_an_empty_body_is_an_empty_object() -> None:
    assert bodies.parse_object(b" \n", ("code",)) == {}


@pytest.mark.parametrize(
    "raw", [b"{", b"[]", b'"x"', b"\xff", b"null", b'{"force": NaN}', b"[" * 50_000, b'{"code": 1e999}x']
)
def test_what_is_not_a_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput, match="JSON"):
        bodies.parse_object(raw, ("code", "force"))


def test_a_body_beyond_the_limit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="larger"):
        bodies.parse_object(b" " * (bodies.MAX_BODY_BYTES + 1), ())


def test_an_unknown_field_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(InvalidInput, match="Known: code, state"):
        bodies.parse_object(b'{"codes": "secret"}', ("code", "state"))


def test_a_misspelt_query_parameter_does_not_act_for_somebody_else() -> None:
    with pytest.raises(InvalidInput, match="Known: user_id"):
        bodies.parse_query([("user", "alice")], ("user_id",))


def test_a_query_parameter_sent_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        bodies.parse_query([("user_id", "a"), ("user_id", "b")], ("user_id",))


@pytest.mark.parametrize("value", [1, True, ["a"], {"a": 1}, "x" * 9_000, "\x00", "\ud800"])
def test_a_text_that_is_none_is_refused_without_being_repeated(value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        bodies.text({"code": value}, "code")
    assert "xxx" not in caught.value.message


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_required_text_that_is_missing_says_what_belongs_there(value: Any) -> None:
    with pytest.raises(InvalidInput, match="send the code"):
        bodies.required_text({"code": value}, "code", "the code")


@pytest.mark.parametrize(("value", "meant"), [(True, True), ("true", True), ("1", True), ("No", False)])
def test_booleans_come_as_json_or_as_query_text(value: Any, meant: bool) -> None:
    assert bodies.boolean({"force": value}, "force") is meant


@pytest.mark.parametrize("value", [1, "maybe", None, []])
def test_anything_else_is_no_boolean(value: Any) -> None:
    with pytest.raises(InvalidInput, match="true or false"):
        bodies.boolean({"force": value}, "force")


@pytest.mark.parametrize("value", [-1, True, "60", float("inf"), 10**400, []])
def test_seconds_are_a_number_that_is_not_negative(value: Any) -> None:
    with pytest.raises(InvalidInput, match="number of seconds"):
        bodies.seconds({"min_validity": value}, "min_validity")


@pytest.mark.parametrize("value", ["0", "1001", "-1", "1.5", "x", "", "²", "9" * 5_000])
def test_a_page_has_one_to_a_thousand_users(value: str) -> None:
    with pytest.raises(InvalidInput, match="from 1 to 1000"):
        bodies.count({"limit": value}, "limit", default=100, high=1000)


@given(st.binary(max_size=200))
def test_no_body_makes_anything_but_an_object_or_invalid_input(raw: bytes) -> None:
    try:
        value = bodies.parse_object(raw, ("code", "state"))
    except InvalidInput:
        return
    assert set(value) <= {"code", "state"}
