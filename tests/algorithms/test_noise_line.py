"""The noise of frames taken alike, as a straight line of their level in each pixel."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.noise_line import noise_line

SHAPE = (24, 20)


def frames(n: int, *, seed: int = 1) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray, np.ndarray]:
    """Return data and variances of frames with the same noise, and constant and slope of each pixel."""
    rng = np.random.default_rng(seed)
    constant, slope = rng.uniform(200, 900, SHAPE), rng.uniform(0.02, 0.1, SHAPE)
    # Skies that brighten: far from zero, and different in every frame.
    levels = [rng.normal(1000 + 20 * k, 6, SHAPE) for k in range(n)]
    data = [level.astype(np.float32) for level in levels]
    return data, [(constant + slope * level).astype(np.float32) for level in levels], constant, slope


@pytest.mark.parametrize("n", [2, 3, 7, 12])
def test_read_noise_and_slope_of_each_pixel_are_found(n):
    data, variance, constant, slope = frames(n)
    line = noise_line(data, variance)
    assert line is not None
    # The levels differ by tens of thousand: what is sure is the noise near them.
    for level in (990.0, 1005.0, 1020.0):
        plane = np.full(SHAPE, level, np.float32)
        np.testing.assert_allclose(line.at(plane), constant + slope * level, rtol=2e-3)
        rows = slice(3, 9)
        np.testing.assert_array_equal(line.at(plane[rows], rows), line.at(plane)[rows])
    if n > 2:
        assert np.median(line.slope / slope) == pytest.approx(1, abs=0.01)
        assert np.median(line.constant / constant) == pytest.approx(1, abs=0.02)


def test_stars_and_values_that_are_no_numbers_do_not_bend_the_line():
    data, variance, constant, slope = frames(7)
    for k in range(7):
        data[k][3 * k, 2:4] += 5000
        # What a star adds is taken from another line, as if the frame had been divided by its response.
        variance[k][3 * k, 2:4] += 300
    data[2][5, 5] = np.nan
    line = noise_line(data, variance)
    assert line is not None
    plane = np.full(SHAPE, 1050, np.float32)
    np.testing.assert_allclose(line.at(plane), constant + slope * 1050, rtol=3e-3)


@pytest.mark.parametrize("change", [1.05, 0.9])
@pytest.mark.parametrize("which", [0, 5, 11])
def test_frames_of_which_one_has_another_noise_have_no_line(change, which):
    data, variance, _, _ = frames(12)
    variance[which] *= np.float32(change)
    assert noise_line(data, variance) is None


def test_threads_change_nothing():
    data, variance, _, _ = frames(7)
    one, four = noise_line(data, variance), noise_line(data, variance, threads=4)
    assert one is not None
    assert four is not None
    np.testing.assert_array_equal(one.constant, four.constant)
    np.testing.assert_array_equal(one.slope, four.slope)
