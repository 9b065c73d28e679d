"""Spoilt header cards through a whole reduction: the same product, a named doubt, or an error of ours.

By default the keywords that decide about pixels, in one frame and in all. `pytest --all-faults
tests/faults` spoils every keyword that a descriptor reads, in every way.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .spoil import SPOILT, Outcome, frames, keywords_read, reduce, spoil, values

BY_DEFAULT = [
    # keyword, how, in all frames or in one
    ("EXPTIME", "NaN", "one"),
    ("EXPTIME", "zero", "all"),
    ("COADDS", "absurd", "all"),
    ("LNRS", "missing", "one"),
    ("NDAVGS", "negative", "all"),
    ("CD1_1", "negative", "all"),
    ("CD2_2", "negative", "one"),
    ("CD1_2", "NaN", "all"),
    ("CRPIX1", "negative", "all"),
    ("CRVAL1", "negative", "all"),
    ("CTYPE1", "of another type", "all"),
    ("AIRMASS", "NaN", "all"),
    ("HICOL", "absurd", "all"),
    ("FPMASK", "missing", "one"),
    ("FILTER2", "empty", "one"),
    ("PWFS2_ST", "undefined", "one"),
    ("RATRACK", "absurd", "all"),
    ("DATALAB", "NaN", "all"),
    ("INSTRUME", "NaN", "one"),
    ("EXTVER", "NaN", "one"),
]

WORDS = {"INSTRUME": "NIRI", "FILTER1": "filter", "FILTER2": "filter", "FILTER3": "filter"}
WORDS |= {"CAMERA": "camera", "A_VDET": "well depth", "A_VDDUC": "well depth", "VDET": "well depth"}
WORDS |= dict.fromkeys(("HICOL", "HIROW", "LOWCOL", "LOWROW"), "subarray")
"""What an error calls the keyword, where it compares frames."""


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder, self.raws = folder, frames()
        self.content = [raw.to_bytes() for raw in self.raws]
        self.names = [raw.name for raw in self.raws]
        self.good = self.run("", None, "none")

    def run(self, keyword: str, text: str | None, where: str) -> Outcome:
        spoilt = {"none": [], "one": [SPOILT], "all": range(len(self.content))}[where]
        raws = [spoil(c, keyword, text) if i in spoilt else c for i, c in enumerate(self.content)]
        return reduce(raws, self.names, self.folder)

    def original(self, keyword: str) -> object:
        raw = self.raws[0]
        return next((h[keyword] for h in (raw.header, raw.extension) if keyword in h), None)

    def check(self, keyword: str, how: str, where: str) -> str:
        """Return what is wrong with the outcome, or nothing."""
        outcome = self.run(keyword, values(self.original(keyword))[how], where)
        if outcome.error:
            words = (keyword, WORDS.get(keyword, keyword), "N20160102S")
            return "" if any(word in outcome.error for word in words) else f"error: {outcome.error}"
        if outcome.same_as(self.good):
            return ""
        new = outcome.warnings - self.good.warnings
        # Of a group of keywords the warning may name the group.
        named = any(keyword in text or keyword.rstrip("12") in text for text in new)
        return "" if named else f"another product, and no warning names the keyword: {sorted(new)}"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("raw"))


@pytest.mark.parametrize(("keyword", "how", "where"), BY_DEFAULT)
def test_a_spoilt_card_is_harmless_named_or_refused(bench: Bench, keyword: str, how: str, where: str) -> None:
    assert bench.check(keyword, how, where) == ""


def test_the_keywords_by_default_are_read(bench: Bench, tmp_path: Path) -> None:
    # EXTVER is asked for when the file is opened.
    assert {keyword for keyword, _, _ in BY_DEFAULT} - {"EXTVER"} <= set(
        keywords_read(bench.raws[0], tmp_path / "x.fits")
    )


def test_every_keyword_spoilt_in_every_way(
    bench: Bench, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("--all-faults"):
        pytest.skip("takes half an hour; run with --all-faults")
    wrong = []
    for keyword in keywords_read(bench.raws[0], tmp_path / "x.fits"):
        for how in values(bench.original(keyword)):
            for where in ("one", "all"):
                found = bench.check(keyword, how, where)
                if found:
                    wrong.append(f"{keyword} {how} in {where}: {found}")
    assert wrong == []
