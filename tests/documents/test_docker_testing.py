"""``docker-testing.md``, block by block, on the project that ``docker-compose.test-oauth.yml`` describes.

The tests run in the document's order and go on from each other. Where a line cannot be run as it is written, the
nearest true form stands here and in the README's table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.docker_host import DockerHost, matched
from support.documented import CLAUDE, PSQL, chat, log_in, setting, settled, status, tokens

pytestmark = pytest.mark.timeout(900)  # images are built in the course of it
block = pytest.mark.block

COMPOSE = "docker-compose -f docker-compose.test-oauth.yml"
KEY = "sk-oauth-test-1234"
ASK = f'curl -X POST http://localhost:4000/v1/chat/completions -H "Authorization: Bearer {KEY}" -H "Content-Type: application/json"'


@pytest.fixture(scope="module")
def host(plain_host: DockerHost) -> Iterator[DockerHost]:
    # the lines that name no --env-file would otherwise be answered out of the other project's .env
    yield replace(plain_host, environment=("COMPOSE_ENV_FILES=.env.oauth",))
    plain_host.run(f"{COMPOSE} --env-file .env.oauth down --volumes --timeout 5", code=None)


@block("1. Automated Testing")
def test_automated_testing(host: DockerHost) -> None:
    said = host.run("./test_oauth_docker.sh", timeout=800)
    assert re.search(r"== Summary\n  1[0-9] passed, 0 failed", said), said
    assert host.run("docker ps --all --quiet; docker volume ls --quiet | grep litellm", code=1) == ""


@block("2. Manual Quick Start")
def test_manual_quick_start(host: DockerHost) -> None:
    host.run(f"{COMPOSE} --env-file .env.oauth up -d --build", timeout=800)
    settled(host, COMPOSE)
    shown = host.run(f"{COMPOSE} ps")
    assert "litellm-litellm-1" in shown
    assert "(healthy)" in shown
    assert "litellm_oauth" in host.run(f"timeout 3 {COMPOSE} logs -f litellm", code=124)
    host.run(f"{COMPOSE} down --volumes")


@block("Step 1: Configure Environment: 1. Copy the example environment file")
def test_copy_the_example_environment_file(host: DockerHost) -> None:
    host.run("cp .env.oauth .env.oauth.local")
    assert host.run("stat -c %a .env.oauth.local").strip() == "600"


@block("Step 1: Configure Environment: 2. Edit .env.oauth.local")
def test_edit_the_environment_file(host: DockerHost) -> None:
    # an env file runs no $(…), so the shell does
    host.run(
        "sed -i -e 's/^LITELLM_MASTER_KEY=.*/LITELLM_MASTER_KEY=your-secure-key-here/' "
        '-e "s/^CLAUDE_TOKEN_ENCRYPTION_KEY=.*/CLAUDE_TOKEN_ENCRYPTION_KEY=$(openssl rand -hex 32)/" .env.oauth.local'
    )
    local = replace(host, environment=("COMPOSE_ENV_FILES=.env.oauth.local",))
    settled(local, COMPOSE)
    answer = "curl --silent --output /dev/null --write-out '%{http_code}' http://localhost:4000/v1/models"
    assert local.run(f"{answer} -H 'Authorization: Bearer your-secure-key-here'") == "200"
    assert local.run(f"{answer} -H 'Authorization: Bearer {KEY}'") == "401"
    local.run(f"{COMPOSE} down --volumes")


@block("Step 2: Build and Start Services")
def test_build_and_start_services(host: DockerHost) -> None:
    host.run(f"{COMPOSE} build", timeout=800)
    host.run(f"{COMPOSE} up -d")
    settled(host, COMPOSE)
    # it needs a key; what needs none says whether the gateway lives
    assert "alive" in host.run("curl --silent http://localhost:4000/health/liveliness")
    health = json.loads(
        host.run(f"curl --silent http://localhost:4000/health -H 'Authorization: Bearer {KEY}'")
    )
    assert health["unhealthy_count"] == 0


@block("Step 3: Verify Services")
def test_verify_services(host: DockerHost) -> None:
    shown = host.run("docker ps")
    assert all(f"litellm-{name}-1" in shown for name in ("litellm", "db", "redis"))
    assert "Proxy initialized" in host.run("docker logs litellm-litellm-1")
    assert "LiteLLM_ClaudeOAuthTokens" in host.run(f'{PSQL} -c "\\dt"')
    assert host.run("docker exec litellm-redis-1 redis-cli ping").strip() == "PONG"


@block("Method 1: CLI Authentication (Recommended): 1. Start OAuth login")
@block("Method 1: CLI Authentication (Recommended): Output")
def test_start_oauth_login(host: DockerHost) -> None:
    terminal = host.terminal("docker exec -it litellm-litellm-1 litellm claude login")
    for line in (
        "🔐 Starting Claude OAuth authentication...",
        "=" * 60,
        "📋 Authorization URL generated!",
        "http://localhost:4010/oauth/authorize?",
        "=" * 60,
        "📝 After authorization, you'll be redirected to:",
        "/oauth/code/callback",
        "Copy the CODE",
        "💡 Then run",
        "litellm claude callback <CODE>",
        "=" * 60,
        "Paste the code",
    ):
        terminal.expect_exact(line)
    terminal.sendline("")
    assert terminal.wait() == 0


@block("Method 1: CLI Authentication (Recommended): 3. Complete authentication")
def test_complete_authentication(host: DockerHost) -> None:
    started = json.loads(host.run(f"{CLAUDE} login --json"))
    code = host.approve(started["authorization_url"]).partition("#")[0]
    terminal = host.terminal(f"docker exec -it litellm-litellm-1 litellm claude callback {code}")
    terminal.expect_exact("✅ Authentication successful!")
    assert terminal.wait() == 0


@block("Method 1: CLI Authentication (Recommended): 4. Verify authentication")
@block("Method 1: CLI Authentication (Recommended): Expected output")
def test_verify_authentication(host: DockerHost) -> None:
    terminal = host.terminal("docker exec -it litellm-litellm-1 litellm claude status")
    for line in (
        "🔍 Claude OAuth Status",
        "=" * 60,
        "✅ Using tokens from: database",
        "📊 Token Status:",
        "   • Status: ✅ Valid",
    ):
        terminal.expect_exact(line)
    terminal.expect(r"   • Expires in: [78]\.\d hours")
    assert terminal.wait() == 0


@block("Method 2: API Authentication: 1. Start OAuth flow")
@block("Method 2: API Authentication: Response")
def test_start_oauth_flow(host: DockerHost) -> None:
    told = json.loads(host.run("curl --silent http://localhost:4000/auth/claude/oauth/start"))
    assert told["error"]["code"] == "already_logged_in"
    host.run(f"{CLAUDE} logout")
    started = json.loads(host.run("curl --silent http://localhost:4000/auth/claude/oauth/start"))
    assert started["authorization_url"].startswith("http://localhost:4010/oauth/authorize?")
    assert started["state"] in started["authorization_url"]


@block("Method 2: API Authentication: 3. Exchange code for tokens")
def test_exchange_code_for_tokens(host: DockerHost) -> None:
    started = json.loads(host.run("curl --silent http://localhost:4000/auth/claude/oauth/start"))
    code = host.approve(started["authorization_url"]).partition("#")[0]
    answer = json.loads(
        host.run(
            f"""curl --silent -X POST http://localhost:4000/auth/claude/oauth/exchange \\
  -H "Content-Type: application/json" \\
  -d '{{
    "code": "{code}",
    "state": "{started["state"]}"
  }}'"""
        )
    )
    assert (answer["authenticated"], answer["user_id"]) == (True, "default")


