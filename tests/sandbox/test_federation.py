"""Workload identity federation: a signed assertion, once, for a short-lived token (RFC 7523, RFC 7521)."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from support.oauth_client import OAuthClient
from support.sandbox import SandboxProvider
from support.workload import GRANT_TYPE, Workload


@pytest.fixture
def workload(client: OAuthClient) -> Workload:
    """A registered one."""
    found = Workload("robot")
    register(client.provider, found)
    return found


def register(provider: SandboxProvider, workload: Workload, **changes: Any) -> None:
    provider.control("POST", "federation", workload.rule(**changes))


def right_fields(workload: Workload) -> dict[str, str]:
    return {"grant_type": GRANT_TYPE, "assertion": workload.assertion(), **workload.identity}


def exchange(
    client: OAuthClient, workload: Workload, assertion: str | None = None, **changes: str
) -> httpx.Response:
    """A right request, but for ``changes``."""
    fields = {**right_fields(workload), **({"assertion": assertion} if assertion else {}), **changes}
    return client.http.post(client.provider.token_url, json=fields)


def denied(client: OAuthClient, answer: httpx.Response, reason: str) -> None:
    """The answer says nothing of the reason; the provider's owner can read it."""
    assert answer.status_code == 401, answer.text
    assert answer.json()["error"] == "invalid_grant"
    assert reason not in answer.text
    assert "sk-ant" not in answer.text
    assert client.provider.counters()["events"] == {f"exchanges_denied_{reason}": 1}


def segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def test_an_assertion_buys_a_token_that_the_api_knows_as_an_account_of_its_own(
    client: OAuthClient, workload: Workload
) -> None:
    answer = exchange(client, workload)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    token = answer.json()
    assert token["access_token"].startswith("sk-ant-oat01-")
    assert (token["token_type"], token["expires_in"]) == ("Bearer", 3600)
    assert "refresh_token" not in token
    assert client.ask(token["access_token"]).status_code == 200
    (call,) = client.provider.requests()
    assert (call["account"], call["status"]) == ("robot", 200)
    assert client.provider.token_calls("robot") == {
        "total": 1,
        "authorization_code": {},
        "refresh_token": {},
        GRANT_TYPE: {"ok": 1},
    }


def test_the_token_is_claude_s_whatever_people_get(client: OAuthClient, workload: Workload) -> None:
    client.provider.settings(claude_tokens=False)
    assert exchange(client, workload).json()["access_token"].startswith("sk-ant-oat01-")


def test_a_form_does_as_well_as_the_standard_has_it(client: OAuthClient, workload: Workload) -> None:
    fields = right_fields(workload)
    assert client.http.post(client.provider.token_url, data=fields).status_code == 200


def test_an_assertion_is_good_once_and_stays_used_through_a_restart(own_sandbox: SandboxProvider) -> None:
    client, workload = OAuthClient(own_sandbox), Workload("robot")
    register(own_sandbox, workload)
    assertion = workload.assertion()
    assert exchange(client, workload, assertion).status_code == 200
    denied(client, exchange(client, workload, assertion), "jti_reused")
    own_sandbox.restart()
    denied(client, exchange(client, workload, assertion), "jti_reused")
    assert exchange(client, workload).status_code == 200
    client.http.close()


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://other.issuer.example"}, "issuer_mismatch"),
        ({"iss": None}, "assertion_invalid"),
        ({"iss": ["https://robot.issuer.example"]}, "assertion_invalid"),
        ({"aud": "https://other.example"}, "aud_refused"),
        ({"aud": None}, "aud_refused"),
        ({"aud": []}, "aud_refused"),
        ({"sub": "workload:other"}, "sub_refused"),
        ({"sub": None}, "sub_refused"),
        ({"sub": ["workload:robot"]}, "sub_refused"),
        ({"exp": int(time.time()) - 60}, "exp_refused"),
        ({"exp": None}, "exp_refused"),
        ({"exp": "tomorrow"}, "exp_refused"),
        ({"exp": int(time.time()) + 50 * 3600}, "exp_refused"),
        ({"iat": int(time.time()) + 600, "exp": int(time.time()) + 900}, "iat_refused"),
        ({"iat": None}, "iat_refused"),
        ({"nbf": int(time.time()) + 600}, "nbf_refused"),
        ({"jti": None}, "jti_refused"),
        ({"jti": ""}, "jti_refused"),
    ],
)
def test_a_claim_that_is_not_the_rule_s_is_refused(
    client: OAuthClient, workload: Workload, claims: dict[str, Any], reason: str
) -> None:
    denied(client, exchange(client, workload, workload.assertion(**claims)), reason)


