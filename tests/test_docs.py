"""The manual: its examples run, what is generated is up to date, its links lead somewhere.

The Python blocks of a page run in order, in one namespace, in a folder ``work`` beside ``playdata`` (a
simulated night) and ``products`` (what the tutorial makes of it). A block after ``<!-- illustrative -->`` is
not run; code in a comment that begins with ``<!-- hidden`` is run and not shown.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from niripipe import CalibrationService, Reduce, cal_service, logutils, simulate

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_BLOCKS = re.compile(
    r"(?P<skip><!-- illustrative -->\s*)?^```python\n(?P<shown>.*?)^```$|^<!-- hidden\n(?P<hidden>.*?)^-->$",
    re.M | re.S,
)
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Example:
    """A piece of code of a page, and the line on which it starts."""

    code: str
    line: int


def examples(page: str) -> list[Example]:
    """Return what is to be run of a page."""
    return [
        Example(match["shown"] or match["hidden"], page[: match.start()].count("\n") + 1)
        for match in _BLOCKS.finditer(page)
        if match["skip"] is None
    ]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


WITH_CODE = [page for page in PAGES if examples(page.read_text())]


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the raw frames of a small night, and its products."""
    folder = tmp_path_factory.mktemp("manual")
    night = simulate.night(folder / "playdata", seed=4, size=256)
    caldb = CalibrationService()
    caldb.config(db_dir=folder / "store")
    caldb.init()

    def reduce(files: Iterable[Path], **settings: Any) -> str:
        reduction = Reduce(files, calibrations=caldb, output_dir=folder / "products", **settings)
        reduction.runr()
        return reduction.output_filenames[0]

    caldb.add_cal(reduce(night.darks))
    caldb.add_cal(reduce(night.flats + night.short_darks, recipe="makeProcessedBPM"))
    caldb.add_cal(reduce(night.flats))
    reduce(night.standard, parameters={"darkCorrect:do_cal": "skip"})
    reduce(night.target + night.sky, parameters={"skyCorrect:scale_sky": False})
    return folder


@pytest.fixture
def workplace(reduced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder ``work`` with ``../playdata`` and ``../products``; nothing global outlives it."""
    (tmp_path / "work").mkdir()
    # Raw frames are linked, so that a page cannot spoil them for the next; products are copies.
    (tmp_path / "playdata").mkdir()
    for path in (reduced / "playdata").iterdir():
        (tmp_path / "playdata" / path.name).symlink_to(path)
    shutil.copytree(reduced / "products", tmp_path / "products")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    yield tmp_path / "work"
    cal_service.clear_calservice()
    logutils.reset()


def run(text: str, name: str = "page") -> None:
    """Run the examples of a page in one namespace, each in the folder in which the page started."""
    namespace: dict[str, Any] = {"__name__": "example"}
    folder = Path.cwd()
    for example in examples(text):
        # Line numbers of a failure are those of the page.
        code = compile("\n" * example.line + example.code, name, "exec")
        exec(code, namespace)
        os.chdir(folder)


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_every_example_of_a_page_runs(page: Path, workplace: Path) -> None:
    run(page.read_text(), str(page))


def test_a_failing_example_is_noticed() -> None:
    page = "```python\nx = 1\n```\n\n<!-- hidden\nx += 1\n-->\n\n```python\nassert x == 1\n```\n"
    with pytest.raises(AssertionError):
        run(page)


def test_an_illustrative_example_is_not_run() -> None:
    assert examples("<!-- illustrative -->\n```python\n1 / 0\n```\n") == []


def test_most_examples_are_run_and_not_only_shown() -> None:
    texts = [page.read_text() for page in PAGES]
    skipped = sum(text.count("<!-- illustrative -->") for text in texts)
    assert skipped < sum(len(examples(text)) for text in texts) / 4


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("generate_reference")


def test_generated_pages_say_what_the_code_says(generator: ModuleType) -> None:
    stale = [
        name_of(path) for path, text in generator.pages() if not path.exists() or path.read_text() != text
    ]
    assert not stale, "run python docs/generate_reference.py"


def test_every_primitive_is_in_the_reference(generator: ModuleType) -> None:
    listed = {
        heading
        for page in (DOCS / "primitives").glob("*.md")
        for heading in re.findall(r"^## (\w+)$", page.read_text(), re.M)
    }
    assert listed == set(generator.NIRI.primitives())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for match in _LINK.finditer(page.read_text()):
        target, _, anchor = match["target"].partition("#")
        if "://" in target:
            continue
        path = (page.parent / target) if target else page
        if path.suffix == ".ipynb" and path.parent.resolve() == DOCS / "notebooks":
            # Building the manual copies the notebooks there.
            path = DOCS.parent / "notebooks" / path.name
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(match["target"])
    assert not broken


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_contents() -> None:
    entries = set()
    for page in DOCS.rglob("*.md"):
        for tree in re.findall(r"^```{toctree}\n(.*?)^```$", page.read_text(), re.M | re.S):
            names = re.findall(r"^(?:[\w ]+ <)?([\w/]+)>?$", tree, re.M)
            entries |= {(page.parent / name).relative_to(DOCS) for name in names}
    pages = {page.relative_to(DOCS).with_suffix("") for page in DOCS.rglob("*.md")} - {Path("index")}
    assert pages <= entries