@block("Method 2: API Authentication: 4. Check status")
def test_check_status_agrees_everywhere_to_the_second(host: DockerHost) -> None:
    answer = json.loads(host.run("curl --silent http://localhost:4000/auth/claude/oauth/status"))
    assert (answer["authenticated"], answer["status"]) == (True, "active")
    shown = status(host)
    assert shown["expires_at"] == answer["expires_at"]
    assert abs(shown["expires_in"] - answer["expires_in"]) <= 3


@block("1. List Available Models")
def test_list_available_models(host: DockerHost) -> None:
    said = host.run(f'curl -s -H "Authorization: Bearer {KEY}" http://localhost:4000/v1/models | jq')
    names = {model["id"] for model in json.loads(said)["data"]}
    assert {
        "claude-opus-4.1",
        "claude-opus-4",
        "claude-sonnet-4",
        "claude-sonnet-3.7",
        "claude-haiku-3.5",
    } <= names


@block("2. Test Chat Completion")
def test_chat_completion(host: DockerHost) -> None:
    said = host.run(
        f"""curl -s -X POST http://localhost:4000/v1/chat/completions \\
  -H "Authorization: Bearer {KEY}" \\
  -H "Content-Type: application/json" \\
  -d '{{
    "model": "claude-haiku-3.5",
    "messages": [
      {{"role": "user", "content": "Hello, how are you?"}}
    ],
    "max_tokens": 50
  }}' | jq"""
    )
    assert json.loads(said)["choices"][0]["message"]["content"] == "Sandbox answer to: Hello, how are you?"


