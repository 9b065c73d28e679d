from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.fluxscale import flux_scale, within_tolerance
from niripipe.errors import AlgorithmError


def test_the_factor_of_four_sources_is_that_of_dragons():
    errors = np.array([0.5, 0.5, 0.6, 0.7])
    factor = flux_scale(np.array([10.0, 20, 30, 40]), errors, np.array([11, 22.5, 32, 60]), errors)
    assert factor == pytest.approx(1.262619, abs=1e-6)


def test_the_factor_of_noisy_fluxes_is_unbiased_and_scatters_as_weighted_fluxes_do():
    rng = np.random.default_rng(0)
    truth = rng.uniform(100, 2000, 40)
    factors = []
    for _ in range(300):
        x, y = truth + rng.normal(0, 20, 40), 1.3 * truth + rng.normal(0, 30, 40)
        factors.append(flux_scale(x, np.full(40, 20.0), y, np.full(40, 30.0)))
    error = np.sqrt((30**2 + (1.3 * 20) ** 2) / (truth**2).sum())
    assert np.std(factors) / error == pytest.approx(1, abs=0.15)
    assert abs(np.mean(factors) - 1.3) < 0.4 * error


def test_a_variable_star_does_not_move_the_factor():
    rng = np.random.default_rng(1)
    x = rng.uniform(1000, 5000, 30)
    y = 0.9 * x
    y[np.argmax(x)] *= 3
    errors = np.full(30, 10.0)
    assert flux_scale(x, errors, y, errors) == pytest.approx(0.9, abs=1e-3)


def test_useless_sources_are_ignored_and_none_left_is_an_error():
    x = np.array([100.0, np.nan, -5, 300])
    factor = flux_scale(x, np.array([1.0, 1, 1, 0]), np.array([200.0, 1, 1, 600]), np.ones(4))
    assert factor == pytest.approx(2)
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
