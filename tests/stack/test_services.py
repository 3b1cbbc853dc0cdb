"""PostgreSQL, Redis and the containers are what the inventory and the source documents promise."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.stack import Stack

SERVICES = ["litellm", "db", "redis", "sandbox", "adminer", "redis-commander"]


@pytest.mark.parametrize("service", SERVICES)
def test_runs_without_privileges(stack: Stack, service: str) -> None:
    config = stack.inspect(service)
    host = config["HostConfig"]
    assert config["State"]["Running"]
    assert config["Config"]["User"].split(":")[0] not in ("", "0", "root")
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["LogConfig"]["Config"]["max-size"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"


@pytest.mark.parametrize("service", SERVICES)
def test_root_file_system_is_read_only(stack: Stack, service: str) -> None:
    assert stack.exec(service, "sh", "-c", "touch /probe").rc != 0


@pytest.mark.parametrize("service", SERVICES)
def test_no_secret_shows_in_inspect_or_logs(stack: Stack, service: str) -> None:
    shown = json.dumps(stack.inspect(service)) + stack.logs(service)
    assert [name for name, value in stack.secrets().items() if value in shown] == []


def test_only_the_gateway_the_sandbox_and_the_debug_tools_are_published_and_on_loopback(stack: Stack) -> None:
    published = {
        service: [binding["HostIp"] for ports in bindings.values() for binding in ports or []]
        for service in SERVICES
        if (bindings := stack.inspect(service)["NetworkSettings"]["Ports"])
    }
    assert {service: hosts for service, hosts in published.items() if hosts} == {
        "litellm": ["127.0.0.1"],
        "sandbox": ["127.0.0.1"],
        "adminer": ["127.0.0.1"],
        "redis-commander": ["127.0.0.1"],
    }


def test_the_data_have_no_way_out(stack: Stack) -> None:
    network = stack.engine.networks.get(f"{stack.name}_backend").attrs
    assert network["Internal"]
    for service in ("db", "redis"):
        assert list(stack.inspect(service)["NetworkSettings"]["Networks"]) == [f"{stack.name}_backend"]


@pytest.mark.parametrize(
    ("owner", "uid"), [("gateway", 10001), ("db", 999), ("redis", 10003), ("debug_tools", 10000)]
)
def test_secret_files_are_their_service_s_alone(stack: Stack, owner: str, uid: int) -> None:
    for folder in (stack.directory, stack.directory / "secrets", stack.directory / "config"):
        assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (0, 0o700)
    files = list((stack.directory / "secrets" / owner).glob("[!.]*"))
    assert files
    assert {(file.stat().st_uid, file.stat().st_mode & 0o777) for file in files} == {(uid, 0o600)}


def test_postgresql_is_17_and_answers_the_documents_commands(stack: Stack) -> None:
    assert stack.exec("db", "pg_isready", "-U", "llmproxy", "-d", "litellm").rc == 0
    commands = {
        "SHOW server_version": "17.",
        'SELECT user_id, expires_at, refresh_count FROM "LiteLLM_ClaudeOAuthTokens";': "refresh_count",
        "\\dt": "LiteLLM_ClaudeOAuthTokens",
    }
    for command, wanted in commands.items():
        result = stack.exec("db", "psql", "-U", "llmproxy", "-d", "litellm", "-c", command)
        assert result.rc == 0, result.stderr
        assert wanted in result.stdout


def test_the_gateway_s_role_is_no_superuser(stack: Stack) -> None:
    query = "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
    assert stack.exec("db", "psql", "-U", "llmproxy", "-d", "litellm", "-Atc", query).stdout.strip() == "f"


AUDIT = 'claude_oauth."LiteLLM_ClaudeOAuthAudit"'


@pytest.mark.parametrize(
    "attempt", [f"TRUNCATE {AUDIT}", f"DROP TABLE {AUDIT}", f"ALTER TABLE {AUDIT} DISABLE TRIGGER ALL"]
)
def test_the_gateway_s_role_has_no_hold_on_the_audit(stack: Stack, attempt: str) -> None:
    undone = f"BEGIN; {attempt}; ROLLBACK"
    result = stack.exec("db", "psql", "-U", "llmproxy", "-d", "litellm", "-c", undone)
    assert result.rc != 0
    assert "permission denied" in result.stderr or "must be owner" in result.stderr


def test_the_gateway_s_role_can_still_read_all_for_a_backup(stack: Stack) -> None:
    result = stack.exec("db", "pg_dump", "-U", "llmproxy", "-d", "litellm", "-f", "/dev/null")
    assert result.rc == 0, result.stderr


def test_redis_is_8_and_strangers_may_only_ping(stack: Stack) -> None:
    assert stack.exec("redis", "redis-server", "--version").stdout.split("v=")[1].startswith("8.")
    assert stack.exec("redis", "redis-cli", "ping").stdout.strip() == "PONG"
    for command in ("get x", "keys *", "config get *", "flushall", "acl list", "info"):
        assert "NOPERM" in stack.exec("redis", "redis-cli", *command.split()).stdout


def test_redis_lets_the_gateway_reach_its_own_keys_only(stack: Stack) -> None:
    login = 'REDISCLI_AUTH="$(cat /run/secrets/redis_password)" redis-cli --no-auth-warning --user litellm '

    def run(command: str) -> str:
        return str(stack.exec("redis", "sh", "-c", login + command).stdout).strip()

    assert run("set litellm_oauth:probe 1 ex 5") == "OK"
    assert run("get litellm_oauth:probe") == "1"
    assert run("eval 'return redis.call(\"GET\", KEYS[1])' 1 litellm_oauth:probe") == "1"
    assert "No permissions" in run('eval \'return redis.call("GET", "other:probe")\' 0')
    assert "NOPERM" in run("get other:probe")
    assert "NOPERM" in run("del litellm_oauth:probe")
    assert "NOPERM" in run("keys '*'")
    assert "NOPERM" in run("flushall")
    assert "NOPERM" in run("config get '*'")


def test_docker_cp_reaches_the_databases_tmp_although_its_root_is_read_only(
    stack: Stack, tmp_path: Path
) -> None:
    file = tmp_path / "question.sql"
    file.write_text("SELECT 'it ' || 'arrived';")
    copy = ["docker", "cp", str(file), f"{stack.container('db')}:/tmp/"]
    subprocess.run(copy, check=True, capture_output=True)
    there = "/tmp/question.sql"  # noqa: S108 -- the container's, where the documents copy to
    said = stack.exec("db", "psql", "-U", "llmproxy", "-d", "litellm", "-At", "-f", there)
    assert said.stdout.strip() == "it arrived"
    stack.exec("db", "rm", there)
