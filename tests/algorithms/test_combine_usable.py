"""Inputs that data quality leaves out take no part in rejection by the noise model, nor in the mean."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.combine import combine, noiseclip
from niripipe.algorithms.combine.select import select_usable


@pytest.mark.parametrize("n", [2, 3, 4, 7, 8, 35])
@pytest.mark.parametrize("flagged", [0.0, 0.1, 0.7])
def test_the_mean_of_what_is_left_is_that_of_the_inputs_used(n, flagged):
    rng = np.random.default_rng(n)
    data = rng.normal(100, 5, (n, 40, 31)).astype(np.float32)
    variance = rng.uniform(20, 30, data.shape).astype(np.float32)
    mask = np.where(rng.random(data.shape) < flagged, rng.choice([1, 4, 8, 64], data.shape), 0)
    mask = (mask | np.where(rng.random(data.shape) < 0.1, 2, 0)).astype(np.uint16)
    data[rng.random(data.shape) < 0.01] += 5000
    exposures = np.arange(1.0, n + 1)
    made = combine(
        data, variance, mask, operation="mean", reject="noiseclip", hsigma=4, lsigma=4,
        exposures=exposures, rows_per_block=9, threads=2,
    )  # fmt: skip
    # Each input alone says by its share of the exposure whether it is in.
    usable = select_usable(mask.reshape(n, -1), np.ones((n, 40 * 31), bool)).reshape(data.shape)
    assert (made.count <= usable.sum(axis=0)).all()
    nothing = made.count == usable.sum(axis=0)
    assert nothing.any()
    count = np.maximum(usable.sum(axis=0), 1)
    for name, plane in (("data", data / count), ("variance", variance / count**2)):
        expected = (plane * usable).sum(axis=0)
        np.testing.assert_allclose(getattr(made, name)[nothing], expected[nothing], rtol=2e-6)
    np.testing.assert_allclose(made.exposure[nothing], np.tensordot(exposures, usable, 1)[nothing], rtol=1e-6)
    flags = np.bitwise_or.reduce(np.where(usable, mask, 0), axis=0)
    np.testing.assert_array_equal(made.mask[nothing], flags[nothing])
    if n > 4 and not flagged:
        assert abs(made.data - 100).max() < 5000 / n / 4


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("flagged", [0.0, 0.2, 0.6])
def test_the_centre_is_the_lower_median_of_what_is_left(n, flagged):
    rng = np.random.default_rng(10 * n)
    data = rng.normal(100, 5, (n, 12, 11)).astype(np.float32)
    variance = rng.uniform(20, 30, data.shape).astype(np.float32)
    mask = np.where(rng.random(data.shape) < flagged, 1, 0).astype(np.uint16)
    # Without a usable input all flagged ones count: what is not even a number never does.
    data[:, 0, 0] = np.nan
    usable = select_usable(mask.reshape(n, -1), np.isfinite(data).reshape(n, -1)).reshape(data.shape)
    before = data.copy(), variance.copy()
    centre, smallest = noiseclip._centre(data, variance, usable, usable.sum(axis=0))
    for y, x in np.ndindex(12, 11):
        own = usable[:, y, x]
        number = own.sum()
        if not number:
            assert np.isnan(centre[y, x])
            continue
        least = variance[own, y, x].min()
        median = np.sort(data[own, y, x])[(number - 1) // 2]
        expected = median + noiseclip._lower_median_offset(int(number)) * np.sqrt(least)
        assert smallest[y, x] == least
        assert centre[y, x] == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(data, before[0])
    np.testing.assert_array_equal(variance, before[1])
