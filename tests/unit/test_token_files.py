"""Without a database: the files of the one gateway host decide, and a person may lay hands on them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from litellm_oauth.disk import MAX_FILE_BYTES
from litellm_oauth.errors import NotLoggedIn, SettingsError, StorageUnavailable
from litellm_oauth.service import TokenService
from litellm_oauth.stores import Attempt, NewLogin, Note, Sealed
from litellm_oauth.stores.documents import Documents
from litellm_oauth.stores.file import FileTokens
from litellm_oauth.stores.file_audit import FileAudit
from litellm_oauth.stores.file_logins import FileLogins
from litellm_oauth.tokens import Status
from support.service import ACTOR, KEY, Gateways, eventually


@pytest.fixture
def path(gateways: Gateways) -> Path:
    """The token file of ``default``."""
    return gateways.tokens()


async def opened(gateways: Gateways, **changes: Any) -> TokenService:
    return await gateways.open(use_database=False, **changes)


async def logged_in(gateways: Gateways, user: str = "default") -> TokenService:
    service = await opened(gateways)
    await gateways.log_in(service, user)
    return service


def edit(path: Path, **changes: Any) -> None:
    """What the documents' test does with ``json``: the file stays the same file."""
    document = json.loads(path.read_text())
    with path.open("w") as file:
        json.dump({**document, **changes}, file)


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """The folder on a disk of its own that is full; what it held is there again."""
    content = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "none", folder], check=True)
    try:
        for path, data in content.items():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_bytes(data)
            path.chmod(0o600)
        with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        yield
        (folder / "filler").unlink()
        kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
    for path, data in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(data)
        path.chmod(0o600)


