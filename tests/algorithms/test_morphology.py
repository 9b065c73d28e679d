from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from niripipe.algorithms.morphology import dilate


def disc(radius: float) -> np.ndarray:
    """Return the integer offsets within a radius as a structuring element."""
    offset = np.arange(-int(radius), int(radius) + 1)
    return offset[:, None] ** 2 + offset**2 <= radius**2


def test_a_single_pixel_grows_into_the_documented_shapes() -> None:
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    assert dilate(mask, 0.9).sum() == 1
    assert dilate(mask, 1)[1:4, 1:4].astype(int).tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    assert dilate(mask, 1.5)[1:4, 1:4].all()
    assert [dilate(mask, radius).sum() for radius in (1, 1.5, 2)] == [5, 9, 13]


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
    assert dilate(mask, 1).sum() == 5
    assert (mask == before).all()
