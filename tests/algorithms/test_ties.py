"""Positions of frames from ties between pairs, against ties that are made from known positions."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.ties import Tie, place_frames


def ties_of(true, pairs, error=0.02, noise=None, centres=None, turn=None):
    """Ties between frames that have to be moved by `true` (and turned about their centres)."""
    made = []
    for k, (i, j) in enumerate(pairs):
        at, shift, turned = 0j, true[i] - true[j], 0j
        if centres is not None:
            at = (centres[i] + centres[j]) / 2
            shift += turn[i] * (at - centres[i]) - turn[j] * (at - centres[j])
            turned = turn[i] - turn[j]
        made.append(Tie(i, j, shift + (0 if noise is None else noise[k]), at, error, turned))
    return made


def test_a_chain_is_followed_from_the_reference_to_its_end():
    true = np.array([0, 1 + 2j, -3j, 4, 2 - 1j])
    placed = place_frames(ties_of(true, [(0, 1), (2, 1), (2, 3), (4, 3)]), np.zeros(5, complex), 0)
    assert placed.reached.all()
    np.testing.assert_allclose(placed.shift, true, atol=1e-12)
    # Errors add along the chain.
    step = np.hypot(0.02, 0.02)
    np.testing.assert_allclose(placed.error, step * np.sqrt(np.arange(5)))
    assert placed.number.tolist() == [1, 2, 2, 2, 1]


def test_frames_without_ties_are_not_reached():
    placed = place_frames(ties_of(np.zeros(5), [(1, 2), (3, 4)]), np.zeros(5, complex), 2)
    assert placed.reached.tolist() == [False, True, True, False, False]
    assert place_frames([], np.zeros(3, complex), 1).reached.tolist() == [False, True, False]


def test_all_pairs_give_the_weighted_least_squares_solution():
    rng = np.random.default_rng(2)
    true = rng.normal(size=4) + 1j * rng.normal(size=4)
    pairs = [(1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2)]
    noise = rng.normal(0, 0.05, 6) + 1j * rng.normal(0, 0.05, 6)
    errors = np.array([0.03, 0.05, 0.2, 0.04, 0.1, 0.06])
    made = [
        Tie(i, j, complex(true[i] - true[j] + noise[k]), 0j, float(errors[k]))
        for k, (i, j) in enumerate(pairs)
    ]
    placed = place_frames(made, np.zeros(4, complex), 0)
    # The same by numpy's general solver, for x and y.
    design = np.zeros((6, 3))
    for k, (i, j) in enumerate(pairs):
        design[k, i - 1] = 1
        if j:
            design[k, j - 1] = -1
    root = 1 / np.hypot(errors, 0.02)
    shifts = np.array([tie.shift for tie in made])
    expected = np.linalg.lstsq(
        design * root[:, None], np.stack([shifts.real, shifts.imag], 1) * root[:, None]
    )[0]
    np.testing.assert_allclose(placed.shift[1:], expected[:, 0] + 1j * expected[:, 1])
    assert not placed.refused


def test_a_tie_of_the_wrong_stars_is_left_out():
    true = np.array([0, 5, 10, 15 + 1j])
    made = ties_of(true, [(1, 0), (2, 1), (3, 2), (2, 0), (3, 1)])
    made.append(Tie(3, 0, true[3] + 8, 0j, 0.01))
    placed = place_frames(made, np.zeros(4, complex), 0)
    assert placed.refused == (5,)
    np.testing.assert_allclose(placed.shift, true, atol=1e-9)


def test_frames_that_are_turned_are_moved_at_their_centres():
    centres = np.array([0, 100, 200 + 30j])
    turn = np.array([0, 0.001j, 0.002j + 0.0005])
    true = np.array([0, 3 - 1j, 2j])
    made = ties_of(true, [(1, 0), (2, 1)], centres=centres, turn=turn)
    placed = place_frames(made, centres, 0)
    np.testing.assert_allclose(placed.turn, turn, atol=1e-12)
    np.testing.assert_allclose(placed.shift, true, atol=1e-9)


@pytest.mark.parametrize("redundant", [False, True])
def test_errors_are_those_that_simulations_have(redundant):
    pairs = [(k + 1, k) for k in range(9)] + ([(k + 2, k) for k in range(8)] if redundant else [])
    rng = np.random.default_rng(5)
    sigma = np.hypot(0.05, 0.02)
    last, errors = [], []
    for _ in range(400):
        noise = rng.normal(0, sigma, len(pairs)) + 1j * rng.normal(0, sigma, len(pairs))
        placed = place_frames(ties_of(np.zeros(10), pairs, error=0.05, noise=noise), np.zeros(10, complex), 0)
        last.append(placed.shift[9].real)
        errors.append(placed.error[9])
    assert np.std(last) == pytest.approx(np.median(errors), rel=0.12)
