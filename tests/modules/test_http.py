"""The modules against what is no gateway: each answer becomes one sentence, and the key stays secret."""

from __future__ import annotations

import gzip
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import litellm_oauth_http as http
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.ansible_modules import Result, run
from support.stranger import Asked, Stranger, login, reply

KEY = "sk-never-to-be-seen"
HEALTHY = {"status": "ok", "database": True}
StartStranger = Callable[..., Stranger]


def ask(stranger: Stranger, **options: Any) -> Result:
    return run("info", **{"gateway_url": stranger.url, "api_key": KEY, **options})


def refusal(result: Result) -> str:
    """The message of a failure that is fit to be shown: one line, a sentence, no key."""
    assert result["failed"]
    assert KEY not in str(result)
    message = str(result["msg"])
    assert message.endswith((".", ")"))
    assert "\n" not in message
    return message


FOREIGN = {
    "a page with status 200": reply("<html>Welcome to nginx!</html>", Content_Type="text/html"),
    "nothing at all in the body": reply(""),
    "a list instead of an object": reply([1, 2]),
    "a status that has no body": reply("", "204 No Content"),
    "half of an object": b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"status": "o',
    "text that is not UTF-8": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe",
    "objects nested too deeply": reply("[" * 100_000),
    "half of a compressed body": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    + gzip.compress(b"{}")[:12],
    "a broken compressed body": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    + gzip.compress(b"")[:10]
    + b"\xff" * 9,
    "an object that says nothing of health": reply({"hello": "world"}),
    "an error in another shape": reply({"error": "no"}, "418 I'm a teapot"),
}


@pytest.mark.parametrize("answer", FOREIGN.values(), ids=FOREIGN.keys())
def test_an_answer_of_something_else_is_told_as_such(stranger: StartStranger, answer: bytes) -> None:
    other = stranger(answer)
    result = ask(other)
    message = refusal(result)
    assert result["error_code"] == "foreign_answer"
    assert message.startswith(other.url)
    assert "is no answer of the gateway's OAuth module. Check gateway_url" in message


REFUSALS = {
    "401": (reply("who are you", "401 Unauthorized"), "Check api_key or api_key_file"),
    "403": (reply("no", "403 Forbidden"), "Check whose key it is"),
    "404": (reply({"detail": "Not Found"}, "404 Not Found"), "claude_oauth enabled"),
    "429": (reply("", "429 Too Many Requests", Retry_After="17"), "Try again in 17 s."),
    "500": (reply("<h1>Oops</h1>", "500 Internal Server Error"), "(HTTP 500). Look at the logs"),
    "502": (reply("", "502 Bad Gateway"), "(HTTP 502). Look at the logs"),
    "503": (reply("", "503 Service Unavailable", Retry_After="soon"), "Try again later."),
}


