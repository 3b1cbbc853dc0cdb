"""``docker-images.md``, block by block, on the project that ``docker-compose.yml`` describes.

The tests run in the document's order and go on from each other. Where a line cannot be run as it is written, the
nearest true form stands here and in the README's table.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from support.docker_host import FOLDER, ROOT, DockerHost, matched
from support.documented import PSQL, chat, log_in, setting, settled, status, tokens

pytestmark = pytest.mark.timeout(900)  # images are built in the course of it
block = pytest.mark.block

CLI = "docker exec -it litellm-litellm-1 python -m litellm.proxy.auth.claude_oauth_cli"
EXPIRY = f'{PSQL} -c "SELECT user_id, expires_at, refresh_count FROM \\"LiteLLM_ClaudeOAuthTokens\\";"'


@pytest.fixture(scope="module")
def host(plain_host: DockerHost) -> Iterator[DockerHost]:
    key = setting(plain_host, "LITELLM_MASTER_KEY")
    yield replace(plain_host, environment=(f"LITELLM_MASTER_KEY={key}",))
    plain_host.run("docker-compose down --volumes --timeout 5", code=None)


def base(host: DockerHost) -> str:
    """The image that the others are built on."""
    return host.run("sed -n 's/.*BASE_IMAGE:-\\([^}]*\\)}.*/\\1/p' docker-compose.yml | head -n 1").strip()


@block("Main Image")
def test_main_image_is_built_because_the_published_one_has_no_such_module(host: DockerHost) -> None:
    host.run(
        "DOCKER_BUILDKIT=1 docker build --quiet --tag litellm:oauth-custom "
        f"--secret id=ca,src=/etc/ssl/certs/ca-certificates.crt --build-arg BASE={base(host)} .",
        timeout=600,
    )
    said = host.run(
        "docker run --rm --entrypoint python litellm:oauth-custom -c "
        "'import psycopg, litellm_oauth; from litellm.proxy.auth.claude_oauth_flow import ClaudeOAuthFlow'"
    )
    assert said == ""


@block("Database Image")
def test_database_image_is_the_same_and_one_without_its_client_can_be_made(host: DockerHost) -> None:
    host.run(
        "DOCKER_BUILDKIT=1 docker build --quiet --tag litellm:without-database --build-arg DATABASE_CLIENT=no "
        f"--secret id=ca,src=/etc/ssl/certs/ca-certificates.crt --build-arg BASE={base(host)} .",
        timeout=600,
    )
    run = "docker run --rm --entrypoint python"
    assert "No module named 'psycopg'" in host.run(
        f"{run} litellm:without-database -c 'import psycopg'", code=1
    )
    host.run(f"{run} litellm:oauth-custom -c 'import psycopg'")


@block("1. Using Docker Compose (Recommended)")
def test_the_exported_project_has_what_the_documents_project_has(project: Path) -> None:
    compose = yaml.safe_load((project / "docker-compose.yml").read_text())
    gateway, database = compose["services"]["litellm"], compose["services"]["db"]
    assert compose["name"] == "litellm"
    assert gateway["ports"] == ["127.0.0.1:4000:4000"]
    assert gateway["restart"] == database["restart"] == "unless-stopped"
    assert gateway["depends_on"]["db"] == {"condition": "service_healthy"}
    assert database["healthcheck"]["test"][1] == "pg_isready"
    mounted = {mount["source"]: mount["target"] for mount in gateway["volumes"] + database["volumes"]}
    assert mounted["./config.yaml"] == "/app/config.yaml"
    assert mounted["oauth_tokens"] == "/app/.litellm"
    assert mounted["postgres_data"] == "/var/lib/postgresql/data"
    assert {"postgres_data", "oauth_tokens"} <= set(compose["volumes"])


@block("2. Environment Configuration")
def test_the_env_file_holds_keys_and_room_for_tokens_and_is_its_owners_alone(
    host: DockerHost, project: Path
) -> None:
    file = project / ".env"
    lines = dict(
        line.split("=", 1) for line in file.read_text().splitlines() if "=" in line and line[0] != "#"
    )
    assert file.stat().st_mode & 0o777 == 0o600
    assert lines["LITELLM_MASTER_KEY"].startswith("sk-")
    assert len(lines["CLAUDE_TOKEN_ENCRYPTION_KEY"]) == 64
    assert lines["CLAUDE_ACCESS_TOKEN"] == lines["CLAUDE_REFRESH_TOKEN"] == ""
    assert "CLAUDE_EXPIRES_AT=" in file.read_text()
    # an .env runs no $(…); a shell does, and hashes are what Compose would leave of it
    made = host.run("openssl rand -hex 32").strip()
    assert len(bytes.fromhex(made)) == 32


@block("3. Configuration File")
def test_the_configuration_has_the_documents_models_and_settings(project: Path) -> None:
    config = yaml.safe_load((project / "config.yaml").read_text())
    models = {model["model_name"]: model["litellm_params"] for model in config["model_list"]}
    assert models["claude-3-opus"]["model"].endswith("claude-3-opus-20240229")
    assert models["claude-3-sonnet"]["model"].endswith("claude-3-sonnet-20240229")
    assert {params["api_key"] for params in models.values()} == {"oauth"}
    settings = config["claude_oauth"]
    assert [settings[name] for name in ("enabled", "auto_refresh", "use_database")] == [True] * 3
    assert settings["token_file"] == "~/.litellm/claude_tokens.json"
    assert settings["encryption_key"] == "${CLAUDE_TOKEN_ENCRYPTION_KEY}"
    assert settings["refresh_buffer"] == 300


@block("4. Start Services")
def test_start_services(host: DockerHost) -> None:
    host.run("docker-compose up -d", timeout=600)
    settled(host, "docker-compose")
    shown = host.run("docker-compose ps")
    for service in ("litellm", "db", "redis"):
        assert f"litellm-{service}-1" in shown
    assert "(healthy)" in shown
    assert "litellm_oauth" in host.run("timeout 3 docker-compose logs -f litellm", code=124)


@block("Initial Authentication: 1. Start OAuth flow inside container")
def test_start_oauth_flow_inside_container(host: DockerHost) -> None:
    terminal = host.terminal(f"{CLI} login")
    terminal.expect_exact("Starting Claude OAuth authentication")
    terminal.expect(r"(http://localhost:4010/oauth/authorize\S+)")
    host.run(f"curl --silent --output /dev/null '{matched(terminal)}'")
    terminal.expect_exact("litellm claude callback <CODE>")
    terminal.expect_exact("Paste the code")
    terminal.sendline("")
    assert terminal.wait() == 0


@block("Initial Authentication: 3. Complete authentication with the code")
def test_complete_authentication_with_the_code(host: DockerHost) -> None:
    said = host.run("docker exec litellm-litellm-1 litellm claude login --json")
    code = host.approve(json.loads(said)["authorization_url"]).partition("#")[0]
    terminal = host.terminal(f"{CLI} callback {code}")
    terminal.expect_exact("Authentication successful")
    assert terminal.wait() == 0


@block("Initial Authentication: 4. Check status")
def test_check_status(host: DockerHost) -> None:
    terminal = host.terminal(f"{CLI} status")
    terminal.expect_exact("Claude OAuth Status")
    terminal.expect_exact("Valid")
    assert terminal.wait() == 0


@block("Using the API")
def test_using_the_api(host: DockerHost) -> None:
    said = host.run(
        """curl -X POST http://localhost:4000/chat/completions \\
  -H "Authorization: Bearer ${LITELLM_MASTER_KEY}" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "claude-3-opus",
    "messages": [{"role": "user", "content": "Hello!"}]
  }'"""
    )
    assert '"content":"Sandbox answer to: Hello!"' in said
    (seen,) = json.loads(host.run("curl --silent http://localhost:4010/control/requests"))
    assert (seen["status"], seen["has_x_api_key"]) == (200, False)
    assert seen["token_prefix"].startswith("sk-ant-oat")