async def test_a_login_is_kept_in_a_private_file_with_the_names_that_people_know(
    gateways: Gateways, path: Path
) -> None:
    service = await logged_in(gateways)
    token = await service.access_token("default")
    found = document(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert found["accessToken"].startswith("v1.")
    assert found["refreshToken"].startswith("v1.")
    assert found["expiresAt"] == pytest.approx(token.expires_at)
    assert token.value not in path.read_text()
    other = await opened(gateways)
    assert (await other.access_token("default")).value == token.value
    status = await other.status("default")
    assert (status.status, status.source) == (Status.ACTIVE, "file")


async def test_each_other_user_has_a_file_of_their_own(gateways: Gateways, path: Path) -> None:
    service = await logged_in(gateways)
    for user in ("alice", "Zoë / ../..", "default2"):
        await gateways.log_in(service, user, account="alice")
    files = list((path.parent / "users").iterdir())
    assert len(files) == 3
    assert all(len(file.stem) == 32 for file in files)
    users = [status.user_id for status in await service.statuses()]
    assert users == sorted(["default", "alice", "Zoë / ../..", "default2"])
    assert [s.user_id for s in await service.statuses(after=users[0], limit=2)] == users[1:3]


async def test_an_expiry_that_was_edited_causes_one_refresh(gateways: Gateways, path: Path) -> None:
    first, second = await logged_in(gateways), await opened(gateways)
    before = (await first.access_token("default")).value
    assert (await second.access_token("default")).value == before
    edit(path, expiresAt=int(time.time()) + 1)
    await asyncio.sleep(1.1)
    values = await asyncio.gather(*(s.access_token("default") for s in (first, second) for _ in range(50)))
    assert {token.generation for token in values} == {2}
    assert values[0].value != before
    assert gateways.refreshes() == 1
    assert gateways.accepts(values[0].value)


async def test_a_change_by_hand_is_noticed_within_a_second(gateways: Gateways, path: Path) -> None:
    service = await logged_in(gateways)
    await service.access_token("default")
    path.unlink()
    started = time.monotonic()
    while time.monotonic() - started < 5:
        try:
            await service.access_token("default")
        except NotLoggedIn:
            break
        await asyncio.sleep(0.02)
    assert time.monotonic() - started < 1.3
    status = await service.status("default")
    assert (status.status, status.generation) == (Status.LOGGED_OUT, 2)
    await gateways.log_in(service, "default")
    assert (await service.access_token("default")).generation == 3


async def test_an_emptied_folder_is_filled_again(gateways: Gateways, path: Path) -> None:
    service = await logged_in(gateways)
    await gateways.log_in(service, "alice")
    shutil.rmtree(path.parent / "users")
    path.unlink()
    for user in ("default", "alice"):
        await gateways.log_in(service, user)
        assert (await service.access_token(user)).generation == 3


async def test_a_backup_put_back_is_taken_and_the_generation_goes_on(gateways: Gateways, path: Path) -> None:
    service = await logged_in(gateways)
    backup = path.read_bytes()
    await service.refresh("default", force=True, actor=ACTOR)
    await service.refresh("default", force=True, actor=ACTOR)
    path.write_bytes(backup)
    await asyncio.sleep(1.1)
    token = await service.access_token("default")
    assert token.generation == 4
    assert token.expires_at == pytest.approx(document(path)["expiresAt"])


@pytest.mark.parametrize("factor", [1, 1000], ids=["seconds", "milliseconds"])
async def test_a_plain_file_from_elsewhere_is_read_and_encrypted_on_the_first_write(
    gateways: Gateways, path: Path, factor: int
) -> None:
    issued = await logged_in(gateways, "alice")
    vault = issued._vault
    row = await issued._tokens.load("alice")
    assert row is not None
    tokens = vault.open(row)
    foreign = {
        "accessToken": tokens.access_token,
        "refreshToken": tokens.refresh_token,
        "expiresAt": round(tokens.expires_at * factor),
        "note": "mine",
    }
    path.write_text(json.dumps(foreign))
    path.chmod(0o600)
    service = await opened(gateways)
    token = await service.access_token("default")
    assert (token.value, token.generation) == (tokens.access_token, 1)
    assert token.expires_at == pytest.approx(tokens.expires_at, abs=1)
    assert document(path)["accessToken"] == tokens.access_token
    assert (await service.refresh("default", force=True, actor=ACTOR)).generation == 2
    found = document(path)
    assert found["accessToken"].startswith("v1.")
    assert found["note"] == "mine"
    assert gateways.refreshes() == 1


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "not a whole JSON object"),
        (lambda path: path.write_text("[]"), "not a whole JSON object"),
        (lambda path: path.chmod(0o644), "mode 0644"),
        (lambda path: path.replace(path.with_name("kept")) and path.mkdir(), "no regular file"),
        (
            lambda path: path.replace(path.with_name("kept")).name and path.symlink_to("kept"),
            "levels of symbolic",
        ),
    ],
    ids=["half-written", "no object", "mode", "directory", "link"],
)
async def test_a_file_that_must_not_be_used_is_named_and_left_as_it_is(
    gateways: Gateways, path: Path, spoil: Any, sentence: str
) -> None:
    service = await logged_in(gateways)
    await gateways.log_in(service, "alice")
    spoil(path)
    content = path.read_bytes() if path.is_file() else None
    fresh = await opened(gateways)
    for operation in (
        fresh.access_token,
        fresh.status,
        partial(fresh.refresh, actor=ACTOR),
        partial(fresh.logout, actor=ACTOR),
    ):
        with pytest.raises(StorageUnavailable, match=sentence):
            await operation("default")
    assert (path.read_bytes() if path.is_file() else None) == content
    assert (await fresh.access_token("alice")).generation == 1
    assert gateways.refreshes() == 0


async def test_a_login_replaces_a_damaged_file_and_keeps_it_aside(gateways: Gateways, path: Path) -> None:
    await logged_in(gateways)
    path.write_bytes(path.read_bytes()[:100])
    fresh = await opened(gateways)
    await gateways.log_in(fresh, "default")
    assert (await fresh.access_token("default")).generation == 3
    (aside,) = path.parent.glob("*.damaged-*")
    assert aside.stat().st_size == 100


