"""docs/claude_oauth.md names every setting, variable, route, status, error and command that there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litellm_oauth import errors
from litellm_oauth.cli.arguments import parse
from litellm_oauth.cli.main import exit_code
from litellm_oauth.errors import LitellmOAuthError
from litellm_oauth.gateway import errors as gateway_errors
from litellm_oauth.gateway.answers import answer_for
from litellm_oauth.gateway.routes import PREFIX, build_router
from litellm_oauth.settings import Settings, parse_settings
from litellm_oauth.settings_reader import Environment, Section
from litellm_oauth.tokens import Status

GUIDE = (Path(__file__).resolve().parents[2] / "docs/claude_oauth.md").read_text()
# What is read elsewhere than in the settings.
_OF_OTHERS = {"LITELLM_OAUTH_CONFIG", "LITELLM_OAUTH_API_KEYS", "LITELLM_OAUTH_CALLBACK_KEYS", "USER_ID"}
_OF_OTHERS |= {"LITELLM_LOG_LEVEL", "DETAILED_DEBUG", "LITELLM_LOG"}
# Roots of kinds, and the faults of the settings, which reach nobody who asks.
_ROOTS: set[type[LitellmOAuthError]] = {errors.LoginError, errors.ProviderError, errors.SettingsError}
_WITH_DEFAULT = ("boolean", "number", "whole", "text", "choice", "url", "words")
_WITHOUT_DEFAULT = ("secret", "urls", "strings", "references", "section")
# What no error of the package stands behind.
_OF_ROUTES = {"internal_error", "invalid_body", "unusable_answer"}


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of each row of the tables below a heading, up to the next one."""
    (text,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and cells[0].strip().startswith("`"):
            yield cells


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Every setting and variable that the settings read; of settings with a default, that."""
    seen: dict[str, Any] = {}

    def watch(kind: str) -> None:
        original = getattr(Section, kind)

        def noted(self: Section, key: str, *arguments: Any, **options: Any) -> Any:
            default = arguments[-1] if arguments and kind in _WITH_DEFAULT else None
            seen[f"{self._path}.{key}".removeprefix("claude_oauth.")] = default
            return original(self, key, *arguments, **options)

        monkeypatch.setattr(Section, kind, noted)

    for kind in (*_WITH_DEFAULT, *_WITHOUT_DEFAULT):
        watch(kind)
    get = Environment.get

    def noted_variable(self: Environment, name: str, **options: Any) -> str:
        seen[name] = None
        return get(self, name, **options)

    monkeypatch.setattr(Environment, "get", noted_variable)
    # Some are read only where others are set, or where they are not.
    for environ in ({}, {"LITELLM_OAUTH_DATABASE_URL": "postgresql://db/litellm", "REDIS_HOST": "redis"}):
        parse_settings({"enabled": False}, environ)
    return seen


def test_every_setting_is_in_the_table_with_its_default(read: dict[str, Any]) -> None:
    told = {words(name)[0]: default.strip("`") for name, default, *_ in rows("Settings")}
    known = {name: default for name, default in read.items() if name.islower()}
    assert sorted(told) == sorted(known)
    for name, default in known.items():
        if isinstance(default, bool):
            assert told[name] == str(default).lower(), name
        elif isinstance(default, int | float):
            assert float(told[name]) == default, name
        elif isinstance(default, str) and default:
            assert told[name] == default, name


def test_every_variable_is_in_the_tables(read: dict[str, Any]) -> None:
    told = {name for first, *_ in rows("Environment") for name in words(first)}
    assert told == {name for name in read if name.isupper()} | _OF_OTHERS


def test_every_route_is_in_the_table() -> None:
    settings: Settings = parse_settings({"enabled": False}, {})
    router = build_router(lambda: pytest.fail("asked"), lambda _: pytest.fail("asked"), settings)
    known = {
        f"{method} {route.path.removeprefix(PREFIX)}"  # type: ignore[attr-defined]
        for route in router.routes
        for method in route.methods  # type: ignore[attr-defined]
    }
    told = {words(first)[0] for first, *_ in rows("The HTTP routes")}
    assert {name for name in told if " /" in name} == known


def test_every_status_is_in_the_table() -> None:
    told = {words(first)[0] for first, *_ in rows("How a login stands")}
    assert told >= {status.value for status in Status}


def _all_kinds(root: type[LitellmOAuthError]) -> Iterator[type[LitellmOAuthError]]:
    """Those of the package and of its gateway that have a code of their own."""
    for kind in root.__subclasses__():
        if kind.__module__ in (errors.__name__, gateway_errors.__name__) and "code" in vars(kind):
            yield kind
        yield from _all_kinds(kind)


def test_every_error_is_in_the_table_with_its_status_and_exit_code() -> None:
    told = {name: cells[1:] for cells in rows("Errors") for name in words(cells[0])}
    raised = {*_all_kinds(LitellmOAuthError)} - _ROOTS
    assert set(told) == {kind.code for kind in raised} | _OF_ROUTES
    for kind in raised:
        error = kind.__new__(kind)
        vars(error).update(message="what to do next", allowed="GET")
        status, _, code = told[kind.code]
        assert answer_for(error).status == int(status), kind.code
        if kind.__module__ == errors.__name__:
            assert exit_code(error) == int(code), kind.code


def test_every_command_is_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    known = set(re.findall(r"^    (\w+)  ", capsys.readouterr().out, re.MULTILINE))
    told = {words(first)[0].split()[0] for first, *_ in rows("The command line")}
    assert "login" in known
    assert told >= known


_COMMANDS = "login", "callback x", "status", "refresh", "refresh --all", "logout", "export", "import", "users"


@pytest.mark.parametrize("command", _COMMANDS)
def test_it_says_which_commands_take_no_user(command: str) -> None:
    (without,) = re.findall(r"`--user USER` but for ([^;]*);", GUIDE)
    assert parse([*command.split(), "--json"]).json
    if command in words(without):
        with pytest.raises(SystemExit):
            parse([*command.split(), "--user", "alice"])
    else:
        assert parse([*command.split(), "--user", "alice"]).user == "alice"
