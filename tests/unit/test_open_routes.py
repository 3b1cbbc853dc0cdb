"""Which routes of LiteLLM an operator may open to users' keys."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from litellm_oauth.open_routes import CLOSED, OPEN, closed_by, fault_of, faults_of

ROOT = Path(__file__).resolve().parents[2]
# Of the LiteLLM that is pinned; scripts/litellm_lists.py writes it.
LISTS: dict[str, Any] = json.loads(Path(__file__).with_name("litellm_lists.json").read_text())
# Routes for calls of models that LiteLLM does not count among them, or that concern the caller alone.
HARMLESS = {
    *("/api/event_logging/batch", "/queue/chat/completions", "/utils/supported_openai_params"),
    *("/a2a/{agent_id}/.well-known/agent.json", "/toolset/{toolset_name}/mcp"),
    *("/models/{model_id}", "/v1/models/{model_id}", "/v1/skills/{skill_id}/archive"),
    *("/fine_tuning/jobs/{fine_tuning_job_id:path}", "/v1/fine_tuning/jobs/{fine_tuning_job_id:path}"),
    *("/videos/characters/{character_id}", "/v1/videos/characters/{character_id}"),
    *("/v1/memory", "/v1/memory/{key:path}"),
    *("/v1/evals", "/v1/evals/{eval_id}", "/v1/evals/{eval_id}/cancel", "/v1/evals/{eval_id}/runs"),
    "/v1/evals/{eval_id}/runs/{run_id}",
}


def as_pattern(route: str) -> str:
    """A route of LiteLLM as an inventory would write it."""
    return re.sub(r"\{[^}]*\}", "{name}", route)


def matches(route: str, pattern: str) -> bool:
    """Whether LiteLLM's pattern matches a route."""
    parts = re.split(r"(\{[^}]*\}|\*)", pattern)
    expression = "".join(
        ".+" if p == "*" or ":path" in p else "[^/]+" if p.startswith("{") else re.escape(p) for p in parts
    )
    return re.fullmatch(expression, re.sub(r"\{[^}]*\}", "x", route)) is not None


def test_the_lists_are_those_of_the_pinned_litellm() -> None:
    """With another LiteLLM, write them again and look at what these tests then say."""
    pinned = re.search(r"^litellm\[proxy\]==(\S+)", (ROOT / "requirements/gateway.in").read_text(), re.M)
    assert pinned is not None
    assert LISTS["version"] == pinned[1]


@pytest.mark.parametrize("route", [r for r in LISTS["management_routes"] if r not in OPEN])
def test_no_route_of_litellm_s_management_can_be_opened(route: str) -> None:
    if re.fullmatch(r"/(v1/)?models(/\{model_id\})?", route):
        assert (
            fault_of(as_pattern(route)) is None
        )  # LiteLLM lists them twice: every client asks for the models
    else:
        assert fault_of(as_pattern(route)) is not None


def test_what_can_be_opened_are_apis_of_models() -> None:
    opened = {
        route
        for route in LISTS["routes"]
        if route != "/" and closed_by(as_pattern(route)) is None and not as_pattern(route).startswith("/{")
    }
    assert "/v1/rerank" in opened
    assert {r for r in opened if not any(matches(r, m) for m in LISTS["model_routes"])} == HARMLESS


def test_each_entry_of_the_table_closes_a_route_that_litellm_has() -> None:
    """An entry that closes nothing is a slip of the pen, unless it is there for the whole family."""
    families = {"/in_product_nudges", "/logout", "/docs", "/metrics", "/auth", "/prompt"}
    idle = {c for c in CLOSED if not any(closed_by(as_pattern(r)) == c for r in LISTS["routes"])}
    assert idle <= families


@pytest.mark.parametrize(
    "route",
    [
        *(
            "/v1/rerank",
            "/v1/files/{file_id}",
            "/v1/files/*",
            "/v1/vector_stores/{id}/files/{file_id}/content",
        ),
        *("/models/{model}", "/openai/*", "/model/info", "/v1/model/info", "/mcp", "/mcp/*", "/v1/mcp/tools"),
        *(
            "/claude-code/plugins",
            "/claude-code/plugins/{name}",
            "/utils",
            "/mcp-rest/tools/list",
            "/a2a/{agent}",
        ),
        *("/keyring", "/v1/users-of-something", "/gemini/v1beta/models/{model}", "/~x/a._-b"),
    ],
)
def test_an_api_of_models_is_opened(route: str) -> None:
    assert fault_of(route) is None


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ("/key/generate", "would open /key"),
        ("/key", "would open /key"),
        ("/v2/key/info", "would open /key"),
        ("/v1/key/*", "would open /key"),
        ("/v1/*", "would open /key"),
        ("/v1/{anything}", "would open /key"),
        ("/v1/{a}/{b}", "would open /key"),
        ("/model/new", "would open /model"),
        ("/model/*", "would open /model"),
        ("/model/{verb}", "would open /model"),
        ("/model/info/x", "would open /model"),
        ("/v1/mcp/*", "would open /mcp"),
        ("/v1/mcp/server", "would open /mcp"),
        ("/auth/claude/oauth/users", "would open /auth"),
        ("/auth/*", "would open /auth"),
        ("/scim/v2/Users", "would open /scim"),
        ("/claude-code/plugins/x/enable", "would open /claude-code/plugins/{}/enable"),
        ("/claude-code/plugins/*", "would open /claude-code/plugins/{}/enable"),
        ("/utils/*", "would open /utils/"),
        ("/openapi.json", "would open /openapi.json"),
        ("/*", "would open every route"),
        ("/{a}/b", "first segment is not written out"),
        ("/", "empty segment"),
        ("/v1/rerank/", "empty segment"),
        ("/v1//rerank", "empty segment"),
        ("/v1/../key/generate", ". or .."),
        ("/v1/./rerank", ". or .."),
        ("v1/rerank", "does not begin with /"),
        ("/v1/rerank?x=1", "character that no route has"),
        ("/v1/%2e%2e/key", "character that no route has"),
        ("/v1/rerank\n", "character that no route has"),
        ("/v1/models/{m}:generate", "character that no route has"),
        ("/v1/files/*/content", "* is not the last segment"),
        ("/v1/files*", "not whole segments"),
        ("/v1/files/{}", "not whole segments"),
        ("/v1/files/{a}{b}", "not whole segments"),
        ("/v1/files/x{a}", "not whole segments"),
        ("/v1/files/{a", "not whole segments"),
        ("", "no route"),
        (7, "no route"),
        (None, "no route"),
    ],
    ids=str,
)
def test_what_is_no_api_of_models_or_no_route_is_refused_with_the_reason(route: object, fault: str) -> None:
    said = fault_of(route)
    assert said is not None
    assert fault in said
    assert "; " in said  # and the mend


def test_a_list_s_faults_are_each_said_once() -> None:
    assert faults_of(["/v1/rerank"]) == []
    assert len(faults_of(["/key/info", "/key/info"])) == 2
    assert faults_of(["/v1/rerank", "/v1/rerank"]) == ["holds /v1/rerank twice; name it once"]
    assert faults_of("/v1/rerank") == ["is no list; write [/v1/rerank, /v1/files/{file_id}]"]
    assert faults_of({"/v1/rerank": True}) != []
