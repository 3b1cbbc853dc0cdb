"""litellm_oauth_token against the real gateway, PostgreSQL and provider."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from ansible.parsing.splitter import parse_kv

from support.ansible_modules import Result, documented, run
from support.live_gateway import MASTER_KEY, LiveGateway
from support.postgres import TOKENS
from support.sandbox import SandboxProvider
from support.service import Gateways
from support.stranger import Asked, Stranger, login, passed_on, reply

RunModule = Callable[..., Result]
# The gateway refreshes what has less than refresh_buffer left, 300 s where nobody says otherwise.
SOON = 100
LATER = 7200


def reports(result: Result) -> dict[str, dict[str, Any]]:
    return {report["user_id"]: report for report in result["users"]}


def results(result: Result) -> dict[str, str]:
    return {user: report["result"] for user, report in reports(result).items()}


def log_in(gateway: LiveGateway, *users: str, seconds: int) -> None:
    """Log users in with tokens that live so long; what comes afterwards lives for LATER."""
    gateway.sandbox.settings(access_token_seconds=seconds)
    gateway.log_in(*users)
    gateway.sandbox.settings(access_token_seconds=LATER)


def refreshes(sandbox: SandboxProvider) -> int:
    """How many refresh calls the provider has seen, whatever came of them."""
    return sum(sandbox.token_calls().get("refresh_token", {}).values())


def revoked(sandbox: SandboxProvider) -> dict[str, bool]:
    """For each account, whether the provider has ended its login."""
    return {one["account"]: one["revoked_because"] is not None for one in sandbox.logins()}


# -- present


def test_present_is_content_with_a_login_and_changes_nothing(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "alice", seconds=SOON)
    result = module("token", user="alice")
    assert results(result) == {"alice": "present"}
    assert not result["changed"]
    assert gateway.status("alice")["generation"] == 1
    assert refreshes(sandbox) == 0


def test_present_is_content_with_an_expired_token_that_can_be_refreshed(
    module: RunModule, gateway: LiveGateway, stored: Gateways
) -> None:
    stored.plant(["alice"], expires_in=-5)
    assert results(module("token", user="alice")) == {"alice": "present"}


def test_present_fails_for_who_is_not_logged_in_and_says_how_to(module: RunModule) -> None:
    result = module("token", user="bob")
    assert result["failed"]
    assert (
        result["msg"] == "bob is not logged in. Log in with `ansible-playbook oauth_login.yml -e user=bob`."
    )


def test_present_fails_for_an_ended_login_whose_token_has_expired(
    module: RunModule, stored: Gateways, gateway: LiveGateway
) -> None:
    stored.plant(["alice"], expires_in=-5)
    stored.database.query(f"UPDATE {TOKENS} SET status = 'reauth_required'")  # noqa: S608
    result = module("token", user="alice")
    assert result["failed"]
    assert result["msg"].startswith("alice has no usable login (reauth_required). Log in with `ansible-")


@pytest.mark.parametrize(("wanted", "enough"), [(LATER - 60, True), (LATER + 60, False)])
def test_present_asks_for_min_validity(
    module: RunModule, gateway: LiveGateway, wanted: int, enough: bool
) -> None:
    log_in(gateway, "alice", seconds=LATER)
    result = module("token", user="alice", min_validity=wanted)
    assert not result["changed"]
    assert bool(result.get("failed")) is not enough
    if not enough:
        assert result["msg"].endswith(f"not longer than {wanted} s. Refresh it with state: refreshed.")


def test_present_asks_all_users_where_none_is_named(module: RunModule, gateway: LiveGateway) -> None:
    log_in(gateway, "alice", "bob", seconds=LATER)
    result = module("token")
    assert results(result) == {"alice": "present", "bob": "present"}
    assert result["counts"] == {"present": 2}


@pytest.mark.parametrize(
    "user", ["alice", "alice@example.com", "Al Ice", "o'hara", 'say "hi"', "a=b c=d", "#1"]
)
def test_how_to_log_in_can_be_pasted_for_any_user(stranger: Callable[..., Stranger], user: str) -> None:
    url = stranger(reply(login(user, status="logged_out"))).url
    message = run("token", user=user, gateway_url=url, api_key=MASTER_KEY)["msg"]
    command = message.rpartition("Log in with `")[2].removesuffix("`.")
    *words, extra = shlex.split(command)
    assert words == ["ansible-playbook", "oauth_login.yml", "-e"]
    # Both forms are Ansible's: an object, or name=value.
    assert (json.loads(extra) if extra.startswith("{") else parse_kv(extra)) == {"user": user}


# -- refreshed


def test_refreshed_replaces_a_token_that_is_due(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "alice", seconds=SOON)
    result = module("token", state="refreshed", user="alice")
    assert result["changed"]
    report = reports(result)["alice"]
    assert report.pop("expires_in") == pytest.approx(LATER, abs=20)
    assert report == {
        "user_id": "alice",
        "result": "refreshed",
        "message": "Refreshed.",
        "status": "active",
        "generation_before": 1,
        "generation": 2,
    }
    assert gateway.status("alice")["generation"] == 2
    assert refreshes(sandbox) == 1


def test_refreshed_shows_the_login_before_and_after(module: RunModule, gateway: LiveGateway) -> None:
    log_in(gateway, "alice", "bob", seconds=SOON)
    before = gateway.status("alice")
    (diff,) = module("token", state="refreshed", user="alice")["diff"]
    after = gateway.status("alice")
    assert (diff["before_header"], diff["after_header"]) == ("login of alice", "login of alice")
    assert diff["before"] == f"status: due\ngeneration: 1\nexpires_at: {before['expires_at']}\n"
    assert diff["after"] == f"status: active\ngeneration: 2\nexpires_at: {after['expires_at']}\n"


def test_a_second_run_changes_nothing_and_asks_nobody(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "alice", seconds=SOON)
    module("token", state="refreshed", user="alice", min_validity=3600)
    result = module("token", state="refreshed", user="alice", min_validity=3600)
    assert results(result) == {"alice": "fresh"}
    assert (result["changed"], result["diff"]) == (False, [])
    assert refreshes(sandbox) == 1


@pytest.mark.parametrize(
    ("seconds", "min_validity", "result"),
    [
        (SOON, None, "refreshed"),
        (LATER, None, "fresh"),
        (SOON, 0, "fresh"),
        (SOON, SOON + 60, "refreshed"),
        (LATER, LATER - 60, "fresh"),
        (LATER, LATER + 60, "refreshed"),
    ],
)
def test_min_validity_decides_who_is_refreshed(
    module: RunModule, gateway: LiveGateway, seconds: int, min_validity: int | None, result: str
) -> None:
    log_in(gateway, "alice", seconds=seconds)
    options = {} if min_validity is None else {"min_validity": min_validity}
    foretold = module("token", state="refreshed", user="alice", check=True, **options)
    done = module("token", state="refreshed", user="alice", **options)
    assert results(done) == {"alice": result}
    assert done["changed"] is foretold["changed"] is (result == "refreshed")


def test_force_refreshes_what_is_fresh(module: RunModule, gateway: LiveGateway) -> None:
    log_in(gateway, "alice", seconds=LATER)
    result = module("token", state="refreshed", user="alice", force=True)
    assert results(result) == {"alice": "refreshed"}
    assert gateway.status("alice")["generation"] == 2


def test_all_users_who_are_due_are_refreshed_and_everybody_is_reported(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "carol", "alice", seconds=SOON)
    log_in(gateway, "bob", seconds=LATER)
    result = module("token", state="refreshed", all_users=True)
    assert list(results(result).items()) == [("alice", "refreshed"), ("bob", "fresh"), ("carol", "refreshed")]
    assert result["counts"] == {"refreshed": 2, "fresh": 1}
    assert [diff["after_header"] for diff in result["diff"]] == ["login of alice", "login of carol"]
    assert refreshes(sandbox) == 2


def test_who_is_logged_out_is_not_among_all_users(module: RunModule, gateway: LiveGateway) -> None:
    log_in(gateway, "alice", "bob", seconds=SOON)
    gateway.call("POST", "/logout", user_id="alice")
    result = module("token", state="refreshed")
    assert results(result) == {"bob": "refreshed"}


def test_nobody_logged_in_is_no_failure(module: RunModule) -> None:
    result = module("token", state="refreshed")
    assert (result["changed"], result["users"], result["counts"]) == (False, [], {})


def test_refreshed_fails_for_who_is_not_logged_in(module: RunModule) -> None:
    result = module("token", state="refreshed", user="bob")
    assert result["failed"]
    assert result["msg"].startswith("bob is not logged in. Log in with ")


def test_a_login_that_the_provider_has_ended_says_how_to_log_in(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "alice", seconds=SOON)
    sandbox.revoke("alice")
    found_out = module("token", state="refreshed", user="alice")
    known = module("token", state="refreshed", user="alice")
    for result in (found_out, known):
        assert (result["failed"], result["changed"]) == (True, False)
        assert "`ansible-playbook oauth_login.yml -e user=alice`" in result["msg"]
    assert reports(known)["alice"]["status"] == "reauth_required"
    assert refreshes(sandbox) == 1


def test_an_ended_login_fails_even_while_its_last_token_serves(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "alice", seconds=LATER)
    sandbox.revoke("alice")
    module("token", state="refreshed", user="alice", force=True)
    result = module("token", state="refreshed", user="alice")
    assert result["failed"]
    assert "cannot be refreshed any more" in result["msg"]
    assert results(module("token", user="alice")) == {"alice": "present"}


@pytest.mark.parametrize("check", [False, True])
def test_a_login_that_does_not_decrypt_is_not_fresh(
    module: RunModule, gateway: LiveGateway, stored: Gateways, check: bool
) -> None:
    stored.plant(["alice", "bob"], expires_in=LATER)
    # A value copied from another row does not decrypt.
    stored.database.query(
        f"UPDATE {TOKENS} SET access_token_encrypted = (SELECT access_token_encrypted FROM {TOKENS} "  # noqa: S608
        "WHERE user_id = 'bob') WHERE user_id = 'alice'"
    )
    result = module("token", state="refreshed", check=check)
    assert results(result) == {"alice": "failed", "bob": "fresh"}
    assert (
        "cannot be refreshed any more (what is stored does not decrypt" in reports(result)["alice"]["message"]
    )


@pytest.mark.parametrize("check", [False, True])
def test_a_login_without_a_refresh_token_fails_when_it_is_due(
    module: RunModule, gateway: LiveGateway, stored: Gateways, check: bool
) -> None:
    stored.plant(["alice"], expires_in=SOON)
    stored.database.query(f"UPDATE {TOKENS} SET refresh_token_encrypted = NULL")  # noqa: S608
    result = module("token", state="refreshed", user="alice", check=check)
    assert (result["failed"], result["changed"]) == (True, False)
    assert "without a refresh token" in result["msg"]
    assert "oauth_login.yml" in result["msg"]


# -- who failed, and who did not


def test_one_users_failure_keeps_nobody_else_from_being_refreshed(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "alice", "bob", "carol", seconds=SOON)
    sandbox.revoke("alice")
    result = module("token", state="refreshed")
    assert results(result) == {"alice": "failed", "bob": "refreshed", "carol": "refreshed"}
    assert (result["failed"], result["changed"]) == (True, True)
    assert result["counts"] == {"failed": 1, "refreshed": 2}
    assert result["msg"].startswith("1 of 3 users failed. alice: ")
    assert gateway.status("carol")["generation"] == 2


def test_fail_on_error_off_leaves_failures_to_the_reports(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "alice", "bob", seconds=SOON)
    sandbox.revoke("alice")
    result = module("token", state="refreshed", fail_on_error=False)
    assert not result.get("failed")
    assert results(result) == {"alice": "failed", "bob": "refreshed"}
    assert "oauth_login.yml" in reports(result)["alice"]["message"]


def test_fail_on_error_off_still_fails_where_the_gateway_answers_nobody(module: RunModule) -> None:
    result = module("token", state="refreshed", fail_on_error=False, api_key="sk-wrong")
    assert (result["failed"], result["error_code"]) == (True, "invalid_api_key")


def test_of_many_failures_the_message_names_ten(
    module: RunModule, gateway: LiveGateway, stored: Gateways
) -> None:
    users = [f"user-{number:02}" for number in range(12)]
    stored.plant(users, expires_in=SOON)
    stored.database.query(f"UPDATE {TOKENS} SET status = 'reauth_required'")  # noqa: S608
    result = module("token", state="refreshed")
    assert result["msg"].startswith("12 of 12 users failed. user-00: ")
    assert "user-09: " in result["msg"]
    assert "user-10: " not in result["msg"]
    assert result["msg"].endswith(" And 2 more: see users.")
    assert len(result["users"]) == 12


def test_a_provider_that_is_down_is_not_asked_for_everybody_and_that_is_said_once(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider, stored: Gateways
) -> None:
    users = [f"user-{number:02}" for number in range(30)]
    stored.plant(users, expires_in=SOON)
    sandbox.fault("token", "status", status=503, retry_after=60, times=None)
    result = module("token", state="refreshed")
    assert (result["failed"], result["changed"], result["job"]["status"]) == (True, False, "stopped")
    assert results(result) == dict.fromkeys(users, "failed")
    not_tried = [user for user, report in reports(result).items() if "Not tried: " in report["message"]]
    assert "user-29" in not_tried
    assert refreshes(sandbox) <= 8
    assert result["msg"].startswith("The refresh of all users was stopped: ")
    assert f"30 of 30 users failed, {len(not_tried)} of them because they were not tried. " in result["msg"]
    assert "user-29" not in result["msg"]


def test_a_provider_that_answers_in_between_is_not_given_up(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "a", "b", "c", "d", "e", seconds=SOON)
    for account in ("a", "b", "d", "e"):
        sandbox.fault("token", "status", status=503, account=account)
    result = module("token", state="refreshed")
    assert results(result) == {**dict.fromkeys("abde", "failed"), "c": "refreshed"}
    assert "Not tried" not in str(result)


def test_a_provider_that_refuses_in_between_is_not_given_up(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "a", "b", "c", "d", "e", seconds=SOON)
    sandbox.revoke("c")
    for account in ("a", "b", "d", "e"):
        sandbox.fault("token", "status", status=503, account=account)
    assert "Not tried" not in str(module("token", state="refreshed"))


def test_a_gateway_that_goes_away_leaves_the_rest_not_tried(
    stranger: Callable[..., Stranger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ansible.module_utils.litellm_oauth_http.RETRY_PAUSES", ())
    users = [login(user) for user in ("alice", "bob", "carol")]

    def answer(asked: Asked) -> Iterable[bytes]:
        return [reply({"users": users, "next": None})] if "/users" in asked.path else []

    going = stranger(answer)
    result = run("token", state="absent", all_users=True, gateway_url=going.url, api_key=MASTER_KEY)
    assert (result["failed"], result["changed"]) == (True, False)
    assert list(results(result)) == ["alice", "bob", "carol"]
    assert [user for user, one in reports(result).items() if "Not tried" in one["message"]] == [
        "bob",
        "carol",
    ]
    # One attempt, and one look at what came of it.
    assert [asked.method for asked in going.asked] == ["GET", "POST", "GET"]
    assert "Whether it was carried out for alice is unknown" in reports(result)["alice"]["message"]


@pytest.mark.parametrize("instead", [b"", reply("", "502 Bad Gateway"), reply("<html>")])
def test_an_answer_that_was_lost_is_settled_by_what_is_stored(
    gateway: LiveGateway, stranger: Callable[..., Stranger], instead: bytes
) -> None:
    log_in(gateway, "alice", seconds=SOON)

    def loses_changes(asked: Asked) -> Iterable[bytes]:
        answer = passed_on(asked, gateway.url)
        return [instead if asked.method == "POST" else answer]

    result = run(
        "token", state="refreshed", user="alice", gateway_url=stranger(loses_changes).url, api_key=MASTER_KEY
    )
    assert results(result) == {"alice": "refreshed"}
    assert (result["changed"], reports(result)["alice"]["generation"]) == (True, 2)


def test_a_request_that_was_lost_is_one_users_failure(
    gateway: LiveGateway, stranger: Callable[..., Stranger]
) -> None:
    log_in(gateway, "alice", "bob", seconds=LATER)

    def loses_alice(asked: Asked) -> Iterable[bytes]:
        lost = asked.method == "POST" and "alice" in asked.path
        return [] if lost else [passed_on(asked, gateway.url)]

    url = stranger(loses_alice).url
    result = run("token", state="absent", all_users=True, gateway_url=url, api_key=MASTER_KEY)
    assert results(result) == {"alice": "failed", "bob": "logged_out"}


def test_a_refresh_that_stored_nothing_is_no_success(stranger: Callable[..., Stranger]) -> None:
    def claims(asked: Asked) -> Iterable[bytes]:
        return [reply({"result": "refreshed"} if asked.method == "POST" else login(status="due"))]

    result = run(
        "token", state="refreshed", user="alice", gateway_url=stranger(claims).url, api_key=MASTER_KEY
    )
    assert (result["failed"], result["changed"]) == (True, False)
    assert "the stored login did not change" in result["msg"]


def test_who_was_logged_out_while_being_refreshed_is_told(stranger: Callable[..., Stranger]) -> None:
    changed: list[Asked] = []

    def answer(asked: Asked) -> Iterable[bytes]:
        if asked.method == "POST":
            changed.append(asked)
            return [reply({"result": "refreshed"})]
        return [reply(login(status="logged_out", generation=3) if changed else login(status="due"))]

    result = run(
        "token", state="refreshed", user="alice", gateway_url=stranger(answer).url, api_key=MASTER_KEY
    )
    assert result["failed"]
    assert result["msg"].startswith("alice was logged out meanwhile. Log in with ")


# -- the job that refreshes all users

JOB = {"job_id": "6f1e0c3e-5d1c-4f0b-9d63-1f6a3f2d8c11", "force": False, "min_validity": 300.0}


class Scripted:
    """A gateway whose jobs go as told: the answers to POST one after the other, and those to looks."""

    def __init__(self, posts: list[bytes], looks: list[bytes], after: list[Any], found: list[Any]) -> None:
        self._posts, self._looks = iter(posts), iter(looks)
        self._last = looks[-1]
        self._lists = iter([[login(one["user_id"], status="due") for one in after], after])
        self._found = found

    def __call__(self, asked: Asked) -> Iterable[bytes]:
        if asked.method == "POST":
            return [next(self._posts)]
        if "/users" in asked.path:
            return [reply({"users": next(self._lists), "next": None})]
        if "limit=1&" in f"{asked.path}&":
            return [next(self._looks, self._last)]
        return [reply({**JOB, "status": "finished", "results": self._found, "next": None})]


def job(status: str, **fields: Any) -> bytes:
    return reply({**JOB, "status": status, "message": None, "already_running": False, **fields})


def found(user: str, result: str = "refreshed", **fields: Any) -> dict[str, Any]:
    return {"user_id": user, "result": result, "code": None, "message": None, **fields}


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between looks at a job, which take no time."""
    pauses: list[float] = []
    monkeypatch.setattr("ansible.module_utils.litellm_oauth_jobs.sleep", pauses.append)
    return pauses


