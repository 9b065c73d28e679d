from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.profile import measure_profiles, stamp_half_size


def star(x0: float, y0: float, sigma: float = 2.5, size: int = 101) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return 1000 * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2))


def measure(image: np.ndarray, x: float, y: float, background: float = 0.0, sigma: float = 2.5, **arguments):
    flux = np.array([2 * np.pi * sigma**2 * 1000])
    return measure_profiles(
        image, np.array([x]), np.array([y]), background, flux, np.array([1.0]), **arguments
    )


def test_the_widths_of_a_normal_star_are_those_of_dragons():
    result = measure(7 + star(50.3, 49.6), 50.3, 49.6, 7.0, half_size=stamp_half_size(0.117, 0.7))
    assert result.fwhm[0] == pytest.approx(6.076508, abs=1e-5)
    assert result.ee50[0] == pytest.approx(5.813777, abs=1e-5)


def test_the_core_width_is_exact_for_a_normal_star():
    for sigma in (1.5, 2.0, 3.0):
        result = measure(star(50.37, 49.61, sigma), 50.37, 49.61, sigma=sigma)
        assert result.core[0] == pytest.approx(2.35482 * sigma, rel=1e-3)


def test_where_the_stamp_does_not_fit_nothing_is_measured():
    result = measure(star(4, 50), 4.0, 50.0)
    assert (result.fwhm[0], result.ee50[0], result.core[0], result.peak[0]) == (-999, -999, -999, 1)


def test_the_stamp_size_follows_seeing_and_scale():
    assert stamp_half_size(None, None) == 10
    assert stamp_half_size(0.117, 0.7) == 10
    assert stamp_half_size(0.0219, 0.7) == 38
    assert stamp_half_size(0.0219, None) == 22
