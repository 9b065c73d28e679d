"""Bad pixels get the value that their surroundings let expect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niripipe.algorithms.repair import replace_bad_pixels


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
    sharpen=st.booleans(),
)
def test_bad_pixels_are_replaced_from_the_rim_inwards(seed, share, reach, sharpen):
    rng = np.random.default_rng(seed)
    plane = rng.normal(100, 10, (20, 13)).astype(np.float32)
    bad = rng.random(plane.shape) < share
    plane[bad] = rng.choice([np.nan, np.inf, 1e30], int(bad.sum()))
    expected, good = np.where(bad, 0, plane), ~bad
    for _ in range(reach):
        values, known = expected.copy(), good.copy()
        for y, x in np.argwhere(~good):
            near = [
                (values[v, u], 1.0 if v == y or u == x else 0.5)
                for v in range(max(y - 1, 0), min(y + 2, 20))
                for u in range(max(x - 1, 0), min(x + 2, 13))
                if good[v, u]
            ]
            if len(near) == 8 and sharpen:
                near = [(value, 0.5 if weight == 1 else -0.25) for value, weight in near]
            if near:
                total = sum(weight for _, weight in near)
                expected[y, x] = sum(value * weight for value, weight in near) / total
                known[y, x] = True
        good = known
    found = plane.copy()
    replace_bad_pixels([found], bad, reach=reach, sharpen=sharpen)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_array_equal(found[~bad], plane[~bad])
