"""Zero points of frames, stars and nights: made-up measurements whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.photometry.zeropoint import fit_night, mean_of_frames, zero_points_of_frames


def test_a_frame_gives_the_zero_point_by_the_definition():
    # m = ZP - 2.5 log10(N / t) - k (X - 1): 1e6 electrons in 100 s are 10 mag below one a second.
    values, errors = zero_points_of_frames(
        [1e6, -1.0], [1e6, 1.0], [100.0, 1.0], [1.5, 1.0], magnitude=15.0, extinction=0.1
    )
    assert values[0] == pytest.approx(15 + 10 + 0.05)
    assert errors[0] == pytest.approx(1.0857e-3, rel=1e-4)
    assert np.isnan(values[1])


def test_errors_of_means_are_honest():
    rng = np.random.default_rng(1)
    for extra in (0.0, 0.01):
        squares = []
        for _ in range(1500):
            found = mean_of_frames(25 + rng.normal(0, np.hypot(0.002, extra), 9), np.full(9, 0.002))
            squares.append(((found.value - 25) / found.error) ** 2)
        assert np.mean(squares) == pytest.approx(1, abs=0.15), extra


def test_a_cloud_is_an_outlier_and_scatter_is_noticed():
    values = np.array([25.001, 25.000, 24.87, 24.999, 25.002])
    found = mean_of_frames(values, np.full(5, 0.001))
    assert found.used.tolist() == [True, True, False, True, True]
    assert found.value == pytest.approx(25.0005, abs=1e-4)
    assert not found.noisy
    drifting = mean_of_frames(25 + np.array([-0.03, -0.01, 0.0, 0.012, 0.03]), np.full(5, 0.001))
    assert drifting.noisy
    assert drifting.error > 0.01
    with_missing = mean_of_frames([25.0, np.nan], [0.01, 0.01])
    assert with_missing.used.tolist() == [True, False]


def test_nights_are_fitted_without_bias_and_with_honest_errors():
    rng = np.random.default_rng(2)
    airmass = np.array([1.05, 1.3, 1.6, 2.0])
    pulls = []
    for _ in range(1000):
        extinction = rng.normal(0.05, 0.03)
        errors = rng.uniform(0.005, 0.02, 4)
        values = 26.0 - extinction * (airmass - 1) + rng.normal(0, errors)
        fit = fit_night(values, errors, airmass, extinction=0.05, extinction_error=0.03)
        at = fit.zero_point - fit.extinction * 0.5 - (26.0 - extinction * 0.5)
        pulls.append([(fit.zero_point - 26) / fit.error, at / fit.error_at(1.5)])
    assert np.mean(pulls, axis=0) == pytest.approx([0, 0], abs=0.1)
    assert np.mean(np.square(pulls), axis=0) == pytest.approx([1, 1], abs=0.15)


def test_extinction_is_fitted_only_where_the_airmass_tells_it():
    narrow = fit_night([25.0, 25.0], [0.01, 0.01], [1.0, 1.1], extinction=0.05, extinction_error=0.03)
    assert not narrow.fitted
    assert narrow.extinction == pytest.approx(0.05, abs=0.005)
    wide = fit_night([25.0, 24.85], [0.005, 0.005], [1.0, 2.5], extinction=0.05, extinction_error=0.03)
    assert wide.fitted
    assert wide.extinction == pytest.approx(0.1, abs=0.005)


def test_a_standard_that_disagrees_is_left_out():
    fit = fit_night(
        [25.0, 25.01, 24.99, 24.8, 25.0],
        [0.01] * 5,
        [1.0, 1.2, 1.4, 1.3, 1.8],
        extinction=0.0,
        extinction_error=0.02,
    )
    assert fit.used.tolist() == [True, True, True, False, True]
    assert fit.residuals[3] == pytest.approx(-0.2, abs=0.02)


def test_one_standard_keeps_the_mean_extinction():
    fit = fit_night([25.0], [0.01], [1.5], extinction=0.06, extinction_error=0.03, common_error=0.02)
    assert fit.zero_point == pytest.approx(25.03)
    # At the standard's own airmass the extinction does not matter.
    assert fit.error_at(1.5) == pytest.approx(np.hypot(0.01, 0.02), rel=1e-3)
    assert fit.error_at(1.0) == pytest.approx(np.sqrt(0.01**2 + 0.02**2 + 0.015**2), rel=1e-3)


@pytest.mark.parametrize("airmass", [[1.1, 1.3], [1.0, 2.0], [1.1, 1.2, 1.3]])
def test_standards_that_disagree_leave_the_extinction_and_have_large_errors(airmass):
    # One is wrong by 0.3 mag: which one, two or three standards cannot tell.
    values = -0.05 * (np.array(airmass) - 1) + 25.0
    values[-1] += 0.3
    fit = fit_night(values, [0.01] * len(airmass), airmass, extinction=0.05, extinction_error=0.03)
    assert fit.used.all()
    assert fit.chi_squared > 10
    assert fit.extinction == pytest.approx(0.05, abs=0.05)
    assert fit.extinction_error <= 0.03
    assert 0.05 < fit.error < 0.3
    assert abs(fit.zero_point - 25.0) < 3 * fit.error


def test_two_standards_that_agree_keep_their_errors():
    fit = fit_night([25.0, 25.015], [0.01, 0.01], [1.2, 1.2], extinction=0.05, extinction_error=0.03)
    assert fit.error == pytest.approx(np.hypot(0.01 / np.sqrt(2), 0.2 * 0.03))
