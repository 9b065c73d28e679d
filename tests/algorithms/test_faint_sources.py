"""Sources that are looked for at a position, on images made of numpy's normal deviates."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from niripipe.algorithms.faint_sources import look_for

SIGMA, NOISE = 1.7, 10.0
FWHM = 2.3548 * SIGMA


def image(rng: np.random.Generator, x: float, y: float, snr: float) -> tuple[NDArray[np.float32], float]:
    """Return a Gaussian source whose optimal signal-to-noise ratio is given, on a slope, and its flux."""
    flux = snr * NOISE * np.sqrt(4 * np.pi) * SIGMA
    yy, xx = np.mgrid[:120, :120]
    star = flux / (2 * np.pi * SIGMA**2) * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * SIGMA**2))
    return (star + rng.normal(0, NOISE, xx.shape) + 1000 + 0.02 * xx).astype(np.float32), float(flux)


def test_position_flux_and_error_of_a_faint_source_are_true() -> None:
    rng = np.random.default_rng(4)
    offs, fluxes = [], []
    for _ in range(150):
        x, y = rng.uniform(55, 65, 2)
        data, flux = image(rng, x, y, 15.0)
        found = look_for(data, np.ones(data.shape, bool), x + 3, y - 2, fwhm=FWHM, reach=10)
        assert found is not None
        offs += [(found.x - x) / found.error, (found.y - y) / found.error]
        fluxes.append(found.flux / flux)
    assert np.std(offs) == pytest.approx(1.0, abs=0.15)
    assert abs(np.mean(offs)) < 0.25
    assert np.mean(fluxes) == pytest.approx(1.0, abs=0.05)


def test_noise_is_no_source() -> None:
    rng = np.random.default_rng(5)
    planes = [image(rng, 60, 60, 0.0)[0] for _ in range(100)]
    found = [look_for(plane, np.ones(plane.shape, bool), 60, 60, fwhm=FWHM, reach=15) for plane in planes]
    assert sum(one is not None for one in found) <= 2


def test_bad_pixels_do_not_count_and_a_stamp_without_good_ones_is_not_searched() -> None:
    data, _ = image(np.random.default_rng(6), 60, 60, 30.0)
    data[70, 70] = 1e6
    good = np.ones(data.shape, bool)
    good[70, 70] = False
    found = look_for(data, good, 61, 61, fwhm=FWHM, reach=15)
    assert found is not None
    assert (found.x, found.y) == pytest.approx((60, 60), abs=0.3)
    assert look_for(data, np.zeros(data.shape, bool), 60, 60, fwhm=FWHM, reach=15) is None
    assert look_for(data, good, 400, 60, fwhm=FWHM, reach=15) is None
