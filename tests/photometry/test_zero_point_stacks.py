"""Zero points of images that are scaled and combined: a star keeps its magnitude."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS

from niripipe import astrodata, photometry

from .conftest import reduce


def dimmed(stack, factor):
    """Return the stack as clouds would have dimmed it, with the zero point that belongs to it."""
    ad = astrodata.open(stack)
    ad[0].reset(
        ad[0].data * np.float32(factor), mask=ad[0].mask, variance=ad[0].variance * np.float32(factor**2)
    )
    for key in ("ZP", "ZPIMAGE"):
        ad.phu[key] += 2.5 * np.log10(factor)
    ad.phu["ZPMAGERR"] = 0.05
    ad.filename = f"N2016010{int(10 * factor)}S0001_image.fits"
    return ad


def brightest(ad):
    table = ad[0].OBJCAT
    return photometry.to_magnitudes(ad, float(np.max(table["FLUX_AUTO"]))).value


def combined(images, folder):
    return reduce(images, None, folder, recipe="alignAndStack")


def test_a_stack_of_stacks_has_the_zero_point_of_their_mean(stack, tmp_path):
    first, second = astrodata.open(stack), dimmed(stack, 0.8)
    (result,) = combined([first, second], tmp_path).outputs
    assert brightest(result) == pytest.approx(brightest(first), abs=0.003)
    mean = 2.5 * np.log10(0.5 * (10 ** (0.4 * first.phu["ZPIMAGE"]) + 10 ** (0.4 * second.phu["ZPIMAGE"])))
    assert result.phu["ZPIMAGE"] == pytest.approx(mean, abs=1e-4)
    exposure, airmass = result.exposure_time(), result.airmass()
    of_image = result.phu["ZP"] + 2.5 * np.log10(exposure) - result.phu["ZPEXT"] * (airmass - 1)
    assert of_image == pytest.approx(mean, abs=1e-4)
    assert result.phu["ZPMAGERR"] == 0.05
    assert result.phu["ZPSTD"] == "FS 17"


def test_images_without_zero_point_leave_the_stack_without(stack, tmp_path):
    second = dimmed(stack, 0.8)
    for key in ("ZP", "ZPIMAGE"):
        del second.phu[key]
    done = combined([astrodata.open(stack), second], tmp_path)
    assert "ZP" not in done.outputs[0].phu
    assert done.outputs[0].phu["ZPWHYNOT"] == "1 of the 2 images combined have no zero point"
    assert any("the stack has no zero point" in text for text in done.report.warnings)


def test_an_image_that_is_scaled_keeps_the_magnitudes_of_its_stars(stack, tmp_path):
    ad = astrodata.open(stack)
    before, counts, rate = photometry.to_magnitudes(ad, 1e5).value, 1e5, ad.phu["ZP"]
    scaled = reduce([ad], None, tmp_path, recipe=_to_a_minute).outputs[0]
    factor = 60.0 / float(astrodata.open(stack).exposure_time())
    assert scaled.exposure_time() == 60.0
    assert photometry.to_magnitudes(scaled, factor * counts).value == pytest.approx(before, abs=1e-4)
    assert scaled.phu["ZP"] == pytest.approx(rate, abs=1e-4)


def _to_a_minute(p):
    p.scaleByExposureTime(time=60.0)


@pytest.mark.parametrize("conserve", [True, False])
def test_a_stack_on_larger_pixels_keeps_magnitudes_and_the_noise_it_had(stack, tmp_path, conserve):
    ad = astrodata.open(stack)
    before = ad[0].OBJCAT
    star = before[np.argmin(before["MAG_APER_6"])]
    target = WCS(naxis=2)
    target.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    target.wcs.crval, target.wcs.crpix = ad[0].wcs.wcs.crval, [75, 75]
    target.wcs.cd = np.diag([-0.2, 0.2]) / 3600
    target.pixel_shape = (150, 150)

    def on_larger_pixels(p):
        p.resampleToCommonFrame(target_wcs=target, conserve=conserve)
        p.detectSources()
        p.applyZeroPoint()

    done = reduce([ad], None, tmp_path, recipe=on_larger_pixels)
    (after,) = done.outputs
    table = after[0].OBJCAT
    away = np.hypot(
        (table["X_WORLD"] - star["X_WORLD"]) * np.cos(np.deg2rad(star["Y_WORLD"])),
        table["Y_WORLD"] - star["Y_WORLD"],
    )
    same = table[np.argmin(away)]
    assert np.min(away) * 3600 < 0.1
    assert same["MAG_APER_6"] == pytest.approx(star["MAG_APER_6"], abs=0.02)
    assert after[0].hdr["NOISCORR"] > ad[0].hdr["NOISCORR"]
    assert "COVERAGE" not in after[0].exposed
    assert any("COVERAGE, EXPOSURE of the stack are left out" in text for text in done.report.warnings)
