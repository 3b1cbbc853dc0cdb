"""Export and import: a login moves whole, in one act that is written down, and never over one that works."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from dataclasses import replace
from typing import Any

import pytest
from cryptography.fernet import Fernet

from litellm_oauth import refresh
from litellm_oauth.cli.document import document_of, login_of
from litellm_oauth.errors import (
    AlreadyLoggedIn,
    InvalidInput,
    LitellmOAuthError,
    NotLoggedIn,
    OtherClient,
    ProviderUnavailable,
    ReauthRequired,
    StorageUnavailable,
    Unreadable,
)
from litellm_oauth.service import TokenService
from litellm_oauth.stores import TokenRow
from litellm_oauth.stores.documents import Documents
from litellm_oauth.stores.file_audit import FileAudit
from litellm_oauth.stores.postgres import PostgresTokens
from litellm_oauth.tokens import ExportedLogin, Status
from support.postgres import AUDIT, TOKENS
from support.service import ACTOR, KEY, Gateways

FAKE = ExportedLogin(
    user_id=None,
    access_token="fake-access-token",
    refresh_token="fake-refresh-token",
    expires_at=4_000_000_000.0,
    refresh_expires_at=None,
    scopes=(),
    account=None,
    client_id=None,
    logged_in_at=None,
)


@pytest.fixture(params=[True, False], ids=["database", "files"])
def use_database(request: pytest.FixtureRequest) -> bool:
    """Which of the two is the authority."""
    return bool(request.param)


@pytest.fixture
async def service(gateways: Gateways, use_database: bool) -> TokenService:
    return await gateways.open(use_database=use_database)


def given(gateways: Gateways, user: str = "alice") -> ExportedLogin:
    """A login that the provider has given to somebody else's program."""
    (answer,) = gateways.sandbox.log_in(user)
    return replace(
        FAKE,
        access_token=answer["access_token"],
        refresh_token=answer["refresh_token"],
        expires_at=time.time() + answer["expires_in"],
    )


async def row_of(service: TokenService, user: str = "alice") -> TokenRow:
    row = await service._tokens.load(user)
    assert row is not None
    return row


async def begun(service: TokenService) -> None:
    """Wait until alice's refresh has taken her token to spend it."""
    for _ in range(250):
        if (await row_of(service)).attempt_id is not None:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("no refresh has begun")


def audit(gateways: Gateways, service: TokenService) -> list[tuple[Any, ...]]:
    """(actor, action, user, outcome, detail, generation), oldest first."""
    names = ("actor", "action", "user_id", "outcome", "detail", "generation")
    if service._tokens.source == "database":
        lines = gateways.database.query(f"SELECT * FROM {AUDIT} ORDER BY audit_id")
    else:
        lines = [json.loads(line) for line in (gateways.journal() / "audit.jsonl").read_text().splitlines()]
    return [tuple(line[name] for name in names) for line in lines]


# -- export


async def test_a_login_moves_whole_to_another_user_of_another_gateway(
    gateways: Gateways, service: TokenService, use_database: bool
) -> None:
    elsewhere = await gateways.open(use_database=not use_database, host="elsewhere", encryption_key=KEY[::-1])
    await gateways.log_in(service)
    login = await service.export_login("alice", actor=ACTOR)
    assert login.access_token == (await service.access_token("alice")).value
    document = json.dumps(document_of(login)).encode()
    status = await elsewhere.import_login("bob", login_of(document), actor=ACTOR)
    assert (status.status, status.generation, status.has_refresh_token) == (Status.ACTIVE, 1, True)
    moved = await elsewhere.export_login("bob", actor=ACTOR)
    # A database keeps microseconds.
    times = ("expires_at", "refresh_expires_at", "logged_in_at")
    kept = {name: getattr(login, name) for name in times}
    assert {name: getattr(moved, name) for name in times} == pytest.approx(kept, abs=1e-3)
    assert replace(moved, user_id="alice", **kept) == login
    assert (await elsewhere.access_token("bob")).value == login.access_token
    assert (await elsewhere.refresh("bob", force=True, actor=ACTOR)).generation == 2


async def test_an_export_says_who_took_the_tokens(gateways: Gateways, service: TokenService) -> None:
    await gateways.log_in(service)
    login = await service.export_login("alice", actor=ACTOR)
    assert audit(gateways, service)[-1] == ("tester", "export", "alice", "exported", None, None)
    assert login.refresh_token is not None
    assert login.access_token not in repr(login)
    assert login.refresh_token not in repr(login)


