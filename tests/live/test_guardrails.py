"""Guardrails look at each message and each answer, see no credential, and nothing goes past them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.asking import CALLED, COUNTS, MESSAGE, PLAIN, STREAMED, Form
from support.running_gateway import SECRETS, TOKENS, RunningGateway, configuration, running_gateway
from support.scripted_api import STREAM_HEAD, ScriptedApi, events, message, reply, scripted_api

GUARDRAIL_KEY = "obviously-fake-guardrail-key"
GENERIC = "/beta/litellm_basic_guardrail_api"
SERVICES = [GENERIC, "/moderations", "/v2/guard", "/analyze"]
BOTH = ["pre_call", "post_call"]
FORM = pytest.mark.parametrize("form", PLAIN + STREAMED, ids=lambda form: form.name)
ONE_OF_EACH = pytest.mark.parametrize("form", [PLAIN[0], PLAIN[3], PLAIN[4]], ids=lambda form: form.name)


def _guardrail(name: str, kind: str, mode: object, **params: object) -> dict[str, Any]:
    params = {"guardrail": kind, "mode": mode, "default_on": True, **params}
    return {"guardrail_name": name, "litellm_params": params}


def _guardrails(url: str) -> list[dict[str, Any]]:
    service: dict[str, Any] = {"api_base": url, "api_key": "os.environ/GUARDRAIL_KEY"}
    words = [{"keyword": "forbidden-word", "action": "BLOCK"}]
    pattern = {"pattern_type": "prebuilt", "pattern_name": "email", "action": "MASK"}
    return [
        _guardrail("generic", "generic_guardrail_api", [*BOTH, "during_call"], **service),
        _guardrail("words", "litellm_content_filter", BOTH, blocked_words=words, patterns=[pattern]),
        _guardrail("moderation", "openai_moderation", BOTH, **service),
        _guardrail("lakera", "lakera_v2", BOTH, **service),
        _guardrail(
            "persons",
            "presidio",
            "pre_call",
            presidio_analyzer_api_base=url,
            presidio_anonymizer_api_base=url,
            pii_entities_config={"PERSON": "BLOCK"},
        ),
        _guardrail("code", "block_code_execution", "pre_call", default_on=False),
    ]


@pytest.fixture(scope="module")
def service() -> Iterator[ScriptedApi]:
    with scripted_api() as server:
        yield server


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedApi, service: ScriptedApi
) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("guarded")
    config = {**configuration(scripted), "guardrails": _guardrails(service.url)}
    (folder / "GUARDRAIL_KEY").write_text(GUARDRAIL_KEY)
    environment = {"LITELLM_OAUTH_CALLBACK_KEYS": "GUARDRAIL_KEY"}
    with running_gateway(folder, config, scripted, environment=environment) as gateway:
        gateway.log_in("alice")
        yield gateway


@pytest.fixture
def guard(service: ScriptedApi) -> ScriptedApi:
    """The services behind the guardrails, which find nothing wrong."""
    service.forget()
    fine = {"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}
    service.always(GENERIC, reply({"action": "NONE"}))
    service.always("/moderations", reply({"id": "m", "model": "m", "results": [fine]}))
    service.always("/v2/guard", reply({"flagged": False, "payload": [], "breakdown": []}))
    service.always("/analyze", reply([]))
    return service


@pytest.fixture
def asker(guarded: RunningGateway, api: ScriptedApi, guard: ScriptedApi) -> Iterator[httpx.Client]:
    with guarded.client("alice") as client:
        yield client


def _saying(form: Form, text: str) -> dict[str, Any]:
    return {"input": text} if "input" in form.body else {"messages": [{"role": "user", "content": text}]}


@FORM
def test_a_guardrail_sees_question_and_answer_and_never_a_credential(
    asker: httpx.Client, api: ScriptedApi, guard: ScriptedApi, form: Form
) -> None:
    answer = form.ask(asker)
    assert answer.status_code == 200
    assert "Hello back" in answer.text
    assert len(api.received) == 1
    seen = [one.json for one in guard.received if one.path == GENERIC]
    assert {one["input_type"] for one in seen} == {"request", "response"}
    assert "Hello" in seen[0]["texts"]
    assert any("Hello back" in text for one in seen for text in one["texts"])
    assert {one["request_data"]["user_api_key_user_id"] for one in seen} == {"alice"}
    assert {one.path for one in guard.received} == set(SERVICES)
    for one in guard.received:
        told = f"{one.headers} {one.body.decode()}"
        assert [secret for secret in (*SECRETS, *TOKENS) if secret in told] == []


@FORM
def test_what_a_guardrail_refuses_reaches_no_model(asker: httpx.Client, api: ScriptedApi, form: Form) -> None:
    answer = form.ask(asker, **_saying(form, "Say the forbidden-word"))
    assert answer.status_code == 400
    assert "forbidden-word" in answer.json()["error"]["message"]
    assert ("type" in answer.json()) is form.anthropic
    assert api.received == []


@FORM
def test_what_a_guardrail_masks_is_masked_for_the_model(
    asker: httpx.Client, api: ScriptedApi, form: Form
) -> None:
    assert form.ask(asker, **_saying(form, "Write to anna@example.com")).status_code == 200
    assert b"EMAIL_REDACTED" in api.last.body
    assert b"anna@example.com" not in api.last.body


# LiteLLM's own filter does not look at answers of the streamed form of responses.
@pytest.mark.parametrize("form", PLAIN + STREAMED[:4], ids=lambda form: form.name)
def test_an_answer_that_a_guardrail_refuses_reaches_nobody(
    asker: httpx.Client, api: ScriptedApi, form: Form
) -> None:
    text = "It is the forbidden-word"
    streamed = [STREAM_HEAD, *events(text)]
    api.always(form.api_path, (lambda _: streamed) if form in STREAMED else reply(message(text)))
    answer = form.ask(asker)
    assert answer.status_code == 400
    assert "keyword 'forbidden-word' detected" in answer.text
    assert text not in answer.text


@ONE_OF_EACH
@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        (GENERIC, {"action": "BLOCKED", "blocked_reason": "not so"}),
        (
            "/moderations",
            {"id": "m", "model": "m", "results": [{"flagged": True, "categories": {"a": True}}]},
        ),
        (
            "/v2/guard",
            {"flagged": True, "payload": [], "breakdown": [{"detected": True, "detector_type": "x"}]},
        ),
        ("/analyze", [{"entity_type": "PERSON", "start": 0, "end": 5, "score": 0.9}]),
    ],
    ids=str,
)
def test_each_service_is_heeded(
    asker: httpx.Client, api: ScriptedApi, guard: ScriptedApi, form: Form, path: str, refusal: Any
) -> None:
    whole = {"category_scores": {"a": 1.0}, "category_applied_input_types": {}}
    if path == "/moderations":
        refusal = {**refusal, "results": [{**refusal["results"][0], **whole}]}
    guard.always(path, reply(refusal))
    answer = form.ask(asker)
    assert answer.status_code == 400, answer.text
    assert api.received == []


@ONE_OF_EACH
@pytest.mark.parametrize("broken", [b"", reply({}, "500 Broken")], ids=["silent", "broken"])
@pytest.mark.parametrize("path", SERVICES)
def test_without_a_service_no_model_is_asked_and_the_client_is_not_blamed_for_its_body(
    asker: httpx.Client, api: ScriptedApi, guard: ScriptedApi, form: Form, path: str, broken: bytes
) -> None:
    guard.always(path, broken)
    answer = form.ask(asker)
    assert answer.status_code >= 400
    assert "shape" not in answer.text
    assert api.received == []


@ONE_OF_EACH
def test_a_guardrail_that_is_not_on_by_default_looks_when_it_is_named(
    asker: httpx.Client, api: ScriptedApi, form: Form
) -> None:
    run = _saying(form, "Run this code:\n```python\nprint(1)\n```")
    assert form.ask(asker, **run).status_code == 200
    api.forget()
    # This one answers in the place of the model.
    assert "Content blocked" in form.ask(asker, **run, guardrails=["code"]).text
    assert api.received == []


def test_below_anthropic_nothing_goes_past_the_guardrails(
    asker: httpx.Client, api: ScriptedApi, guard: ScriptedApi
) -> None:
    # The API's own name of a model is good there; the router knows the other one.
    answer = asker.post("/anthropic/v1/messages", json={**MESSAGE, "model": CALLED})
    assert answer.status_code == 200, answer.text
    assert api.last.json["model"] == CALLED
    assert any(one.path == GENERIC for one in guard.received)
    lost = asker.post("/anthropic/v1/messages", json={**MESSAGE, "no_such_field": 1})
    assert lost.status_code == 400
    assert "no_such_field" in lost.text
    assert "/anthropic/" not in lost.text
    api.forget()
    unknown = asker.post("/anthropic/v1/messages", json={**MESSAGE, "model": "no-such"})
    assert (unknown.status_code, "no model 'no-such' here" in unknown.text) == (404, True)
    batch = {"requests": [{"custom_id": "a", "params": MESSAGE}]}
    for method, path, body in (
        ("POST", "v1/messages/batches", batch),
        ("POST", "v1/complete", {**MESSAGE, "prompt": "Hello"}),
        ("POST", "v1/files", {"file": "x"}),
        ("PUT", "v1/messages", MESSAGE),
        ("POST", "v1/%6Dessages/batches", batch),
    ):
        refused = asker.request(method, f"/anthropic/{path}", json=body)
        assert refused.status_code == 403, (path, refused.text)
        assert "guardrails" in refused.json()["error"]["message"]
    assert api.received == []
    assert asker.get("/anthropic/v1/messages/batches").status_code == 200
    for form in COUNTS:
        assert form.ask(asker).json() == {"input_tokens": 42}


def test_a_gateway_does_not_start_without_one_of_its_guardrails(guarded: RunningGateway) -> None:
    code = (
        "from litellm.proxy import proxy_server\n"
        "from litellm_oauth.gateway.guarded import demand_guardrails\n"
        "demand_guardrails()\n"
        "def one(name, kind='litellm_content_filter', **more):\n"
        "    params = {'guardrail': kind, 'mode': 'pre_call', **more}\n"
        "    return {'guardrail_name': name, 'litellm_params': params}\n"
        "proxy_server.init_guardrails_v2([one('good')])\n"
        "print('so far', flush=True)\n"
        "proxy_server.init_guardrails_v2([one('fine'), one('odd', 'no_such')])\n"
        "print('without it', flush=True)\n"
    )
    with pytest.raises(subprocess.CalledProcessError) as caught:
        guarded.python(code)
    assert caught.value.returncode == 3
    assert caught.value.stdout.splitlines()[-1] == "so far"
    assert "cannot make the guardrail odd of config.yaml" in caught.value.stderr
