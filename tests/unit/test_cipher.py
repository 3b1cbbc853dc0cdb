"""The cipher: what is sealed for one row and field opens there only, with the keys of the ring only."""

from __future__ import annotations

import base64

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from litellm_oauth.cipher import Cipher
from litellm_oauth.errors import SettingsError, Unreadable
from litellm_oauth.keys import decode_key

KEY, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4
RAW = bytes.fromhex(KEY)
CIPHER = Cipher(KEY)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(texts, texts, texts)
def test_every_value_comes_back(value: str, user: str, field: str) -> None:
    assert CIPHER.decrypt(CIPHER.encrypt(value, user=user, field=field), user=user, field=field) == value


@given(texts, st.tuples(texts, texts), st.tuples(texts, texts))
def test_a_value_opens_in_no_other_row_or_field(
    value: str, here: tuple[str, str], there: tuple[str, str]
) -> None:
    sealed = CIPHER.encrypt(value, user=here[0], field=here[1])
    if here != there:
        with pytest.raises(Unreadable):
            CIPHER.decrypt(sealed, user=there[0], field=there[1])


def test_the_border_between_user_and_field_cannot_be_moved() -> None:
    sealed = CIPHER.encrypt("x", user="ab", field="c")
    with pytest.raises(Unreadable):
        CIPHER.decrypt(sealed, user="a", field="bc")


@given(st.data())
def test_a_value_with_any_changed_character_does_not_open(data: st.DataObject) -> None:
    # What is drawn depends on the sealed value, so that has to be the same each time.
    sealed = Cipher(KEY, random_bytes=bytes).encrypt("a token", user="alice", field="access_token")
    start = sealed.rindex(".") + 1
    at = data.draw(st.integers(start, len(sealed) - 2))
    new = data.draw(st.sampled_from("ABCabc019-_").filter(lambda c: c != sealed[at]))
    with pytest.raises(Unreadable):
        CIPHER.decrypt(sealed[:at] + new + sealed[at + 1 :], user="alice", field="access_token")


@given(st.text(max_size=80))
def test_garbage_is_unreadable_and_nothing_else(value: str) -> None:
    for text in (value, f"v1.{CIPHER.key_id}.{value}", f"gAAAAA{value}"):
        with pytest.raises(Unreadable):
            CIPHER.decrypt(text, user="alice", field="access_token")


def test_the_form_is_version_key_id_and_base64url_without_padding() -> None:
    version, key_id, text = CIPHER.encrypt("abc", user="a", field="f").split(".")
    assert version == "v1"
    assert key_id == CIPHER.key_id
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    assert len(raw) == 12 + len("abc") + 16


def test_the_same_value_is_sealed_differently_each_time() -> None:
    assert len({CIPHER.encrypt("x", user="a", field="f") for _ in range(50)}) == 50


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        KEY.upper(),
        base64.b64encode(RAW).decode(),
        base64.urlsafe_b64encode(RAW).decode(),
        base64.urlsafe_b64encode(RAW).decode().rstrip("="),
    ],
)
def test_a_key_is_the_same_in_every_shape_it_may_be_written_in(text: str) -> None:
    assert decode_key(text) == RAW
    assert Cipher(text).decrypt(CIPHER.encrypt("x", user="a", field="f"), user="a", field="f") == "x"


def test_old_keys_still_open_and_the_first_one_seals() -> None:
    old = Cipher(OTHER).encrypt("x", user="a", field="f")
    ring = Cipher(KEY, [OTHER])
    assert ring.decrypt(old, user="a", field="f") == "x"
    assert ring.encrypt("y", user="a", field="f").startswith(f"v1.{CIPHER.key_id}.")


def test_a_value_of_an_unknown_key_says_which_key_is_missing() -> None:
    with pytest.raises(Unreadable, match=Cipher(OTHER).key_id):
        CIPHER.decrypt(Cipher(OTHER).encrypt("x", user="a", field="f"), user="a", field="f")


def test_the_key_id_does_not_give_away_the_key() -> None:
    assert CIPHER.key_id not in KEY
    assert KEY not in repr(CIPHER.__dict__)


def test_fernet_values_are_read_where_the_key_is_a_fernet_key() -> None:
    key = Fernet.generate_key()
    value = Fernet(key).encrypt(b"old token").decode()
    assert Cipher(key.decode()).decrypt(value, user="a", field="f") == "old token"
    assert Cipher(KEY, [key.decode()]).decrypt(value, user="a", field="f") == "old token"
    with pytest.raises(Unreadable):
        CIPHER.decrypt(value, user="a", field="f")


@pytest.mark.parametrize("key", ["", "short", KEY + "0", "=" * 44, "A" * 44])
def test_a_missing_or_malformed_key_is_refused_and_none_is_made_up(key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Cipher(key)
    assert not key or key not in caught.value.message


def test_a_check_value_is_matched_by_its_own_key_only() -> None:
    check = CIPHER.check_value()
    assert CIPHER.matches(CIPHER.key_id, check)
    assert Cipher(OTHER, [KEY]).matches(CIPHER.key_id, check)
    assert not Cipher(OTHER).matches(CIPHER.key_id, check)
    assert not CIPHER.matches("0" * 16, check)
