from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms import flat
from niripipe.errors import AlgorithmError


def _flat(seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(5000, 100, (40, 50)).astype(np.float32)


def test_the_level_is_the_median_of_unflagged_pixels() -> None:
    data = _flat()
    mask = np.zeros(data.shape, np.uint16)
    data[:20], mask[:20] = 1e6, 2
    assert flat.level(data, mask) == np.median(data[20:])
    assert flat.level(data, mask, statistic="mean") == pytest.approx(data[20:].mean(dtype=float), rel=1e-6)
    assert flat.level(data) != np.median(data[20:])


def test_one_pixel_that_is_not_a_number_does_not_spoil_the_level() -> None:
    data = _flat()
    expected = flat.level(data)
    data[3, 4] = np.nan
    assert flat.level(data) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("value", "before", "result", "after"),
    [
        (0.0099, 0, 1.0, 64),
        (0.01, 0, np.float32(0.01), 0),
        (10.0, 0, 10.0, 0),
        (10.01, 0, 1.0, 64),
        (-5.0, 1, 1.0, 1),
        (20.0, 1, 20.0, 1),
        (0.7, 64, 1.0, 64),
        (np.nan, 0, 1.0, 64),
        (np.inf, 0, 1.0, 64),
        (np.nan, 1, 1.0, 1),
    ],
)
def test_limits_flag_and_replace(value: float, before: int, result: float, after: int) -> None:
    data = np.array([[value, 0.9]], np.float32)
    mask = np.array([[before, 0]], np.uint16)
    limited = flat.threshold(data, mask)
    assert limited.data[0, 0] == result
    assert limited.mask[0, 0] == after
    assert limited.data[0, 1] == np.float32(0.9)
    assert limited.mask[0, 1] == 0
    assert mask[0, 0] == before


def test_a_mask_is_made_if_there_is_none_and_the_input_stays() -> None:
    data = np.array([[20.0, 1.0]], np.float32)
    limited = flat.threshold(data)
    assert limited.mask.tolist() == [[64, 0]]
    assert limited.data.tolist() == [[1.0, 1.0]]
    assert data.tolist() == [[20.0, 1.0]]


def test_flats_without_light_are_refused_with_the_figures() -> None:
    with pytest.raises(AlgorithmError, match="no usable pixel"):
        flat.level(_flat(), np.ones((40, 50), np.uint16))
    with pytest.raises(AlgorithmError, match=r"-5\d\d\d"):
        flat.level(-_flat())