def test_all_users_take_one_change_however_many_they_are(
    gateway: LiveGateway, stranger: Callable[..., Stranger], stored: Gateways, sandbox: SandboxProvider
) -> None:
    users = [f"user-{number:02}" for number in range(25)]
    stored.log_in_many(users, expires_in=SOON)
    between = stranger(lambda asked: [passed_on(asked, gateway.url)])
    result = run("token", state="refreshed", gateway_url=between.url, api_key=MASTER_KEY)
    assert results(result) == dict.fromkeys(users, "refreshed")
    assert (result["job"]["status"], result["counts"]) == ("finished", {"refreshed": 25})
    assert all(report["expires_in"] > LATER - 60 for report in result["users"])
    assert sum(asked.method == "POST" for asked in between.asked) == 1
    assert refreshes(sandbox) == 25


def test_where_nobody_needs_it_no_job_is_begun(
    module: RunModule, gateway: LiveGateway, stored: Gateways
) -> None:
    log_in(gateway, "alice", seconds=LATER)
    result = module("token", state="refreshed")
    assert results(result) == {"alice": "fresh"}
    assert "job" not in result
    assert stored.database.query("SELECT FROM claude_oauth.refresh_jobs") == []


def test_a_job_is_looked_at_in_growing_pauses(
    stranger: Callable[..., Stranger], unhurried: list[float]
) -> None:
    looks = [*[job("running")] * 12, job("finished")]
    after = [login("alice", generation=2)]
    url = stranger(Scripted([job("running")], looks, after, [found("alice")])).url
    result = run("token", state="refreshed", gateway_url=url, api_key=MASTER_KEY)
    assert results(result) == {"alice": "refreshed"}
    assert len(unhurried) == 13
    assert unhurried == sorted(unhurried)
    assert (unhurried[0], unhurried[-1]) == (0.1, 5.0)


