"""The list of users on the command line: page by page, whole, and of the shape that the HTTP route has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from litellm_oauth.cli import users
from litellm_oauth.cli.arguments import parse
from litellm_oauth.errors import StorageUnavailable
from litellm_oauth.gateway import views
from litellm_oauth.service import TokenService
from litellm_oauth.status import LoginAge, user_status
from litellm_oauth.stores import RowStatus
from litellm_oauth.tokens import UserStatus
from support.rows import NOW, ROW


@dataclass
class Listing:
    """Stands in for the service: ``pages`` are asked of it; from the ``fails_at``-th on the store is away."""

    names: Sequence[str]
    fails_at: int | None = None
    pages: list[tuple[str | None, int]] = field(default_factory=list)

    async def statuses(self, *, after: str | None = None, limit: int = 100) -> list[UserStatus]:
        self.pages.append((after, limit))
        if self.fails_at is not None and len(self.pages) >= self.fails_at:
            raise StorageUnavailable("The database is away.")
        return [status(name) for name in self.names if name > (after or "")][:limit]


def status(user: str, **changes: Any) -> UserStatus:
    return user_status(
        user,
        replace(ROW, user_id=user, **changes),
        now=NOW,
        refresh_buffer=300,
        age=LoginAge(3e6, 3e5),
        client_id="client",
        readable=True,
        source="database",
    )


async def listed(service: Listing, *argv: str) -> int:
    return await users.list_users(cast(TokenService, service), parse(["users", *argv], {}))


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "PAGE", 2)


@pytest.mark.parametrize(
    ("argv", "expected", "following", "pages"),
    [
        ([], "abcde", None, [(None, 2), ("b", 2), ("d", 2)]),
        (["--after", "c"], "de", None, [("c", 2), ("e", 2)]),
        (["--limit", "3"], "abc", "c", [(None, 2), ("b", 1)]),
        (["--limit", "2"], "ab", "b", [(None, 2)]),
        (["--limit", "9", "--after", "b"], "cde", None, [("b", 2), ("d", 2)]),
        (["--after", "x"], "", None, [("x", 2)]),
    ],
)
async def test_pages_follow_each_other_into_one_document(
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    expected: str,
    following: str | None,
    pages: list[tuple[str | None, int]],
) -> None:
    service = Listing("abcde")
    assert await listed(service, *argv, "--json") == 0
    body = {"users": [views.status(status(name)) for name in expected], "next": following}
    assert capsys.readouterr().out == json.dumps(body, indent=2) + "\n"
    assert service.pages == pages


async def test_a_list_that_breaks_off_is_whole_json_that_says_where_to_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await listed(Listing("abcde", fails_at=2), "--json") == 4
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert ([one["user_id"] for one in document["users"]], document["next"]) == (["a", "b"], "b")
    assert shown.err == "❌ The database is away.\n"


async def test_a_list_that_cannot_begin_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StorageUnavailable):
        await listed(Listing("a", fails_at=1), "--json")
    assert capsys.readouterr().out == ""


async def test_the_table_says_what_each_login_is_worth(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        status("alice", account={"account": {"email_address": "alice@example.com"}}, expires_at=NOW + 28_790),
        status(
            "bob", status=RowStatus.REAUTH_REQUIRED, last_error="invalid_grant: refused", expires_at=NOW + 90
        ),
        status("carol-with-a-name", expires_at=NOW + 59.9),
        status("dave", status=RowStatus.LOGGED_OUT, access_token=None, expires_at=None),
    ]

    async def statuses(**_: Any) -> list[UserStatus]:
        return rows

    service = Listing("")
    monkeypatch.setattr(users, "PAGE", 10)
    monkeypatch.setattr(service, "statuses", statuses)
    assert await listed(service) == 0
    assert capsys.readouterr().out == (
        "USER               STATUS           VALID FOR     ACCOUNT OR LAST ERROR\n"
        "alice              active           7 h 59 min    alice@example.com\n"
        "bob                reauth required  1 min         invalid_grant: refused\n"
        "carol-with-a-name  due              59 s          -\n"
        "dave               logged out       -             -\n"
    )


async def test_the_table_says_how_to_go_on_and_that_nobody_is_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await listed(Listing(["a b", "c"]), "--limit", "1") == 0
    assert capsys.readouterr().out.endswith("💡 There may be more: litellm claude users --after 'a b'\n")
    assert await listed(Listing("")) == 0
    assert capsys.readouterr().out == "Nobody is logged in yet.\n"
    assert await listed(Listing("abc"), "--after", "c") == 0
    assert capsys.readouterr().out == "Nobody comes after c.\n"
