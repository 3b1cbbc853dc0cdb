"""How the sandbox starts: options of the command line first, then the environment, then defaults."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .guard import is_name

DEFAULT_PORT = 4010
SCOPES = ("user:inference", "user:profile")
_MONTH = 30 * 24 * 3600


class SettingsError(Exception):
    """Names every setting that is wrong, with its mend, one a line."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What was configured; empty ``redirect_uris`` stand for the address of the sandbox's own code page."""

    host: str
    port: int
    database: Path
    client_ids: tuple[str, ...]
    redirect_uris: tuple[str, ...]
    names: tuple[str, ...]
    access_token_seconds: int
    refresh_token_seconds: int


@dataclass(frozen=True, slots=True)
class _Setting:
    name: str
    default: str
    help: str


_SETTINGS = (
    _Setting("host", "127.0.0.1", "address to listen on"),
    _Setting("port", str(DEFAULT_PORT), "port to listen on; 0 takes a free one and prints it"),
    _Setting("database", "/data/sandbox.sqlite3", "SQLite file that keeps the logins"),
    _Setting("client-id", "litellm-oauth-sandbox", "known client; several are separated by commas"),
    _Setting(
        "redirect-uris",
        "",
        "allowed redirect URIs, separated by commas (default: the sandbox's own code page)",
    ),
    _Setting(
        "names",
        "",
        "host names and addresses that the sandbox is reached by, separated by commas, beside localhost, "
        "sandbox and the loopback addresses",
    ),
    _Setting("access-token-seconds", "28800", "life of an access token"),
    _Setting("refresh-token-seconds", str(_MONTH), "life of a refresh token, counted from the login"),
)


def read_settings(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Read and check everything. Raises SettingsError with all faults at once."""
    parser = argparse.ArgumentParser(
        prog="python -m oauth_sandbox",
        description="A strict stand-in OAuth provider. Environment variables do as well: SANDBOX_PORT etc.",
    )
    for setting in _SETTINGS:
        parser.add_argument(
            f"--{setting.name}",
            default=environment.get(f"SANDBOX_{setting.name.replace('-', '_').upper()}", setting.default),
            help=f"{setting.help} (default: {setting.default or 'none'})",
        )
    given: dict[str, str] = vars(parser.parse_args(arguments))
    faults: list[str] = []

    def whole(name: str, least: int, most: int) -> int:
        text = given[name].strip()
        if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
            faults.append(
                f"SANDBOX_{name.upper()} must be a whole number from {least} to {most}, not {text!r}."
            )
            return least
        return int(text)

    def several(name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in given[name].split(",") if part.strip())

    redirect_uris = several("redirect_uris")
    faults += [
        f"SANDBOX_REDIRECT_URIS: {uri!r} must be an http(s) URL without a fragment (RFC 6749, 3.1.2)."
        for uri in redirect_uris
        if not _absolute(uri)
    ]
    names = several("names")
    faults += [
        f"SANDBOX_NAMES: {name!r} must be a host name or an address, without a port."
        for name in names
        if not is_name(name)
    ]
    client_ids = several("client_id")
    if not client_ids:
        faults.append("SANDBOX_CLIENT_ID must name at least one client.")
    settings = Settings(
        host=given["host"],
        port=whole("port", 0, 65535),
        database=Path(given["database"]),
        client_ids=client_ids,
        redirect_uris=redirect_uris,
        names=names,
        access_token_seconds=whole("access_token_seconds", 1, 10 * 365 * 24 * 3600),
        refresh_token_seconds=whole("refresh_token_seconds", 1, 10 * 365 * 24 * 3600),
    )
    if not settings.database.parent.is_dir():
        faults.append(f"SANDBOX_DATABASE: the folder {settings.database.parent} does not exist.")
    if faults:
        raise SettingsError("\n".join(faults))
    return settings


def _absolute(uri: str) -> bool:
    split = urlsplit(uri)
    return split.scheme in {"http", "https"} and bool(split.hostname) and "#" not in uri
