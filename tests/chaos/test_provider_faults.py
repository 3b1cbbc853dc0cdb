"""The provider answers wrongly, late or not at all while hundreds ask for a token: it is left in peace."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from litellm_oauth.errors import LitellmOAuthError
from litellm_oauth.service import TokenService
from litellm_oauth.tokens import Status
from support.postgres import TOKENS
from support.service import Gateways, eventually

REQUESTS = 200
# Seconds for which they ask.
WHILE_DUE, WHILE_EXPIRED = 1.0, 0.6
# Token calls in either phase, whatever happens in it.
CALLS = 2
# After these the refresh token may be spent: it is not tried again before the access token is used up.
IN_DOUBT = {"server_error", "timeout", "garbage", "answer_lost"}
# name -> the fault, the stable word and the sentence that people read, and what a try brings when it is over
FAULTS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "429 with Retry-After": (
        {"kind": "status", "status": 429, "retry_after": 60},
        "rate_limited",
        "left in peace",
        "refreshed",
    ),
    "429": ({"kind": "status", "status": 429}, "rate_limited", "left in peace", "refreshed"),
    "500": ({"kind": "status", "status": 500}, "server_error", "HTTP 500", "refreshed"),
    "404": ({"kind": "status", "status": 404}, "wrong_host", "wrong host or path", "refreshed"),
    "garbage": ({"kind": "garbage"}, "garbage", "not a JSON object", "refreshed"),
    "60 s of silence": (
        {"kind": "silence", "seconds": 60},
        "timeout",
        "did not answer within 2 s",
        "refreshed",
    ),
    # From here on the refresh token is spent, and what came for it is gone.
    "garbage after a rotation": (
        {"kind": "garbage", "after": True},
        "garbage",
        "not a JSON object",
        "reauth_required",
    ),
    "half an answer": ({"kind": "cut"}, "answer_lost", "broke off", "reauth_required"),
    "a lost answer": ({"kind": "lost_answer"}, "answer_lost", "broke off", "reauth_required"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_provider_at_fault_is_asked_a_few_times_however_many_ask_and_the_old_token_serves(
    gateways: Gateways, figure: Callable[[str], None], name: str
) -> None:
    fault, reason, sentence, end = FAULTS[name]
    services = [await gateways.open(host=host) for host in ("one", "two")]
    await gateways.log_in(services[0])
    gateways.sandbox.fault("token", times=None, grant_type="refresh_token", **fault)

    await _later(gateways, 8 * 3600 - 100)
    due = await _ask(services, WHILE_DUE)
    await eventually(lambda: gateways.row()["last_error"])
    status = await services[1].status("alice")
    calls_due = gateways.refreshes()

    await _later(gateways, 100)
    expired = await _ask(services, WHILE_EXPIRED)
    calls_expired = gateways.refreshes() - calls_due
    row = gateways.row()

    gateways.sandbox.clear_faults()
    await _later(gateways, 3600)
    ended = await _ask(services, 0)

    figure(
        f"provider, {name}: while due {due.total()} requests served, token calls {calls_due}; "
        f"expired {expired.total()} asked to come back, token calls {calls_expired}; then {end}"
    )
    assert set(due) == {1}, "the old token serves"
    assert 1 <= calls_due <= CALLS
    assert (status.status, status.generation) == (Status.COOLING_DOWN, 1)
    assert status.last_error is not None
    assert status.last_error.startswith(f"{reason}: ")
    assert sentence in status.last_error
    assert status.next_attempt_at is not None
    assert status.expires_at is not None
    assert (status.next_attempt_at >= status.expires_at) == (reason in IN_DOUBT)
    assert set(expired) <= {"cooling_down", "provider_unavailable"}
    assert 1 <= calls_expired <= CALLS
    assert (row["status"], row["generation"]) == ("active", 1)
    assert set(ended) == {2 if end == "refreshed" else end}


async def _ask(services: Sequence[TokenService], seconds: float) -> Counter[int | str]:
    """Ask for alice's token many times at once, again and again: the generations served and the refusals."""
    found: Counter[int | str] = Counter()
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds

    async def ask(service: TokenService) -> None:
        while True:
            try:
                found[(await service.access_token("alice")).generation] += 1
            except LitellmOAuthError as error:
                told = getattr(error, "retry_after", 1)
                found[error.code if told else f"{error.code}, and not for how long"] += 1
            if loop.time() >= until:
                return
            await asyncio.sleep(0.05)

    await asyncio.gather(*(ask(service) for service in services for _ in range(REQUESTS // len(services))))
    return found


async def _later(gateways: Gateways, seconds: float) -> None:
    """As if so many seconds had passed; all have heard of it."""
    passed = f"- interval '{seconds} seconds'"
    gateways.database.query(
        f"UPDATE {TOKENS} SET expires_at = expires_at {passed}, next_attempt_at = next_attempt_at {passed}, "
        f"updated_at = updated_at {passed}"
    )
    gateways.database.query(f"UPDATE claude_oauth.provider_rests SET rests_until = rests_until {passed}")
    for host in ("one", "two"):
        # The files know nothing of the time that has passed; the database tells them again.
        for document in (gateways.tokens(host).parent / "users").iterdir():
            document.unlink()
    await asyncio.sleep(0.2)
