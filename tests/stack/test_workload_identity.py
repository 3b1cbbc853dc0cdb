"""Models with workload identity federation, beside models that take the caller's own token.

LiteLLM exchanges over https or with loopback only. So the gateway of these tests is in the sandbox's network.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from docker.models.containers import Container
from docker.types import Mount

from support.role import Rendered, rendered
from support.stack import Stack, log_in, log_out, until_live
from support.workload import GRANT_TYPE, Workload

BASE = "http://127.0.0.1:4010"
KEY = "ISSUER_SIGNING_KEY"
USER = "federation-user"
UID = 10001
BRIEF_SECONDS = 4
# The README's, with which a key's owner gets what has to be registered.
SHOW_JWKS = f"""
from litellm.llms.base_llm.auth.jwt_signing import jwks_document_json
print(jwks_document_json(open('/run/secrets/{KEY}').read()))
"""
# Accounts of this run alone: the sandbox counts exchanges for as long as it runs.
RUN = uuid.uuid4().hex[:6]
ISSUER, FILE = Workload(f"by-issuer-{RUN}"), Workload(f"by-file-{RUN}")
# The internal issuer has one key for all its subjects.
BRIEF, LOST = Workload(f"brief-{RUN}", ISSUER.key), Workload(f"lost-{RUN}", ISSUER.key)
BRIEF_FILE = Workload(f"brief-file-{RUN}")


Calls = Callable[[], list[dict[str, Any]]]


@dataclass(frozen=True)
class Federated:
    """A gateway with models of both kinds, and the folder with its identity tokens."""

    container: Container
    client: httpx.Client
    tokens: Path

    def bring(self, workload: Workload, **claims: Any) -> None:
        """A new token, as something on the target would put it there."""
        new = self.tokens / f".{workload.name}"
        new.write_text(workload.assertion(**claims))
        new.chmod(0o400)
        os.chown(new, UID, UID)
        new.rename(self.tokens / f"{workload.name}.jwt")


def by_issuer(workload: Workload) -> dict[str, str]:
    return {
        **workload.identity,
        "identity_source": "internal_issuer",
        "issuer_url": workload.issuer,
        "issuer_subject": f"workload:{workload.name}",
        "issuer_audience": workload.audience,
        "issuer_signing_key_ref": f"os.environ/{KEY}",
    }


def by_file(workload: Workload) -> dict[str, str]:
    return {**workload.identity, "identity_token_file": f"{workload.name}.jwt"}


def made(stack: Stack, tokens: Path) -> Rendered:
    """What the role makes of a list of models of both kinds, for a gateway without database and cache."""
    model = "claude-sonnet-4-20250514"
    ways = [(one, by_issuer(one)) for one in (ISSUER, BRIEF, LOST)]
    ways += [(one, by_file(one)) for one in (FILE, BRIEF_FILE)]
    return rendered(
        {
            "litellm_oauth_models": [
                {"name": "own", "model": model},
                *({"name": one.name, "model": model, "workload_identity": way} for one, way in ways),
            ],
            "litellm_oauth_api_keys": {KEY: ISSUER.key.as_pem(private=True).decode()},
            "litellm_oauth_identity_directory": str(tokens),
            "litellm_oauth_api_base": BASE,
            "litellm_oauth_token_url": f"{BASE}/v1/oauth/token",
            "litellm_oauth_revoke_url": f"{BASE}/v1/oauth/token/revoke",
            "litellm_oauth_use_database": False,
            "litellm_oauth_redis_url": "",
            "litellm_oauth_workers": 2,
        },
        stack.inventory,
    )


@contextmanager
def neighbour(
    stack: Stack, description: Rendered, secrets: Path, folder: Path
) -> Iterator[tuple[Container, str]]:
    """The described gateway, in the network of the sandbox, with these secrets."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(description.config))
    config.chmod(0o444)
    seen = stack.inspect("litellm")
    (tokens,) = [m for m in description.service["mounts"] if isinstance(m, list) and m]
    mounts = [
        Mount("/app/config.yaml", str(config), "bind", read_only=True),
        Mount("/run/secrets", str(secrets), "bind", read_only=True),
        *(Mount(m["target"], m["source"], m["type"], read_only=m["read_only"]) for m in tokens),
    ]
    container = stack.engine.containers.create(
        seen["Config"]["Image"],
        seen["Config"]["Cmd"],
        name=f"{stack.name}-litellm-federated",
        user=seen["Config"]["User"],
        environment=description.service["environment"],
        mounts=mounts,
        tmpfs=seen["HostConfig"]["Tmpfs"],
        read_only=True,
        network_mode=f"container:{stack.container('sandbox')}",
    )
    address = stack.inspect("sandbox")["NetworkSettings"]["Networks"][f"{stack.name}_frontend"]["IPAddress"]
    try:
        container.start()
        until_live(f"http://{address}:4000")
        yield container, f"http://{address}:4000"
    finally:
        container.remove(force=True, v=True)


