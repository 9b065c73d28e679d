from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.bpm import bad_pixels, readout_pattern
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


# -- the pattern of the read-out


def _dark(seed: int = 5, noise: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """A short dark without pattern, with hot and cold pixels, and where these are."""
    rng = np.random.default_rng(seed)
    dark = rng.normal(15.0, noise, (256, 256))
    defects = rng.random(dark.shape) < 0.004
    dark[defects] = np.where(rng.random(defects.sum()) < 0.8, 5000.0, -300.0)
    return dark, defects


def _bad(dark: np.ndarray, *, clean: bool) -> np.ndarray:
    dark = dark.astype(np.float32)
    pattern = readout_pattern(dark) if clean else np.float32(0)
    return bad_pixels(np.ones_like(dark), dark - pattern) != 0


@pytest.mark.parametrize("along", ["columns", "rows", "both"])
def test_a_pattern_of_tens_of_electrons_makes_no_bad_pixels_and_hides_none(along: str) -> None:
    dark, defects = _dark()
    rng = np.random.default_rng(7)
    if along != "rows":
        # Its own in the lower and in the upper half, each read by other amplifiers.
        dark += np.repeat(rng.uniform(-70, 70, (2, 256)), 128, axis=0)
    if along != "columns":
        dark += np.repeat(rng.uniform(-40, 40, (256, 2)), 128, axis=1)
    # Without the correction good columns are bad.
    assert np.count_nonzero(_bad(dark, clean=False) & ~defects) > 3000, along
    bad = _bad(dark, clean=True)
    assert bad[defects].all()
    # Pixels at 35 electrons from the limit, 4.4 sigma: none or a few of 65000 by chance.
    assert np.count_nonzero(bad & ~defects) <= 5


def test_without_a_pattern_hardly_anything_is_changed() -> None:
    dark, _ = _dark()
    pattern = readout_pattern(dark.astype(np.float32))
    assert np.count_nonzero(pattern.any(axis=0)) <= 2
    assert abs(pattern).max() < 5


def test_a_hot_column_and_a_dead_one_stay_bad() -> None:
    dark, _ = _dark()
    dark[:, 40] = 2000.0
    dark[:, 41] = -150.0
    bad = _bad(dark, clean=True)
    assert bad[:, 40:42].all()


def test_pixels_that_are_no_numbers_stay_bad_and_do_no_harm() -> None:
    dark, _ = _dark()
    clean = readout_pattern(dark.astype(np.float32))
    dark[:, 10] = np.nan
    dark[3, 4] = np.inf
    pattern = readout_pattern(dark.astype(np.float32))
    assert np.isfinite(pattern).all()
    np.testing.assert_allclose(pattern[:, 60:], clean[:, 60:], atol=2.0)
    assert _bad(dark, clean=True)[:, 10].all()


def test_quadrants_of_a_window_meet_in_the_middle_of_the_detector() -> None:
    dark, defects = _dark()
    dark += np.where(np.arange(256)[:, None] < 100, np.random.default_rng(7).uniform(-70, 70, (1, 256)), 0)
    bad = {
        centre: bad_pixels(
            np.ones_like(dark),
            dark.astype(np.float32) - readout_pattern(dark.astype(np.float32), centre=centre),
        )
        != 0
        for centre in ((100, 128), (128, 128), (-200, 700))
    }
    assert np.count_nonzero(bad[100, 128] & ~defects) <= 5
    assert np.count_nonzero(bad[128, 128] & ~defects) > 500
    # Wholly in one quadrant: columns are those of the whole window.
    assert np.count_nonzero(bad[-200, 700] & ~defects) > 500