def test_looks_that_fail_for_a_while_are_repeated(
    stranger: Callable[..., Stranger], unhurried: list[float]
) -> None:
    looks = [b"", reply("", "502 Bad Gateway"), job("running"), b"", job("finished")]
    url = stranger(Scripted([job("running")], looks, [login("alice", generation=2)], [found("alice")])).url
    assert results(run("token", state="refreshed", gateway_url=url, api_key=MASTER_KEY)) == {
        "alice": "refreshed"
    }


def test_a_gateway_that_stays_away_leaves_the_end_unknown(
    stranger: Callable[..., Stranger], unhurried: list[float]
) -> None:
    url = stranger(Scripted([job("running")], [b""], [login("alice")], [])).url
    result = run("token", state="refreshed", gateway_url=url, api_key=MASTER_KEY)
    assert result["failed"]
    assert f"(job {JOB['job_id']}) was begun; how it ended is unknown. Run this again" in result["msg"]
    assert len(unhurried) < 10


def test_a_job_that_was_interrupted_is_one_sentence(stranger: Callable[..., Stranger]) -> None:
    users = ("alice", "bob", "carol", "dave")
    # Carol's result was not written any more, although she was refreshed.
    after = [login(user, generation=2 if user in ("alice", "carol") else 1) for user in users]
    looks = [job("interrupted", message="Its gateway process ended. Start it again.")]
    url = stranger(Scripted([job("running")], looks, after, [found("alice")])).url
    result = run("token", state="refreshed", gateway_url=url, api_key=MASTER_KEY)
    assert results(result) == {"alice": "refreshed", "bob": "failed", "carol": "refreshed", "dave": "failed"}
    assert (result["changed"], result["job"]["status"]) == (True, "interrupted")
    assert result["msg"] == (
        "The refresh of all users was interrupted: Its gateway process ended. Start it again. "
        "2 of 4 users failed, 2 of them because they were not tried."
    )
    assert reports(result)["bob"]["message"].startswith("Not tried: The refresh of all users was interrupted")


