from __future__ import annotations

import numpy as np
import pytest

from niripipe.simulate.psf import add_stars, moffat_radius, star_stamp


@pytest.mark.parametrize(("x", "y"), [(15.0, 15.0), (15.5, 14.5), (14.73, 15.21)])
@pytest.mark.parametrize("fwhm", [2.0, 4.7, 9.0])
def test_pixels_hold_the_integral_of_the_profile(x: float, y: float, fwhm: float) -> None:
    stamp = star_stamp(x, y, fwhm, slice(0, 31), slice(0, 31))
    fine = (np.arange(31 * 60) + 0.5) / 60 - 0.5
    scale = moffat_radius(fwhm)
    dense = (1 + ((fine[None, :] - x) ** 2 + (fine[:, None] - y) ** 2) / scale**2) ** -3.0
    exact = 2 / (np.pi * scale**2) * dense.reshape(31, 60, 31, 60).mean(axis=(1, 3))
    np.testing.assert_allclose(stamp, exact, rtol=2e-4, atol=1e-7)
    assert abs(stamp.sum() - exact.sum()) < 2e-6


def test_growth_of_a_star_follows_the_enclosed_flux() -> None:
    image = np.zeros((301, 301))
    add_stars(image, np.array([150.3]), np.array([149.8]), np.array([1000.0]), 4.7)
    assert image.sum() == pytest.approx(1000 * (1 - (1 + (160 / moffat_radius(4.7)) ** 2) ** -2), rel=2e-6)


def test_fwhm_is_where_the_profile_falls_to_half() -> None:
    scale = moffat_radius(6.0)
    assert (1 + (3.0 / scale) ** 2) ** -3 == pytest.approx(0.5)


def test_stars_beyond_the_edge_leave_their_wings_on_the_image() -> None:
    image = np.zeros((40, 40))
    add_stars(image, np.array([-3.0]), np.array([20.0]), np.array([100.0]), 4.7, faintest=1e-4)
    whole = np.zeros((40, 60))
    add_stars(whole, np.array([17.0]), np.array([20.0]), np.array([100.0]), 4.7, faintest=1e-4)
    np.testing.assert_allclose(image, whole[:, 20:], atol=1e-12)
    assert image[20, 0] > 0


def test_leaving_out_faint_wings_costs_no_more_than_was_allowed() -> None:
    one = [np.array([v]) for v in (60.2, 59.9, 1e5)]
    whole, cut = np.zeros((121, 121)), np.zeros((121, 121))
    add_stars(whole, *one, 4.7)
    add_stars(cut, *one, 4.7, faintest=0.01)
    assert np.abs(whole - cut).max() < 0.01
    assert cut.sum() / whole.sum() > 0.9995
