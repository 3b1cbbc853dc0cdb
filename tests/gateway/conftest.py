"""Fixtures: the real service on a real PostgreSQL with a real provider, behind our routes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from litellm_oauth.assembly import open_service
from litellm_oauth.service import TokenService
from litellm_oauth.settings import parse_settings
from support.gateway import Configuration, Gateway, build_gateway
from support.postgres import TestDatabase, database, empty_database, migrated_template, postgres_server
from support.sandbox import SandboxProvider, sandbox, sandbox_process

__all__ = [
    "database",
    "empty_database",
    "migrated_template",
    "postgres_server",
    "sandbox",
    "sandbox_process",
]


@pytest.fixture
def configuration(tmp_path: Path, database: TestDatabase, sandbox: SandboxProvider) -> Configuration:
    """Settings as the sandbox inventory makes them; secrets come from files."""
    path = tmp_path / "config.yaml"
    section = {
        "encryption_key": "${CLAUDE_TOKEN_ENCRYPTION_KEY}",
        "sandbox": True,
        "public_url": "http://localhost:4000",
        "allowed_api_bases": [sandbox.url],
        "provider": sandbox.provider_settings(),
        "journal_dir": str(tmp_path / "journal"),
        "token_file": str(tmp_path / "tokens" / "claude_tokens.json"),
    }
    path.write_text(yaml.safe_dump({"model_list": [], "claude_oauth": section}))
    secrets = {
        "CLAUDE_TOKEN_ENCRYPTION_KEY": "0123456789abcdef" * 4,
        "LITELLM_OAUTH_DATABASE_PASSWORD": database.settings.password or "",
    }
    environ = {"LITELLM_OAUTH_CONFIG": str(path), "LITELLM_OAUTH_DATABASE_URL": database.settings.url}
    for name, value in secrets.items():
        file = tmp_path / name
        file.write_text(value)
        environ[f"{name}_FILE"] = str(file)
    return Configuration(path, environ)


@pytest.fixture(scope="session")
def byte_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands keep their byte-code, as they do where the package is installed."""
    return tmp_path_factory.mktemp("byte-code")


@pytest.fixture
def command_environment(configuration: Configuration, byte_code: Path) -> dict[str, str]:
    """What a command needs in its environment to find the configuration and nothing else of this machine."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    source = str(Path(__file__).resolve().parents[2] / "src")
    return {**kept, "PYTHONPATH": source, "PYTHONPYCACHEPREFIX": str(byte_code), **configuration.environ}


@pytest.fixture
def empty_database_url(empty_database: TestDatabase) -> dict[str, str]:
    """An environment whose database has no tables yet."""
    return {"LITELLM_OAUTH_DATABASE_URL": empty_database.settings.url}


@pytest.fixture
async def service(configuration: Configuration) -> AsyncIterator[TokenService]:
    service = await open_service(configuration.settings())
    yield service
    await service.close()


@pytest.fixture
def gateway(service: TokenService, configuration: Configuration, sandbox: SandboxProvider) -> Gateway:
    return build_gateway(lambda: service, configuration.settings(), sandbox)


@pytest.fixture
def open_gateway(service: TokenService, configuration: Configuration, sandbox: SandboxProvider) -> Gateway:
    """The same with ``anonymous_api: true``."""
    return build_gateway(lambda: service, replace(configuration.settings(), anonymous_api=True), sandbox)


@pytest.fixture
def guard() -> Gateway:
    """Routes whose service must not be asked: what is refused at the door never gets there."""

    def service() -> TokenService:
        raise AssertionError("the service was asked")

    section = {"sandbox": True, "enabled": False, "allowed_api_bases": ["http://127.0.0.1:4010"]}
    return build_gateway(service, parse_settings(section, {}), None)
