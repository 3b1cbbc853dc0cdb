"""What a request leaves behind on its way through LiteLLM, for whoever answers it."""

from __future__ import annotations

import asyncio

import pytest

from litellm_oauth.gateway.exchange import Exchange, current, is_for_the_client, origin_or


@pytest.mark.parametrize(
    "name",
    [
        "retry-after",
        "Retry-After",
        "RETRY-AFTER-MS",
        "request-id",
        "X-Request-Id",
        "x-should-retry",
        "anthropic-ratelimit-requests-limit",
        "Anthropic-Organization-Id",
        "x-ratelimit-remaining-requests",
    ],
)
def test_what_the_api_says_of_its_answer_is_for_the_client(name: str) -> None:
    assert is_for_the_client(name)


@pytest.mark.parametrize(
    "name",
    [
        "set-cookie",
        "Set-Cookie2",
        "content-type",
        "content-length",
        "transfer-encoding",
        "connection",
        "server",
        "location",
        "www-authenticate",
        "authorization",
        "x-anthropic-x",
        "ratelimit",
        "x-ratelimit",
        "cf-ray",
        "",
    ],
)
def test_nothing_else_is(name: str) -> None:
    assert not is_for_the_client(name)


def test_the_last_answer_counts() -> None:
    exchange = Exchange()
    exchange.begin("https://api.example")
    exchange.note(429, [("Retry-After", "3"), ("Set-Cookie", "a=b")])
    exchange.note(200, [("Request-Id", "r")])
    assert (exchange.status, exchange.headers) == (200, {"request-id": "r"})


def test_of_a_new_attempt_nothing_is_known_but_that_the_api_was_asked() -> None:
    exchange = Exchange(origin="10.0.0.1", lends_keys=True)
    exchange.begin("https://api.example")
    exchange.asked = True
    exchange.note(429, [("retry-after", "3")])
    exchange.begin("https://other.example")
    assert (exchange.api_base, exchange.status, exchange.headers) == ("https://other.example", None, {})
    assert (exchange.asked, exchange.lends_keys, exchange.origin) == (True, True, "10.0.0.1")


def test_what_went_out_before_the_api_was_known_was_not_for_it() -> None:
    exchange = Exchange(asked=True)
    exchange.begin("https://api.example")
    assert not exchange.asked


def test_two_requests_share_nothing() -> None:
    one, other = Exchange(), Exchange()
    one.headers["request-id"] = "r"
    assert other.headers == {}


def test_no_key_is_lent_unless_it_is_said() -> None:
    assert not Exchange().lends_keys


async def test_tasks_and_threads_of_a_request_find_its_exchange_and_others_do_not() -> None:
    assert origin_or("nobody") == "nobody"
    exchange = Exchange("10.0.0.1")

    async def serve() -> list[Exchange | None]:
        current.set(exchange)

        async def deeper() -> Exchange | None:
            return current.get()

        return [await asyncio.create_task(deeper()), await asyncio.to_thread(current.get)]

    assert await asyncio.create_task(serve()) == [exchange, exchange]
    assert current.get() is None


def test_the_origin_of_the_request_that_is_answered() -> None:
    token = current.set(Exchange("10.0.0.1"))
    try:
        assert origin_or("nobody") == "10.0.0.1"
    finally:
        current.reset(token)
