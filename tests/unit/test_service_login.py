"""Login and logout: what is wrong changes nothing, a code counts once, nobody gets another's login."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from litellm_oauth import login
from litellm_oauth.assembly import open_service
from litellm_oauth.cli.text import login as told
from litellm_oauth.errors import (
    AlreadyLoggedIn,
    CodeRejected,
    InvalidInput,
    LitellmOAuthError,
    NoPendingLogin,
    NotLoggedIn,
    ProviderUnavailable,
    ReauthRequired,
    StateMismatch,
    StorageUnavailable,
)
from litellm_oauth.login import MAX_PENDING
from litellm_oauth.results import StartedLogin
from litellm_oauth.service import TokenService
from litellm_oauth.stores.postgres import PostgresTokens
from litellm_oauth.tokens import ExportedLogin, Status
from support.postgres import AUDIT, LOGINS, TOKENS
from support.service import ACTOR, Gateways, MovableClock, eventually

LOGIN = ExportedLogin(None, "fake-access-token", None, 4_000_000_000.0, None, (), None, None, None)


async def _start(service: TokenService, user: str = "alice") -> StartedLogin:
    return await service.start_login(user, actor=ACTOR, again=True)


async def _code(gateways: Gateways, started: StartedLogin) -> str:
    """The code alone, as the code page shows it before the ``#``."""
    shown = await asyncio.to_thread(gateways.sandbox.approve, started.authorization_url)
    return shown.partition("#")[0]


def _stored(gateways: Gateways) -> list[dict[str, Any]]:
    return gateways.database.query(f"SELECT * FROM {TOKENS} ORDER BY user_id")


@pytest.mark.parametrize("form", ["bare", "code#state", "url", "beside"])
async def test_a_code_is_taken_in_each_of_its_forms(gateways: Gateways, form: str) -> None:
    service = await gateways.open()
    started = await _start(service)
    code = await _code(gateways, started)
    text = {
        "bare": f"  {code}\n",
        "code#state": f'"{code}#{started.state}"',
        "url": f"{started.redirect_uri}?code={code}&state={started.state}",
        "beside": code,
    }[form]
    state = started.state if form == "beside" else None
    status = await service.complete_login("alice", text, state, actor=ACTOR)
    assert (status.status, status.generation, status.has_refresh_token) == (Status.ACTIVE, 1, True)
    assert status.scopes == ("user:inference", "user:profile")
    assert status.expires_in == pytest.approx(28800, abs=5)
    assert gateways.accepts((await service.access_token("alice")).value)


