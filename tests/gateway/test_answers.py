"""Each error has its HTTP status, its wait, and the one shape of error bodies."""

from __future__ import annotations

import pytest

from litellm_oauth import errors
from litellm_oauth.gateway.answers import UnknownKeyError, answer_for, chat_answer_for
from litellm_oauth.messages import not_logged_in, reauth_required

EXPECTED: list[tuple[errors.LitellmOAuthError, int]] = [
    (errors.InvalidInput("x"), 400),
    (errors.CodeRejected("x"), 400),
    (errors.NoPendingLogin("x"), 400),
    (errors.StateMismatch("x"), 400),
    (errors.ReauthRequired("x"), 401),
    (UnknownKeyError("x"), 401),
    (errors.Forbidden("x"), 403),
    (errors.NotLoggedIn("x"), 404),
    (errors.AlreadyLoggedIn("x"), 409),
    (errors.CoolingDown("x", retry_after=3), 429),
    (errors.ProviderRefused("x", error="invalid_client"), 502),
    (errors.ProviderUnavailable("x", reason="timeout"), 503),
    (errors.StorageUnavailable("x"), 503),
    (errors.Unreadable("x"), 503),
]


@pytest.mark.parametrize(("error", "status"), EXPECTED, ids=lambda value: type(value).__name__)
def test_an_error_has_its_status_and_its_code_in_the_body(
    error: errors.LitellmOAuthError, status: int
) -> None:
    answer = answer_for(error)
    assert answer.status == status
    assert answer.body["error"]["code"] == error.code
    assert set(answer.body["error"]) == {"message", "type", "param", "code"}


def _every_error(kind: type[errors.LitellmOAuthError]) -> set[type[errors.LitellmOAuthError]]:
    return {kind}.union(*(_every_error(child) for child in kind.__subclasses__()))


def test_no_error_of_the_package_becomes_a_500() -> None:
    kinds = {kind for kind, _ in _status_table()}
    raised = {kind for kind in _every_error(errors.LitellmOAuthError) if not kind.__subclasses__()}
    missing = {kind for kind in raised if not issubclass(kind, tuple(kinds))}
    # These two end a start-up; they never reach a route.
    assert {kind.__name__ for kind in missing} <= {"SettingsError", "MigrationError", "UnknownKeyError"}


def _status_table() -> list[tuple[type[errors.LitellmOAuthError], int]]:
    from litellm_oauth.gateway import answers

    return list(answers._STATUS)


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (errors.CoolingDown("x", retry_after=2.1), "3"),
        (errors.CoolingDown("x", retry_after=0.0), "1"),
        (errors.ProviderUnavailable("x", reason="rate_limited", retry_after=30), "30"),
        (errors.StorageUnavailable("x", retry_after=5), "5"),
        (errors.ProviderUnavailable("x", reason="network"), None),
    ],
)
def test_a_wait_is_told_in_whole_seconds_rounded_up(
    error: errors.LitellmOAuthError, header: str | None
) -> None:
    assert answer_for(error).headers.get("Retry-After") == header


@pytest.mark.parametrize("error", [not_logged_in("al ice"), reauth_required("al ice")])
def test_a_chat_without_a_login_is_a_401_that_says_how_to_log_in(error: errors.LitellmOAuthError) -> None:
    answer = chat_answer_for(error, user="al ice", public_url="https://gate.example.com/")
    assert answer.status == 401
    assert error.message in answer.message
    assert "GET https://gate.example.com/auth/claude/oauth/start?user_id=al%20ice" in answer.message
    assert "litellm claude login --user 'al ice'" in answer.message


def test_a_chat_while_the_database_is_down_is_a_503_with_a_wait() -> None:
    answer = chat_answer_for(
        errors.StorageUnavailable("Down.", retry_after=5), user="a", public_url="http://x"
    )
    assert (answer.status, answer.message, answer.headers) == (503, "Down.", {"Retry-After": "5"})


@pytest.mark.parametrize("error", [reauth_required("alice"), UnknownKeyError("x")])
def test_a_401_says_how_to_authenticate(error: errors.LitellmOAuthError) -> None:
    assert answer_for(error).headers["WWW-Authenticate"] == "Bearer"


def test_a_chat_that_needs_a_login_says_how_to_authenticate() -> None:
    answer = chat_answer_for(not_logged_in("alice"), user="alice", public_url="https://gate.example.com")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
