from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label
from scipy.special import erf

from niripipe.algorithms.bits import BAD, COSMIC_RAY, NO_DATA, NON_LINEAR
from niripipe.algorithms.cosmic import flag_by_reference, flag_cosmic_rays
from niripipe.errors import AlgorithmError

SKY, READ_NOISE = 1000.0, 35.0
SIGMA = float(np.sqrt(SKY + READ_NOISE**2))


class Field(NamedTuple):
    data: NDArray[np.float32]
    variance: NDArray[np.float32]
    stars: NDArray[np.float32]
    hits: NDArray[np.float64]
    cores: NDArray[np.bool_]


def field(fwhm: float, seed: int = 0, size: int = 384, number: int = 90) -> Field:
    """Stars integrated over pixels, sky-subtracted noise, and tracks of 1 to 4 pixels."""
    rng = np.random.default_rng(seed)
    sigma = fwhm / 2.3548
    edge = np.arange(-15.5, 16)
    stars, hits = np.zeros((size, size)), np.zeros((size, size))
    cores = np.zeros((size, size), bool)
    for _ in range(number):
        x, y = rng.uniform(16, size - 17, 2)
        ix, iy = round(x), round(y)
        px, py = (np.diff(0.5 * erf((edge + i - c) / sigma / np.sqrt(2))) for i, c in ((ix, x), (iy, y)))
        stars[iy - 15 : iy + 16, ix - 15 : ix + 16] += 10 ** rng.uniform(3.5, 5.5) * np.outer(py, px)
        cores[iy - 1 : iy + 2, ix - 1 : ix + 2] = True
    for _ in range(number):
        x, y = rng.integers(5, size - 5, 2)
        angle, amplitude = rng.uniform(0, np.pi), SIGMA * 10 ** rng.uniform(1.05, 2)
        for step in range(rng.integers(1, 5)):
            hits[round(y + step * np.sin(angle)), round(x + step * np.cos(angle))] += amplitude
    variance = stars + hits + SKY + READ_NOISE**2
    data = stars + hits + rng.normal(0, np.sqrt(variance))
    # A star that is hit is no test of whether stars are spared.
    cores &= ~binary_dilation(hits > 0, np.ones((5, 5)))
    return Field(data.astype(np.float32), variance.astype(np.float32), stars.astype(np.float32), hits, cores)


