"""Which of a request's credentials is the gateway's key, and that LiteLLM sees that one alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_oauth.errors import InvalidInput
from litellm_oauth.gateway.credentials import (
    KeyRing,
    candidates,
    is_of_the_provider,
    with_key_alone,
)
from litellm_oauth.gateway.key_digest import digest

MASTER, ALICE, ALICE_2, BOB = "sk-fake-master", "sk-fake-alice", "sk-fake-alice-2", "sk-fake-bob"
LOGIN = "sk-ant-oat01-fake"
RING = KeyRing(MASTER, {digest(ALICE): "alice", digest(ALICE_2): "alice", digest(BOB): "bob"})
HEADERS = [
    "x-litellm-api-key",
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "ocp-apim-subscription-key",
]


def lines(*pairs: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as a server hands them on: names in lower case."""
    return [(name.encode(), value.encode("utf-8")) for name, value in pairs]


def found(*pairs: tuple[str, str]) -> tuple[str, str | None] | None:
    key = RING.find(lines(*pairs))
    return None if key is None else (key.value, key.user)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("form", ["{}", "Bearer {}", "bearer {}", "BEARER  {}", "  Bearer {}  ", "\t{}"])
@pytest.mark.parametrize(("key", "user"), [(MASTER, None), (ALICE, "alice"), (BOB, "bob")])
def test_a_key_is_found_in_every_header_in_every_form(
    header: str, form: str, key: str, user: str | None
) -> None:
    assert found((header, form.format(key))) == (key, user)


@pytest.mark.parametrize("header", ["cookie", "proxy-authorization", "x-key", "authorization2", "x_api_key"])
def test_a_key_in_another_header_is_none(header: str) -> None:
    assert found((header, MASTER)) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Bearer  ",
        f"Basic {ALICE}",
        f"Bearer{ALICE}",
        f"Bearer Bearer {ALICE}",
        f"{ALICE},{ALICE}",
        ALICE.upper(),
        ALICE[:-1],
        f"{ALICE}x",
        f"{ALICE}\x00",
        digest(ALICE),
        "é",
        "None",
    ],
)
def test_what_is_no_key_is_none(value: str) -> None:
    assert found(("authorization", value)) is None


@pytest.mark.parametrize("empty", ["", " ", "Bearer", "Bearer "])
def test_an_empty_header_hides_no_key(empty: str) -> None:
    assert found(("x-litellm-api-key", empty), ("authorization", empty), ("x-api-key", ALICE)) == (
        ALICE,
        "alice",
    )


@pytest.mark.parametrize("other", [LOGIN, "sk-of-somebody", "Basic abc", "é"])
@pytest.mark.parametrize("first", HEADERS)
@pytest.mark.parametrize("second", HEADERS)
def test_an_unknown_credential_beside_a_key_does_not_hide_it(other: str, first: str, second: str) -> None:
    assert found((first, f"Bearer {other}"), (second, ALICE)) == (ALICE, "alice")
    assert found((second, ALICE), (first, f"Bearer {other}")) == (ALICE, "alice")


@pytest.mark.parametrize("first", HEADERS)
@pytest.mark.parametrize("second", HEADERS)
@pytest.mark.parametrize("keys", [(ALICE, BOB), (MASTER, ALICE), (BOB, MASTER)])
def test_keys_of_two_owners_are_refused(first: str, second: str, keys: tuple[str, str]) -> None:
    """Also in two lines of one header."""
    with pytest.raises(InvalidInput, match="two owners") as refusal:
        found((first, f"Bearer {keys[0]}"), (second, keys[1]))
    assert not any(key in refusal.value.message for key in keys)


def test_keys_of_one_owner_are_one() -> None:
    assert found(("authorization", f"Bearer {ALICE}"), ("x-api-key", ALICE)) == (ALICE, "alice")
    assert found(("x-api-key", ALICE_2), ("authorization", f"Bearer {ALICE}")) == (ALICE, "alice")
    assert found(("authorization", MASTER), ("authorization", f"Bearer {MASTER}")) == (MASTER, None)


def test_the_header_that_litellm_reads_first_counts_first() -> None:
    sent = lines(*[(name, f"key-{place}") for place, name in reversed(list(enumerate(HEADERS)))])
    assert list(candidates(sent)) == [f"key-{place}" for place in range(len(HEADERS))]


def test_a_ring_without_a_master_key_knows_the_users_keys_only() -> None:
    ring = KeyRing(None, {digest(ALICE): "alice"})
    assert ring.find(lines(("authorization", "Bearer None"))) is None
    assert ring.find(lines(("authorization", ""))) is None
    assert ring.find(lines(("authorization", ALICE))) is not None


@pytest.mark.parametrize(
    "headers", [lines(("authorization", f"Bearer {MASTER}")), lines(("x-api-key", ALICE))]
)
def test_a_key_is_not_shown(headers: list[tuple[bytes, bytes]]) -> None:
    key = RING.find(headers)
    assert key is not None
    assert key.value not in repr(key)


@pytest.mark.parametrize("raw", [b"\xff\xfe", "sk-é".encode("latin-1"), "sk-é".encode(), b"Bearer \xc3"])
def test_what_is_not_ascii_is_no_key_and_no_fault(raw: bytes) -> None:
    assert RING.find([(b"authorization", raw), (b"x-api-key", ALICE.encode())]) is not None
    assert RING.find([(b"authorization", raw)]) is None


@pytest.mark.parametrize("header", HEADERS)
def test_the_key_alone_is_left(header: str) -> None:
    sent = lines(
        ("host", "gateway"),
        *[(name, LOGIN) for name in HEADERS],
        (header, ALICE),
        ("anthropic-beta", "a"),
        ("cookie", "c=d"),
        ("anthropic-beta", "b"),
    )
    left = with_key_alone(sent, ALICE)
    assert [pair for pair in left if pair[0].decode() in HEADERS] == lines(
        ("authorization", f"Bearer {ALICE}")
    )
    assert [pair for pair in left if pair[0].decode() not in HEADERS] == lines(
        ("host", "gateway"), ("anthropic-beta", "a"), ("cookie", "c=d"), ("anthropic-beta", "b")
    )
    assert LOGIN not in repr(left)


NAMES = st.sampled_from([*HEADERS, "x-other"]).map(str.encode)
VALUES = st.binary(max_size=8) | st.sampled_from([MASTER, ALICE, BOB, f"Bearer {ALICE}", LOGIN, ""]).map(
    str.encode
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5))
def test_whatever_is_sent_one_credential_is_left_and_it_is_the_one_that_was_found(
    sent: list[tuple[bytes, bytes]],
) -> None:
    try:
        key = RING.find(sent)
    except InvalidInput:
        return
    for value in [key.value] if key is not None else candidates(sent):
        left = with_key_alone(sent, value)
        assert list(candidates(left)) == [value]
        again = RING.find(left)
        assert (again is None) is (key is None)
        assert again is None or key is None or again.user == key.user


@pytest.mark.parametrize(
    ("value", "is_login"), [(LOGIN, True), (ALICE, False), ("sk-ant-api03-x", False), ("", False)]
)
def test_a_login_of_the_provider_s_is_told_by_its_form(value: str, is_login: bool) -> None:
    assert is_of_the_provider(value) is is_login


def test_a_digest_is_the_sha_256_of_the_key() -> None:
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest("\ud800") != digest("?")
