"""Faults for a number of requests: what a provider, or the way to it, can do to a client."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from .responses import pieces_of

ENDPOINTS = ("token", "revoke", "authorize", "messages")
KINDS = ("status", "slow", "garbage", "cut", "lost_answer", "silence")
# These two are about the answer, so the request has taken effect by then.
ALWAYS_AFTER = ("cut", "lost_answer")

Drop = Callable[[Scope], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``times`` is how many requests it still strikes, None for all.

    ``after`` says whether the request takes effect before the fault strikes. ``seconds`` belongs to ``slow``
    and ``silence``; ``status`` and ``retry_after`` (seconds) to ``status``. ``grant_type`` and ``account``
    narrow it down.
    """

    endpoint: str
    kind: str
    after: bool
    times: int | None
    status: int = 500
    retry_after: int | None = None
    seconds: float = 0
    grant_type: str | None = None
    account: str | None = None

    def described(self) -> dict[str, object]:
        return asdict(self)


class FaultBook:
    """The faults that are armed, in the order in which they were; the first that fits strikes."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._armed: list[Fault] = []
        self.struck: Counter[str] = Counter()

    @property
    def armed(self) -> list[Fault]:
        return list(self._armed)

    def arm(self, fault: Fault) -> None:
        self._armed.append(fault)

    def disarm(self) -> None:
        self._armed.clear()

    def take(
        self, endpoint: str, account: Callable[[], str | None], grant_type: str | None = None
    ) -> Fault | None:
        """The fault for this request, counted; ``account`` is asked only if a fault is about one account."""
        for index, fault in enumerate(self._armed):
            if (
                fault.endpoint == endpoint
                and fault.grant_type in (None, grant_type)
                and (fault.account is None or fault.account == account())
            ):
                if fault.times == 1:
                    del self._armed[index]
                elif fault.times is not None:
                    self._armed[index] = replace(fault, times=fault.times - 1)
                self.struck[f"{endpoint}:{fault.kind}"] += 1
                return fault
        return None


async def answer(fault: Fault | None, effect: Callable[[], Awaitable[Response]], drop: Drop) -> Response:
    """Let the request take effect, or not, and answer as the fault wants it."""
    if fault is None:
        return await effect()
    if fault.kind == "slow":
        if fault.after:
            response = await effect()
            await asyncio.sleep(fault.seconds)
            return response
        await asyncio.sleep(fault.seconds)
        return await effect()
    response = await effect() if fault.after else Response()
    if fault.kind == "status":
        return _refusal(fault)
    if fault.kind == "garbage":
        return Response(
            "<html><body>Bad gateway, says a proxy with status 200</body></html>", media_type="text/html"
        )
    if fault.kind == "cut":
        return Broken(drop, response)
    if fault.kind == "silence":
        await asyncio.sleep(fault.seconds)
    return Broken(drop, None)


def _refusal(fault: Fault) -> Response:
    headers = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
    if fault.endpoint in {"token", "revoke"}:
        body: dict[str, object] = {
            "error": "server_error" if fault.status >= 500 else "temporarily_unavailable"
        }
    else:
        kind = {429: "rate_limit_error", 404: "not_found_error", 529: "overloaded_error"}.get(
            fault.status, "api_error"
        )
        body = {
            "type": "error",
            "error": {"type": kind, "message": "A fault was switched on for this request."},
        }
    return JSONResponse(body, fault.status, headers)


class Broken(Response):
    """Half of an answer, or nothing of it, and then the connection ends."""

    def __init__(self, drop: Drop, half_of: Response | None) -> None:
        super().__init__()
        self._drop = drop
        self._half_of = half_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._half_of is not None:
            whole = b"".join(pieces_of(self._half_of))
            await send(
                {
                    "type": "http.response.start",
                    "status": self._half_of.status_code,
                    "headers": self._half_of.raw_headers,
                }
            )
            await send({"type": "http.response.body", "body": whole[: len(whole) // 2], "more_body": True})
        self._drop(scope)
        # The server has to notice the end before this returns, or it would answer 500 in our place.
        while (await receive())["type"] != "http.disconnect":
            pass
