"""One user's trouble, answers and secrets stay with that user, on a gateway whose LiteLLM is set to share.

Its configuration has a response cache, long cooldowns and none of the cures: what protects users is ours.
"""

from __future__ import annotations

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

from support.leaks import Secrets, verifier_digests
from support.stack import Stack, approve, log_in, log_out, replica, until

ALICE, BOB = "key-user-1", "key-user-2"
# Logs in by command.
COMMANDED = "debugged"
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
# What people send by mistake.
OF_STRANGERS = {
    "key": "sk-obviously-fake-key-of-a-stranger",
    "odd key": "obviously-fake-key-of-another-form",
    "token": "sk-ant-oat01-obviously-fake-token",
    "bearer": "obviously.fake.bearer-of-a-stranger",
    "code": "obviously-fake-code-in-the-wrong-place",
}


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
            environment={"LITELLM_LOG_LEVEL": "DEBUG", "DETAILED_DEBUG": "true", "NUM_WORKERS": "1"},
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


def ask_with_others_credentials(one: Caller) -> str:
    """Every way in which somebody may bring a secret that is not wanted there; the answers."""
    stranger = httpx.Client(base_url=one.client.base_url, timeout=60)
    answers = [
        one.client.post("/v1/chat/completions", json={**BODY, "api_key": OF_STRANGERS["key"]}),
        one.client.post(
            "/v1/chat/completions",
            json={**BODY, "extra_headers": {"Authorization": f"Bearer {OF_STRANGERS['token']}"}},
        ),
        one.client.post(
            "/v1/messages",
            json=BODY,
            headers={
                "x-litellm-api-key": one.client.headers["Authorization"],
                "Authorization": f"Bearer {OF_STRANGERS['bearer']}",
            },
        ),
        one.client.post("/auth/claude/oauth/exchange", json={"code": OF_STRANGERS["code"]}),
        one.client.post("/auth/claude/oauth/refresh", json={"code": OF_STRANGERS["code"]}),
        one.client.get("/auth/claude/oauth/status", params={"code": OF_STRANGERS["code"]}),
    ]
    for key in (OF_STRANGERS["key"], OF_STRANGERS["odd key"], OF_STRANGERS["token"]):
        for headers in ({"Authorization": f"Bearer {key}"}, {"Authorization": key}, {"x-api-key": key}):
            answers.append(stranger.post("/v1/chat/completions", json=BODY, headers=headers))
            answers.append(stranger.get("/auth/claude/oauth/status", headers=headers))
            assert answers[-1].status_code == answers[-2].status_code == 401
    return "".join(answer.text for answer in answers)


def exported(container: Container, user: str) -> set[str]:
    """The tokens that the user has now, in the clear."""
    code, document = container.exec_run(["litellm", "claude", "export", "--user", user], stderr=False)
    assert code == 0
    assert isinstance(document, bytes)
    return {value for name, value in json.loads(document).items() if name.endswith("Token")}


def run(container: Container, *command: str) -> str:
    """What a command shows to whoever gives it."""
    _, shown = container.exec_run(["litellm", "claude", *command])
    assert isinstance(shown, bytes)
    return shown.decode()


def found(stack: Stack, log: str, secrets: set[str], text: str) -> list[str]:
    """Which of these secrets, and of all those that the stack has, are in ``log`` or ``text``."""
    assert "LiteLLM Proxy:DEBUG" in log
    assert "litellm_oauth DEBUG" in log
    lasting = {value for value in stack.secrets().values() if value}
    lasting |= {(stack.directory / "secrets/users" / user).read_text().strip() for user in (ALICE, BOB)}
    verifiers = verifier_digests([text])
    assert verifiers
    return Secrets(frozenset(secrets | lasting), verifiers, frozenset({43})).found_in(text + log)


@pytest.mark.parametrize("claude_tokens", [True, False])
def test_no_secret_is_in_any_log_or_answer_however_much_is_logged(
    stack: Stack, sharing: Sharing, sandbox: httpx.Client, claude_tokens: bool
) -> None:
    """Whether or not a token has the form by which LiteLLM knows it as one."""
    sandbox.post("/control/settings", json={"claude_tokens": claude_tokens}).raise_for_status()
    client = sharing.alice.client
    try:
        started = client.get("/auth/claude/oauth/start?force=true")
        code = approve(f"{started.json()['authorization_url']}&login_hint={sharing.alice.account}")
        text = started.text + client.post("/auth/claude/oauth/exchange", json={"code": code}).text
        secrets = {code.partition("#")[0], *exported(sharing.container, ALICE)}
        text += client.post("/auth/claude/oauth/refresh", json={"force": True}).text
        for status in (None, 401, 429, 500):
            if status is not None:
                fault(sandbox, sharing.alice.account, "status", status=status)
            for route in ROUTES:
                answer = sharing.alice.ask(route)
                as_wanted = answer.status_code == 200 if status is None else "error" in answer.text
                assert as_wanted, (route, status, answer.text)
                text += answer.text + str(answer.headers)
        secrets |= exported(sharing.container, ALICE)
    finally:
        sandbox.delete("/control/settings").raise_for_status()
    # The code, and the tokens of the login and of the refresh.
    assert len(secrets) == 1 + 2 * 2
    assert found(stack, sharing.log(), secrets, text) == []


def test_nor_is_one_that_comes_by_mistake_or_by_command(stack: Stack, sharing: Sharing) -> None:
    text = ask_with_others_credentials(sharing.bob)
    text += run(sharing.container, "login", "--user", COMMANDED)
    (url,) = re.findall(r"http\S+authorize\?\S+", text)
    code = approve(url)
    text += run(sharing.container, "callback", code, "--user", COMMANDED)
    secrets = {*OF_STRANGERS.values(), code.partition("#")[0], *exported(sharing.container, COMMANDED)}
    text += run(sharing.container, "refresh", "--force", "--user", COMMANDED)
    secrets |= exported(sharing.container, COMMANDED)
    for command in ("status", "logout"):
        text += run(sharing.container, command, "--user", COMMANDED)
    assert "is logged out" in text
    assert len(secrets) == len(OF_STRANGERS) + 1 + 2 * 2
    # A refused key goes to an operator's callback, by LiteLLM: hashed only where it has the form of one.
    said = "\n".join(line for line in sharing.log().splitlines() if not line.startswith("RECORD "))
    assert found(stack, said, secrets, text) == []