def test_somebody_elses_job_is_waited_for_and_then_the_own_one_begins(
    stranger: Callable[..., Stranger], unhurried: list[float]
) -> None:
    posts = [job("running", already_running=True), job("running")]
    looks = [job("running"), job("finished"), job("finished")]
    between = stranger(Scripted(posts, looks, [login("alice", generation=2)], [found("alice", "fresh")]))
    result = run("token", state="refreshed", gateway_url=between.url, api_key=MASTER_KEY)
    assert results(result) == {"alice": "refreshed"}
    assert sum(asked.method == "POST" for asked in between.asked) == 2


def test_a_job_whose_beginning_was_lost_is_found_and_not_begun_twice(
    gateway: LiveGateway, stranger: Callable[..., Stranger], sandbox: SandboxProvider
) -> None:
    log_in(gateway, "alice", "bob", seconds=LATER)
    sandbox.fault("token", "slow", seconds=0.4, times=2)
    lost: list[Asked] = []

    def loses_the_first(asked: Asked) -> Iterable[bytes]:
        answer = passed_on(asked, gateway.url)
        if asked.method == "POST" and not lost:
            lost.append(asked)
            return []
        return [answer]

    url = stranger(loses_the_first).url
    result = run("token", state="refreshed", force=True, gateway_url=url, api_key=MASTER_KEY)
    assert results(result) == {"alice": "refreshed", "bob": "refreshed"}
    assert refreshes(sandbox) == 2