@block("Manual Migration")
def test_manual_migration(host: DockerHost) -> None:
    before = host.run(EXPIRY)
    host.run("docker cp migrations/add_claude_oauth_tokens.sql litellm-db-1:/tmp/")
    said = host.run(f"{PSQL} -f /tmp/add_claude_oauth_tokens.sql")
    assert "ERROR" not in said
    assert "LiteLLM_ClaudeOAuthTokens" in host.run(f'{PSQL} -c "\\dt \\"LiteLLM_ClaudeOAuthTokens\\""')
    assert host.run(EXPIRY) == before


@block("Production Deployment: 1. Use strong encryption keys")
def test_use_strong_encryption_keys(host: DockerHost) -> None:
    made = host.run(
        "docker run --rm --entrypoint python litellm:oauth-custom -c "
        '"from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
    ).strip()
    started = prepared(host, CLAUDE_TOKEN_ENCRYPTION_KEY=made)
    # a good key, but not the one that this database's logins are sealed with
    assert "the stored tokens were written with key" in started
    assert "Traceback" not in started


def prepared(host: DockerHost, **environment: str) -> str:
    """What a gateway says that is given its settings as plain environment, as the documents show it."""
    password = setting(host, "POSTGRES_PASSWORD")
    key = setting(host, "CLAUDE_TOKEN_ENCRYPTION_KEY")
    given = {
        "DATABASE_URL": f"postgresql://llmproxy:{password}@db:5432/litellm",
        "CLAUDE_TOKEN_ENCRYPTION_KEY": key,
        "LITELLM_MASTER_KEY": "sk-obviously-fake",
        **environment,
    }
    options = " ".join(f"--env '{name}={value}'" for name, value in given.items())
    return host.run(
        f"docker run --rm --network litellm_backend {options} --volume {FOLDER}/config.yaml:/app/config.yaml:ro "
        "--entrypoint python litellm:oauth-custom -m litellm_oauth.prepare",
        code=None,
    )


