"""How a refresh of all users ends for a shell, and what is told of it."""

from __future__ import annotations

import pytest

from litellm_oauth.cli import text
from litellm_oauth.cli.everybody import NAMED, _Tally, exit_code
from litellm_oauth.results import RefreshedAll, ResultCounts, UserResult


def failed(user: str, code: str) -> UserResult:
    return UserResult(user, "failed", code, "It failed.", 1, 1, None)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([], 0),
        (["reauth_required"], 1),
        (["reauth_required", "provider_unavailable"], 3),
        (["cooling_down"], 3),
        (["provider_refused"], 3),
        (["reauth_required", "provider_unavailable", "storage_unavailable"], 4),
        (["unreadable"], 4),
    ],
)
def test_the_exit_code_tells_the_worst(codes: list[str], expected: int) -> None:
    assert exit_code(RefreshedAll("finished", None, ResultCounts()), set(codes)) == expected


def test_a_pass_that_stopped_is_no_success() -> None:
    stopped = RefreshedAll("stopped", "The database went away.", ResultCounts(fresh=1))
    assert exit_code(stopped, set()) == 4
    assert exit_code(stopped, {"provider_unavailable"}) == 3
    told = text.refreshed_all(stopped, [])
    assert told.startswith("❌ 1 users")
    assert "Stopped before everybody was refreshed: The database went away." in told


async def test_of_many_failures_a_few_are_kept_and_named() -> None:
    tally = _Tally(None)
    for number in range(NAMED + 5):
        await tally.keep(failed(f"user-{number}", "reauth_required"))
    assert len(tally.failures) == NAMED
    done = RefreshedAll("finished", None, ResultCounts(failed=NAMED + 5))
    assert text.refreshed_all(done, tally.failures).endswith("and 5 more")


async def test_nothing_but_a_terminal_gets_a_line_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    await _Tally(None).keep(failed("alice", "x"))
    _Tally(None).end_line()
    assert capsys.readouterr().err == ""
    shown = _Tally(1)
    await shown.keep(failed("alice", "x"))
    shown.end_line()
    assert capsys.readouterr().err.endswith("\r⏳ 1 of 1 users: 0 refreshed, 0 still valid, 1 failed\n")
