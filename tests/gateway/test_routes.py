"""The HTTP routes, with the real service, PostgreSQL and provider."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from support.gateway import Gateway
from support.postgres import AUDIT, TestDatabase
from support.sandbox import SandboxProvider

ROUTES = [
    ("GET", "/start"),
    ("POST", "/exchange"),
    ("GET", "/status"),
    ("POST", "/refresh"),
    ("POST", "/logout"),
    ("GET", "/users"),
    ("GET", "/refresh/6f1e0c3e-5d1c-4f0b-9d63-1f6a3f2d8c11"),
]
ADMIN_ROUTES = ROUTES[-2:]
STATUS_FIELDS = {
    "user_id",
    "authenticated",
    "status",
    "expires_at",
    "expires_in",
    "refresh_expires_at",
    "login_ends_at",
    "warning",
    "generation",
    "scopes",
    "account",
    "refresh_count",
    "has_refresh_token",
    "last_error",
    "next_attempt_at",
    "updated_at",
    "source",
}


JOB_FIELDS = {
    "job_id",
    "status",
    "message",
    "started_at",
    "finished_at",
    "actor",
    "min_validity",
    "force",
    "total",
    "counts",
}


async def ended(gateway: Gateway, path: str) -> dict[str, Any]:
    """The job, once it runs no more."""
    for _ in range(500):
        job: dict[str, Any] = (await gateway.call("sk-master", "GET", path)).json()
        if job["status"] != "running":
            return job
        await asyncio.sleep(0.02)
    raise AssertionError("the job does not end")


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Status and code, after checking that the body has the one shape of errors."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith((".", "-...")), error["message"]
    return response.status_code, error["code"]


async def test_start_gives_the_url_its_state_and_how_long_it_waits(gateway: Gateway) -> None:
    response = await gateway.call("sk-alice", "GET", "/start")
    assert response.status_code == 200
    body = response.json()
    assert set(body) == {
        "authorization_url",
        "state",
        "user_id",
        "redirect_uri",
        "whole_address",
        "expires_in",
        "expires_at",
    }
    query = httpx.URL(body["authorization_url"]).params
    assert query["state"] == body["state"]
    assert query["code_challenge_method"] == "S256"
    assert body["user_id"] == "alice"
    assert 590 <= body["expires_in"] <= 600


async def test_a_login_over_http_ends_authenticated(gateway: Gateway) -> None:
    response = await gateway.log_in("sk-alice")
    assert response.status_code == 200
    assert response.json()["message"] == "alice is logged in."
    status = (await gateway.call("sk-alice", "GET", "/status")).json()
    assert set(status) == STATUS_FIELDS
    assert (status["authenticated"], status["status"], status["generation"]) == (True, "active", 1)
    left = datetime.fromisoformat(status["expires_at"]) - datetime.now(UTC)
    assert abs(left - timedelta(seconds=status["expires_in"])) < timedelta(seconds=3)


@pytest.mark.parametrize("form", ["code", "code#state", "url", "code and state"])
async def test_every_form_of_a_code_is_taken(gateway: Gateway, sandbox: SandboxProvider, form: str) -> None:
    started = (await gateway.call("sk-alice", "GET", "/start")).json()
    shown = sandbox.approve(started["authorization_url"])
    code, _, state = shown.partition("#")
    body = {
        "code": {"code": code},
        "code#state": {"code": shown},
        "url": {"code": f"{started['redirect_uri']}?code={code}&state={state}"},
        "code and state": {"code": code, "state": state},
    }[form]
    assert (await gateway.call("sk-alice", "POST", "/exchange", json=body)).status_code == 200


async def test_no_token_is_in_any_answer(gateway: Gateway) -> None:
    answers = [
        await gateway.log_in("sk-alice"),
        await gateway.call("sk-alice", "GET", "/status"),
        await gateway.call("sk-alice", "POST", "/refresh", json={"force": True}),
        await gateway.call("sk-master", "GET", "/users"),
        await gateway.call("sk-alice", "POST", "/logout"),
    ]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert [answer.text for answer in answers if "sk-ant-o" in answer.text] == []


async def test_who_is_logged_in_is_told_so_unless_they_force_a_new_login(gateway: Gateway) -> None:
    await gateway.log_in("sk-alice")
    assert error_of(await gateway.call("sk-alice", "GET", "/start")) == (409, "already_logged_in")
    assert (await gateway.call("sk-alice", "GET", "/start?force=true")).status_code == 200


async def test_refresh_does_nothing_while_the_token_is_fresh_and_reports_generations(
    gateway: Gateway, sandbox: SandboxProvider
) -> None:
    await gateway.log_in("sk-alice")
    fresh = (await gateway.call("sk-alice", "POST", "/refresh")).json()
    assert (fresh["result"], fresh["generation_before"], fresh["generation"]) == ("fresh", 1, 1)
    forced = (await gateway.call("sk-alice", "POST", "/refresh", json={"force": True})).json()
    assert (forced["result"], forced["generation_before"], forced["generation"]) == ("refreshed", 1, 2)
    longer = (await gateway.call("sk-alice", "POST", "/refresh", json={"min_validity": 86_400})).json()
    assert longer["result"] == "refreshed"
    assert sandbox.token_calls()["refresh_token"] == {"ok": 2}


async def test_a_refresh_of_all_users_is_a_job_that_is_asked_for_page_by_page(
    gateway: Gateway, sandbox: SandboxProvider
) -> None:
    for user in ("alice", "bob", "carol"):
        await gateway.log_in("sk-master", user)
    sandbox.revoke("bob")
    started = await gateway.call("sk-master", "POST", "/refresh", json={"all": True, "min_validity": 86_400})
    assert started.status_code == 202
    body = started.json()
    assert set(body) == JOB_FIELDS | {"already_running", "location"}
    assert (body["status"], body["already_running"], body["total"]) == ("running", False, 3)
    assert (body["actor"], body["min_validity"], body["force"]) == ("default", 86_400, False)
    assert started.headers["location"] == body["location"] == f"/auth/claude/oauth/refresh/{body['job_id']}"
    path = f"/refresh/{body['job_id']}"
    job = await ended(gateway, path)
    assert set(job) == JOB_FIELDS | {"results", "next"}
    assert (job["status"], job["message"], job["next"]) == ("finished", None, None)
    assert job["counts"] == {"refreshed": 2, "fresh": 0, "failed": 1, "skipped": 0}
    assert datetime.fromisoformat(job["started_at"]) <= datetime.fromisoformat(job["finished_at"])
    alice, bob, _ = job["results"]
    status = (await gateway.call("sk-alice", "GET", "/status")).json()
    assert alice == {
        "user_id": "alice",
        "result": "refreshed",
        "code": None,
        "message": None,
        "generation_before": 1,
        "generation": 2,
        "expires_at": status["expires_at"],
    }
    assert (bob["result"], bob["code"], bob["generation"]) == ("failed", "reauth_required", 1)
    assert "oauth_login.yml" in bob["message"]
    first = (await gateway.call("sk-master", "GET", f"{path}?limit=2")).json()
    rest = (await gateway.call("sk-master", "GET", f"{path}?limit=2&after={first['next']}")).json()
    pages = [[one["user_id"] for one in page["results"]] for page in (first, rest)]
    assert (pages, rest["next"]) == ([["alice", "bob"], ["carol"]], None)
    failed = (await gateway.call("sk-master", "GET", f"{path}?result=failed")).json()
    assert [one["user_id"] for one in failed["results"]] == ["bob"]


async def test_a_second_refresh_of_all_users_is_told_of_the_first(
    gateway: Gateway, sandbox: SandboxProvider
) -> None:
    await gateway.log_in("sk-master", "alice")
    sandbox.fault("token", "slow", seconds=0.3)
    first = await gateway.call("sk-master", "POST", "/refresh", json={"all": True, "force": True})
    second = await gateway.call("sk-master", "POST", "/refresh", json={"all": True})
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.headers["location"] == first.headers["location"]
    assert (second.json()["already_running"], second.json()["force"]) == (True, True)
    assert "runs already" in second.json()["message"]


async def test_a_refresh_of_all_users_is_for_administrators(guard: Gateway) -> None:
    for query in ("", "?user_id=alice"):
        answer = await guard.call("sk-alice", "POST", f"/refresh{query}", json={"all": True})
        assert error_of(answer) == (403, "forbidden")
    assert error_of(await guard.call("sk-alice", "GET", "/refresh/of-all")) == (403, "forbidden")


async def test_a_refresh_of_all_users_for_one_of_them_is_a_400(guard: Gateway) -> None:
    named = await guard.call(
        "sk-master", "POST", "/refresh", json={"all": True}, **{"x-litellm-oauth-user": "bob"}
    )
    assert error_of(named) == (400, "invalid_input")


async def test_a_job_that_nobody_knows_is_a_404(gateway: Gateway) -> None:
    assert error_of(await gateway.call("sk-master", *ROUTES[-1])) == (404, "no_such_job")


async def test_logout_can_be_repeated(gateway: Gateway) -> None:
    await gateway.log_in("sk-alice")
    first = (await gateway.call("sk-alice", "POST", "/logout")).json()
    again = (await gateway.call("sk-alice", "POST", "/logout")).json()
    assert (first["was_logged_in"], first["revoked"]) == (True, True)
    assert again["was_logged_in"] is False
    status = (await gateway.call("sk-alice", "GET", "/status")).json()
    assert (status["status"], status["authenticated"]) == ("logged_out", False)


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("key", [None, "sk-wrong"])
async def test_every_route_wants_a_key(guard: Gateway, method: str, path: str, key: str | None) -> None:
    response = await guard.call(key, method, path)
    assert error_of(response) == (401, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"


async def test_without_a_key_even_a_bad_body_is_a_401(guard: Gateway) -> None:
    async with guard.client("sk-wrong") as client:
        response = await client.post("/exchange", content=b"{")
    assert response.status_code == 401


async def test_nothing_is_cached_neither_answers_nor_errors(gateway: Gateway) -> None:
    for key in ("sk-alice", "sk-wrong"):
        for method, path in ROUTES:
            assert (await gateway.call(key, method, path)).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route not in ADMIN_ROUTES])
async def test_nobody_but_an_administrator_acts_for_somebody_else(
    gateway: Gateway, database: TestDatabase, method: str, path: str
) -> None:
    body = {"code": "x"} if path == "/exchange" else None
    by_query = await gateway.call("sk-alice", method, f"{path}?user_id=bob", json=body)
    by_header = await gateway.call("sk-alice", method, path, json=body, **{"x-litellm-oauth-user": "bob"})
    assert error_of(by_query) == (403, "forbidden")
    assert error_of(by_header) == (403, "forbidden")
    actions = database.query(f"SELECT DISTINCT action FROM {AUDIT}")  # noqa: S608
    assert [line["action"] for line in actions] == ["act_for"]


async def test_an_administrator_logs_somebody_in_who_then_sees_their_own_login(gateway: Gateway) -> None:
    await gateway.log_in("sk-master", "alice")
    assert (await gateway.call("sk-alice", "GET", "/status")).json()["authenticated"] is True
    assert (await gateway.call("sk-master", "GET", "/status")).json()["user_id"] == "default"
    named = await gateway.call("sk-master", "GET", "/status", **{"x-litellm-oauth-user": "alice"})
    assert named.json()["user_id"] == "alice"


async def test_the_list_of_users_is_for_administrators_and_goes_page_by_page(gateway: Gateway) -> None:
    for user in ("alice", "bob", "carol"):
        await gateway.log_in("sk-master", user)
    assert error_of(await gateway.call("sk-alice", "GET", "/users")) == (403, "forbidden")
    first = (await gateway.call("sk-master", "GET", "/users?limit=2")).json()
    rest = (await gateway.call("sk-master", "GET", f"/users?limit=2&after={first['next']}")).json()
    assert [user["user_id"] for user in first["users"]] == ["alice", "bob"]
    assert [user["user_id"] for user in rest["users"]] == ["carol"]
    assert (first["next"], rest["next"]) == ("bob", None)
    assert set(first["users"][0]) == STATUS_FIELDS


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("POST", "/exchange", b"{"),
        ("POST", "/exchange", b"[]"),
        ("POST", "/exchange", b"{}"),
        ("POST", "/exchange", b'{"code": 5}'),
        ("POST", "/exchange", b'{"code": "a", "state": []}'),
        ("POST", "/exchange", b'{"code": "a", "user_id": "bob"}'),
        ("POST", "/exchange", b'{"code": "\\u0000"}'),
        ("POST", "/exchange", b" " * 70_000),
        ("POST", "/refresh", b'{"min_validity": "soon"}'),
        ("POST", "/refresh", b'{"min_validity": -1}'),
        ("POST", "/refresh", b'{"force": 1}'),
        ("POST", "/refresh", b'{"all": "everybody"}'),
        ("POST", "/refresh", b'{"all": true, "min_validity": -1}'),
        ("POST", "/refresh?user_id=bob", b'{"all": true}'),
        ("GET", "/refresh/of-all", b""),
        ("GET", "/refresh/6f1e0c3e-5d1c-4f0b-9d63-1f6a3f2d8c11?result=good", b""),
        ("GET", "/refresh/6f1e0c3e-5d1c-4f0b-9d63-1f6a3f2d8c11?limit=0", b""),
        ("GET", "/refresh/6f1e0c3e-5d1c-4f0b-9d63-1f6a3f2d8c11?user_id=bob", b""),
        ("POST", "/logout", b'{"everybody": true}'),
        ("GET", "/start?user=bob", b""),
        ("GET", "/start?force=perhaps", b""),
        ("GET", "/status?user_id=", b""),
        ("GET", "/status?user_id=a%00b", b""),
    ],
)
async def test_bad_input_is_a_400_that_says_what_is_wanted(
    guard: Gateway, method: str, path: str, content: bytes
) -> None:
    async with guard.client("sk-master") as client:
        assert error_of(await client.request(method, path, content=content)) == (400, "invalid_input")


@pytest.mark.parametrize("path", ["/users?limit=0", "/users?limit=x", "/users?after=a&after=b"])
async def test_a_bad_page_is_a_400(guard: Gateway, path: str) -> None:
    assert error_of(await guard.call("sk-master", "GET", path)) == (400, "invalid_input")


async def test_a_code_without_a_login_that_waits_is_a_400(gateway: Gateway) -> None:
    response = await gateway.call("sk-alice", "POST", "/exchange", json={"code": "abcdefgh"})
    assert error_of(response) == (400, "no_pending_login")


async def test_a_forged_state_is_a_400_and_leaves_the_login_waiting(
    gateway: Gateway, sandbox: SandboxProvider
) -> None:
    started = (await gateway.call("sk-alice", "GET", "/start")).json()
    code = sandbox.approve(started["authorization_url"])
    body = {"code": code.partition("#")[0], "state": "forged-" + "x" * 36}
    forged = await gateway.call("sk-alice", "POST", "/exchange", json=body)
    assert error_of(forged) == (400, "state_mismatch")
    assert (await gateway.call("sk-alice", "POST", "/exchange", json={"code": code})).status_code == 200


async def test_another_users_code_is_refused(gateway: Gateway, sandbox: SandboxProvider) -> None:
    started = (await gateway.call("sk-alice", "GET", "/start")).json()
    await gateway.call("sk-bob", "GET", "/start")
    code = sandbox.approve(started["authorization_url"])
    stolen = await gateway.call("sk-bob", "POST", "/exchange", json={"code": code})
    assert error_of(stolen) == (400, "state_mismatch")


async def test_a_wrong_code_is_a_400(gateway: Gateway) -> None:
    started = (await gateway.call("sk-alice", "GET", "/start")).json()
    body = {"code": "wrong-code-wrong-code", "state": started["state"]}
    response = await gateway.call("sk-alice", "POST", "/exchange", json=body)
    assert error_of(response) == (400, "code_rejected")


@pytest.mark.parametrize("body", [None, {"force": True}])
async def test_refreshing_nobody_is_a_404(gateway: Gateway, body: object) -> None:
    assert error_of(await gateway.call("sk-alice", "POST", "/refresh", json=body)) == (404, "not_logged_in")


async def test_a_provider_in_trouble_is_a_503_and_then_a_wait(
    gateway: Gateway, sandbox: SandboxProvider
) -> None:
    await gateway.log_in("sk-alice")
    sandbox.fault("token", "status", status=429, retry_after=30)
    first = await gateway.call("sk-alice", "POST", "/refresh", json={"force": True})
    second = await gateway.call("sk-alice", "POST", "/refresh", json={"force": True})
    assert first.status_code in (429, 503)
    assert error_of(second) == (429, "cooling_down")
    assert 1 <= int(second.headers["retry-after"]) <= 60
    assert (await gateway.call("sk-alice", "GET", "/status")).json()["authenticated"] is True


async def test_a_dead_login_is_a_401_that_asks_for_a_new_one(
    gateway: Gateway, sandbox: SandboxProvider
) -> None:
    await gateway.log_in("sk-alice")
    sandbox.revoke()
    response = await gateway.call("sk-alice", "POST", "/refresh", json={"force": True})
    assert error_of(response) == (401, "reauth_required")


async def test_a_database_that_is_away_is_a_503_with_a_wait_and_health_says_so(
    gateway: Gateway, database: TestDatabase
) -> None:
    assert error_of(await gateway.call(None, "GET", "/health")) == (401, "invalid_api_key")
    assert (await gateway.call("sk-bob", "GET", "/health")).json() == {"status": "ok", "database": True}
    database.cut_off()
    response = await gateway.call("sk-alice", "GET", "/start")
    assert error_of(response) == (503, "storage_unavailable")
    assert int(response.headers["retry-after"]) >= 1
    health = await gateway.call("sk-bob", "GET", "/health")
    assert health.json() == {"status": "degraded", "database": False}


async def test_anonymous_api_opens_the_login_of_default_as_the_documents_do(
    open_gateway: Gateway, sandbox: SandboxProvider
) -> None:
    started = (await open_gateway.call(None, "GET", "/start")).json()
    code, _, state = sandbox.approve(started["authorization_url"]).partition("#")
    exchanged = await open_gateway.call(None, "POST", "/exchange", json={"code": code, "state": state})
    assert exchanged.status_code == 200
    assert (await open_gateway.call(None, "GET", "/status")).json()["user_id"] == "default"


@pytest.mark.parametrize(("method", "path"), [("POST", "/refresh"), ("POST", "/logout"), ("GET", "/users")])
async def test_anonymous_api_opens_nothing_else(open_gateway: Gateway, method: str, path: str) -> None:
    assert (await open_gateway.call(None, method, path)).status_code == 401


async def test_anonymous_api_is_for_default_only_and_does_not_excuse_a_wrong_key(
    open_gateway: Gateway,
) -> None:
    assert error_of(await open_gateway.call(None, "GET", "/start?user_id=alice")) == (403, "forbidden")
    assert (await open_gateway.call("sk-wrong", "GET", "/status")).status_code == 401


async def test_a_fault_of_our_own_shows_no_traceback(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("sk-ant-oat01-secret")

    monkeypatch.setattr("litellm_oauth.gateway.views.status", broken)
    response = await gateway.call("sk-alice", "GET", "/status")
    assert error_of(response) == (500, "internal_error")
    assert "secret" not in response.text


async def test_the_audit_names_who_asked_and_for_whom(gateway: Gateway, database: TestDatabase) -> None:
    await gateway.log_in("sk-master", "alice")
    rows = database.query('SELECT * FROM claude_oauth."LiteLLM_ClaudeOAuthAudit"')
    assert {row["user_id"] for row in rows} == {"alice"}
    assert {row["actor"] for row in rows} == {"default"}


async def test_the_openapi_document_names_every_route(gateway: Gateway) -> None:
    paths = gateway.app.openapi()["paths"]
    named = {path.removeprefix("/auth/claude/oauth/") for path in paths}
    assert named == {path[1:] for _, path in ROUTES[:-1]} | {"health", "refresh/{job_id}"}


async def test_who_tries_to_act_for_another_leaves_one_line_a_minute_in_the_audit(
    gateway: Gateway, database: TestDatabase
) -> None:
    for _ in range(3):
        for path in ("/status?user_id=alice", "/status?user_id=carol"):
            assert (await gateway.call("sk-bob", "GET", path)).status_code == 403
    lines = database.query(f"SELECT actor, user_id, outcome FROM {AUDIT} WHERE action = 'act_for'")  # noqa: S608
    assert [tuple(line.values()) for line in lines] == [("bob", "alice", "forbidden")]