@block("3. Test with Different Models")
@pytest.mark.parametrize(
    ("model", "question"),
    [("claude-opus-4.1", "What is 2+2?"), ("claude-sonnet-3.7", "Write a haiku about OAuth")],
)
def test_different_models(host: DockerHost, model: str, question: str) -> None:
    said = host.run(
        f"""curl -s -X POST http://localhost:4000/v1/chat/completions \\
  -H "Authorization: Bearer {KEY}" \\
  -H "Content-Type: application/json" \\
  -d '{{
    "model": "{model}",
    "messages": [
      {{"role": "user", "content": "{question}"}}
    ]
  }}' | jq '.choices[0].message.content'"""
    )
    assert said.strip() == f'"Sandbox answer to: {question}"'


@block("4. Test Streaming")
def test_streaming(host: DockerHost) -> None:
    said = host.run(
        f"""{ASK} -s -d '{{
    "model": "claude-haiku",
    "messages": [
      {{"role": "user", "content": "Count to 5"}}
    ],
    "stream": true
  }}'"""
    )
    events = [line for line in said.splitlines() if line.startswith("data: ")]
    assert len(events) > 3
    assert events[-1] == "data: [DONE]"


@block("Common Issues: 1. OAuth Login Fails")
def test_oauth_login_fails(host: DockerHost) -> None:
    assert host.run("docker logs litellm-litellm-1 --tail 100")
    # a shell of the container's, for the * is the container's
    shown = host.run("docker exec litellm-litellm-1 sh -c 'ls -la /app/litellm/proxy/auth/claude_oauth*'")
    assert "claude_oauth_cli.py" in shown
    assert "claude_oauth_flow.py" in shown
    said = host.run(
        'docker exec litellm-litellm-1 python -c "from litellm.proxy.auth.claude_oauth_flow import ClaudeOAuthFlow; '
        "print('OK')\""
    )
    assert said.strip().endswith("OK")


@block("Common Issues: 2. Token Expired")
def test_token_expired(host: DockerHost) -> None:
    terminal = host.terminal("docker exec -it litellm-litellm-1 litellm claude refresh")
    terminal.expect_exact("still valid")
    assert terminal.wait() == 0
    terminal = host.terminal("docker exec -it litellm-litellm-1 litellm claude login")
    terminal.expect_exact("logged in already")
    terminal.expect_exact("litellm claude login --force")
    assert terminal.wait() == 0


@block("Common Issues: 3. API Calls Fail")
def test_api_calls_fail(host: DockerHost) -> None:
    assert '"authenticated"' in host.run("curl --silent http://localhost:4000/auth/claude/oauth/status")
    file = json.loads(host.run("docker exec litellm-litellm-1 cat /app/.litellm/claude_tokens.json"))
    assert {"accessToken", "refreshToken", "expiresAt"} <= set(file)
    assert file["accessToken"].startswith("v1.")
    shown = host.run("docker exec litellm-litellm-1 env | grep CLAUDE")
    assert "CLAUDE_TOKEN_ENCRYPTION_KEY_FILE=" in shown
    assert setting(host, "CLAUDE_TOKEN_ENCRYPTION_KEY", ".env.oauth") not in shown


@block("Common Issues: 4. Database Issues")
def test_database_issues(host: DockerHost) -> None:
    assert "LiteLLM_ClaudeOAuthTokens" in host.run(f'{PSQL} -c "\\dt"')
    login = tokens(host)
    rows = host.run(f'{PSQL} -c "SELECT * FROM \\"LiteLLM_ClaudeOAuthTokens\\";"')
    assert "default" in rows
    assert login["accessToken"] not in rows
    assert login["refreshToken"] not in rows
    host.run(f"{COMPOSE} down -v")
    host.run(f"{COMPOSE} up -d")
    settled(host, COMPOSE)
    assert status(host)["status"] == "logged_out"
    log_in(host)