def test_several_audiences_are_fine_if_one_is_the_provider(client: OAuthClient, workload: Workload) -> None:
    assertion = workload.assertion(aud=["https://other.example", workload.audience])
    assert exchange(client, workload, assertion).status_code == 200


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("federation_rule_id", "fdrl_other", "rule_unknown"),
        ("organization_id", "00000000-0000-4000-8000-000000000002", "organization_mismatch"),
        ("service_account_id", "svac_other", "service_account_mismatch"),
        ("workspace_id", "wrkspc_other", "workspace_mismatch"),
    ],
)
def test_what_the_rule_does_not_lead_to_is_refused(
    client: OAuthClient, workload: Workload, field: str, value: str, reason: str
) -> None:
    denied(client, exchange(client, workload, **{field: value}), reason)


@pytest.mark.parametrize(
    "field", ["assertion", "federation_rule_id", "organization_id", "service_account_id"]
)
def test_a_field_that_is_left_out_is_named(client: OAuthClient, workload: Workload, field: str) -> None:
    fields = right_fields(workload)
    del fields[field]
    answer = client.http.post(client.provider.token_url, json=fields)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert field in answer.json()["error_description"]


def test_a_rule_of_several_workspaces_wants_one_of_them_named(
    client: OAuthClient, workload: Workload
) -> None:
    register(client.provider, workload, workspaces=["default", "wrkspc_one"])
    denied(client, exchange(client, workload), "workspace_id_required")
    assert exchange(client, workload, workspace_id="wrkspc_one").status_code == 200


def test_only_the_registered_key_signs(client: OAuthClient, workload: Workload) -> None:
    twin = ECKey.import_key({**Workload("else").key.as_dict(private=True), "kid": workload.key.kid or ""})
    denied(client, exchange(client, workload, workload.assertion(key=twin)), "assertion_invalid")


def test_a_key_that_nobody_registered_is_not_looked_for(client: OAuthClient, workload: Workload) -> None:
    stranger = Workload("else").key
    denied(client, exchange(client, workload, workload.assertion(key=stranger)), "assertion_invalid")


def test_the_public_key_is_no_shared_secret(client: OAuthClient, workload: Workload) -> None:
    assert isinstance(workload.key, ECKey)
    pem = workload.key.public_key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signing = segment(json.dumps({"alg": "HS256", "kid": workload.key.kid}).encode())
    content = f"{signing}.{segment(json.dumps(workload.claims()).encode())}".encode()
    signature = jws.JWSRegistry.algorithms["HS256"].sign(content, OctKey.import_key(segment(pem)))
    forged = f"{content.decode()}.{segment(signature)}"
    denied(client, exchange(client, workload, forged), "assertion_invalid")


@pytest.mark.parametrize(
    "header", [{"alg": "none"}, {"alg": None}, {}, {"alg": []}, {"alg": "ES256", "crit": ["x"]}, [], 7]
)
def test_a_header_that_promises_no_signature_is_refused(
    client: OAuthClient, workload: Workload, header: object
) -> None:
    claims = segment(json.dumps(workload.claims()).encode())
    forged = f"{segment(json.dumps(header).encode())}.{claims}.{segment(b'x' * 64)}"
    denied(client, exchange(client, workload, forged), "assertion_invalid")


