"""Makes ``litellm claude …`` ours without touching LiteLLM.

The ``litellm`` script belongs to LiteLLM, and every reinstall of it writes that script again. So a ``.pth``
file of our wheel calls :func:`install` when Python starts. Only where the command line is ours does it put a
finder in front: the finder answers ``import litellm`` with an empty package at LiteLLM's own place, whose
``run_server`` is our command line. LiteLLM itself, whose import takes seconds, is never loaded then. In every
other process nothing is changed at all.

Ours are ``litellm claude …`` and ``python -m litellm.proxy.auth.claude_oauth_cli …``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import PurePath
from types import ModuleType

_MODULE = "litellm.proxy.auth.claude_oauth_cli"
# The packages on the way to that module; `litellm.proxy.auth` is a namespace and needs no answer.
_PACKAGES = ("litellm", "litellm.proxy")
_SCRIPT_NAMES = ("litellm", "litellm.exe", "litellm-script.py")


def is_ours(argv: Sequence[str], orig_argv: Sequence[str]) -> bool:
    """Whether this process was started as one of our commands.

    ``argv`` is as it stands before the program runs: after ``python -m NAME`` it begins with ``-m``, and only
    ``orig_argv`` has the name.
    """
    if not argv:
        return False
    if argv[0] == "-m":
        position = orig_argv.index("-m") + 1 if "-m" in orig_argv else len(orig_argv)
        return orig_argv[position : position + 1] == [_MODULE]
    return PurePath(argv[0]).name in _SCRIPT_NAMES and list(argv[1:2]) == ["claude"]


def install() -> None:
    """Put the finder in front if this process is ours. Does nothing the second time."""
    if not is_ours(sys.argv, sys.orig_argv) or any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds the packages on the way as empty ones that lie where the real ones lie."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _PACKAGES:
            return None
        real = PathFinder.find_spec(name, path)
        if real is None or real.submodule_search_locations is None:
            return None
        spec = ModuleSpec(name, _EmptyLoader(), origin=real.origin, is_package=True)
        spec.submodule_search_locations = list(real.submodule_search_locations)
        return spec


class _EmptyLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == "litellm":
            module.run_server = _run_command_line  # type: ignore[attr-defined]


def _run_command_line() -> int:
    from .cli import main

    return main(sys.argv[2:])