@block("Debug Mode: 1. Set environment variables")
@block("Debug Mode: 2. Restart containers")
@block("Debug Mode: 3. View detailed logs")
def test_debug_mode(host: DockerHost) -> None:
    # `restart` starts a container with the environment that it was made with; `up` makes it again
    settled(host, f"export LITELLM_LOG_LEVEL=DEBUG; export DETAILED_DEBUG=true; {COMPOSE}", "litellm")
    assert "Sandbox answer" in chat(host, key=KEY)
    host.run(f"{CLAUDE} refresh --force")
    assert "Sandbox answer" in chat(host, key=KEY)
    shown = host.run('timeout 3 docker logs litellm-litellm-1 -f 2>&1 | grep -E "OAuth|Token|Claude"')
    assert shown
    logged = host.run("docker logs litellm-litellm-1 2>&1")
    assert "DEBUG" in logged
    login = tokens(host)
    assert not [secret for secret in (login["accessToken"], login["refreshToken"], KEY) if secret in logged]
    settled(host, COMPOSE, "litellm")
    assert "DEBUG" not in host.run("docker logs litellm-litellm-1 2>&1")


@block("Using Debug Tools")
def test_using_debug_tools(host: DockerHost) -> None:
    settled(host, f"{COMPOSE} --profile debug")
    form = "--data-urlencode auth[driver]=pgsql --data-urlencode auth[server]=db --data-urlencode auth[username]=llmproxy"
    page = host.run(
        f"curl --silent --location --cookie-jar /tmp/jar --cookie /tmp/jar http://localhost:8080/ {form} "
        "--data-urlencode auth[password]=dbpassword9090 --data-urlencode auth[db]=litellm"
    )
    assert "litellm" in page
    assert "Logout" in page
    page = host.run(
        "curl --silent --cookie /tmp/jar 'http://localhost:8080/?pgsql=db&username=llmproxy&db=litellm&ns=claude_oauth'"
    )
    assert "LiteLLM_ClaudeOAuthTokens" in page
    assert "Redis Commander" in host.run("curl --silent --location http://localhost:8081")
    host.run(f"{COMPOSE} --profile debug rm --stop --force adminer redis-commander")


@block("1. Test Token Refresh")
def test_token_refresh(host: DockerHost, tmp_path: Path) -> None:
    # where files decide: with a database they only mirror it
    host.run("sed -i 's/use_database: true/use_database: false/' config.oauth.yaml")
    settled(host, f"{COMPOSE} up -d --force-recreate litellm >/dev/null 2>&1; {COMPOSE}", "litellm")
    log_in(host)
    assert "✅ Using tokens from: /app/.litellm/claude_tokens.json" in host.run(f"{CLAUDE} status")
    script = '''
# test_token_refresh.py
import time
import subprocess

# Set token to expire soon
subprocess.run([
    "docker", "exec", "litellm-litellm-1",
    "python", "-c",
    """
import json
import time
token_file = '/app/.litellm/claude_tokens.json'
with open(token_file, 'r') as f:
    tokens = json.load(f)
tokens['expiresAt'] = int(time.time()) + 60  # Expire in 1 minute
with open(token_file, 'w') as f:
    json.dump(tokens, f)
print('Token set to expire in 60 seconds')
"""
])

# Wait for expiration
print("Waiting for token to expire...")
time.sleep(65)

# Make API call (should auto-refresh)
subprocess.run([
    "curl", "-X", "POST", "http://localhost:4000/v1/chat/completions",
    "-H", "Authorization: Bearer sk-oauth-test-1234",
    "-H", "Content-Type: application/json",
    "-d", '{"model": "claude-haiku", "messages": [{"role": "user", "content": "test"}]}'
])
'''
    # a test need not wait for a minute
    hasty = script.replace("+ 60  #", "+ 2  #").replace("sleep(65)", "sleep(3)")
    assert hasty.count("+ 2  #") == hasty.count("sleep(3)") == 1
    host.run(f"cat > test_token_refresh.py <<'EOF'\n{hasty}\nEOF")
    before = status(host)["generation"]
    said = host.run("python3 test_token_refresh.py")
    assert "Token set to expire" in said
    assert "Sandbox answer to: test" in said
    assert status(host)["generation"] == before + 1


