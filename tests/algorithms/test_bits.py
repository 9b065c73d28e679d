from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms import bits


def test_bits_are_distinct_powers_of_two() -> None:
    single = [
        bits.BAD,
        bits.NON_LINEAR,
        bits.SATURATED,
        bits.COSMIC_RAY,
        bits.NO_DATA,
        bits.OVERLAP,
        bits.UNILLUMINATED,
    ]
    assert single == [1, 2, 4, 8, 16, 32, 64]


def test_combinations_have_the_documented_values() -> None:
    assert bits.FAIL == 29
    assert bits.NOT_SIGNAL == 65529


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        (np.array([False, True]), [0, 1]),
        (np.array([0, 3, 64], np.uint8), [0, 3, 64]),
        (np.array([0, 4, -1, -32768], np.int16), [0, 4, 1, 1]),
        (np.array([0, 65535, 65536, -2], np.int32), [0, 65535, 1, 1]),
        (np.array([0, 16, 0.5, np.nan, np.inf, -0.1, 1e9], np.float32), [0, 16, 1, 1, 1, 1, 1]),
    ],
)
def test_masks_of_any_software_become_flags(values, flags):
    found = bits.as_flags(values)
    assert found.dtype == np.uint16
    assert found.tolist() == flags
