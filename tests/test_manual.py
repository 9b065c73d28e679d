"""The tools and tables of the manual: its link checker, and the messages that it explains."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("niripipe_check_links", ROOT / "docs" / "check_links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look up the module of a class by its name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_links_that_lead_nowhere_are_found(checker: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top"><a href="sub/page.html#here">good</a><a href="https://example.org/x">not checked</a>'
        '<a href="#top">good</a><a href="gone.html">bad</a>'
        '<img src="gone.png"><a href="sub/page.html#no">bad</a>'
    )
    (tmp_path / "sub" / "page.html").write_text('<p id="here"><a href="../index.html">good</a>')
    assert checker.broken_links(tmp_path) == [
        "index.html: gone.html",
        "index.html: gone.png",
        "index.html: sub/page.html#no (no such anchor)",
    ]


def messages() -> list[str]:
    page = (ROOT / "docs" / "howto" / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([^`]+)` \|", page, re.M)


@pytest.mark.parametrize("message", messages())
def test_the_messages_that_are_explained_exist(message: str) -> None:
    code = (path.read_text(encoding="utf-8") for path in (ROOT / "niripipe").rglob("*.py"))
    assert any(message in text for text in code)


def test_the_version_is_the_same_everywhere() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert f"\nversion: {version[1]}\n" in (ROOT / "CITATION.cff").read_text()
    assert f'set version = "{version[1]}"' in (ROOT / "recipe" / "meta.yaml").read_text()


def test_the_recipe_of_the_package_has_its_dependencies() -> None:
    project = re.search(r"^dependencies = \[\n(.+?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert project is not None
    wanted = set(re.findall(r'"([\w-]+)>=([\d.]+)"', project[1]))
    recipe = (ROOT / "recipe" / "meta.yaml").read_text().split("  run:\n")[1].split("test:")[0]
    found = set(re.findall(r"- ([\w-]+) >=([\d.]+)", recipe)) - {("python", "3.11")}
    assert found == wanted
