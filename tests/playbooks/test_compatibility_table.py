"""The README's tables of the documents' command blocks list what is tested, in its order."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERDICT = re.compile(r"as written([,;] .+)?|cannot be, because .+")


def rows(document: str) -> dict[str, str]:
    """The verdicts by block, in the README's order."""
    readme = (ROOT / "README.md").read_text()
    table = readme.split(f"\n`{document}`\n", 1)[1].split("\n| --- | --- |\n", 1)[1].split("\n\n", 1)[0]
    cells = [line.strip("|").split(" | ") for line in table.splitlines()]
    return {block.strip(): verdict.strip() for block, verdict in cells}


def marked(module: str) -> list[str]:
    """The blocks that a module's tests are marked with, in their order."""
    tree = ast.parse((ROOT / "tests" / "documents" / module).read_text())
    decorators = [
        decorator
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
    ]
    return [
        str(call.args[0].value)
        for call in decorators
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "block"
        and isinstance(call.args[0], ast.Constant)
    ]


@pytest.mark.parametrize(
    ("document", "module"),
    [("docker-images.md", "test_docker_images.py"), ("docker-testing.md", "test_docker_testing.py")],
)
def test_each_block_of_the_table_is_tested_in_its_order(document: str, module: str) -> None:
    table = rows(document)
    assert list(dict.fromkeys(marked(module))) == list(table)
    assert [verdict for verdict in table.values() if not VERDICT.fullmatch(verdict)] == []
