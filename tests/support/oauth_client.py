"""An OAuth client that does everything right, unless a test tells it to do something wrong."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from support.sandbox import SandboxProvider, http_client

OAUTH_BETA = "oauth-2025-04-20"


def s256(verifier: str) -> str:
    """The challenge of a verifier (RFC 7636 §4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


class OAuthClient:
    """``changes`` of any method replace what would be sent; None leaves it out."""

    def __init__(self, provider: SandboxProvider) -> None:
        self.provider = provider
        self.http = http_client()
        self.verifier = secrets.token_urlsafe(48)
        self.state = secrets.token_urlsafe(16)

    def authorization_url(self, **changes: str | None) -> str:
        parameters = {
            "code": "true",
            "client_id": self.provider.client_id,
            "response_type": "code",
            "redirect_uri": self.provider.redirect_uri,
            "scope": "user:inference user:profile",
            "state": self.state,
            "code_challenge": s256(self.verifier),
            "code_challenge_method": "S256",
        }
        return f"{self.provider.authorize_url}?{urlencode(_changed(parameters, changes))}"

    def authorize(self, **changes: str | None) -> httpx.Response:
        """Ask as a shell does; the redirect is not followed."""
        return self.http.get(self.authorization_url(**changes), headers={"accept": "*/*"})

    def code(self, account: str = "alice", **changes: str | None) -> str:
        """A fresh code of an account."""
        return redirected(self.authorize(login_hint=account, **changes))["code"]

    def exchange(self, code: str, /, *, form: bool = False, **changes: str | None) -> httpx.Response:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.provider.redirect_uri,
            "client_id": self.provider.client_id,
            "code_verifier": self.verifier,
            "state": self.state,
        }
        return self._post(self.provider.token_url, _changed(fields, changes), form)

    def login(self, account: str = "alice", **changes: str | None) -> dict[str, Any]:
        """The token answer of a whole login."""
        answer = self.exchange(self.code(account, **changes))
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    def refresh(self, refresh_token: str, /, *, form: bool = False, **changes: str | None) -> httpx.Response:
        fields = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
            "client_id": self.provider.client_id,
        }
        return self._post(self.provider.token_url, _changed(fields, changes), form)

    def revoke(self, token: str, /, *, form: bool = False, **changes: str | None) -> httpx.Response:
        fields = {"token": token, "client_id": self.provider.client_id}
        return self._post(self.provider.revoke_url, _changed(fields, changes), form)

    def ask(
        self, access_token: str, text: str = "hello", *, path: str = "messages", **body: Any
    ) -> httpx.Response:
        """Call the Messages API; ``body`` replaces members of its JSON; None leaves one out."""
        message = {
            "model": "claude-sonnet-4-20250514",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": text}],
        }
        return self.http.post(
            f"{self.provider.url}/v1/{path}",
            json={name: value for name, value in {**message, **body}.items() if value is not None},
            headers=self.api_headers(access_token),
        )

    def api_headers(self, access_token: str) -> dict[str, str]:
        return {
            "authorization": f"Bearer {access_token}",
            "anthropic-beta": OAUTH_BETA,
            "anthropic-version": "2023-06-01",
        }

    def _post(self, url: str, fields: dict[str, str], form: bool) -> httpx.Response:
        return self.http.post(url, data=fields) if form else self.http.post(url, json=fields)


def redirected(answer: httpx.Response) -> dict[str, str]:
    """The parameters that a redirect hands to the client."""
    assert answer.status_code in {302, 303}, f"{answer.status_code} {answer.text}"
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query, keep_blank_values=True))


def _changed(fields: dict[str, str], changes: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}
