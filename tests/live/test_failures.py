"""What is told of a token that was not replaced is told to the one request that it is about."""

from __future__ import annotations

import json

from support.running_gateway import in_the_image

TWO_REQUESTS = """
import asyncio
import json
import litellm
from litellm_oauth.gateway import hook
from litellm_oauth.gateway.exchange import Exchange, current
from litellm_oauth.gateway.runtime import Runtime
from litellm_oauth.messages import reauth_required
from litellm_oauth.settings import parse_settings

class Service:
    async def replace_rejected(self, user, generation):
        raise reauth_required(user)

section = {"sandbox": True, "enabled": False}
hook.oauth_hook.runtime.fill(Runtime(parse_settings(section, {}), Service(), {}))

def refused():
    return litellm.AuthenticationError("refused", llm_provider="anthropic", model="m")

async def attempt(user):
    hook._attempt.set(hook._Attempt(call_id="chosen by a client", api_key=user, user=user, generation=1))
    await hook.oauth_hook.async_post_call_failure_deployment_hook({"api_key": user}, refused(), None)

async def end():
    error = refused()
    await hook.oauth_hook.async_post_call_failure_hook({"litellm_call_id": "chosen by a client"}, error, None)
    return error.message

async def both():
    exchanges = {user: Exchange() for user in ("alice", "bob")}
    # LiteLLM tells of the end in another task than of the attempts.
    current.set(exchanges["alice"])
    await asyncio.create_task(attempt("alice"))
    current.set(exchanges["bob"])
    bob = await asyncio.create_task(end())
    current.set(exchanges["alice"])
    alice = await asyncio.create_task(end())
    # Another attempt of alice's begins, of which nothing is known yet.
    hook._forget_answer()
    return [alice, bob, await asyncio.create_task(end())]

print(json.dumps(asyncio.run(both())))
"""


def test_no_one_is_told_of_another_s_login_by_the_id_of_a_call() -> None:
    alice, bob, again = json.loads(in_the_image("-c", TWO_REQUESTS)[-1])
    assert "alice" in alice
    assert "litellm claude login --user alice" in alice
    assert "alice" not in bob
    assert "alice" not in again
