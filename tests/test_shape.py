"""Modules and functions that can be read at one go."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import niripipe

PACKAGE = Path(niripipe.__file__).parent
LONGEST_MODULE = 500
LONGEST_BODY = 60
FOLDERS = ("astrodata", "reduction", "algorithms/combine")
MODULES = sorted(path for folder in FOLDERS for path in (PACKAGE / folder).rglob("*.py"))


def bodies(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the functions of a module with the lines of their bodies, docstrings left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body:
                yield node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_MODULE
    assert [(name, lines) for name, lines in bodies(path) if lines > LONGEST_BODY] == []
