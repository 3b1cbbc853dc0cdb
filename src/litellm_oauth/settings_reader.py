"""Reads single settings out of a mapping and the environment and gathers the faults; see ``settings``.

A fault names the setting, the shape of what was found (never the value) and the mend.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LITELLM_REFERENCE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")
_MISSING = object()


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine: localhost or a loopback address."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Environment:
    """The environment, where NAME may also be given as a file in NAME_FILE."""

    def __init__(self, environ: Mapping[str, str], faults: list[str]) -> None:
        self._environ = environ
        self._faults = faults
        self._files: dict[str, str] = {}

    def get(self, name: str, *, may_be_empty: bool = False) -> str:
        """The value without surrounding white space, or the empty string.

        An empty file is a fault, unless it ``may_be_empty``: then it is the same as none.
        """
        value = self._environ.get(name, "").strip()
        path = self._environ.get(f"{name}_FILE", "").strip()
        if not path:
            return value
        if name not in self._files:
            self._files[name] = self._read(name, path, may_be_empty)
        content = self._files[name]
        if value and content and value != content:
            self._faults.append(
                f"{name}: is set and differs from the file in {name}_FILE; keep one of the two"
            )
            self._files[name] = value
        return value or content

    def _read(self, name: str, path: str, may_be_empty: bool) -> str:
        try:
            content = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            self._faults.append(
                f"{name}_FILE: {path} cannot be read ({error.strerror}); correct path or mode"
            )
            return ""
        except UnicodeDecodeError:
            self._faults.append(f"{name}_FILE: {path} is not UTF-8 text; write the value as text")
            return ""
        if not content and not may_be_empty:
            self._faults.append(f"{name}_FILE: {path} is empty; write the value into it")
        return content


class Section:
    """One mapping of the settings. Each method reads one key, checks it and returns a usable value."""

    def __init__(self, values: Mapping[str, Any], path: str, env: Environment, faults: list[str]) -> None:
        self._values = values
        self._path = path
        self._env = env
        self._faults = faults
        self._known: set[str] = set()
        self.required = True

    def section(self, key: str) -> Section:
        """The mapping under ``key``; an empty one where it is missing, so that each missing key is named."""
        value = self._get(key)
        if value is _MISSING:
            value = {}
        elif not isinstance(value, dict):
            self.fault(key, f"is {_shape(value)}, not a mapping", "indent its settings below it")
            value = {}
        child = Section(value, f"{self._path}.{key}", self._env, self._faults)
        child.required = self.required
        return child

    def boolean(self, key: str, default: bool) -> bool:
        value = self._expanded(key)
        if value is _MISSING:
            return default
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        self.fault(key, f"is {_shape(value)}, not a boolean", "write true or false")
        return default

    def number(self, key: str, default: float, *, low: float, high: float) -> float:
        value = self._expanded(key)
        if value is _MISSING:
            return default
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if low <= number <= high:
            return number
        shape = f"is {_shape(value)}, not a number of seconds" if math.isnan(number) else "is out of range"
        self.fault(key, shape, f"write {low:g} to {high:g}")
        return default

    def whole(self, key: str, default: int, *, low: int, high: int) -> int:
        """A whole number, also written as text."""
        value = self._expanded(key)
        if value is _MISSING:
            return default
        if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fault(key, f"is {_shape(value)}, not a whole number", f"write {low} to {high}")
            return default
        if not low <= value <= high:
            self.fault(key, "is out of range", f"write {low} to {high}")
            return default
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._expanded(key)
        if value is _MISSING or value == "":
            if default is None and self.required:
                self.fault(key, "is missing", "set it")
            return default or ""
        if not isinstance(value, str):
            self.fault(key, f"is {_shape(value)}, not text", "put it in quotes")
            return default or ""
        return value

    def secret(self, key: str, variable: str, default: str | None = None) -> str:
        """Text that may also come from ``variable`` in the environment or the file in ``variable``_FILE."""
        value = self._expanded(key)
        if value is _MISSING or value == "":
            value = self._env.get(variable)
        elif not isinstance(value, str):
            self.fault(key, f"is {_shape(value)}, not text", "put it in quotes")
            return ""
        if value == "" and default is None and self.required:
            self.fault(key, "is missing", f"set {variable} or {variable}_FILE")
        return str(value)

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        value = self.text(key, default)
        if value in choices:
            return value
        self.fault(key, "is none of the possible words", f"write one of: {', '.join(choices)}")
        return default

    def url(self, key: str, default: str | None = None, *, secure: bool = False) -> str:
        """An http(s) URL without user, password or fragment; ``secure`` asks for https beyond loopback.

        RFC 6749 §3.1 and §3.2 demand TLS and forbid a fragment.
        """
        value = self.text(key, default)
        if value:
            self._check_url(key, value, secure)
        return value

    def urls(self, key: str, *, secure: bool = False) -> tuple[str, ...]:
        """A list of URLs, each as in ``url``."""
        values = self.words(key, ())
        for value in values:
            self._check_url(key, value, secure=secure)
        return tuple(value.rstrip("/") for value in values)

    def words(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A list of texts without spaces, or one text with spaces between the words."""
        value = self._expanded(key)
        if value is _MISSING:
            return default
        if isinstance(value, str):
            return tuple(value.split())
        expanded = [self._expand(item) for item in value] if isinstance(value, list) else [None]
        if all(isinstance(item, str) and item and not any(c.isspace() for c in item) for item in expanded):
            return tuple(str(item) for item in expanded)
        self.fault(key, f"is {_shape(value)}, not a list of words", "write [first, second]")
        return default

    def strings(self, key: str) -> dict[str, str]:
        value = self._get(key)
        if value is _MISSING:
            return {}
        if isinstance(value, dict):
            expanded = {name: self._expand(item) for name, item in value.items()}
            if all(isinstance(n, str) and isinstance(item, str) for n, item in expanded.items()):
                return {str(name): str(item) for name, item in expanded.items()}
        self.fault(key, f"is {_shape(value)}, not a mapping of texts", 'write {name: "value"}')
        return {}

    def references(self, key: str) -> dict[str, str]:
        """A mapping of texts to names of variables, each written ``os.environ/NAME``. None is read here."""
        value = self._get(key)
        if value is _MISSING:
            return {}
        if isinstance(value, dict):
            found = {
                n: _LITELLM_REFERENCE.fullmatch(i) if isinstance(i, str) else None for n, i in value.items()
            }
            if all(isinstance(n, str) and match for n, match in found.items()):
                return {str(name): match[1] for name, match in found.items() if match}
        self.fault(key, f"is {_shape(value)}, not a mapping of references", "write {MODEL: os.environ/NAME}")
        return {}

    def refuse_unknown(self) -> None:
        """Add a fault for each key that nothing has read: a misspelt setting must not be ignored silently."""
        for key in self._values:
            if key not in self._known:
                near = difflib.get_close_matches(str(key), self._known, n=1)
                mend = f"did you mean {near[0]}?" if near else "remove it"
                self.fault(str(key), "is not a setting", mend)

    def fault(self, key: str, shape: str, mend: str) -> None:
        self._faults.append(f"{self._path}.{key}: {shape}; {mend}")

    def _check_url(self, key: str, value: str, secure: bool) -> None:
        try:
            split = urlsplit(value)
            usable = split.scheme in ("http", "https") and bool(split.hostname) and split.port != 0
        except ValueError:
            usable = False
        if not usable or any(c.isspace() for c in value):
            self.fault(key, "is not an http(s) URL", "write https://HOST/PATH")
        elif split.username or split.password or split.fragment:
            self.fault(key, "holds a user, a password or a fragment", "write https://HOST/PATH only")
        elif secure and split.scheme != "https" and not is_loopback(value):
            self.fault(key, "is plain http", "write https:// (http only on loopback or with sandbox: true)")

    def _get(self, key: str) -> Any:
        self._known.add(key)
        value = self._values.get(key, _MISSING)
        return _MISSING if value is None else value

    def _expanded(self, key: str) -> Any:
        return self._expand(self._get(key))

    def _expand(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        whole = _LITELLM_REFERENCE.fullmatch(value.strip())
        if whole:
            return self._env.get(whole[1])
        return _REFERENCE.sub(lambda match: self._env.get(match[1]), value).strip()


def _shape(value: Any) -> str:
    """What kind of thing was found, never the thing: it may be a secret in the wrong place."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "a mapping" if isinstance(value, dict) else "of an unknown kind"
