"""Bad pixels get what their surroundings let expect, row by row as well as all at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niripipe.algorithms.repair import Repairs, replace_bad_pixels


def surface(shape=(30, 30)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (5 + 0.3 * y - 0.2 * x + 0.05 * x**2 + 0.02 * x * y).astype(np.float32)


def test_replaced_pixels_continue_a_smooth_surface():
    whole = surface()
    plane, bad = whole.copy(), np.zeros(whole.shape, bool)
    bad[10, 10] = bad[0, 5] = True
    bad[20:22, 20:22] = True
    plane[bad] = 1e6
    replace_bad_pixels([plane], bad)
    assert plane[10, 10] == pytest.approx(whole[10, 10], abs=1e-3)
    np.testing.assert_allclose(plane[bad], whole[bad], atol=2.0)


def test_a_variance_is_the_mean_of_its_neighbours_and_never_sharpened():
    data = np.zeros((5, 5), np.float32)
    data[1:4, 1:4] = [[1, 4, 2], [5, np.nan, 6], [3, 7, 8]]
    variance, bad = data.copy(), np.zeros(data.shape, bool)
    bad[2, 2] = True
    replace_bad_pixels([data, variance], bad)
    assert data[2, 2] == pytest.approx(0.5 * (4 + 5 + 6 + 7) - 0.25 * (1 + 2 + 3 + 8))
    assert variance[2, 2] == pytest.approx((4 + 5 + 6 + 7 + 0.5 * (1 + 2 + 3 + 8)) / 6)


def test_beside_an_edge_only_what_is_there_counts():
    plane, bad = np.ones((3, 4), np.float32), np.zeros((3, 4), bool)
    plane[:, -1] = 100
    bad[1, 0] = True
    plane[1, 0] = np.inf
    replace_bad_pixels([plane], bad)
    assert plane[1, 0] == 1


def test_what_lies_deep_in_a_bad_area_becomes_zero():
    plane, bad = np.full((20, 20), 7, np.float32), np.zeros((20, 20), bool)
    bad[5:14, 5:14] = True
    plane[bad] = np.nan
    replace_bad_pixels([plane], bad, reach=2)
    assert (plane[7:12, 7:12] == 0).all()
    np.testing.assert_allclose(np.delete(np.delete(plane, range(7, 12), 0), range(7, 12), 1), 7, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]),
    reach=st.integers(1, 3),
    first=st.integers(0, 39),
    length=st.integers(1, 40),
    sharpen=st.booleans(),
)
def test_rows_are_repaired_as_in_the_whole(seed, share, reach, first, length, sharpen):
    rng = np.random.default_rng(seed)
    plane = rng.normal(100, 10, (40, 23)).astype(np.float32)
    bad = rng.random(plane.shape) < share
    plane[bad] = rng.choice([np.nan, np.inf, 1e30], int(bad.sum()))
    repairs = Repairs.of(np.flatnonzero(bad), plane.shape, reach=reach)
    whole = plane.copy()
    repairs.apply(whole, sharpen=sharpen)
    assert np.isfinite(whole).all()
    np.testing.assert_array_equal(whole[~bad], plane[~bad])
    # As many rows more on either side as values travel.
    last = min(first + length, 40)
    wide = slice(max(first - reach, 0), min(last + reach, 40))
    block = plane[wide].copy()
    repairs.apply(block, wide.start, sharpen=sharpen)
    np.testing.assert_array_equal(block[first - wide.start : last - wide.start], whole[first:last])
