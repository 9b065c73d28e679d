from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.profile import measure_profiles, stamp_half_size


def star(x0: float, y0: float, sigma: float = 2.5, size: int = 101) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return 1000 * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2))


def measure(image: np.ndarray, x: float, y: float, sigma: float = 2.5, **arguments):
    flux = np.array([2 * np.pi * sigma**2 * 1000])
    return measure_profiles(image, np.array([x]), np.array([y]), flux, np.array([1.0]), **arguments)


def test_the_widths_of_a_normal_star_are_those_of_dragons():
    result = measure(star(50.3, 49.6), 50.3, 49.6, half_size=stamp_half_size(0.117))
    assert result.fwhm[0] == pytest.approx(6.076508, abs=1e-5)
    assert result.ee50[0] == pytest.approx(5.813777, abs=1e-5)


def test_the_core_width_is_exact_for_a_normal_star():
    for sigma in (1.5, 2.0, 3.0):
        result = measure(star(50.37, 49.61, sigma), 50.37, 49.61, sigma=sigma)
        assert result.core[0] == pytest.approx(2.35482 * sigma, rel=1e-3)


def test_where_the_stamp_does_not_fit_nothing_is_measured():
    result = measure(star(4, 50), 4.0, 50.0)
    assert (result.fwhm[0], result.ee50[0], result.core[0], result.peak[0]) == (-999, -999, -999, 1)


def test_the_stamp_size_follows_the_pixel_scale():
    assert stamp_half_size(None) == 10
    assert stamp_half_size(0.117) == 10
    assert stamp_half_size(0.0219) == 22


def test_each_of_many_sources_is_measured_as_if_it_were_alone():
    rng = np.random.default_rng(1)
    image = rng.normal(0, 2, (300, 300)).astype(np.float32)
    x, y = rng.uniform(5, 295, (2, 400))
    x[7] = np.nan
    flux, sigma = rng.uniform(2e3, 1e5, x.size), rng.uniform(1.5, 3.5, x.size)
    for k in range(0, x.size, 20):
        image += (flux[k] / (2 * np.pi * sigma[k] ** 2) / 1000) * star(x[k], y[k], sigma[k], 300)
    peak = np.ones(x.size)
    together = measure_profiles(image, x, y, flux, peak)
    assert together.fwhm[7] == -999
    for k in range(0, x.size, 3):
        alone = measure_profiles(image, x[k : k + 1], y[k : k + 1], flux[k : k + 1], peak[:1])
        for name in ("fwhm", "ee50", "peak", "core"):
            assert getattr(alone, name)[0] == getattr(together, name)[k]


def test_half_of_the_light_is_found_far_from_the_centre_as_well():
    y, x = np.mgrid[:61, :61]
    ring = (np.abs(np.hypot(x - 30, y - 30) - 8) < 0.6).astype(float)
    result = measure_profiles(ring, np.array([30.0]), np.array([30.0]), np.array([ring.sum()]), np.ones(1))
    assert result.ee50[0] == pytest.approx(16, abs=1)
