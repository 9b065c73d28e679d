"""Reference catalogues from servers, files and tables; a bad answer is an error of ours, in time."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import numpy as np
import pytest
from astropy import units
from astropy.table import MaskedColumn, Table

from niripipe.errors import DataError, InputError, ParameterError
from niripipe.primitives import catalogue_client
from niripipe.primitives.catalogue_client import cone_search, near, read_table, standard_table

from .catalogue_server import Answers, serving, votable


def vizier():
    return Table(
        {
            "2MASS": ["02000000+2000000", "02000010+2000010"],
            "RAJ2000": [30.0, 30.001] * units.deg,
            "DEJ2000": [20.0, 20.002] * units.deg,
            "Jmag": MaskedColumn([12.0, 15.0]),
            "e_Jmag": MaskedColumn([0.02, 0.0], mask=[False, True]),
            "Hmag": [11.5, 14.5],
            "e_Hmag": [0.02, 0.03],
        }
    )


def test_a_server_is_asked_for_a_cone_and_its_columns_come_in_one_form():
    with serving(Answers(votable(vizier()))) as server:
        table = cone_search("2mass", 30.0, -20.0, 0.033, server=server.address, max_rows=7)
    (query,) = server.queries
    assert query["-source"] == ["II/246/out"]
    assert query["-c"] == ["30.0000000 -20.0000000"]
    assert query["-c.rd"] == ["0.033000"]
    assert query["-out.max"] == ["7"]
    assert {"RAJ2000", "Jmag", "e_Jmag"} <= set(query["-out"])
    assert table.colnames[:4] == ["Id", "Cat_Id", "RAJ2000", "DEJ2000"]
    assert list(table["Id"]) == [1, 2]
    assert table["Cat_Id"][0] == "02000000+2000000"
    assert np.isnan(table["jmag_err"][1])
    assert table["hmag"].dtype == np.float64
    assert table.meta["CATALOG"] == "2mass"


def test_no_source_is_an_empty_table():
    empty = b'<?xml version="1.0"?><VOTABLE version="1.4"><RESOURCE/></VOTABLE>'
    with serving(Answers(empty)) as server:
        assert len(cone_search("2mass", 30, 20, 0.03, server=server.address)) == 0


@pytest.mark.parametrize(
    ("body", "status", "found"),
    [
        (b"<html><body>maintenance</body></html>", 200, "maintenance"),
        (b"<?xml version='1.0'?><VOTABLE><RESOURCE><TABLE><FIELD", 200, "VOTable"),
        (b"gone", 503, "503"),
        (b"", 200, "VOTable"),
    ],
)
def test_an_answer_that_is_no_table_is_refused(body, status, found):
    with (
        serving(Answers(body, status)) as server,
        pytest.raises(InputError, match=rf"no usable answer.*{found}.*addReferenceCatalog:server"),
    ):
        cone_search("2mass", 30, 20, 0.03, server=server.address)


def test_an_endless_answer_is_cut_off(monkeypatch):
    monkeypatch.setattr(catalogue_client, "_MAX_BYTES", 300_000)
    answers = Answers(votable(vizier()))
    answers.endless = True
    with serving(answers) as server, pytest.raises(InputError, match="more than 300000 bytes"):
        cone_search("2mass", 30, 20, 0.03, server=server.address)


def test_a_trickle_of_bytes_does_not_outlive_the_time_out():
    answers = Answers(b"<?xml")
    answers.slow = True
    started = time.monotonic()
    with serving(answers) as server, pytest.raises(InputError, match=r"in 0\.4 s"):
        cone_search("2mass", 30, 20, 0.03, server=server.address, timeout=0.4)
    assert time.monotonic() - started < 3


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"no usable answer.*127\.0\.0\.1:9/"):
        cone_search("2mass", 30, 20, 0.03, server="http://127.0.0.1:9/x", timeout=2)


def test_files_of_the_machine_are_no_servers(tmp_path):
    (tmp_path / "x").write_bytes(votable(vizier()))
    with pytest.raises(ParameterError, match="web server"):
        cone_search("2mass", 30, 20, 0.03, server=f"file://{tmp_path}/x")


def test_an_unknown_catalogue_is_refused_with_those_that_there_are():
    with pytest.raises(ParameterError, match="2mass, ukidss9"):
        cone_search("gmos", 30, 20, 0.03)


# ---- tables and files


@pytest.mark.parametrize(
    ("ra", "dec"), [("RA", "Dec"), ("X_WORLD", "Y_WORLD"), ("ra", "decl"), ("RA_ICRS", "DE_ICRS")]
)
@pytest.mark.parametrize(("mag", "err"), [("j_m", "j_cmsig"), ("jmag", "jmag_err"), ("Jmag", "e_Jmag")])
def test_the_spellings_of_catalogues_are_understood(ra, dec, mag, err):
    table = standard_table(Table({ra: [30.0], dec: [20.0], mag: [12.0], err: [0.1]}))
    assert (table["RAJ2000"][0], table["DEJ2000"][0]) == (30.0, 20.0)
    assert (table["jmag"][0], table["jmag_err"][0]) == (12.0, 0.1)


def test_units_count_and_rows_without_a_position_go():
    table = standard_table(Table({"RA": [2.0, 3.0] * units.hourangle, "DEC": [20.0, np.nan]}))
    assert list(table["RAJ2000"]) == pytest.approx([30.0])
    assert list(table["Id"]) == [1]


def test_sexagesimal_positions_are_read():
    table = standard_table(Table({"RA": ["02:00:00"], "DEC": ["+20:30:00"], "J": [12.0]}))
    assert (table["RAJ2000"][0], table["DEJ2000"][0]) == (pytest.approx(30.0), pytest.approx(20.5))


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (Table({"a": [1.0]}), "no positions"),
        (Table({"RA": ["here"], "DEC": ["+20:00:00"]}), "does not hold numbers"),
    ],
)
def test_a_table_without_usable_positions_is_refused(table, what):
    with pytest.raises(DataError, match=what):
        standard_table(table)


@pytest.mark.parametrize("name", ["c.fits", "c.ecsv", "c.csv", "c.xml", "c.txt"])
def test_files_of_many_formats_are_read(tmp_path, name):
    path = tmp_path / name
    formats = {"c.xml": "votable", "c.txt": "ascii.commented_header"}
    Table({"RA": [30.0, 31.0], "DEC": [20.0, 21.0], "hmag": [12.0, 13.0]}).write(
        path, format=formats.get(name)
    )
    table = read_table(path)
    assert list(table["hmag"]) == [12.0, 13.0]
    assert table.meta["CATALOG"] == name


def test_a_file_that_is_no_table_is_refused_by_name(tmp_path):
    path = tmp_path / "noise.fits"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(InputError, match=r"cannot be read.*noise\.fits"):
        read_table(path)
    with pytest.raises(InputError, match="not there"):
        read_table(tmp_path / "absent.fits")


def test_sources_around_a_position_are_those_within_the_radius_also_across_zero():
    table = standard_table(Table({"RA": [359.999, 0.001, 0.2, 180.0], "DEC": [60.0, 60.0, 60.0, 60.0]}))
    chosen = near(table, 0.0, 60.0, 0.01)
    assert list(chosen["RAJ2000"]) == [359.999, 0.001]
    assert list(chosen["Id"]) == [1, 2]
    assert len(table) == 4


def test_proper_motions_carry_positions_to_the_time_of_the_frame():
    table = standard_table(
        Table(
            {"RA": [30.0, 30.0], "DEC": [60.0, 60.001], "pmRA": [1000.0, np.nan], "pmDE": [-500.0, np.nan]}
        ),
        epoch=2016.0,
    )
    moved = near(table, 30.0, 60.0, 0.1, datetime(2006, 1, 1, tzinfo=UTC))
    assert (30.0 - moved["RAJ2000"][0]) * 3600 * np.cos(np.deg2rad(60)) == pytest.approx(10.0, abs=0.01)
    assert (moved["DEJ2000"][0] - 60.0) * 3600 == pytest.approx(5.0, abs=0.01)
    assert moved["RAJ2000"][1] == 30.0
