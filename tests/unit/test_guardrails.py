"""Which guardrails of LiteLLM's an inventory may configure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from litellm_oauth.guardrails import CATEGORIES, GUARDRAILS, PATTERNS, REFUSED, REFUSED_PARAMS, faults_of

# Of the LiteLLM that is pinned; scripts/litellm_lists.py writes it.
LISTS: dict[str, Any] = json.loads(Path(__file__).with_name("litellm_lists.json").read_text())
KEYS = ["GUARDRAIL_KEY", "LANGFUSE_SECRET_KEY"]
KEY = "os.environ/GUARDRAIL_KEY"
URL = "https://guardrail.example.com"
WORD = {"keyword": "secret", "action": "BLOCK"}
EMAIL = {"pattern_type": "prebuilt", "pattern_name": "email", "action": "MASK"}
FILTER = {"guardrail": "litellm_content_filter", "mode": "pre_call", "blocked_words": [WORD]}
SERVICE = {"guardrail": "generic_guardrail_api", "mode": "pre_call", "api_base": URL}
PRESIDIO = {
    "guardrail": "presidio",
    "mode": "pre_call",
    "presidio_analyzer_api_base": "http://analyzer:3000",
    "presidio_anonymizer_api_base": "http://anonymizer:3000",
    "pii_entities_config": {"PERSON": "MASK", "EMAIL_ADDRESS": "BLOCK"},
}
# Of another guardrail, or without an entry in LiteLLM's table of parameters.
UNDECLARED = {"streaming_end_of_stream_only", "streaming_sampling_rate", "streaming_transform_mode", "action"}


def _named(params: object, name: object = "ours", **more: object) -> dict[str, object]:
    return {"guardrail_name": name, "litellm_params": params, **more}


def _fault(params: object) -> str:
    faults = faults_of([_named(params)], KEYS)
    assert len(faults) == 1, faults
    return faults[0]


def test_each_guardrail_is_one_of_litellm_s_with_its_modes_and_parameters() -> None:
    for name, guardrail in GUARDRAILS.items():
        assert set(guardrail.modes) <= set(LISTS["guardrails"][name]), name
        assert set(guardrail.params) - UNDECLARED <= set(LISTS["guardrail_params"]), name
        assert {*guardrail.needs, *guardrail.either} <= set(guardrail.params), name
        assert not set(guardrail.params) & set(REFUSED_PARAMS), name
    assert set(REFUSED) <= set(LISTS["guardrails"])
    assert not set(REFUSED) & set(GUARDRAILS)


def test_words_and_patterns_are_all_that_litellm_has() -> None:
    assert sorted(CATEGORIES) == LISTS["guardrail_categories"]
    assert sorted(PATTERNS) == LISTS["guardrail_patterns"]


@pytest.mark.parametrize(
    "params",
    [
        FILTER,
        {**FILTER, "mode": ["pre_call", "post_call"], "default_on": True, "patterns": [EMAIL]},
        {
            "guardrail": "litellm_content_filter",
            "mode": "during_call",
            "patterns": [
                {"pattern_type": "regex", "pattern": r"\bPRJ-\d+", "name": "prj", "action": "BLOCK"}
            ],
            "categories": [
                {"category": "harmful_self_harm", "action": "BLOCK", "severity_threshold": "high"}
            ],
        },
        SERVICE,
        {
            **SERVICE,
            "api_key": KEY,
            "additional_provider_specific_params": {"level": 3, "names": ["a"]},
            "unreachable_fallback": "fail_open",
            "timeout": 2.5,
        },
        {**SERVICE, "api_base": "http://127.0.0.1:8000", "api_key": KEY},
        {**SERVICE, "api_base": "http://guardrail:8000/path"},
        PRESIDIO,
        {**PRESIDIO, "mode": "logging_only", "presidio_score_thresholds": {"PERSON": 0.5}},
        {"guardrail": "openai_moderation", "mode": "pre_call", "api_key": KEY},
        {"guardrail": "lakera_v2", "mode": "during_call", "api_key": KEY, "on_flagged": "monitor"},
        {"guardrail": "block_code_execution", "mode": "pre_call", "blocked_languages": ["python"]},
    ],
    ids=str,
)
def test_what_litellm_s_documents_show_is_taken(params: dict[str, object]) -> None:
    assert faults_of([_named(params, guardrail_info={"params": []})], KEYS) == []


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("hide-secrets", "is hide-secrets, which is refused: it needs a package"),
        ("bedrock", "is bedrock, which is refused: it needs the cloud's credentials"),
        ("llm_as_a_judge", "it asks a model, for which it has nobody's token; take another one"),
        ("tool_permission", "it looks at chats alone, and messages and responses go past it"),
        ("mcp_security", "it is about tool servers"),
        ("custom_code", "it names code, and none of yours is in the gateway's image"),
        ("my_module.MyGuardrail", "is refused: it names code"),
        ("presidi", "is not known; did you mean presidio?"),
        (
            "aim",
            "is none of those that the kit passes on, as nobody has tried it in this gateway; write one of",
        ),
        (None, "write one of litellm_content_filter, "),
        (["presidio"], "write one of litellm_content_filter, "),
    ],
    ids=str,
)
def test_another_guardrail_is_refused_with_the_reason(kind: object, fault: str) -> None:
    said = _fault({"guardrail": kind, "mode": "pre_call"})
    assert said.startswith("holds ours, whose guardrail ")
    assert fault in said


def test_no_guardrail_of_litellm_s_is_passed_on_unknown() -> None:
    others = set(LISTS["guardrails"]) - set(GUARDRAILS)
    assert len(others) > 30
    for name in others:
        assert "whose guardrail is" in _fault({"guardrail": name, "mode": "pre_call"})


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({**FILTER, "mode": "pre-call"}, "whose mode is not when it can look; write one of pre_call"),
        ({**FILTER, "mode": []}, "whose mode is not when it can look"),
        ({**FILTER, "mode": ["pre_call", "pre_call"]}, "whose mode is not when it can look"),
        ({**FILTER, "mode": "logging_only"}, "whose mode is not when it can look"),
        ({**FILTER, "mode": {"default": "pre_call"}}, "whose mode is not when it can look"),
        ({**FILTER, "default_on": "true"}, "whose default_on is no boolean"),
        ({**FILTER, "blocked_words": [{"keyword": "x"}]}, "lacks some of keyword, action; write {keyword:"),
        ({**FILTER, "blocked_words": [{**WORD, "action": "block"}]}, "write one of BLOCK, MASK"),
        ({**FILTER, "blocked_words": [{**WORD, "odd": 1}]}, "has a field that is not known; write some of"),
        ({**FILTER, "blocked_words": "secret"}, "is no list with an entry; write [{keyword"),
        ({**FILTER, "patterns": [{**EMAIL, "pattern_name": "e-mail"}]}, "is none of LiteLLM's"),
        ({**FILTER, "patterns": [{**EMAIL, "pattern_type": "regex"}]}, "lacks pattern; write"),
        (
            {**FILTER, "patterns": [{"pattern_type": "regex", "pattern": "(", "action": "BLOCK"}]},
            "is no regular expression that Python understands",
        ),
        ({**FILTER, "categories": [{"category": "odd", "action": "BLOCK"}]}, "is none of LiteLLM's"),
        ({**FILTER, "block_words": [WORD]}, "has block_words, which it does not take; did you mean blocked_"),
        ({**FILTER, "blocked_words_file": "x"}, "whose blocked_words_file is refused: the gateway's image"),
        ({**FILTER, "image_model": "x"}, "whose image_model is refused: it asks a model"),
        ({"guardrail": "litellm_content_filter", "mode": "pre_call"}, "has nothing to look for; write some"),
        ({"guardrail": "generic_guardrail_api", "mode": "pre_call"}, "which lacks api_base"),
        ({**SERVICE, "api_base": "guardrail:8000"}, "whose api_base is no address; write one such as https"),
        ({**SERVICE, "api_base": "https://a:hunter2@b"}, "whose api_base holds a name or a password"),
        ({**SERVICE, "api_base": URL + "?key=hunter2"}, "whose api_base is more than an address"),
        ({**SERVICE, "api_base": "https://a:99999"}, "whose api_base is no address"),
        ({**SERVICE, "api_key": "hunter2"}, "whose api_key is written out; write os.environ/GUARDRAIL_KEY"),
        (
            {**SERVICE, "api_key": "os.environ/LITELLM_MASTER_KEY"},
            "litellm_oauth_callback_keys does not hold",
        ),
        (
            {**SERVICE, "api_base": "http://a.example", "api_key": KEY},
            "would go over the network unencrypted",
        ),
        ({**SERVICE, "extra_headers": ["authorization"]}, "sends what clients have in their headers"),
        ({**SERVICE, "headers": {"x": "hunter2"}}, "write the key as api_key"),
        ({**SERVICE, "timeout": 0}, "whose timeout is no number from 0.1 to 600"),
        (
            {**SERVICE, "additional_provider_specific_params": {"a": ["os.environ/LITELLM_MASTER_KEY"]}},
            "whose additional_provider_specific_params refers to a variable; only api_key may",
        ),
        ({**SERVICE, "Odd-Name\n": 1}, "has a parameter of a name that none has"),
        ({"guardrail": "openai_moderation", "mode": "pre_call"}, "which lacks api_key"),
        (
            {k: v for k, v in PRESIDIO.items() if k != "pii_entities_config"},
            "which lacks pii_entities_config",
        ),
        ({**PRESIDIO, "pii_entities_config": {"PERSON": "HIDE"}}, "holds a value that is none of the"),
        ({**PRESIDIO, "presidio_ad_hoc_recognizers": "/etc/passwd"}, "let the analyzer have the recognizers"),
    ],
    ids=str,
)
def test_what_litellm_would_leave_out_or_do_harm_with_is_refused(
    params: dict[str, object], fault: str
) -> None:
    said = _fault(params)
    assert said.startswith("holds ours, ")
    assert fault in said
    assert "; " in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("guardrails", "fault"),
    [
        ({"ours": FILTER}, "is no list; write [{guardrail_name: NAME, "),
        (None, "is no list; write [{guardrail_name: NAME, "),
        (["ours"], "holds an entry that is no mapping; write "),
        ([_named(FILTER, "two words")], "holds an entry whose guardrail_name is none; write "),
        ([_named(FILTER, None)], "holds an entry whose guardrail_name is none; write "),
        ([_named([FILTER])], "holds ours, whose litellm_params are no mapping; write "),
        ([_named(FILTER, default_on=True)], "holds ours, which has more than guardrail_name, litellm_params"),
        ([_named(FILTER), _named(SERVICE)], "holds ours twice; give each its own name"),
    ],
    ids=str,
)
def test_what_is_no_list_of_guardrails_is_refused(guardrails: object, fault: str) -> None:
    said = faults_of(guardrails, KEYS)
    assert len(said) == 1
    assert said[0].startswith(fault)


def test_every_fault_is_said() -> None:
    faults = faults_of([_named({**FILTER, "mode": "x", "odd": 1}), _named(SERVICE, "b"), 7], KEYS)
    assert len(faults) == 3
    assert faults_of([]) == []
