"""The hook inside the gateway's own image, where LiteLLM is: what no request from outside can show."""

from __future__ import annotations

import ast
import json

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


# One user's calls to an API on loopback that refuses the first token, or every token, or breaks down once.
RETRY = """
import asyncio, http.server, json, threading
from dataclasses import dataclass
import litellm
from litellm import Router, router as routing
from litellm.proxy import proxy_server
from litellm.proxy._types import UserAPIKeyAuth
from litellm_oauth.errors import CoolingDown
from litellm_oauth.gateway.bearer import send_as_bearer
from litellm_oauth.gateway.hook import oauth_hook
from litellm_oauth.gateway.retry import retry_at_once
from litellm_oauth.gateway.runtime import Runtime
from litellm_oauth.settings import parse_settings
from litellm_oauth.tokens import AccessToken

answers, slept = [], []

class Api(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        status = answers.pop(0) if answers else 200
        body = json.dumps({"id": "m", "type": "message", "role": "assistant", "model": "m", "content":
            [{"type": "text", "text": "hello"}], "stop_reason": "end_turn",
            "usage": {"input_tokens": 1, "output_tokens": 1}} if status == 200 else {"type": "error",
            "error": {"type": "api_error", "message": "no"}}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass

class Service:
    generation = 1
    async def access_token(self, user):
        return AccessToken(f"sk-ant-oat01-{self.generation}", self.generation, 1e12)
    async def replace_rejected(self, user, generation):
        if self.generation == 3:
            raise CoolingDown("resting", retry_after=9)
        self.generation += 1

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}"
section = {"sandbox": True, "enabled": False, "allowed_api_bases": [base]}
oauth_hook.runtime.fill(Runtime(parse_settings(section, {}), Service(), {}))
litellm.callbacks = [oauth_hook]
send_as_bearer()
retry_at_once(oauth_hook.waits_for_nothing, oauth_hook.is_final)
proxy_server.llm_router = router = Router(model_list=[{"model_name": "m", "litellm_params":
    {"model": "anthropic/m", "api_base": base, "api_key": "oauth", "max_retries": 0}}], num_retries=1)

class Sleeping:
    def __getattr__(self, name):
        return getattr(asyncio, name)
    async def sleep(self, seconds):
        slept.append(seconds)
routing.asyncio = Sleeping()

async def ask(call_id, *wanted):
    answers[:], slept[:] = wanted, []
    holder = UserAPIKeyAuth(user_id="alice")
    try:
        await router.acompletion("m", [{"role": "user", "content": "x"}], litellm_call_id=call_id,
            metadata={"user_api_key_auth": holder},
            model_group_retry_policy={"m": {"AuthenticationErrorRetries": 1}})
        outcome = "answered"
    except Exception as error:
        outcome = type(error).__name__
    print(json.dumps([outcome, [s > 0 for s in slept]]))

async def main():
    await ask("one", 401)
    await ask("two", 500)
    await ask("three", 401, 401)
    await ask("four", 401)

asyncio.run(main())
"""

BEARER = """
from litellm.llms.anthropic.common_utils import AnthropicModelInfo
from litellm_oauth.gateway.bearer import as_api_key, send_as_bearer

send_as_bearer()
for key in (as_api_key("of-a-company"), as_api_key("sk-ant-oat01-x"), "sk-ant-api03-x"):
    print(dict(AnthropicModelInfo.get_auth_header(key)))
"""


# Without its packages LiteLLM imports the logger again, and in vain, in every request.
OPENTELEMETRY = "from litellm.integrations.otel.logger import fan_out_provider"

BUSY = """
from litellm.proxy import proxy_server
from litellm.proxy.anthropic_endpoints.endpoints import router as anthropic
from litellm.proxy.health_endpoints._health_endpoints import router as health
from litellm.proxy.response_api_endpoints.endpoints import router as responses
from litellm_oauth.gateway import speed

found = speed.busy_routes(proxy_server.router, responses, anthropic, health).routes
print(sorted(speed._BUSY - {route.path for route in found}))
"""


def test_nothing_that_every_request_imports_is_missing(stack: Stack) -> None:
    result = stack.exec("litellm", "python", "-c", OPENTELEMETRY)
    assert result.rc == 0, result.stderr


def test_all_busy_routes_are_found_in_litellm(stack: Stack) -> None:
    result = stack.exec("litellm", "python", "-c", BUSY)
    assert result.rc == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"


def test_litellm_does_not_wait_where_there_is_nothing_to_wait_for(stack: Stack) -> None:
    result = stack.exec("litellm", "python", "-c", RETRY)
    assert result.rc == 0, result.stderr
    replaced, broke_down, refused_twice, resting = map(json.loads, result.stdout.splitlines()[-4:])
    assert replaced == ["answered", [False]]
    assert broke_down == ["answered", [True]]
    # After the last try LiteLLM sleeps once more.
    assert refused_twice == ["AuthenticationError", [False, False]]
    assert resting == ["RefusedCallError", [False, False]]


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
