"""Aperture sums, curves of growth and corrections against formulas of the profile."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from niripipe.errors import InputError
from niripipe.photometry import apertures
from niripipe.photometry.corrections import correction_of_stars, isolated

pytest.importorskip("photutils")

FWHM = 4.7
SCALE = FWHM / (2 * np.sqrt(2 ** (1 / 3) - 1))


def moffat(x: float, y: float, flux: float, shape: tuple[int, int] = (121, 121)) -> np.ndarray:
    """A Moffat profile with beta = 3, sampled finely and summed into pixels."""
    fine = (np.arange(5) - 2) / 5
    image = np.zeros(shape)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    for dy in fine:
        for dx in fine:
            image += (1 + ((xx + dx - x) ** 2 + (yy + dy - y) ** 2) / SCALE**2) ** -3.0
    return flux * image * 2 / (np.pi * SCALE**2) / 25


def within(radius: float) -> float:
    """Share of the light within a radius, by the integral of the profile."""
    return 1 - (1 + radius**2 / SCALE**2) ** -2


def test_sums_in_circles_follow_the_profile():
    image = moffat(60.3, 59.8, 1e5)
    for radius in (3.0, 6.0, 10.0):
        found = apertures.circle_sums(image, [60.3], [59.8], radius)
        # Parts of pixels count by their area, here from a fine grid; light in pixels is less sharp.
        yy, xx = (np.mgrid[: 121 * 20, : 121 * 20] + 0.5) / 20 - 0.5
        inside = (np.hypot(xx - 60.3, yy - 59.8) < radius).reshape(121, 20, 121, 20).mean(axis=(1, 3))
        assert found[0] == pytest.approx(np.sum(inside * image), rel=1e-3)
        assert found[0] == pytest.approx(1e5 * within(radius), rel=0.02)
    assert np.isnan(apertures.circle_sums(image, [2.0], [60.0], 5.0)[0])


def test_a_star_is_measured_with_its_sky_and_a_bad_pixel():
    rng = np.random.default_rng(3)
    image = (moffat(60.3, 59.8, 1e6) + rng.normal(40.0, 5.0, (121, 121))).astype(np.float32)
    bad = np.zeros(image.shape, bool)
    bad[57, 64] = True
    image[bad] = 1e5
    found = apertures.star_sum(image, bad, 60.3, 59.8, fwhm=FWHM, factor=4.0)
    assert found.flux == pytest.approx(1e6 * within(4 * FWHM), rel=2e-3)
    assert found.sky == pytest.approx(40, abs=4 * found.sky_error + 1)
    assert found.repaired == 1
    assert np.interp(FWHM, found.growth_radii, found.growth) == pytest.approx(
        within(FWHM) / within(4 * FWHM), abs=0.01
    )
    assert found.excess() == pytest.approx(2.5 * np.log10(within(5 * FWHM) / within(4 * FWHM)), abs=1e-3)


def test_a_star_at_the_edge_is_refused():
    image = np.zeros((60, 60), np.float32)
    with pytest.raises(InputError, match="beyond the image"):
        apertures.star_sum(image, image > 0, 10.0, 30.0, fwhm=FWHM, factor=4.0)


def test_without_photutils_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(apertures, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"niripipe\[photometry\]"):
        apertures.circle_sums(np.zeros((9, 9)), [4.0], [4.0], 2.0)


def test_a_photutils_that_cannot_be_used_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "photutils.profiles", None)
    with pytest.raises(InputError, match=r"photutils.profiles.*--upgrade"):
        apertures.require_photutils()


def test_corrections_leave_out_what_is_no_star():
    rng = np.random.default_rng(4)
    flux = 10 ** rng.uniform(4, 6, 30)
    small, large = 0.6 * flux, flux.copy()
    large[3] *= 1.3
    error = np.full(30, 50.0)
    found = correction_of_stars(small, large + rng.normal(0, 120, 30), error, np.full(30, 130.0))
    assert found is not None
    assert found.factor == pytest.approx(1 / 0.6, abs=4 * found.error)
    assert found.error < 0.005
    assert found.stars <= 29
    assert correction_of_stars(small[:2], large[:2], error[:2], error[:2]) is None


def test_stars_with_neighbours_are_not_alone():
    x, y = np.array([10.0, 14.0, 50.0]), np.array([10.0, 10.0, 50.0])
    assert isolated(x, y, np.array([1000.0, 100.0, 10.0]), 8.0).tolist() == [False, False, True]
    assert isolated(x, y, np.array([100000.0, 100.0, 10.0]), 8.0).tolist() == [True, False, True]
