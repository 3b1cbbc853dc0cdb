"""Which routes a key opens: those in the list, and no others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_oauth.gateway.route_policy import (
    ASKING,
    Access,
    RoutePolicy,
    is_anthropic,
    model_in,
    without_slash,
)

POLICY = RoutePolicy()
INTERFACE = RoutePolicy(interface=True)


@pytest.mark.parametrize(
    ("path", "access", "methods"),
    [
        ("/", Access.PUBLIC, "GET HEAD"),
        ("/health/liveliness", Access.PUBLIC, "GET HEAD"),
        ("/health/readiness", Access.PUBLIC, "GET HEAD"),
        ("/v1/messages", Access.USER, "POST"),
        ("/v1/messages/count_tokens", Access.USER, "POST"),
        ("/v1/chat/completions", Access.USER, "POST"),
        ("/chat/completions", Access.USER, "POST"),
        ("/v1/responses", Access.USER, "POST"),
        ("/v1/models", Access.USER, "GET HEAD"),
        ("/models", Access.USER, "GET HEAD"),
        ("/openapi.json", Access.USER, "GET HEAD"),
        ("/v1/models/m", Access.USER, "GET HEAD"),
        ("/v1/models/anthropic/m", Access.USER, "GET HEAD"),
        ("/anthropic/v1/messages", Access.USER, "DELETE GET HEAD PATCH POST PUT"),
        ("/anthropic/", Access.USER, "DELETE GET HEAD PATCH POST PUT"),
        ("/auth/claude/oauth/start", Access.OWN, ""),
        ("/auth/claude/oauth/refresh/6f1e0c3e", Access.OWN, ""),
        ("/swagger/swagger-ui.css", Access.PUBLIC, "GET HEAD"),
    ],
)
def test_a_route_of_the_list_has_its_access_and_its_methods(path: str, access: Access, methods: str) -> None:
    verdict = POLICY.of(path)
    assert (verdict.access, " ".join(sorted(verdict.methods))) == (access, methods)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a_route_of_tomorrow",
        "/key/generate",
        "/model/new",
        "/v1/embeddings",
        "/v1/files",
        "/v1/chat/completions/x",
        "/v1/messages/batches",
        "/v1/messages/",
        "/V1/messages",
        "/v1/Messages",
        "//v1/messages",
        "/v1//messages",
        "v1/messages",
        "/v1/messages\n",
        "/v1/messages;x",
        "/x/v1/messages",
        "/v1/models/",
        "/v1/models2",
        "/model/info",
        "/models/m:generateContent",
        "/models/a/b:streamGenerateContent",
        "/v1/models/m:countTokens",
        "/anthropic",
        "/anthropicx/v1",
        "/auth/claude/oauth",
        "/auth/claude/oauth/",
        "/auth/claude/oauth/tokens",
        "/auth/claude/oauth/start/x",
        "/auth/claude/oauth/refresh/x/y",
        "/auth/claude/oauthx",
        "/auth/claude",
        "/health",
        "/health/services",
        "/health/liveliness/x",
        "/ui",
        "/ui/",
        "/ui/login",
        "/login",
        "/sso/callback",
        "/swagger",
        "/docs",
        "/redoc",
        "/engines/m/chat/completions",
        "/openai/deployments/m/chat/completions",
        "/vertex_ai/v1",
        "/mcp",
    ],
)
def test_every_other_route_is_an_administrator_s(path: str) -> None:
    assert POLICY.of(path).access is Access.ADMIN


@pytest.mark.parametrize(
    "path", ["/login", "/v2/login", "/ui/", "/ui/x.js", "/sso/key/generate", "/_next/x", "/get_image"]
)
def test_the_user_interface_is_open_if_it_can_work(path: str) -> None:
    assert INTERFACE.of(path).access is Access.PUBLIC
    assert POLICY.of(path).access is Access.ADMIN


@pytest.mark.parametrize(
    "path", ["/v1/messages", "/key/generate", "/user/new", "/uix", "/sso", "/login/x", "/"]
)
def test_the_user_interface_opens_nothing_else(path: str) -> None:
    assert INTERFACE.of(path) == POLICY.of(path)


@pytest.mark.parametrize(
    ("route", "path"),
    [
        ("/v1/rerank", "/v1/rerank"),
        ("/v1/files/{file_id}", "/v1/files/abc"),
        ("/v1/files/{file_id}", "/v1/files/a.b-c_d é"),
        ("/v1/files/{file_id}/content", "/v1/files/x/content"),
        ("/v1/files/*", "/v1/files/x"),
        ("/v1/files/*", "/v1/files/x/content"),
        ("/v1/{a}/{b}", "/v1/x/y"),
        ("/v1/a.b", "/v1/a.b"),
        ("/models/*", "/models/m:generateContent"),
    ],
)
def test_an_extra_route_is_open(route: str, path: str) -> None:
    verdict = RoutePolicy([route]).of(path)
    assert (verdict.access, verdict.methods) == (Access.EXTRA, frozenset())


@pytest.mark.parametrize(
    ("route", "path"),
    [
        ("/v1/rerank", "/v1/rerank/x"),
        ("/v1/rerank", "/v1/rerankx"),
        ("/v1/rerank", "/x/v1/rerank"),
        ("/v1/rerank", "/v1/rerank\n"),
        ("/v1/files/{file_id}", "/v1/files"),
        ("/v1/files/{file_id}", "/v1/files/"),
        ("/v1/files/{file_id}", "/v1/files/a/b"),
        ("/v1/files/{file_id}/content", "/v1/files//content"),
        ("/v1/files/*", "/v1/files"),
        ("/v1/files/*", "/v1/files/"),
        ("/v1/files/*", "/v1/filesx/y"),
        ("/v1/a.b", "/v1/axb"),
        ("/v1/a+", "/v1/aa"),
    ],
)
def test_an_extra_route_opens_nothing_beside_it(route: str, path: str) -> None:
    assert RoutePolicy([route]).of(path).access is Access.ADMIN


def test_an_extra_route_takes_nothing_from_what_users_have() -> None:
    policy = RoutePolicy(["/v1/*", "/auth/*", "/anthropic/*"])
    for path in ("/v1/messages", "/v1/models/m", "/anthropic/v1/x", "/auth/claude/oauth/start"):
        assert policy.of(path) == POLICY.of(path)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models/m", "m"),
        ("/models/m", "m"),
        ("/v1/models/a/b", "a/b"),
        ("/v1/models/models/x", "models/x"),
        ("/v1/models", None),
        ("/v1/models/", None),
        ("/models", None),
        ("/v1/modelsx/m", None),
        ("/x/models/m", None),
    ],
)
def test_the_model_that_a_path_names(path: str, model: str | None) -> None:
    assert model_in(path) == model


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/", "/"),
        ("//", "/"),
        ("", "/"),
        ("/v1/messages/", "/v1/messages"),
        ("/v1/messages//", "/v1/messages"),
        ("/v1/messages", "/v1/messages"),
        ("/anthropic", "/anthropic/"),
        ("/anthropic/", "/anthropic/"),
        ("/anthropic/v1/messages/", "/anthropic/v1/messages"),
        ("/ui", "/ui/"),
        ("/ui/", "/ui/"),
        ("/ui/x/", "/ui/x/"),
        ("/swagger", "/swagger/"),
        ("/uix/", "/uix"),
    ],
)
def test_a_slash_at_the_end_is_read_as_it_is_meant(path: str, meant: str) -> None:
    assert without_slash(path) == meant
    assert without_slash(meant) == meant


@given(
    st.lists(
        st.sampled_from(["/", "v1", "messages", "models", "ui", "anthropic", "key", "\n", "é", "."])
    ).map("".join)
)
def test_reading_a_path_as_it_is_meant_changes_nothing_but_slashes_at_the_end(path: str) -> None:
    meant = without_slash(path)
    assert meant.rstrip("/") == path.rstrip("/")
    assert without_slash(meant) == meant


@pytest.mark.parametrize("path", sorted(ASKING))
def test_only_errors_of_the_messages_api_have_its_shape(path: str) -> None:
    assert is_anthropic(path) is path.startswith("/v1/messages")