@pytest.fixture(scope="module")
def federated(
    stack: Stack, sandbox: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Federated]:
    folder = tmp_path_factory.mktemp("federated")
    tokens, secrets = folder / "tokens", folder / "secrets"
    tokens.mkdir(mode=0o755)
    shutil.copytree(stack.directory / "secrets/gateway", secrets)
    (secrets / KEY).write_bytes(ISSUER.key.as_pem(private=True))
    for file in (secrets, *secrets.iterdir()):
        os.chown(file, UID, UID)
    description = made(stack, tokens)
    headers = {"Authorization": f"Bearer {stack.key}", "x-litellm-oauth-user": USER}
    with (
        neighbour(stack, description, secrets, folder) as (container, url),
        httpx.Client(base_url=url, headers=headers, timeout=60) as client,
    ):
        found = Federated(container, client, tokens)
        code, jwks = container.exec_run(["python", "-c", SHOW_JWKS])
        assert code == 0
        assert isinstance(jwks, bytes)
        published = json.loads(jwks)
        for workload in (ISSUER, FILE, BRIEF, BRIEF_FILE):
            keys = {"jwks": published} if workload.key is ISSUER.key else {}
            life = {"token_seconds": BRIEF_SECONDS} if workload in (BRIEF, BRIEF_FILE) else {}
            sandbox.post("/control/federation", json=workload.rule(**keys, **life)).raise_for_status()
        for workload in (FILE, BRIEF_FILE):
            found.bring(workload)
        yield found
    sandbox.delete("/control/federation").raise_for_status()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def account(federated: Federated) -> Iterator[str]:
    """The user is logged in, too: there is a token that could be sent by mistake."""
    found = log_in(federated.client, USER)["account"]["account"]["email_address"].split("@")[0]
    yield str(found)
    log_out(federated.client, USER)


@pytest.fixture
def seen(sandbox: httpx.Client) -> Calls:
    """What this gateway has sent to the API since the test began."""
    began = len(sandbox.get("/control/requests").json())

    def calls() -> list[dict[str, Any]]:
        later = sandbox.get("/control/requests").json()[began:]
        return [call for call in later if call["host"] == urlsplit(BASE).netloc]

    return calls


def exchanges(sandbox: httpx.Client, workload: Workload) -> dict[str, int]:
    """How many exchanges of a workload had which outcome."""
    calls = sandbox.get("/control/token-calls", params={"account": workload.name}).json()
    outcomes: dict[str, int] = calls.get(GRANT_TYPE, {})
    return outcomes


def body(model: str, text: str = "Hello", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 9, **more}


def chat(federated: Federated, model: str, text: str = "Hello") -> httpx.Response:
    return federated.client.post("/v1/chat/completions", json=body(model, text))


