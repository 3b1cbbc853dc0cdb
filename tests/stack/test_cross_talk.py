"""One user's trouble, answers and secrets stay with that user, on a gateway whose LiteLLM is set to share.

Its configuration has a response cache, long cooldowns and none of the cures: what protects users is ours.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from docker.models.containers import Container

from support.stack import Stack, log_in, log_out, replica, until

ALICE, BOB = "key-user-1", "key-user-2"
QUESTION = "The same question from everybody"
BODY: dict[str, Any] = {
    "model": "claude-haiku",
    "messages": [{"role": "user", "content": QUESTION}],
    "max_tokens": 9,
}
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", BODY),
    "chat stream": ("/v1/chat/completions", {**BODY, "stream": True}),
    "messages": ("/v1/messages", BODY),
    "messages stream": ("/v1/messages", {**BODY, "stream": True}),
    "responses": ("/v1/responses", {"model": "claude-haiku", "input": QUESTION}),
    "pass-through": ("/anthropic/v1/messages", BODY),
}
# A callback of an operator's, such as one that keeps what everybody spent.
RECORDER = """
import json, sys
from litellm.integrations.custom_logger import CustomLogger

class Recorder(CustomLogger):
    def note(self, outcome, kwargs):
        entry = kwargs["standard_logging_object"]
        sys.stdout.write(f"\\nRECORD {json.dumps([outcome, entry], default=str)}\\n")

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.note("success", kwargs)

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self.note("failure", kwargs)

recorder = Recorder()
"""
# What could be a token of the sandbox.
SECRET = re.compile(r"[A-Za-z0-9_-]{40,}")


@dataclass(frozen=True, slots=True)
class Caller:
    """A user with a key and a login of their own."""

    client: httpx.Client
    account: str

    def ask(self, route: str) -> httpx.Response:
        path, body = ROUTES[route]
        return self.client.post(path, json=body)


@dataclass(frozen=True, slots=True)
class Sharing:
    """The gateway, and its two users."""

    container: Container
    alice: Caller
    bob: Caller

    def log(self) -> str:
        shown: bytes = self.container.logs()
        return shown.decode()


@pytest.fixture(scope="module")
def sharing(stack: Stack) -> Iterator[Sharing]:
    mounts = {mount["Destination"]: Path(mount["Source"]) for mount in stack.inspect("litellm")["Mounts"]}
    path = mounts["/app/config.yaml"]
    document = yaml.safe_load(path.read_text())
    for model in document["model_list"]:
        del model["model_info"]
    document["litellm_settings"]["callbacks"].append("recorder.recorder")
    document["litellm_settings"] |= {"cache": True, "cache_params": {"type": "local"}}
    document["router_settings"] = {"num_retries": 0, "cooldown_time": 600, "allowed_fails": 0}
    config, recorder = path.with_name("sharing.yaml"), path.with_name("recorder.py")
    config.write_text(yaml.safe_dump(document))
    recorder.write_text(RECORDER)
    for file in (config, recorder):
        file.chmod(0o444)
    with (
        replica(
            stack,
            own_host=True,
            config=config,
            files={"/app/recorder.py": recorder},
            environment={"LITELLM_LOG": "DEBUG", "NUM_WORKERS": "1"},
        ) as (container, url),
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {stack.key}"}, timeout=60) as gateway,
        caller(gateway, stack, ALICE) as alice,
        caller(gateway, stack, BOB) as bob,
    ):
        yield Sharing(container, alice, bob)
    config.unlink()
    recorder.unlink()


@contextmanager
def caller(gateway: httpx.Client, stack: Stack, user: str) -> Iterator[Caller]:
    account = log_in(gateway, user)["account"]["account"]["email_address"].split("@")[0]
    key = (stack.directory / "secrets" / "users" / user).read_text()
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=gateway.base_url, headers=headers, timeout=60) as client:
        yield Caller(client, account)
    log_out(gateway, user)


@pytest.fixture(autouse=True)
def no_faults(sandbox: httpx.Client) -> Iterator[None]:
    yield
    sandbox.delete("/control/faults").raise_for_status()


def fault(sandbox: httpx.Client, account: str, kind: str, **more: object) -> None:
    body = {"endpoint": "messages", "kind": kind, "account": account, "times": None, **more}
    sandbox.post("/control/faults", json=body).raise_for_status()


def seen(sandbox: httpx.Client, account: str) -> int:
    return len(sandbox.get("/control/requests", params={"account": account}).json())


@pytest.mark.parametrize("status", [400, 402, 403, 404, 408, 429, 500, 503, 529])
def test_an_error_is_its_caller_s_alone(sharing: Sharing, sandbox: httpx.Client, status: int) -> None:
    fault(sandbox, sharing.alice.account, "status", status=status, retry_after=600)
    for route in ROUTES:
        failed = sharing.alice.ask(route)
        assert failed.status_code >= 400 or "error" in failed.text, (route, failed.text)
    before = seen(sandbox, sharing.bob.account)
    for route in ROUTES:
        answer = sharing.bob.ask(route)
        assert answer.status_code == 200, (route, answer.text)
    # Once each: nothing was tried again, and nothing came from a cache.
    assert seen(sandbox, sharing.bob.account) == before + len(ROUTES)


def test_an_api_that_refuses_one_user_s_token_costs_them_one_refresh_and_nobody_else_anything(
    sharing: Sharing, sandbox: httpx.Client
) -> None:
    """On each route again: the user rests by then, and no further refresh token is spent."""
    fault(sandbox, sharing.alice.account, "status", status=401)
    for route in ROUTES:
        failed = sharing.alice.ask(route)
        assert failed.status_code == 401, (route, failed.text)
        assert f"start?user_id={ALICE}&force=true" in failed.text
        assert sharing.bob.ask(route).status_code == 200
    calls = sandbox.get("/control/token-calls", params={"account": sharing.alice.account}).json()
    assert calls["refresh_token"] == {"ok": 1}


def test_a_request_that_hangs_holds_up_nobody_else(sharing: Sharing, sandbox: httpx.Client) -> None:
    fault(sandbox, sharing.alice.account, "silence", seconds=8)
    with ThreadPoolExecutor(len(ROUTES)) as pool:
        hanging = [pool.submit(sharing.alice.ask, route) for route in ROUTES]
        for route in ROUTES:
            assert sharing.bob.ask(route).status_code == 200
        assert not any(request.done() for request in hanging)
        sandbox.delete("/control/faults").raise_for_status()


def test_an_answer_is_its_caller_s_alone(sharing: Sharing, sandbox: httpx.Client) -> None:
    """LiteLLM's response cache is on, and its key does not tell one user's token from another's."""
    for route in ROUTES:
        for one in (sharing.alice, sharing.bob, sharing.alice):
            before = seen(sandbox, one.account)
            assert one.ask(route).status_code == 200
            assert seen(sandbox, one.account) == before + 1, (route, one)


