"""PKCE by RFC 7636."""

from __future__ import annotations

import re

from litellm_oauth.pkce import new_challenge, s256, state_hash


def test_the_challenge_is_that_of_the_rfc_for_its_example() -> None:
    # RFC 7636, appendix B.
    assert (
        s256("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    )


def test_a_verifier_has_43_to_128_unreserved_characters() -> None:
    assert re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", new_challenge().verifier)


def test_verifier_and_state_are_random_and_never_the_same() -> None:
    made = [new_challenge() for _ in range(20)]
    assert len({item.verifier for item in made} | {item.state for item in made}) == 40


def test_neither_verifier_nor_state_is_in_the_repr() -> None:
    made = new_challenge()
    assert made.verifier not in repr(made)
    assert made.state not in repr(made)


def test_of_a_state_only_its_hash_is_stored() -> None:
    assert state_hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
