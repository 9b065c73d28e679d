from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.noise import smoothed_level, variance
from niripipe.errors import DataError, ParameterError


def _plane(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_electrons_give_counts_plus_the_square_of_the_read_noise() -> None:
    assert variance(_plane(0, 100, -40), gain=1.0, read_noise=35.0)[0].tolist() == [1225, 1325, 1225]


def test_adu_are_divided_by_the_gain() -> None:
    result = variance(_plane(0, 123), gain=12.3, read_noise=35.0)
    assert result[0] == pytest.approx([(35 / 12.3) ** 2, (35 / 12.3) ** 2 + 10], rel=1e-6)
    assert result.dtype == np.float32


def test_components_can_be_added_one_by_one() -> None:
    data = _plane(0, 50, 1e5)
    both = variance(data, gain=1.0, read_noise=35.0)
    first = variance(data, gain=1.0, read_noise=35.0, poisson=False)
    assert first[0].tolist() == [1225] * 3
    second = variance(data, gain=1.0, existing=first, out=first)
    assert second is first
    assert (second == both).all()


def test_the_expected_level_takes_the_place_of_the_own_counts() -> None:
    result = variance(_plane(90, 110), gain=1.0, level=_plane(100, 100))
    assert result[0].tolist() == [100, 100]


def test_weights_from_the_smoothed_level_do_not_bias_the_mean() -> None:
    truth = 50.0
    counts = np.random.default_rng(5).poisson(truth, (40, 100, 100)).astype(np.float32)
    own = np.stack([variance(frame, gain=1.0, read_noise=1.0) for frame in counts])
    level = np.stack([variance(f, gain=1.0, read_noise=1.0, level=smoothed_level(f)) for f in counts])

    def weighted(v: np.ndarray) -> float:
        return float(((counts / v).sum(axis=0) / (1 / v).sum(axis=0)).mean())

    assert weighted(own) - truth < -0.8
    assert abs(weighted(level) - truth) < 0.2


def test_the_smoothed_level_is_the_median_of_the_surroundings() -> None:
    data = np.random.default_rng(1).normal(100, 10, (60, 50)).astype(np.float32)
    padded = np.pad(data, 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    expected = np.median(windows.reshape(60, 50, 9), axis=2)
    assert (smoothed_level(data) == expected).all()
    assert (smoothed_level(data, threads=2) == expected).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_the_result(threads: int) -> None:
    data = np.random.default_rng(2).normal(100, 50, (301, 997)).astype(np.float32)
    expected = np.maximum(data, 0) + np.float32(1225)
    assert (variance(data, gain=1.0, read_noise=35.0, threads=threads) == expected).all()


def test_unusable_input_is_refused() -> None:
    with pytest.raises(ParameterError, match="gain"):
        variance(_plane(1), gain=0.0)
    with pytest.raises(ParameterError, match="read_noise"):
        variance(_plane(1), gain=1.0, read_noise=-1.0)
    with pytest.raises(DataError, match="level"):
        variance(_plane(1), gain=1.0, level=_plane(1, 2))
