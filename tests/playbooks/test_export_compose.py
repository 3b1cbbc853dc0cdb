"""What ``export_compose.yml`` writes, and what it refuses to write over. No engine is asked."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# Obvious fakes, each to be found again.
SECRETS = {
    "litellm_oauth_client_secret": "marked-client-secret",
    "litellm_oauth_encryption_key": "ab" * 32,
    "litellm_oauth_master_key": "sk-marked-master-key",
    "postgres_password": "marked-postgres-password",
    "redis_password": "marked-redis-password",
    "litellm_oauth_import_access_token": "marked-access-token",
    "litellm_oauth_import_refresh_token": "marked-refresh-token",
}
VARIABLES = {
    **SECRETS,
    "container_image_source": "registry",
    "litellm_oauth_client_id": "marked-client-id",
    "litellm_oauth_import_expires_at": "1900000000",
    "litellm_oauth_public_url": "https://marked.example.com",
    "litellm_oauth_users": ["alice"],
    "litellm_oauth_models": [{"name": "marked-model", "model": "m", "api_key": "os.environ/TEAM_KEY"}],
    "litellm_oauth_api_keys": {"TEAM_KEY": "marked-api-key"},
}
Export = Callable[..., "subprocess.CompletedProcess[str]"]


def export(folder: Path, variables: dict[str, Any], **given: Any) -> subprocess.CompletedProcess[str]:
    """Run it with an inventory of these variables, and ``given`` as extra variables."""
    inventory = folder.parent / f"{folder.name}-inventory"
    (inventory / "group_vars/all").mkdir(parents=True, exist_ok=True)
    (inventory / "hosts.yml").write_text("gateway: {hosts: {elsewhere.example.com: {}}}\n")
    (inventory / "group_vars/all/main.yml").write_text(yaml.safe_dump(variables))
    command = ["ansible-playbook", "-i", str(inventory), "playbooks/export_compose.yml", "--diff"]
    extra = json.dumps({"directory": str(folder), **given})
    return subprocess.run(
        [*command, "-e", extra], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def lines(file: Path) -> dict[str, str]:
    """The values in an env file."""
    pairs = (line.split("=", 1) for line in file.read_text().splitlines() if "=" in line and line[0] != "#")
    return dict(pairs)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of an inventory with secrets, and what was printed."""
    folder = tmp_path_factory.mktemp("exported") / "project"
    done = export(folder, VARIABLES)
    assert done.returncode == 0, done.stdout
    return folder, done.stdout + done.stderr


def test_secrets_are_in_the_env_file_alone_and_in_no_output(exported: tuple[Path, str]) -> None:
    folder, said = exported
    env = folder / ".env"
    assert env.stat().st_mode & 0o777 == 0o600
    found = lines(env)
    assert set(SECRETS.values()) | {"marked-api-key"} <= set(found.values())
    others = b"".join(content for name, content in contents(folder).items() if name != ".env").decode()
    for secret in (*SECRETS.values(), "marked-api-key", found["POSTGRES_SUPERUSER_PASSWORD"]):
        assert secret not in others
        assert secret not in said


def test_nothing_of_the_inventory_gets_into_the_project_that_tries_it_out(exported: tuple[Path, str]) -> None:
    folder, _ = exported
    names = (".env.oauth", "config.oauth.yaml", "docker-compose.test-oauth.yml")
    text = "".join((folder / name).read_text() for name in names)
    assert "marked" not in text
    assert SECRETS["litellm_oauth_encryption_key"] not in text
    found = lines(folder / ".env.oauth")
    known = ("sk-oauth-test-1234", "dbpassword9090")
    assert (found["LITELLM_MASTER_KEY"], found["POSTGRES_PASSWORD"]) == known
    assert (folder / "config/user_keys.oauth").read_text() == ""
    assert found["CLAUDE_ACCESS_TOKEN"] == found["CLAUDE_REFRESH_TOKEN"] == ""
    settings = yaml.safe_load((folder / "config.oauth.yaml").read_text())["claude_oauth"]
    assert (settings["sandbox"], settings["anonymous_api"]) == (True, True)
    assert settings["public_url"].startswith("http://localhost:")


def test_what_a_registry_offers_is_not_built_over_and_tools_are_left_out(exported: tuple[Path, str]) -> None:
    services = yaml.safe_load((exported[0] / "docker-compose.yml").read_text())["services"]
    assert (services["db"]["image"], services["redis"]["image"]) == ("postgres:17", "redis:8")
    assert {name for name, service in services.items() if "build" in service} == {"litellm"}
    assert set(services) == {"db", "redis", "litellm"}
    assert services["litellm"]["build"]["args"] == {"BASE": "${BASE_IMAGE:-debian:trixie-slim}"}
    tried = yaml.safe_load((exported[0] / "docker-compose.test-oauth.yml").read_text())["services"]
    assert {name for name, service in tried.items() if service.get("profiles") == ["debug"]} == {
        "adminer",
        "redis-commander",
    }


