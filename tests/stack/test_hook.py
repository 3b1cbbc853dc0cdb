"""The hook inside the gateway's own image, where LiteLLM is: what no request from outside can show."""

from __future__ import annotations

import ast

from support.stack import Stack

# LiteLLM keeps the call's id when it falls back to another deployment.
FALLBACK = """
import asyncio
from litellm_oauth.gateway import hook

async def main():
    hook._attempt.set(hook._Attempt(call_id="one", api_key="a-token", user="alice", generation=1))
    call = {"litellm_call_id": "one", "model": "gpt", "api_key": "a-plain-key", "model_info": {"id": "plain"}}
    assert await hook.oauth_hook.async_pre_call_deployment_hook(call, None) is None
    print("attempt:", hook._attempt.get())

asyncio.run(main())
"""


RETRY = """
from litellm import Router
from litellm_oauth.gateway import retry

router = Router(model_list=[])
one = [{"model_name": "only"}]
retry.retry_at_once()
for error in (ValueError("dead token"), ValueError("anything else")):
    if "dead" in str(error):
        retry.is_mended(error)
    print(router._time_to_sleep_before_retry(error, 1, 1, healthy_deployments=one, all_deployments=one))
"""

BEARER = """
from litellm.llms.anthropic.common_utils import AnthropicModelInfo
from litellm_oauth.gateway.bearer import as_api_key, send_as_bearer

send_as_bearer()
for key in (as_api_key("of-a-company"), as_api_key("sk-ant-oat01-x"), "sk-ant-api03-x"):
    print(dict(AnthropicModelInfo.get_auth_header(key)))
"""


def test_litellm_does_not_wait_where_the_cause_is_mended(stack: Stack) -> None:
    result = stack.exec("litellm", "python", "-c", RETRY)
    assert result.rc == 0, result.stderr
    mended, other = (float(line) for line in result.stdout.splitlines()[-2:])
    assert mended == 0
    assert other >= 0.5


def test_litellm_sends_any_token_as_a_bearer_and_a_key_as_a_key(stack: Stack) -> None:
    result = stack.exec("litellm", "python", "-c", BEARER)
    assert result.rc == 0, result.stderr
    company, claude, key = (ast.literal_eval(line) for line in result.stdout.splitlines()[-3:])
    assert company == {"authorization": "Bearer of-a-company"}
    assert claude["authorization"] == "Bearer sk-ant-oat01-x"
    assert key == {"x-api-key": "sk-ant-api03-x"}


def test_a_401_that_a_fallback_meets_with_a_key_of_its_own_costs_the_user_no_refresh(stack: Stack) -> None:
    result = stack.exec("litellm", "python", "-c", FALLBACK)
    assert result.rc == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "attempt: None"
