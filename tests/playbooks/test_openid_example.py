"""The README's settings for a company's own OpenID provider are accepted, and reach the gateway."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from litellm_oauth.settings import ProviderSettings, parse_settings

ROOT = Path(__file__).resolve().parents[2]
SECRET = "obviously-fake-secret"
ENVIRONMENT = {
    "CLAUDE_TOKEN_ENCRYPTION_KEY": "0123456789abcdef" * 4,
    "CLAUDE_OAUTH_CLIENT_SECRET": SECRET,
    "LITELLM_OAUTH_DATABASE_URL": "postgresql://llmproxy@db:5432/litellm",
}


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The variables of the README, with what is in the vault beside them."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = (block for block in blocks if "litellm_oauth_issuer:" in block)
    variables: dict[str, Any] = yaml.safe_load(block)
    return {**variables, "vault_litellm_oauth_client_secret": SECRET, "sandbox_enabled": False}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_example_has_no_fault(example: dict[str, Any]) -> None:
    # One that is put in keeps the playbook from touching anything, and is all that it finds.
    result = run("ansible-playbook", "site.yml", "-e", json.dumps({**example, "service_stack": "No Good"}))
    faults = re.findall(r"^ *- (\S+)", result.stdout, re.MULTILINE)
    assert set(faults) == {"service_stack"}, result.stdout
    assert SECRET not in result.stdout + result.stderr


def test_the_example_is_what_the_gateway_reads(example: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    template = ROOT / "roles/litellm_oauth/templates/config.yaml.j2"
    arguments = {"src": str(template), "dest": str(config)}
    files = ("service/defaults", "litellm_oauth/defaults", "litellm_oauth/vars")
    defaults = [f"-e@roles/{file}/main.yml" for file in files]
    result = run(
        *("ansible", "localhost", "-i", "localhost,", "-c", "local", "-m", "ansible.builtin.template"),
        *("-a", json.dumps(arguments), *defaults, "-e", json.dumps(example)),
        *("-e", f"ansible_python_interpreter={sys.executable}"),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert SECRET not in config.read_text()
    settings = parse_settings(yaml.safe_load(config.read_text())["claude_oauth"], ENVIRONMENT)
    assert settings.allowed_api_bases == ("https://models.example.com",)
    assert settings.provider == ProviderSettings(
        issuer="https://login.example.com",
        require_issuer=True,
        authorize_url="https://login.example.com/oauth2/authorize",
        token_url="https://login.example.com/oauth2/token",
        revoke_url="https://login.example.com/oauth2/revoke",
        redirect_uri="https://gateway.example.com/oauth/callback",
        client_id="litellm-gateway",
        client_secret=SECRET,
        client_authentication="basic",
        scopes=("openid", "offline_access", "models"),
        body="form",
        authorize_parameters={"prompt": "consent"},
        token_timeout=30,
    )
