# SPDX-License-Identifier: MIT
"""The gateway's OAuth routes for the modules in library/, and the options that all of these share.

Standard library and Ansible only: this runs on the target.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.litellm_oauth_http import Address, GatewayError, Http

PREFIX = "/auth/claude/oauth"
PAGE = 500
MAX_TIMEOUT = 3600
MAX_USER_LENGTH = 255
ANSWER_LOST = "answer_lost"

CONNECTION_OPTIONS: dict[str, dict[str, Any]] = {
    "gateway_url": {"type": "str", "default": "http://127.0.0.1:4000"},
    "api_key": {"type": "str", "no_log": True},
    "api_key_file": {"type": "path", "no_log": False},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "timeout": {"type": "int", "default": 60},
}
CONNECTION_RULES: dict[str, Any] = {
    "mutually_exclusive": [("api_key", "api_key_file")],
    "required_one_of": [("api_key", "api_key_file")],
}

# What a status must have, and what it may have. Anything else is dropped, so that no result can hold a token.
_NEEDED: dict[str, type] = {"user_id": str, "authenticated": bool, "status": str, "generation": int}
_ALSO = (
    "expires_at",
    "expires_in",
    "refresh_expires_at",
    "login_ends_at",
    "warning",
    "scopes",
    "account",
    "refresh_count",
    "has_refresh_token",
    "last_error",
    "next_attempt_at",
    "updated_at",
    "source",
)
_RESULT = ("user_id", "result", "code", "message")
_ENDS = ("running", "finished", "stopped", "interrupted")


class Gateway:
    """The routes that the modules use. Every method raises GatewayError."""

    def __init__(self, address: Address) -> None:
        self._http = Http(address)

    @classmethod
    def from_module(cls, module: Any) -> Gateway:
        """The gateway that the CONNECTION_OPTIONS of a module name. Its key is kept out of all output."""
        options = module.params
        url = _checked_url(options["gateway_url"], module)
        if not 1 <= options["timeout"] <= MAX_TIMEOUT:
            raise GatewayError(f"timeout is {options['timeout']}: give seconds from 1 to {MAX_TIMEOUT}.")
        ca_path = options["ca_path"]
        if ca_path is not None:
            _check_ca(ca_path)
        if options["api_key_file"] is not None:
            key = _key_in(options["api_key_file"])
            module.no_log_values.add(key)
        else:
            key = _checked_key(options["api_key"], "api_key does")
        return cls(Address(url, key, options["timeout"], options["validate_certs"], ca_path))

    def health(self) -> dict[str, Any]:
        """``{"status", "database"}``; needs no login."""
        answer = self._call("GET", "/health")
        if not isinstance(answer.get("status"), str):
            raise self._http.foreign("a health report without a status")
        return answer

    def status(self, user: str) -> dict[str, Any]:
        status = self._status(self._call("GET", "/status", {"user_id": user}))
        if status["user_id"] != user:
            raise self._http.foreign("with somebody else's login")
        return status

    def statuses(self) -> Iterator[dict[str, Any]]:
        """Every user's status, page by page."""
        for one in self._pages("/users", "users"):
            yield self._status(one)

    def start(self, user: str, *, force: bool) -> dict[str, Any]:
        """``{"authorization_url", "state", "expires_in", …}`` of a new login."""
        query = {"user_id": user}
        if force:
            query["force"] = "true"
        answer = self._call("GET", "/start", query)
        url = answer.get("authorization_url")
        if not isinstance(url, str) or not re.fullmatch(r"https?://[!-~]+", url):
            raise self._http.foreign("a login without an address to open")
        return answer

    def exchange(self, user: str, code: str) -> dict[str, Any]:
        return self._call("POST", "/exchange", {"user_id": user}, {"code": code})

    def refresh(self, user: str, *, min_validity: int | None, force: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"force": force}
        if min_validity is not None:
            body["min_validity"] = min_validity
        return self._call("POST", "/refresh", {"user_id": user}, body)

    def refresh_all(self, *, min_validity: int | None, force: bool) -> dict[str, Any]:
        """Begin a refresh of all users: the job, and whether it is somebody else's that runs already."""
        body: dict[str, Any] = {"all": True, "force": force}
        if min_validity is not None:
            body["min_validity"] = min_validity
        answer = self._call("POST", "/refresh", {}, body)
        if not isinstance(answer.get("already_running"), bool):
            raise self._http.foreign("a refresh of all users that is no job")
        return self._job(answer)

    def job(self, job_id: str) -> dict[str, Any]:
        """How a refresh of all users goes."""
        return self._job(self._call("GET", "/refresh/" + job_id, {"limit": "1"}))

    def job_results(self, job_id: str) -> Iterator[dict[str, Any]]:
        """What a refresh of all users meant for each of them, page by page."""
        for one in self._pages("/refresh/" + job_id, "results"):
            if not isinstance(one, dict) or not all(
                isinstance(one.get(n), str) for n in ("user_id", "result")
            ):
                raise self._http.foreign("the result of a user in another shape")
            yield {name: one.get(name) for name in _RESULT}

    def logout(self, user: str) -> dict[str, Any]:
        return self._call("POST", "/logout", {"user_id": user}, {})

    def change(
        self, act: Callable[[], dict[str, Any]], before: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Do ``act`` and read the user's login back: the answer ({} where it was lost) and the new status.

        Where the answer was lost, what is stored decides: GatewayError unless the generation rose.
        """
        user = before["user_id"]
        try:
            answer = act()
        except GatewayError as error:
            if not error.uncertain:
                raise
            after = self._status_after(user, error)
            if after["generation"] > before["generation"]:
                return {}, after
            # The gateway is there; only this request had no answer.
            raise GatewayError(error.message, ANSWER_LOST, error.status, error.retry_after) from None
        return answer, self.status(user)

    def _pages(self, path: str, name: str) -> Iterator[Any]:
        """What the lists under ``name`` hold, of one page after the other."""
        after: str | None = None
        while True:
            query = {"limit": str(PAGE)}
            if after is not None:
                query["after"] = after
            page = self._call("GET", path, query)
            found, following = page.get(name), page.get("next")
            if not isinstance(found, list) or not (following is None or isinstance(following, str)):
                raise self._http.foreign("a list of users in another shape")
            yield from found
            if following is None:
                return
            if following == after:
                raise self._http.foreign("a list of users whose pages repeat")
            after = following

    def _job(self, answer: dict[str, Any]) -> dict[str, Any]:
        if not re.fullmatch(r"[0-9a-f-]{36}", str(answer.get("job_id"))) or answer.get("status") not in _ENDS:
            raise self._http.foreign("a job in another shape")
        return answer

    def _call(
        self, method: str, path: str, query: dict[str, str] | None = None, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        answer: dict[str, Any] = self._http.call(method, PREFIX + path, query, body)
        return answer

    def _status_after(self, user: str, lost: GatewayError) -> dict[str, Any]:
        try:
            return self.status(user)
        except GatewayError:
            message = f"{lost.message} Whether it was carried out for {user} is unknown: ask for the status."
            raise GatewayError(message, lost.code, lost.status, lost.retry_after, uncertain=True) from None

    def _status(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._http.foreign("a status in another shape")
        for name, kind in _NEEDED.items():
            if not isinstance(value.get(name), kind):
                raise self._http.foreign(f"a status without {name}")
        left = value.get("expires_in")
        if not (left is None or isinstance(left, (int, float))):
            raise self._http.foreign("a status without expires_in")
        return {**{name: value[name] for name in _NEEDED}, **{name: value.get(name) for name in _ALSO}}


def check_user(user: str | None) -> None:
    """Refuse what is no user id before anything is sent. Raises GatewayError."""
    if user is None:
        return
    if not user or len(user) > MAX_USER_LENGTH or not user.isprintable() or user != user.strip():
        raise GatewayError(
            f"user is {user[:80]!r}: give 1 to {MAX_USER_LENGTH} printable characters, no space at the ends.",
            "invalid_input",
        )


def brief(status: dict[str, Any]) -> dict[str, Any]:
    """What a result shows of a status: what a login or a refresh changes."""
    return {name: status[name] for name in ("user_id", "status", "generation", "expires_at", "expires_in")}


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """A diff of two statuses, in the form that ``--diff`` shows."""

    def lines(status: dict[str, Any]) -> str:
        return "".join(f"{name}: {status[name]}\n" for name in ("status", "generation", "expires_at"))

    header = f"login of {after['user_id']}"
    return {"before": lines(before), "after": lines(after), "before_header": header, "after_header": header}


def foretold(before: dict[str, Any], status: str) -> dict[str, Any]:
    """The status that check mode expects after a change to ``status``."""
    expires_at = None if status == "logged_out" else "(set by the provider)"
    return {**before, "status": status, "generation": before["generation"] + 1, "expires_at": expires_at}


def _checked_url(text: str, module: Any) -> str:
    mend = "give the gateway's address, such as http://127.0.0.1:4000 or https://gateway.example.com/prefix."
    if re.search("[@?#]", text):
        # It may hold a password, so that the task's arguments in the result do not show it either.
        module.no_log_values.add(text)
        raise GatewayError(f"gateway_url holds more than an address (its value is not shown): {mend}")
    try:
        parts = urlsplit(text)
        sound = parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.scheme not in ("http", "https") or not re.fullmatch(r"[!-~]+", text):
        raise GatewayError(f"gateway_url is {text!r}: {mend}")
    return text.rstrip("/")


def _check_ca(path: str) -> None:
    mend = "Name a file with CA certificates (PEM)."
    if not Path(path).is_file():
        raise GatewayError(f"ca_path {path} is no file on this host. {mend}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:
        why = "it holds none" if isinstance(error, ssl.SSLError) else os.strerror(error.errno or 0)
        raise GatewayError(f"ca_path {path} cannot be used ({why}). {mend}") from None


def _checked_key(key: str, what: str) -> str:
    if not re.fullmatch(r"[!-~]+", key):
        raise GatewayError(f"{what} not hold one key on one line. Its value is not shown.")
    return key


def _key_in(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(65536)
    except (OSError, UnicodeDecodeError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not text"
        raise GatewayError(
            f"api_key_file {path} cannot be read on this host ({reason}). Name the file that holds the "
            "gateway's key, and run with become where only root may read it."
        ) from None
    return _checked_key(text.strip(), f"api_key_file {path} does")
