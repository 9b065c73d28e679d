"""Whole reductions of frames whose headers state their pointing wrongly.

The truth is in the pixels: a sequence with one false statement must give the stack of the sequence without.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from niripipe import Reduce
from niripipe.simulate import Effects, raw_frame

BOX = [(0.0, 0.0), (10.0, 10.0), (-10.0, 10.0), (-10.0, -10.0), (10.0, -10.0)]
STARS = [(120.0, 140.0, 40000.0), (60.0, 90.0, 25000.0), (190.0, 200.0, 30000.0), (150.0, 70.0, 20000.0)]
SKIP = {"darkCorrect:do_cal": "skip", "flatCorrect:do_cal": "skip"}
QUIET = Effects.none(photon_noise=True, read_noise=True)

Edit = Callable[[int, list[fits.Header]], None]


def stacked(folder: Path, edit: Edit, start: datetime = datetime(2016, 1, 2, 11, 36), **options: Any) -> Any:
    """Stack a box of dithers whose headers (primary, extension) were edited; the first frame is left out."""
    folder.mkdir()
    for k, (p, q) in enumerate(BOX):
        when = start + timedelta(seconds=35 * k)
        given = {"size": 256, "stars": STARS, "p": p, "q": q, "number": 1 + k, "effects": QUIET, **options}
        raw = raw_frame(date=when.date(), ut=when.time(), **given)
        path = folder / raw.name
        path.write_bytes(raw.to_bytes())
        with fits.open(path, mode="update") as hdus:
            edit(k, [hdu.header for hdu in hdus])
    reduction = Reduce(
        [str(path) for path in sorted(folder.glob("*.fits"))],
        parameters=SKIP, calibrations={}, output_dir=str(folder / "out"),
    )  # fmt: skip
    reduction.runr()
    return reduction


def flux(stack: Any) -> float:
    """Sum the light in the brightest star."""
    data = np.where(stack[0].mask & 16 > 0, 0.0, stack[0].data)
    y, x = np.unravel_index(np.argmax(data), data.shape)
    return float(data[y - 7 : y + 8, x - 7 : x + 8].sum())


def leave(k: int, headers: list[fits.Header]) -> None:
    """Change nothing."""


def target_astray(wrong: int) -> Edit:
    def edit(k: int, headers: list[fits.Header]) -> None:
        if k == wrong:
            headers[0]["RA"] += 0.05

    return edit


def wcs_astray(wrong: int) -> Edit:
    def edit(k: int, headers: list[fits.Header]) -> None:
        for header in headers:
            if k == wrong and "CRVAL1" in header:
                header["CRVAL1"] += 0.05

    return edit


def wcs_still() -> Edit:
    first: dict[str, float] = {}

    def edit(k: int, headers: list[fits.Header]) -> None:
        for header in headers:
            for key in ("CRVAL1", "CRVAL2"):
                if key in header:
                    header[key] = first.setdefault(key, header[key])

    return edit


def offset_astray(wrong: int) -> Edit:
    def edit(k: int, headers: list[fits.Header]) -> None:
        if k == wrong:
            headers[0]["POFFSET"] += 25.0

    return edit


def angle_astray(wrong: int) -> Edit:
    def edit(k: int, headers: list[fits.Header]) -> None:
        if k == wrong:
            headers[0]["PA"] += 90.0

    return edit


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return stacked(tmp_path_factory.mktemp("right") / "raw", leave).outputs[0]


@pytest.mark.parametrize(
    ("edit", "distrusted", "named"),
    [
        (target_astray(1), "target", 1),
        (target_astray(3), "target", 1),
        (wcs_astray(1), "WCS", 1),
        (wcs_astray(4), "WCS", 1),
        (wcs_still(), "WCS", 5),
        (offset_astray(2), "offsets", 1),
        (angle_astray(2), "offsets", 1),
    ],
)
def test_a_false_statement_costs_no_frame(
    tmp_path: Path, right: Any, edit: Edit, distrusted: str, named: int
) -> None:
    reduction = stacked(tmp_path / "raw", edit)
    stack = reduction.outputs[0]
    assert stack.phu["NCOMBINE"] == right.phu["NCOMBINE"] == 4
    assert np.abs(np.subtract(stack[0].shape, right[0].shape)).max() <= 1
    assert flux(stack) == pytest.approx(flux(right), rel=0.02)
    reasons = [outcome.reason for outcome in reduction.report.steps[0].outcomes.values()]
    assert sum("distrusted" in reason and "witness" in reason for reason in reasons) == named
    if distrusted == "WCS" and named == 5:
        assert stack.phu["PNTDIST"] == "WCS"
        # The position on the sky is as good as is said.
        shape = np.array(right[0].shape[::-1]) / 2
        sky, found = (np.array(some[0].wcs.all_pix2world(*shape, 0)) for some in (right, stack))
        assert np.hypot(*((sky - found) * [np.cos(np.radians(sky[1])), 1])) * 3600 < stack.phu["WCSERR"] + 0.2


def all_offsets_astray(wrong: int) -> Edit:
    """The telescope did not go where all keywords of offsets say, so that only the WCS is right."""

    def edit(k: int, headers: list[fits.Header]) -> None:
        if k == wrong:
            for key, sign in (("POFFSET", 1), ("RAOFFSET", 1), ("YOFFSET", 1)):
                headers[0][key] += sign * 25.0

    return edit


def test_the_images_have_the_last_word(tmp_path: Path) -> None:
    """Stars in common show that the frame lies where its WCS said, 25 arcsec from where it was put."""
    stars = [(118.0, 130.0, 40000.0), (130.0, 148.0, 30000.0), (140.0, 122.0, 20000.0)]
    reduction = stacked(tmp_path / "raw", all_offsets_astray(3), stars=stars, position_angle=0.0)
    outcomes = reduction.report.steps[0].outcomes
    assert sum("the WCS was distrusted" in outcome.reason for outcome in outcomes.values()) == 1
    assert reduction.outputs[0].phu["NCOMBINE"] == 4
    # Where a frame is put 25 arcsec away, the stack is that much wider.
    right = stacked(tmp_path / "right", leave, stars=stars, position_angle=0.0)
    assert np.abs(np.subtract(reduction.outputs[0][0].shape, right.outputs[0][0].shape)).max() <= 1


@pytest.mark.parametrize("angle", [90.0, 30.0])
def test_old_frames_at_any_position_angle_are_stacked(tmp_path: Path, angle: float) -> None:
    reduction = stacked(tmp_path / "raw", leave, datetime(2003, 3, 25, 11, 36), position_angle=angle)
    assert reduction.outputs[0].phu["NCOMBINE"] == 4
    assert all("distrusted" not in o.reason for o in reduction.report.steps[0].outcomes.values())


def test_wcs_and_primary_header_of_a_stack_of_raw_frames_agree_in_memory(tmp_path: Path) -> None:
    files = []
    for k, (p, q) in enumerate(BOX):
        raw = raw_frame(size=256, stars=STARS, p=p, q=q, number=1 + k, effects=QUIET)
        files.append(tmp_path / raw.name)
        files[-1].write_bytes(raw.to_bytes())
    reduction = Reduce(
        [str(path) for path in files], recipe="alignAndStack", output_dir=str(tmp_path / "out")
    )
    reduction.runr()
    stack = reduction.outputs[0]
    there = stack[0].wcs.all_pix2world([[100.0, 150.0]], 0)
    for header in (stack.phu, stack[0].hdr):
        cards = {
            key: header[key] for key in header if key.startswith(("CTYPE", "CRVAL", "CRPIX", "CD", "CUNIT"))
        }
        assert WCS(fits.Header(cards)).all_pix2world([[100.0, 150.0]], 0) == pytest.approx(there, abs=1e-7)