@block("Production Deployment: 2. Secure database connection")
def test_secure_database_connection(host: DockerHost) -> None:
    password = setting(host, "POSTGRES_PASSWORD")
    url = f"postgresql://llmproxy:{password}@db:5432/litellm"
    # this database has no TLS: who demands it is not let down silently
    assert "does not offer the TLS" in prepared(host, DATABASE_URL=f"{url}?sslmode=require")
    assert prepared(host, DATABASE_URL=url) == ""


@block("Production Deployment: 3. Use Docker secrets")
def test_use_docker_secrets(host: DockerHost) -> None:
    shown = host.run("docker exec litellm-litellm-1 ls /run/secrets").split()
    assert {"encryption_key", "database_password", "master_key"} <= set(shown)
    inspected = host.run("docker inspect litellm-litellm-1 litellm-db-1 litellm-redis-1")
    for name in ("CLAUDE_TOKEN_ENCRYPTION_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "LITELLM_MASTER_KEY"):
        assert setting(host, name) not in inspected


@block("Production Deployment: 4. Network isolation")
def test_network_isolation(host: DockerHost) -> None:
    inner = host.run("docker network inspect litellm_backend --format '{{.Internal}}'")
    assert inner.strip() == "true"
    networks = host.run("docker inspect litellm-db-1 --format '{{json .NetworkSettings.Networks}}'")
    assert list(json.loads(networks)) == ["litellm_backend"]
    assert host.run("docker port litellm-db-1; docker port litellm-redis-1") == ""


@block("Kubernetes Deployment")
def test_kubernetes_deployments_environment_is_understood(host: DockerHost) -> None:
    assert prepared(host) == ""
    wrong = prepared(host, DATABASE_URL="postgresql://llmproxy:wrong@db:5432/litellm")
    assert "the password was refused" in wrong


@block("Docker Compose Health Check")
def test_health_check_does_not_wait_for_a_login(host: DockerHost) -> None:
    check = host.run("docker inspect litellm-litellm-1 --format '{{json .Config.Healthcheck.Test}}'")
    assert "/health/liveliness" in check
    host.run("docker exec litellm-litellm-1 python -m litellm.proxy.auth.claude_oauth_cli status")
    host.run(
        "docker exec --env USER_ID=nobody litellm-litellm-1 python -m litellm.proxy.auth.claude_oauth_cli status",
        code=1,
    )


@block("Manual Health Check")
def test_manual_health_check(host: DockerHost) -> None:
    said = host.run("docker exec litellm-litellm-1 python -m litellm.proxy.auth.claude_oauth_cli status")
    assert "Valid" in said
    assert "accepting connections" in host.run("docker exec litellm-db-1 pg_isready -U llmproxy -d litellm")
    assert "default" in host.run(EXPIRY)


@block("Container fails to start")
def test_container_fails_to_start(host: DockerHost) -> None:
    assert "litellm" in host.run("docker-compose logs litellm")
    shown = host.run('docker exec litellm-litellm-1 env | grep -E "CLAUDE|DATABASE"')
    assert "CLAUDE_TOKEN_ENCRYPTION_KEY_FILE=/run/secrets/encryption_key" in shown
    assert "LITELLM_OAUTH_DATABASE_URL=postgresql://llmproxy@db:5432/litellm" in shown
    assert setting(host, "CLAUDE_TOKEN_ENCRYPTION_KEY") not in shown


@block("Database connection errors")
def test_database_connection_errors(host: DockerHost) -> None:
    assert "accepting connections" in host.run("docker exec litellm-db-1 pg_isready")
    assert "LiteLLM_ClaudeOAuthTokens" in host.run(f'{PSQL} -c "\\dt"')


@block("OAuth authentication fails")
def test_oauth_authentication_fails(host: DockerHost) -> None:
    host.run("docker exec litellm-litellm-1 rm -f /app/.litellm/claude_tokens.json")
    assert status(host)["authenticated"], "the database keeps the login"
    host.run("docker exec litellm-litellm-1 python -m litellm.proxy.auth.claude_oauth_cli logout")
    host.run("docker-compose restart litellm")
    settled(host, "docker-compose")
    assert status(host)["status"] == "logged_out"
    log_in(host)


@block("Token refresh errors")
def test_token_refresh_errors(host: DockerHost) -> None:
    said = host.run(
        f"{PSQL} -c \"SELECT user_id, expires_at, CASE WHEN expires_at > NOW() THEN 'valid' ELSE 'expired' END as "
        'status FROM \\"LiteLLM_ClaudeOAuthTokens\\";"'
    )
    assert "valid" in said
    before = status(host)["generation"]
    refresh = "docker exec litellm-litellm-1 python -m litellm.proxy.auth.claude_oauth_cli refresh"
    assert "still valid" in host.run(refresh)
    host.run(f"{refresh} --force")
    assert status(host)["generation"] == int(str(before)) + 1


@block("Logging")
def test_logging(host: DockerHost) -> None:
    assert "litellm-db-1" in host.run("docker-compose logs").replace("db-1 ", "litellm-db-1 ")
    host.run("timeout 3 docker-compose logs -f litellm", code=124)
    assert "litellm_oauth INFO" in host.run('docker-compose logs litellm | grep -i "oauth\\|token\\|claude"')
    settled(host, "LITELLM_LOG_LEVEL=DEBUG docker-compose", "litellm")
    key = setting(host, "LITELLM_MASTER_KEY")
    assert "Sandbox answer" in chat(host, key=key)
    logged = host.run("docker-compose logs litellm")
    assert "DEBUG" in logged
    login = tokens(host)
    assert not [secret for secret in (login["accessToken"], login["refreshToken"], key) if secret in logged]
    settled(host, "docker-compose", "litellm")


@block("Backup OAuth Tokens")
def test_backup_oauth_tokens(host: DockerHost) -> None:
    host.run(
        'docker exec litellm-db-1 pg_dump -U llmproxy -d litellm -t "\\"LiteLLM_ClaudeOAuthTokens\\"" '
        "> oauth_tokens_backup.sql"
    )
    host.run("docker cp litellm-litellm-1:/app/.litellm/claude_tokens.json ./claude_tokens_backup.json")
    login = tokens(host)
    for file in ("oauth_tokens_backup.sql", "claude_tokens_backup.json"):
        saved = host.run(f"cat {file}")
        assert "v1." in saved
        assert login["accessToken"] not in saved
        assert login["refreshToken"] not in saved


@block("Restore OAuth Tokens")
def test_restore_over_living_logins_changes_none_of_them(host: DockerHost) -> None:
    host.run("docker exec litellm-litellm-1 litellm claude refresh --force")
    before = host.run(EXPIRY)
    host.run("docker cp oauth_tokens_backup.sql litellm-db-1:/tmp/")
    said = host.run(f"{PSQL} -f /tmp/oauth_tokens_backup.sql", code=None)
    assert "duplicate key" in said
    assert host.run(EXPIRY) == before


@block("Restore OAuth Tokens")
def test_restore_into_an_empty_database_brings_the_logins_back(host: DockerHost) -> None:
    host.run(
        'docker exec litellm-db-1 pg_dump -U llmproxy -d litellm -t "\\"LiteLLM_ClaudeOAuthTokens\\"" '
        "> oauth_tokens_backup.sql"
    )
    before = tokens(host)
    host.run("docker cp litellm-litellm-1:/app/.litellm/claude_tokens.json ./claude_tokens_backup.json")
    host.run("docker-compose rm --stop --force litellm db")
    host.run("docker volume rm litellm_postgres_data litellm_oauth_tokens")
    settled(host, "docker-compose")
    assert status(host)["status"] == "logged_out"
    host.run("docker cp oauth_tokens_backup.sql litellm-db-1:/tmp/")
    host.run(f"{PSQL} -f /tmp/oauth_tokens_backup.sql")
    # who runs the gateway has to own the file, which docker cp would give to root
    host.run(
        "docker exec -i litellm-litellm-1 sh -c 'umask 077; cat > /app/.litellm/claude_tokens.json' "
        "< ./claude_tokens_backup.json"
    )
    host.run("docker exec litellm-litellm-1 chmod 600 /app/.litellm/claude_tokens.json")
    assert tokens(host) == before
    assert "Sandbox answer" in chat(host, key=setting(host, "LITELLM_MASTER_KEY"))


@block("Multi-User Support")
def test_multi_user_support(host: DockerHost) -> None:
    migrations = "/opt/venv/lib/python3*/site-packages/litellm_proxy_extras/migrations/*/migration.sql"
    host.run(
        f"docker exec litellm-litellm-1 sh -c 'cat {migrations}' > litellm.sql && "
        "docker exec -i litellm-db-1 psql -U llmproxy -d litellm --quiet < litellm.sql",
        timeout=300,
    )
    host.run(
        f"""{PSQL} -c "INSERT INTO \\"LiteLLM_UserTable\\" (user_id, user_email) """
        """VALUES ('default', 'default@example.com'), ('newcomer', 'newcomer@example.com')\""""
    )
    said = host.run(
        f"""{PSQL} -c '
SELECT
    u.user_id,
    u.user_email,
    t.expires_at,
    t.refresh_count,
    CASE
        WHEN t.expires_at > NOW() THEN '"'active'"'
        WHEN t.refresh_token_encrypted IS NOT NULL THEN '"'expired_refreshable'"'
        ELSE '"'expired'"'
    END AS status
FROM "LiteLLM_UserTable" u
LEFT JOIN "LiteLLM_ClaudeOAuthTokens" t ON u.user_id = t.user_id;'"""
    )
    rows = {
        line.split("|")[0].strip(): line.split("|")[-1].strip() for line in said.splitlines() if "@" in line
    }
    assert rows == {"default": "active", "newcomer": "expired"}


@block("Build with OAuth Support")
def test_build_with_oauth_support(host: DockerHost) -> None:
    assert "litellm:oauth-custom" in host.run("docker image ls --format '{{.Repository}}:{{.Tag}}'")
    platforms = host.run("docker buildx inspect --bootstrap 2>&1 | sed -n s/^Platforms://p")
    host.run(
        f"docker buildx build --platform linux/amd64 --build-arg BASE={base(host)} "
        "--secret id=ca,src=/etc/ssl/certs/ca-certificates.crt -t litellm:oauth-multiarch --load .",
        timeout=600,
    )
    assert "linux/amd64" in platforms


def test_tokens_in_the_env_file_are_imported_where_nobody_ever_logged_in(host: DockerHost) -> None:
    login = tokens(host)
    host.run("docker-compose down --volumes")
    host.run(
        f"sed -i -e 's/^CLAUDE_ACCESS_TOKEN=.*/CLAUDE_ACCESS_TOKEN={login['accessToken']}/' "
        f"-e 's/^CLAUDE_REFRESH_TOKEN=.*/CLAUDE_REFRESH_TOKEN={login['refreshToken']}/' "
        f"-e 's/^#CLAUDE_EXPIRES_AT=.*/CLAUDE_EXPIRES_AT={int(login['expiresAt'])}/' .env"
    )
    settled(host, "docker-compose")
    assert status(host)["status"] == "active"
    assert tokens(host)["accessToken"] == login["accessToken"]


def test_odd_secrets_from_the_inventory_survive_the_env_file(host: DockerHost, tmp_path: Path) -> None:
    password = "pa$w'o\"rd\\n#${x}"
    keys = {
        "TEAM_API_KEY": "dollar$HOME'quote",
        "BACKSLASH": "ends\\in\\",
        "SIGNING_KEY": "-----BEGIN PRIVATE KEY-----\nb2J2aW91c2x5\nZmFrZQ==\n-----END PRIVATE KEY-----\n",
    }
    odd = {"postgres_password": password, "litellm_oauth_api_keys": keys}
    # beside the sandbox's inventory, for what -e says would be in the other project as well
    inventory = tmp_path / "inventory"
    (inventory / "group_vars").mkdir(parents=True)
    (inventory / "hosts.yml").write_text("gateway: {hosts: {localhost: {}}}\n")
    (inventory / "group_vars/all.yml").write_text(yaml.safe_dump(odd))
    inventories = ["-i", "inventories/sandbox", "-i", str(inventory)]
    export = [
        "ansible-playbook",
        *inventories,
        "playbooks/export_compose.yml",
        "-e",
        f"directory={tmp_path}/x",
    ]
    done = subprocess.run(export, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    assert password not in done.stdout
    names = ("POSTGRES_PASSWORD", *keys)
    host.run(f"cat > odd.env <<'END'\n{(tmp_path / 'x/.env').read_text()}\nEND")
    host.run(
        f"echo '{json.dumps({'services': {'x': {'image': 'x', 'environment': {n: '${' + n + '}' for n in names}}}})}' > odd.json"
    )
    shown = json.loads(host.run("docker-compose -f odd.json --env-file odd.env config --format json"))
    found = shown["services"]["x"]["environment"]
    # what `config` prints could be read again, so a dollar is doubled
    read = {name: str(value).replace("$$", "$").strip() for name, value in found.items()}
    assert read == {
        "POSTGRES_PASSWORD": password,
        **{name: value.strip() for name, value in keys.items()},
    }
