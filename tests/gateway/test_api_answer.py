"""What answers at the API's address is the API, or is told as something else."""

from __future__ import annotations

import httpx
import pytest

from litellm_oauth.gateway.answers import answer_for
from litellm_oauth.gateway.api_answer import demand_the_api
from litellm_oauth.gateway.errors import NotTheApi, RedirectedAnswer


def demand(status: int, kind: str | None, path: str = "/v1/messages", **headers: str) -> None:
    request = httpx.Request("POST", f"https://api.example:8443/base{path}")
    content_type = {} if kind is None else {"content-type": kind}
    demand_the_api(request, httpx.Response(status, headers={**content_type, **headers}), 0.0)


@pytest.mark.parametrize("status", [200, 403, 404, 429, 502, 503, 520])
@pytest.mark.parametrize("kind", ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/models", "/v1/files"])
def test_a_page_for_people_is_not_the_api(status: int, kind: str, path: str) -> None:
    with pytest.raises(NotTheApi, match=r"at api\.example is not the API") as caught:
        demand(status, kind, path)
    assert f"HTTP {status}" in caught.value.message


@pytest.mark.parametrize("kind", ["image/png", "application/xml", "application/soap+xml", "text/xml; a=b"])
@pytest.mark.parametrize("status", [200, 503])
def test_no_message_is_answered_with_a_picture(kind: str, status: int) -> None:
    with pytest.raises(NotTheApi):
        demand(status, kind)
    demand(status, kind, "/v1/files/file_1/content")


def test_what_is_no_kind_at_all_is_not_repeated() -> None:
    with pytest.raises(NotTheApi) as caught:
        demand(200, "image/png\x07" + "x" * 200)
    assert "\x07" not in caught.value.message


@pytest.mark.parametrize(
    ("status", "kind", "path"),
    [
        (200, "application/json", "/v1/messages"),
        (200, "application/json; charset=utf-8", "/v1/messages"),
        (200, "text/event-stream", "/v1/messages"),
        (200, "text/plain", "/v1/messages"),
        (200, None, "/v1/messages"),
        (200, "application/x-jsonl", "/v1/messages/batches/b/results"),
        (200, "text/html", "/v1/files/file_1/content"),
        (200, "application/vnd.of-tomorrow+json", "/v1/messages"),
        (503, "text/plain", "/v1/messages"),
        (429, "application/json", "/v1/messages"),
        (401, "text/html", "/v1/messages"),
    ],
)
def test_all_that_may_be_the_api_s_goes_on(status: int, kind: str | None, path: str) -> None:
    demand(status, kind, path)


def test_a_redirect_is_told_as_one() -> None:
    with pytest.raises(RedirectedAnswer):
        demand(302, "text/html", location="https://elsewhere.example/")


def test_what_it_says_of_a_wait_is_passed_on() -> None:
    with pytest.raises(NotTheApi) as caught:
        demand(503, "text/html", **{"retry-after": "7"})
    answer = answer_for(caught.value)
    assert (answer.status, answer.headers) == (502, {"Retry-After": "7"})
