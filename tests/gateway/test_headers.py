"""What of a client's headers goes to the API beside a user's token."""

from __future__ import annotations

import pytest

from litellm_oauth.gateway.headers import for_the_api


def test_what_the_api_has_a_use_for_travels_whatever_its_case() -> None:
    sent = {
        "Anthropic-Beta": "a",
        "anthropic-version": "2023-06-01",
        "X-Stainless-Lang": "python",
        "User-Agent": "u",
        "Content-Type": "application/json",
    }
    assert for_the_api(sent) == {name.lower(): value for name, value in sent.items()}


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "X-API-Key",
        "api-key",
        "Proxy-Authorization",
        "Cookie",
        "Host",
        "Transfer-Encoding",
        "Content-Length",
        "x-auth-token",
        "anthropic-auth-token",
        "x-litellm-oauth-user",
    ],
)
def test_nothing_else_does(name: str) -> None:
    assert for_the_api({name: "x", name.lower(): "y", name.upper(): "z"}) == {}


def test_lines_of_one_name_become_a_list() -> None:
    assert for_the_api({"anthropic-beta": "a", "Anthropic-Beta": "b"}) == {"anthropic-beta": "a, b"}


def test_what_is_no_mapping_has_no_headers() -> None:
    assert for_the_api(None) is None
    assert for_the_api("Authorization: x") is None