# -- absent


def test_absent_logs_out_here_and_at_the_provider(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "alice", "bob", seconds=LATER)
    result = module("token", state="absent", user="alice")
    assert result["changed"]
    report = reports(result)["alice"]
    assert (report["result"], report["status"], report["generation"]) == ("logged_out", "logged_out", 2)
    assert report["message"] == "Logged out, and the provider revoked the tokens."
    assert revoked(sandbox) == {"alice": True, "bob": False}
    assert result["diff"][0]["after"] == "status: logged_out\ngeneration: 2\nexpires_at: None\n"


def test_absent_a_second_time_changes_nothing(module: RunModule, gateway: LiveGateway) -> None:
    log_in(gateway, "alice", seconds=LATER)
    module("token", state="absent", user="alice")
    for check in (True, False):
        result = module("token", state="absent", user="alice", check=check)
        assert (result["changed"], results(result)) == (False, {"alice": "logged_out"})
        assert reports(result)["alice"]["message"] == "Was not logged in."
    assert gateway.status("alice")["generation"] == 2


def test_absent_is_content_with_who_never_logged_in(module: RunModule) -> None:
    result = module("token", state="absent", user="nobody")
    assert (result["changed"], results(result)) == (False, {"nobody": "logged_out"})


def test_absent_logs_all_users_out_only_where_that_is_said(module: RunModule, gateway: LiveGateway) -> None:
    log_in(gateway, "alice", "bob", seconds=LATER)
    assert module("token", state="absent")["failed"]
    assert gateway.status("alice")["authenticated"]
    result = module("token", state="absent", all_users=True)
    assert result["counts"] == {"logged_out": 2}
    assert not gateway.status("bob")["authenticated"]


