"""Columns of catalogues: names, values that stand for missing ones, epochs."""

import numpy as np
import pytest
from astropy.table import MaskedColumn, QTable, Table
from astropy.time import Time

from niripipe.astrodata import catalogue_columns as columns
from niripipe.errors import DataError


@pytest.mark.parametrize("name", ["Hmag", "hmag", "H_MAG", "h_m", "H", "mag_H", " Hmag "])
def test_a_magnitude_is_found_by_any_of_its_names(name):
    assert columns.find_column(["RA", name, "e_Hmag"], columns.magnitude_names("H")) == name


@pytest.mark.parametrize("name", ["e_Hmag", "hmag_err", "H_ERROR", "h_cmsig", "e_H", "Hmag_Err", "magerr_h"])
def test_an_error_is_found_by_any_of_its_names(name):
    assert columns.find_column(["RA", "Hmag", name], columns.error_names("H")) == name


def test_the_position_on_a_detector_is_no_magnitude():
    assert columns.find_column(["x", "y"], columns.magnitude_names("Y", bare=False)) is None
    assert columns.find_column(["x", "y_err"], columns.error_names("Y", bare=False)) is None


def test_values_that_stand_for_missing_ones():
    magnitudes = np.array([12.5, -1.4, 99.999, 99.0, 88.888, -999.0, -99.9, np.nan])
    np.testing.assert_array_equal(columns.known_magnitudes(magnitudes), [12.5, -1.4] + [np.nan] * 6)
    errors = np.array([0.0, 0.02, -1.0, 99.999, 9.99, -999.0])
    np.testing.assert_array_equal(columns.known_errors(errors), [0.0, 0.02] + [np.nan] * 4)
    motions = np.array([-1200.0, 10358.0, -999.0, 9999.0, 99999.0])
    np.testing.assert_array_equal(columns.known_motions(motions), [-1200.0, 10358.0] + [np.nan] * 3)


@pytest.mark.parametrize(
    "column",
    [
        MaskedColumn([12.0, 1.0], mask=[False, True]),
        MaskedColumn(["12.0", "x"], mask=[False, True]),
        ["12.0", "--"],
        ["12", ""],
        [b"12.0", b"null"],
        [12.0, np.inf],
        np.array([12.0, None], object),
        np.float32([12.0, np.nan]),
    ],
)
def test_numbers_of_any_type_with_nan_for_what_is_missing(column):
    numbers = columns.column_numbers(Table({"m": column}), "m")
    assert numbers.dtype == np.float64
    np.testing.assert_array_equal(numbers, [12.0, np.nan])


@pytest.mark.parametrize("column", [["bright", "faint"], [[1.0, 2.0], [3.0, 4.0]]])
def test_what_are_no_numbers_is_refused_by_the_name_of_the_column(column):
    with pytest.raises(DataError, match=r"item: m;"):
        columns.column_numbers(Table({"m": column}), "m")


def test_angles_follow_their_unit():
    import astropy.units as u

    assert columns.angles(QTable({"RA": [2.0] * u.hourangle}), "RA") == pytest.approx([30.0])
    assert columns.angles(Table({"RA": [30.0]}), "RA") == [30.0]
    texts = Table({"RA": ["02 00 00", "2h00m00s", "30.0", ""], "DE": ["-00:30:00", "-0d30m", "-0.5", "--"]})
    np.testing.assert_allclose(columns.angles(texts, "RA", hours=True), [30.0, 30.0, 30.0, np.nan])
    np.testing.assert_allclose(columns.angles(texts, "DE"), [-0.5, -0.5, -0.5, np.nan])


@pytest.mark.parametrize(
    ("value", "year"),
    [
        (2015.5, 2015.5),
        (np.float32(2000), 2000.0),
        ("2015.5", 2015.5),
        ("J2000.0", 2000.0),
        ("j2000", 2000.0),
        ("B1950.0", 1949.99979),
        ("2015-07-02", 2015.5),
        (Time(2015.5, format="jyear"), 2015.5),
        (None, None),
        ("", None),
    ],
)
def test_epochs_of_many_forms(value, year):
    found = columns.julian_year(value)
    assert found == (None if year is None else pytest.approx(year, abs=0.003))


@pytest.mark.parametrize("value", ["equinox", "J20x0", 2451545.0, float("nan")])
def test_an_epoch_that_cannot_be_read_is_named(value):
    with pytest.raises(DataError, match="EPOCH"):
        columns.julian_year(value)
