"""The example configuration is a true one: the settings accept it, and its models get tokens."""

from __future__ import annotations

from pathlib import Path

import yaml

from litellm_oauth.gateway.deployments import destination_of
from litellm_oauth.settings import load_settings

EXAMPLE = Path(__file__).with_name("config.yaml")


def test_the_example_is_accepted_and_its_model_may_carry_a_token() -> None:
    settings = load_settings(
        {
            "LITELLM_OAUTH_CONFIG": str(EXAMPLE),
            "CLAUDE_TOKEN_ENCRYPTION_KEY": "0123456789abcdef" * 4,
            "LITELLM_OAUTH_DATABASE_URL": "postgresql://llmproxy@db:5432/litellm",
        }
    )
    deployment = yaml.safe_load(EXAMPLE.read_text())["model_list"][0]
    call = {**deployment["litellm_params"], "model_info": {"id": "one"}}
    destination = destination_of(
        call, {"one": deployment}.get, lambda _: "anthropic", lambda: settings.allowed_api_bases
    )
    assert destination is not None
    assert destination.base == "http://sandbox:4010"
