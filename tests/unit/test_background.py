"""The background loop: what it does in a pass, and that nothing in it holds up the rest."""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from litellm_oauth.stores.postgres import PostgresTokens
from support.postgres import LOGINS
from support.service import ACTOR, Gateways, eventually


async def test_the_background_loop_refreshes_who_is_due_and_purges_logins(
    gateways: Gateways,
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await service.start_login("bob", actor=ACTOR)
    gateways.database.query(
        "UPDATE claude_oauth.\"LiteLLM_ClaudeOAuthLogins\" SET expires_at = now() - interval '1 day'"
    )
    await gateways.expire(seconds_left=100)
    await service.access_token("alice")
    loop = asyncio.create_task(service.run_background())
    await eventually(lambda: gateways.row()["generation"] == 2)
    await eventually(lambda: gateways.database.query(f"SELECT 1 FROM {LOGINS}") == [])
    await eventually(lambda: gateways.row()["last_used"] is not None)
    loop.cancel()


@pytest.mark.parametrize("step", ["replay", "notes"])
async def test_a_step_of_a_background_pass_that_fails_keeps_no_due_token_waiting(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)

    async def fail() -> None:
        raise ValueError(step)

    owner, name = {"replay": (service._refresher, "replay"), "notes": (service._tokens, "forward_notes")}[
        step
    ]
    monkeypatch.setattr(owner, name, fail)
    await gateways.expire(seconds_left=1)
    loop = asyncio.create_task(service.run_background())
    await eventually(lambda: gateways.row()["generation"] == 2)
    loop.cancel()


async def test_what_one_user_has_wrong_keeps_the_journal_of_nobody_else_waiting(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await gateways.open()
    for user in ("alice", "bob"):
        await gateways.log_in(service, user)
        attempt = "attempt_id = gen_random_uuid(), attempt_host = %(host)s"
        await gateways.change(attempt, user=user, values={"host": service._refresher._attempts.host})
    load = PostgresTokens.load

    async def fail_for_alice(store: PostgresTokens, user: str) -> Any:
        if user == "alice":
            raise ValueError
        return await load(store, user)

    monkeypatch.setattr(PostgresTokens, "load", fail_for_alice)
    await service._refresher.replay()
    assert gateways.row("bob")["attempt_id"] is None
    assert gateways.row("alice")["attempt_id"] is not None
