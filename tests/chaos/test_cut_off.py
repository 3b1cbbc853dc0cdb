"""One gateway host loses its line to the database while another one keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from chaos.books import kept_states
from chaos.fleet import Fleet
from chaos.verdict import Verdict
from chaos.wire import wire
from support.service import QUICK, Gateways

pytestmark = pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
# Seconds; the token is refreshed when it has expired, since nobody refreshes one of a few seconds before.
LIFE = 2
LIMITS = replace(QUICK, step=3.0)


async def test_the_host_that_is_cut_off_serves_while_it_can_then_asks_for_patience_and_agrees_afterwards(
    gateways: Gateways, fleet: Fleet, figure: Callable[[str], None], silent: bool
) -> None:
    gateways.sandbox.settings(access_token_seconds=LIFE)
    person = await gateways.open(host="person")
    await gateways.log_in(person)
    with kept_states(gateways.database):
        async with wire(gateways.database.settings.url) as (line, url):
            cut_off = await fleet.start("use", ["alice"], host="one", limits=LIMITS, database_url=url)
            other = await fleet.start("use", ["alice"], host="two")
            served = await fleet.heard(cut_off, "served", that=lambda event: event["generation"] > 1)
            line.cut(silent=silent)
            unserved = await fleet.heard(cut_off, "unserved")
            await fleet.heard(
                other, "served", that=lambda event: event["generation"] > served["generation"] + 1
            )
            line.mend()
            newest = max(event["generation"] for event in other.all("served"))
            agreed = await fleet.heard(cut_off, "served", that=lambda event: event["generation"] >= newest)
            await fleet.stop(cut_off, other)
        verdict = Verdict(gateways, fleet)
    counts = [next(worker.all("counted")) for worker in (cut_off, other)]
    served_for = unserved["at"] - served["at"]
    figure(
        f"cut off ({'silent' if silent else 'refused'}): failed while the token was valid "
        f"{sum(count['failed_while_valid'] for count in counts)} "
        f"of {sum(count['served'] for count in counts)}; "
        f"then {unserved['code']} after {served_for:.1f} s of a token of {LIFE} s; "
        f"tokens spent twice {sum(verdict.presented_again().values())}"
    )
    assert (unserved["code"], unserved["valid"]) == ("storage_unavailable", False)
    assert unserved["retry_after"] > 0
    # Not before it had to, and not after somebody has waited for a database that does not answer.
    assert LIFE - 1 < served_for < LIFE + 2 * LIMITS.step - 0.5
    assert [count["failed_while_valid"] for count in counts] == [0, 0]
    assert counts[1]["failed"] == 0
    assert agreed["generation"] >= newest
    assert not verdict.presented_again()
    assert not any(login["revoked_because"] for login in gateways.sandbox.logins())


async def test_what_the_host_that_is_cut_off_had_asked_for_is_spent_once_and_saved_when_the_line_is_back(
    gateways: Gateways, fleet: Fleet, figure: Callable[[str], None], silent: bool
) -> None:
    person = await gateways.open(host="person")
    await gateways.log_in(person)
    with kept_states(gateways.database):
        async with wire(gateways.database.settings.url) as (line, url):
            other = await fleet.start("use", ["alice"], host="two")
            gateways.sandbox.fault("token", "slow", seconds=0.3, after=True)
            order = {"forced": 1.0}
            cut_off = await fleet.start(
                "force", ["alice"], host="one", limits=LIMITS, database_url=url, order=order
            )
            await fleet.heard(cut_off, "asking")
            line.cut(silent=silent)
            kept = await fleet.heard(cut_off, "kept")
            await fleet.heard(cut_off, "unsaved")
            await asyncio.sleep(0.5)
            line.mend()
            await fleet.heard(other, "served", that=lambda event: event["generation"] > 1)
            await fleet.heard(cut_off, "refresh")
            await fleet.stop(cut_off, other)
        verdict = Verdict(gateways, fleet)
    counts = next(other.all("counted"))
    figure(
        f"cut off while asking ({'silent' if silent else 'refused'}): answers lost "
        f"{len(verdict.journaled_and_lost())}; tokens spent twice {sum(verdict.presented_again().values())}; "
        f"failed on the other host {counts['failed_while_valid'] + counts['failed']} of {counts['served']}"
    )
    assert kept["given"] not in verdict.journaled_and_lost()
    assert not verdict.presented_again()
    assert counts["failed_while_valid"] == counts["failed"] == 0
    assert not any(login["revoked_because"] for login in gateways.sandbox.logins())
    assert gateways.accepts((await person.access_token("alice")).value)
