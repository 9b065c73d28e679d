"""Distortions from dithered stars, against the truth of stars made here."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.distortion_fit import (
    Observations,
    fit_distortion,
    polynomial_basis,
    radial_basis,
)

K = 1.32e-5


def seen(seed, stars=40, frames=7, k=K, *, step=150.0, bad=0, shake=0.0):
    """Stars known to 0.015 to 0.09 pixel in dithered frames; r on the detector solves r + k r**2 = r'."""
    rng = np.random.default_rng(seed)
    sky, shifts = rng.uniform(-600, 600, (stars, 2)), rng.uniform(-step, step, (frames, 2))
    error = rng.uniform(0.015, 0.09, stars)
    parts = []
    for number, shift in enumerate(shifts):
        true = sky + shift
        shrink = 2 / (1 + np.sqrt(1 + 4 * k * np.hypot(*true.T)))
        place = true * shrink[:, None]
        star = np.flatnonzero((np.abs(place) < 512).all(axis=1))
        place = place[star] + rng.normal(0, 1, (star.size, 2)) * error[star, None] + rng.normal(0, shake, 2)
        place[: bad if number == 2 else 0] += 3.0
        parts.append(np.column_stack([star, np.full(star.size, number), place, error[star]]))
    star, frame, u, v, error = np.concatenate(parts).T
    return Observations(star.astype(int), frame.astype(int), u, v, error)


def test_a_barrel_comes_out_with_its_error():
    pulls = []
    for seed in range(40):
        fit = fit_distortion(seen(seed), radial_basis)
        pulls.append((fit.values[0] - K) / fit.errors[0])
        assert fit.errors[0] < 0.05 * K
        assert fit.scatter < 1.2 < fit.scatter_without
    assert abs(np.mean(pulls)) < 0.5
    assert 0.6 < np.std(pulls) < 1.3


def test_nothing_is_found_where_there_is_nothing():
    pulls = [
        (fit := fit_distortion(seen(seed, k=0.0), radial_basis)).values[0] / fit.errors[0]
        for seed in range(100)
    ]
    assert np.abs(pulls).max() < 4.5
    assert np.std(pulls) < 1.2


def test_wrong_shifts_of_frames_cost_nothing_and_outliers_little():
    fit = fit_distortion(seen(3, shake=5.0), radial_basis)
    assert abs(fit.values[0] - K) < 4 * fit.errors[0]
    fit = fit_distortion(seen(3, bad=2), radial_basis)
    assert abs(fit.values[0] - K) < 5 * fit.errors[0]
    assert fit.observations < seen(3).star.size


def test_a_polynomial_finds_its_terms_and_no_others():
    observed = seen(5, stars=120, frames=9, k=0.0)
    basis, terms = polynomial_basis(3, 512.0)
    truth = np.zeros(len(terms))
    truth[terms.index((0, 2, 0))], truth[terms.index((1, 1, 1))], truth[terms.index((1, 0, 3))] = (
        1.5,
        -0.8,
        2.0,
    )
    # Small enough that d(p) and d(p + d) are one: p + d(p) is the true place.
    moved = np.einsum("k,kan->an", truth, basis(observed.u, observed.v))
    again = np.einsum("k,kan->an", truth, basis(observed.u - moved[0], observed.v - moved[1]))
    shown = Observations(
        observed.star, observed.frame, observed.u - again[0], observed.v - again[1], observed.error
    )
    fit = fit_distortion(shown, basis)
    assert np.abs((fit.values - truth) / fit.errors).max() < 4.5
    assert fit.errors.max() < 0.3
    assert fit.scatter == pytest.approx(0.9, abs=0.25)


def test_what_cannot_be_seen_is_not_fitted():
    assert fit_distortion(seen(1, frames=1), radial_basis) is None
    assert fit_distortion(seen(1, stars=1), radial_basis) is None
    undithered = fit_distortion(seen(1, step=0.0), radial_basis)
    # Without dithers all places are the same but for the noise.
    assert undithered is None or undithered.errors[0] > K