@pytest.mark.parametrize("workload", [ISSUER, FILE], ids=["issuer", "file"])
@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"stream": True}),
        ("/v1/messages", {}),
        ("/v1/messages", {"stream": True}),
        ("/v1/messages/count_tokens", {}),
    ],
)
def test_the_model_goes_with_the_gateway_s_own_token_and_nobody_else_s(
    federated: Federated, account: str, seen: Calls, workload: Workload, path: str, more: dict[str, Any]
) -> None:
    answer = federated.client.post(path, json=body(workload.name, **more))
    assert answer.status_code == 200, answer.text
    (call,) = seen()
    assert (call["account"], call["status"]) == (workload.name, 200)
    assert (call["token_prefix"], call["has_x_api_key"]) == ("sk-ant-oat01-s", False)


def test_responses_do_as_well(federated: Federated, account: str, seen: Calls) -> None:
    answer = federated.client.post("/v1/responses", json={"model": ISSUER.name, "input": "Hello"})
    assert answer.status_code == 200, answer.text
    assert [call["account"] for call in seen()] == [ISSUER.name]


def test_the_token_of_a_file_is_bought_once_for_all_workers_and_an_issuer_s_once_for_each(
    federated: Federated, sandbox: httpx.Client
) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda name: chat(federated, name), [FILE.name, ISSUER.name] * 12)
        assert {answer.status_code for answer in answers} == {200}
    assert exchanges(sandbox, FILE) == {"ok": 1}
    assert exchanges(sandbox, ISSUER) in ({"ok": 1}, {"ok": 2})


def test_models_of_both_kinds_go_each_with_its_own_token_at_the_same_time(
    federated: Federated, account: str, seen: Calls
) -> None:
    models = {"own": account, ISSUER.name: ISSUER.name, FILE.name: FILE.name}
    questions = [(model, f"{model} asks {number}") for number in range(10) for model in models]
    with ThreadPoolExecutor(6) as pool:
        answers = pool.map(lambda one: chat(federated, *one), questions)
        assert {answer.status_code for answer in answers} == {200}
    assert {call["question"]: call["account"] for call in seen()} == {
        text: models[model] for model, text in questions
    }


def test_a_caller_without_a_login_has_the_federated_model_alone(federated: Federated, seen: Calls) -> None:
    for model, status in ((ISSUER.name, 200), ("own", 401)):
        answer = federated.client.post(
            "/v1/chat/completions", json=body(model), headers={"x-litellm-oauth-user": "nobody"}
        )
        assert answer.status_code == status, answer.text
    assert [call["account"] for call in seen()] == [ISSUER.name]


@pytest.mark.parametrize("nest", ["", "extra_body", "litellm_params", "metadata"])
@pytest.mark.parametrize(
    "sent",
    [
        {f"anthropic_{name}": value for name, value in by_issuer(BRIEF).items()},
        {"anthropic_federation_rule_id": FILE.identity["federation_rule_id"]},
        {"anthropic_identity_token_file": "/run/secrets/master_key"},
        {"anthropic_identity_token": "oidc/env/LITELLM_MASTER_KEY"},
        {"anthropic_disable_workload_identity_federation": True},
    ],
    ids=lambda sent: f"{len(sent)}-{next(iter(sent))}" if isinstance(sent, dict) else sent,
)
def test_a_client_chooses_no_identity(
    federated: Federated, sandbox: httpx.Client, account: str, seen: Calls, sent: dict[str, Any], nest: str
) -> None:
    before = [exchanges(sandbox, workload) for workload in (BRIEF, FILE)]
    for path in ("/v1/chat/completions", "/v1/messages"):
        for model in (ISSUER.name, "own"):
            asked = body(model, **({nest: sent} if nest else sent))
            answer = federated.client.post(path, json=asked)
            if (path, model, nest) == ("/v1/messages", "own", "metadata"):
                # Metadata are the API's own: these go past LiteLLM, to which alone they could say something.
                assert answer.status_code == 200, answer.text
                assert [call["account"] for call in seen()] == [account]
                continue
            assert answer.is_client_error, (path, model, answer.text)
            assert "server-owned workload identity federation parameter" in answer.text
    assert len(seen()) == (1 if nest == "metadata" else 0)
    assert [exchanges(sandbox, workload) for workload in (BRIEF, FILE)] == before