async def test_what_the_audit_does_not_take_is_not_exported(
    gateways: Gateways, service: TokenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateways.log_in(service)

    def refuse(*_: Any) -> Any:
        raise StorageUnavailable("full")

    monkeypatch.setattr(PostgresTokens, "write_note", refuse)
    monkeypatch.setattr(FileAudit, "write", refuse)
    with pytest.raises(StorageUnavailable):
        await service.export_login("alice", actor=ACTOR)


async def test_what_a_file_stands_in_with_is_not_exported(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the database can write to, and not read from: what the host holds may be older."""
    service = await gateways.open()
    await gateways.log_in(service)

    async def away(*_: Any) -> None:
        raise StorageUnavailable("a moment")

    monkeypatch.setattr(PostgresTokens, "load", away)
    assert (await service.status("alice")).source == "file"
    with pytest.raises(StorageUnavailable, match="may be older"):
        await service.export_login("alice", actor=ACTOR)
    assert "export" not in [line[1] for line in audit(gateways, service)]


async def test_who_is_not_logged_in_has_nothing_to_export(gateways: Gateways, service: TokenService) -> None:
    with pytest.raises(NotLoggedIn):
        await service.export_login("alice", actor=ACTOR)
    await gateways.log_in(service)
    await service.logout("alice", actor=ACTOR)
    with pytest.raises(NotLoggedIn):
        await service.export_login("alice", actor=ACTOR)
    assert "export" not in [line[1] for line in audit(gateways, service)]


@pytest.mark.parametrize(
    ("assignments", "error"),
    [
        ("status = 'reauth_required'", ReauthRequired),
        ("refresh_token_encrypted = NULL, expires_at = now()", ReauthRequired),
        ("refresh_token_encrypted = access_token_encrypted", Unreadable),
    ],
    ids=["ended by the provider", "expired for good", "unreadable"],
)
async def test_a_login_that_is_of_no_use_any_more_is_not_exported(
    gateways: Gateways, assignments: str, error: type[LitellmOAuthError]
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await gateways.change(assignments)
    with pytest.raises(error):
        await service.export_login("alice", actor=ACTOR)
    assert "export" not in [line[1] for line in audit(gateways, service)]


async def test_a_login_of_another_client_is_exported_with_its_client(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await gateways.change("client_id = 'somebody-elses-client'")
    assert (await service.export_login("alice", actor=ACTOR)).client_id == "somebody-elses-client"


async def test_an_export_waits_for_a_refresh_that_spends_the_token(
    gateways: Gateways, service: TokenService
) -> None:
    await gateways.log_in(service)
    other = await gateways.open(use_database=service._tokens.source == "database")
    gateways.sandbox.fault("token", "slow", seconds=0.6, after=True)
    refreshing = asyncio.create_task(service.refresh("alice", force=True, actor=ACTOR))
    await begun(service)
    login = await other.export_login("alice", actor=ACTOR)
    assert (await refreshing).generation == 2
    assert login.access_token == (await service.access_token("alice")).value


async def test_a_refresh_token_in_doubt_is_not_exported(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh, "SLACK", 0.0)
    service = await gateways.open(provider={"token_timeout": 1})
    await gateways.log_in(service)
    await gateways.change(
        "attempt_id = %(id)s, attempt_host = 'gone', lease_until = now()", values={"id": uuid.uuid4()}
    )
    with pytest.raises(ProviderUnavailable, match="Try again soon"):
        await service.export_login("alice", actor=ACTOR)


# -- import


async def test_generations_go_on_through_a_logout_and_an_import(
    gateways: Gateways, service: TokenService
) -> None:
    await gateways.log_in(service)
    await service.logout("alice", actor=ACTOR)
    status = await service.import_login("alice", given(gateways), actor=ACTOR)
    assert (status.status, status.generation) == (Status.ACTIVE, 3)
    assert gateways.accepts((await service.access_token("alice")).value)
    assert audit(gateways, service)[-1] == ("tester", "import", "alice", "imported", None, 3)


async def test_the_audit_says_whose_login_it_was(gateways: Gateways, service: TokenService) -> None:
    await service.import_login("bob", replace(FAKE, user_id="alice"), actor=ACTOR)
    assert audit(gateways, service) == [("tester", "import", "bob", "imported", "from alice", 1)]


async def test_a_working_login_is_replaced_on_purpose_only_and_left_alone_at_the_provider(
    gateways: Gateways, service: TokenService
) -> None:
    await gateways.log_in(service)
    assert (await service.access_token("alice")).generation == 1
    before, login = await row_of(service), given(gateways)
    with pytest.raises(AlreadyLoggedIn, match="on purpose"):
        await service.import_login("alice", login, actor=ACTOR)
    after = await row_of(service)
    assert (after.generation, after.access_token) == (1, before.access_token)
    assert (await service.import_login("alice", login, actor=ACTOR, again=True)).generation == 2
    assert (await service.access_token("alice")).value == login.access_token
    assert [login["revoked_because"] for login in gateways.sandbox.logins()] == [None, None]


@pytest.mark.parametrize(
    "assignments", ["status = 'reauth_required'", "access_token_encrypted = 'v1.damaged'"]
)
async def test_a_login_that_does_not_work_needs_no_force(gateways: Gateways, assignments: str) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await gateways.change(assignments)
    login = given(gateways)
    assert (await service.import_login("alice", login, actor=ACTOR)).status is Status.ACTIVE
    assert (await service.access_token("alice")).value == login.access_token


async def test_a_login_that_comes_between_the_look_and_the_write_is_not_replaced(
    gateways: Gateways, service: TokenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = service._transfer.take

    async def overtaken(*arguments: Any, **options: Any) -> TokenRow | None:
        monkeypatch.undo()
        await gateways.log_in(service)
        return await take(*arguments, **options)

    monkeypatch.setattr(service._transfer, "take", overtaken)
    with pytest.raises(AlreadyLoggedIn):
        await service.import_login("alice", FAKE, actor=ACTOR)
    assert gateways.accepts((await service.access_token("alice")).value)


async def test_an_import_during_a_refresh_wins_and_the_refreshed_token_is_revoked(
    gateways: Gateways, service: TokenService
) -> None:
    await gateways.log_in(service)
    login = given(gateways)
    gateways.sandbox.fault("token", "slow", seconds=0.6, after=True, grant_type="refresh_token")
    refreshing = asyncio.create_task(service.refresh("alice", force=True, actor=ACTOR))
    await begun(service)
    await service.import_login("alice", login, actor=ACTOR, again=True)
    outcome, row = await refreshing, await row_of(service)
    assert (outcome.generation, row.generation, row.attempt_id) == (2, 2, None)
    assert (await service.access_token("alice")).value == login.access_token
    assert gateways.accepts(login.access_token)
    assert [bool(login["revoked_because"]) for login in gateways.sandbox.logins()] == [True, False]


async def test_an_import_ends_attempts_errors_and_waits(gateways: Gateways) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await gateways.change(
        "attempt_id = %(id)s, attempt_host = 'gone', lease_owner = %(id)s, lease_until = now(), "
        "last_error = 'timeout: because', next_attempt_at = now() + interval '1 hour'",
        values={"id": uuid.uuid4()},
    )
    await service.import_login("alice", given(gateways), actor=ACTOR, again=True)
    row = gateways.row()
    ended = ("attempt_id", "attempt_host", "lease_owner", "lease_until", "last_error", "next_attempt_at")
    assert {row[name] for name in ended} == {None}
    assert (await service.refresh("alice", force=True, actor=ACTOR)).generation == 3


@pytest.mark.parametrize(("logged_in_at", "told"), [(-90.0, -90.0), (90.0, 0.0), (None, 0.0)])
async def test_a_login_keeps_its_age_where_that_is_known(
    service: TokenService, logged_in_at: float | None, told: float
) -> None:
    now = time.time()
    moment = None if logged_in_at is None else now + logged_in_at
    await service.import_login("alice", replace(FAKE, logged_in_at=moment), actor=ACTOR)
    assert (await row_of(service)).logged_in_at == pytest.approx(now + told, abs=5)


async def test_an_imported_refresh_token_is_shown_to_no_client_but_its_own(
    gateways: Gateways, service: TokenService
) -> None:
    login = replace(given(gateways), client_id="somebody-elses-client")
    status = await service.import_login("alice", login, actor=ACTOR)
    assert (status.status, status.has_refresh_token) == (Status.ACTIVE, False)
    assert status.warning is not None
    assert "somebody-elses-client" in status.warning
    with pytest.raises(OtherClient):
        await service.refresh("alice", force=True, actor=ACTOR)
    assert gateways.refreshes() == 0


async def test_a_refresh_token_of_unknown_origin_is_tried(gateways: Gateways, service: TokenService) -> None:
    await service.import_login("alice", given(gateways), actor=ACTOR)
    assert (await row_of(service)).client_id is None
    assert (await service.refresh("alice", force=True, actor=ACTOR)).generation == 2


async def test_an_expired_access_token_is_replaced_by_its_refresh_token(
    gateways: Gateways, service: TokenService
) -> None:
    await service.import_login("alice", replace(given(gateways), expires_at=1.0), actor=ACTOR)
    assert gateways.accepts((await service.access_token("alice")).value)


async def test_another_process_serves_what_was_imported(gateways: Gateways, service: TokenService) -> None:
    other = await gateways.open(use_database=service._tokens.source == "database")
    await gateways.log_in(service)
    assert (await other.access_token("alice")).generation == 1
    login = given(gateways)
    await service.import_login("alice", login, actor=ACTOR, again=True)
    for _ in range(150):
        token = await other.access_token("alice")
        if token.generation == 2:
            break
        await asyncio.sleep(0.02)
    assert token.value == login.access_token


async def test_the_files_of_the_host_mirror_an_import(gateways: Gateways) -> None:
    service = await gateways.open()
    await service.import_login("default", FAKE, actor=ACTOR)
    kept = json.loads(gateways.tokens().read_text())
    row = gateways.row("default")
    assert (kept["generation"], kept["accessToken"]) == (1, row["access_token_encrypted"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"access_token": "fake\ntoken"}, "accessToken holds"),
        ({"access_token": "fäke-token"}, "accessToken holds"),
        ({"access_token": ""}, "accessToken holds"),
        ({"refresh_token": "fake\x00token"}, "refreshToken holds"),
        ({"refresh_token": "fake\r\ntoken"}, "refreshToken holds"),
        ({"refresh_token": "fäke-token"}, "refreshToken holds"),
        ({"client_id": "a\nb"}, "clientId holds"),
        ({"client_id": "a\u2028b"}, "clientId holds"),
        ({"expires_at": 1.0, "refresh_token": None}, "has expired, and there is no refresh token"),
        ({"access_token": "v1.0123456789abcdef.AAAA"}, "are encrypted, and not for alice"),
        ({"refresh_token": "gAAAAAfake"}, "are encrypted, and not for alice"),
    ],
)
async def test_what_cannot_be_a_login_is_refused_and_changes_nothing(
    gateways: Gateways, service: TokenService, changes: dict[str, Any], sentence: str
) -> None:
    login = replace(FAKE, **changes)
    with pytest.raises(InvalidInput, match=sentence) as caught:
        await service.import_login("alice", login, actor=ACTOR)
    assert not any(
        token and token in caught.value.message for token in (login.access_token, login.refresh_token)
    )
    assert await service._tokens.load("alice") is None
    assert gateways.database.query(f"SELECT 1 FROM {TOKENS}") == []


async def test_a_sealed_token_file_is_taken_by_its_user_and_key_only(
    gateways: Gateways, service: TokenService
) -> None:
    await gateways.log_in(service, "default")
    value = (await service.access_token("default")).value
    content = gateways.tokens().read_bytes()
    assert json.loads(content)["accessToken"].startswith("v1.")
    login = login_of(content)
    for user in ("alice", "bob"):
        with pytest.raises(InvalidInput, match=f"not for {user} with this gateway's keys"):
            await service.import_login(user, login, actor=ACTOR)
    await service.import_login("default", login, actor=ACTOR, again=True)
    assert (await service.access_token("default")).value == value
    assert (await row_of(service, "default")).access_token != login.access_token


async def test_fernet_values_are_opened_with_the_keys_of_the_gateway(service: TokenService) -> None:
    fernet = Fernet(base64.urlsafe_b64encode(bytes.fromhex(KEY)))
    login = replace(
        FAKE,
        access_token=fernet.encrypt(b"fake-access-token").decode(),
        refresh_token=fernet.encrypt(b"fake-refresh-token").decode(),
    )
    await service.import_login("alice", login, actor=ACTOR)
    exported = await service.export_login("alice", actor=ACTOR)
    assert (exported.access_token, exported.refresh_token) == ("fake-access-token", "fake-refresh-token")


async def test_a_token_that_begins_like_a_sealed_one_is_none(service: TokenService) -> None:
    login = replace(FAKE, access_token="v1.fake-access-token")
    await service.import_login("alice", login, actor=ACTOR)
    assert (await service.export_login("alice", actor=ACTOR)).access_token == "v1.fake-access-token"


@pytest.mark.parametrize("owner", [Documents, FileAudit])
async def test_an_import_that_cannot_be_written_leaves_the_file_as_it_was(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch, owner: type
) -> None:
    service = await gateways.open(use_database=False)
    await gateways.log_in(service, "default")
    before = gateways.tokens().read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(owner, "write", full)
        with pytest.raises(StorageUnavailable, match="No space left"):
            await service.import_login("default", FAKE, actor=ACTOR, again=True)
    assert gateways.tokens().read_bytes() == before
    assert (await service.status("default")).generation == 1


async def test_an_import_replaces_a_damaged_file_and_keeps_it_aside(gateways: Gateways) -> None:
    service = await gateways.open(use_database=False)
    await gateways.log_in(service, "default")
    gateways.tokens().write_bytes(gateways.tokens().read_bytes()[:100])
    await service.import_login("default", FAKE, actor=ACTOR, again=True)
    assert (await service.access_token("default")).value == FAKE.access_token
    (aside,) = gateways.tokens().parent.glob("*.damaged-*")
    assert aside.stat().st_size == 100
