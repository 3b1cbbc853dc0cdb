"""Other web pages use neither the control routes nor the pages: no name of theirs, no form, no script."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
from starlette.requests import Request

from oauth_sandbox.guard import Guard
from support.oauth_client import OAuthClient
from support.sandbox import SandboxProvider, running_sandbox

OWN = ["localhost", "LocalHost", "sandbox", "127.0.0.1", "127.1.2.3", "[::1]", "[0:0:0:0:0:0:0:1]"]
NAMED = ["lab.example", "LAB.example", "192.0.2.7", "[2001:db8::7]"]
FOREIGN = [
    "evil.example",
    "localhost.evil.example",
    "evil.example:4010@localhost",
    "sandbox.example",
    "192.0.2.8",
    "[2001:db8::8]",
    "0.0.0.0",  # noqa: S104 -- a name that is asked for
    "[::]",
    "2130706433",
    "::1",
    "localhost:port",
    "localhost:4010:4010",
    "localhost/",
    "localhost evil.example",
    "",
]
PAGES = ["/oauth/authorize", "/oauth/code/callback?code=a&state=b"]


@pytest.fixture(scope="module")
def named() -> Iterator[SandboxProvider]:
    names = "lab.example, 192.0.2.7,2001:DB8:0::7"
    with running_sandbox(SANDBOX_HOST="0.0.0.0", SANDBOX_NAMES=names) as provider:  # noqa: S104
        yield provider


def send(provider: SandboxProvider, method: str, path: str, *lines: str) -> tuple[int, str]:
    """Status and body of the answer to exactly these header lines, ``Host`` included or not."""
    head = [f"{method} {path} HTTP/1.1", *lines, "Content-Length: 0", "Connection: close"]
    with socket.create_connection(("127.0.0.1", provider.port), 10) as connection:
        connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    return int(answer.split()[1]), answer.partition("\r\n\r\n")[2]


@pytest.mark.parametrize("port", ["", ":4010", ":80"])
@pytest.mark.parametrize("name", [*OWN, *NAMED])
def test_its_own_names_are_answered_with_any_port(named: SandboxProvider, name: str, port: str) -> None:
    assert send(named, "GET", "/control/counters", f"Host: {name}{port}")[0] == 200
    assert send(named, "GET", PAGES[1], f"Host: {name}{port}")[0] == 200


@pytest.mark.parametrize("host", FOREIGN)
def test_a_name_that_has_come_to_mean_this_machine_gets_a_403(named: SandboxProvider, host: str) -> None:
    """DNS rebinding: to the browser, page and sandbox are one site; it sends no Origin or the same one."""
    armed = send(named, "POST", "/control/settings", f"Host: {host}", f"Origin: http://{host}")
    assert (armed[0], '"type":"forbidden"' in armed[1]) == (403, True)
    for path in PAGES:
        assert send(named, "GET", path, f"Host: {host}")[0] == 403


@pytest.mark.parametrize("lines", [[], ["Host: localhost", "Host: evil.example"], ["Host: localhost"] * 2])
@pytest.mark.parametrize("path", ["/control/counters", *PAGES])
def test_no_host_and_two_are_refused(named: SandboxProvider, path: str, lines: list[str]) -> None:
    assert send(named, "GET", path, *lines)[0] in (400, 403)


@pytest.mark.parametrize("hosts", [[], ["localhost", "evil.example"], ["localhost", "localhost"]])
def test_one_host_is_demanded_whatever_the_http_server_lets_through(hosts: list[str]) -> None:
    """Of uvicorn's two parsers one refuses such a request by itself, the other does not."""
    headers = [(b"host", host.encode()) for host in hosts]
    refused = Guard(()).refuse_page(Request({"type": "http", "headers": headers}))
    assert refused == "Send one Host header."


def test_names_are_not_known_unless_configured(sandbox: SandboxProvider) -> None:
    for name in NAMED:
        status, told = send(sandbox, "GET", "/control/counters", f"Host: {name}")
        assert (status, "SANDBOX_NAMES" in told) == (403, True)


def test_no_code_is_granted_to_a_foreign_name(client: OAuthClient) -> None:
    """The page's script accepts anything, and over plain HTTP no Sec-Fetch header tells of it."""
    path = client.authorization_url(login_hint="alice").removeprefix(client.provider.url)
    status, told = send(client.provider, "GET", path, "Host: evil.example", "Accept: */*")
    assert (status, re.search("code", told)) == (403, None)
    assert send(client.provider, "POST", path, "Host: evil.example")[0] == 403
    assert client.provider.counters()["events"] == {}
    assert send(client.provider, "GET", path, "Host: sandbox:4010", "Accept: */*")[0] == 302


def test_a_person_with_a_foreign_name_gets_a_page(client: OAuthClient) -> None:
    status, told = send(client.provider, "GET", PAGES[1], "Host: evil.example", "Accept: text/html")
    assert (status, "<h1>This address is not the sandbox" in told) == (403, True)


@pytest.mark.parametrize(
    "lines",
    [
        ["Origin: http://evil.example"],
        ["Origin: null"],
        ["Origin: http://localhost:3000"],
        ["Origin: http://localhost"],
        ["Origin: ftp://localhost:4010"],
        ["Origin: http://localhost:4010.evil.example"],
        ["Origin: http://localhost:4010", "Origin: http://evil.example"],
        ["Sec-Fetch-Site: cross-site"],
        ["Sec-Fetch-Site: same-site"],
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_another_page_cannot_use_the_control_routes(
    sandbox: SandboxProvider, method: str, lines: list[str]
) -> None:
    sandbox.settings(rotate=False)
    form = "Content-Type: application/x-www-form-urlencoded"
    status, told = send(sandbox, method, "/control/settings", "Host: localhost:4010", form, *lines)
    assert (status, "Other web pages" in told) == (403, True)
    assert sandbox.settings()["rotate"] is False


@pytest.mark.parametrize(
    "origin", ["http://localhost:4010", "https://localhost:4010", "HTTP://LOCALHOST:4010"]
)
def test_a_page_of_the_same_address_can(sandbox: SandboxProvider, origin: str) -> None:
    lines = ["Host: localhost:4010", f"Origin: {origin}", "Sec-Fetch-Site: same-origin"]
    assert send(sandbox, "POST", "/control/reset", *lines)[0] == 200


def test_a_consent_form_is_taken_without_an_origin_of_its_own(client: OAuthClient) -> None:
    """Browsers send `null` from a page whose referrer-policy is no-referrer, as the consent page's is."""
    with client.provider.browser() as browser:
        page = browser.get(client.authorization_url())
        browser.headers["origin"] = "null"
        assert client.provider.press(browser, page, "allow").status_code == 200