@pytest.mark.parametrize("name", ["api_base", "base_url"])
def test_a_client_sends_no_federated_token_elsewhere(federated: Federated, seen: Calls, name: str) -> None:
    elsewhere = body(ISSUER.name, **{name: "http://localhost:4010/elsewhere"})
    assert federated.client.post("/v1/chat/completions", json=elsewhere).is_client_error
    assert seen() == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_the_gateway_s_key_does_not_travel_whatever_header_it_comes_in(
    federated: Federated, stack: Stack, seen: Calls, path: str
) -> None:
    for header in ("x-api-key", "x-litellm-api-key"):
        url = str(federated.client.base_url.join(path))
        answer = httpx.post(url, json=body(ISSUER.name), headers={header: stack.key}, timeout=60)
        assert answer.status_code == 200, answer.text
    calls = seen()
    assert {(call["account"], call["has_x_api_key"]) for call in calls} == {(ISSUER.name, False)}
    assert [call for call in calls if "x-litellm-api-key" in call["headers"]] == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("way", ["header", "body"])
def test_a_token_that_a_client_brings_does_not_travel(
    federated: Federated, stack: Stack, sandbox: httpx.Client, seen: Calls, way: str, path: str
) -> None:
    (login,) = sandbox.post("/control/logins", json={"accounts": ["brought-along"]}).json()
    brought = {"Authorization": f"Bearer {login['access_token']}"}
    answer = httpx.post(
        str(federated.client.base_url.join(path)),
        json=body(ISSUER.name) | ({"extra_headers": brought} if way == "body" else {}),
        headers={"x-litellm-api-key": stack.key, **(brought if way == "header" else {})},
        timeout=60,
    )
    assert [call["account"] for call in seen()] in ([ISSUER.name], []), answer.text


def test_an_expired_federated_token_is_replaced(federated: Federated, seen: Calls) -> None:
    assert (answer := chat(federated, BRIEF.name)).status_code == 200, answer.text
    time.sleep(BRIEF_SECONDS + 0.5)
    assert (answer := chat(federated, BRIEF.name)).status_code == 200, answer.text
    first, second = seen()
    assert (first["account"], second["account"]) == (BRIEF.name, BRIEF.name)
    assert first["token_sha256"] != second["token_sha256"]


def test_a_rotated_file_brings_a_new_token_and_one_that_is_not_rotated_none(
    federated: Federated, sandbox: httpx.Client
) -> None:
    assert (answer := chat(federated, BRIEF_FILE.name)).status_code == 200, answer.text
    time.sleep(BRIEF_SECONDS + 0.5)
    answer = chat(federated, BRIEF_FILE.name)
    assert answer.status_code == 401
    assert "identity token was already exchanged once" in answer.text
    assert chat(federated, ISSUER.name).status_code == 200
    federated.bring(BRIEF_FILE)
    # LiteLLM waits a little after a refusal
    deadline = time.monotonic() + 15
    while (answer := chat(federated, BRIEF_FILE.name)).status_code == 401 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert answer.status_code == 200, answer.text


def test_a_workload_that_nobody_registered_is_told_so_and_costs_nobody_else(
    federated: Federated, seen: Calls
) -> None:
    answer = chat(federated, LOST.name)
    assert answer.status_code == 401
    assert "workload identity federation failed" in answer.text
    assert chat(federated, ISSUER.name).status_code == 200
    assert [call["account"] for call in seen()] == [ISSUER.name]


def test_no_key_and_no_token_shows(federated: Federated) -> None:
    key = ISSUER.key.as_pem(private=True).decode().splitlines()[1]
    federated.container.reload()
    shown = str(federated.container.attrs) + federated.container.logs().decode()
    assert KEY in shown
    for secret in (key, "sk-ant-oat01", (federated.tokens / f"{FILE.name}.jwt").read_text().split(".")[2]):
        assert secret not in shown
