"""Clocks that are wrong, and tokens that end at once: the database's clock decides, and nobody storms."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from chaos.fleet import Fleet
from litellm_oauth.errors import LitellmOAuthError
from litellm_oauth.service import TokenService
from support.service import Gateways

# Seconds that a token lives: with a clock that is ten minutes off it would seem expired, or good for ever.
LIFE = 500
OFF = 600.0


@pytest.mark.parametrize("ahead", [OFF, -OFF], ids=["fast", "slow"])
async def test_a_process_with_a_wrong_clock_refreshes_when_the_database_says_so(
    gateways: Gateways, fleet: Fleet, figure: Callable[[str], None], ahead: float
) -> None:
    gateways.sandbox.settings(access_token_seconds=LIFE)
    person = await gateways.open(host="person")
    await gateways.log_in(person)
    order = {"clock_ahead": ahead}
    wrong = [await fleet.start("use", ["alice"], host=host, order=order) for host in ("one", "two")]
    await asyncio.sleep(1.0)
    calls_valid = gateways.refreshes()
    served = [len(worker.events) for worker in wrong]
    gateways.sandbox.expire("alice")
    await gateways.expire()
    for worker, since in zip(wrong, served, strict=True):
        await fleet.heard(worker, "served", since=since, that=lambda event: event["generation"] == 2)
    await asyncio.sleep(0.5)
    await fleet.stop(*wrong)
    counts = [next(worker.all("counted")) for worker in wrong]
    calls_expired = gateways.refreshes() - calls_valid
    figure(
        f"clock {ahead:+.0f} s: token calls while valid {calls_valid}, when expired {calls_expired}; "
        f"requests served {sum(count['served'] for count in counts)}, "
        f"failed {sum(count['failed'] for count in counts)}"
    )
    assert (calls_valid, calls_expired) == (0, 1)
    assert [count["failed"] + count["failed_while_valid"] for count in counts] == [0, 0]
    row = gateways.row()
    life = (row["expires_at"] - row["updated_at"]).total_seconds()
    assert life == pytest.approx(LIFE, abs=3), "told by the database's clock, however wrong the asker's is"


@pytest.mark.parametrize(
    ("habits", "calls"),
    [
        # Told to live for a second: one call for each second that they ask, and one for the first.
        ({"access_token_seconds": 1}, range(2, 6)),
        # Told to have ended before it was given: it is used for as long as tokens usually live.
        ({"expires_in": -3600}, range(1, 2)),
    ],
    ids=["expires_in 1", "expires_in -3600"],
)
async def test_tokens_that_end_at_once_are_refreshed_no_oftener_than_they_end(
    gateways: Gateways, figure: Callable[[str], None], habits: dict[str, float], calls: range
) -> None:
    services = [await gateways.open(host=host) for host in ("one", "two")]
    await gateways.log_in(services[0])
    gateways.sandbox.settings(**habits)
    # It ended yesterday.
    await gateways.expire(seconds_left=-86_400)
    loops = [asyncio.create_task(service.run_background()) for service in services]
    asked = await _ask(services, seconds=3.0)
    for loop in loops:
        loop.cancel()
    figure(
        f"provider's {habits}: requests {asked.total()} in 3 s, failed {asked['failed']}, "
        f"token calls {gateways.refreshes()}"
    )
    assert asked["failed"] == 0
    assert gateways.refreshes() in calls


async def _ask(services: list[TokenService], seconds: float) -> Counter[str]:
    """Ask for alice's token a hundred times at once on each service, again and again."""
    found: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds

    async def ask(service: TokenService) -> None:
        while loop.time() < until:
            try:
                await service.access_token("alice")
                found["served"] += 1
            except LitellmOAuthError:
                found["failed"] += 1
            await asyncio.sleep(0.05)

    await asyncio.gather(*(ask(service) for service in services for _ in range(100)))
    return found
