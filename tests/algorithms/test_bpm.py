from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.bpm import bad_pixels
from niripipe.errors import DataError


def _row(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_limits_of_the_flat_are_good() -> None:
    flat = _row(0.8, 1.25, 0.7999, 1.2501, np.nan, np.inf)
    assert bad_pixels(flat, np.zeros_like(flat))[0].tolist() == [0, 0, 1, 1, 1, 1]


def test_limits_of_the_dark_are_good() -> None:
    dark = _row(1300, -20, 1300.1, -20.1, np.nan)
    result = bad_pixels(np.ones_like(dark), dark)
    assert result[0].tolist() == [0, 0, 1, 1, 1]
    assert result.dtype == np.uint16


def test_no_limit_is_no_limit() -> None:
    flat, dark = _row(0.1, 9, 1, 1), _row(0, 0, -1e6, 1e6)
    everything = bad_pixels(flat, dark, flat_limits=(None, None), dark_limits=(None, None))
    assert not everything.any()
    upper = bad_pixels(flat, dark, flat_limits=(None, 2), dark_limits=(None, 10))
    assert upper[0].tolist() == [0, 1, 0, 1]


def test_unilluminated_pixels_can_be_kept_apart() -> None:
    flat, mask = _row(1, 0.1, 0.1), np.array([[64, 64, 2]], np.uint16)
    assert bad_pixels(flat, np.zeros_like(flat), flat_mask=mask)[0].tolist() == [64, 64, 1]


def test_unusable_input_is_refused() -> None:
    with pytest.raises(DataError, match="dark"):
        bad_pixels(_row(1), _row(1, 2))
