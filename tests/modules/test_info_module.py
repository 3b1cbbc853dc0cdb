"""litellm_oauth_info against the real gateway and PostgreSQL, and the ways to name a gateway and a key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.module_utils import litellm_oauth_client

from support.ansible_modules import Result, documented, run
from support.live_gateway import MASTER_KEY, LiveGateway
from support.sandbox import SandboxProvider
from support.service import Gateways
from support.stranger import Stranger, reply

RunModule = Callable[..., Result]


def ids(result: Result) -> list[str]:
    return [user["user_id"] for user in result["users"]]


def test_all_users_are_listed_in_the_order_of_their_ids(module: RunModule, gateway: LiveGateway) -> None:
    gateway.log_in("carol", "alice")
    result = module("info")
    assert ids(result) == ["alice", "carol"]
    assert [user["status"] for user in result["users"]] == ["active", "active"]
    assert not result["changed"]


def test_a_gateway_that_nobody_has_logged_in_to_lists_nobody(module: RunModule) -> None:
    result = module("info")
    assert result["users"] == []
    assert result["gateway"] == {"status": "ok", "database": True}


def test_one_user_is_told_as_the_gateway_tells_it(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    sandbox.settings(access_token_seconds=5000)
    gateway.log_in("alice", "bob")
    (user,) = module("info", user="alice")["users"]
    told = gateway.status("alice")
    assert user.pop("expires_in") == pytest.approx(5000, abs=20)
    del told["expires_in"]
    assert user == told


def test_somebody_unknown_reads_as_logged_out(module: RunModule) -> None:
    (user,) = module("info", user="nobody")["users"]
    assert (user["status"], user["generation"], user["authenticated"]) == ("logged_out", 0, False)


def test_who_logged_out_is_still_listed_with_the_generation(module: RunModule, gateway: LiveGateway) -> None:
    gateway.log_in("alice")
    gateway.call("POST", "/logout", user_id="alice")
    (user,) = module("info")["users"]
    assert (user["status"], user["generation"]) == ("logged_out", 2)


def test_check_mode_tells_the_same(module: RunModule, gateway: LiveGateway) -> None:
    gateway.log_in("alice")
    result = module("info", check=True)
    assert ids(result) == ["alice"]
    assert not result["changed"]


def test_every_returned_value_is_documented(module: RunModule, gateway: LiveGateway) -> None:
    gateway.log_in("alice")
    result = module("info")
    returned = documented("info", "RETURN")
    assert result.keys() - {"changed", "invocation"} <= returned.keys()
    assert result["users"][0].keys() == returned["users"]["contains"].keys()


@pytest.mark.parametrize("count", [2, 5])
def test_no_user_is_lost_between_pages(stored: Gateways, gateway: LiveGateway, count: int) -> None:
    names = [f"user-{number}" for number in range(count)]
    stored.plant(names, expires_in=3600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litellm_oauth_client, "PAGE", 2)
        assert ids(run("info", gateway_url=gateway.url, api_key=MASTER_KEY)) == names


def test_no_token_and_no_key_is_in_a_result(module: RunModule, gateway: LiveGateway) -> None:
    gateway.log_in("alice")
    shown = str([module("info"), module("info", user="alice")])
    assert "sk-ant-o" not in shown
    assert MASTER_KEY not in shown


# -- whose key


def test_who_is_no_administrator_may_not_list_all(module: RunModule) -> None:
    result = module("info", api_key="sk-alice")
    assert (result["failed"], result["error_code"]) == (True, "forbidden")
    assert "Only an administrator may list all users" in result["msg"]


def test_who_is_no_administrator_may_ask_for_themselves(module: RunModule, gateway: LiveGateway) -> None:
    gateway.log_in("alice")
    assert ids(module("info", api_key="sk-alice", user="alice")) == ["alice"]


def test_who_is_no_administrator_may_not_ask_for_another(module: RunModule) -> None:
    result = module("info", api_key="sk-alice", user="bob")
    assert (result["failed"], result["error_code"]) == (True, "forbidden")


def test_a_wrong_key_says_where_it_came_from_and_does_not_show_it(module: RunModule) -> None:
    result = module("info", api_key="sk-wrong")
    assert (result["failed"], result["error_code"]) == (True, "invalid_api_key")
    assert "api_key or in api_key_file" in result["msg"]
    assert "sk-wrong" not in str(result)


# -- the key, before anything is sent


def test_without_a_key_both_ways_to_give_one_are_named(unsent: RunModule) -> None:
    result = unsent("info", api_key=None)
    assert result["failed"]
    assert "api_key, api_key_file" in result["msg"]


def test_two_keys_are_refused(unsent: RunModule, tmp_path: Path) -> None:
    result = unsent("info", api_key_file=str(tmp_path / "key"))
    assert result["failed"]
    assert "mutually exclusive: api_key|api_key_file" in result["msg"]


@pytest.mark.parametrize("text", [MASTER_KEY, f"{MASTER_KEY}\n", f"  {MASTER_KEY}\r\n\n"])
def test_the_space_around_a_key_in_a_file_does_not_count(
    stranger: Callable[..., Stranger], tmp_path: Path, text: str
) -> None:
    (tmp_path / "key").write_text(text)
    asked = stranger(reply({"status": "ok", "users": []}))
    result = run("info", gateway_url=asked.url, api_key_file=str(tmp_path / "key"))
    assert {one.headers["authorization"] for one in asked.asked} == {f"Bearer {MASTER_KEY}"}
    assert MASTER_KEY not in str(result)


KEY_FILES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "(No such file or directory)"),
    "binary": (b"\xff\xfe\x00", "(not text)"),
    "empty": (b"", "does not hold one key on one line"),
    "blank": (b" \n", "does not hold one key on one line"),
    "of two lines": (b"sk-first\nsk-second\n", "does not hold one key on one line"),
    "with a comment": (b"sk-first # the key", "does not hold one key on one line"),
}


@pytest.mark.parametrize(("content", "reason"), KEY_FILES.values(), ids=KEY_FILES.keys())
def test_a_key_file_without_a_key_is_named_and_not_shown(
    unsent: RunModule, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    result = unsent("info", api_key=None, api_key_file=str(path))
    assert result["failed"]
    assert result["msg"].startswith(f"api_key_file {path} ")
    assert reason in result["msg"]
    assert "sk-first" not in str(result)


def test_a_key_file_that_may_not_be_read_says_so(unsent: RunModule, tmp_path: Path) -> None:
    # A folder, because root may read every file.
    result = unsent("info", api_key=None, api_key_file=str(tmp_path))
    assert result["msg"].startswith(f"api_key_file {tmp_path} cannot be read on this host (Is a directory).")
    assert "become" in result["msg"]


@pytest.mark.parametrize("key", ["", "sk-one\nsk-two", "sk one", "sk-\u00fc"])
def test_a_malformed_key_is_refused_and_not_shown(unsent: RunModule, key: str) -> None:
    result = unsent("info", api_key=key)
    assert result["msg"] == "api_key does not hold one key on one line. Its value is not shown."


# -- the address, before anything is sent


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gateway.example.com",
        "gateway.example.com:4000",
        "ftp://gateway.example.com",
        "http://",
        "http://:4000",
        "http://gateway.example.com:port",
        "http://gateway.example.com:0",
        "http://gateway.example.com:99999",
        "http://[::1",
        "http://gate way.example.com",
        "http://gateway.example.com\r\nX-Other: 1",
    ],
)
def test_a_malformed_address_is_shown_with_what_is_wanted(unsent: RunModule, url: str) -> None:
    result = unsent("info", gateway_url=url)
    assert result["failed"]
    assert result["msg"].startswith(f"gateway_url is {url!r}: give the gateway's address, such as http://")


@pytest.mark.parametrize(
    "url",
    [
        "http://admin:hunter2@gateway.example.com",
        "http://hunter2@gateway.example.com",
        "http://admin:hunter2@",
        "http://admin:hunter2@gateway.example.com:99999",
        "http://admin:hunter2 @gateway.example.com",
        "admin:hunter2@gateway.example.com",
        "http://gateway.example.com?key=hunter2",
        "http://gateway.example.com:port?key=hunter2",
        "http://gateway.example.com/#hunter2",
    ],
)
def test_an_address_that_may_hold_a_secret_is_refused_and_not_shown(unsent: RunModule, url: str) -> None:
    result = unsent("info", gateway_url=url)
    assert result["failed"]
    assert result["msg"].startswith("gateway_url holds more than an address (its value is not shown): give")
    assert "hunter2" not in str(result)


def test_a_slash_at_the_end_of_the_address_does_not_matter(module: RunModule, gateway: LiveGateway) -> None:
    assert module("info", gateway_url=f"{gateway.url}/")["users"] == []


def test_a_path_in_the_address_goes_before_the_routes(stranger: Callable[..., Stranger]) -> None:
    prefixed = stranger(reply({"status": "ok", "users": []}))
    run("info", gateway_url=f"{prefixed.url}/ai/", api_key=MASTER_KEY)
    assert [asked.path for asked in prefixed.asked] == [
        "/ai/auth/claude/oauth/health",
        "/ai/auth/claude/oauth/users?limit=500",
    ]


@pytest.mark.parametrize("timeout", [-1, 0, 3601])
def test_a_timeout_out_of_range_is_refused(unsent: RunModule, timeout: int) -> None:
    result = unsent("info", timeout=timeout)
    assert result["msg"] == f"timeout is {timeout}: give seconds from 1 to 3600."


@pytest.mark.parametrize("user", ["", " alice", "alice\n", "a" * 256])
def test_a_malformed_user_is_refused(unsent: RunModule, user: str) -> None:
    result = unsent("info", user=user)
    assert (result["failed"], result["error_code"]) == (True, "invalid_input")
    assert result["msg"].startswith("user is ")


# -- whether it is there


def test_where_nothing_listens_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible.module_utils.litellm_oauth_http.RETRY_PAUSES", ())
    result = run("info", gateway_url="http://127.0.0.1:1", api_key=MASTER_KEY)
    assert (result["failed"], result["error_code"]) == (True, "unreachable")
    assert result["msg"] == (
        "Nothing listens at http://127.0.0.1:1. Check that the gateway is running, and gateway_url."
    )


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(
    module: RunModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert module("info")["users"] == []


def test_a_netrc_file_does_not_take_the_place_of_the_key(
    module: RunModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert module("info")["users"] == []
