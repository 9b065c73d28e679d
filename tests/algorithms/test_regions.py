from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from niripipe.algorithms import regions
from niripipe.algorithms.regions import connected


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0.0, 1.0), corners=st.booleans(), sparse=st.booleans())
def test_regions_are_those_of_an_image_library(
    seed: int, density: float, corners: bool, sparse: bool
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.random(rng.integers(1, 30, 2)) < density
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regions, "_SPARSE", 10**9 if sparse else 0)
        found = connected(*np.nonzero(image), image.shape, corners=corners)
    labels, number = ndimage.label(image, np.ones((3, 3)) if corners else None)
    expected = labels[image] - 1
    assert found.shape == expected.shape
    assert set(found.tolist()) == set(range(number))
    # Every region of one is exactly one region of the other.
    assert len(set(zip(found.tolist(), expected.tolist(), strict=True))) == number


def test_a_winding_region_is_one() -> None:
    image = np.zeros((21, 21), bool)
    image[::2] = True
    image[1::4, -1] = image[3::4, 0] = True
    rows, columns = np.nonzero(image)
    assert not connected(rows, columns, image.shape, corners=False).any()
