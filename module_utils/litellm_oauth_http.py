# SPDX-License-Identifier: MIT
"""One request to the gateway: a JSON object comes back, or one sentence on what happened and what to do.

Standard library and Ansible only: this runs on the target, on Python 3.8 and later.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit

from ansible.module_utils.urls import ConnectionError as UrlsConnectionError
from ansible.module_utils.urls import Request, make_context

MAX_ANSWER_BYTES = 8 * 1024 * 1024
# A gateway that restarts refuses connections for a moment; nothing was sent then, so asking again is safe.
RETRY_PAUSES = (0.5, 1.5)

# Codes of our own, where no answer of the gateway carries one.
UNREACHABLE = "unreachable"
FOREIGN = "foreign_answer"


class GatewayError(Exception):
    """What went wrong and what to do.

    ``code`` is the gateway's word for it, or UNREACHABLE or FOREIGN; ``status`` is the HTTP status, 0 where
    there was none; ``retry_after`` is in seconds. ``uncertain`` says that the request may have been carried
    out although no usable answer came back.
    """

    def __init__(
        self,
        message: str,
        code: str = "",
        status: int = 0,
        retry_after: int | None = None,
        uncertain: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.retry_after = retry_after
        self.uncertain = uncertain


@dataclass(frozen=True)
class Address:
    """Where the gateway is and how to speak to it. The key is in no repr."""

    url: str
    key: str = field(repr=False)
    timeout: int = 60
    validate_certs: bool = True
    ca_path: str | None = None

    @property
    def is_loopback(self) -> bool:
        host = urlsplit(self.url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")


class Http:
    """Sends requests to one gateway. Every fault is a GatewayError."""

    def __init__(self, address: Address, sleep: Callable[[float], None] = time.sleep) -> None:
        self._address = address
        self._sleep = sleep
        self._context: ssl.SSLContext | None = None

    def call(
        self, method: str, path: str, query: dict[str, str] | None = None, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The JSON object that the gateway answers with status 200, or 202 to what goes on by itself."""
        url = self._address.url + path + ("?" + urlencode(query) if query else "")
        try:
            status, raw = self._send(method, url, body)
        except HTTPError as error:
            raise self._refused(error) from None
        except (URLError, UrlsConnectionError, HTTPException, OSError, ValueError) as error:
            raise self._unreachable(error) from None
        answer = _json_object(raw)
        if status not in (200, 202) or answer is None:
            raise self.foreign(f"HTTP {status} and something else than a JSON object")
        return answer

    def foreign(self, what: str) -> GatewayError:
        """The error for an answer that the gateway's OAuth module does not give."""
        return GatewayError(
            f"{self._address.url} answered {what}, which is no answer of the gateway's OAuth module. "
            "Check gateway_url, and whether the gateway has finished starting.",
            FOREIGN,
            uncertain=True,
        )

    def _send(self, method: str, url: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        for pause in RETRY_PAUSES:
            try:
                return self._send_once(method, url, body)
            except URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError):
                    raise
            self._sleep(pause)
        return self._send_once(method, url, body)

    def _send_once(self, method: str, url: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        address = self._address
        headers = {"Authorization": "Bearer " + address.key, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        deadline = time.monotonic() + address.timeout
        response = Request().open(
            method,
            url,
            data=None if body is None else json.dumps(body).encode(),
            headers=headers,
            timeout=address.timeout,
            context=self._tls(),
            # A redirect would carry the key to another address, a proxy sees no loopback, and a netrc file
            # would put its own credentials in the key's place.
            follow_redirects="none",
            use_proxy=not address.is_loopback,
            use_netrc=False,
            # Answers are small, and a broken compression would raise errors that are no OSError.
            decompress=False,
        )
        with response:
            return int(response.getcode()), _read(response, deadline)

    def _tls(self) -> ssl.SSLContext:
        """Made once, and for https only: to read the CA certificates takes longer than a request."""
        if self._context is None:
            address = self._address
            if urlsplit(address.url).scheme == "https":
                self._context = make_context(cafile=address.ca_path, validate_certs=address.validate_certs)
            else:
                # Left out, Ansible would make one for each request. It trusts nobody.
                self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return self._context

    def _refused(self, error: HTTPError) -> GatewayError:
        try:
            answer = _json_object(_read(error, time.monotonic() + self._address.timeout))
        except (OSError, HTTPException, ValueError):
            answer = None
        wait = _seconds(error.headers.get("Retry-After"))
        detail = answer.get("error") if answer else None
        if not isinstance(detail, dict) or not isinstance(detail.get("message"), str):
            return self._foreign_refusal(error, wait)
        message = one_line(detail["message"])
        code = str(detail.get("code") or "")
        if code == "invalid_api_key":
            message += " (The key is api_key or in api_key_file of this task.)"
        if wait is not None and "again in" not in message:
            message += f" Try again in {wait} s."
        return GatewayError(message, code, error.code, wait)

    def _foreign_refusal(self, error: HTTPError, wait: int | None) -> GatewayError:
        """A refusal that is not in our shape: by a proxy in front, by LiteLLM itself, or by a stranger."""
        url, status = self._address.url, error.code
        later = f"Try again in {wait} s." if wait is not None else "Try again later."
        if 300 <= status < 400:
            target = one_line(str(error.headers.get("Location") or "nowhere"))
            message = (
                f"{url} redirects to {target} (HTTP {status}). The key is not sent on to another address: "
                "set gateway_url to the one that answers itself."
            )
        elif status == 401:
            message = f"{url} does not accept the key (HTTP 401). Check api_key or api_key_file."
        elif status == 403:
            message = f"{url} forbids this (HTTP 403). Check whose key it is, and what stands in front."
        elif status == 404:
            message = (
                f"{url} has no OAuth routes (HTTP 404). Check gateway_url, and that the gateway runs with "
                "claude_oauth enabled."
            )
        elif status == 429:
            message = f"{url} has had too many requests (HTTP 429). {later}"
        elif status >= 500:
            message = (
                f"{url} failed (HTTP {status}). Look at the logs of it and of what stands in front. {later}"
            )
        else:
            return self.foreign(f"HTTP {status}")
        return GatewayError(message, FOREIGN, status, wait, uncertain=status >= 500)

    def _unreachable(self, error: Exception) -> GatewayError:
        url = self._address.url
        reason = error.reason if isinstance(error, URLError) else error
        timeout = self._address.timeout
        uncertain = False
        if isinstance(reason, ConnectionRefusedError):
            message = f"Nothing listens at {url}. Check that the gateway is running, and gateway_url."
        elif isinstance(reason, socket.gaierror):
            message = f"The name in {url} is not known on this host. Check gateway_url."
        elif isinstance(reason, ssl.SSLCertVerificationError):
            message = (
                f"The certificate of {url} is not accepted: {one_line(reason.verify_message)}. Use the name "
                "that the certificate carries, and set ca_path to its CA if that is one of your own."
            )
        elif isinstance(reason, ssl.SSLError):
            message = (
                f"TLS with {url} failed ({_short(reason)}). If plain http is spoken there, write http://."
            )
        elif isinstance(reason, (TimeoutError, socket.timeout)) or "timed out" in str(reason):
            message = f"{url} did not answer within {timeout} s. Look at its log, or raise timeout."
            uncertain = True
        else:
            message = f"{url} gave no usable answer ({_short(reason)}). Check gateway_url and its log."
            uncertain = True
        return GatewayError(message, UNREACHABLE, uncertain=uncertain)


def one_line(text: str) -> str:
    """A foreign text for a sentence of ours: printable, on one line, of bounded length."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))[:1000]


def _read(response: Any, deadline: float) -> bytes:
    """The whole body. Raises TimeoutError where it comes too slowly, ValueError where it is too long."""
    received = bytearray()
    while True:
        # read() would wait for all of it, each piece with the whole time-out again.
        chunk = response.read1(65536)
        if not chunk:
            return bytes(received)
        received += chunk
        if len(received) > MAX_ANSWER_BYTES:
            raise ValueError("more than 8 MiB")
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")


def _json_object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _seconds(header: str | None) -> int | None:
    """Retry-After: seconds or a date (RFC 9110 section 10.2.3)."""
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    try:
        return max(0, round(parsedate_to_datetime(text).timestamp() - time.time()))
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _short(reason: object) -> str:
    return one_line(str(reason) or type(reason).__name__)[:200]
