"""A host that dies in the middle of a refresh and takes its journal along: who knows whether it was spent?"""

# ruff: noqa: S608 -- the names of our own tables, in statements for a throw-away database

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from chaos.fleet import Fleet
from litellm_oauth.errors import CoolingDown
from litellm_oauth.tokens import Status
from support.postgres import AUDIT
from support.service import ACTOR, Gateways, eventually

REQUESTS = 100


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        # The provider never heard of it: the one try brings a token.
        ({"kind": "silence"}, "refreshed"),
        # It had answered: the one try ends the login, and says so.
        ({"kind": "slow", "after": True}, "reauth_required"),
    ],
    ids=["before the provider took it", "after the provider took it"],
)
async def test_a_token_in_doubt_is_left_alone_while_it_serves_and_tried_once_when_it_has_expired(
    gateways: Gateways, fleet: Fleet, figure: Callable[[str], None], fault: dict[str, Any], end: str
) -> None:
    person = await gateways.open(host="person")
    await gateways.log_in(person)
    gateways.sandbox.fault("token", seconds=1, grant_type="refresh_token", **fault)
    lost = await fleet.start("force", ["alice"], host="lost", order={"forced": 1.0})
    await fleet.heard(lost, "asking")
    await eventually(lambda: gateways.refreshes() == 1)
    name = (gateways.journal("lost") / "host").read_text()
    await fleet.kill(lost)
    shutil.rmtree(gateways.folder / "lost")
    # Its lease runs out.
    await gateways.change("lease_until = now()")

    others = [await gateways.open(host=host) for host in ("two", "two", "three")]
    served = await asyncio.gather(*(s.access_token("alice") for s in others for _ in range(REQUESTS)))
    assert {token.generation for token in served} == {1}
    await gateways.expire(seconds_left=100)
    for service in others:
        with pytest.raises(CoolingDown, match=name) as caught:
            await service.refresh("alice", force=True, actor=ACTOR)
        assert 0 < caught.value.retry_after <= 100
        assert (await service.refresh_due(actor=ACTOR)).attempted == 0
        assert (await service.status("alice")).status is Status.IN_DOUBT
    while_valid = gateways.refreshes() - 1

    await gateways.expire()
    found = await asyncio.gather(
        *(s.access_token("alice") for s in others for _ in range(REQUESTS)), return_exceptions=True
    )
    tries = gateways.refreshes() - 1
    audit = gateways.database.query(f"SELECT outcome, detail FROM {AUDIT} ORDER BY audit_id")[-2:]
    figure(
        f"host lost {'after' if fault.get('after') else 'before'} the provider took it: "
        f"tries while the token served {while_valid}, once it had expired {tries}, then {end}"
    )
    assert (while_valid, tries) == (0, 1)
    assert audit[0] == {"outcome": "in_doubt_retry", "detail": name}
    assert audit[1]["outcome"] == end
    outcomes = {getattr(one, "generation", None) or getattr(one, "code", one) for one in found}
    assert outcomes == ({2} if end == "refreshed" else {"reauth_required"})
    if end == "reauth_required":
        assert gateways.row()["last_error"].startswith("invalid_grant: ")
