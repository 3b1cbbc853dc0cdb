"""litellm_oauth_login against the real gateway, PostgreSQL and provider."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from support.ansible_modules import Result, documented, run
from support.live_gateway import MASTER_KEY, LiveGateway
from support.postgres import TOKENS
from support.sandbox import SandboxProvider
from support.service import Gateways
from support.stranger import Asked, Stranger, passed_on

RunModule = Callable[..., Result]


def code_of(shown: str, url: str) -> str:
    return shown.split("#")[0]


def as_shown(shown: str, url: str) -> str:
    return shown


def whole_address(shown: str, url: str) -> str:
    code, state = shown.split("#")
    return f"{url}?code={code}&state={state}"


def test_starting_returns_the_address_to_open_and_stores_no_token(
    module: RunModule, gateway: LiveGateway
) -> None:
    result = module("login", user="alice")
    assert result["changed"]
    assert result["authorization_url"].startswith(gateway.sandbox.authorize_url)
    assert f"state={result['state']}" in result["authorization_url"]
    assert 590 <= result["expires_in"] <= 600
    assert result["whole_address"] is False
    assert gateway.status("alice")["generation"] == 0


@pytest.mark.parametrize("form", [code_of, as_shown, whole_address])
def test_each_form_of_a_code_completes_the_login(
    module: RunModule, gateway: LiveGateway, form: Callable[[str, str], str]
) -> None:
    started = module("login", user="alice")
    shown = gateway.sandbox.approve(started["authorization_url"])
    result = module("login", user="alice", code=form(shown, gateway.sandbox.redirect_uri))
    assert result["changed"]
    assert (result["before"]["generation"], result["after"]["generation"]) == (0, 1)
    assert result["after"]["status"] == "active"
    assert result["msg"] == "alice is logged in."
    assert "generation: 0" in result["diff"]["before"]
    assert "generation: 1" in result["diff"]["after"]


def test_who_is_logged_in_is_told_so_and_nothing_changes(module: RunModule, gateway: LiveGateway) -> None:
    gateway.log_in("alice")
    result = module("login", user="alice")
    assert (result["changed"], result["already_logged_in"]) == (False, True)
    assert "authorization_url" not in result
    assert "force: true" in result["msg"]


def test_who_has_to_log_in_again_gets_an_address_without_force(
    module: RunModule, gateway: LiveGateway, stored: Gateways
) -> None:
    gateway.log_in("alice")
    stored.database.query(f"UPDATE {TOKENS} SET status = 'reauth_required'")  # noqa: S608
    assert gateway.status("alice")["authenticated"]
    assert "/oauth/authorize?" in module("login", user="alice")["authorization_url"]


def test_force_starts_another_login_and_keeps_the_present_one(
    module: RunModule, gateway: LiveGateway
) -> None:
    gateway.log_in("alice")
    result = module("login", user="alice", force=True)
    assert result["changed"]
    assert "/oauth/authorize?" in result["authorization_url"]
    assert gateway.status("alice")["status"] == "active"


def test_check_mode_starts_no_login(module: RunModule, gateway: LiveGateway) -> None:
    result = module("login", user="alice", check=True)
    assert result["changed"]
    assert "authorization_url" not in result
    failed = module("login", user="alice", code="some-code-or-other")
    assert failed["error_code"] == "no_pending_login"


def test_check_mode_leaves_a_code_unused_and_foretells_the_change(
    module: RunModule, gateway: LiveGateway
) -> None:
    code = gateway.code("alice")
    foretold = module("login", user="alice", code=code, check=True)
    assert foretold["changed"]
    assert "generation: 1" in foretold["diff"]["after"]
    assert gateway.status("alice")["generation"] == 0
    assert module("login", user="alice", code=code)["changed"]


def test_a_used_code_fails_and_leaves_the_login_alone(module: RunModule, gateway: LiveGateway) -> None:
    code = gateway.code("alice")
    assert module("login", user="alice", code=code)["changed"]
    again = module("login", user="alice", code=code)
    assert again["failed"]
    assert again["error_code"] == "no_pending_login"
    assert gateway.status("alice")["generation"] == 1


def test_a_wrong_code_is_refused_by_the_provider_with_a_sentence(
    module: RunModule, gateway: LiveGateway
) -> None:
    state = gateway.code("alice").split("#")[1]
    result = module("login", user="alice", code=f"not-the-right-code#{state}")
    assert (result["failed"], result["error_code"]) == (True, "code_rejected")
    assert result["msg"].endswith(".")


def test_somebody_elses_state_is_refused(module: RunModule, gateway: LiveGateway) -> None:
    bobs = gateway.code("bob")
    gateway.code("alice")
    result = module("login", user="alice", code=bobs)
    assert (result["failed"], result["error_code"]) == (True, "state_mismatch")
    assert gateway.status("bob")["generation"] == 0


@pytest.mark.parametrize(
    "code", ["", "   ", "two words", "#only-a-state", "https://x.example/callback?state=s"]
)
def test_a_malformed_code_fails_before_anything_is_sent(unsent: RunModule, code: str) -> None:
    result = unsent("login", user="alice", code=code)
    assert (result["failed"], result["error_code"]) == (True, "invalid_input")
    assert "`code`" in result["msg"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("PASTE-IT-HERE", "Paste the code"),
        ("https://claude.example/oauth/authorize?code=true&state=s&code_challenge=c", "the address to open"),
    ],
)
def test_what_the_instructions_show_is_no_code(module: RunModule, code: str, said: str) -> None:
    result = module("login", user="alice", code=code, gateway_url="http://127.0.0.1:1")
    assert (result["failed"], result["error_code"]) == (True, "invalid_input")
    assert said in result["msg"]


def test_refused_consent_is_told_before_anything_is_sent(unsent: RunModule) -> None:
    address = "https://x.example/callback?error=access_denied&state=s"
    result = unsent("login", user="alice", code=address)
    assert (result["failed"], result["error_code"]) == (True, "code_rejected")
    assert "Start a new login" in result["msg"]


def test_a_provider_that_is_down_costs_no_pending_login(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    code = gateway.code("alice")
    sandbox.fault("token", "status", status=503, times=1)
    failed = module("login", user="alice", code=code)
    assert (failed["failed"], failed["error_code"]) == (True, "provider_unavailable")
    assert module("login", user="alice", code=code)["changed"]


@pytest.mark.parametrize("user", ["", " alice", "al\tice", "a" * 256])
def test_a_malformed_user_fails_before_anything_is_sent(unsent: RunModule, user: str) -> None:
    result = unsent("login", user=user)
    assert result["failed"]
    assert result["msg"].startswith("user is ")


def test_neither_code_nor_key_nor_token_is_in_any_result(module: RunModule, gateway: LiveGateway) -> None:
    code = gateway.code("alice")
    shown = str([module("login", user="alice", code=code) for _ in range(2)])
    assert code.split("#")[0] not in shown
    assert "sk-master" not in shown
    assert "sk-ant-o" not in shown


def test_a_code_that_is_too_short_to_be_one_garbles_no_message(module: RunModule) -> None:
    result = module("login", user="alice", code="e")
    assert result["failed"]
    assert "**" not in result["msg"]


def test_a_login_whose_answer_was_lost_is_settled_by_what_is_stored(
    gateway: LiveGateway, stranger: Callable[..., Stranger]
) -> None:
    def loses_changes(asked: Asked) -> Iterable[bytes]:
        answer = passed_on(asked, gateway.url)
        return [] if asked.method == "POST" else [answer]

    url, code = stranger(loses_changes).url, gateway.code("alice")
    result = run("login", user="alice", code=code, gateway_url=url, api_key=MASTER_KEY)
    assert (result["changed"], result["after"]["generation"]) == (True, 1)


def test_every_returned_value_is_documented(module: RunModule, gateway: LiveGateway) -> None:
    started = module("login", user="alice")
    completed = module("login", user="alice", code=gateway.code("alice"))
    returned = documented("login", "RETURN")
    assert (started.keys() | completed.keys()) - {"changed", "diff", "invocation"} <= returned.keys()
