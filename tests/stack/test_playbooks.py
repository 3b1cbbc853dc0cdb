"""Login, status, refresh and logout by playbook, on the running stack."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from support import ansible_modules
from support.stack import Stack, approve, changed, log_in, log_out, playbook, status

USER = "playbook-user"


@pytest.fixture(autouse=True)
def logged_out(gateway: httpx.Client) -> Iterator[None]:
    yield
    log_out(gateway, USER)


def authorization_url(output: str) -> str:
    (url,) = set(re.findall(r"http://\S+/oauth/authorize\?[^\s'\"]+", output))
    return str(url)


def start() -> str:
    result = playbook("oauth_login.yml", user=USER)
    assert result.returncode == 0, result.stdout
    return authorization_url(result.stdout)


def bare(shown: str, url: str) -> str:
    return shown.split("#")[0]


def whole_url(shown: str, url: str) -> str:
    code, state = shown.split("#")
    return f"{parse_qs(urlsplit(url).query)['redirect_uri'][0]}?code={code}&state={state}"


def as_shown(shown: str, url: str) -> str:
    return shown


@pytest.mark.parametrize("form", [bare, as_shown, whole_url])
def test_login_takes_each_form_of_the_code(gateway: httpx.Client, form: Callable[[str, str], str]) -> None:
    url = start()
    before = status(gateway, USER)
    result = playbook("oauth_login.yml", user=USER, code=form(approve(url), url))
    after = status(gateway, USER)
    assert result.returncode == 0, result.stdout
    assert not before["authenticated"]
    assert after["authenticated"]
    assert after["generation"] == before["generation"] + 1


def test_a_login_shows_neither_code_nor_key_nor_token(stack: Stack) -> None:
    shown = approve(start())
    result = playbook("oauth_login.yml", "-vvv", user=USER, code=shown)
    assert result.returncode == 0
    # The command line that Ansible repeats with -vvv is the caller's own.
    output = "\n".join(line for line in result.stdout.splitlines() if "--extra-vars" not in line)
    assert "sk-ant-" not in output
    assert stack.key not in output
    assert shown.split("#")[0] not in output


def test_a_used_code_is_refused_and_changes_nothing(gateway: httpx.Client) -> None:
    shown = approve(start())
    assert playbook("oauth_login.yml", user=USER, code=shown).returncode == 0
    before = status(gateway, USER)
    result = playbook("oauth_login.yml", user=USER, code=shown)
    assert result.returncode != 0
    assert "Traceback" not in result.stdout + result.stderr
    assert status(gateway, USER)["generation"] == before["generation"]


def test_check_mode_starts_no_login(gateway: httpx.Client) -> None:
    result = playbook("oauth_login.yml", "--check", user=USER)
    assert result.returncode == 0, result.stdout
    assert "/oauth/authorize?" not in result.stdout


def test_status_shows_who_is_logged_in_and_for_how_long() -> None:
    assert playbook("oauth_login.yml", user=USER, code=approve(start())).returncode == 0
    result = playbook("playbooks/oauth_status.yml")
    assert result.returncode == 0, result.stdout
    (line,) = [line for line in result.stdout.splitlines() if USER in line]
    assert "7 h 5" in line
    assert changed(result) == 0


def test_refresh_leaves_a_fresh_token_alone_and_obeys_min_validity_and_force(gateway: httpx.Client) -> None:
    assert playbook("oauth_login.yml", user=USER, code=approve(start())).returncode == 0
    generations = [status(gateway, USER)["generation"]]
    for variables in ({}, {"min_validity": "60"}, {"min_validity": "86400"}, {"force": "true"}):
        result = playbook("oauth_refresh.yml", user=USER, **variables)
        assert result.returncode == 0, result.stdout
        assert USER in result.stdout
        generations.append(status(gateway, USER)["generation"])
        assert changed(result) == generations[-1] - generations[-2]
    first = generations[0]
    assert generations == [first, first, first, first + 1, first + 2]


def test_a_malformed_option_stops_before_anything_is_sent() -> None:
    result = playbook("oauth_refresh.yml", user=USER, min_validity="soon")
    assert result.returncode != 0
    assert "min_validity" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_logout_by_playbook_forgets_the_user_once(gateway: httpx.Client) -> None:
    assert playbook("oauth_login.yml", user=USER, code=approve(start())).returncode == 0
    assert changed(playbook("playbooks/oauth_logout.yml", user=USER)) == 1
    assert not status(gateway, USER)["authenticated"]
    assert changed(playbook("playbooks/oauth_logout.yml", user=USER)) == 0


def test_command_line_http_and_module_agree_on_a_login_to_the_second(
    stack: Stack, gateway: httpx.Client
) -> None:
    log_in(gateway, USER)
    by_http = status(gateway, USER)
    (by_module,) = ansible_modules.run("info", gateway_url=stack.gateway_url, api_key=stack.key, user=USER)[
        "users"
    ]
    shown = stack.exec("litellm", "litellm", "claude", "status", "--json", "--user", USER)
    by_command = json.loads(shown.stdout)
    for other in (by_module, by_command):
        assert {**other, "expires_in": 0} == {**by_http, "expires_in": 0}
        assert abs(other["expires_in"] - by_http["expires_in"]) <= 5