def test_containers_are_as_hard_as_the_engines(exported: tuple[Path, str]) -> None:
    hardening = yaml.safe_load((ROOT / "roles/service/vars/main.yml").read_text())["service_docker_container"]
    # another one belongs into docker-compose.yml.j2 as well, and then here
    assert set(hardening) == {
        *("image", "pull", "command_handling", "user", "env", "mounts", "tmpfs", "networks_cli_compatible"),
        *("init", "read_only", "cap_drop", "security_opts", "memory", "memory_swap", "pids_limit"),
        *("log_driver", "log_options"),
    }
    for service in yaml.safe_load((exported[0] / "docker-compose.yml").read_text())["services"].values():
        assert service["cap_drop"] == hardening["cap_drop"]
        assert service["security_opt"] == hardening["security_opts"]
        assert service["init"] is hardening["init"]
        assert service["mem_limit"] == service["memswap_limit"]
        assert service["pids_limit"] > 0
        assert service["logging"]["driver"] == hardening["log_driver"]
        assert service["logging"]["options"]["max-size"] == "10m"
        assert int(service["user"].split(":")[0]) > 0
        # Compose writes secrets only where the root filesystem is writable
        assert service.get("read_only", False) is ("secrets" not in service)
        assert "litellm-oauth.configuration" in service["labels"]


def test_an_export_over_an_export_keeps_what_people_wrote_and_changes_nothing(
    exported: tuple[Path, str],
) -> None:
    folder, _ = exported
    with (folder / ".env").open("a") as file:
        file.write("MY_OWN=1\nBASE_IMAGE=mine:1\n")
    before = contents(folder)
    done = export(folder, VARIABLES)
    assert done.returncode == 0, done.stdout
    assert "changed=0 " in done.stdout
    assert contents(folder) == before


def test_a_users_key_is_made_once_and_taken_away_with_the_user(exported: tuple[Path, str]) -> None:
    folder, _ = exported
    key = folder / "users/alice"
    assert key.stat().st_mode & 0o777 == 0o600
    digest = hashlib.sha256(key.read_bytes()).hexdigest()
    assert (folder / "config/user_keys").read_text() == f"{digest} alice\n"

    def label() -> str:
        services = yaml.safe_load((folder / "docker-compose.yml").read_text())["services"]
        return str(services["litellm"]["labels"]["litellm-oauth.configuration"])

    before = label()
    done = export(folder, {**VARIABLES, "litellm_oauth_users": ["bob"]})
    assert done.returncode == 0, done.stdout
    assert not key.exists()
    assert (folder / "config/user_keys").read_text().endswith(" bob\n")
    # the gateway that runs is made again, and knows alice's key no more
    assert label() != before


def test_what_would_do_harm_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "docker-compose.yml").write_text("services: {mine: {image: x}}\n")
    (folder / ".env").write_text("export CLAUDE_TOKEN_ENCRYPTION_KEY = somebody's\n")
    before = contents(folder)
    keys = {"POSTGRES_PASSWORD": "marked-api-key"}
    models = [{"name": "m", "model": "m", "api_key": "os.environ/POSTGRES_PASSWORD"}]
    done = export(folder, {**VARIABLES, "litellm_oauth_api_keys": keys, "litellm_oauth_models": models})
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "Nothing was written." in said
    assert "docker-compose.yml was not written by this playbook" in said
    assert "CLAUDE_TOKEN_ENCRYPTION_KEY in .env differs from the variables" in said
    assert "POSTGRES_PASSWORD is a name of the kit" in said
    assert "somebody's" not in said
    assert contents(folder) == before


def test_variables_given_with_e_do_not_get_into_the_project_that_tries_it_out(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    done = export(folder, VARIABLES, litellm_oauth_encryption_key="cd" * 32)
    assert done.returncode != 0
    assert "What tries it out was not" in " ".join(done.stdout.split())
    assert (folder / "docker-compose.yml").exists()
    assert not (folder / ".env.oauth").exists()


def test_a_key_file_that_holds_no_key_is_no_key(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    (folder / "users").mkdir(parents=True)
    (folder / "users/alice").write_text("")
    done = export(folder, VARIABLES)
    assert done.returncode != 0
    assert "holds no key that was made here" in " ".join((done.stdout + done.stderr).split())
    assert not (folder / "config/user_keys").exists()
