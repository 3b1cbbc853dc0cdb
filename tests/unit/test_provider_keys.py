"""Which variables of the gateway's process carry keys of models' providers, and which are for callbacks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from litellm_oauth.provider_keys import fault_of_callback_key, faults_of, is_provider_key

# What the pinned LiteLLM reads for models; scripts/litellm_lists.py writes it.
VARIABLES: list[str] = json.loads(Path(__file__).with_name("litellm_lists.json").read_text())[
    "provider_variables"
]
SECRET = re.compile(
    r".*(KEY|KEY_ID|TOKEN|SECRET|PASSWORD|CREDENTIALS?|JWT|BEDROCK|SERVICE_ACCOUNT"
    r"|(TOKEN|AUTH|KEY)_FILE|TOKEN_DIR)"
)
OTHERS = {
    # for its pass-through route to Langfuse and for the callback alike
    *("LANGFUSE_API_KEY", "LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"),
    # an example in a docstring
    "ISSUER_SIGNING_KEY_PEM",
}


@pytest.mark.parametrize("name", [n for n in VARIABLES if SECRET.fullmatch(n) and n not in OTHERS])
def test_each_key_that_litellm_picks_up_for_models_is_known(name: str) -> None:
    assert is_provider_key(name)
    assert fault_of_callback_key(name) is not None


@pytest.mark.parametrize("name", [n for n in VARIABLES if not SECRET.fullmatch(n) and n != "LANGFUSE_HOST"])
def test_an_address_or_a_region_is_no_key_and_for_no_callback_either(name: str) -> None:
    assert not is_provider_key(name)
    assert fault_of_callback_key(name) is not None


@pytest.mark.parametrize("name", ["LANGFUSE_SECRET_KEY", "DD_API_KEY", "LANGSMITH_API_KEY", "OTEL_HEADERS"])
def test_what_a_callback_reads_is_no_provider_s_key(name: str) -> None:
    assert not is_provider_key(name)
    assert fault_of_callback_key(name) is None


@pytest.mark.parametrize(
    "name",
    ["LITELLM_MASTER_KEY", "CLAUDE_TOKEN_ENCRYPTION_KEY", "PATH", "PYTHONPATH", "HTTPS_PROXY", "x", "", 7],
)
def test_what_no_callback_reads_is_refused(name: object) -> None:
    fault = fault_of_callback_key(name)
    assert fault is not None
    assert "; write one of ARIZE_…, " in fault


def test_a_key_of_both_is_refused_and_so_is_what_is_no_list() -> None:
    assert faults_of(["DD_API_KEY"], ["OTHER"]) == []
    assert faults_of(["DD_API_KEY"], ["DD_API_KEY"]) == [
        "holds DD_API_KEY, which the models' keys hold too; name it in one of both"
    ]
    assert faults_of("DD_API_KEY") == ['is no mapping; write {LANGFUSE_SECRET_KEY: "…"}']