def test_a_revocation_that_was_not_confirmed_is_told_and_the_user_is_logged_out(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "alice", seconds=LATER)
    sandbox.fault("revoke", "status", status=503, times=None)
    result = module("token", state="absent", user="alice")
    assert result["changed"]
    assert "did not confirm" in reports(result)["alice"]["message"]
    assert gateway.status("alice")["status"] == "logged_out"


def test_a_logout_that_changed_nothing_is_no_success(stranger: Callable[..., Stranger]) -> None:
    def claims(asked: Asked) -> Iterable[bytes]:
        return [reply({"revoked": True} if asked.method == "POST" else login())]

    result = run("token", state="absent", user="alice", gateway_url=stranger(claims).url, api_key=MASTER_KEY)
    assert (result["failed"], result["changed"]) == (True, False)
    assert "alice is still logged in" in result["msg"]


# -- check mode


@pytest.mark.parametrize(
    ("options", "foretold"),
    [
        ({"state": "refreshed"}, {"alice": "would_refresh", "bob": "fresh"}),
        ({"state": "refreshed", "force": True}, {"alice": "would_refresh", "bob": "would_refresh"}),
        ({"state": "absent", "all_users": True}, {"alice": "would_log_out", "bob": "would_log_out"}),
        ({"state": "present"}, {"alice": "present", "bob": "present"}),
    ],
)
def test_check_mode_foretells_and_changes_nothing(
    module: RunModule,
    gateway: LiveGateway,
    sandbox: SandboxProvider,
    options: dict[str, Any],
    foretold: dict[str, str],
) -> None:
    log_in(gateway, "alice", seconds=SOON)
    log_in(gateway, "bob", seconds=LATER)
    calls = sandbox.token_calls()
    checked = module("token", check=True, **options)
    assert results(checked) == foretold
    assert [gateway.status(user)["generation"] for user in ("alice", "bob")] == [1, 1]
    assert sandbox.token_calls() == calls
    assert revoked(sandbox) == {"alice": False, "bob": False}
    done = module("token", **options)
    assert checked["changed"] == done["changed"]
    assert [diff["before"] for diff in checked["diff"]] == [diff["before"] for diff in done["diff"]]