@pytest.mark.parametrize(("answer", "mend"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_in_another_shape_says_what_to_check(
    stranger: StartStranger, answer: bytes, mend: str
) -> None:
    other = stranger(answer)
    message = refusal(ask(other))
    assert message.startswith(other.url)
    assert mend in message


def test_a_page_of_a_proxy_is_not_quoted(stranger: StartStranger) -> None:
    assert "Oops" not in refusal(ask(stranger(reply("<h1>Oops</h1>", "500 Internal Server Error"))))


def test_a_moment_in_retry_after_is_told_in_seconds(stranger: StartStranger) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    message = refusal(ask(stranger(reply("", "503 Service Unavailable", Retry_After=soon))))
    seconds = int(message.rpartition("Try again in ")[2].removesuffix(" s."))
    assert 95 <= seconds <= 100


def test_the_key_does_not_follow_a_redirect(stranger: StartStranger) -> None:
    elsewhere = stranger(reply(HEALTHY))
    other = stranger(reply("", "302 Found", Location=f"{elsewhere.url}/auth/claude/oauth/health"))
    assert f"redirects to {elsewhere.url}" in refusal(ask(other))
    assert elsewhere.asked == []


@pytest.mark.parametrize("by", ["api_key", "api_key_file"])
def test_a_server_that_sends_the_key_back_does_not_get_it_shown(
    stranger: StartStranger, tmp_path: Path, by: str
) -> None:
    def echo(asked: Asked) -> Iterable[bytes]:
        said = f"Who is {asked.headers['authorization']}?"
        return [reply({"error": {"message": said, "code": said}}, "400 Bad Request")]

    (tmp_path / "key").write_text(f"{KEY}\n")
    given: dict[str, Any] = {by: KEY if by == "api_key" else str(tmp_path / "key")}
    result = run("info", gateway_url=stranger(echo).url, **given)
    assert result["msg"].startswith("Who is Bearer ")
    assert KEY not in str(result)


def test_a_message_of_several_lines_becomes_one_of_bounded_length(stranger: StartStranger) -> None:
    long = "first\r\n\x1b[31msecond\n" + "x" * 5000
    message = ask(stranger(reply({"error": {"message": long}}, "400 Bad Request")))["msg"]
    assert message.startswith("first  [31msecond xxx")
    assert len(message) == 1000


def test_what_is_no_part_of_a_status_is_dropped(stranger: StartStranger) -> None:
    one = stranger(
        lambda asked: [reply(HEALTHY if "/health" in asked.path else login(access_token="sk-ant-oat01-x"))]
    )
    result = ask(one, user="alice")
    assert result["users"][0]["status"] == "active"
    assert "sk-ant" not in str(result)


STATUSES = {
    "of somebody else": login("bob"),
    "without a generation": {**login(), "generation": None},
    "whose seconds are a text": login(expires_in="60"),
    "that says nothing": {},
}


@pytest.mark.parametrize("status", STATUSES.values(), ids=STATUSES.keys())
def test_a_status_in_another_shape_is_foreign(stranger: StartStranger, status: dict[str, Any]) -> None:
    one = stranger(lambda asked: [reply(HEALTHY if "/health" in asked.path else status)])
    result = ask(one, user="alice")
    assert refusal(result).startswith(one.url)
    assert result["error_code"] == "foreign_answer"


LISTS = {
    "no list": {"users": "alice"},
    "a list of names": {"users": ["alice"]},
    "a next page of no name": {"users": [], "next": 7},
    "a page that leads to itself": {"users": [], "next": "alice"},
}


@pytest.mark.parametrize("page", LISTS.values(), ids=LISTS.keys())
def test_a_list_of_users_in_another_shape_is_foreign(stranger: StartStranger, page: dict[str, Any]) -> None:
    result = ask(stranger(lambda asked: [reply(HEALTHY if "/health" in asked.path else page)]))
    refusal(result)
    assert result["error_code"] == "foreign_answer"


def test_a_server_that_hangs_up_is_told(stranger: StartStranger) -> None:
    result = ask(stranger(b""))
    assert "gave no usable answer" in refusal(result)
    assert result["error_code"] == "unreachable"


def test_what_does_not_speak_http_is_told(stranger: StartStranger) -> None:
    assert "gave no usable answer" in refusal(ask(stranger(b"220 mail.example.com ESMTP\r\n")))


def test_more_than_the_limit_is_not_read(stranger: StartStranger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 100_000)

    def endless(asked: Asked) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b" " * 65536

    assert "more than" in refusal(ask(stranger(endless)))


def test_an_answer_that_never_comes_ends_at_the_timeout(stranger: StartStranger) -> None:
    def silent(asked: Asked) -> Iterable[bytes]:
        asked.ended.wait(20)
        return []

    other = stranger(silent)
    message = refusal(ask(other, timeout=1))
    assert message == f"{other.url} did not answer within 1 s. Look at its log, or raise timeout."


def test_an_answer_that_drips_ends_at_the_timeout(stranger: StartStranger) -> None:
    def dripping(asked: Asked) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
        for _ in range(400):
            yield b" "
            asked.ended.wait(0.05)

    began = time.monotonic()
    assert "did not answer within 1 s" in refusal(ask(stranger(dripping), timeout=1))
    assert time.monotonic() - began < 5


def test_a_gateway_that_restarts_is_asked_again(stranger: StartStranger) -> None:
    gone = stranger(reply(HEALTHY))
    gone.stop()
    pauses: list[float] = []
    port = int(gone.url.rpartition(":")[2])

    def start(pause: float) -> None:
        pauses.append(pause)
        stranger(reply(HEALTHY), port=port)

    answer = http.Http(http.Address(gone.url, KEY), sleep=start).call("GET", "/health")
    assert answer == HEALTHY
    assert pauses == [0.5]


def test_a_request_that_may_have_arrived_is_not_sent_again(stranger: StartStranger) -> None:
    one = stranger(b"")
    asking = http.Http(http.Address(one.url, KEY), sleep=lambda pause: pytest.fail("it was sent again"))
    with pytest.raises(http.GatewayError):
        asking.call("POST", "/refresh", body={})
    assert len(one.asked) == 1


def test_an_unknown_name_is_told_with_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # What a name server says depends on the machine.
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = refusal(run("info", gateway_url="http://gateway.invalid", api_key=KEY))
    assert message == "The name in http://gateway.invalid is not known on this host. Check gateway_url."


def test_the_repr_of_an_address_hides_the_key() -> None:
    assert KEY not in repr(http.Address("http://127.0.0.1:4000", KEY))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody else signed, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(built.public_bytes(serialization.Encoding.PEM) + pem)
    return path


@pytest.fixture
def secure(stranger: StartStranger, certificate: Path) -> Stranger:
    """Answers over TLS as a gateway would, with a certificate of its own making."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    return stranger(lambda asked: [reply(HEALTHY if "/health" in asked.path else login())], tls=tls)


def test_a_certificate_that_nobody_vouches_for_is_refused(secure: Stranger) -> None:
    message = refusal(ask(secure, user="alice"))
    assert message.startswith(f"The certificate of {secure.url} is not accepted")
    assert "ca_path" in message
    assert secure.asked == []


def test_a_refused_certificate_is_not_tried_again(secure: Stranger) -> None:
    asking = http.Http(http.Address(secure.url, KEY), sleep=lambda pause: pytest.fail("it was tried again"))
    with pytest.raises(http.GatewayError):
        asking.call("GET", "/health")


def test_ca_path_vouches_for_a_certificate(secure: Stranger, certificate: Path) -> None:
    assert ask(secure, user="alice", ca_path=str(certificate))["users"][0]["user_id"] == "alice"


def test_a_certificate_for_another_name_is_refused_although_its_ca_is_known(
    secure: Stranger, certificate: Path
) -> None:
    url = secure.url.replace("127.0.0.1", "localhost")
    message = refusal(ask(secure, gateway_url=url, ca_path=str(certificate)))
    assert message.startswith(f"The certificate of {url} is not accepted")


def test_validate_certs_off_takes_any_certificate(secure: Stranger) -> None:
    assert ask(secure, user="alice", validate_certs=False)["users"][0]["user_id"] == "alice"


def test_https_to_a_port_that_speaks_http_says_so(stranger: StartStranger) -> None:
    url = stranger(reply(HEALTHY)).url.replace("http:", "https:")
    assert "write http://" in refusal(run("info", gateway_url=url, api_key=KEY))


def test_http_to_a_port_that_speaks_tls_is_told(secure: Stranger) -> None:
    refusal(ask(secure, gateway_url=secure.url.replace("https:", "http:")))


def test_a_ca_file_without_certificates_is_named(secure: Stranger, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing\n")
    message = refusal(ask(secure, ca_path=str(tmp_path / "ca.pem")))
    assert f"ca_path {tmp_path / 'ca.pem'}" in message


def test_a_ca_file_that_is_missing_is_named(unsent: Callable[..., Result], tmp_path: Path) -> None:
    message = refusal(unsent("info", ca_path=str(tmp_path / "ca.pem")))
    assert message.startswith(f"ca_path {tmp_path / 'ca.pem'} is no file on this host.")
