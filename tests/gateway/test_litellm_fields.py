"""Which messages have something of LiteLLM's own, so that it has a part in them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_oauth.gateway.litellm_fields import (
    asks_litellm,
    fallback_names,
    litellm_fields,
    lost_in_the_router,
    models_of_fallbacks,
    routed_fields,
)

MESSAGE = {"model": "ours", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
# Of LiteLLM 1.106.2, which is not installed here: some of its parameters, and what its router hands on.
PARAMETERS = [
    "api_base",
    "api_key",
    "cache",
    "custom_llm_provider",
    "fallbacks",
    "guardrails",
    "litellm_metadata",
    "metadata",
    "mock_response",
    "num_retries",
    "tags",
]
ROUTED = [
    "cache_control",
    "container",
    "context_management",
    "max_tokens",
    "mcp_servers",
    "metadata",
    "output_config",
    "reasoning_effort",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
]


@pytest.fixture(autouse=True, scope="module")
def litellm() -> Iterator[None]:
    """The two modules of LiteLLM that are asked for names of fields."""
    utils, anthropic = ModuleType("litellm.types.utils"), ModuleType("litellm.types.llms.anthropic")
    vars(utils)["all_litellm_params"] = PARAMETERS
    optional = type("AnthropicMessagesRequestOptionalParams", (), {"__annotations__": dict.fromkeys(ROUTED)})
    vars(anthropic)[optional.__name__] = optional
    packages = [ModuleType(name) for name in ("litellm", "litellm.types", "litellm.types.llms")]
    with pytest.MonkeyPatch.context() as patch:
        for module in (*packages, utils, anthropic):
            patch.setitem(sys.modules, module.__name__, module)
        yield
    litellm_fields.cache_clear()
    routed_fields.cache_clear()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"stream": True, "system": "s", "temperature": 1, "tools": [], "tool_choice": {"type": "auto"}},
        {"metadata": {"user_id": "u"}, "thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"metadata": {"tags": ["t"]}},
        {"metadata": "text"},
        {"a_field_of_tomorrow": 1, "sytem": "typo", "betas": ["b"]},
        {"fallbacks": [{"model": "a"}, {"model": "b", "max_tokens": 1}]},
        {"fallbacks": []},
    ],
    ids=str,
)
def test_a_message_without_a_field_of_litellm_s_is_the_api_s(more: dict[str, Any]) -> None:
    headers = ["authorization", "x-litellm-oauth-user", "x-litellm-api-key", "anthropic-beta"]
    assert not asks_litellm({**MESSAGE, **more}, headers)


@pytest.mark.parametrize(
    "more",
    [
        {"fallbacks": ["by-key"]},
        {"fallbacks": [{"ours": ["by-key"]}]},
        {"fallbacks": [{"model": "a"}, "by-key"]},
        {"fallbacks": [{"model": None}]},
        {"num_retries": 2},
        {"guardrails": ["g"]},
        {"litellm_metadata": {}},
        {"mock_response": "x"},
        {"api_key": "sk-own"},
        {"api_base": "https://elsewhere.example"},
        {"base_url": "https://elsewhere.example"},
        {"cache": {"no-cache": True}},
        *({name: "x"} for name in ("user", "tags", "timeout", "extra_headers", "custom_llm_provider")),
        {"router_settings_override": {"fallbacks": []}},
        {"api_key": None},
    ],
    ids=str,
)
def test_a_field_of_litellm_s_makes_it_litellm_s(more: dict[str, Any]) -> None:
    assert asks_litellm({**MESSAGE, **more}, [])


@pytest.mark.parametrize("name", ["x-litellm-timeout", "x-litellm-tags", "x-litellm-num-retries"])
def test_a_header_of_litellm_s_makes_it_litellm_s(name: str) -> None:
    assert asks_litellm(MESSAGE, [name])


def test_what_the_router_would_leave_out_is_told() -> None:
    document = {
        **MESSAGE,
        "tools": [],
        "metadata": {},
        "fallbacks": [],
        "num_retries": 1,
        "zeta": 1,
        "alpha": 2,
    }
    assert lost_in_the_router(document) == ["alpha", "zeta"]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("a", {"a"}),
        (["a", "b"], {"a", "b"}),
        ([{"model": "a"}], {"a"}),
        ([{"a": ["b", "c"]}], {"a", "b", "c"}),
        ([{"a": [{"model": "b"}]}], {"a", "b"}),
        ([{"a": ["b"], "c": ["d"]}], {"a", "b", "c", "d"}),
        ([{"model": "a", "messages": ["b"]}], {"a", "messages", "b"}),
        (None, set()),
        (7, set()),
        ([None, 1, {}], set()),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_all_models_of_fallbacks_in_all_forms(value: object, names: set[str]) -> None:
    assert set(fallback_names(value)) == names


@pytest.mark.parametrize("field", ["fallbacks", "context_window_fallbacks", "content_policy_fallbacks"])
@pytest.mark.parametrize("nested", [False, True])
def test_each_kind_of_fallback_is_looked_into(field: str, nested: bool) -> None:
    document: dict[str, Any] = {field: ["closed"]}
    if nested:
        document = {"router_settings_override": document}
    assert list(models_of_fallbacks(document)) == ["closed"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("model"), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_form_of_fallbacks_makes_looking_into_them_fail(value: Any) -> None:
    assert all(isinstance(name, str) for name in models_of_fallbacks({"fallbacks": value}))
    asks_litellm({"fallbacks": value}, [])
