"""Each error has its HTTP status, its wait, and the one shape of error bodies."""

from __future__ import annotations

import pytest

from litellm_oauth import errors
from litellm_oauth.gateway import errors as gateway_errors
from litellm_oauth.gateway.answers import answer_for, chat_answer_for, error_body
from litellm_oauth.messages import not_logged_in, reauth_required

EXPECTED: list[tuple[errors.LitellmOAuthError, int]] = [
    (errors.InvalidInput("x"), 400),
    (errors.CodeRejected("x"), 400),
    (errors.NoPendingLogin("x"), 400),
    (errors.StateMismatch("x"), 400),
    (gateway_errors.NoSuchModel("x"), 400),
    (errors.ReauthRequired("x"), 401),
    (gateway_errors.UnknownKey(), 401),
    (errors.Forbidden("x"), 403),
    (gateway_errors.ClosedRoute(), 403),
    (errors.NotLoggedIn("x"), 404),
    (errors.NoSuchJob("x"), 404),
    (gateway_errors.MethodNotAllowed("GET, HEAD"), 405),
    (errors.AlreadyLoggedIn("x"), 409),
    (gateway_errors.BodyTooLarge(32), 413),
    (gateway_errors.PackedBody(), 415),
    (errors.CoolingDown("x", retry_after=3), 429),
    (errors.ProviderRefused("x", error="invalid_client"), 502),
    (gateway_errors.RedirectedAnswer("api.example", 307), 502),
    (errors.ProviderUnavailable("x", reason="timeout"), 503),
    (errors.StorageUnavailable("x"), 503),
    (errors.Unreadable("x"), 503),
    (gateway_errors.TooManyBodies(), 503),
    (gateway_errors.UploadInterrupted(), 503),
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
    assert {kind.__name__ for kind in missing} <= {"SettingsError", "MigrationError"}


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
        (gateway_errors.TooManyBodies(), "5"),
        (gateway_errors.UploadInterrupted(), "1"),
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


def test_a_wait_for_the_provider_of_logins_is_no_limit_of_the_api() -> None:
    resting = errors.CoolingDown("Resting.", retry_after=7)
    refused = errors.ProviderRefused("Refused.", error="invalid_client", retry_after=6.1)
    for error, own in ((resting, 429), (refused, 502)):
        answer = chat_answer_for(error, user="a", public_url="http://x")
        assert (answer.status, answer.code, answer.headers) == (503, error.code, {"Retry-After": "7"})
        assert answer_for(error).status == own
    refused_token = errors.TokenRefused("The API refuses it.", retry_after=7)
    assert chat_answer_for(refused_token, user="a", public_url="http://x").status == 401


@pytest.mark.parametrize("error", [reauth_required("alice"), gateway_errors.UnknownKey()])
def test_a_401_says_how_to_authenticate(error: errors.LitellmOAuthError) -> None:
    assert answer_for(error).headers["WWW-Authenticate"] == "Bearer"


def test_a_chat_that_needs_a_login_says_how_to_authenticate() -> None:
    answer = chat_answer_for(not_logged_in("alice"), user="alice", public_url="https://gate.example.com")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_method_that_a_route_has_not_is_answered_with_those_that_it_has() -> None:
    assert answer_for(gateway_errors.MethodNotAllowed("GET, HEAD")).headers == {"Allow": "GET, HEAD"}


def test_a_packed_body_is_answered_with_what_would_be_taken() -> None:
    assert answer_for(gateway_errors.PackedBody()).headers == {"Accept-Encoding": "identity"}


def test_a_name_of_a_model_is_shown_short_and_without_what_a_terminal_would_act_on() -> None:
    message = gateway_errors.NoSuchModel("\x1b[31m" + "m" * 1_000_000).message
    assert len(message) < 300
    assert "\x1b" not in message


def test_an_error_has_the_shape_that_clients_of_either_api_know() -> None:
    answer = answer_for(gateway_errors.UnknownKey())
    error = {"message": answer.message, "type": "authentication_error", "param": None, "code": answer.code}
    assert error_body(answer, anthropic=False) == {"error": error}
    assert error_body(answer, anthropic=True) == {"type": "error", "error": error}
