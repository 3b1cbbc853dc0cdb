"""Large bodies share a worker's memory: who waits, who is let in, and that none of it is lost."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_oauth.gateway.body_memory import BodyMemory, HeldMemory
from litellm_oauth.gateway.errors import TooManyBodies

MB = 1 << 20
ALICE, BOB = "alice", "bob"


async def test_a_body_larger_than_all_memory_takes_all_of_it() -> None:
    memory = BodyMemory(MB)
    assert await memory.take(ALICE, 50 * MB) == MB


async def test_who_comes_first_is_served_first() -> None:
    """A small one does not overtake a large one, which would else wait for ever."""
    memory = BodyMemory(4 * MB)
    await memory.take(ALICE, 3 * MB)
    order: list[str] = []

    async def take(name: str, amount: int) -> None:
        await memory.take(ALICE, amount)
        order.append(name)

    large, small = asyncio.create_task(take("large", 4 * MB)), asyncio.create_task(take("small", MB))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == []
    memory.give_back(ALICE, 3 * MB)
    await large
    assert order == ["large"]
    memory.give_back(ALICE, 4 * MB)
    await small


@pytest.mark.parametrize("how", ["cancelled", "impatient"])
async def test_one_that_gives_up_lets_the_next_one_in(how: str) -> None:
    memory = BodyMemory(4 * MB, patience=30 if how == "cancelled" else 0.01)
    await memory.take(ALICE, 3 * MB)
    large = asyncio.create_task(memory.take(ALICE, 4 * MB))
    await asyncio.sleep(0)
    memory._patience = 30
    small = asyncio.create_task(memory.take(ALICE, MB))
    await asyncio.sleep(0)
    if how == "cancelled":
        large.cancel()
    with pytest.raises(asyncio.CancelledError if how == "cancelled" else TooManyBodies):
        await large
    assert await asyncio.wait_for(small, 1) == MB


async def test_memory_that_is_granted_in_the_moment_of_a_cancellation_is_not_lost() -> None:
    memory = BodyMemory(MB)
    await memory.take(ALICE, MB)
    waiting = asyncio.create_task(memory.take(ALICE, MB))
    await asyncio.sleep(0)
    memory.give_back(ALICE, MB)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.wait_for(memory.take(ALICE, MB), 1) == MB


async def test_memory_that_is_granted_in_the_moment_of_a_timeout_is_not_lost() -> None:
    memory = BodyMemory(MB, patience=0.02)
    await memory.take(ALICE, MB)
    # Both timers are due in one turn of the loop, and this one comes first.
    asyncio.get_running_loop().call_later(0.01, memory.give_back, ALICE, MB)
    waiting = asyncio.create_task(memory.take(ALICE, MB))
    await asyncio.sleep(0)
    time.sleep(0.05)  # noqa: ASYNC251 -- so that both are late
    memory.give_back(ALICE, await waiting)
    assert await asyncio.wait_for(memory.take(ALICE, MB), 1) == MB


async def test_what_a_request_holds_is_given_back_once() -> None:
    memory = BodyMemory(MB, patience=0.01)
    request = HeldMemory(memory, ALICE)
    await request.hold(MB)
    await request.hold(MB)
    request.release()
    request.release()
    assert await memory.take(ALICE, MB) == MB
    with pytest.raises(TooManyBodies):
        await memory.take(ALICE, MB)


async def test_one_owner_leaves_room_for_another() -> None:
    memory = BodyMemory(3 * MB, share=2 * MB, patience=0.01)
    assert await memory.take(ALICE, MB) == MB
    assert await memory.take(ALICE, MB) == MB
    with pytest.raises(TooManyBodies):
        await memory.take(ALICE, MB)
    assert await memory.take(BOB, MB) == MB


async def test_who_waits_for_a_share_keeps_nobody_else_waiting() -> None:
    memory = BodyMemory(3 * MB, share=2 * MB)
    await memory.take(ALICE, 2 * MB)
    greedy = asyncio.create_task(memory.take(ALICE, MB))
    await asyncio.sleep(0)
    assert await asyncio.wait_for(memory.take(BOB, MB), 1) == MB
    memory.give_back(ALICE, 2 * MB)
    assert await asyncio.wait_for(greedy, 1) == MB


async def test_no_body_takes_more_than_a_share() -> None:
    memory = BodyMemory(3 * MB, share=MB, patience=0.01)
    assert await memory.take(ALICE, 3 * MB) == MB
    with pytest.raises(TooManyBodies):
        await memory.take(ALICE, MB)
    assert await memory.take(BOB, 3 * MB) == MB


async def test_who_has_gone_leaves_nothing_behind() -> None:
    memory = BodyMemory(3 * MB)
    memory.give_back(ALICE, await memory.take(ALICE, MB))
    assert not memory._held


@given(st.integers())
async def test_no_history_loses_memory_or_lends_more_than_there_is(seed: int) -> None:
    """Requests that come, are cancelled at any moment, lose patience, and go."""
    chance = random.Random(seed)  # noqa: S311 -- a test's histories
    size = 4 * MB
    memory = BodyMemory(size, share=size // 2, patience=0.004)
    lent = most = 0

    async def request() -> None:
        nonlocal lent, most
        holding = HeldMemory(memory, chance.choice((ALICE, BOB, "carol")))
        amount = chance.randrange(300 * 1024, 3 * MB)
        try:
            await holding.hold(amount)
            lent += min(amount, size // 2)
            most = max(most, lent)
            try:
                await asyncio.sleep(chance.choice((0, 0, 0.001, 0.003)))
            finally:
                lent -= min(amount, size // 2)
        finally:
            holding.release()

    tasks: list[asyncio.Task[None]] = []
    for _ in range(chance.randrange(2, 20)):
        tasks.append(asyncio.create_task(request()))
        if chance.random() < 0.4:
            chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(chance.choice((0, 0.001)))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(
        result is None or isinstance(result, TooManyBodies | asyncio.CancelledError) for result in results
    )
    assert most <= size
    for owner in (ALICE, BOB):
        assert await asyncio.wait_for(memory.take(owner, size), 1) == size // 2
    assert not memory._waiting
