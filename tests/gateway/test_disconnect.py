"""What is done for a client that has left is ended, and nothing else is."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from starlette.types import Message

from litellm_oauth.gateway.disconnect import ClientLeft, Departure


class Client:
    """A client's side of a connection."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()

    def leave(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})

    def send_more(self) -> None:
        self._messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    async def receive(self) -> Message:
        return await self._messages.get()


@pytest.fixture
def client() -> Client:
    return Client()


def cancellations() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def forever() -> None:
    await asyncio.sleep(60)


async def serve(
    client: Client, work: Callable[[], Awaitable[None]] = forever, *, leaves: bool = True
) -> None:
    """Work for a client that leaves when the work has begun."""
    async with Departure(client.receive) as departure:
        departure.start()
        if leaves:
            client.leave()
        await work()


async def test_a_client_that_stays_is_answered(client: Client) -> None:
    async with Departure(client.receive) as departure:
        departure.start()
        await turns()
        answered = True
    assert answered
    client.leave()
    await turns()
    assert cancellations() == 0


async def test_what_is_done_for_a_client_that_leaves_ends_at_once(client: Client) -> None:
    ended: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    with pytest.raises(ClientLeft):
        await serve(client, work)
    assert ended
    assert cancellations() == 0
    # The task goes on as any other.
    async with asyncio.timeout(1), asyncio.TaskGroup() as group:
        group.create_task(turns())


async def test_a_client_that_left_before_the_watch_began_is_noticed(client: Client) -> None:
    client.leave()
    with pytest.raises(ClientLeft):
        await serve(client, leaves=False)


async def test_nobody_is_watched_before_the_watch_begins(client: Client) -> None:
    client.leave()
    async with Departure(client.receive):
        await turns()
    assert await client.receive() == {"type": "http.disconnect"}


async def test_what_a_server_says_besides_is_passed_over(client: Client) -> None:
    async with Departure(client.receive) as departure:
        departure.start()
        client.send_more()
        client.send_more()
        await turns()
    assert cancellations() == 0


async def test_an_answer_that_has_begun_is_not_cancelled(client: Client) -> None:
    """Who sends it learns of the departure, and ends."""
    async with Departure(client.receive, lambda: True) as departure:
        departure.start()
        client.leave()
        assert await asyncio.wait_for(departure.message(), 1) == {"type": "http.disconnect"}
    assert cancellations() == 0


async def test_who_waits_for_more_of_a_request_waits_until_the_client_leaves(client: Client) -> None:
    async with Departure(client.receive, lambda: True) as departure:
        departure.start()
        waiting = asyncio.create_task(departure.message())
        client.send_more()
        await turns()
        assert not waiting.done()
        client.leave()
        assert (await waiting)["type"] == "http.disconnect"


async def test_what_takes_no_notice_of_a_cancellation_leaves_none_behind(client: Client) -> None:
    async def work() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    await serve(client, work)
    assert cancellations() == 0


async def test_what_answers_a_cancellation_with_an_error_leaves_none_behind(client: Client) -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("mine") from None

    with pytest.raises(ValueError, match="mine"):
        await serve(client, work)
    assert cancellations() == 0


async def test_a_cancellation_from_elsewhere_stays_one(client: Client) -> None:
    task = asyncio.create_task(serve(client, leaves=False))
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_elsewhere_is_not_taken_for_the_client_s(client: Client) -> None:
    """As when a worker stops in the moment in which a client leaves."""
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
            await turns()

    for client_is_first in (True, False):
        task = asyncio.create_task(serve(client, work, leaves=client_is_first))
        if client_is_first:
            await cancelled.wait()
        else:
            await turns()
        task.cancel()
        client.leave()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_timeout_around_it_stays_one(client: Client) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await serve(client, leaves=False)
    assert cancellations() == 0


async def test_a_timeout_within_does_not_take_a_departure_for_its_own(client: Client) -> None:
    async def work() -> None:
        async with asyncio.timeout(60):
            await asyncio.sleep(60)

    with pytest.raises(ClientLeft):
        await serve(client, work)


async def test_a_departure_within_a_cancelled_task_leaves_that_cancellation_alone(client: Client) -> None:
    async def clean_up() -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            with pytest.raises(ClientLeft):
                await serve(client)
        return cancellations()

    task = asyncio.create_task(clean_up())
    await turns()
    task.cancel()
    assert await task == 1


@pytest.mark.parametrize("leaves", [True, False])
async def test_no_task_is_left_behind(client: Client, leaves: bool) -> None:
    before = others()
    for _ in range(10):
        with suppress(ClientLeft):
            await serve(client, forever if leaves else turns, leaves=leaves)
    await turns()
    assert others() == before


async def test_a_server_s_fault_while_it_is_watched_is_no_departure() -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    async def receive() -> Message:
        raise OSError("the server's own")

    async def served() -> None:
        async with Departure(receive) as departure:
            departure.start()
            await turns()

    await served()
    gc.collect()
    await turns()
    assert cancellations() == 0
    assert told == []
