"""What the image's command does before it starts LiteLLM."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from litellm_oauth.errors import SettingsError
from litellm_oauth.gateway.serve import set_api_keys


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config.yaml that refers to the models' keys as the role writes it."""
    file = tmp_path / "config.yaml"
    file.write_text(
        "model_list:\n- {litellm_params: {api_key: os.environ/LITELLM_OAUTH_KEY_ONE_KEY}}\n"
        "general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}\n"
    )
    return file


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    for number, name in enumerate(("ONE_KEY", "ANOTHER_KEY", "OF_YESTERDAY", "LANGFUSE_SECRET_KEY"), 1):
        (folder / name).write_text(f"sk-obviously-fake-{number}\n")
    return folder


def faults(environ: dict[str, str], secrets: Path) -> list[str]:
    before = dict(environ)
    with pytest.raises(SettingsError) as caught:
        set_api_keys(environ, secrets)
    # one fault, and none of the keys is set
    assert environ == before
    return list(caught.value.faults)


def test_models_keys_get_names_that_litellm_does_not_know_and_callbacks_their_own(
    config: Path, secrets: Path
) -> None:
    given = {
        "LITELLM_OAUTH_API_KEYS": "ANOTHER_KEY ONE_KEY",
        "LITELLM_OAUTH_CALLBACK_KEYS": "LANGFUSE_SECRET_KEY",
        "LITELLM_OAUTH_CONFIG": str(config),
        "PATH": "/bin",
    }
    environ = dict(given)
    set_api_keys(environ, secrets)
    assert environ == {
        **given,
        "LITELLM_OAUTH_KEY_ONE_KEY": "sk-obviously-fake-1",
        "LITELLM_OAUTH_KEY_ANOTHER_KEY": "sk-obviously-fake-2",
        "LANGFUSE_SECRET_KEY": "sk-obviously-fake-4",
    }


def test_every_file_that_cannot_be_read_is_named(config: Path, secrets: Path) -> None:
    (secrets / "BINARY").write_bytes(b"\xff")
    lists = {"LITELLM_OAUTH_API_KEYS": "ONE_KEY MISSING BINARY", "LITELLM_OAUTH_CALLBACK_KEYS": "DD_API_KEY"}
    assert faults({**lists, "LITELLM_OAUTH_CONFIG": str(config)}, secrets) == [
        f"LITELLM_OAUTH_{kind}_KEYS: {secrets}/{name} cannot be read ({reason}); correct the file or the list"
        for kind, name, reason in (
            ("API", "MISSING", "No such file or directory"),
            ("API", "BINARY", "it is not UTF-8 text"),
            ("CALLBACK", "DD_API_KEY", "No such file or directory"),
        )
    ]


def test_without_a_list_nothing_is_set_and_no_file_is_read(tmp_path: Path) -> None:
    environ = {"PATH": "/bin", "LITELLM_OAUTH_CONFIG": str(tmp_path / "missing.yaml")}
    before = dict(environ)
    set_api_keys(environ, tmp_path)
    assert environ == before


def test_a_reference_by_the_name_of_before_is_refused_with_the_new_one(config: Path, secrets: Path) -> None:
    """The variable is not there any more: LiteLLM would send requests without a key, or with another one."""
    config.write_text(
        "model_list:\n"
        "- {litellm_params: {model: m}}\n"
        "- {litellm_params: {api_key: os.environ/ONE_KEY}}\n"
        "- {litellm_params: {api_key: os.environ/ONE_KEY_MORE, x: os.environ/LITELLM_OAUTH_KEY_ONE_KEY}}\n"
        "claude_oauth: {fallback_to_api_key: {m: os.environ/ANOTHER_KEY}, public_url: '${ONE_KEY}/x'}\n"
    )
    environ = {"LITELLM_OAUTH_API_KEYS": "ANOTHER_KEY ONE_KEY", "LITELLM_OAUTH_CONFIG": str(config)}
    assert faults(environ, secrets) == [
        f"{config}: {place} refers to {name}, which LITELLM_OAUTH_API_KEYS lists and which is no variable of "
        f"the gateway any more; write os.environ/LITELLM_OAUTH_KEY_{name}"
        for place, name in (
            ("model_list[1].litellm_params.api_key", "ONE_KEY"),
            ("claude_oauth.fallback_to_api_key.m", "ANOTHER_KEY"),
            ("claude_oauth.public_url", "ONE_KEY"),
        )
    ]


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "VERTEX_CREDENTIALS", "PATH"])
def test_a_provider_s_key_is_no_callback_s(name: str, secrets: Path) -> None:
    (secrets / name).write_text("sk-obviously-fake")
    (fault,) = faults({"LITELLM_OAUTH_CALLBACK_KEYS": name}, secrets)
    assert fault.startswith(f"LITELLM_OAUTH_CALLBACK_KEYS: holds {name}, which ")
    assert "sk-obviously" not in fault


def test_a_provider_s_key_in_the_container_s_environment_is_warned_of_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("litellm_oauth"), "propagate", True)
    environ = {
        "OPENAI_API_KEY": "sk-obviously-fake",
        "AWS_SECRET_ACCESS_KEY": "obviously-fake",
        "ANTHROPIC_API_KEY": "",
        "AWS_REGION": "eu-central-1",
        "LANGFUSE_SECRET_KEY": "obviously-fake",
        "LITELLM_OAUTH_KEY_ANTHROPIC_API_KEY": "obviously-fake",
    }
    with caplog.at_level(logging.WARNING):
        set_api_keys(environ, tmp_path)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("The environment holds AWS_SECRET_ACCESS_KEY, OPENAI_API_KEY: LiteLLM uses it for")
    assert "obviously" not in said
    assert environ["OPENAI_API_KEY"] == "sk-obviously-fake"


def test_a_container_without_a_provider_s_key_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("litellm_oauth"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        set_api_keys({"PATH": "/bin", "LITELLM_MASTER_KEY": "sk-x"}, tmp_path)
    assert not caplog.records