async def test_a_file_of_another_owner_is_refused(gateways: Gateways, path: Path) -> None:
    await logged_in(gateways)
    os.chown(path, 12345, 12345)
    fresh = await opened(gateways)
    with pytest.raises(StorageUnavailable, match="another user"):
        await fresh.access_token("default")


async def test_an_answer_that_finds_no_space_is_in_the_journal_and_saved_when_there_is_some(
    gateways: Gateways, path: Path
) -> None:
    service = await logged_in(gateways)
    before = (await service.access_token("default")).value
    gateways.sandbox.fault("token", "slow", seconds=0.6, after=True)
    refresh = asyncio.create_task(service.refresh("default", force=True, actor=ACTOR))
    await eventually(lambda: document(path).get("attemptId"))
    with full_disk(path.parent):
        with pytest.raises(StorageUnavailable, match="cannot be saved yet"):
            await refresh
        token = await service.access_token("default")
        assert (token.generation, document(path)["generation"]) == (2, 1)
        assert token.value != before
    await eventually(lambda: document(path)["generation"] == 2, seconds=10)
    assert (await (await opened(gateways)).access_token("default")).value == token.value
    assert gateways.refreshes() == 1


async def test_a_full_disk_of_the_journal_keeps_the_refresh_token_unspent(
    gateways: Gateways, path: Path
) -> None:
    service = await logged_in(gateways)
    await gateways.log_in(service, "alice")
    with full_disk(gateways.journal() / "attempts"):
        with pytest.raises(StorageUnavailable, match="no refresh token is spent"):
            await service.refresh("default", force=True, actor=ACTOR)
        assert (await service.access_token("default")).generation == 1
        assert gateways.refreshes() == 0
    assert (await service.refresh("default", force=True, actor=ACTOR)).generation == 2


async def test_a_logout_takes_the_file_away_and_nothing_brings_it_back(
    gateways: Gateways, path: Path
) -> None:
    service = await logged_in(gateways)
    outcome = await service.logout("default", actor=ACTOR)
    assert (outcome.was_logged_in, outcome.revoked, outcome.generation) == (True, True, 2)
    assert not path.exists()
    other = await opened(gateways)
    with pytest.raises(NotLoggedIn):
        await other.access_token("default")
    assert (await other.status("default")).generation == 2
    assert not (await other.logout("default", actor=ACTOR)).was_logged_in


async def test_everything_that_happened_is_in_the_audit_file(gateways: Gateways) -> None:
    service = await logged_in(gateways)
    await service.refresh("default", force=True, actor=ACTOR)
    await service.logout("default", actor=ACTOR)
    lines = [json.loads(line) for line in (gateways.journal() / "audit.jsonl").read_text().splitlines()]
    assert [(line["action"], line["outcome"], line["generation"]) for line in lines] == [
        ("start_login", "started", None),
        ("login", "logged_in", 1),
        ("refresh", "refreshed", 2),
        ("logout", "logged_out", 3),
    ]
    assert {line["actor"] for line in lines} == {ACTOR.name}


async def test_a_wrong_key_stops_the_start_and_makes_no_new_one(gateways: Gateways, path: Path) -> None:
    await logged_in(gateways)
    content = path.read_bytes()
    with pytest.raises(SettingsError, match=r"written with key .*key_checks\.json"):
        await opened(gateways, encryption_key=KEY[::-1])
    assert path.read_bytes() == content


async def test_a_value_moved_to_another_users_file_is_refused(gateways: Gateways, path: Path) -> None:
    service = await logged_in(gateways)
    await gateways.log_in(service, "alice")
    theirs = next((path.parent / "users").iterdir())
    edit(path, **{name: document(theirs)[name] for name in ("accessToken", "refreshToken")})
    fresh = await opened(gateways)
    assert (await fresh.status("default")).status is Status.UNREADABLE
    theirs.write_bytes(path.read_bytes())
    with pytest.raises(StorageUnavailable, match="belongs to another user"):
        await fresh.access_token("alice")


