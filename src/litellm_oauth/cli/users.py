"""``litellm claude users``: who has or had a login, page by page, so that memory does not grow with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from textwrap import indent
from typing import Protocol

from ..errors import StorageUnavailable
from ..gateway import views
from ..service import TokenService
from ..tokens import UserStatus
from . import text
from .arguments import Arguments
from .exit_codes import FINE, STORAGE_UNAVAILABLE

PAGE = 200


async def list_users(service: TokenService, arguments: Arguments) -> int:
    """Returns the exit code. Raises StorageUnavailable where it cannot even begin."""
    listing: _Listing = _Document() if arguments.json else _Table(arguments.after)
    last, left, full = arguments.after, arguments.limit, True
    while full and left != 0:
        size = PAGE if left is None else min(PAGE, left)
        try:
            page = await service.statuses(after=last, limit=size)
        except StorageUnavailable as error:
            if last == arguments.after:
                raise
            # What was shown is true, and says where to go on.
            listing.end(last)
            print(f"❌ {error.message}", file=sys.stderr)
            return STORAGE_UNAVAILABLE
        listing.add(page)
        full = len(page) == size
        last = page[-1].user_id if page else last
        left = None if left is None else left - len(page)
    listing.end(last if full else None)
    return FINE


class _Listing(Protocol):
    def add(self, page: Sequence[UserStatus]) -> None: ...

    def end(self, following: str | None) -> None:
        """``following``: the user after whom there may be more."""
        ...


class _Document:
    """What ``GET …/users`` answers."""

    def __init__(self) -> None:
        self._begun = False

    def add(self, page: Sequence[UserStatus]) -> None:
        for status in page:
            print(",\n" if self._begun else '{\n  "users": [\n', end="")
            print(indent(json.dumps(views.status(status), indent=2), "    "), end="")
            self._begun = True

    def end(self, following: str | None) -> None:
        users = "\n  ]" if self._begun else '{\n  "users": []'
        print(f'{users},\n  "next": {json.dumps(following)}\n}}', flush=True)


class _Table:
    """One line a user; as wide as the first page asks for."""

    def __init__(self, after: str | None) -> None:
        self._after = after
        self._width = 0

    def add(self, page: Sequence[UserStatus]) -> None:
        if page and not self._width:
            self._width = max(len(text.USER), *(len(status.user_id) for status in page))
            print(text.users_title(self._width))
        for status in page:
            print(text.users_line(status, self._width))
        sys.stdout.flush()

    def end(self, following: str | None) -> None:
        if not self._width:
            print(text.no_users(self._after))
        if following is not None:
            print(text.more_users(following))
        sys.stdout.flush()
