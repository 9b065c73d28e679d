from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from niripipe.algorithms.morphology import dilate, disc
from niripipe.errors import ParameterError


def test_small_discs_have_the_documented_shapes() -> None:
    assert disc(0.9).tolist() == [[True]]
    assert disc(1).astype(int).tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    assert disc(1.5).all()
    assert disc(1.5).shape == (3, 3)
    assert disc(2).sum() == 13


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 25), st.integers(1, 25)),
    radius=st.floats(0, 12),
    density=st.floats(0, 0.2),
)
def test_dilation_is_that_of_scipy(seed: int, shape: tuple[int, int], radius: float, density: float) -> None:
    mask = np.random.default_rng(seed).random(shape) < density
    expected = ndimage.binary_dilation(mask, disc(radius)) if mask.any() else mask
    assert (dilate(mask, radius) == expected).all()


def test_any_number_but_zero_is_set_and_the_input_stays() -> None:
    mask = np.zeros((5, 5), np.uint16)
    mask[2, 2] = 64
    before = mask.copy()
    out = np.ones((5, 5), bool)
    assert dilate(mask, 1, out=out) is out
    assert out.sum() == 5
    assert (mask == before).all()


@pytest.mark.parametrize("radius", [-1, np.nan, np.inf])
def test_an_impossible_radius_is_refused(radius: float) -> None:
    with pytest.raises(ParameterError, match="radius"):
        dilate(np.zeros((3, 3), bool), radius)
    with pytest.raises(ParameterError, match="radius"):
        disc(radius)
