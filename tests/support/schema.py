"""Schemathesis over the OpenAPI document that a gateway serves, kept to our routes and to users of ours."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "/auth/claude/oauth/"
USER_HEADER = "x-litellm-oauth-user"
_SECONDS = 600
# The seed makes the same requests in every run: what fails does so again. Whatever else may be refused, a
# request that the document allows is not a bad one (400), but for codes: no document can say which ones the
# provider has given out.
_SETTINGS = """
seed = 7636
hooks = "support.schema_hooks"
suppress-health-check = ["all"]
continue-on-failure = true
warnings = false
checks.positive_data_acceptance.expected-statuses = ["2XX", "401", "403", "404", "409", "429"]
phases.coverage.generate-duplicate-query-parameters = true
generation.database = "none"
cache.enabled = false
output.sanitization.enabled = false

[[operations]]
include-path = "/auth/claude/oauth/exchange"
checks.positive_data_acceptance.expected-statuses = ["2XX", "400", "401", "403", "404", "409", "429"]
"""
_KEY = """
[auth.openapi.GatewayKey]
bearer = "${SCHEMA_KEY}"
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer: from which route it came, and all that it says."""

    route: str
    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """What came of it. ``report`` says what does not conform, and how to ask for that again."""

    conforms: bool
    report: str
    answers: Sequence[Heard]

    def statuses(self, route: str) -> set[int]:
        """What a route answered; ``route`` is its method and the end of its path."""
        return {answer.status for answer in self.answers if answer.route == route}


def examine(
    url: str,
    folder: Path,
    *,
    key: str | None,
    users: Sequence[str],
    examples: int,
    phases: Sequence[str],
    shared: bool = False,
    reader: str | None = None,
) -> Run:
    """Ask our routes of the gateway at ``url``, and check every answer against its document.

    ``examples``: so many requests of random data, good and bad, to each route in each of ``phases``, which
    are Schemathesis' own. ``key`` None: random keys. ``shared``: the gateway has users of others, too, who
    must not notice. ``reader``: a key that the document is read with, if it is not ``key``.
    """
    assert urlsplit(url).hostname in ("127.0.0.1", "localhost"), url
    settings, cassette = folder / "schemathesis.toml", folder / "answers.har"
    settings.write_text(_SETTINGS + (_KEY if key else ""))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "tests"),
        "NO_PROXY": "*",
        "SCHEMA_KEY": key or "",
        "SCHEMA_USERS": ",".join(users),
        "SCHEMA_SHARED": "yes" if shared else "",
    }
    document = folder / "openapi.json"
    authorization = {"Authorization": f"Bearer {reader or key}"}
    answer = httpx.get(f"{url}/openapi.json", headers=authorization, timeout=120)
    assert answer.status_code == 200, answer.text
    document.write_text(answer.text)
    command = ["st", "--no-color", "--config-file", str(settings), "run", str(document), f"--url={url}"]
    options = [
        f"--include-path-regex=^{PREFIX}",
        f"--phases={','.join(phases)}",
        f"--max-examples={examples}",
        f"--report-har-path={cassette}",
    ]
    done = subprocess.run(
        [*command, *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    entries = json.loads(cassette.read_text())["log"]["entries"] if cassette.exists() else []
    cassette.unlink(missing_ok=True)
    report = done.stdout.replace(key, "$KEY") if key else done.stdout
    return Run(done.returncode == 0, report, [_heard(entry) for entry in entries])


def _heard(entry: dict[str, Any]) -> Heard:
    request, answer = entry["request"], entry["response"]
    path = urlsplit(request["url"]).path.removeprefix(PREFIX)
    route = f"{request['method']} {'refresh/{job_id}' if path.startswith('refresh/') else path}"
    headers = "".join(f"{header['name']}: {header['value']}\n" for header in answer["headers"])
    return Heard(route, answer["status"], headers + answer["content"].get("text", ""))
