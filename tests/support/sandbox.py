"""The sandbox provider as a real process on a loopback port, for every test that needs a provider.

Import the fixtures by name. ``sandbox`` is a clean provider for each test, from one process a test process
(``sandbox_process``, to be imported as well); ``own_sandbox`` is one test's alone, to stop and restart.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

CLIENT_ID = "litellm-oauth-sandbox"
_PACKAGE_ROOT = Path(__file__).parents[2] / "sandbox"
_START_SECONDS = 15.0
# Plain HTTP needs no certificates, and reading them takes longer than most tests.
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class SandboxDownError(AssertionError):
    """The process ended, or did not come up in time."""


class SandboxProvider:
    """One running provider: its addresses, a browser to sign in with, and its control routes.

    ``folder`` holds its database and its log; ``log_text`` is what the process has printed so far.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._environment = environment
        self._database = folder / "sandbox.sqlite3"
        self._log = folder / "sandbox.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._http = http_client()

    # -- the process

    def start(self) -> None:
        """Start, on the same port as before if there was one; wait until it answers."""
        with self._log.open("ab") as log:
            seen = log.tell()
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "oauth_sandbox",
                    "--port",
                    str(self.port),
                    "--database",
                    str(self._database),
                ],
                env={**os.environ, "PYTHONPATH": str(_PACKAGE_ROOT), **self._environment},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise SandboxDownError(f"the sandbox ended at once:\n{self.log_text}")
            listening = re.search(rb"listening on http://\S+:(\d+)", self._log.read_bytes()[seen:])
            if listening:
                self.port = int(listening[1])
                try:
                    if self._http.get(f"{self.url}/healthz").is_success:
                        return
                except httpx.TransportError:
                    pass
            time.sleep(0.02)
        self.kill()
        raise SandboxDownError(f"the sandbox did not answer within {_START_SECONDS:g} s:\n{self.log_text}")

    def stop(self) -> None:
        """End it politely (SIGTERM)."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        self.kill()
        self._http.close()

    @property
    def log_text(self) -> str:
        return self._log.read_text(errors="replace")

    # -- where it is

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def issuer(self) -> str:
        return self.url

    @property
    def authorize_url(self) -> str:
        return f"{self.url}/oauth/authorize"

    @property
    def token_url(self) -> str:
        return f"{self.url}/v1/oauth/token"

    @property
    def revoke_url(self) -> str:
        return f"{self.url}/v1/oauth/token/revoke"

    @property
    def redirect_uri(self) -> str:
        return f"http://localhost:{self.port}/oauth/code/callback"

    @property
    def client_id(self) -> str:
        return CLIENT_ID

    def provider_settings(self) -> dict[str, Any]:
        """What stands under ``claude_oauth.provider`` for this provider."""
        return {
            "issuer": self.issuer,
            "authorize_url": self.authorize_url,
            "token_url": self.token_url,
            "revoke_url": self.revoke_url,
            "redirect_uri": self.redirect_uri,
            "client_id": self.client_id,
            "scopes": ["user:inference", "user:profile"],
        }

    # -- the person

    def approve(self, authorization_url: str, login_hint: str | None = None) -> str:
        """Sign in as a browser does, and return what the code page shows: ``code#state``."""
        with self.browser() as browser:
            page = browser.get(authorization_url)
            return shown_code(self.press(browser, page, "allow", account=login_hint))

    def approve_from_shell(self, authorization_url: str) -> str:
        """Follow the link as ``curl -L`` does, which is approved without a question."""
        with http_client(follow_redirects=True) as client:
            return shown_code(client.get(authorization_url))

    @contextmanager
    def browser(self) -> Iterator[httpx.Client]:
        """A client that asks for HTML, keeps cookies, and follows redirects."""
        with http_client(follow_redirects=True, headers={"accept": "text/html,*/*;q=0.8"}) as client:
            yield client

    def press(
        self, browser: httpx.Client, page: httpx.Response, decision: str, account: str | None = None
    ) -> httpx.Response:
        """Send the consent form of ``page``; ``account`` None leaves its field as it is shown."""
        form = PageForm(page.text)
        assert form.action is not None, f"no form on {page.url}: {page.status_code}"
        fields = {**form.fields, "decision": decision}
        if account is not None:
            fields["account"] = account
        return browser.post(urljoin(str(page.url), form.action), data=fields)

    # -- the control routes

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Call a control route and return its JSON. Fails the test where the sandbox refuses."""
        response = self._http.request(method, f"{self.url}/control/{path}", json=body)
        assert response.is_success, f"{method} /control/{path}: {response.status_code} {response.text}"
        return response.json()

    def requests(self, *, since: float = 0, account: str | None = None) -> list[dict[str, Any]]:
        """The API calls that were seen, oldest first."""
        query = httpx.QueryParams({"since": since, **({"account": account} if account else {})})
        answer: list[dict[str, Any]] = self.control("GET", f"requests?{query}")
        return answer

    def token_calls(self, account: str | None = None) -> dict[str, Any]:
        """``{"total", "authorization_code": {outcome: n}, "refresh_token": {outcome: n}}``."""
        query = f"?{httpx.QueryParams({'account': account})}" if account else ""
        answer: dict[str, Any] = self.control("GET", f"token-calls{query}")
        return answer

    def counters(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.control("GET", "counters")
        return answer

    def logins(self, account: str | None = None) -> list[dict[str, Any]]:
        query = f"?{httpx.QueryParams({'account': account})}" if account else ""
        answer: list[dict[str, Any]] = self.control("GET", f"logins{query}")
        return answer

    def log_in(self, *accounts: str) -> list[dict[str, Any]]:
        """Logins without a browser, up to a thousand: their token answers."""
        answer: list[dict[str, Any]] = self.control("POST", "logins", {"accounts": accounts})
        return answer

    def fault(self, endpoint: str, kind: str, **details: Any) -> None:
        """Switch a fault on; see ``oauth_sandbox.faults.Fault`` for the details."""
        self.control("POST", "faults", {"endpoint": endpoint, "kind": kind, **details})

    def clear_faults(self) -> None:
        self.control("DELETE", "faults")

    def issued(self) -> frozenset[bytes]:
        """The SHA-256 of every code and token since the last reset, also of those that are dead."""
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT hash FROM tokens UNION SELECT hash FROM codes").fetchall()
        return frozenset(row[0] for row in rows)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change the provider's habits; see ``oauth_sandbox.knobs.Knobs``."""
        answer: dict[str, Any] = self.control("POST", "settings", changes)
        return answer

    def expire(self, account: str | None = None, *, refresh_tokens: bool = False) -> dict[str, int]:
        """Let access tokens end now, refresh tokens too if asked."""
        answer: dict[str, int] = self.control(
            "POST", "expire", {"account": account, "refresh_tokens": refresh_tokens}
        )
        return answer

    def revoke(self, account: str | None = None) -> None:
        """Withdraw logins, as the account's owner can."""
        self.control("POST", "revoke", {"account": account})

    def reset(self, *, logins: bool = True) -> None:
        """Faults, settings, records and counters as at the start, and no logins."""
        self.control("POST", "reset", {"logins": logins})


