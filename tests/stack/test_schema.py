"""The running gateway does what its own OpenAPI document says of our routes, and no answer holds a secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.leaks import Secrets, verifier_digests
from support.schema import PREFIX, USER_HEADER, examine
from support.stack import Stack, log_in, log_out

USERS = ("schema-1", "schema-2", "schema-nobody")
# RFC 7636 §4.1
VERIFIER_LENGTHS = range(43, 129)
ROUTES = ["GET start", "POST exchange", "GET status", "POST refresh", "POST logout", "GET users"]
BAD_NAMES = {"two": [b"schema-1", b"schema-2"], "not ASCII": ["sch\u00e9ma".encode()]}
SEALED = """
SELECT string_agg(sealed, ' ') FROM (
  SELECT unnest(ARRAY[access_token_encrypted, refresh_token_encrypted]) FROM "LiteLLM_ClaudeOAuthTokens"
  UNION ALL SELECT verifier_encrypted FROM "LiteLLM_ClaudeOAuthLogins"
) AS stored (sealed)
"""


@pytest.fixture
def logged_in(gateway: httpx.Client) -> Iterator[None]:
    for user in USERS[:2]:
        log_in(gateway, user)
    yield
    for user in USERS:
        log_out(gateway, user)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("logged_in")
@pytest.mark.parametrize("with_key", [True, False], ids=["administrator", "nobody"])
def test_whatever_is_sent_the_answer_is_as_documented_and_holds_no_secret(
    stack: Stack, tmp_path: Path, with_key: bool
) -> None:
    stored = stack.sql(SEALED).split()
    run = examine(
        stack.gateway_url,
        tmp_path,
        key=stack.key if with_key else None,
        users=USERS,
        examples=4,
        phases=("coverage", "fuzzing", "stateful"),
        shared=True,
        reader=stack.key,
    )
    assert run.conforms, run.report
    # What every token of the sandbox begins with stands for those that came and went meanwhile.
    texts = {"sk-ant-o", *stored, *stack.sql(SEALED).split(), *stack.secrets().values()}
    verifiers = verifier_digests(answer.text for answer in run.answers)
    secrets = Secrets(frozenset(texts), verifiers, frozenset(VERIFIER_LENGTHS))
    assert [answer for answer in run.answers if secrets.found_in(answer.text)] == []
    if with_key:
        assert 200 in run.statuses("GET status") & run.statuses("GET users") & run.statuses("POST refresh")
    else:
        assert [answer for answer in run.answers if answer.status not in (401, 405)] == []


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("names", BAD_NAMES.values(), ids=BAD_NAMES)
def test_without_a_key_even_a_bad_name_is_a_401(stack: Stack, route: str, names: list[bytes]) -> None:
    method, path = route.split()
    headers = [(USER_HEADER.encode(), name) for name in names]
    answer = httpx.request(method, f"{stack.gateway_url}{PREFIX}{path}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
