"""Sentences about a user's login, said the same way wherever they come up."""

from __future__ import annotations

import json
import re
import shlex

from .errors import NotLoggedIn, OtherClient, ReauthRequired, Unreadable


def how_to_log_in(user: str, *, again: bool = False) -> str:
    """The two commands, quoted so that they can be pasted. ``again``: also for who may be logged in."""
    # Ansible splits name=value at spaces and strips quotes; JSON it takes as it is.
    plain = re.fullmatch(r"[A-Za-z0-9_.@+-]+", user)
    extra = f"user={user}" if plain else shlex.quote(json.dumps({"user": user}, ensure_ascii=False))
    here, there = (" --force", " -e force=true") if again else ("", "")
    return f"`{how_to_log_in_here(user)}{here}` or `ansible-playbook oauth_login.yml -e {extra}{there}`"


def how_to_log_in_here(user: str) -> str:
    """The command inside the gateway's container."""
    return f"litellm claude login --user {shlex.quote(user)}"


def not_logged_in(user: str) -> NotLoggedIn:
    return NotLoggedIn(f"{user} is not logged in. Log in with {how_to_log_in(user)}.")


def reauth_required(user: str) -> ReauthRequired:
    return ReauthRequired(
        f"The provider no longer accepts the login of {user}. Log in again with {how_to_log_in(user)}."
    )


def may_be_over(user: str) -> str:
    return (
        "The provider has given the same answer before. "
        f"A new login may be needed: {how_to_log_in(user, again=True)}."
    )


def no_refresh_token(user: str) -> ReauthRequired:
    return ReauthRequired(
        f"The login of {user} came without a refresh token, so it cannot be prolonged. "
        f"Log in again with {how_to_log_in(user)}."
    )


def other_client(user: str, issued_to: str | None) -> OtherClient:
    return OtherClient(
        f"The login of {user} was made with the client {issued_to}, which no other client may use "
        "(claude_oauth.provider.client_id). Put that client back, or log in again with "
        f"{how_to_log_in(user, again=True)}."
    )


def unreadable(user: str) -> Unreadable:
    return Unreadable(
        f"What is stored for {user} does not decrypt with the gateway's keys. Put the old key back, or log "
        f"in again with {how_to_log_in(user)}."
    )


def token_refused(user: str) -> str:
    return (
        f"The API refuses the token of {user}, though it has just been refreshed, so for an hour it is "
        "refreshed only by force. Look at the account and at the API, or log in again with "
        f"{how_to_log_in(user, again=True)}."
    )


def refresh_is_off(user: str) -> ReauthRequired:
    return ReauthRequired(
        f"The access token of {user} can no longer be used and claude_oauth.auto_refresh is off. "
        f"Run `litellm claude refresh --user {shlex.quote(user)}`, or log in again."
    )
