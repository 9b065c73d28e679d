"""Masks as lists of flagged pixels say what whole masks say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from niripipe.algorithms.flags import Flags, few_true

MASKS = st.tuples(st.integers(1, 40), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.uint16, shape, elements=st.sampled_from([0, 0, 0, 1, 6, 0x8000]))
)


@settings(max_examples=80, deadline=None)
@given(mask=MASKS, rows=st.slices(40).filter(lambda rows: rows.step is None or rows.step > 0))
def test_rows_of_a_list_are_those_of_the_mask(mask, rows):
    flags = Flags.of(mask)
    assert flags.where.dtype == np.int32
    height, width = mask.shape
    empty = np.zeros((len(range(*rows.indices(height))), width), np.uint16)
    np.testing.assert_array_equal(flags.add_to(empty, rows, height), mask[rows])
    np.testing.assert_array_equal(flags.add_to(np.zeros_like(mask)), mask)
    np.testing.assert_array_equal(flags.at(np.arange(mask.size)), mask.ravel())


def test_flags_are_added_to_those_that_are_there():
    flags = Flags(np.array([1, 5], np.int32), np.array([2, 4], np.uint16))
    mask = np.full((2, 3), 1, np.uint16)
    np.testing.assert_array_equal(flags.add_to(mask), [[1, 3, 1], [1, 1, 5]])
    assert flags.at(np.array([0, 5, 5])).tolist() == [0, 4, 4]
    assert Flags.of(np.zeros((2, 3), np.uint16)).at(np.array([4])).tolist() == [0]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 64, 65])
def test_few_true_values_are_found(size):
    where = np.random.default_rng(size).random(size) < 0.2
    np.testing.assert_array_equal(few_true(where), np.flatnonzero(where))