def test_check_mode_foretells_the_difference(module: RunModule, gateway: LiveGateway) -> None:
    log_in(gateway, "alice", seconds=SOON)
    result = module("token", state="refreshed", user="alice", check=True)
    assert result["diff"][0]["after"] == "status: active\ngeneration: 2\nexpires_at: (set by the provider)\n"
    assert reports(result)["alice"]["generation"] == 1


def test_check_mode_foretells_the_failure_of_who_waits_for_the_provider(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "alice", seconds=SOON)
    sandbox.fault("token", "status", status=503)
    assert module("token", state="refreshed", user="alice")["failed"]
    checked = module("token", state="refreshed", user="alice", check=True)
    done = module("token", state="refreshed", user="alice")
    assert (checked["failed"], checked["changed"]) == (done["failed"], done["changed"]) == (True, False)
    assert refreshes(sandbox) == 1


def test_force_does_not_wait_for_the_provider_and_check_mode_knows(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "alice", seconds=SOON)
    sandbox.fault("token", "status", status=503)
    assert module("token", state="refreshed", user="alice")["failed"]
    checked = module("token", state="refreshed", user="alice", force=True, check=True)
    done = module("token", state="refreshed", user="alice", force=True)
    assert checked["changed"] is done["changed"] is True


# -- options and keys


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_validity": -1}, "min_validity is -1: give seconds from 0 to 31622400."),
        ({"min_validity": 366 * 86400 + 1}, "min_validity is 31622401: give seconds from 0 to 31622400."),
        ({"user": "alice", "all_users": True}, "user and all_users are both set: say one of the two."),
        ({"state": "absent"}, "state: absent needs to know whom to log out: name a user, or set all_users"),
        ({"user": ""}, "user is ''"),
        ({"user": "al\tice"}, "user is 'al\\tice'"),
        ({"state": "gone"}, "value of state must be one of: present, refreshed, absent"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_before_anything_is_sent(
    unsent: RunModule, options: dict[str, Any], message: str
) -> None:
    result = unsent("token", **{"state": "refreshed", **options})
    assert result["failed"]
    assert result["msg"].startswith(message)


def test_a_user_may_refresh_their_own_login(module: RunModule, gateway: LiveGateway) -> None:
    log_in(gateway, "alice", seconds=SOON)
    assert results(module("token", state="refreshed", user="alice", api_key="sk-alice")) == {
        "alice": "refreshed"
    }


@pytest.mark.parametrize("options", [{"user": "bob"}, {}, {"all_users": True}])
def test_a_user_may_touch_nobody_else(
    module: RunModule, gateway: LiveGateway, options: dict[str, Any]
) -> None:
    log_in(gateway, "bob", seconds=SOON)
    for state in ("refreshed", "absent"):
        named = options or {"all_users": True}
        result = module("token", state=state, force=True, api_key="sk-alice", **named)
        assert (result["failed"], result["error_code"]) == (True, "forbidden")
    assert gateway.status("bob")["generation"] == 1


def test_neither_token_nor_key_is_in_any_result(
    module: RunModule, gateway: LiveGateway, sandbox: SandboxProvider
) -> None:
    log_in(gateway, "alice", "bob", seconds=SOON)
    sandbox.revoke("bob")
    states: list[dict[str, Any]] = [
        {"state": "present"},
        {"state": "refreshed"},
        {"state": "absent", "all_users": True},
    ]
    shown = str([module("token", check=check, **one) for one in states for check in (True, False)])
    assert "refreshed" in shown
    assert "sk-ant-o" not in shown
    assert MASTER_KEY not in shown


def test_every_returned_value_is_documented(module: RunModule, gateway: LiveGateway) -> None:
    log_in(gateway, "alice", seconds=SOON)
    result = module("token", state="refreshed")
    returned = documented("token", "RETURN")
    assert result.keys() - {"changed", "diff", "invocation"} <= returned.keys()
    assert result["users"][0].keys() == returned["users"]["contains"].keys()
