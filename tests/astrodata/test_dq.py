from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from niripipe.astrodata import DQ, FAIL, NOT_SIGNAL


def test_bits_have_the_values_of_the_reference() -> None:
    names = ["bad_pixel", "non_linear", "saturated", "cosmic_ray", "no_data", "overlap", "unilluminated"]
    assert [DQ[name] for name in names] == [1, 2, 4, 8, 16, 32, 64]
    assert FAIL == 29
    assert NOT_SIGNAL == 65529


def test_the_algorithms_use_the_same_bits() -> None:
    if importlib.util.find_spec("niripipe.algorithms.bits") is None:
        pytest.skip("the algorithms are not there yet")
    from niripipe.algorithms import bits

    assert (bits.BAD, bits.NON_LINEAR, bits.SATURATED, bits.COSMIC_RAY) == (1, 2, 4, 8)
    for name, value in (
        ("BAD", DQ.bad_pixel),
        ("NON_LINEAR", DQ.non_linear),
        ("SATURATED", DQ.saturated),
        ("COSMIC_RAY", DQ.cosmic_ray),
        ("NO_DATA", DQ.no_data),
        ("OVERLAP", DQ.overlap),
        ("UNILLUMINATED", DQ.unilluminated),
        ("FAIL", DQ.fail),
        ("NOT_SIGNAL", DQ.not_signal),
    ):
        assert getattr(bits, name) == value


def test_flags_go_with_masks_as_they_are():
    mask = np.zeros(4, np.uint16)
    mask[1:] |= DQ.no_data
    mask |= DQ.bad_pixel
    assert mask.tolist() == [1, 17, 17, 17]
    assert (mask & DQ.fail).dtype == np.uint16
    assert (DQ.no_data & mask).dtype == np.uint16
    assert DQ.no_data | DQ.bad_pixel == 17
