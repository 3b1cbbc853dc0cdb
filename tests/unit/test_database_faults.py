"""What is said of a fault of the database: a few causes that people can mend, never the error's own text."""

from __future__ import annotations

import psycopg
import pytest

from litellm_oauth.stores.database import describe

_AT = 'connection failed: connection to server at "192.0.2.7", port 5432 failed: '
_NO_TLS = "the server does not offer the TLS that sslmode asks for"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("server does not support SSL, but SSL was required", _NO_TLS),
        ("SSL connection has been closed unexpectedly", None),
        ("SSL error: certificate verify failed", None),
        ("SSL SYSCALL error: EOF detected", None),
        ('FATAL:  no pg_hba.conf entry for host "192.0.2.8", user "llmproxy", SSL off', None),
        ('FATAL:  password authentication failed for user "llmproxy"', "the password was refused"),
        ("Connection refused\n\tIs the server running on that host?", "the connection was refused"),
        ('could not translate host name "db" to address: Unknown', "the host's name is not known"),
    ],
)
def test_only_a_cause_that_is_known_for_sure_is_told(said: str, cause: str | None) -> None:
    told = describe(psycopg.OperationalError(_AT + said))
    assert told == ("OperationalError" if cause is None else f"OperationalError: {cause}")
