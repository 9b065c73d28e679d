"""Distortion in world coordinates, against its formula and against astropy's reading of the written file.

The formula is Gemini's for NIRI f/32 with Altair: r' = r + k r**2, k = 1.32e-5 per pixel, r from the array's
centre on the detector, r' corrected; "at a distance of 500 pixels from center, an object will appear about
3 pixels closer to the center of the array than reality".
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from niripipe import astrodata
from niripipe.astrodata import Distortion, TangentPlane, distortion_of, shifted, undistorted, with_affine
from niripipe.astrodata.headers import WatchedHeader
from niripipe.astrodata.wcs import from_header, to_astropy, to_cards, write_to_header

K, CENTRE, REACH = 1.32e-5, 511.5, 724.1
SCALE = 0.0214 / 3600
PLANE = TangentPlane((530.25, 480.5), (150.1, 20.2), (-SCALE, 0.0, 0.0, SCALE))
BENT = replace(PLANE, distortion=Distortion((CENTRE, CENTRE), REACH, K))
# Stated accuracy of the polynomial in headers: 0.0056 k reach**2.
POLYNOMIAL = 0.0056 * K * REACH**2


def _grid(step: int = 93) -> tuple[Any, Any]:
    return np.meshgrid(np.arange(0, 1024, step, dtype=float), np.arange(0, 1024, step, dtype=float))


def _formula(x: Any, y: Any, k: float = K) -> tuple[Any, Any]:
    r = np.hypot(x - CENTRE, y - CENTRE)
    longer = (r + k * r**2) / np.where(r > 0, r, 1)
    return CENTRE + (x - CENTRE) * longer, CENTRE + (y - CENTRE) * longer


def _off(plane: Any, sky: Any, x: Any, y: Any) -> float:
    """Return the largest distance of sky positions from where a mapping puts pixels, pixels."""
    ra, dec = plane.all_pix2world(x, y, 0)
    return float(np.hypot((ra - sky[0]) * np.cos(np.radians(20.2)), dec - sky[1]).max() / SCALE)


def test_a_source_appears_three_pixels_nearer_to_the_centre_than_it_is() -> None:
    x, y = BENT.distortion.undistort(CENTRE + 500, CENTRE)  # type: ignore[union-attr]
    assert (x - CENTRE - 500, y) == (pytest.approx(3.3), CENTRE)


def test_positions_are_those_of_the_formula_and_come_back() -> None:
    x, y = _grid()
    sky = PLANE.all_pix2world(*_formula(x, y), 0)
    assert _off(BENT, sky, x, y) < 1e-6
    back = BENT.all_world2pix(*sky, 0)
    assert np.abs(back[0] - x).max() < 1e-6
    assert np.abs(back[1] - y).max() < 1e-6
    assert BENT.all_world2pix(*sky, 1)[0] == pytest.approx(back[0] + 1)


def test_a_header_says_it_in_sip_to_the_stated_accuracy() -> None:
    header = fits.Header([fits.Card(*card) for card in to_cards(BENT)])
    assert (header["CTYPE1"], header["CTYPE2"]) == ("RA---TAN-SIP", "DEC--TAN-SIP")
    assert {"A_ORDER", "B_ORDER", "AP_ORDER", "BP_ORDER", "A_3_0", "AP_3_0"} <= set(header)
    # SIP's centre is the reference pixel.
    assert (header["CRPIX1"], header["CRPIX2"]) == (CENTRE + 1, CENTRE + 1)
    theirs = WCS(header)
    x, y = _grid(17)
    sky = PLANE.all_pix2world(*_formula(x, y), 0)
    assert 0.5 * POLYNOMIAL < _off(theirs, sky, x, y) < 1.02 * POLYNOMIAL
    back = theirs.all_world2pix(*sky, 0)
    assert np.hypot(back[0] - x, back[1] - y).max() < 1.02 * POLYNOMIAL
    # The inverse in the header, which all_world2pix does not use.
    u, v = theirs.sip_foc2pix(*[p - CENTRE for p in _formula(x, y)], 1)
    assert np.hypot(u - x - 1, v - y - 1).max() < 1.5 * POLYNOMIAL


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    ad = astrodata.create(fits.PrimaryHDU())
    ad.append(np.zeros((1024, 1024), np.float32))
    ad[0].sky_mapping = BENT
    ad.write(tmp_path / "a.fits")
    again = astrodata.open(tmp_path / "a.fits")
    x, y = _grid()
    sky = BENT.all_pix2world(x, y, 0)
    # Exactly, not to the accuracy of the polynomial: DISTRAD says what it stands for.
    assert _off(again[0].sky_mapping, sky, x, y) < 2e-4
    assert distortion_of(again[0].sky_mapping).radial == K  # type: ignore[union-attr]
    theirs = WCS(fits.getheader(tmp_path / "a.fits", 1))
    assert _off(theirs, again[0].wcs.all_pix2world(x, y, 0), x, y) < 1e-5
    again.write(tmp_path / "b.fits")
    assert _off(WCS(fits.getheader(tmp_path / "b.fits", 1)), theirs.all_pix2world(x, y, 0), x, y) < 1e-5


def test_a_plane_without_distortion_leaves_no_card_of_it() -> None:
    header = WatchedHeader()
    write_to_header(BENT, header)
    assert "A_1_2" in header
    write_to_header(undistorted(BENT), header)
    assert [key for key in header.keywords() if key.startswith(("A_", "B_", "AP_", "BP_", "DIST"))] == []
    assert header["CTYPE1"] == "RA---TAN"


def test_crops_and_shifts_keep_the_optical_centre() -> None:
    x, y = (axis / 2 for axis in _grid())
    sky = BENT.all_pix2world(x + 256, y + 100, 0)
    for wcs in (BENT, to_astropy(BENT)):
        assert _off(shifted(wcs, 256, 100), sky, x, y) < 2 * POLYNOMIAL
    # An affine mapping is one of undistorted positions.
    true_x, true_y = _formula(x, y)
    sky = PLANE.all_pix2world(true_x + 3, true_y - 2, 0)
    moved = with_affine(BENT, np.eye(2), (3, -2))
    assert _off(moved, sky, x, y) < 1e-6
    assert _off(to_astropy(moved), sky, x, y) < 1.02 * POLYNOMIAL


@pytest.mark.parametrize("order", [2, 3])
def test_sip_of_other_telescopes_is_read_as_astropy_reads_it(order: int) -> None:
    rng = np.random.default_rng(order)
    cards = {
        "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CRPIX1": 300.0, "CRPIX2": 700.0,
        "CRVAL1": 150.0, "CRVAL2": 20.0, "CD1_1": -SCALE, "CD1_2": 1e-8, "CD2_1": 0.0, "CD2_2": SCALE,
        "NAXIS1": 1024, "NAXIS2": 1024, "A_ORDER": order, "B_ORDER": order,
    }  # fmt: skip
    for name in "AB":
        for p in range(order + 1):
            if order - p != 1 or order > 2:
                cards[f"{name}_{p}_{order - p}"] = float(rng.normal(0, 5.0 / 700**order))
    header = fits.Header(cards)
    ours, theirs = from_header(header).mapping, WCS(header)
    assert isinstance(ours, TangentPlane)
    x, y = _grid()
    sky = theirs.all_pix2world(x, y, 0)
    assert _off(ours, sky, x, y) < 1e-6
    back = np.array(ours.all_world2pix(*sky, 0)) - [x, y]
    assert np.abs(back).max() < 1e-6
    assert _off(WCS(fits.Header([fits.Card(*c) for c in to_cards(ours)])), sky, x, y) < 1e-6


@pytest.mark.parametrize("bad", [{"A_ORDER": 99}, {"A_ORDER": "two"}, {"A_2_0": "x"}, {"B_0_2": True}])
def test_a_distortion_that_cannot_be_understood_is_refused(bad: dict[str, Any]) -> None:
    cards = [fits.Card(*card) for card in to_cards(PLANE)]
    header = fits.Header(cards) + fits.Header({"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-6})
    header.update({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"} | bad)
    reading = from_header(header)
    assert reading.mapping is None
    assert "distortion cannot be understood" in reading.problem


def test_the_exact_form_is_not_believed_against_the_polynomial() -> None:
    header = fits.Header([fits.Card(*card) for card in to_cards(BENT)])
    header["A_3_0"] *= 1.5
    found = distortion_of(from_header(header).mapping)
    assert found is not None
    assert found.radial == 0
    assert found.x_terms[3, 0] == header["A_3_0"]