async def test_who_is_logged_in_is_told_so_unless_another_login_is_wanted(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    with pytest.raises(AlreadyLoggedIn):
        await service.start_login("alice", actor=ACTOR)
    await service.start_login("alice", actor=ACTOR, again=True)
    await gateways.change("status = 'reauth_required', expires_at = now()")
    await service.start_login("alice", actor=ACTOR)


async def test_who_was_told_to_log_in_again_gets_in_although_the_access_token_has_not_expired(
    gateways: Gateways,
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    gateways.sandbox.revoke("alice")
    with pytest.raises(ReauthRequired):
        await service.replace_rejected("alice", 1)
    assert (await service.status("alice")).authenticated
    await service.start_login("alice", actor=ACTOR)


async def test_wrong_states_and_codes_leave_everything_that_was_stored(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    started, others = await _start(service), await _start(service, "bob")
    code = await _code(gateways, started)
    before = _stored(gateways)
    wrong: list[tuple[str, str | None, type[LitellmOAuthError]]] = [
        ("", None, InvalidInput),
        (f"{code}#forged-state", None, StateMismatch),
        (code, others.state, StateMismatch),
        (f"{code}#{started.state}", others.state, StateMismatch),
        (f"{started.redirect_uri}?error=access_denied&state={started.state}", None, CodeRejected),
        (
            f"{started.redirect_uri}?code={code}&state={started.state}&iss=https://evil.example",
            None,
            StateMismatch,
        ),
    ]
    for text, state, error in wrong:
        with pytest.raises(error) as caught:
            await service.complete_login("alice", text, state, actor=ACTOR)
        assert "bob" not in caught.value.message
    assert _stored(gateways) == before
    assert gateways.sandbox.token_calls()["total"] == 1
    # None of that used up the login.
    assert (await service.complete_login("alice", code, started.state, actor=ACTOR)).generation == 2


async def test_a_code_without_a_pending_login_is_refused(gateways: Gateways) -> None:
    service = await gateways.open()
    with pytest.raises(NoPendingLogin, match="oauth_login"):
        await service.complete_login("alice", "some-code", actor=ACTOR)
    assert _stored(gateways) == []


async def test_a_login_is_used_up_by_success(gateways: Gateways) -> None:
    service = await gateways.open()
    started = await _start(service)
    code = await _code(gateways, started)
    await service.complete_login("alice", f"{code}#{started.state}", actor=ACTOR)
    before = _stored(gateways)
    for text in (f"{code}#{started.state}", code):
        with pytest.raises(NoPendingLogin, match="used already"):
            await service.complete_login("alice", text, actor=ACTOR)
    assert _stored(gateways) == before


async def test_a_login_is_used_up_by_a_refused_code(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    started = await _start(service)
    before = _stored(gateways)
    with pytest.raises(CodeRejected):
        await service.complete_login("alice", f"wrong-code#{started.state}", actor=ACTOR)
    code = await _code(gateways, started)
    with pytest.raises(NoPendingLogin):
        await service.complete_login("alice", f"{code}#{started.state}", actor=ACTOR)
    assert _stored(gateways) == before


async def test_a_login_that_waited_too_long_is_refused(gateways: Gateways) -> None:
    service = await gateways.open()
    started = await _start(service)
    code = await _code(gateways, started)
    gateways.database.query(f"UPDATE {LOGINS} SET expires_at = now()")
    with pytest.raises(NoPendingLogin, match="too long"):
        await service.complete_login("alice", f"{code}#{started.state}", actor=ACTOR)


async def test_a_login_waits_ten_minutes(gateways: Gateways) -> None:
    service = await gateways.open()
    await _start(service)
    row = gateways.database.one(f"SELECT expires_at - created_at AS waits FROM {LOGINS}")
    assert row["waits"].total_seconds() == pytest.approx(600, abs=1)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 429, "retry_after": 3},
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 404},
        {"kind": "silence", "seconds": 30},
    ],
)
async def test_a_fault_of_the_provider_keeps_the_login_for_another_try(
    gateways: Gateways, fault: dict[str, Any]
) -> None:
    service = await gateways.open(provider={"token_timeout": 1})
    started = await _start(service)
    code = await _code(gateways, started)
    gateways.sandbox.fault("token", **fault)
    with pytest.raises(ProviderUnavailable):
        await service.complete_login("alice", f"{code}#{started.state}", actor=ACTOR)
    assert _stored(gateways) == []
    assert (await service.complete_login("alice", f"{code}#{started.state}", actor=ACTOR)).authenticated


async def test_a_bare_code_counts_for_the_newest_login_only(gateways: Gateways) -> None:
    service = await gateways.open()
    older, newer = await _start(service), await _start(service)
    older_code = await _code(gateways, older)
    with pytest.raises(CodeRejected):
        await service.complete_login("alice", older_code, actor=ACTOR)
    with pytest.raises(NoPendingLogin):
        await service.complete_login("alice", await _code(gateways, newer), actor=ACTOR)
    # With its state the older one can still be named, but the judge saw its code with a wrong verifier.
    started = await _start(service)
    assert (await service.complete_login("alice", await _code(gateways, started), actor=ACTOR)).authenticated


async def test_two_completions_of_one_login_make_one_call(gateways: Gateways) -> None:
    first, second = await gateways.open(), await gateways.open()
    started = await _start(first)
    text = f"{await _code(gateways, started)}#{started.state}"
    gateways.sandbox.fault("token", "slow", seconds=0.2)
    results = await asyncio.gather(
        *(service.complete_login("alice", text, actor=ACTOR) for service in (first, second, first)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, NoPendingLogin) for result in results) == 2
    assert gateways.sandbox.token_calls() == {
        "total": 1,
        "authorization_code": {"ok": 1},
        "refresh_token": {},
    }
    assert gateways.row()["generation"] == 1


