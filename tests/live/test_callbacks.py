"""What callbacks and the log are told: all that people ask and are answered, and never a credential."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import httpx
import pytest

from support.asking import PLAIN, STREAMED
from support.running_gateway import (
    SECRETS,
    TOKENS,
    USER_KEYS,
    RunningGateway,
    configuration,
    running_gateway,
)
from support.scripted_api import Received, ScriptedApi, reply, scripted_api

# One of each kind: LiteLLM's own record of a request as JSON, OpenTelemetry's spans, a service's own shape.
# What each wants to be set; what begins with a slash is a path of the recording server.
CALLBACKS = {
    "generic_api": {"GENERIC_LOGGER_ENDPOINT": "/generic_api"},
    "langfuse_otel": {
        "LANGFUSE_HOST": "/langfuse_otel",
        "LANGFUSE_PUBLIC_KEY": "fake",
        "LANGFUSE_SECRET_KEY": "fake",
    },
    "datadog": {"DD_BASE_URL": "/datadog", "DD_API_KEY": "fake", "DD_SITE": "fake"},
}
# What goes through LiteLLM, each plain and streamed.
ROUTED = [form for form in PLAIN + STREAMED if not form.path.startswith("/anthropic/")]


@pytest.fixture(scope="module")
def recorder() -> Iterator[ScriptedApi]:
    with scripted_api() as server:
        yield server


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedApi, recorder: ScriptedApi
) -> Iterator[RunningGateway]:
    """Its callbacks write every second, and its log says all that LiteLLM has to say."""
    folder = tmp_path_factory.mktemp("watched")
    config = configuration(scripted)
    config["litellm_settings"]["callbacks"] += CALLBACKS
    keys = {
        name: recorder.url + value if value.startswith("/") else value
        for variables in CALLBACKS.values()
        for name, value in variables.items()
    }
    for name, value in keys.items():
        (folder / name).write_text(value)
    environment = {
        "LITELLM_OAUTH_CALLBACK_KEYS": " ".join(keys),
        "LITELLM_LOG_LEVEL": "DEBUG",
        "DEFAULT_FLUSH_INTERVAL_SECONDS": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }
    with running_gateway(folder, config, scripted, environment=environment) as gateway:
        for user in ("alice", "bob"):
            gateway.log_in(user)
        yield gateway


def _content(received: Received) -> bytes:
    body = received.body
    return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body


def _secrets_in(text: str) -> list[str]:
    return [secret for secret in (*SECRETS, *TOKENS) if secret in text]


def _in_time(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.1)
    return holds()


def _ask_what_is_answered(gateway: RunningGateway, api: ScriptedApi) -> None:
    with gateway.client("alice") as alice, gateway.client("bob") as bob:
        for form in ROUTED:
            assert form.ask(alice).status_code == 200
        assert PLAIN[3].ask(alice, model="keyed").status_code == 200
        # A token that the API refuses is replaced, and the second try is good.
        refused = {"type": "error", "error": {"type": "authentication_error", "message": "dead"}}
        api.then("/v1/messages", reply(refused, "401 No"))
        assert PLAIN[3].ask(bob).status_code == 200
    # Keys in other headers; the last with a login of the client's own beside it.
    key = USER_KEYS["alice"]
    for headers in (
        {"x-litellm-api-key": key},
        {"x-api-key": key},
        {"x-api-key": key, "authorization": f"Bearer {TOKENS[0]}of-the-client"},
    ):
        answer = httpx.post(gateway.url + PLAIN[3].path, json=PLAIN[3].body, headers=headers, timeout=15)
        assert answer.status_code == 200


def _ask_what_is_refused(gateway: RunningGateway, api: ScriptedApi) -> None:
    with gateway.client("alice") as alice, gateway.client("carol") as carol:
        slow, no = ("429 Slow", "rate_limit_error"), ("401 No", "authentication_error")
        # Each form meets the one when it is plain and the other when it streams.
        refusals = [slow, no] * (len(ROUTED) // 4) + [no, slow] * (len(ROUTED) // 4)
        for form, (status, kind) in zip(ROUTED, refusals, strict=True):
            refusal = {"type": "error", "error": {"type": kind, "message": "no"}}
            api.always("/v1/messages", reply(refusal, status, [("Retry-After", "7")]))
            assert form.ask(alice).status_code == int(status[:3])
        assert PLAIN[3].ask(carol).status_code == 401


def test_callbacks_and_log_are_told_of_all_kinds_of_requests_and_never_of_a_credential(
    watched: RunningGateway, api: ScriptedApi, recorder: ScriptedApi
) -> None:
    _ask_what_is_answered(watched, api)
    _ask_what_is_refused(watched, api)

    def told() -> set[tuple[str, str]]:
        # Not how many: LiteLLM's logger forgets what it is told while it writes.
        batches = [json.loads(_content(one)) for one in recorder.received if one.path == "/generic_api"]
        return {(event["call_type"], event["status"]) for batch in batches for event in batch}

    def has_heard_the_answer(name: str) -> bool:
        mine = [_content(one) for one in recorder.received if one.path.startswith(f"/{name}")]
        return any(b"Hello back" in body for body in mine)

    wanted = set(product(("anthropic_messages", "acompletion", "aresponses"), ("success", "failure")))
    assert _in_time(lambda: wanted <= told()), f"nobody was told of {wanted - told()}"
    for name in CALLBACKS:
        assert _in_time(partial(has_heard_the_answer, name)), f"{name} was told of no answer"
    # What is still on its way
    time.sleep(2)
    for one in recorder.received:
        seen = f"{one.path}?{one.query} {one.headers} {_content(one).decode('utf-8', 'replace')}"
        assert _secrets_in(seen) == [], one.path
    log = watched.logs()
    assert "LiteLLM:DEBUG" in log
    assert "Hello back" in log
    assert _secrets_in(log) == []
