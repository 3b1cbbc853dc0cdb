"""The hook inside the gateway's own image, where LiteLLM is: what no request from outside can show."""

from __future__ import annotations

from support.stack import Stack

# LiteLLM keeps the call's id when it falls back to another deployment.
FALLBACK = """
import asyncio
from litellm_oauth.gateway import hook

async def main():
    hook._attempt.set(hook._Attempt(call_id="one", user="alice", generation=1))
    call = {"litellm_call_id": "one", "model": "gpt", "api_key": "a-plain-key", "model_info": {"id": "plain"}}
    assert await hook.oauth_hook.async_pre_call_deployment_hook(call, None) is None
    print("attempt:", hook._attempt.get())

asyncio.run(main())
"""


def test_a_401_that_a_fallback_meets_with_a_key_of_its_own_costs_the_user_no_refresh(stack: Stack) -> None:
    result = stack.exec("litellm", "python", "-c", FALLBACK)
    assert result.rc == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "attempt: None"
