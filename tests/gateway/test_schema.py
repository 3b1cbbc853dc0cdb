"""Our routes do what the OpenAPI document says, whatever is sent, and no answer holds a secret."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis

from litellm_oauth.cipher import Cipher
from litellm_oauth.settings import Settings
from litellm_oauth.vault import ACCESS, REFRESH, VERIFIER
from support.gateway import KEYS, Configuration, Gateway
from support.leaks import Secrets, verifier_digests
from support.live_gateway import LiveGateway, live_gateway
from support.postgres import LOGINS, TOKENS, TestDatabase
from support.sandbox import SandboxProvider
from support.schema import PREFIX, Run, examine

USERS = ("alice", "bob", "nobody")
# So many random requests to each route, in `make check` a few. `make test` asks for more of them, and for the
# limits of everything that is taken, one by one.
EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "0"))
PHASES = ("coverage", "fuzzing", "stateful") if EXAMPLES else ("fuzzing",)
# What a good request gets of each route that changes no login.
SERVED = {"GET start": {200, 409}, "GET status": {200}, "GET users": {200}, "GET health": {200}}


@pytest.fixture
def settings(configuration: Configuration) -> Settings:
    return configuration.settings()


@pytest.fixture
def live(settings: Settings, sandbox: SandboxProvider) -> Iterator[LiveGateway]:
    """A gateway whose users are logged in, so that there is something to tell."""
    with live_gateway(settings, sandbox) as live:
        live.log_in("default", *USERS[:2])
        yield live


def stored(settings: Settings, database: TestDatabase) -> dict[str, set[str]]:
    """What the database holds for users: the tokens and verifiers that decrypt, and ``sealed`` as it is."""
    cipher = Cipher(settings.encryption_key)
    found: dict[str, set[str]] = {ACCESS: set(), REFRESH: set(), VERIFIER: set(), "sealed": set()}
    for table, names in ((TOKENS, (ACCESS, REFRESH)), (LOGINS, (VERIFIER,))):
        for row in database.query(f"SELECT * FROM {table}"):  # noqa: S608
            for name in names:
                if sealed := row[f"{name}_encrypted"]:
                    plain = cipher.decrypt(sealed, user=row["user_id"], field=name)
                    found[name].add(plain.partition(" ")[0])
                    found["sealed"].add(sealed)
    return found


@pytest.mark.parametrize(("key", "few"), [("sk-master", 5), ("sk-alice", 3), (None, 1)])
def test_whatever_is_sent_the_answer_is_as_documented_and_holds_no_secret(
    live: LiveGateway,
    sandbox: SandboxProvider,
    database: TestDatabase,
    settings: Settings,
    tmp_path: Path,
    key: str | None,
    few: int,
) -> None:
    code = live.code("alice").partition("#")[0]
    before = stored(settings, database)
    run = examine(live.url, tmp_path, key=key, users=USERS, examples=EXAMPLES or few, phases=PHASES)
    assert run.conforms, run.report
    after = stored(settings, database)
    plain = {name: before[name] | after[name] for name in (ACCESS, REFRESH, VERIFIER)}
    issued = sandbox.issued()
    # The provider knows by hash what the gateway holds: those are the hashes of tokens as they travel.
    assert {hashed(token) for token in plain[ACCESS] | plain[REFRESH]} <= issued
    challenges = verifier_digests(answer.text for answer in run.answers)
    words = {code, *KEYS, *passwords(settings)}.union(*before.values(), *after.values())
    secrets = Secrets(
        frozenset(words),
        issued | challenges,
        frozenset(len(text) for text in {code}.union(*plain.values())),
    )
    assert [answer for answer in run.answers if secrets.found_in(answer.text)] == []
    assert_asked_in_earnest(run, key)


def passwords(settings: Settings) -> set[str]:
    """What opens the database, and what is in it."""
    database = settings.database
    assert database is not None
    assert database.password
    assert settings.encryption_key
    return {database.password, settings.encryption_key}


def assert_asked_in_earnest(run: Run, key: str | None) -> None:
    """A key opens what it is good for, and none opens nothing: else little was proven."""
    if key is None:
        assert {answer.status for answer in run.answers} <= {401, 405}
        return
    served = {route for route, good in SERVED.items() if run.statuses(route) & good}
    assert served == SERVED.keys() - (set() if KEYS[key].is_admin else {"GET users"})


def hashed(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


def test_a_secret_is_found_wherever_it_stands_in_an_answer() -> None:
    token = "sk-ant-oat01-sandbox-" + "fake" * 16
    known = Secrets(frozenset(), frozenset({hashed(token)}), frozenset({len(token)}))
    for answer in (token, f'{{"error": "Bearer {token}"}}', f"location: /x?token=x{token}y"):
        assert known.found_in(answer) == [token]
    assert known.found_in(f"{token[:-1]}!") == []
    assert Secrets(frozenset({"sk-master"})).found_in("x: sk-master\n") == ["sk-master"]


def test_a_verifier_is_known_by_its_challenge() -> None:
    # RFC 7636, appendix B
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    url = "https://example.com/?code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&x=y"
    assert verifier_digests([url]) == {hashed(verifier)}


async def test_every_good_answer_is_whole_and_nothing_in_it_is_undocumented(gateway: Gateway) -> None:
    document = gateway.app.openapi()
    routes = schemathesis.openapi.from_dict(document)
    asked: list[tuple[str, str, httpx.Response]] = []

    async def ask(method: str, path: str, json: object = None) -> Any:
        answer = await gateway.call("sk-master", method, path, json=json)
        asked.append((method, path, answer))
        return answer.json()

    started = await ask("GET", "/start")
    assert gateway.sandbox is not None
    code = gateway.sandbox.approve(started["authorization_url"])
    await ask("POST", "/exchange", {"code": code})
    await ask("GET", "/status")
    await ask("GET", "/users")
    await ask("GET", "/health")
    await ask("POST", "/refresh", {"force": True})
    job = await ask("POST", "/refresh", {"all": True})
    for _ in range(500):
        page = await ask("GET", f"/refresh/{job['job_id']}")
        if page["results"]:
            break
        await asyncio.sleep(0.02)
    assert page["results"]
    await ask("POST", "/logout")
    seen = set()
    for method, path, answer in asked:
        assert answer.is_success, answer.text
        template = PREFIX + ("refresh/{job_id}" if path.startswith("/refresh/") else path[1:])
        routes[template][method].validate_response(answer)
        response = document["paths"][template][method.lower()]["responses"][str(answer.status_code)]
        shape = response["content"]["application/json"]["schema"]
        assert undocumented(answer.json(), shape, document) == set()
        seen.add((method.lower(), template, answer.status_code))
    good = {
        (method, path, int(status))
        for path, item in document["paths"].items()
        for method, operation in item.items()
        for status in operation["responses"]
        if status.startswith("2")
    }
    assert seen == good


def undocumented(value: object, schema: dict[str, Any], document: dict[str, Any]) -> set[str]:
    """The fields of ``value``, at any depth, that its schema does not know."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return undocumented(value, document["components"]["schemas"][name], document)
    if isinstance(value, list):
        return set().union(*(undocumented(one, schema["items"], document) for one in value))
    if not isinstance(value, dict) or "properties" not in schema:
        return set()
    known: dict[str, Any] = schema["properties"]
    deeper = [undocumented(value[name], known[name], document) for name in value.keys() & known]
    return {str(name) for name in value if name not in known}.union(*deeper)


