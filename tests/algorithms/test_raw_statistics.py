"""Level, noise and usable pixels of raw frames, and levels that do not belong to the others."""

import numpy as np
import pytest

from niripipe.algorithms.raw_statistics import raw_statistics, share_flagged, unlike


def test_level_and_noise_are_those_of_the_detector_in_spite_of_slopes_and_hot_pixels():
    data = np.random.default_rng(1).normal(100, 7, (256, 256)).astype(np.float32)
    data += np.linspace(-40, 40, 256, dtype=np.float32)
    data.flat[::50] = 60000
    found = raw_statistics(data, saturation=50000)
    assert found.level == pytest.approx(100, rel=0.01)
    assert found.noise == pytest.approx(7, rel=0.06)
    assert found.saturated == pytest.approx(0.02, rel=0.01)
    assert (found.finite, found.constant) == (1.0, False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_counted_and_do_not_count(value):
    data = np.random.default_rng(1).normal(100, 7, (64, 64)).astype(np.float32)
    data[:16] = value
    found = raw_statistics(data)
    assert found.finite == 0.75
    assert found.level == pytest.approx(100, rel=0.01)
    assert found.noise == pytest.approx(7, rel=0.1)
    nothing = raw_statistics(np.full((64, 64), value, np.float32))
    assert nothing.finite == 0
    assert np.isnan([nothing.level, nothing.noise]).all()


def test_a_constant_frame_with_a_few_other_pixels_is_constant():
    data = np.zeros((64, 64), np.float32)
    data.flat[::30] = 1000
    assert raw_statistics(data).constant


def test_a_level_is_odd_beyond_tolerance_share_and_scatter_alone():
    assert unlike([10.0, 11.0, 300.0], tolerance=100, share=0.5) == [False, False, True]
    assert not any(unlike([10.0, 11.0, 90.0], tolerance=100, share=0.5))
    assert not any(unlike([1000.0, 1010.0, 1400.0], tolerance=100, share=0.5))
    assert not any(unlike([0.0, 60.0, -60.0, 200.0], tolerance=100, share=0.5))
    assert not any(unlike([0.0, 1e6], tolerance=100, share=0.5))


def test_anything_but_zero_is_flagged():
    assert share_flagged(np.array([0, 1, -1, np.nan])) == 0.75
