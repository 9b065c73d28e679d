"""Magnitudes in NIRI's filters from those of the catalogues."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.filter_magnitudes import filter_magnitudes, system_error
from niripipe.algorithms.source_catalogue import MISSING

MAGNITUDES = {
    "jmag": np.array([15.0, 12.0, np.nan, 14.0]),
    "hmag": np.array([14.4, 11.9, 13.0, 13.5]),
    "kmag": np.array([14.2, 11.8, 12.9, 13.2]),
}
ERRORS = {name: np.full(4, 0.03) for name in MAGNITUDES}


@pytest.mark.parametrize(
    ("name", "band"), [("J", "jmag"), ("H", "hmag"), ("K(short)", "kmag"), ("Ks", "kmag")]
)
def test_filters_like_those_of_2mass_take_its_magnitudes(name, band):
    value, error = filter_magnitudes(name, MAGNITUDES, ERRORS)
    known = np.isfinite(MAGNITUDES[band])
    assert np.array_equal(value[known], MAGNITUDES[band][known])
    assert np.allclose(error[known], 0.03)
    assert (value[~known] == MISSING).all()


def test_kprime_has_a_colour_term_with_its_errors():
    value, error = filter_magnitudes("K(prime)", MAGNITUDES, ERRORS)
    assert value[0] == pytest.approx(14.2 - 0.006 + 0.149 * 0.2)
    term = np.hypot(0.2 * 0.023, 0.149 * 0.03 * np.sqrt(2))
    assert error[0] == pytest.approx(np.sqrt(0.03**2 + 0.007**2 + term**2))


def test_of_two_ways_the_one_with_the_smaller_error_is_taken_star_by_star():
    errors = ERRORS | {"hmag": np.array([0.03, 0.5, 0.03, 0.03])}
    value, error = filter_magnitudes("K", MAGNITUDES, errors)
    by_hk, by_jk = MAGNITUDES["kmag"] - 0.006 - 0.071 * 0.2, MAGNITUDES["kmag"] - 0.003 - 0.026 * 0.2
    assert value[0] == pytest.approx(by_hk[0])
    # The second star's H is uncertain, its J is not; the third has no J.
    assert value[1] == pytest.approx(by_jk[1])
    assert value[2] == pytest.approx(12.9 - 0.006 - 0.071 * 0.1)
    assert (error < 0.035).all()


def test_a_colour_of_zero_is_no_special_case():
    same = {name: np.array([12.0]) for name in MAGNITUDES}
    value, error = filter_magnitudes("K(prime)", same, {name: np.array([0.02]) for name in same})
    assert value[0] == pytest.approx(11.994)
    assert np.isfinite(error[0])


def test_an_upper_limit_gives_no_magnitude():
    errors = ERRORS | {"hmag": np.array([np.nan, 0.03, 0.03, 0.03])}
    value, error = filter_magnitudes("K(prime)", MAGNITUDES, errors)
    assert value[0] == error[0] == MISSING
    assert value[1] > 0


@pytest.mark.parametrize("name", ["Pa(beta)", "L(prime)", None])
def test_for_other_filters_there_is_no_way(name):
    assert filter_magnitudes(name, MAGNITUDES, ERRORS) is None


def test_a_catalogue_without_the_bands_gives_none():
    assert filter_magnitudes("H", {"gmag": np.ones(3)}, {"gmag": np.ones(3)}) is None


@pytest.mark.parametrize(
    ("name", "expected"), [("J", 14.9 - 0.065 * 0.6), ("H", 14.3 - 0.030 + 0.070 * 0.6), ("Y", 14.9 + 0.38)]
)
def test_2mass_is_brought_to_the_mko_system_by_the_stars_own_colour(name, expected):
    # Hodgkin et al. 2009, MNRAS 394, 675, equations 5 to 7; colours -0.1 to 1.0.
    magnitudes = {"jmag": np.array([14.9, 15.4, 13.0, np.nan]), "hmag": np.array([14.3, 14.3, 13.2, 12.0])}
    errors = {band: np.full(4, 0.02) for band in magnitudes}
    value, error = filter_magnitudes(name, magnitudes, errors, "2MASS")
    assert value[0] == pytest.approx(expected)
    assert 0.02 <= error[0] < 0.03
    # Too red, too blue, no colour.
    assert (value[1:] == MISSING).all()


@pytest.mark.parametrize(
    ("name", "added"), [("J", 0), ("H", 0), ("K", 0), ("K(short)", 0.02), ("K(prime)", 0.03)]
)
def test_ukidss_is_in_the_mko_system(name, added):
    value, error = filter_magnitudes(name, MAGNITUDES, ERRORS, "MKO")
    assert value[0] == MAGNITUDES[f"{name[0].lower()}mag"][0]
    assert error[0] == pytest.approx(np.hypot(0.03, added))


def test_2mass_without_a_column_of_the_colour_is_taken_as_it_is():
    value, _ = filter_magnitudes("H", {"hmag": np.array([14.0])}, {"hmag": np.array([0.02])}, "2MASS")
    assert value[0] == 14.0


def test_k_of_2mass_has_the_published_term_for_the_colours_of_the_standards():
    # Leggett et al. 2006, MNRAS 373, 781: K = Ks - 0.003 - 0.026 (J - Ks). The last star is too red.
    magnitudes = {"jmag": np.array([12.6, 12.0, 13.5]), "kmag": np.array([12.0, 12.1, 12.0])}
    errors = {band: np.full(3, 0.02) for band in magnitudes}
    value, _ = filter_magnitudes("K", magnitudes, errors, "2MASS")
    np.testing.assert_allclose(value, [12.0 - 0.003 - 0.0156, 12.1 - 0.003 + 0.0026, MISSING])


@pytest.mark.parametrize(("name", "colours"), [("H", 0.4), ("K", 0.6)])
def test_the_error_of_a_system_covers_other_published_terms(name, colours):
    # Dye et al. 2006, MNRAS 372, 1227 in H; Hodgkin et al. 2009, MNRAS 394, 675, equation 8 in K.
    other = {"H": -0.040 + 0.040 * colours, "K": 0.010 * colours}[name]
    red = {"H": "hmag", "K": "kmag"}[name]
    magnitudes = {"jmag": np.array([12.0 + colours]), red: np.array([12.0])}
    errors = {band: np.full(1, 0.02) for band in magnitudes}
    value, _ = filter_magnitudes(name, magnitudes, errors, "2MASS")
    assert abs(value[0] - 12.0 - other) <= system_error(name, "2MASS") + 0.003


def test_a_system_that_is_not_known_has_the_largest_error():
    assert system_error("J", "") >= 0.065 * 0.6
    assert system_error("Pa(beta)", "2MASS") == system_error("J", "")