def entries(sharing: Sharing) -> list[tuple[str, dict[str, Any]]]:
    """What LiteLLM told the operator's callback so far: outcome, and who used what."""
    said: bytes = sharing.container.logs(stderr=False)
    lines = [line for line in said.decode().splitlines() if line.startswith("RECORD ")]
    return [tuple(json.loads(line.removeprefix("RECORD "))) for line in lines]


@pytest.mark.parametrize("route", ["chat", "chat stream", "messages", "messages stream", "responses"])
def test_what_was_used_is_noted_for_who_used_it(sharing: Sharing, sandbox: httpx.Client, route: str) -> None:
    known = len(entries(sharing))
    fault(sandbox, sharing.alice.account, "status", status=402)
    assert sharing.alice.ask(route).status_code >= 400
    assert sharing.bob.ask(route).status_code == 200

    def noted() -> set[tuple[str, str]]:
        return {(outcome, e["metadata"]["user_api_key_user_id"]) for outcome, e in entries(sharing)[known:]}

    until(lambda: noted() == {("failure", ALICE), ("success", BOB)})


@pytest.mark.parametrize("claude_tokens", [True, False])
def test_no_token_is_in_any_log_or_answer_however_much_is_logged(
    sharing: Sharing, sandbox: httpx.Client, gateway: httpx.Client, claude_tokens: bool
) -> None:
    """LiteLLM logs everything here (LITELLM_LOG=DEBUG), and hides what looks like Claude's tokens only."""
    sandbox.post("/control/settings", json={"claude_tokens": claude_tokens}).raise_for_status()
    text = ""
    try:
        for one in (sharing.alice, sharing.bob):
            one.client.post("/auth/claude/oauth/refresh", json={"force": True}).raise_for_status()
            for route in ROUTES:
                answer = one.ask(route)
                assert answer.status_code == 200, (route, answer.text)
                text += answer.text + str(answer.headers)
        fault(sandbox, sharing.alice.account, "status", status=401)
        for route in ROUTES:
            answer = sharing.alice.ask(route)
            text += answer.text + str(answer.headers)
    finally:
        sandbox.delete("/control/settings").raise_for_status()
    carried = {
        record["token_sha256"]
        for one in (sharing.alice, sharing.bob)
        for record in sandbox.get("/control/requests", params={"account": one.account}).json()
    }
    assert len(carried) >= 4
    log = sharing.log()
    assert "DEBUG" in log
    shown = {hashlib.sha256(word.encode()).hexdigest()[:16] for word in SECRET.findall(text + log)}
    assert shown & carried == set()