async def test_a_caller_who_hangs_up_is_logged_in_all_the_same(gateways: Gateways) -> None:
    service = await gateways.open()
    started = await _start(service)
    code = await _code(gateways, started)
    gateways.sandbox.fault("token", "slow", seconds=0.3, after=True)
    request = asyncio.create_task(service.complete_login("alice", f"{code}#{started.state}", actor=ACTOR))
    await asyncio.sleep(0.15)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await eventually(lambda: _stored(gateways))
    assert gateways.accepts((await service.access_token("alice")).value)


async def test_a_login_is_pinned_to_the_provider_it_began_with(gateways: Gateways) -> None:
    service = await gateways.open()
    started = await _start(service)
    code = await _code(gateways, started)
    moved = await gateways.open(provider={"issuer": "https://other.example"})
    with pytest.raises(NoPendingLogin, match="settings changed"):
        await moved.complete_login("alice", f"{code}#{started.state}", actor=ACTOR)


async def test_where_the_provider_names_itself_only_an_address_that_names_it_completes_a_login(
    gateways: Gateways,
) -> None:
    """A bare code could be another provider's (RFC 9207 §2.4)."""
    service = await gateways.open(provider={"require_issuer": True})
    started = await _start(service)
    assert started.whole_address
    assert "whole address" in told(started, "")
    code = await _code(gateways, started)
    address = f"{started.redirect_uri}?code={code}&state={started.state}"
    for text, state in (
        (code, None),
        (code, started.state),
        (f"{code}#{started.state}", None),
        (address, None),
    ):
        with pytest.raises(InvalidInput, match="paste the whole address"):
            await service.complete_login("alice", text, state, actor=ACTOR)
    with pytest.raises(StateMismatch, match="another provider"):
        await service.complete_login("alice", f"{address}&iss=https%3A%2F%2Fevil.example", actor=ACTOR)
    assert gateways.sandbox.token_calls()["total"] == 0
    named = f"{address}&{urlencode({'iss': gateways.sandbox.issuer})}"
    assert (await service.complete_login("alice", named, actor=ACTOR)).authenticated


async def test_a_user_has_a_limited_number_of_pending_logins_and_the_newest_stay(gateways: Gateways) -> None:
    service = await gateways.open()
    started = [await _start(service) for _ in range(8)]
    assert len(gateways.database.query(f"SELECT 1 FROM {LOGINS}")) == 5
    code = await _code(gateways, started[3])
    assert (await service.complete_login("alice", f"{code}#{started[3].state}", actor=ACTOR)).authenticated


async def test_the_authorization_url_is_a_pkce_one_and_its_verifier_stays_here(gateways: Gateways) -> None:
    service = await gateways.open()
    started = await _start(service)
    query = parse_qs(urlsplit(started.authorization_url).query)
    assert query["code_challenge_method"] == ["S256"]
    assert query["state"] == [started.state]
    row = gateways.database.one(f"SELECT * FROM {LOGINS}")
    assert started.state not in str(row)
    assert row["verifier_encrypted"].startswith("v1.")


async def test_generations_grow_through_refresh_logout_and_login(gateways: Gateways) -> None:
    service = await gateways.open()
    seen = []
    await gateways.log_in(service)
    seen.append(gateways.row()["generation"])
    await service.refresh("alice", force=True, actor=ACTOR)
    seen.append(gateways.row()["generation"])
    await service.logout("alice", actor=ACTOR)
    seen.append(gateways.row()["generation"])
    await gateways.log_in(service)
    seen.append(gateways.row()["generation"])
    await gateways.log_in(service)
    seen.append(gateways.row()["generation"])
    assert seen == [1, 2, 3, 4, 5]


