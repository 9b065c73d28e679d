"""A standard star in a frame: found, or in words why it gives no zero point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from niripipe import astrodata
from niripipe.astrodata import DQ
from niripipe.astrodata.tables import as_rows
from niripipe.photometry import shipped_standards, standard_band
from niripipe.photometry.bands import Extinction
from niripipe.primitives.standard_stars import locate, measure_frame, named_by_user, recognise_frame
from niripipe.primitives.zero_point_header import determine


@pytest.fixture
def frame(reduced):
    """The stack of the standard, which has all that a single frame has."""
    return astrodata.open(reduced.standard)


@pytest.fixture
def star():
    return next(star for star in shipped_standards() if star.name == "FS 17")


MAGNITUDE = {"MAG": 12.363, "MAGERR": 0.01, "VARIES": 0}


def measured(frame, star):
    return measure_frame(frame, star, factor=4.0, search=15.0)


def test_the_star_is_found_and_measured(frame, star, reduced):
    found = measured(frame, star)
    assert found.reason == ""
    x, y, _ = locate(frame, star, 15.0)
    assert (found.x, found.y) == (x, y)
    expected = 10 ** (0.4 * (26.77 - 12.363)) * frame.exposure_time()
    assert found.star.flux == pytest.approx(expected, rel=0.01)
    assert found.row()["STANDARD"] == "FS 17"


@pytest.mark.parametrize(
    ("flag", "words"), [(DQ.saturated, "saturated"), (DQ.non_linear, "linear"), (DQ.cosmic_ray, "bad pixels")]
)
def test_a_star_with_a_spoilt_peak_is_refused(frame, star, flag, words):
    x, y, _ = locate(frame, star, 15.0)
    mask = frame[0].mask.copy()
    mask[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2] |= flag
    frame[0].mask = mask
    assert words in measured(frame, star).reason


def test_a_single_hot_pixel_beside_the_peak_does_not_matter(frame, star):
    before = measured(frame, star)
    mask = frame[0].mask.copy()
    mask[round(before.y) + 4, round(before.x) + 3] |= DQ.bad_pixel | DQ.saturated
    frame[0].mask = mask
    after = measured(frame, star)
    assert after.reason == ""
    assert after.star.flux == pytest.approx(before.star.flux, rel=1e-3)
    assert after.star.repaired == before.star.repaired + 1


def test_a_star_outside_of_the_field_or_at_its_edge_is_refused(frame, star):
    assert "outside the field" in measured(frame, replace(star, dec=star.dec + 0.05)).reason
    x, _, _ = locate(frame, star, 15.0)
    frame.crop(round(x) - 8, 0, frame[0].shape[1] - 1, frame[0].shape[0] - 1)
    table = frame[0].OBJCAT
    for name in ("X_IMAGE", "XWIN_IMAGE"):
        table[name] -= round(x) - 8
    assert "beyond the image" in measured(frame, star).reason


def test_two_candidates_and_none_are_said(frame, star):
    table = frame[0].OBJCAT
    best = int(np.argmax(table["FLUX_AUTO"]))
    table.add_row(table[best])
    for name in ("X_IMAGE", "XWIN_IMAGE"):
        table[name][-1] += 20
    frame[0].OBJCAT = table
    assert "two candidates for FS 17" in measured(frame, star).reason
    frame[0].OBJCAT = table[:0]
    assert "no source bright enough for FS 17" in measured(frame, star).reason


def test_the_wcs_tells_the_star_where_the_header_points_elsewhere(frame):
    stars = shipped_standards()
    assert recognise_frame(frame, stars).standard.name == "FS 17"
    assert not recognise_frame(frame, stars).doubt
    frame.phu.set("RA", 10.0)
    found = recognise_frame(frame, stars)
    assert found.standard.name == "FS 17"
    assert "RA and DEC of the header do not" in found.doubt
    frame.phu.set("OBJECT", "FS 11")
    assert "FS 11, which the header names, is" in recognise_frame(frame, stars).doubt


def test_a_star_that_the_user_names_is_where_the_telescope_was_sent(frame, star):
    here = named_by_user(frame, star, 15.0)
    assert here.standard == star
    assert not here.doubt
    # The table has it 17 degrees away; the header says where the telescope pointed.
    far = replace(star, ra=star.ra - 17.0)
    found = named_by_user(frame, far, 15.0)
    assert "is 17 degrees from where the telescope was sent" in found.doubt
    assert measured(frame, found.standard).star.flux == measured(frame, star).star.flux
    unnamed = recognise_frame(frame, [far])
    assert unnamed.standard is None
    assert "name it with measureStandard:name" in unnamed.reason


def test_a_neighbour_in_the_aperture_is_part_of_the_systematic_error(frame, star, reduced):
    """A star with 6 per cent of the light, 2.4 FWHM beside the standard."""
    before = measured(frame, star)
    assert before.neighbours == 0
    table = frame[0].OBJCAT
    best = int(np.argmax(table["FLUX_AUTO"]))
    table.add_row(table[best])
    for name in ("X_IMAGE", "XWIN_IMAGE"):
        table[name][-1] += 12
    table["FLUX_AUTO"][-1] *= 0.06
    frame[0].OBJCAT = table
    data = frame[0].data
    frame[0].data = data + 0.06 * np.roll(data, 12, axis=1)
    found = measured(frame, star)
    assert found.star.flux == pytest.approx(1.06 * before.star.flux, rel=0.005)
    assert found.neighbours == pytest.approx(0.06, abs=0.003)
    rows = as_rows({name: [value] for name, value in (found.row() | MAGNITUDE).items()})
    warnings = determine(frame, rows, np.array([True]), standard_band("H"), Extinction(0.03, 0.03, "H"))
    assert "aperture of FS 17 have" in warnings[0]
    assert "per cent of its light" in warnings[0]
    assert frame.phu["ZPNEIGH"] == pytest.approx(0.065, abs=0.005)
    assert frame.phu["ZPSYSERR"] > frame.phu["ZPNEIGH"]


def test_a_frame_with_more_light_than_the_others_is_no_outlier(frame, star):
    """Three frames behind a cloud of 0.2 mag, one beside it."""
    row = measured(frame, star).row() | MAGNITUDE
    rows = as_rows({name: [value] * 4 for name, value in row.items()})
    rows["IMAGE"] = ["a", "b", "c", "d"]
    clear = rows["FLUX"][0]
    rows["FLUX"][:3] *= 10 ** (-0.4 * np.array([0.20, 0.21, 0.19]))
    warnings = determine(frame, rows, np.ones(4, bool), standard_band("H"), Extinction(0.03, 0.03, "H"))
    assert any("(d +0.200 mag): clouds in the others?" in text for text in warnings)
    true = 12.363 + 2.5 * np.log10(clear / frame.exposure_time()) + 0.03 * (frame.airmass() - 1)
    assert frame.phu["ZPNOISY"]
    assert frame.phu["ZPNFRAME"] == 4
    assert abs(frame.phu["ZP"] - true) < 2 * frame.phu["ZPERR"]
    rows["FLUX"][:3] = clear
    rows["FLUX"][3] = 0.8 * clear
    again = determine(frame, rows, np.ones(4, bool), standard_band("H"), Extinction(0.03, 0.03, "H"))
    assert any("d is left out" in text and "as a cloud does" in text for text in again)
    assert frame.phu["ZPNFRAME"] == 3


def test_a_scatter_of_a_few_thousandths_raises_the_error_and_is_no_cloud(frame, star):
    row = measured(frame, star).row() | MAGNITUDE | {"FLUXERR": 100.0}
    rows = as_rows({name: [value] * 4 for name, value in row.items()})
    rows["FLUX"] *= 1 + 0.004 * np.array([1, -1, 1, -1])
    warnings = determine(frame, rows, np.ones(4, bool), standard_band("H"), Extinction(0.03, 0.03, "H"))
    assert not any("clouds" in text for text in warnings)
    assert frame.phu["ZPNOISY"]
    assert frame.phu["ZPERR"] > 0.002
