"""Adminer and Redis Commander as the documents use them, and what nobody can use them for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import docker.errors
import httpx
import pytest

from support.stack import Stack, log_in, log_out, playbook

USER = "debug-tools-user"
TOKENS = "LiteLLM_ClaudeOAuthTokens"
CONNECTION = quote("R:redis:6379:0", safe="")
READ_ONLY = "nothing can be changed here"


def url(stack: Stack, tool: str) -> str:
    """Where the tool is published; the ports are the inventory's."""
    (bindings,) = stack.inspect(tool)["NetworkSettings"]["Ports"].values()
    return f"http://localhost:{bindings[0]['HostPort']}"


def test_both_listen_on_loopback_only(stack: Stack) -> None:
    for tool in ("adminer", "redis-commander"):
        (bindings,) = stack.inspect(tool)["NetworkSettings"]["Ports"].values()
        assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"]


def adminer_login(
    stack: Stack, password: str, *, server: str = "db", driver: str = "pgsql"
) -> httpx.Response:
    """Fill in Adminer's own form, as the documents say, and go where it leads."""
    with httpx.Client(base_url=url(stack, "adminer"), follow_redirects=True, timeout=30) as browser:
        form = browser.get("/").text
        assert re.search(r"""name=["']auth\[server\]["'] value=["']db["']""", form)
        hidden = re.findall(r"""type=["']hidden["'] name=["']([^"']+)["'] value=["']([^"']*)["']""", form)
        entries = {
            "server": server,
            "username": "llmproxy",
            "password": password,
            "db": "litellm",
            "driver": driver,
        }
        return browser.post(
            "/", data=dict(hidden) | {f"auth[{name}]": value for name, value in entries.items()}
        )


def test_adminer_lets_in_with_what_the_documents_say_and_shows_the_tokens_table(stack: Stack) -> None:
    page = adminer_login(stack, stack.secrets()["database_password"])
    assert page.status_code == 200
    assert f"select={TOKENS}" in page.text


def test_adminer_refuses_a_wrong_password(stack: Stack) -> None:
    page = adminer_login(stack, "obviously-wrong")
    assert page.status_code == 403
    assert TOKENS not in page.text
    assert "password or database is not the right one" in page.text


def test_adminer_reaches_this_stack_s_postgresql_alone(stack: Stack) -> None:
    password = stack.secrets()["database_password"]
    page = adminer_login(stack, password, server="redis:6379")
    assert page.status_code == 403
    assert "for PostgreSQL on the server db" in page.text
    # there is no other driver either, whatever a form says
    assert f"select={TOKENS}" in adminer_login(stack, password, driver="elastic").text


def commander(stack: Stack, method: str, path: str, **arguments: Any) -> httpx.Response:
    return httpx.request(method, f"{url(stack, 'redis-commander')}/{path}", timeout=30, **arguments)


def command(stack: Stack, text: str) -> Any:
    """What the page's command line says."""
    return commander(stack, "POST", f"apiv2/exec/{CONNECTION}", data={"cmd": text}).json()["data"]


@pytest.fixture
def key(stack: Stack, gateway: httpx.Client) -> Iterator[str]:
    """A key of the gateway's that is in Redis at this moment."""
    log_in(gateway, USER)
    yield str(command(stack, "scan 0 match litellm_oauth:* count 1000")[1][0])
    log_out(gateway, USER)


def test_redis_commander_shows_the_gateway_s_keys_and_their_values_sealed(stack: Stack, key: str) -> None:
    assert commander(stack, "GET", "").status_code == 200
    (tree,) = commander(stack, "GET", f"apiv2/keystree/{CONNECTION}/").json()["data"]
    assert tree["keyName"] == "litellm_oauth:"
    shown = commander(stack, "GET", f"apiv2/key/{CONNECTION}/{quote(key, safe='')}").json()
    assert (shown["key"], shown["type"]) == (key, "string")
    assert shown["ttl"] > 0
    assert "sk-ant-" not in str(shown)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"apiv2/key/{CONNECTION}/litellm_oauth%3Ax?action=delete"),
        ("POST", f"apiv2/key/{CONNECTION}/litellm_oauth%3Ax"),
        ("PATCH", f"apiv2/key/{CONNECTION}/litellm_oauth%3Ax"),
        ("DELETE", "apiv2/hash/field"),
        ("POST", "tools/import"),
        # another server, and the end of its own connection
        ("POST", "login"),
        ("POST", "login/detectDb"),
        ("POST", f"logout/{CONNECTION}"),
    ],
)
def test_redis_commander_changes_neither_data_nor_connections(stack: Stack, method: str, path: str) -> None:
    answer = commander(stack, method, path)
    assert answer.status_code == 403
    assert READ_ONLY in answer.text


def test_redis_itself_lets_the_inspector_change_nothing(stack: Stack, key: str) -> None:
    assert command(stack, f"get {key}")
    assert "not read-only" in command(stack, f"del {key}")

    password = 'REDISCLI_AUTH="$(cat /run/secrets/redis_inspector_password)"'
    login = f"{password} redis-cli --no-auth-warning --user inspector "
    for refused in (
        f"set {key} x",
        f"del {key}",
        f"expire {key} 1",
        "flushall",
        "config get '*'",
        "acl list",
        "get other",
    ):
        assert "NOPERM" in stack.exec("redis", "sh", "-c", login + refused).stdout


@pytest.mark.parametrize("tool", ["adminer", "redis-commander"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "rebound.example"}, 403),
        ({"Host": "localhost.example:80"}, 403),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:8080", "Origin": "http://[::1]:8080"}, 200),
    ],
)
def test_no_other_page_in_the_browser_can_use_them(
    stack: Stack, tool: str, headers: dict[str, str], status: int
) -> None:
    assert httpx.get(f"{url(stack, tool)}/", headers=headers, timeout=30).status_code == status


def test_another_page_may_lead_to_redis_commander_and_no_further(stack: Stack) -> None:
    for site in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": site}
        assert commander(stack, "GET", "", headers=headers).status_code == 200
        assert commander(stack, "GET", "connections", headers=headers).status_code == 403
    assert (
        commander(stack, "GET", "connections", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    )


@pytest.mark.timeout(240)  # two deployments
def test_switched_off_they_are_removed_and_the_gateway_stays(stack: Stack) -> None:
    gateway = stack.inspect("litellm")["Id"]
    try:
        off = playbook("site.yml", debug_tools_enabled="false")
        assert off.returncode == 0, off.stdout
        for tool in ("adminer", "redis-commander"):
            with pytest.raises(docker.errors.NotFound):
                stack.inspect(tool)
    finally:
        on = playbook("site.yml")
    assert on.returncode == 0, on.stdout
    assert stack.inspect("litellm")["Id"] == gateway
