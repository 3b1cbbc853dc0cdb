"""What somebody wrote into the tables by hand or under a wrong clock holds nobody up and breaks no list."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from litellm_oauth.errors import CoolingDown
from litellm_oauth.gateway import views
from litellm_oauth.refresh import LEASE
from litellm_oauth.stores import Attempt, Failure, Note
from litellm_oauth.stores.rows import LONGEST_LEASE
from litellm_oauth.tokens import Status
from support.service import ACTOR, Gateways

RESTS = "claude_oauth.provider_rests"


@pytest.mark.parametrize("account", ["5", "[]", '"text"', "null", "true"])
async def test_an_account_that_is_no_object_counts_as_none(gateways: Gateways, account: str) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    await gateways.change("account = %(account)s::jsonb", values={"account": account})
    assert [views.status(found)["account"] for found in await service.statuses()] == [None]
    assert (await service.rename("alice", "bob", actor=ACTOR)).account is None
    await service.rename("bob", "alice", actor=ACTOR)
    await gateways.change("account = %(account)s::jsonb", values={"account": account})
    assert (await service.refresh("alice", force=True, actor=ACTOR)).result == "refreshed"


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        ("infinity", "9999-12-31T23:59:59Z"),
        ("33658-01-01", "9999-12-31T23:59:59Z"),
        ("-infinity", "1970-01-01T00:00:00Z"),
        ("0044-03-15 BC", "1970-01-01T00:00:00Z"),
    ],
)
async def test_a_moment_that_no_calendar_has_can_be_shown(
    gateways: Gateways, moment: str, shown: str
) -> None:
    service = await gateways.open()
    await gateways.log_in(service)
    columns = ("expires_at", "refresh_expires_at", "next_attempt_at", "logged_in_at", "updated_at")
    await gateways.change(
        ", ".join(f"{column} = %(moment)s" for column in columns), values={"moment": moment}
    )
    (found,) = [views.status(status) for status in await service.statuses()]
    assert (found["expires_at"], found["refresh_expires_at"], found["updated_at"]) == (shown,) * 3
    assert (await service.refresh("alice", force=True, actor=ACTOR)).generation == 2
    assert await service._tokens.next_due_in(300) is not None


async def _expired(gateways: Gateways, assignments: str) -> Any:
    service = await gateways.open()
    await gateways.log_in(service)
    await gateways.change(f"expires_at = now() - interval '1 s', {assignments}")
    return service


@pytest.mark.parametrize("moment", ["now() + interval '30 days'", "'infinity'"])
@pytest.mark.parametrize(
    "last_error", ["NULL", "'rate_limited: because'", "'timeout: because'", "'rejected: because'"]
)
async def test_a_wait_longer_than_any_that_is_given_is_over(
    gateways: Gateways, moment: str, last_error: str
) -> None:
    service = await _expired(gateways, f"next_attempt_at = {moment}, last_error = {last_error}")
    found = await service.status("alice")
    assert (found.status, found.next_attempt_at) == (Status.EXPIRED, None)
    assert await service._tokens.next_due_in(300) < 0
    assert (await service.refresh_due(actor=ACTOR)).refreshed == 1


@pytest.mark.parametrize("moment", ["now() + interval '30 days'", "'infinity'"])
async def test_a_rest_longer_than_any_that_is_given_is_over(gateways: Gateways, moment: str) -> None:
    service = await _expired(gateways, "last_error = NULL")
    token_url = gateways.settings().provider.token_url
    gateways.database.query(
        f"INSERT INTO {RESTS} (token_url, failures, rests_until, reason) "  # noqa: S608 -- our own table
        f"VALUES (%(token_url)s, 1, {moment}, 'rate_limited: because')",
        {"token_url": token_url},
    )
    assert await service._tokens.next_due_in(300) < 0
    # A rest that is asked for now is kept, and the other one does not hide it.
    await gateways.log_in(service, "bob")
    bob = await service._tokens.load("bob")
    assert bob is not None
    claim = await service._tokens.claim(bob, Attempt(uuid.uuid4(), uuid.uuid4(), "host"), LEASE, ACTOR)
    failure = Failure("rate_limited: because", 600, 600, counts=True)
    assert await service._tokens.fail(claim, failure, Note(ACTOR, "refresh", "bob", "failed"))
    with pytest.raises(CoolingDown, match="by everybody") as caught:
        await service.refresh("alice", actor=ACTOR)
    assert 500 < caught.value.retry_after <= 600
    gateways.database.query(f"UPDATE {RESTS} SET rests_until = {moment}")  # noqa: S608 -- our own table
    assert (await service.refresh_due(actor=ACTOR)).refreshed == 1
    rests = gateways.database.one(f"SELECT failures, rests_until FROM {RESTS}")  # noqa: S608 -- our own table
    assert (rests["failures"], rests["rests_until"]) == (0, None)


@pytest.mark.parametrize("moment", ["now() + interval '30 days'", "'infinity'"])
async def test_a_lease_longer_than_any_that_is_given_is_over(gateways: Gateways, moment: str) -> None:
    service = await _expired(
        gateways,
        f"lease_until = {moment}, lease_owner = gen_random_uuid(), attempt_id = gen_random_uuid(), "
        "attempt_host = 'gone'",
    )
    assert (await service.status("alice")).status is Status.IN_DOUBT
    assert await service._tokens.next_due_in(300) < 0
    assert (await service.refresh("alice", actor=ACTOR)).generation == 2


def test_every_lease_that_is_given_is_believed() -> None:
    assert LEASE < LONGEST_LEASE
