"""From an HTTP request to what the OAuth library reads, with the form of every parameter checked first.

RFC 6749 §3.1, §3.2: a parameter comes once, and without a value counts as left out. Appendix A: its letters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

from authlib.oauth2.rfc6749 import InvalidClientError, InvalidRequestError, OAuth2Payload, OAuth2Request

_VISIBLE = re.compile(r"[\x20-\x7e]*")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")
_RESPONSE_TYPE = re.compile(r"[A-Za-z0-9_]+( [A-Za-z0-9_]+)*")


class Payload(OAuth2Payload):  # type: ignore[misc]  # authlib ships no types
    """The parameters of one request."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._lists: dict[str, list[str]] = {}
        for name, value in pairs:
            if value:
                self._lists.setdefault(name, []).append(value)
        self._data = {name: values[0] for name, values in self._lists.items()}

    @property
    def data(self) -> dict[str, str]:
        return self._data

    @property
    def datalist(self) -> dict[str, list[str]]:
        return self._lists


class SandboxRequest(OAuth2Request):  # type: ignore[misc]  # authlib ships no types
    """A request of the authorization, token or revocation endpoint."""

    def __init__(self, method: str, path: str, payload: Payload) -> None:
        # The library refuses plain HTTP away from loopback. The sandbox is published on loopback only, and in
        # the stack its callers are on a private network: the name they call it by says nothing of that.
        super().__init__(method, f"http://localhost{path}")
        self.payload = payload

    @property
    def args(self) -> dict[str, str]:
        return self.payload.data if self.method == "GET" else {}

    @property
    def form(self) -> dict[str, str]:
        return self.payload.data if self.method == "POST" else {}


def authorization_request(query: str) -> SandboxRequest:
    """The authorization request in a query string (RFC 6749 §4.1.1). Raises InvalidRequestError."""
    payload = Payload(_decode(query))
    _check(payload)
    for name, pattern in (("response_type", _RESPONSE_TYPE), ("scope", _SCOPE)):
        if name in payload.data and not pattern.fullmatch(payload.data[name]):
            raise InvalidRequestError(f"Malformed '{name}' in request.")
    return SandboxRequest("GET", "/oauth/authorize", payload)


def body_request(path: str, query: str, headers: Mapping[str, str], body: bytes) -> SandboxRequest:
    """The parameters in a body, form or JSON. Raises InvalidRequestError, InvalidClientError."""
    if query:
        # RFC 6749 §2.3.1, §3.2: credentials and tokens must not be in a URI, where logs would keep them.
        raise InvalidRequestError("Parameters belong in the body, not in the URL.")
    if "authorization" in headers:
        raise InvalidClientError("The client has no secret to authenticate with.", status_code=401)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        payload = Payload(_decode(body))
    elif kind == "application/json":
        payload = Payload(_json_pairs(body))
    else:
        raise InvalidRequestError(
            "Content-Type must be application/x-www-form-urlencoded or application/json."
        )
    _check(payload)
    return SandboxRequest("POST", path, payload)


def _check(payload: Payload) -> None:
    for name, values in payload.datalist.items():
        if len(values) > 1:
            raise InvalidRequestError(f"Multiple '{_ascii(name)}' in request.")
        if not _VISIBLE.fullmatch(values[0]):
            raise InvalidRequestError(
                f"'{_ascii(name)}' holds characters that RFC 6749 (Appendix A) forbids."
            )


def _decode(text: str | bytes) -> list[tuple[str, str]]:
    try:
        decoded = text if isinstance(text, str) else text.decode("ascii")
        return parse_qsl(decoded, keep_blank_values=True, errors="strict", max_num_fields=64)
    except ValueError:
        raise InvalidRequestError("The parameters are not form-urlencoded.") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise InvalidRequestError("A member occurs twice in the JSON body.")
    return dict(pairs)


def _json_pairs(body: bytes) -> list[tuple[str, str]]:
    try:
        document = json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise InvalidRequestError("The body is not JSON.") from None
    if not isinstance(document, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    pairs = []
    for name, value in document.items():
        if value is None:
            continue
        if not isinstance(value, str):
            raise InvalidRequestError(f"The value of '{_ascii(name)}' must be a string.")
        pairs.append((name, value))
    return pairs


def _ascii(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:40]