async def test_a_pass_refreshes_everybody_who_is_due_from_two_processes_once(gateways: Gateways) -> None:
    service = await logged_in(gateways)
    other = await opened(gateways)
    for user in ("alice", "bob", "carol"):
        await gateways.log_in(service, user)
    for file in (gateways.tokens().parent / "users").iterdir():
        edit(file, expiresAt=time.time() - 1)
    counts = await asyncio.gather(*(one.refresh_due(actor=ACTOR) for one in (service, other)))
    assert sum(count.refreshed for count in counts) == 3
    assert gateways.refreshes() == 3


@pytest.mark.parametrize("expires_in", [3600, -10])
async def test_tokens_of_the_environment_are_imported_once_for_default_only(
    gateways: Gateways, path: Path, expires_in: float
) -> None:
    issued = await logged_in(gateways, "alice")
    row = await issued._tokens.load("alice")
    assert row is not None
    tokens = issued._vault.open(row)
    gateways.environment = {
        "CLAUDE_ACCESS_TOKEN": tokens.access_token,
        "CLAUDE_REFRESH_TOKEN": tokens.refresh_token or "",
        "CLAUDE_EXPIRES_AT": str(round((time.time() + expires_in) * 1000)),
    }
    service = await opened(gateways)
    token = await service.access_token("default")
    assert token.generation == (1 if expires_in > 0 else 2)
    assert gateways.accepts(token.value)
    assert document(path)["accessToken"].startswith("v1.")
    with pytest.raises(NotLoggedIn):
        await service.access_token("bob")
    await service.logout("default", actor=ACTOR)
    again = await opened(gateways)
    with pytest.raises(NotLoggedIn):
        await again.access_token("default")


async def test_tokens_of_the_environment_need_all_three(gateways: Gateways) -> None:
    gateways.environment = {"CLAUDE_REFRESH_TOKEN": "fake-refresh-token"}
    with pytest.raises(SettingsError, match="CLAUDE_ACCESS_TOKEN: is missing"):
        await opened(gateways)
    gateways.environment = {"CLAUDE_ACCESS_TOKEN": "fake-access-token", "CLAUDE_EXPIRES_AT": "soon"}
    with pytest.raises(SettingsError, match="CLAUDE_EXPIRES_AT: is no number"):
        await opened(gateways)


NOTE = Note(ACTOR, "test", "default", "tested")
ELSEWHERE = {"attemptId": str(uuid.uuid4()), "attemptHost": "elsewhere"}


def audit(gateways: Gateways) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (gateways.journal() / "audit.jsonl").read_text().splitlines()]


def files_of(service: TokenService) -> FileTokens:
    files = service._tokens._authority  # type: ignore[attr-defined]
    assert isinstance(files, FileTokens)
    return files


@contextmanager
def failing(
    monkeypatch: pytest.MonkeyPatch, owner: type[Documents | FileAudit], when: Any = None
) -> Iterator[None]:
    """Writes of documents or of the audit fail as on a full disk, where ``when`` says so."""

    def full(*arguments: Any, **_: Any) -> None:
        if when is None or when(*arguments):
            raise OSError(28, "No space left on device")
        original(*arguments, **_)

    original = owner.write
    with monkeypatch.context() as patch:
        patch.setattr(owner, "write", full)
        yield


async def test_a_doubt_of_another_host_is_tried_once_when_the_token_has_expired(
    gateways: Gateways, path: Path
) -> None:
    await logged_in(gateways)
    edit(path, expiresAt=time.time() - 1, **ELSEWHERE)
    fresh = await opened(gateways)
    assert (await fresh.access_token("default")).generation == 2
    assert gateways.refreshes() == 1
    (line,) = [line for line in audit(gateways) if line["outcome"] == "in_doubt_retry"]
    assert (line["action"], line["detail"], line["generation"]) == ("refresh", "elsewhere", 1)