def http_client(**options: Any) -> httpx.Client:
    """A client for loopback: no proxy, no TLS."""
    return httpx.Client(trust_env=False, verify=_NO_CERTIFICATES, timeout=30, **options)


def fingerprint(token: str) -> str:
    """How the sandbox's records name a token."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def shown_code(page: httpx.Response) -> str:
    """The text of the element with the id ``code``."""
    reader = PageForm(page.text)
    assert reader.code is not None, f"no code on the page: {page.status_code} {page.url.path}"
    return reader.code


class PageForm(HTMLParser):
    """The form and the code of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.code: str | None = None
        self._in_code = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = found.get("action")
        elif tag == "input" and "name" in found:
            self.fields[found["name"]] = found.get("value", "")
        self._in_code = found.get("id") == "code"

    def handle_data(self, data: str) -> None:
        if self._in_code:
            self.code = (self.code or "") + data

    def handle_endtag(self, tag: str) -> None:
        self._in_code = False


@contextmanager
def running_sandbox(**environment: str) -> Iterator[SandboxProvider]:
    """A provider with its own database; keyword arguments are environment variables."""
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
        provider = SandboxProvider(Path(folder), environment)
        try:
            provider.start()
            yield provider
        finally:
            provider.close()


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[SandboxProvider]:
    """The process that the tests of one test process share."""
    with running_sandbox() as provider:
        yield provider


@pytest.fixture
def sandbox(sandbox_process: SandboxProvider) -> SandboxProvider:
    """A provider that remembers nothing of other tests."""
    sandbox_process.reset()
    return sandbox_process


@pytest.fixture
def own_sandbox() -> Iterator[SandboxProvider]:
    """A provider of this test alone, to stop, kill and restart."""
    with running_sandbox() as provider:
        yield provider
