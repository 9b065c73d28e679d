"""Errors of alignment and interpolation in the cores of stars, against stars that were shifted many times."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import polynomial

from niripipe.algorithms.core_noise import add_core_errors

SHAPE = (41, 43)
SKY = 100.0


def star(x, y, flux=1e6, sigma=2.0):
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return flux / (2 * np.pi * sigma**2) * np.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * sigma**2))


def steep(image):
    return image > 0.2 * image.max()


def test_the_error_of_the_shifts_shows_in_the_flanks():
    rng = np.random.default_rng(1)
    shifts = rng.normal(0, 0.05, (2000, 2, 4)).mean(axis=2)
    drawn = np.array([star(21 + dx, 20 + dy) for dx, dy in shifts])
    image = star(21, 20).astype(np.float32)
    variance = np.full(SHAPE, SKY, np.float32)
    assert add_core_errors(variance, image, shift_error=0.05 / 2) > 20
    where = steep(image) & (variance > SKY)
    assert (variance - SKY)[where].sum() == pytest.approx(drawn.var(axis=0)[where].sum(), rel=0.15)


@pytest.mark.parametrize("sigma", [1.7, 2.0, 3.0])
def test_what_a_cubic_polynomial_flattens_is_in_the_variance(sigma):
    # The mean of a star interpolated at all fractions alike; the polynomial is solved for here.
    points = np.array([-1.0, 0.0, 1.0, 2.0])
    weights = [
        polynomial.polyvander(f, 3).ravel() @ np.linalg.inv(polynomial.polyvander(points, 3))
        for f in (np.arange(12) + 0.5) / 12
    ]
    fractions = (np.arange(12) + 0.5) / 12
    mean = np.zeros(SHAPE)
    squares = []
    for fy, wy in zip(fractions, weights, strict=True):
        for fx, wx in zip(fractions, weights, strict=True):
            source = star(21 + fx, 20 + fy, sigma=sigma)
            moved = sum(
                wy[i] * wx[j] * np.roll(source, (-int(points[i]), -int(points[j])), (0, 1))
                for i in range(4)
                for j in range(4)
            )
            mean += moved / 144
            squares.append((wy**2).sum() * (wx**2).sum())
    truth = star(21, 20, sigma=sigma)
    variance = np.full(SHAPE, SKY, np.float32)
    add_core_errors(variance, mean.astype(np.float32), correlation=1 / np.mean(squares))
    peak = (20, 21)
    assert mean[peak] < truth[peak]
    assert np.sqrt(variance[peak] - SKY) == pytest.approx(truth[peak] - mean[peak], rel=0.2)


def test_faint_and_smooth_light_is_left():
    rng = np.random.default_rng(2)
    faint = star(21, 20, flux=3000) + rng.normal(0, 10, SHAPE)
    for image in (faint, np.full(SHAPE, 5e4)):
        variance = np.full(SHAPE, SKY, np.float32)
        assert add_core_errors(variance, image.astype(np.float32), shift_error=0.05, correlation=1.5) == 0
        assert (variance == SKY).all()


def test_frames_that_were_not_moved_have_no_such_errors():
    variance = np.full(SHAPE, SKY, np.float32)
    assert add_core_errors(variance, star(21, 20).astype(np.float32)) == 0
    small = np.full((5, 5), SKY, np.float32)
    assert add_core_errors(small, np.full((5, 5), 1e6, np.float32), shift_error=1.0) == 0


def test_the_edges_and_unknown_variances_are_left():
    image = star(1, 20).astype(np.float32)
    variance = np.full(SHAPE, SKY, np.float32)
    variance[20, 6] = np.nan
    add_core_errors(variance, image, shift_error=0.1)
    assert (variance[:, :3] == SKY).all()
    assert np.isnan(variance[20, 6])
