"""The table of standards, and which of them a frame shows."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table
from astropy.time import Time

from niripipe import photometry
from niripipe.errors import DataError, InputError, ParameterError
from niripipe.photometry.standards import as_standards, joined, shipped


def test_the_shipped_table_has_units_positions_and_sources():
    table = photometry.standards()
    assert isinstance(table, QTable)
    assert len(table) == 147
    row = table[list(table["name"]).index("FS 17")]
    expected = SkyCoord("08 51 19.31", "+11 52 10.4", unit=("hourangle", "deg"))
    assert SkyCoord(row["ra"], row["dec"]).separation(expected) < 1 * u.mas
    assert row["H"] == 12.363 * u.mag
    assert row["H_error"] == 0.010 * u.mag
    assert np.isnan(row["Lprime"])
    assert "Leggett et al. 2006" in table.meta["source"]
    assert {"FS 116", "FS 144", "FS 32"} == set(table["name"][table["may_vary"]])


def test_no_position_south_of_the_equator_lost_its_sign():
    stars = {star.label: star for star in shipped()}
    assert stars["FS 14"].dec == pytest.approx(-(0 + 33 / 60 + 4.1 / 3600), abs=1e-4)
    assert sum(star.dec < 0 for star in shipped()) > 30


@pytest.mark.parametrize(
    "columns",
    [
        {"Name": ["A"], "RAJ2000": [10.0], "DEJ2000": [-5.0], "Jmag": [12.0], "e_Jmag": [0.01]},
        {"star": ["A"], "ra": ["00 40 00"], "dec": ["-05:00:00"], "J": [12.0], "J_err": [0.01]},
        {
            "ID": ["A"],
            "RA_ICRS": [10.0],
            "DE_ICRS": [-5.0],
            "j_m": [12.0],
            "j_cmsig": [0.01],
            "Kmag": [99.999],
        },
    ],
)
def test_many_spellings_of_columns_are_understood(columns):
    (star,) = as_standards(Table(columns))
    assert (star.name, star.ra, star.dec) == ("A", pytest.approx(10.0), pytest.approx(-5.0))
    assert star.magnitudes == {"J": (12.0, 0.01)}


@pytest.mark.parametrize(
    "table",
    [
        QTable({"name": ["A"], "ra": [150.0] * u.arcmin, "dec": [-300.0] * u.arcmin, "J": [12.0] * u.mag}),
        Table({"Name": [b"A"], "RA (J2000)": ["00h10m00s"], "Dec (J2000)": ["-5d00m"], "J mag": [12.0]}),
        Table({"star": ["A"], "where": SkyCoord([2.5], [-5.0], unit="deg"), "J": [12.0]}),
    ],
)
def test_units_signs_and_coordinates_are_understood(table, caplog):
    (star,) = as_standards(table)
    assert (star.name, star.ra, star.dec) == ("A", pytest.approx(2.5), pytest.approx(-5.0))
    assert star.magnitudes == {"J": (12.0, 0.02)}
    assert "has no errors of J: 0.02 mag is assumed" in caplog.text


def test_motions_have_units_and_positions_an_epoch():
    table = QTable(
        {
            "name": ["A"], "ra": [10.0] * u.deg, "dec": [60.0] * u.deg, "ref_epoch": [2016.0] * u.yr,
            "pm_ra": [1.0] * u.arcsec / u.yr, "pm_dec": [-2.0] * u.arcsec / u.yr, "J": [12.0] * u.mag,
        }
    )  # fmt: skip
    (star,) = as_standards(table)
    assert (star.pm_ra, star.pm_dec) == (pytest.approx(1000), pytest.approx(-2000))
    ra, dec, _ = star.position(datetime(2016, 1, 1, 12))
    assert (ra, dec) == (pytest.approx(10.0, abs=1e-5), pytest.approx(60.0, abs=1e-6))


@pytest.mark.parametrize(("ra", "dec"), [(10.0, 95.0), (np.nan, 5.0), (10.0, "north"), (4000.0, 5.0)])
def test_a_position_that_is_none_is_refused_with_the_name_of_the_star(ra, dec):
    with pytest.raises(DataError, match=r"cannot be read.* of B"):
        as_standards(Table({"name": ["B"], "ra": [ra], "dec": [dec], "J": [12.0]}))


def test_stars_without_name_or_magnitude_are_said(caplog):
    table = Table({"ra": [10.0, 11.0], "dec": [5.0, 6.0], "J": [12.0, 99.9], "J_err": [0.01, 9.99]})
    named, _ = as_standards(table)
    assert named.label == "star at 10.0000 +5.0000"
    assert "has no magnitude of star at 11.0000 +6.0000" in caplog.text


def test_own_standards_alone_need_a_table():
    with pytest.raises(ParameterError, match="no table"):
        photometry.standards(replace_shipped=True)


def test_a_table_of_the_users_own_joins_in_or_replaces(tmp_path):
    own = Table(
        {"name": ["fs-017", "Mine"], "ra": [132.83046, 10.0], "dec": [11.86956, 5.0], "H": [12.0, 13.0]}
    )
    own.write(tmp_path / "own.csv")
    together = {star.label: star for star in joined(tmp_path / "own.csv")}
    assert "FS 17" not in together
    assert together["fs-017"].magnitudes["H"] == (12.0, 0.02)
    assert len(together) == 148
    assert len(photometry.standards(own, replace_shipped=True)) == 2


def test_a_table_that_is_no_table_of_standards_is_refused(tmp_path):
    with pytest.raises(InputError, match="it is not there"):
        photometry.standards(tmp_path / "none.csv")
    with pytest.raises(DataError, match="no positions"):
        photometry.standards(Table({"name": ["A"], "J": [1.0]}))
    with pytest.raises(DataError, match="no magnitudes"):
        photometry.standards(Table({"ra": [1.0], "dec": [2.0]}))
    with pytest.raises(DataError, match="cannot be read"):
        photometry.standards(Table({"ra": ["here"], "dec": [2.0], "J": [1.0]}))
    with pytest.raises(DataError, match="no row"):
        photometry.standards(Table({"ra": [], "dec": [], "J": []}))
    with pytest.raises(DataError, match="is no table"):
        photometry.standards({"ra": [1.0]})


@pytest.mark.parametrize(
    "name", ["FS 17", "FS17", "fs-17", "FS 17 (M67)", "M67-IV-27", "FS_017", "std FS 17, H"]
)
def test_names_are_free_text(name):
    found = photometry.recognise(shipped(), 132.8300, 11.8700, name=name)
    assert found.standard is not None
    assert found.standard.label == "FS 17"
    assert "and name" in found.reason


def test_the_position_decides_where_the_name_is_wrong():
    found = photometry.recognise(shipped(), 132.8300, 11.8700, name="SN2014J")
    assert found.standard is not None
    assert found.standard.label == "FS 17"
    assert "SN2014J" in found.reason
    assert not found.doubt


def test_another_standard_in_the_header_is_a_doubt():
    found = photometry.recognise(shipped(), 132.8300, 11.8700, name="FS 11")
    assert found.standard is not None
    assert found.standard.label == "FS 17"
    assert "points to FS 17, but FS 11, which the header names, is" in found.doubt


def test_of_two_candidates_the_name_decides_or_none():
    # FS 14 and RU149D are 22 arcsec apart.
    named = photometry.recognise(shipped(), 111.062, -0.549, name="RU149D")
    assert named.standard is not None
    assert named.standard.label == "RU149D"
    unclear = photometry.recognise(shipped(), 111.062, -0.549, name="standard")
    assert unclear.standard is None
    assert len(unclear.candidates) == 2
    assert "FS 14" in unclear.reason
    assert "RU149D" in unclear.reason
    at_one = photometry.recognise(shipped(), 111.0600, -0.5511, name=None)
    assert at_one.standard is not None
    assert at_one.standard.label == "FS 14"


def test_a_field_without_standard_says_where_the_named_one_is():
    found = photometry.recognise(shipped(), 148.93, 69.67, name="FS 17")
    assert found.standard is None
    assert "FS 17" in found.reason


def test_stars_move():
    table = Table(
        {"name": ["A"], "ra": [10.0], "dec": [60.0], "J": [12.0], "pmRA": [1000.0], "pmDE": [-2000.0]}
    )
    (star,) = as_standards(table)
    when = datetime(2020, 1, 1, 12)
    ra, dec, doubt = star.position(when)
    expected = SkyCoord(
        10 * u.deg, 60 * u.deg, pm_ra_cosdec=1 * u.arcsec / u.yr, pm_dec=-2 * u.arcsec / u.yr,
        obstime=Time("J2000"), distance=10 * u.pc,
    ).apply_space_motion(new_obstime=Time("J2020"))  # fmt: skip
    assert SkyCoord(ra * u.deg, dec * u.deg).separation(expected) < 20 * u.mas
    assert doubt == 0
    unknown = shipped()[0].position(when)
    assert unknown[2] == pytest.approx(10, abs=0.02)


@pytest.mark.parametrize(
    ("name", "band", "error"),
    [
        ("J", "J", 0),
        ("K(short)", "K", 0.02),
        ("K(prime)", "K", 0.03),
        ("FeII", "H", 0.05),
        ("Br(gamma)", "K", 0.05),
    ],
)
def test_filters_take_the_magnitude_of_their_band(name, band, error):
    assert photometry.standard_band(name) == photometry.StandardBand(band, error)


def test_a_filter_far_from_all_bands_has_no_standard_magnitude():
    assert photometry.standard_band("H2O ice") is None
    assert photometry.standard_band(None) is None
    assert photometry.extinction("H2O ice") is None
    assert photometry.ab_offset("H2O ice") is None


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("Y", 0.64), ("J", 0.941), ("H", 1.38), ("K(prime)", 1.84), ("K(short)", 1.86), ("K", 1.90),
        ("L(prime)", 2.93), ("M(prime)", 3.40),
    ],
)  # fmt: skip
def test_the_step_to_ab_agrees_with_another_source(name, published):
    # Gemini's table of Tokunaga & Vacca 2005; the package follows Hewett et al. 2006 in Y, J, H and K.
    assert photometry.ab_offset(name) == pytest.approx(published, abs=0.007)


def test_extinction_is_the_mean_with_a_quarter_of_its_range():
    found = photometry.extinction("H")
    assert found is not None
    assert (found.value, found.error) == (0.03, pytest.approx(0.03))
