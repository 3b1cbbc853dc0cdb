"""A wrong variable stops site.yml before anything is touched, in one message that lists every fault."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

# fault by fault: the variable, a wrong value, and what the message must say of it
FAULTS: list[tuple[str, Any, str]] = [
    ("litellm_oauth_client_id", "", "litellm_oauth_client_id is empty: set it to the OAuth client"),
    (
        "litellm_oauth_client_authentication",
        "basic",
        "litellm_oauth_client_authentication is basic, which needs litellm_oauth_client_secret",
    ),
    ("litellm_oauth_port", "http", "litellm_oauth_port is"),
    (
        "litellm_oauth_workers",
        0,
        "litellm_oauth_workers is 0: set it to auto, or to a number between 1 and 64",
    ),
    (
        "postgres_settings",
        {"max_connections": "9"},
        "postgres_settings.max_connections is 9, too few for the 0 of litellm_oauth_workers: set it to 10",
    ),
    (
        "litellm_oauth_log_level",
        "LOUD",
        "litellm_oauth_log_level must be one of: DEBUG, INFO",
    ),
    ("litellm_oauth_detailed_debug", "maybe", "litellm_oauth_detailed_debug"),
    (
        "sandbox_names",
        ["lab.example", "192.0.2.7:4010"],
        'sandbox_names is ["lab.example", "192.0.2.7:4010"]: list host names',
    ),
    ("litellm_oauth_refresh_buffer", -5, "litellm_oauth_refresh_buffer is -5"),
    ("litellm_oauth_encryption_key", "obviously-not-a-key", "litellm_oauth_encryption_key is malformed"),
    ("litellm_oauth_master_key", "hunter2-hunter2-hunter2", "litellm_oauth_master_key is malformed"),
    ("litellm_oauth_token_url", "provider.example.com", "litellm_oauth_token_url: give a whole URL"),
    (
        "litellm_oauth_redis_url",
        "redis://litellm:hunter2-hunter2-hunter2@redis:6379",
        "litellm_oauth_redis_url is malformed",
    ),
    ("litellm_oauth_token_body", "xml", "litellm_oauth_token_body"),
    (
        "litellm_oauth_models",
        [
            {"name": "a", "model": "b", "api_key": "sk-pasted-key"},
            {"name": "c", "model": "d"},
            {"name": "e", "model": "f", "api_key": "os.environ/NOBODY_HAS_IT"},
        ],
        "is neither `oauth`",
    ),
    (
        "litellm_oauth_allowed_api_bases",
        ["https://else.example.com"],
        "litellm_oauth_allowed_api_bases lacks",
    ),
    (
        "litellm_oauth_api_keys",
        {"lower_case": "hunter2-hunter2-hunter2"},
        "litellm_oauth_api_keys is malformed (its values are not shown)",
    ),
    (
        "litellm_oauth_callback_keys",
        {"OPENAI_API_KEY": "hunter2-hunter2-hunter2", "LANGFUSE_SECRET_KEY": "hunter2-hunter2-hunter2\u00e4"},
        "litellm_oauth_callback_keys holds OPENAI_API_KEY, which LiteLLM would use for models",
    ),
    ("litellm_oauth_users", ["alice", "../x"], 'litellm_oauth_users holds ["alice", "../x"]'),
    (
        "litellm_oauth_extra_routes",
        ["/v1/rerank", "/key/generate", "v1/files"],
        "litellm_oauth_extra_routes holds /key/generate, which would open /key",
    ),
    (
        "litellm_oauth_trusted_proxies",
        ["10.0.0.1/8", "host"],
        "litellm_oauth_trusted_proxies holds 10.0.0.1/8, an address inside of the network 10.0.0.0/8",
    ),
    ("litellm_oauth_max_body_mb", 2000, "litellm_oauth_max_body_mb is 2000: set it to whole MiB"),
    (
        "litellm_oauth_max_upload_mb",
        10,
        "litellm_oauth_max_upload_mb is 10: set it to whole MiB, from litellm_oauth_max_body_mb (2000)",
    ),
    ("litellm_oauth_cloud_metadata", "perhaps", "litellm_oauth_cloud_metadata"),
    ("litellm_oauth_ca_file", "ca.pem", 'litellm_oauth_ca_file is "ca.pem"'),
    ("service_stack", "No Good", 'service_stack is "No Good"'),
    ("service_directory", "etc", 'service_directory is "etc"'),
    ("postgres_memory", "plenty", "postgres_memory"),
    ("debug_tools_adminer_port", 0, "debug_tools_adminer_port is 0"),
    ("debug_tools_port", 8080, "debug_tools_port: no role knows this variable"),
    ("postgres_user", "postgres", "another role than postgres"),
    ("litellm_oauth_prot", 4000, "litellm_oauth_prot: no role knows this variable"),
]
SECRETS = ("obviously-not-a-key", "hunter2-hunter2-hunter2", "sk-pasted-key")


def site(variables: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["ansible-playbook", "site.yml", "--extra-vars", json.dumps(variables), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def refused() -> subprocess.CompletedProcess[str]:
    # If the check were missing, the first thing that is touched would be the engine: "-vvv" would show it.
    return site({name: value for name, value, _ in FAULTS}, "-vvv")


@pytest.mark.parametrize("message", [pytest.param(message, id=name) for name, _, message in FAULTS])
def test_every_fault_is_named_with_its_mend(refused: subprocess.CompletedProcess[str], message: str) -> None:
    assert message in " ".join(refused.stdout.split())


def test_nothing_was_touched(refused: subprocess.CompletedProcess[str]) -> None:
    assert refused.returncode != 0
    assert "docker_engine" not in refused.stdout.split("PLAY RECAP")[0].split("Check all variables")[-1]
    assert "changed=0" in refused.stdout


def test_no_secret_is_shown_even_with_vvv(refused: subprocess.CompletedProcess[str]) -> None:
    assert [secret for secret in SECRETS if secret in refused.stdout + refused.stderr] == []


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        ({"fallback_to_api_key": "sk-pasted-key"}, "fallback_to_api_key that is not `os.environ/NAME`"),
        ({"fallback_to_api_key": "os.environ/NOBODY"}, "names NOBODY in os.environ/"),
        (
            {"api_key": "os.environ/KEY", "fallback_to_api_key": "os.environ/KEY"},
            "fallback_to_api_key beside an api_key that is not `oauth`",
        ),
    ],
)
def test_a_fallback_that_cannot_be_is_refused(model: dict[str, str], fault: str) -> None:
    models = [{"name": "a", "model": "b", **model}]
    result = site({"litellm_oauth_models": models, "litellm_oauth_api_keys": {"KEY": "obviously-fake-key"}})
    assert result.returncode != 0
    assert fault in " ".join(result.stdout.split())
    assert "sk-pasted-key" not in result.stdout


def test_plain_http_for_tokens_and_keys_is_refused_outside_the_sandbox() -> None:
    far = "http://10.1.2.3"
    result = site(
        {
            "sandbox_enabled": False,
            "litellm_oauth_token_url": f"{far}/token",
            "litellm_oauth_revoke_url": f"{far}/revoke",
            "litellm_oauth_authorize_url": f"{far}/authorize",
            "litellm_oauth_redirect_uri": f"{far}/callback",
            "litellm_oauth_issuer": far,
            "litellm_oauth_gateway_url": f"{far}:4000",
            "litellm_oauth_models": [{"name": "a", "model": "b", "api_base": far}],
            "litellm_oauth_allowed_api_bases": [far],
        }
    )
    assert result.returncode != 0
    shown = " ".join(result.stdout.split())
    fault = next(part for part in shown.split(" - ") if "would travel over plain http" in part)
    provider = ("issuer", "authorize_url", "token_url", "revoke_url", "redirect_uri")
    for name in (*provider, "gateway_url", "models", "allowed_api_bases"):
        assert f"litellm_oauth_{name}" in fault


def test_a_person_s_own_machine_may_be_redirected_to_over_plain_http() -> None:
    """RFC 8252 §7.3. Another fault keeps the playbook from touching anything."""
    far = {"sandbox_enabled": False, "litellm_oauth_token_url": "http://10.1.2.3/token"}
    result = site({**far, "litellm_oauth_redirect_uri": "http://localhost:8080/callback"})
    shown = " ".join(result.stdout.split())
    fault = next(part for part in shown.split(" - ") if "would travel over plain http" in part)
    assert "litellm_oauth_token_url" in fault
    assert "litellm_oauth_redirect_uri" not in fault


def test_an_anonymous_api_is_refused_outside_loopback() -> None:
    result = site({"litellm_oauth_anonymous_api": True, "litellm_oauth_address": "192.0.2.1"})
    assert result.returncode != 0
    assert "litellm_oauth_anonymous_api opens logins without a key" in " ".join(result.stdout.split())


def test_two_services_on_one_port_are_refused() -> None:
    ports = {"debug_tools_adminer_port": 4010, "debug_tools_redis_commander_port": 8082}
    result = site({"debug_tools_enabled": True, "sandbox_port": 4010, **ports})
    assert result.returncode != 0
    shown = " ".join(result.stdout.split())
    assert "sandbox_port and debug_tools_adminer_port name the same port" in shown
