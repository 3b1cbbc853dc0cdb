"""What a key opens, and which of several credentials counts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from support.asking import COUNTS, FORMS, MESSAGE, PLAIN, Form
from support.running_gateway import (
    MASTER_KEY,
    OPERATOR_KEY,
    SECRETS,
    USER_KEYS,
    RunningGateway,
    in_the_image,
)
from support.scripted_api import TOKEN_PATH, ScriptedApi, reply

HERE = Path(__file__).parent
ALICE = USER_KEYS["alice"]
BEHIND_TLS = {"Host": "gw.example.com", "X-Forwarded-Proto": "https"}
KEYED = json.dumps({**MESSAGE, "model": "keyed"}).encode()


def test_every_route_of_the_pinned_litellm_has_our_verdict() -> None:
    """One that a new version adds is closed to users, and shows here."""
    known = (HERE / "litellm_routes.txt").read_text().splitlines()
    assert in_the_image("-P", "/support/litellm_routes.py") == known


def test_every_field_of_the_pinned_litellm_s_own_is_known() -> None:
    code = (
        "from litellm_oauth.gateway.litellm_fields import litellm_fields; "
        "print(*sorted(litellm_fields()), sep='\\n')"
    )
    assert in_the_image("-c", code) == (HERE / "litellm_fields.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/anthropic/v1/organizations/api_keys"),
        ("POST", "/anthropic/v1/skills"),
        ("POST", "/anthropic/v1/messages/batches"),
        ("GET", "/anthropic/v1/messages/batches/msgbatch_1/results"),
        ("POST", "/anthropic/v1/complete"),
        ("POST", "/anthropic/v1/files"),
        ("POST", "/v1/files?model=keyed"),
        ("GET", "/v1/files?model=keyed"),
        ("POST", "/v1/batches?target_model_names=keyed"),
        ("POST", "/v1/skills?model=keyed"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/rerank"),
        ("POST", "/v1/audio/speech"),
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/assistants"),
        ("POST", "/openai/deployments/keyed/chat/completions"),
        ("POST", "/engines/keyed/chat/completions"),
        ("POST", "/vertex_ai/v1/projects/x"),
        ("POST", "/bedrock/model/x/invoke"),
        ("POST", "/openai/v1/files"),
        ("POST", "/mcp"),
        ("POST", "/a2a/x"),
        ("POST", "/v1beta/models/keyed:generateContent"),
        ("POST", "/utils/transform_request"),
        ("GET", "/test"),
        ("GET", "/routes"),
    ],
)
def test_an_operator_s_key_opens_models_and_nothing_else(
    gateway: RunningGateway, api: ScriptedApi, method: str, path: str
) -> None:
    for user in ("alice", "carol"):
        kind = {"Content-Type": "application/json"} if method == "POST" else {}
        body = KEYED if method == "POST" else None
        status, text, _ = gateway.raw(method, path, body, user, **kind)
        # Alice's own token opens the API; carol has none.
        assert status in (401, 403) or (user == "alice" and path.startswith("/anthropic/")), text
    assert not [one for one in api.received if OPERATOR_KEY in str(one.headers)]


@pytest.mark.parametrize("form", [*PLAIN, *COUNTS], ids=lambda form: form.name)
def test_an_operator_s_key_does_open_models(alice: httpx.Client, api: ScriptedApi, form: Form) -> None:
    answer = form.ask(alice, model="keyed")
    assert answer.status_code == 200, answer.text
    assert api.last.headers["x-api-key"] == OPERATOR_KEY
    assert "authorization" not in api.last.headers
    assert api.last.json["model"] == "claude-keyed-1"


@pytest.mark.parametrize("form", [form for form in PLAIN if form.path != "/anthropic/v1/messages"], ids=str)
@pytest.mark.parametrize("model", ["keyed", "claude-sonnet-4"])
@pytest.mark.parametrize(
    "way",
    [
        {"custom_llm_provider": "openai"},
        {"azure": True},
        {"deployment_id": "x"},
        {"use_litellm_proxy": True},
        {"use_xai_oauth": True},
        {"api_base": "http://127.0.0.1:9"},
        {"base_url": "http://127.0.0.1:9"},
        {"user_config": {"model_list": []}},
        {"model_list": []},
        {"fallbacks": [{"model": "keyed", "api_base": "http://127.0.0.1:9"}]},
    ],
    ids=str,
)
def test_no_field_leads_a_credential_elsewhere(
    alice: httpx.Client, api: ScriptedApi, form: Form, model: str, way: dict[str, object]
) -> None:
    answer = form.ask(alice, model=model, num_retries=0, **way)
    assert {one.path for one in api.received} <= {"/v1/messages"}
    if answer.status_code != 200:
        # Not a 401, on which clients throw their key away.
        assert answer.status_code == 400, answer.text
        assert api.received == []


@pytest.mark.parametrize("form", [*PLAIN[:2], *PLAIN[3:]], ids=lambda form: form.name)
@pytest.mark.parametrize("model", ["keyed", "claude-sonnet-4"])
@pytest.mark.parametrize("field", ["api_key", "api_base", "base_url"])
@pytest.mark.parametrize("value", ["obviously-fake-own-key", "", None, {}])
def test_no_body_chooses_the_credentials_or_the_address(
    alice: httpx.Client, api: ScriptedApi, form: Form, model: str, field: str, value: object
) -> None:
    answer = form.ask(alice, model=model, **{field: value})
    assert answer.status_code == 400, answer.text
    assert field in answer.json()["error"]["message"]
    assert api.received == []


@pytest.mark.parametrize("form", [*PLAIN[:2], *PLAIN[3:], COUNTS[0]], ids=lambda form: form.name)
@pytest.mark.parametrize("name", ["keyed", "keyed,claude-sonnet-4", "anthropic/claude-keyed-1"])
def test_the_query_names_no_model(alice: httpx.Client, api: ScriptedApi, form: Form, name: str) -> None:
    answer = alice.post(form.path, params={"model": name}, json=form.body)
    assert answer.status_code == 400, answer.text
    assert api.received == []


@pytest.mark.parametrize("form", [*PLAIN, COUNTS[0]], ids=lambda form: form.name)
@pytest.mark.parametrize("model", ["keyed", "claude-sonnet-4"])
def test_no_tool_names_a_model_that_is_not_listed(
    alice: httpx.Client, api: ScriptedApi, form: Form, model: str
) -> None:
    answer = form.ask(alice, model=model, tools=[{"type": "advisor", "name": "a", "model": "claude-x"}])
    assert answer.status_code in (400, 404), answer.text
    assert "claude-x" in answer.text
    assert api.received == []


@pytest.mark.parametrize(
    "path",
    [
        "x/../../admin",
        "v1/..;/x",
        "v1/../messages",
        "%252e%252e/x",
        "v1/%252e%252e/x",
        "%2e%2e/v1/messages",
        "v1/oauth%00",
        "v1/oauth;x",
        "v1/oauth/token",
        "v1/%6fauth/token",
        "v1/OAuth2/token",
        "v1//messages",
        "v1/messages%2fbatches",
        "v1/messages%5c..",
        "v1/mess ages".replace(" ", "%20"),
        "v1/messages%0d%0aX: y".replace(" ", "%20"),
        "v1",
        "",
        "v2/messages",
        "V1/messages",
        "./v1/messages",
        "v1/%c3%a9",
    ],
)
@pytest.mark.parametrize("model", ["keyed", "claude-sonnet-4"])
def test_no_path_leads_out_of_the_api(
    gateway: RunningGateway, api: ScriptedApi, path: str, model: str
) -> None:
    body = json.dumps({**MESSAGE, "model": model}).encode()
    status, text, _ = gateway.raw("POST", f"/anthropic/{path}", body)
    assert status == 400, text
    assert api.received == []


def test_a_path_is_decoded_once_and_goes_on_in_its_plain_form(
    gateway: RunningGateway, api: ScriptedApi
) -> None:
    status, text, _ = gateway.raw(
        "POST", "/anthropic/%76%31/m%65ssages?beta=true", json.dumps(MESSAGE).encode()
    )
    assert status == 200, text
    assert (api.last.path, api.last.query) == ("/v1/messages", "beta=true")


def test_the_caller_s_own_token_opens_the_rest_of_the_api(alice: httpx.Client, api: ScriptedApi) -> None:
    batch = {"requests": [{"custom_id": "a", "params": {**MESSAGE, "stream": False}}]}
    for method, path, body in (
        ("POST", "/anthropic/v1/messages/batches", batch),
        ("GET", "/anthropic/v1/messages/batches/msgbatch_1", None),
        ("GET", "/anthropic/v1/messages/batches/msgbatch_1/results", None),
        ("POST", "/anthropic/v1/messages/batches/msgbatch_1/cancel", None),
        ("POST", "/anthropic/v1/messages/batches/msgbatch_1/cancel", {}),
        ("DELETE", "/anthropic/v1/messages/batches/msgbatch_1", None),
        ("GET", "/anthropic/v1/files", None),
        ("GET", "/anthropic/v1/models", None),
    ):
        answer = alice.request(method, path, json=body)
        assert answer.status_code == 200, (path, answer.text)
        assert (api.last.method, api.last.path) == (method, path.removeprefix("/anthropic"))
        assert api.last.token.startswith("sk-ant-oat01-fake-")
        assert "x-api-key" not in api.last.headers
    created = next(one for one in api.received if one.path == "/v1/messages/batches")
    assert created.json["requests"][0]["params"]["model"] == "claude-sonnet-4-20250514"


HEADERS = (
    "authorization",
    "x-api-key",
    "x-litellm-api-key",
    "api-key",
    "x-goog-api-key",
    "ocp-apim-subscription-key",
)
PROVIDER = "sk-ant-oat01-of-the-client"


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("scheme", ["", "Bearer ", "bearer ", "BEARER  "])
@pytest.mark.parametrize("form", [PLAIN[0], PLAIN[3], COUNTS[1]], ids=lambda form: form.name)
def test_the_gateway_s_key_counts_wherever_it_stands(
    gateway: RunningGateway, api: ScriptedApi, name: str, scheme: str, form: Form
) -> None:
    """Beside it a login of the provider's, an empty header and another gateway's key, which stay here."""
    others = [other for other in HEADERS if other != name]
    headers = {
        name: f"{scheme}{ALICE}",
        others[0]: f"Bearer {PROVIDER}",
        others[1]: "",
        others[2]: "sk-of-another-gateway",
    }
    answer = httpx.post(f"{gateway.url}{form.path}", json=form.body, headers=headers, timeout=20)
    assert answer.status_code == 200, answer.text
    assert api.last.token.startswith("sk-ant-oat01-fake-")
    sent = str(api.last.headers)
    assert not [secret for secret in (*SECRETS, PROVIDER, "sk-of-another-gateway") if secret in sent]


def test_keys_of_two_owners_are_refused(gateway: RunningGateway, api: ScriptedApi) -> None:
    headers = {"Authorization": f"Bearer {ALICE}", "x-api-key": USER_KEYS["bob"]}
    for path in ("/v1/messages", "/v1/chat/completions", "/anthropic/v1/messages"):
        answer = httpx.post(f"{gateway.url}{path}", json=MESSAGE, headers=headers)
        assert answer.status_code == 400, answer.text
        assert not [secret for secret in SECRETS if secret in answer.text]
    assert api.received == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/anthropic/"),
        ("GET", "/anthropic"),
        ("GET", "/anthropic/v1/models"),
        ("GET", "/anthropic/api/hello"),
        ("GET", "/health/liveliness"),
        ("GET", "/health/readiness"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/claude-sonnet-4"),
        ("GET", "/auth/claude/oauth/status"),
        ("GET", "/auth/claude/oauth/health"),
        ("GET", "/api/hello"),
    ],
)
def test_head_is_answered_as_get_is_without_a_body(gateway: RunningGateway, method: str, path: str) -> None:
    got, text, _ = gateway.raw(method, path)
    headed, nothing, _ = gateway.raw("HEAD", path)
    assert got != 405, text
    assert (headed, nothing) == (got, "")


@pytest.mark.parametrize(
    "path", ["/v1/messages", "/v1/chat/completions", "/v1/models", "/anthropic/v1/messages", "/"]
)
def test_options_says_what_a_route_takes(gateway: RunningGateway, path: str) -> None:
    answer = httpx.options(f"{gateway.url}{path}")
    assert answer.status_code == 204, answer.text
    assert "OPTIONS" in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/anthropic/v1/messages"])
def test_a_browser_is_told_without_a_key_what_it_may_send(gateway: RunningGateway, path: str) -> None:
    headers = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{gateway.url}{path}", headers=headers)
    assert answer.status_code == 200, answer.text
    assert "POST" in answer.headers["access-control-allow-methods"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages/",
        "/v1/messages/count_tokens/",
        "/v1/chat/completions/",
        "/v1/responses/",
        "/anthropic/v1/messages/",
        "/v1/messages//",
    ],
)
def test_a_slash_at_the_end_redirects_nobody(gateway: RunningGateway, api: ScriptedApi, path: str) -> None:
    body = json.dumps(
        {**MESSAGE, "input": "Hello"}
        if "responses" not in path
        else {"model": "claude-sonnet-4", "input": "Hello"}
    )
    body = json.dumps(MESSAGE) if "responses" not in path else body
    status, text, headers = gateway.raw("POST", path, body.encode(), **BEHIND_TLS)
    assert status == 200, text
    assert "location" not in headers
    assert api.last.path == ("/v1/messages/count_tokens" if "count" in path else "/v1/messages")


@pytest.mark.parametrize(
    "path",
    ["/v1/models/", "/ui", "/swagger", "/health/liveliness/", "/no/such/", "/auth/claude/oauth/status/"],
)
def test_no_answer_leads_to_an_absolute_address(gateway: RunningGateway, path: str) -> None:
    _, _, headers = gateway.raw("GET", path, None, None, **BEHIND_TLS)
    assert not headers.get("location", "").startswith("http:")


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize(
    "model",
    [
        "anthropic/claude-sonnet-4-20250514",
        "claude-nope",
        "keyed,claude-sonnet-4",
        "KEYED",
        " keyed",
        "anthropic/keyed",
        "openai/gpt-4o",
        "*",
    ],
)
def test_a_name_that_is_not_listed_is_refused(
    alice: httpx.Client, api: ScriptedApi, form: Form, model: str
) -> None:
    answer = form.ask(alice, model=model)
    assert answer.status_code in (400, 404), answer.text
    assert "There is no model" in answer.json()["error"]["message"]
    assert api.received == []


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("where", ["fallbacks", "context_window_fallbacks", "content_policy_fallbacks"])
def test_no_fallback_leads_to_a_name_that_is_not_listed(
    alice: httpx.Client, api: ScriptedApi, form: Form, where: str
) -> None:
    for value in (
        ["anthropic/claude-x"],
        [{"model": "anthropic/claude-x"}],
        [{"claude-sonnet-4": ["anthropic/claude-x"]}],
    ):
        answer = form.ask(alice, **{where: value})
        if answer.status_code == 200:
            # The API's own business, as far as the gateway can tell: its field went on as it came.
            assert form.anthropic
            assert where != "fallbacks"
        else:
            assert answer.status_code in (400, 404), answer.text


@pytest.mark.parametrize("form", [*PLAIN, *COUNTS], ids=lambda form: form.name)
def test_a_long_context_is_asked_for_by_the_same_name_everywhere(
    alice: httpx.Client, api: ScriptedApi, form: Form
) -> None:
    answer = form.ask(alice, model="claude-sonnet-4[1m]")
    assert answer.status_code == 200, answer.text
    assert api.last.json["model"] == "claude-sonnet-4-20250514"
    assert "local_estimate" not in answer.text


@pytest.mark.parametrize("form", COUNTS, ids=lambda form: form.name)
def test_a_count_is_the_api_s_or_an_error(alice: httpx.Client, api: ScriptedApi, form: Form) -> None:
    for model in ("claude-sonnet-4", "keyed"):
        assert form.ask(alice, model=model).json() == {"input_tokens": 42}
        api.then(form.api_path, b"HTTP/1.1 500 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        assert form.ask(alice, model=model).status_code == 500


@pytest.mark.parametrize("prefix", ["/v1/models", "/models"])
def test_one_model_is_described_in_both_forms(alice: httpx.Client, prefix: str) -> None:
    version = {"anthropic-version": "2023-06-01"}
    answer = alice.get(f"{prefix}/claude-sonnet-4", headers=version)
    assert (answer.status_code, answer.json()["type"], answer.json()["id"]) == (
        200,
        "model",
        "claude-sonnet-4",
    )
    answer = alice.get(f"{prefix}/claude-sonnet-4")
    assert (answer.json()["object"], answer.json()["id"]) == ("model", "claude-sonnet-4")
    assert alice.get(f"{prefix}/claude-nope").status_code == 404
    assert alice.get(f"{prefix}/claude-nope", headers=version).json()["error"]["type"] == "not_found_error"


def test_one_model_below_anthropic_goes_by_the_api_s_name(alice: httpx.Client, api: ScriptedApi) -> None:
    assert alice.get("/anthropic/v1/models/claude-sonnet-4").status_code == 200
    assert api.last.path == "/v1/models/claude-sonnet-4-20250514"


def test_a_token_of_any_printable_characters_arrives_as_it_is(
    gateway: RunningGateway, api: ScriptedApi
) -> None:
    """RFC 6749 A.12."""
    token = 'obviously fake, "quoted" \\ ;=&%20~{}|!'
    api.then(TOKEN_PATH, reply({"access_token": token, "refresh_token": token, "token_type": "bearer"}))
    gateway.log_in("dora")
    with gateway.client("dora") as dora:
        for form in FORMS:
            assert form.ask(dora).status_code == 200, form.name
            assert api.last.headers["authorization"] == f"Bearer {token}"


def test_a_dead_token_is_replaced_once_on_every_route(gateway: RunningGateway, api: ScriptedApi) -> None:
    """The one retry that a listed model has."""
    refused = reply({"type": "error", "error": {"type": "authentication_error", "message": "dead"}}, "401 No")
    for form in (*PLAIN, *COUNTS):
        user = {"message": "alice", "chat": "bob", "response": "dora"}.get(form.name)
        if user is None:
            continue
        gateway.log_in(user)
        api.forget()
        api.then(form.api_path, refused)
        with gateway.client(user) as client:
            answer = form.ask(client)
        assert answer.status_code == 200, (form.name, answer.text)
        assert len({one.token for one in api.received}) == 2
        assert len(api.token_calls) == 1


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["", "/", "/start", "/users", "/refresh/x", "/tokens", "/start/x"])
@pytest.mark.parametrize("key", ["", "sk-obviously-unknown"])
def test_no_route_of_the_logins_says_anything_to_a_stranger(
    gateway: RunningGateway, method: str, path: str, key: str
) -> None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = httpx.request(method, f"{gateway.url}/auth/claude/oauth{path}", headers=headers)
    assert answer.status_code == 401, answer.text
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_the_description_needs_a_key_and_holds_nobody_up(gateway: RunningGateway, api: ScriptedApi) -> None:
    assert httpx.get(f"{gateway.url}/openapi.json").status_code == 401

    async def run() -> tuple[httpx.Response, list[float]]:
        headers = {"Authorization": f"Bearer {ALICE}"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=120) as client:
            description = asyncio.create_task(client.get("/openapi.json"))
            times = []
            loop = asyncio.get_running_loop()
            while not description.done():
                started = loop.time()
                assert (await client.post("/v1/messages", json=MESSAGE)).status_code == 200
                times.append(loop.time() - started)
            return await description, times

    answer, times = asyncio.run(run())
    assert answer.json()["openapi"].startswith("3.")
    assert "/auth/claude/oauth/start" in answer.json()["paths"]
    assert times
    # Held up, one would take as long as the whole document does.
    assert max(times) < 3


def test_an_administrator_may_call_the_rest(gateway: RunningGateway) -> None:
    with gateway.client(None) as client:
        assert client.get("/routes").status_code == 200
        assert client.get("/health/readiness").status_code == 200
    assert MASTER_KEY not in gateway.logs()