@pytest.mark.parametrize("fwhm", [4.7, 2.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_hits_are_found_and_the_cores_of_stars_are_spared(fwhm: float, seed: int) -> None:
    truth = field(fwhm, seed)
    found = flag_cosmic_rays(truth.data, truth.variance).hits
    real = truth.hits > 10 * SIGMA
    assert np.count_nonzero(found & real) > 0.9 * np.count_nonzero(real)
    groups, number = label(real, np.ones((3, 3)))
    assert np.unique(groups[found & real]).size > 0.9 * number
    assert np.count_nonzero(found & truth.cores) < 1e-3 * np.count_nonzero(truth.cores)
    # Away from hits, noise alone.
    away = ~binary_dilation(truth.hits > 0, np.ones((5, 5)))
    assert np.count_nonzero(found & away) < 2e-4 * away.sum()


def test_undersampled_stars_need_the_protection() -> None:
    truth = field(2.0, 0)
    unprotected = flag_cosmic_rays(truth.data, truth.variance, least_fwhm=0).hits
    assert np.count_nonzero(unprotected & truth.cores) > 1e-3 * np.count_nonzero(truth.cores)


def test_without_variance_the_noise_follows_from_level_and_read_noise() -> None:
    truth = field(4.7)
    found = flag_cosmic_rays(truth.data, read_noise=READ_NOISE, background=SKY).hits
    reference = flag_cosmic_rays(truth.data, truth.variance).hits
    assert np.count_nonzero(found ^ reference) < 0.05 * np.count_nonzero(reference)


def test_the_unit_of_the_data_does_not_matter() -> None:
    truth = field(4.7)
    electrons = flag_cosmic_rays(truth.data, truth.variance, read_noise=READ_NOISE, clean=True)
    gain = 8.0
    counts = flag_cosmic_rays(
        truth.data / np.float32(gain),
        truth.variance / np.float32(gain**2),
        gain=gain,
        read_noise=READ_NOISE,
        clean=True,
    )
    np.testing.assert_array_equal(counts.hits, electrons.hits)
    assert electrons.data is not None
    assert counts.data is not None
    np.testing.assert_allclose(counts.data * gain, electrons.data, rtol=1e-5, atol=1e-2)


def test_the_cleaned_frame_differs_in_hits_only_and_there_shows_what_was_beneath() -> None:
    truth = field(4.7)
    result = flag_cosmic_rays(truth.data, truth.variance, clean=True, background=SKY)
    assert result.data is not None
    np.testing.assert_array_equal(result.data[~result.hits], truth.data[~result.hits])
    on_sky = result.hits & (truth.hits > 0) & (truth.stars < SIGMA)
    assert abs(np.median(result.data[on_sky])) < SIGMA
    assert flag_cosmic_rays(truth.data, truth.variance).data is None


def test_flagged_saturated_and_infinite_pixels_are_not_called_cosmic_rays() -> None:
    rng = np.random.default_rng(3)
    data = rng.normal(0, 30, (128, 128)).astype(np.float32)
    data[20, 20], data[40, 40], data[60, 60], data[90, 90] = 5000, np.nan, 5000, 5000
    mask = np.zeros(data.shape, np.uint16)
    mask[20, 20], mask[60, 60] = BAD, NON_LINEAR
    before = data.copy()
    hits = flag_cosmic_rays(data, np.full_like(data, 900), mask).hits
    assert not hits[20, 20]
    assert not hits[40, 40]
    assert hits[60, 60]
    assert hits[90, 90]
    np.testing.assert_array_equal(data, before)


def test_astroscrappy_is_imported_only_when_used() -> None:
    code = "import niripipe.algorithms.cosmic, sys; print('astroscrappy' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout.strip() == "False"


def test_what_is_brighter_than_the_reference_is_flagged_and_grown_by_a_disc() -> None:
    rng = np.random.default_rng(1)
    reference = np.full((200, 200), 100, np.float32)
    data = rng.normal(130, 10, reference.shape).astype(np.float32)  # 30 brighter everywhere: only the level
    data[50, 60] += 200
    data[80, 80] -= 200
    variance = np.full_like(data, 100)
    mask = np.zeros(data.shape, np.uint16)
    mask[10, 10] = NON_LINEAR
    flags = flag_by_reference(data, variance, reference, mask=mask)
    y, x = np.nonzero(flags & COSMIC_RAY)
    assert set(zip(y.tolist(), x.tolist(), strict=True)) == {(50, 60), (49, 60), (51, 60), (50, 59), (50, 61)}
    assert flags[10, 10] == NON_LINEAR
    assert mask[10, 10] == NON_LINEAR
    assert mask.sum() == NON_LINEAR
    single = flag_by_reference(data, variance, reference, mask=mask, dilation=0)
    assert np.count_nonzero(single & COSMIC_RAY) == 1


def test_bad_pixels_objects_and_infinite_values_are_not_flagged() -> None:
    rng = np.random.default_rng(2)
    data = rng.normal(0, 1, (64, 64)).astype(np.float32)
    for x in range(5, 50, 10):
        data[30, x] = 100
    mask = np.zeros(data.shape, np.uint16)
    mask[30, 5], mask[30, 15] = BAD, NO_DATA
    objmask = np.zeros(data.shape, np.uint8)
    objmask[30, 25] = 1
    data[30, 35] = np.nan
    reference = np.zeros_like(data)
    flags = flag_by_reference(data, None, reference, mask=mask, objmask=objmask, dilation=0)
    assert [bool(flags[30, x] & COSMIC_RAY) for x in range(5, 50, 10)] == [False, False, False, False, True]


def test_the_noise_of_the_reference_counts() -> None:
    data = np.random.default_rng(4).normal(0, 1, (64, 64)).astype(np.float32)
    data[5, 5] = 10
    one = np.ones_like(data)
    assert flag_by_reference(data, one, 0 * one, dilation=0)[5, 5]
    assert not flag_by_reference(data, one, 0 * one, 3 * one, dilation=0)[5, 5]


def test_a_frame_without_usable_pixels_is_refused() -> None:
    data = np.zeros((32, 32), np.float32)
    with pytest.raises(AlgorithmError):
        flag_by_reference(data, None, data, mask=np.ones(data.shape, np.uint16))


def test_a_hit_beside_a_fainter_star_stays_flagged_and_the_star_spared() -> None:
    truth = field(2.0, seed=2)
    star, hit = (352, 329), (350, 327)
    assert truth.hits[hit] > truth.stars[star] > 10 * SIGMA
    found = flag_cosmic_rays(truth.data, truth.variance).hits
    assert found[hit]
    assert not found[star]
