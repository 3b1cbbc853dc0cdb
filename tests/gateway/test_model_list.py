"""One model, as the two APIs describe one."""

from __future__ import annotations

from datetime import datetime

from litellm_oauth.gateway.model_list import described


def test_a_model_in_the_form_of_openai_s_api() -> None:
    model = described("anthropic/m", anthropic=False)
    assert model == {"id": "anthropic/m", "object": "model", "created": 1677610602, "owned_by": "openai"}


def test_a_model_in_the_form_of_anthropic_s_api() -> None:
    model = described("m", anthropic=True)
    assert {"type": "model", "id": "m", "display_name": "m"}.items() <= model.items()
    assert set(model) == {"type", "id", "display_name", "created_at"}


def test_both_forms_tell_the_same_moment() -> None:
    moment = datetime.fromisoformat(described("m", anthropic=True)["created_at"])
    assert moment.timestamp() == described("m", anthropic=False)["created"]
