"""Medians of overlapping subsets: the values of the plain combination, bit for bit, for less work."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niripipe.algorithms.combine import (
    combine,
    median_variance_factor,
    median_variance_factors,
    subset_medians,
)
from niripipe.algorithms.combine import subsets as subsets_module
from niripipe.errors import DataError, ParameterError

BRIGHT = 2 | 4


def planes(n, seed, shape=(9, 11), flagged=0.2):
    """N planes with ties, values that are no numbers, and flags of every kind."""
    rng = np.random.default_rng(seed)
    data = rng.normal(1000, 30, (n, *shape)).astype(np.float32)
    data[: n // 2] = np.round(data[: n // 2] / 20) * 20
    variance = rng.uniform(500, 1500, data.shape).astype(np.float32)
    kinds = rng.choice([1, 2, 4, 8, 16, 32, 64, 0x8000], data.shape)
    mask = np.where(rng.random(data.shape) < flagged, kinds, 0).astype(np.uint16)
    mask[:, 0, :3] = 1
    data[n // 3, 1, 1], variance[n // 2, 2, 2] = np.nan, np.inf
    return list(data), list(variance), list(mask)


def medians(*arguments, **options):
    """Return the medians one by one, whichever are made at a time."""
    return [one for made in subset_medians(*arguments, **options) for one in made]


def assert_as_plain(data, variance, mask, subsets, *, scale=None, zero=None, **options):
    results = medians(data, variance, mask, subsets, scale=scale, zero=zero, **options)
    number = 0
    for subset, found in zip(subsets, results, strict=True):
        number += 1

        def of(values, which=subset):
            return None if values is None else [values[k] for k in which]

        plain = combine(
            of(data), of(variance), of(mask), operation="median", reject="minmax", nlow=1, nhigh=1,
            scale=of(scale), zero=of(zero),
        )  # fmt: skip
        np.testing.assert_array_equal(found.data, plain.data)
        if variance is None:
            assert found.variance is None
        else:
            np.testing.assert_allclose(found.variance, plain.variance, rtol=3e-6)
        if mask is not None:
            flags = found.mask
            clean = flags == 0
            np.testing.assert_array_equal(flags[~clean], plain.mask[~clean])
            assert not (plain.mask[clean] & ~np.uint16(BRIGHT)).any()
    assert number == len(subsets)


@pytest.mark.parametrize("flagged", [0.0, 0.02, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 13, 21])
def test_leaving_out_one_of_all_gives_what_the_plain_combination_gives(n, flagged):
    data, variance, mask = planes(n, n, flagged=flagged)
    subsets = [tuple(k for k in range(n) if k != left_out) for left_out in range(n)]
    assert_as_plain(data, variance, mask, subsets, scale=np.linspace(0.9, 1.1, n))


@pytest.mark.parametrize("width", [1, 2, 4, 9])
def test_a_sliding_window_gives_what_the_plain_combination_gives(width):
    data, variance, mask = planes(25, width)
    subsets = [tuple(k for k in range(25) if 0 < abs(k - at) <= width) for at in range(25)]
    assert_as_plain(data, variance, mask, subsets, zero=np.linspace(-20, 20, 25))


@pytest.mark.parametrize("flagged", [0.0, 0.02, 0.3])
def test_windows_with_gaps_give_what_the_plain_combination_gives(flagged):
    data, variance, mask = planes(24, 7, flagged=flagged)
    subsets = [
        tuple(k for k in range(24) if abs(k - at) <= 9 and k not in {at, at + 3, (at * 5) % 24})
        for at in range(24)
    ]
    assert_as_plain(data, variance, mask, subsets, scale=np.linspace(0.95, 1.05, 24))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_subsets_give_what_the_plain_combination_gives(draw):
    n = draw.draw(st.integers(1, 16))
    subset = st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True).map(tuple)
    subsets = draw.draw(st.lists(subset, min_size=1, max_size=11))
    data, variance, mask = planes(n, draw.draw(st.integers(0, 1000)), (5, 7), draw.draw(st.floats(0, 1)))
    assert_as_plain(data, variance, mask, subsets)


def test_variances_and_masks_may_be_missing():
    data, variance, mask = planes(6, 1)
    subsets = [(0, 1, 2, 3), (1, 2, 3, 4, 5)]
    assert_as_plain(data, None, mask, subsets)
    assert_as_plain(data, variance, None, subsets)
    one_good = [None, *mask[1:]]
    filled = [np.zeros_like(mask[1]), *mask[1:]]
    for found, same in zip(
        medians(data, variance, one_good, subsets),
        medians(data, variance, filled, subsets),
        strict=True,
    ):
        np.testing.assert_array_equal(found.data, same.data)
        np.testing.assert_array_equal(found.mask, same.mask)


@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("flagged", [0.03, 0.2])
def test_neither_blocks_nor_threads_change_a_bit(rows, threads, flagged, monkeypatch):
    data, variance, mask = planes(12, 5, flagged=flagged)
    subsets = [tuple(k for k in range(12) if k != left_out) for left_out in range(12)]
    usual = medians(data, variance, mask, subsets)
    monkeypatch.setattr(subsets_module, "_SORTED", 7)
    for found, same in zip(
        medians(data, variance, mask, subsets, rows_per_block=rows, threads=threads),
        usual,
        strict=True,
    ):
        for name in ("data", "variance"):
            np.testing.assert_array_equal(getattr(found, name), getattr(same, name))
        np.testing.assert_array_equal(found.mask, same.mask)


def test_inputs_are_not_changed():
    data, variance, mask = planes(7, 3)
    before = [[plane.copy() for plane in some] for some in (data, variance, mask)]
    medians(data, variance, mask, [(0, 1, 2), (1, 2, 3, 4)], scale=[1.1] * 7)
    for some, was in zip((data, variance, mask), before, strict=True):
        for plane, old in zip(some, was, strict=True):
            np.testing.assert_array_equal(plane, old)


@pytest.mark.parametrize("subset", [(), (0, 0), (0, 3), (-1, 0)])
def test_a_subset_that_makes_no_sense_is_refused(subset):
    data, variance, mask = planes(3, 0)
    with pytest.raises(ParameterError, match="subset"):
        medians(data, variance, mask, [subset])


def test_planes_of_different_shape_are_refused():
    with pytest.raises(DataError, match="shape"):
        medians([np.zeros((3, 3)), np.zeros((3, 4))], None, None, [(0, 1)])


def test_no_subsets_give_nothing():
    data, variance, mask = planes(3, 0)
    assert medians(data, variance, mask, []) == []


@pytest.mark.parametrize("flagged", [0.0, 0.1, 0.9])
def test_the_number_of_inputs_used_is_told(flagged):
    data, _, mask = planes(11, 4, flagged=flagged)
    data = [np.nan_to_num(plane, nan=1000.0) for plane in data]
    subsets = [tuple(range(11)), tuple(range(3, 9))]

    plain = medians(data, None, mask, subsets)
    made = medians(data, None, mask, subsets, rows_per_block=2, threads=2)
    for subset, found, same in zip(subsets, made, plain, strict=True):
        np.testing.assert_array_equal(found.data, same.data)
        flags = np.stack([mask[k] for k in subset])
        # In each pixel the inputs of the best tier are used: what the plain combination counts.
        count = combine([data[k] for k in subset], None, list(flags), operation="median").count
        np.testing.assert_array_equal(found.count, count)
        assert found.variance is None
        np.testing.assert_array_equal(found.count, same.count)


def test_the_variance_of_a_median_of_like_inputs_is_tabulated():
    factors = median_variance_factors(7)
    assert factors.tolist() == pytest.approx([0] + [median_variance_factor(n) / n for n in range(1, 8)])