def test_the_document_says_of_every_route_who_may_call_and_what_every_answer_carries(guard: Gateway) -> None:
    paths = guard.app.openapi()["paths"]
    for path, item in paths.items():
        for operation in item.values():
            assert operation["security"] == [{"GatewayKey": []}], path
            for status, answer in operation["responses"].items():
                headers = {name for name, header in answer["headers"].items() if header["required"]}
                wanted = {"401": {"WWW-Authenticate"}, "429": {"Retry-After"}, "202": {"Location"}}
                assert headers == {"Cache-Control"} | wanted.get(status, set()), (path, status)
                assert answer["content"]["application/json"]["schema"], (path, status)


def test_with_an_anonymous_api_the_document_lets_in_who_has_no_key(open_gateway: Gateway) -> None:
    paths = open_gateway.app.openapi()["paths"]
    open_to_all = {
        path.removeprefix(PREFIX)
        for path, item in paths.items()
        for operation in item.values()
        if {} in operation["security"]
    }
    assert open_to_all == {"start", "exchange", "status"}


async def test_an_unknown_method_is_a_405_in_the_shape_of_all_errors(guard: Gateway) -> None:
    for path, item in guard.app.openapi()["paths"].items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - {name.upper() for name in item}:
            answer = await guard.call("sk-master", method, path.removeprefix(PREFIX.rstrip("/")))
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (405, "method_not_allowed"), (method, path)
            assert error.keys() == {"message", "type", "param", "code"}
            assert answer.headers["allow"] == ", ".join(name.upper() for name in item)
            assert answer.headers["cache-control"] == "no-store"