async def test_a_doubt_is_due_and_claimed_under_the_conditions_of_the_database(
    gateways: Gateways, path: Path
) -> None:
    files = files_of(await logged_in(gateways))

    async def may_be_spent(host: str, *, doubtful: bool) -> bool:
        row = await files.load("default")
        assert row is not None
        due = await files.due(7200, None, 10, host, doubtful=doubtful)
        attempt = Attempt(uuid.uuid4(), uuid.uuid4(), host)
        claim = await files.claim(row, attempt, 1, ACTOR, doubtful=doubtful)
        assert (claim is not None) == bool(due)
        assert claim is None or claim.doubted_host == "elsewhere"
        return claim is not None

    edit(path, expiresAt=time.time() + 3600, **ELSEWHERE)
    assert not await may_be_spent("here", doubtful=True)
    edit(path, expiresAt=time.time() - 1)
    assert not await may_be_spent("elsewhere", doubtful=True)
    assert not await may_be_spent("here", doubtful=False)
    assert await may_be_spent("here", doubtful=True)


async def test_one_unfit_document_stops_no_list_and_no_job(
    gateways: Gateways, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = await logged_in(gateways)
    for user in ("alice", "bob"):
        await gateways.log_in(service, user)
    files = files_of(service)
    assert len(await files.page(None, 10)) == 3
    files._documents.path("alice").chmod(0o644)
    for _ in range(2):
        assert [row.user_id for row in await files.page(None, 2)] == ["bob", "default"]
        assert await files.next_due_in(60) is not None
    assert caplog.text.count("alice is left out") == 1


async def test_a_login_that_could_not_be_written_can_be_completed_again(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(await opened(gateways))
    logins = FileLogins(files, time.time)
    await logins.add(NewLogin("default", "state", "sealed", "issuer", "uri", 60, "me"), NOTE, 5)
    (login,) = await logins.of_user("default")
    claimed_by = uuid.uuid4()
    assert await logins.claim(login.login_id, claimed_by, 60)
    sealed = Sealed("v1.a", "v1.r", time.time() + 3600, None, (), None)
    with failing(monkeypatch, Documents), pytest.raises(StorageUnavailable):
        await files.log_in(login, claimed_by, sealed, NOTE)
    with failing(monkeypatch, FileAudit), pytest.raises(StorageUnavailable):
        await files.log_in(login, claimed_by, sealed, NOTE)
    both = await asyncio.gather(*(files.log_in(login, claimed_by, sealed, NOTE) for _ in range(2)))
    (row,) = [row for row in both if row is not None]
    assert (row.generation, row.access_token) == (1, "v1.a")


@pytest.mark.parametrize(
    ("owner", "when"),
    [(Documents, lambda _, user, *__: user == "default"), (FileAudit, None)],
    ids=["the second document", "the note"],
)
async def test_a_rename_that_fails_half_way_changes_nothing(
    gateways: Gateways,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: type[Documents | FileAudit],
    when: Any,
) -> None:
    files = files_of(await logged_in(gateways))
    row = await files.load("default")
    assert row is not None
    before = path.read_bytes()
    with failing(monkeypatch, owner, when), pytest.raises(StorageUnavailable):
        await files.rename(row, replace(row, user_id="bob"), NOTE)
    assert path.read_bytes() == before
    assert await files.load("bob") is None
    assert await files.load("default") == row
    assert await files.rename(row, replace(row, user_id="bob"), NOTE) is not None


async def test_no_document_is_written_that_could_not_be_read_again(gateways: Gateways, path: Path) -> None:
    files = files_of(await logged_in(gateways))
    before = path.read_bytes()
    row = await files.load("default")
    assert row is not None
    large = replace(row, generation=9, account={"name": "x" * MAX_FILE_BYTES})
    with pytest.raises(StorageUnavailable, match="larger than"):
        await files.restore(large, NOTE, missing=True)
    assert path.read_bytes() == before


async def test_the_oldest_logins_make_room_for_new_ones(gateways: Gateways) -> None:
    logins = FileLogins(files_of(await opened(gateways)), time.time)
    for user in ("first", "second", "third"):
        await logins.add(NewLogin(user, "s", "x" * 300_000, "issuer", "uri", 60, "me"), NOTE, 5)
    assert not await logins.of_user("first")
    assert await logins.of_user("third")
