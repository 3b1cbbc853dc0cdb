"""Sentences about a user's login, said the same way wherever they come up."""

from __future__ import annotations

from .errors import NotLoggedIn, ReauthRequired


def how_to_log_in(user: str) -> str:
    return f"`litellm claude login --user {user}` or `ansible-playbook oauth_login.yml -e user={user}`"


def not_logged_in(user: str) -> NotLoggedIn:
    return NotLoggedIn(f"{user} is not logged in. Log in with {how_to_log_in(user)}.")


def reauth_required(user: str) -> ReauthRequired:
    return ReauthRequired(
        f"The provider no longer accepts the login of {user}. Log in again with {how_to_log_in(user)}."
    )


def no_refresh_token(user: str) -> ReauthRequired:
    return ReauthRequired(
        f"The login of {user} came without a refresh token, so it cannot be prolonged. "
        f"Log in again with {how_to_log_in(user)}."
    )


def refresh_is_off(user: str) -> ReauthRequired:
    return ReauthRequired(
        f"The access token of {user} can no longer be used and claude_oauth.auto_refresh is off. "
        f"Run `litellm claude refresh --user {user}`, or log in again."
    )
