"""Many requests, at the same moment, in processes that have read nothing yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from chaos.fleet import Fleet
from support.service import Gateways

REQUESTS = 1000


async def test_a_thousand_requests_on_an_expired_token_make_one_call_and_none_fails(
    gateways: Gateways, fleet: Fleet, figure: Callable[[str], None]
) -> None:
    """Two hosts with two processes each; the provider and the database both hold the token expired."""
    person = await gateways.open(host="person")
    await gateways.log_in(person)
    gateways.sandbox.expire("alice")
    await gateways.expire()
    # So that all of them are there before it has answered.
    gateways.sandbox.fault("token", "slow", seconds=0.5)
    gate = gateways.folder / "gate"
    hosts = ("one", "one", "two", "two")
    order = {"tasks": REQUESTS // len(hosts), "gate": str(gate), "background": False}
    workers = [await fleet.start("crowd", ["alice"], host=host, order=order) for host in hosts]
    gate.touch()
    crowds = [await fleet.heard(worker, "crowd") for worker in workers]
    failures: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for crowd in crowds:
        failures.update(crowd["failures"])
        tokens.update(crowd["tokens"])
    took = max(crowd["at"] for crowd in crowds) - gate.stat().st_mtime
    figure(
        f"crowd: requests {REQUESTS}, processes {len(workers)}, token calls {gateways.refreshes()}, "
        f"failures {sum(failures.values())}, tokens served {len(tokens)}, seconds {took:.2f}"
    )
    assert not failures
    assert (gateways.refreshes(), list(tokens.values())) == (1, [REQUESTS])
    assert gateways.accepts((await person.access_token("alice")).value)
    await fleet.stop(*workers)
