"""Matched catalogues and pictures of stacks whose sources are known."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u

from niripipe import astrodata, photometry
from niripipe.errors import DataError, InputError


@pytest.fixture
def stacks(stack):
    """The stack in H, and the same as if it were in J and K: shifted, and without some sources."""
    frames = {}
    for name, wheels, shift, dropped in (
        ("H", None, 0.0, ()), ("J", ("open", "J_G0202"), 0.5, (0, 3)), ("K", ("K_G0204", "open"), -0.2, (1,)),
    ):  # fmt: skip
        ad = astrodata.open(stack)
        if wheels is not None:
            ad.phu["FILTER1"], ad.phu["FILTER2"] = wheels
        table = ad[0].OBJCAT
        table["MAG_APER_6"] += shift
        keep = np.setdiff1d(np.arange(len(table)), dropped)
        ad[0].OBJCAT = table[keep]
        ad.phu["ZPIMAGE"] = ad.phu["ZPIMAGE"] + shift
        frames[name] = ad
    return frames


def test_sources_are_matched_and_have_limits_where_they_are_missing(stacks, stack):
    table = photometry.match_catalogues([stacks["J"], stacks["H"], stacks["K"]])
    whole = astrodata.open(stack)[0].OBJCAT
    assert len(table) == len(whole)
    both = np.isfinite(table["J"]) & np.isfinite(table["H"])
    assert both.sum() == len(whole) - 2
    np.testing.assert_allclose((table["J"] - table["H"])[both].value, 0.5, atol=1e-6)
    missing = ~np.isfinite(table["J"])
    assert np.isfinite(table["J_limit"][missing]).all()
    assert np.isnan(table["J_limit"][~missing]).all()
    assert np.isnan(table["K"]).sum() == 1
    assert table["J_limit"].unit == u.mag
    # A limit is near the depth of the stack, which is in its best aperture.
    depth = astrodata.open(stack)[0].hdr["DEPTH5"] + 0.5
    assert np.nanmax(table["J_limit"].value) == pytest.approx(depth, abs=1.0)


def test_a_difference_in_pointing_is_taken_out(stacks, tmp_path):
    """0.9 and 0.6 arcsec, more than the distance within which sources are partners."""
    plain = photometry.match_catalogues([stacks["J"], stacks["H"]])
    picture = photometry.rgb_picture([stacks["J"], stacks["H"], stacks["K"]])
    aside = stacks["H"]
    aside[0].OBJCAT["X_WORLD"] += 0.9 / 3600 / np.cos(np.radians(aside[0].OBJCAT["Y_WORLD"]))
    aside[0].OBJCAT["Y_WORLD"] -= 0.6 / 3600
    mapping = aside[0].wcs.deepcopy()
    mapping.wcs.crval += [0.9 / 3600 / np.cos(np.radians(mapping.wcs.crval[1])), -0.6 / 3600]
    aside[0].wcs = mapping
    table = photometry.match_catalogues([stacks["J"], aside])
    np.testing.assert_array_equal(np.isfinite(table["J"]), np.isfinite(plain["J"]))
    np.testing.assert_allclose((table["J"] - table["H"]).value, (plain["J"] - plain["H"]).value)
    assert table.meta["H_offset"] == pytest.approx((0.9, -0.6), abs=0.01)
    moved = photometry.rgb_picture([stacks["J"], aside, stacks["K"]])
    assert np.abs(moved.astype(int) - picture.astype(int)).mean() < 1


def test_colours_need_different_calibrated_filters(stacks, reduced):
    with pytest.raises(InputError, match="two filters"):
        photometry.match_catalogues([stacks["H"]])
    with pytest.raises(InputError, match="two filters"):
        photometry.match_catalogues([stacks["H"], stacks["H"]])
    with pytest.raises(DataError, match="no zero point"):
        photometry.match_catalogues([stacks["H"], reduced.night.target[0]])
    with pytest.raises(DataError, match="MAG_APER_7"):
        photometry.match_catalogues([stacks["H"], stacks["J"]], aperture=7)


def test_a_picture_shows_the_stars(stacks, tmp_path):
    pytest.importorskip("matplotlib")
    frames = [stacks[name] for name in ("K", "H", "J")]
    picture = photometry.rgb_picture(frames, tmp_path / "rgb.png")
    assert picture.shape == (*frames[0][0].shape, 3)
    brightest = frames[1][0].OBJCAT[np.argmax(frames[1][0].OBJCAT["FLUX_AUTO"])]
    x, y = round(float(brightest["X_IMAGE"])) - 1, round(float(brightest["Y_IMAGE"])) - 1
    assert picture[y, x].max() > 200
    assert np.median(picture) < 100
    assert (tmp_path / "rgb.png").stat().st_size > 1000
    with pytest.raises(InputError, match="three"):
        photometry.rgb_picture(frames[:2])
