from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.fluxscale import flux_scale, within_tolerance
from niripipe.errors import AlgorithmError


def test_the_factor_of_four_sources_is_that_of_dragons():
    errors = np.array([0.5, 0.5, 0.6, 0.7])
    result = flux_scale(np.array([10.0, 20, 30, 40]), errors, np.array([11, 22.5, 32, 60]), errors)
    assert result.factor == pytest.approx(1.262619, abs=1e-6)
    assert result.n_used == result.n_given == 4


def test_the_error_is_the_scatter_of_repeated_measurements():
    rng = np.random.default_rng(0)
    truth = rng.uniform(100, 2000, 40)
    pulls = []
    for _ in range(300):
        x, y = truth + rng.normal(0, 20, 40), 1.3 * truth + rng.normal(0, 30, 40)
        result = flux_scale(x, np.full(40, 20.0), y, np.full(40, 30.0))
        pulls.append((result.factor - 1.3) / result.error)
    assert np.std(pulls) == pytest.approx(1, abs=0.15)
    assert abs(np.mean(pulls)) < 0.4


def test_a_variable_star_does_not_move_the_factor():
    rng = np.random.default_rng(1)
    x = rng.uniform(1000, 5000, 30)
    y = 0.9 * x
    y[np.argmax(x)] *= 3
    errors = np.full(30, 10.0)
    result = flux_scale(x, errors, y, errors)
    assert result.factor == pytest.approx(0.9, abs=1e-3)
    assert result.n_used == 29


def test_useless_sources_are_ignored_and_none_left_is_an_error():
    x = np.array([100.0, np.nan, -5, 300])
    result = flux_scale(x, np.array([1.0, 1, 1, 0]), np.array([200.0, 1, 1, 600]), np.ones(4))
    assert result.factor == pytest.approx(2)
    assert result.n_given == 1
    with pytest.raises(AlgorithmError):
        flux_scale(x[1:3], np.ones(2), x[1:3], np.ones(2))


@pytest.mark.parametrize(
    ("factor", "expected", "tolerance", "answer"),
    [
        (1.0, 1.0, 0.0, False),
        (5.0, 1.0, 1.0, True),
        (-1.0, 1.0, 1.0, False),
        (np.nan, 1.0, 1.0, False),
        (2.1, 2.0, 0.1, True),
        (2.3, 2.0, 0.1, False),
        (1.7, 2.0, 0.1, False),
    ],
)
def test_the_tolerance_is_relative_to_the_exposure_times(factor, expected, tolerance, answer):
    assert within_tolerance(factor, expected, tolerance) is answer
