"""What `ansible-doc` shows of the modules, against what they take."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest

from support.ansible_modules import ROOT, declared, documented, names

MODULES = names()
ON_THE_TARGET = sorted([*(ROOT / "library").glob("*.py"), *(ROOT / "module_utils").glob("*.py")])
FACETS: dict[str, Any] = {
    "type": "str",
    "required": False,
    "default": None,
    "choices": None,
    "elements": None,
    "aliases": None,
}


def facets(options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: {facet: option.get(facet, absent) for facet, absent in FACETS.items()}
        for name, option in options.items()
    }


@pytest.mark.parametrize("name", MODULES)
def test_the_documented_options_are_those_that_the_module_takes(name: str) -> None:
    assert facets(documented(name, "DOCUMENTATION")["options"]) == facets(declared(name)["argument_spec"])


@pytest.mark.parametrize("name", MODULES)
def test_check_mode_is_documented_as_it_is_supported(name: str) -> None:
    support = documented(name, "DOCUMENTATION")["attributes"]["check_mode"]["support"]
    assert (support == "full") == declared(name)["supports_check_mode"]


@pytest.mark.parametrize("name", MODULES)
def test_every_example_uses_options_that_exist(name: str) -> None:
    own = f"litellm_oauth_{name}"
    tasks = [task[own] for task in documented(name, "EXAMPLES") if own in task]
    assert tasks
    for task in tasks:
        assert task.keys() <= declared(name)["argument_spec"].keys()


@pytest.mark.parametrize("name", [name for name in MODULES if "api_key" in declared(name)["argument_spec"]])
def test_every_example_gives_the_key_in_one_way(name: str) -> None:
    own = f"litellm_oauth_{name}"
    for task in documented(name, "EXAMPLES"):
        if own in task:
            assert len(task[own].keys() & {"api_key", "api_key_file"}) == 1


@pytest.mark.parametrize("name", MODULES)
def test_what_is_referred_to_exists(name: str) -> None:
    options = declared(name)["argument_spec"]
    text = str(documented(name, "DOCUMENTATION")) + str(documented(name, "RETURN"))
    referred = {piece.split(")")[0].split("=")[0] for piece in text.split("O(")[1:]}
    assert referred <= options.keys()
    modules = {piece.split(")")[0] for piece in text.split("M(")[1:]}
    modules |= {other["module"] for other in documented(name, "DOCUMENTATION")["seealso"]}
    assert {one.removeprefix("litellm_oauth_") for one in modules} <= set(MODULES)


@pytest.mark.parametrize("path", ON_THE_TARGET, ids=lambda path: path.name)
def test_what_runs_on_targets_is_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 8))


@pytest.mark.parametrize("path", ON_THE_TARGET, ids=lambda path: path.name)
def test_what_runs_on_targets_needs_nothing_but_ansible(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= sys.stdlib_module_names | {"ansible"}
