"""What is said of models that take the caller's own token: whether the API is there, at no user's cost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from litellm_oauth.gateway.health import Health, _asking
from litellm_oauth.http_client import http_client

BASE = "https://api.example"


class Api(httpx.AsyncBaseTransport):
    def __init__(self, answer: httpx.Response | Exception) -> None:
        self.answer = answer
        self.got: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.got.append(request)
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def model(**params: str) -> dict[str, Any]:
    return {"litellm_params": {"model": "anthropic/m", "api_base": BASE, "api_key": "oauth", **params}}


def provider_of(params: Mapping[str, Any]) -> str:
    return str(params["model"]).split("/")[0]


def health(api: Api) -> Health:
    return Health(http_client(transport=api), provider_of, (BASE,))


@pytest.mark.parametrize("status", [200, 400, 401, 403, 405, 429])
async def test_an_api_that_refuses_a_call_without_credentials_is_there(status: int) -> None:
    api = Api(httpx.Response(status))
    assert await health(api).of(model()) == {}
    (asked,) = api.got
    assert (asked.method, str(asked.url)) == ("POST", f"{BASE}/v1/messages")
    assert {"authorization", "x-api-key"} & set(asked.headers) == set()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(503), "answers HTTP 503"),
        (httpx.Response(404), "There is no API at https://api.example"),
        (httpx.Response(302, headers={"location": "https://login.example"}), "There is no API"),
        (httpx.ConnectTimeout("x"), "did not answer (ConnectTimeout)"),
    ],
)
async def test_an_api_that_is_not_there_is_said_to_be_so(
    answer: httpx.Response | Exception, said: str
) -> None:
    assert said in (await health(Api(answer)).of(model()))["error"]


@pytest.mark.parametrize("params", [{"api_base": "https://else.example"}, {"model": "openai/m"}])
async def test_a_model_that_no_token_may_go_to_is_not_asked(params: dict[str, str]) -> None:
    api = Api(httpx.Response(200))
    assert "no token is sent" in (await health(api).of(model(**params)))["error"]
    assert api.got == []


async def test_models_of_one_api_are_one_question() -> None:
    api = Api(httpx.Response(401))
    looking = health(api)
    assert await asyncio.gather(*(looking.of(model(model=f"anthropic/{n}")) for n in range(8))) == [{}] * 8
    assert len(api.got) == 1
    # And a later check asks again.
    api.answer = httpx.Response(500)
    assert "error" in await looking.of(model())


async def test_other_models_are_litellm_s_to_check() -> None:
    asked = []

    async def original(deployment: Mapping[str, Any]) -> dict[str, str]:
        asked.append(deployment["litellm_params"]["api_key"])
        return {"error": "of LiteLLM"}

    check = _asking(health(Api(httpx.Response(401))), original)
    assert await check(model(api_key="obviously-fake")) == {"error": "of LiteLLM"}
    assert await check(model()) == {}
    assert asked == ["obviously-fake"]


async def test_a_check_that_is_given_up_takes_the_answer_from_nobody_else() -> None:
    looking = health(Api(httpx.Response(401)))
    given_up, other = (asyncio.create_task(looking.of(model())) for _ in range(2))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await other == {}