@pytest.mark.parametrize(
    "assertion", ["x", "a.b", "a.b.c", "....", "e30.e30.", "e30.W10.eA", "!.!.!", f"e30.{'W' * 20000}.eA"]
)
def test_what_is_no_assertion_is_refused(client: OAuthClient, workload: Workload, assertion: str) -> None:
    denied(client, exchange(client, workload, assertion), "assertion_invalid")


def test_a_changed_assertion_is_refused(client: OAuthClient, workload: Workload) -> None:
    header, _, signature = workload.assertion().split(".")
    changed = segment(json.dumps(workload.claims(sub="workload:robot")).encode())
    denied(client, exchange(client, workload, f"{header}.{changed}.{signature}"), "assertion_invalid")


def test_an_rsa_key_does_as_well(client: OAuthClient) -> None:
    workload = Workload("rsa", key=RSAKey.generate_key(2048, auto_kid=True))
    register(client.provider, workload)
    assert exchange(client, workload).status_code == 200


def test_a_refused_exchange_leaves_the_assertion_usable(client: OAuthClient, workload: Workload) -> None:
    assertion = workload.assertion()
    denied(client, exchange(client, workload, assertion, organization_id="x"), "organization_mismatch")
    assert exchange(client, workload, assertion).status_code == 200


def test_a_token_lives_as_long_as_the_rule_says(client: OAuthClient, workload: Workload) -> None:
    register(client.provider, workload, token_seconds=60)
    token = exchange(client, workload).json()
    assert token["expires_in"] == 60
    client.provider.settings(clock_skew_seconds=55)
    assert client.ask(token["access_token"]).status_code == 200
    client.provider.settings(clock_skew_seconds=61)
    assert client.ask(token["access_token"]).status_code == 401


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"issuer_url": None}, "issuer_url must be a text"),
        ({"audience": ""}, "audience must be a text"),
        ({"account": "No Good!"}, "account"),
        ({"workspaces": []}, "workspaces must be a list"),
        ({"token_seconds": 0}, "token_seconds must be a number"),
        ({"jwks": {"keys": []}}, "jwks must be an object with 1 to 10 keys"),
        ({"jwks": {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}}, "public EC or RSA keys only"),
        ({"jwks": {"keys": [Workload("x").key.as_dict(private=True)]}}, "public EC or RSA keys only"),
        ({"jwks": {"keys": [{"kty": "EC", "crv": "P-256", "x": "AA"}]}}, "malformed"),
        ({"surplus": 1}, "Unknown: surplus"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_in_one_sentence(
    client: OAuthClient, changes: dict[str, Any], fault: str
) -> None:
    answer = client.http.post(
        f"{client.provider.url}/control/federation", json=Workload("robot").rule(**changes)
    )
    assert answer.status_code == 400
    assert fault in answer.json()["error"]["message"]


def test_rules_are_shown_and_forgotten(client: OAuthClient, workload: Workload) -> None:
    (shown,) = client.provider.control("GET", "federation")
    assert shown == {**workload.rule(), "workspaces": ["default"], "token_seconds": 3600}
    assert client.provider.control("DELETE", "federation") == []
    denied(client, exchange(client, workload), "rule_unknown")


def test_faults_strike_exchanges_alone_where_told(client: OAuthClient, workload: Workload) -> None:
    client.provider.fault("token", "status", status=503, grant_type=GRANT_TYPE)
    assert client.login("alice")
    assert exchange(client, workload).status_code == 503
    assert exchange(client, workload).status_code == 200


def test_no_assertion_and_no_token_is_in_the_log(client: OAuthClient, workload: Workload) -> None:
    assertion = workload.assertion()
    token = exchange(client, workload, assertion).json()["access_token"]
    exchange(client, workload, assertion)
    for secret in (assertion, assertion.split(".")[2], token):
        assert secret not in client.provider.log_text