async def test_a_logout_takes_the_tokens_away_here_and_at_the_provider_and_can_be_repeated(
    gateways: Gateways,
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    token = await service.access_token("alice")
    outcome = await service.logout("alice", actor=ACTOR)
    assert (outcome.was_logged_in, outcome.revoked, outcome.generation) == (True, True, 2)
    assert not gateways.accepts(token.value)
    with pytest.raises(NotLoggedIn, match="litellm claude login --user alice"):
        await service.access_token("alice")
    again = await service.logout("alice", actor=ACTOR)
    assert (again.was_logged_in, again.revoked, again.generation) == (False, None, 2)
    never = await service.logout("nobody", actor=ACTOR)
    assert (never.was_logged_in, never.generation) == (False, 0)


async def test_a_logout_and_a_login_cannot_wait_for_each_other(gateways: Gateways) -> None:
    """Both take the pending login first: with it held by a login, a logout holds no token row yet."""
    service = await gateways.open()
    await gateways.log_in(service)
    await service.start_login("alice", actor=ACTOR, again=True)
    with gateways.database.transaction() as login:
        login.execute(f"SELECT FROM {LOGINS} WHERE user_id = 'alice' AND used_at IS NULL FOR UPDATE")
        logout = asyncio.create_task(service.logout("alice", actor=ACTOR))
        waiting = (
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        await eventually(lambda: gateways.database.query(waiting))
        login.execute(f"SELECT FROM {TOKENS} WHERE user_id = 'alice' FOR UPDATE NOWAIT")
    assert (await logout).was_logged_in


async def test_new_logins_do_not_push_out_one_whose_code_is_being_exchanged(gateways: Gateways) -> None:
    service = await gateways.open()
    started = await service.start_login("alice", actor=ACTOR)
    code = await asyncio.to_thread(gateways.sandbox.approve, started.authorization_url, "alice")
    gateways.sandbox.fault("token", "slow", seconds=0.5)
    login = asyncio.create_task(service.complete_login("alice", code, actor=ACTOR))
    claimed = f"SELECT 1 FROM {LOGINS} WHERE claimed_by IS NOT NULL"
    await eventually(lambda: gateways.database.query(claimed))
    for _ in range(MAX_PENDING + 1):
        await service.start_login("alice", actor=ACTOR, again=True)
    assert (await login).authenticated


async def test_a_first_login_is_reckoned_by_the_databases_clock(gateways: Gateways) -> None:
    clock = MovableClock()
    clock.ahead = 3600
    service = await gateways.open(clock=clock)
    await gateways.log_in(service)
    left = gateways.database.one(
        f"SELECT extract(epoch FROM expires_at - now())::float8 AS seconds FROM {TOKENS}"
    )
    assert left["seconds"] == pytest.approx(28_800, abs=30)


async def test_a_cookie_of_the_provider_never_goes_out_with_another_users_token(gateways: Gateways) -> None:
    asked: list[httpx.Request] = []

    class SettingCookies(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            asked.append(request)
            response = await super().handle_async_request(request)
            response.headers["set-cookie"] = "session=the-first-users; Path=/"
            return response

    service = await open_service(gateways.settings(), transport=SettingCookies())
    for user in ("alice", "bob"):
        await gateways.log_in(service, user)
    await service.close()
    assert len(asked) == 2
    assert [request for request in asked if "cookie" in request.headers] == []


@pytest.mark.parametrize("logged_in", [True, False])
async def test_a_logout_also_ends_the_logins_that_are_under_way(gateways: Gateways, logged_in: bool) -> None:
    """Who is locked out does not come back with a code that was already on its way."""
    service = await gateways.open()
    if logged_in:
        await gateways.log_in(service)
    started = await service.start_login("alice", actor=ACTOR, again=True)
    others = await service.start_login("bob", actor=ACTOR)
    code = await asyncio.to_thread(gateways.sandbox.approve, started.authorization_url, "alice")
    await service.logout("alice", actor=ACTOR)
    with pytest.raises(NoPendingLogin):
        await service.complete_login("alice", code, actor=ACTOR)
    assert not (await service.status("alice")).authenticated
    bobs = await asyncio.to_thread(gateways.sandbox.approve, others.authorization_url, "bob")
    assert (await service.complete_login("bob", bobs, actor=ACTOR)).authenticated


async def test_a_logout_that_the_provider_does_not_confirm_says_so(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    gateways.sandbox.fault("revoke", "status", status=503)
    outcome = await service.logout("alice", actor=ACTOR)
    assert (outcome.was_logged_in, outcome.revoked) == (True, False)
    assert gateways.row()["access_token_encrypted"] is None


async def test_users_are_listed_in_pages_without_gap_or_repetition(gateways: Gateways) -> None:
    service = await gateways.open()
    users = ["Zoe", "alice", "bob", "ärzte", "日本"]
    gateways.plant(users, expires_in=3600)
    found: list[str] = []
    while True:
        page = await service.statuses(after=found[-1] if found else None, limit=2)
        if not page:
            break
        found += [status.user_id for status in page]
    assert found == sorted(users)
    with pytest.raises(InvalidInput):
        await service.statuses(limit=0)


async def test_somebody_unknown_reads_as_logged_out_with_generation_zero(gateways: Gateways) -> None:
    status = await (await gateways.open()).status("nobody")
    assert (status.status, status.generation, status.authenticated) == (Status.LOGGED_OUT, 0, False)


@pytest.mark.parametrize("user", ["", " x", "a\nb"])
async def test_an_odd_user_id_is_refused_by_every_operation(gateways: Gateways, user: str) -> None:
    service = await gateways.open()
    for operation in (
        service.access_token(user),
        service.replace_rejected(user, 1),
        service.start_login(user, actor=ACTOR),
        service.complete_login(user, "code", actor=ACTOR),
        service.status(user),
        service.refresh(user, actor=ACTOR),
        service.logout(user, actor=ACTOR),
        service.export_login(user, actor=ACTOR),
        service.import_login(user, LOGIN, actor=ACTOR),
    ):
        with pytest.raises(InvalidInput):
            await operation


async def test_everything_is_audited_and_no_secret_is_written_anywhere_in_the_clear(
    gateways: Gateways, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    service = await gateways.open()
    started = await _start(service)
    code = await _code(gateways, started)
    with pytest.raises(StateMismatch):
        await service.complete_login("alice", f"{code}#forged", actor=ACTOR)
    await service.complete_login("alice", f"{code}#{started.state}", actor=ACTOR)
    tokens = [(await service.access_token("alice")).value]
    await service.refresh("alice", force=True, actor=ACTOR)
    tokens.append((await service.access_token("alice")).value)
    await service.logout("alice", actor=ACTOR)
    rows = gateways.database.query(f"SELECT * FROM {AUDIT} ORDER BY audit_id")
    assert [(row["action"], row["outcome"], row["generation"]) for row in rows] == [
        ("start_login", "started", None),
        ("login", "state_mismatch", None),
        ("login", "logged_in", 1),
        ("refresh", "refreshed", 2),
        ("logout", "logged_out", 3),
    ]
    assert {(row["actor"], row["origin"], row["user_id"]) for row in rows} == {
        ("tester", "127.0.0.1", "alice")
    }
    # The browser of the test logs addresses with codes; what counts is what the service logs.
    logged = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    everywhere = "".join(logged) + "".join(
        str(gateways.database.query(f"SELECT * FROM {table}")) for table in (AUDIT, LOGINS, TOKENS)
    )
    for secret in (*tokens, code, started.state):
        assert secret not in everywhere


async def test_a_login_that_was_stored_without_a_word_is_not_revoked(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try is committed, and from its confirmation on the database is away."""
    monkeypatch.setattr(login, "_SAVE_PAUSES", (0.0,))
    service = await gateways.open()
    log_in, tries = PostgresTokens.log_in, 0

    async def lose_the_confirmation(store: PostgresTokens, *arguments: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            await log_in(store, *arguments)
        raise StorageUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(PostgresTokens, "log_in", lose_the_confirmation)
        with pytest.raises(StorageUnavailable):
            await gateways.log_in(service)
    assert tries == 2
    assert gateways.accepts((await service.access_token("alice")).value)


async def test_a_login_whose_first_confirmation_was_lost_is_found_by_the_next_try(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "_SAVE_PAUSES", (0.0,))
    service = await gateways.open()
    log_in, lost = PostgresTokens.log_in, False

    async def lose_the_confirmation(store: PostgresTokens, *arguments: Any) -> Any:
        nonlocal lost
        row = await log_in(store, *arguments)
        if not lost:
            lost = True
            raise StorageUnavailable("gone")
        return row

    monkeypatch.setattr(PostgresTokens, "log_in", lose_the_confirmation)
    await gateways.log_in(service)
    assert gateways.accepts((await service.access_token("alice")).value)
