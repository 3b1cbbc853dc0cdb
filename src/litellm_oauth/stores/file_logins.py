"""Pending logins in a file of the one gateway host; see ``stores.LoginStore``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID, uuid4

from ..disk import MAX_FILE_BYTES
from .file import FileTokens, use_up
from .rows import NewLogin, Note, PendingLogin

T = TypeVar("T")


class FileLogins:
    """``stores.LoginStore`` beside ``FileTokens``, which ends a login in the step that stores its tokens."""

    def __init__(self, tokens: FileTokens, clock: Callable[[], float]) -> None:
        self._tokens = tokens
        self._clock = clock

    async def add(self, login: NewLogin, note: Note, keep: int) -> float:
        now = self._clock()

        def add(logins: dict[str, Any]) -> float:
            mine = sorted(
                (one["createdAt"], key) for key, one in logins.items() if one["userId"] == login.user_id
            )
            for _, key in mine[: max(0, len(mine) - keep + 1)]:
                if (logins[key]["claimedUntil"] or 0.0) <= now:
                    del logins[key]
            logins[str(uuid4())] = {
                "userId": login.user_id,
                "stateHash": login.state_hash,
                "verifier": login.verifier,
                "issuer": login.issuer,
                "redirectUri": login.redirect_uri,
                "createdAt": now,
                "expiresAt": now + login.lifetime,
                "claimedBy": None,
                "claimedUntil": None,
                "usedAt": None,
            }
            _make_fit(logins)
            return now + login.lifetime

        expires_at = await self._change(add)
        await self._tokens.write_note(note)
        return expires_at

    async def of_user(self, user: str) -> Sequence[PendingLogin]:
        now = self._clock()
        logins = await self._tokens.read_logins()
        mine = [(key, one) for key, one in logins.items() if one["userId"] == user]
        return [
            PendingLogin(
                login_id=UUID(key),
                user_id=one["userId"],
                state_hash=one["stateHash"],
                verifier=one["verifier"],
                issuer=one["issuer"],
                redirect_uri=one["redirectUri"],
                expired=one["expiresAt"] <= now,
                used=one["usedAt"] is not None,
            )
            for key, one in sorted(mine, key=lambda item: item[1]["createdAt"], reverse=True)
        ]

    async def claim(self, login_id: UUID, claimed_by: UUID, lease: float) -> bool:
        now = self._clock()

        def claim(logins: dict[str, Any]) -> bool:
            one = logins.get(str(login_id))
            free = one is not None and one["usedAt"] is None and (one["claimedUntil"] or 0.0) <= now
            if one is None or not free or one["expiresAt"] <= now:
                return False
            one.update(claimedBy=str(claimed_by), claimedUntil=now + lease)
            return True

        return await self._change(claim)

    async def release(self, login_id: UUID, claimed_by: UUID) -> None:
        def release(logins: dict[str, Any]) -> None:
            one = logins.get(str(login_id))
            if one is not None and one["claimedBy"] == str(claimed_by):
                one.update(claimedBy=None, claimedUntil=None)

        await self._change(release)

    async def use_up(self, login_id: UUID, claimed_by: UUID, note: Note) -> None:
        def end(logins: dict[str, Any]) -> bool:
            one = logins.get(str(login_id))
            if one is None or one["claimedBy"] != str(claimed_by):
                return False
            use_up(one, self._clock())
            return True

        if await self._change(end):
            await self._tokens.write_note(note)

    async def purge(self, remember: float) -> int:
        def purge(logins: dict[str, Any]) -> int:
            old = [key for key, one in logins.items() if one["expiresAt"] < self._clock() - remember]
            for key in old:
                del logins[key]
            return len(old)

        return await self._change(purge)

    async def _change(self, step: Callable[[dict[str, Any]], T]) -> T:
        return await self._tokens.change_logins(step)


def _make_fit(logins: dict[str, Any]) -> None:
    """Drop the oldest logins until the file can be read again, with room for what is still added to them."""
    room = MAX_FILE_BYTES // 2
    kept = sorted(logins, key=lambda key: logins[key]["createdAt"])
    size = sum(len(json.dumps({key: logins[key]})) for key in kept)
    for key in kept[:-1]:
        if size <= room:
            return
        size -= len(json.dumps({key: logins.pop(key)}))
