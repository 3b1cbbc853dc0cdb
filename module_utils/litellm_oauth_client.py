# SPDX-License-Identifier: MIT
"""The gateway's OAuth routes for the modules in library/: one request a method, every fault one sentence.

Standard library and Ansible only: this runs on the target.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, urlencode, urlsplit

from ansible.module_utils.urls import ConnectionError as UrlsConnectionError
from ansible.module_utils.urls import open_url

PREFIX = "/auth/claude/oauth"
PAGE = 500
MAX_ANSWER_BYTES = 8 * 1024 * 1024

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


class GatewayError(Exception):
    """What went wrong and what to do; ``code`` is the gateway's word for it, ``status`` the HTTP status."""

    def __init__(self, message: str, code: str = "", status: int = 0, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.retry_after = retry_after


class Gateway:
    """The routes that the modules use. Every method raises GatewayError."""

    def __init__(
        self, url: str, key: str, *, timeout: int, validate_certs: bool = True, ca_path: str | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise GatewayError(f"gateway_url is {url!r}: give a whole URL, such as http://127.0.0.1:4000.")
        if timeout < 1:
            raise GatewayError(f"timeout is {timeout}: give seconds above 0.")
        self._url = url.rstrip("/")
        self._key = key
        self._timeout = timeout
        self._validate_certs = validate_certs
        self._ca_path = ca_path

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Gateway:
        """The gateway that a module's CONNECTION_OPTIONS name."""
        key = options["api_key"] or _key_in(options["api_key_file"])
        return cls(
            options["gateway_url"],
            key,
            timeout=options["timeout"],
            validate_certs=options["validate_certs"],
            ca_path=options["ca_path"],
        )

    def health(self) -> dict[str, Any]:
        return self._call("GET", "/health")

    def status(self, user: str) -> dict[str, Any]:
        return self._call("GET", "/status", {"user_id": user})

    def statuses(self) -> Iterator[dict[str, Any]]:
        """Every user's status, page by page."""
        after: str | None = None
        while True:
            query = {"limit": str(PAGE), **({"after": after} if after else {})}
            page = self._call("GET", "/users", query)
            yield from page["users"]
            following = page["next"]
            if following is None:
                return
            if following == after:
                raise GatewayError(
                    "The gateway's list of users does not end: its pages repeat. Look at its log."
                )
            after = following

    def start(self, user: str, *, force: bool) -> dict[str, Any]:
        return self._call("GET", "/start", {"user_id": user, **({"force": "true"} if force else {})})

    def exchange(self, user: str, code: str) -> dict[str, Any]:
        return self._call("POST", "/exchange", {"user_id": user}, {"code": code})

    def refresh(self, user: str, *, min_validity: int | None, force: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"force": force}
        if min_validity is not None:
            body["min_validity"] = min_validity
        return self._call("POST", "/refresh", {"user_id": user}, body)

    def logout(self, user: str) -> dict[str, Any]:
        return self._call("POST", "/logout", {"user_id": user}, {})

    def _call(
        self, method: str, path: str, query: dict[str, str] | None = None, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        url = self._url + PREFIX + path + ("?" + urlencode(query) if query else "")
        headers = {"Authorization": "Bearer " + self._key, "Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        try:
            response = open_url(
                url,
                data=data,
                headers=headers,
                method=method,
                timeout=self._timeout,
                validate_certs=self._validate_certs,
                ca_path=self._ca_path,
                # A redirect would carry the key to another address.
                follow_redirects="none",
            )
            status, raw = response.getcode(), response.read(MAX_ANSWER_BYTES + 1)
        except HTTPError as error:
            raise self._refused(error) from None
        except (URLError, UrlsConnectionError, OSError, ValueError) as error:
            raise GatewayError(self._unreachable(error)) from None
        answer = _object(raw)
        if status != 200 or answer is None:
            raise GatewayError(self._foreign(f"HTTP {status}"))
        return answer

    def _refused(self, error: HTTPError) -> GatewayError:
        try:
            answer = _object(error.read(MAX_ANSWER_BYTES))
        except OSError:
            answer = None
        detail = answer.get("error") if answer else None
        if not isinstance(detail, dict) or not isinstance(detail.get("message"), str):
            return GatewayError(self._foreign(f"HTTP {error.code}"), status=error.code)
        message = detail["message"].strip()
        if error.code == 401 and detail.get("code") == "invalid_api_key":
            message += " (api_key or api_key_file of this task)"
        wait = error.headers.get("Retry-After", "")
        retry_after = int(wait) if wait.isdigit() else None
        if retry_after is not None and "again" not in message:
            message += f" Try again in {retry_after} s."
        return GatewayError(message, str(detail.get("code") or ""), error.code, retry_after)

    def _foreign(self, what: str) -> str:
        return (
            f"{self._url} answered {what}, which is no answer of the gateway's OAuth module. "
            "Is gateway_url right, and has the gateway finished starting?"
        )

    def _unreachable(self, error: Exception) -> str:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ConnectionRefusedError):
            return f"Nothing listens at {self._url}. Is the gateway running, and gateway_url right?"
        if isinstance(reason, socket.gaierror):
            return f"The name in {self._url} is not known here. Is gateway_url right?"
        if isinstance(reason, ssl.SSLError) or "CERTIFICATE" in str(reason).upper():
            return (
                f"TLS with {self._url} failed ({_short(reason)}). Set ca_path to the CA of its certificate."
            )
        if isinstance(reason, TimeoutError) or "timed out" in str(reason):
            return f"{self._url} did not answer within {self._timeout} s. Look at its log, or raise timeout."
        return f"{self._url} cannot be reached ({_short(reason)}). Is gateway_url right?"


def check_code(text: str) -> None:
    """Refuse what cannot be a login's code before anything is sent. Raises GatewayError.

    Taken are the bare code, ``code#state`` and the whole redirect URL; the gateway matches the state.
    """
    cleaned = text.strip().strip("\"'`").strip()
    mend = "Paste the code, code#state, or the whole address of the page that shows it."
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", cleaned):
        parts = urlsplit(cleaned)
        parameters = {**parse_qs(parts.fragment), **parse_qs(parts.query)}
        if "error" in parameters:
            raise GatewayError(
                "The provider ended the login, or consent was refused. Start a new login and approve it."
            )
        cleaned = parameters.get("code", [""])[0]
    if not re.fullmatch(r"[\x21-\x7e]{1,8192}", cleaned) or cleaned.startswith("#"):
        raise GatewayError("No authorization code was found in the text of `code`. " + mend)


def brief(status: dict[str, Any]) -> dict[str, Any]:
    """What a diff and a result show of a status: what a login or a refresh changes."""
    return {name: status[name] for name in ("user_id", "status", "generation", "expires_at", "expires_in")}


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """A diff of two statuses, in the form that ``--diff`` shows."""

    def lines(status: dict[str, Any]) -> str:
        return "".join(f"{name}: {status[name]}\n" for name in ("status", "generation", "expires_at"))

    header = f"login of {after['user_id']}"
    return {"before": lines(before), "after": lines(after), "before_header": header, "after_header": header}


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _key_in(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            key = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not text"
        raise GatewayError(
            f"api_key_file {path} cannot be read on this host ({reason}). Name the file that holds the "
            "gateway's key, and run with become where only root may read it."
        ) from None
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise GatewayError(f"api_key_file {path} does not hold one key on one line.")
    return key


def _short(reason: object) -> str:
    return re.sub(r"\s+", " ", str(reason))[:200]
