from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.noise import variance


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
    second = variance(data, gain=1.0, existing=first)
    assert (second == both).all()


def test_read_noise_alone_is_the_same_everywhere_and_unknown_counts_stay_unknown() -> None:
    data = np.random.default_rng(2).normal(100, 50, (301, 997)).astype(np.float32)
    expected = np.maximum(data, 0) + np.float32(1225)
    assert (variance(data, gain=1.0, read_noise=35.0) == expected).all()
    assert np.isnan(variance(_plane(np.nan), gain=1.0)).all()
    assert variance(_plane(np.nan), gain=1.0, read_noise=2.0, poisson=False)[0].tolist() == [4]
