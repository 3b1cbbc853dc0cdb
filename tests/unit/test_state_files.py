"""What the processes of one host write down together: the audit, the key checks, how the provider stands."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from typing import Any

import pytest

from litellm_oauth.errors import StorageUnavailable
from litellm_oauth.service import TokenService
from litellm_oauth.stores import Attempt, Failure, Note, Sealed
from litellm_oauth.stores.file import FileTokens
from support.service import ACTOR, KEY, Gateways

NOTE = Note(ACTOR, "test", "default", "tested")


async def logged_in(gateways: Gateways) -> FileTokens:
    service = await gateways.open(use_database=False)
    await gateways.log_in(service, "default")
    return files_of(service)


def files_of(service: TokenService) -> FileTokens:
    files = service._tokens._authority  # type: ignore[attr-defined]
    assert isinstance(files, FileTokens)
    return files


@pytest.mark.parametrize(("rest", "left"), [(60.0, 60.0), (None, 0.0)])
async def test_a_success_in_flight_does_not_end_a_rest(
    gateways: Gateways, rest: float | None, left: float
) -> None:
    files = await logged_in(gateways)
    row = await files.load("default")
    assert row is not None
    claim = await files.claim(row, Attempt(uuid.uuid4(), uuid.uuid4(), "host"), 1, ACTOR)
    assert claim is not None
    await files._run(files._provider.rest, Failure("rate_limited", 0, rest, counts=True))
    saved = await files.save(claim, Sealed("v1.a", "v1.r", time.time() + 3600, None, (), None), NOTE)
    assert saved is not None
    assert saved.provider.rests_for == pytest.approx(left, abs=2)
    assert saved.provider.failures == (1 if rest else 0)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}'])
async def test_damaged_key_checks_let_no_key_in(gateways: Gateways, content: str) -> None:
    await logged_in(gateways)
    (gateways.journal() / "key_checks.json").write_text(content)
    with pytest.raises(StorageUnavailable, match=r"key_checks\.json is damaged.*backup"):
        await gateways.open(use_database=False, encryption_key=KEY[::-1])


@pytest.mark.parametrize("value", [None, "soon", [], 1e300])
async def test_a_providers_state_of_wrong_types_is_nothing_known(gateways: Gateways, value: Any) -> None:
    files = await logged_in(gateways)
    await files._run(files._provider.rest, Failure("rate_limited", 0, 60, counts=True))
    path = gateways.journal() / "provider.json"
    odd = {"restsUntil": value, "failures": value, "reason": 7}
    path.write_text(json.dumps({**json.loads(path.read_text()), **odd}))
    row = await files.load("default")
    assert row is not None
    assert row.provider.rests_for == 0
    await files._run(files._provider.rest, Failure("rate_limited", 0, 60, counts=True))


async def test_damaged_audit_lines_are_left_out_with_one_warning(
    gateways: Gateways, caplog: pytest.LogCaptureFixture
) -> None:
    files = await logged_in(gateways)
    file = gateways.journal() / "audit.jsonl"
    (good, *_) = file.read_bytes().splitlines()
    odd = [json.dumps({**json.loads(good), "at": at}).encode() for at in (1e300, float("nan"), None)]
    file.write_bytes(b"\n".join([b"null", b"{", b'"\xff"', *odd, good, b""]))
    assert len(await files.take_notes()) == 1
    assert caplog.text.count("cannot be read; they are left out") == 1
    await files.forget_taken()
    assert not await files.take_notes()


async def test_two_processes_do_not_forget_each_others_audit_lines(gateways: Gateways) -> None:
    first, second = await logged_in(gateways), files_of(await gateways.open(use_database=False))
    assert await first.take_notes()
    assert await second.take_notes()
    await first.forget_taken()
    await first.write_note(NOTE)
    assert len(await first.take_notes()) == 1
    await second.forget_taken()
    assert len(await first.take_notes()) == 1


async def test_the_audit_is_written_to_no_link_and_waits_for_no_pipe(gateways: Gateways) -> None:
    files = files_of(await gateways.open(use_database=False))
    file, other = gateways.journal() / "audit.jsonl", gateways.folder / "other"
    other.touch(mode=0o600)
    file.symlink_to(other)
    with pytest.raises(StorageUnavailable):
        await files.write_note(NOTE)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(StorageUnavailable):
        await asyncio.wait_for(files.write_note(NOTE), 5)
    assert not other.read_bytes()
