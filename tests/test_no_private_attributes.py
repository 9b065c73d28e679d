"""The package uses no private attributes of other packages and no switches of the interpreter."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import niripipe

PACKAGE = Path(niripipe.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
NOT_USED = ("os.fork", "ctypes", "gc", "multiprocessing.shared_memory", "mallopt")
# Documented methods of named tuples, whose underscore keeps them apart from field names.
NAMED_TUPLE = frozenset({"_asdict", "_fields", "_make", "_replace"})


def _own_names() -> frozenset[str]:
    """Return the names that the package defines: functions, classes, attributes, variables, slots."""
    names: set[str] = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_own(node.value):
                names.add(node.attr)
            elif isinstance(node, ast.Assign) and any(ast.unparse(t) == "__slots__" for t in node.targets):
                names |= {c.value for c in ast.walk(node.value) if isinstance(c, ast.Constant)}
    return NAMED_TUPLE | names


def _is_own(node: ast.expr) -> bool:
    return ast.unparse(node) in ("self", "cls", "super()")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _faults(tree: ast.AST, own: frozenset[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if _is_private(node.attr) and node.attr not in own and not _is_own(node.value):
                yield node.lineno, text
            if any(text == name or text.startswith(f"{name}.") for name in NOT_USED):
                yield node.lineno, text
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            for alias in node.names:
                name = f"{module}.{alias.name}".lstrip(".")
                private = any(_is_private(part) for part in name.split("."))
                if private and not name.startswith("niripipe."):
                    yield node.lineno, name
                if any(name == other or name.startswith(f"{other}.") for other in NOT_USED):
                    yield node.lineno, name
        elif isinstance(node, ast.Constant) and node.value in ("mallopt", "ctypes"):
            yield node.lineno, str(node.value)


OWN = _own_names()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_attributes_of_other_packages_are_used(path: Path) -> None:
    assert list(_faults(ast.parse(path.read_text()), OWN)) == []


@pytest.mark.parametrize(
    "code",
    [
        "header._cards", "header._cards = []", "import gc", "gc.collect()", "os.fork()", "import ctypes",
        "from numpy import _core", "from numpy._core import multiarray", "from os import fork",
        "from multiprocessing import shared_memory",
    ],
)  # fmt: skip
def test_each_fault_is_found(code: str) -> None:
    assert list(_faults(ast.parse(code), OWN - {"_cards"}))


@pytest.mark.parametrize("code", ["self._anything", "super()._other", "x.__dict__", "plan.gc_limit"])
def test_what_is_allowed_is_not_found(code: str) -> None:
    assert not list(_faults(ast.parse(code), OWN))