@block("2. Load Testing")
def test_load_testing(host: DockerHost) -> None:
    said = host.run(
        f"""hey -n 100 -c 10 -m POST \\
  -H "Authorization: Bearer {KEY}" \\
  -H "Content-Type: application/json" \\
  -d '{{"model": "claude-haiku", "messages": [{{"role": "user", "content": "Hi"}}]}}' \\
  http://localhost:4000/v1/chat/completions"""
    )
    assert re.search(r"\[200\]\s+100 responses", said), said


@block("3. Multi-User Testing")
def test_multi_user_testing(host: DockerHost) -> None:
    terminal = host.terminal(
        """for i in {1..3}; do
  docker exec -it litellm-litellm-1 bash -c "
    export USER_ID=user_$i
    litellm claude login
    # Complete authentication for each user
  "
done"""
    )
    for _ in range(3):
        terminal.expect(r"(http://localhost:4010/oauth/authorize\S+)")
        code = host.approve(matched(terminal))
        terminal.expect_exact("Paste the code")
        terminal.sendline(code)
        terminal.expect_exact("Authentication successful")
    assert terminal.wait() == 0
    logins = [tokens(host, f"user_{number}") for number in (1, 2, 3)]
    assert len({login["accessToken"] for login in logins}) == 3
    assert {login["userId"] for login in logins} == {"user_1", "user_2", "user_3"}


@block("Stop and Remove Containers")
def test_stop_and_remove_containers(host: DockerHost) -> None:
    host.run(f"{COMPOSE} down")
    assert "litellm_oauth_tokens" in host.run("docker volume ls --quiet")
    host.run("docker volume rm litellm_oauth_tokens")
    host.run(f"{COMPOSE} down -v")
    assert host.run("docker ps --all --quiet; docker volume ls --quiet | grep litellm", code=1) == ""
    host.run("sed -i 's/use_database: false/use_database: true/' config.oauth.yaml")
    settled(host, COMPOSE)
    assert status(host)["status"] == "logged_out"


@block("Reset OAuth State")
def test_reset_oauth_state(host: DockerHost) -> None:
    log_in(host)
    terminal = host.terminal("docker exec -it litellm-litellm-1 litellm claude logout")
    terminal.expect_exact("default is logged out")
    assert terminal.wait() == 0
    # a shell of the container's, for the * is the container's
    host.run("docker exec litellm-litellm-1 sh -c 'rm -rf /app/.litellm/*'")
    assert host.run("docker exec litellm-litellm-1 sh -c 'ls /app/.litellm'") == ""
    assert status(host)["status"] == "logged_out"


@block("Useful Commands Reference")
def test_useful_commands_reference(host: DockerHost) -> None:
    assert "litellm-litellm-1" in host.run(f"{COMPOSE} ps")
    host.run(f"timeout 3 {COMPOSE} logs -f", code=124)
    host.run(f"{COMPOSE} restart")
    settled(host, COMPOSE)
    log_in(host)
    before = status(host)["generation"]
    for command, expected in (("status", "Valid"), ("refresh", "still valid"), ("export", '"accessToken"')):
        terminal = host.terminal(f"docker exec -it litellm-litellm-1 litellm claude {command}")
        terminal.expect_exact(expected)
        terminal.read()
        assert terminal.wait() == 0
    assert status(host)["generation"] == before
    terminal = host.terminal("docker exec -it litellm-litellm-1 bash")
    terminal.sendline("id --user; exit")
    terminal.expect_exact("10001")
    assert terminal.wait() == 0
    assert host.run("docker logs litellm-litellm-1 --tail 100")
    assert (
        json.loads(host.run("docker inspect litellm-litellm-1"))[0]["State"]["Health"]["Status"] == "healthy"
    )
    terminal = host.terminal("docker exec -it litellm-db-1 psql -U llmproxy -d litellm")
    terminal.sendline('SELECT user_id FROM "LiteLLM_ClaudeOAuthTokens";')
    terminal.expect_exact("default")
    terminal.sendline("\\q")
    terminal.read()
    assert terminal.wait() == 0
    assert host.run("echo PING | docker exec -i litellm-redis-1 redis-cli").strip() == "PONG"
    terminal = host.terminal("docker exec -it litellm-litellm-1 litellm claude logout")
    terminal.expect_exact("default is logged out")
    assert terminal.wait() == 0
    host.run(f"{COMPOSE} down")
