"""What lies on the disk before and after the provider is asked, and what is made of it after a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from litellm_oauth.disk import Disk
from litellm_oauth.errors import SettingsError, StorageUnavailable
from litellm_oauth.hostlock import HostLocks
from litellm_oauth.journal import RECORD_BYTES, Condemned, Failed, Journal, Outcome, Received
from litellm_oauth.stores import Attempt, Claim, Failure, Note, Sealed
from support.rows import ROW
from support.service import ACTOR

NOTE = Note(ACTOR, "refresh", "alice", "refreshed", "why")
SEALED = Sealed("sealed-access", "sealed-refresh", 4e9, 5e9, ("a", "b"), {"account": {"uuid": "1"}}, 10.0)
OUTCOMES: list[Outcome] = [
    Received(SEALED, NOTE),
    Failed(Failure("timeout: because", 60.0, 5.0, counts=True), NOTE),
    Condemned("invalid_grant: because", NOTE),
]


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    disk = Disk()
    opened = Journal(tmp_path / "journal", disk)
    yield opened
    opened.close()
    disk.close()


def claim(user: str = "alice") -> Claim:
    return Claim(replace(ROW, user_id=user), Attempt(uuid.uuid4(), uuid.uuid4(), "here"))


def files(journal: Journal) -> list[Path]:
    return list((journal.folder / "attempts").iterdir())


async def test_before_the_provider_is_asked_there_is_a_record_with_room_for_the_answer(
    journal: Journal,
) -> None:
    mine = claim()
    await journal.begin(mine)
    (path,) = files(journal)
    assert path.stat().st_size >= RECORD_BYTES
    assert path.stat().st_blocks * 512 >= RECORD_BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    (entry,) = await journal.entries()
    assert (entry.user_id, entry.generation, entry.attempt) == ("alice", ROW.generation, mine.attempt)
    assert entry.outcome is None
    assert await journal.began("alice", mine.attempt.attempt_id)
    assert not await journal.began("alice", uuid.uuid4())


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
async def test_an_outcome_is_read_back_as_it_was_written(journal: Journal, outcome: Outcome) -> None:
    record = await journal.begin(claim())
    await record.keep(outcome)
    await record.close(remove=False)
    (entry,) = await journal.entries("alice")
    assert entry.outcome == outcome
    assert await journal.entries("bob") == []
    await journal.remove(entry)
    assert files(journal) == []


async def test_a_record_is_removed_when_the_store_has_what_it_holds(journal: Journal) -> None:
    record = await journal.begin(claim())
    await record.close(remove=True)
    assert files(journal) == []


@pytest.mark.parametrize("kept", [0, 1, 40, -2])
async def test_an_outcome_that_was_half_written_is_none(journal: Journal, kept: int) -> None:
    record = await journal.begin(claim())
    begun = record.path.read_bytes().rstrip(b"\0")
    await record.keep(OUTCOMES[0])
    whole = record.path.read_bytes().rstrip(b"\0")
    answer = whole[len(begun) :]
    record.path.write_bytes(begun + answer[:kept] + b"\0" * 1000)
    (entry,) = await journal.entries()
    assert entry.outcome is None


async def test_an_attempt_that_was_half_written_is_no_entry_but_began(journal: Journal) -> None:
    mine = claim()
    record = await journal.begin(mine)
    record.path.write_bytes(record.path.read_bytes()[:50])
    assert await journal.entries() == []
    assert await journal.began("alice", mine.attempt.attempt_id)


async def test_a_changed_record_is_not_believed(journal: Journal) -> None:
    record = await journal.begin(claim())
    record.path.write_bytes(record.path.read_bytes().replace(b"alice", b"mallo"))
    assert await journal.entries() == []


async def test_where_no_record_can_be_made_nothing_may_be_spent(journal: Journal) -> None:
    folder = journal.folder / "attempts"
    folder.rmdir()
    with pytest.raises(StorageUnavailable, match="no refresh token is spent"):
        await journal.begin(claim())


async def test_a_folder_keeps_its_name_and_a_new_one_has_another(tmp_path: Path) -> None:
    disk = Disk()
    names = [Journal(tmp_path / folder, disk).host for folder in ("one", "one", "two")]
    disk.close()
    assert names[0] == names[1] != names[2]
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700


async def test_a_folder_that_cannot_be_used_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    disk = Disk()
    with pytest.raises(SettingsError, match=r"claude_oauth\.journal_dir: .*/file cannot be used"):
        Journal(tmp_path / "file", disk)
    disk.close()


async def test_tokens_lie_in_the_journal_as_they_were_sealed_only(journal: Journal) -> None:
    record = await journal.begin(claim())
    await record.keep(OUTCOMES[0])
    lines = record.path.read_bytes().rstrip(b"\0").splitlines()
    document = json.loads(lines[1].partition(b" ")[2])
    assert document["sealed"]["refresh_token"] == "sealed-refresh"


def test_one_holder_a_name_in_this_process_and_in_others(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    mine, other = HostLocks(path), HostLocks(path)
    hold = mine.try_hold("alice")
    assert hold is not None
    assert mine.try_hold("alice") is None
    assert other.try_hold("alice") is None
    assert _held_elsewhere(path)
    with other.try_hold("bob") or pytest.fail("another name is free"):
        pass
    hold.release()
    hold.release()
    assert not _held_elsewhere(path)
    assert other.try_hold("alice") is not None
    mine.close()
    other.close()


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD + "print('held', flush=True); import time; time.sleep(60)", str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    locks = HostLocks(path)
    assert locks.try_hold("alice") is None
    process.kill()
    process.wait()
    assert locks.try_hold("alice") is not None
    locks.close()


_HOLD = """
import sys
from pathlib import Path
from litellm_oauth.hostlock import HostLocks
hold = HostLocks(Path(sys.argv[1])).try_hold("alice")
"""


def _held_elsewhere(path: Path) -> bool:
    """Whether another process finds the lock taken."""
    command = [sys.executable, "-c", _HOLD + "sys.exit(3 if hold is None else 0)", str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, check=False, env=environment).returncode == 3
