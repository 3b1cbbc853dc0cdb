"""A standard OpenID provider as a process of its own, and a person with a browser.

``openid_provider`` is one process a test module. What it is: ``openid_site``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from support.openid_site import CLIENT_ID, CLIENT_SECRET, PASSWORD, REDIRECT_URI, SCOPES
from support.sandbox import PageForm, http_client

_TESTS = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class OpenidProvider:
    """One running provider. ``metadata`` is what it says of itself (RFC 8414)."""

    url: str
    metadata: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """What stands under ``claude_oauth.provider``, copied out of the metadata; the secret is apart."""
        return {
            "issuer": self.metadata["issuer"],
            "require_issuer": self.metadata["authorization_response_iss_parameter_supported"],
            "authorize_url": self.metadata["authorization_endpoint"],
            "token_url": self.metadata["token_endpoint"],
            "revoke_url": self.metadata["revocation_endpoint"],
            "redirect_uri": REDIRECT_URI,
            "client_id": CLIENT_ID,
            "client_authentication": "basic",
            "body": "form",
            "scopes": list(SCOPES),
            "authorize_parameters": {"prompt": "consent"},
        }

    def approve(self, authorization_url: str, user: str) -> str:
        """Sign in and consent on the provider's own pages: the address that the browser is sent to."""
        with http_client(follow_redirects=True) as browser:
            page = browser.get(authorization_url)
            page = _press(browser, page, {"username": user, "password": PASSWORD})
            answer = _press(browser, page, {}, follow_redirects=False)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def refresh(self, refresh_token: str) -> httpx.Response:
        """Spend a refresh token past the gateway, as only the client can."""
        fields = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return self._ask(self.metadata["token_endpoint"], fields)

    def revoke(self, refresh_token: str) -> None:
        """End a login past the gateway."""
        assert self._ask(self.metadata["revocation_endpoint"], {"token": refresh_token}).status_code == 200

    def accepts(self, token: str) -> bool:
        """Whether the API takes the token."""
        with http_client(headers={"authorization": f"Bearer {token}"}) as client:
            answer = client.post(f"{self.url}/v1/messages")
        assert answer.status_code in (200, 401), answer.text
        return answer.status_code == 200

    def _ask(self, url: str, fields: Mapping[str, str]) -> httpx.Response:
        with http_client() as client:
            return client.post(url, data={**fields, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET})


def _press(
    browser: httpx.Client, page: httpx.Response, fields: Mapping[str, str], **options: Any
) -> httpx.Response:
    form = PageForm(page.text)
    assert form.fields, f"no form on {page.url}: {page.status_code}"
    return browser.post(urljoin(str(page.url), form.action), data={**form.fields, **fields}, **options)


@contextmanager
def running_provider() -> Iterator[OpenidProvider]:
    """A provider with a database of its own. It listens at once, and answers when it is ready."""
    with tempfile.TemporaryDirectory(prefix="openid-") as name, (Path(name) / "log").open("wb") as log:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            process = subprocess.Popen(
                [sys.executable, "-m", "support.openid_site", str(listener.fileno()), name],
                env={**os.environ, "PYTHONPATH": str(_TESTS)},
                pass_fds=[listener.fileno()],
                stdout=log,
                stderr=log,
            )
        try:
            with http_client() as client:
                metadata = client.get(f"{url}/o/.well-known/oauth-authorization-server")
            yield OpenidProvider(url, metadata.raise_for_status().json())
        except httpx.TransportError as error:
            raise AssertionError((Path(name) / "log").read_text(errors="replace")) from error
        finally:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def openid_provider() -> Iterator[OpenidProvider]:
    """The provider of one module's tests."""
    with running_provider() as provider:
        yield provider
