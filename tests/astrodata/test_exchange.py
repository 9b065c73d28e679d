"""What users and other tools hand to a data set, and read of its files: nothing is lost on the way."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData, NDData, StdDevUncertainty, VarianceUncertainty
from astropy.table import QTable, Table
from astropy.time import Time

from niripipe import astrodata
from niripipe.astrodata.provenance import ProvenanceRecord
from niripipe.errors import DataError, InputError

SHAPE = (3, 4)
MASKED = np.ma.array(np.ones(SHAPE), mask=np.eye(*SHAPE, dtype=bool))


def frame(**cards: Any) -> astrodata.AstroData:
    ad = astrodata.create(cards)
    ad.append(np.arange(12.0).reshape(SHAPE))
    return ad


def written(ad: astrodata.AstroData, folder: Path) -> astrodata.AstroData:
    path = folder / "file.fits"
    ad.write(path, overwrite=True)
    return astrodata.open(path)


UNITS = {"M": "mag(AB)", "F": "electron/s", "A": "deg2", "X": "furlong", "L": "1e-7 W", "N": None, "T": None}


@pytest.mark.parametrize("kind", [Table, QTable])
def test_units_of_columns_survive_files(tmp_path, kind):
    table = Table({name: ["a", "b"] if name == "T" else [1.0, 2.0] for name in UNITS}, units=UNITS)
    expected = {name: table[name].unit for name in UNITS}
    ad = frame()
    ad.REFCAT = ad[0].OBJCAT = kind(table)
    for turn in ("once", "twice"):
        ad = written(ad, tmp_path)
        for found in (ad.REFCAT, ad[0].OBJCAT):
            assert {name: found[name].unit for name in UNITS} == expected, turn
            assert found["M"].tolist() == [1.0, 2.0]
    header = fits.getheader(tmp_path / "file.fits", "REFCAT")
    # The spelling of FITS where FITS has the unit.
    assert header["TUNIT3"] == "deg2"
    assert header["TUNIT1"] == "mag(AB)"


def test_units_of_rows_survive_copies_new_columns_and_files(tmp_path):
    ad = frame()
    rows = np.zeros(2, [("X_IMAGE", "f4"), ("FLAGS", "i2")])
    ad.extensions[0].set_extra("OBJCAT", rows, units={"X_IMAGE": "pix", "GONE": "deg"})
    twin = ad.copy()
    twin[0].set_columns("OBJCAT", {"X_IMAGE": [5.0, 6.0]})
    back = written(twin, tmp_path)
    back[0].set_columns("OBJCAT", {"X_IMAGE": [7.0, 8.0]})
    for each in (ad, twin, back):
        assert each[0].OBJCAT["X_IMAGE"].unit == u.pix
        assert each[0].OBJCAT["FLAGS"].unit is None
    assert back[0].OBJCAT["X_IMAGE"].tolist() == [7.0, 8.0]


def test_assigned_tables_are_copied():
    table, rows = Table({"A": [1, 2]}), np.zeros(2, [("A", "i4")])
    ad = frame()
    ad.REFCAT, ad[0].OBJCAT, ad[0].OTHER = table, table, rows
    table["A"][0] = rows["A"][0] = 99
    assert [t["A"].tolist() for t in (ad.REFCAT, ad[0].OBJCAT, ad[0].OTHER)] == [[1, 2], [1, 2], [0, 0]]


@pytest.mark.parametrize(
    "column",
    [
        SkyCoord([1, 2], [3, 4], unit="deg"),
        Time(["2016-01-02", "2016-01-03"]),
        np.array(["a", None], object),
        np.array(["2016-01-02", "2016-01-03"], "datetime64[s]"),
        np.zeros(2, [("a", "f4"), ("b", "f4")]),
        np.zeros(2, np.longdouble),
    ],
    ids=["coordinates", "times", "objects", "dates", "records", "long doubles"],
)
def test_columns_that_fits_does_not_have_are_refused_by_name(column):
    if getattr(column, "dtype", None) == np.float64:
        pytest.skip("a long double is a double here")
    ad = frame()
    for target in (ad, ad[0]):
        with pytest.raises(InputError, match=r"CAT\['bad'\].*plain columns"):
            target.CAT = QTable({"good": [1, 2], "bad": column})
    with pytest.raises(InputError, match="ASCII"):
        ad.CAT = Table({"é": [1]})
    assert ad.exposed == set()


def test_texts_that_fits_does_not_have_and_signed_bytes_are_written(tmp_path, caplog):
    ad = frame()
    ad[0].CAT = Table({"NAME": ["étoile", "star"], "SMALL": np.array([-5, 5], np.int8)})
    with caplog.at_level(logging.WARNING, "niripipe"):
        back = written(ad, tmp_path)[0].CAT
    assert back["NAME"].tolist() == [r"\xe9toile", "star"]
    assert back["SMALL"].tolist() == [-5, 5]
    assert "escapes" in caplog.text


def test_records_with_holes_are_written(tmp_path):
    ad = frame()
    astrodata.add_provenance(ad, "a.fits", None, "stackFrames")
    astrodata.add_provenance(ad, Path("b.fits"), None, "stackFrames")
    ad.provenance.append(ProvenanceRecord("", "c.fits", None, None))  # type: ignore[arg-type]
    astrodata.add_history(ad, "stackFrames", status=None, reason=None)  # type: ignore[arg-type]
    back = written(ad, tmp_path)
    assert [(r.filename, r.md5) for r in back.provenance] == [("a.fits", ""), ("b.fits", ""), ("c.fits", "")]
    assert back.history[0].status == ""


def test_headers_that_are_dicts_are_kept(caplog):
    meta = {"OBJECT": "M51", "exptime": np.float64(3), "A long name": True, "unfit": [1, 2]}
    data = NDData(np.ones(SHAPE), meta=meta)
    ad = frame()
    with caplog.at_level(logging.WARNING, "niripipe"):
        ad.append(data)
    for header in (ad[1].hdr, astrodata.from_ccddata(data).hdr):
        assert (header["OBJECT"], header["EXPTIME"], header["A LONG NAME"]) == ("M51", 3.0, True)
    assert "unfit" in caplog.text
    assert "OBJECT" not in caplog.text


def test_masks_of_masked_arrays_are_kept():
    made = astrodata.create({}, [MASKED])
    assigned = frame()
    assigned[0].mask = np.full(SHAPE, 4, np.uint16)
    assigned[0].data = MASKED
    replaced = frame()
    replaced[0].reset(MASKED, variance=np.ones(SHAPE))
    from_nddata = frame()
    from_nddata[0].reset(CCDData(MASKED, unit="adu"))
    for ad, others in ((made, 0), (assigned, 4), (replaced, 0), (from_nddata, 0)):
        assert np.array_equal(ad[0].mask, MASKED.mask + others)
    unmasked = astrodata.create({}, [np.ma.array(np.ones(SHAPE))])
    assert unmasked[0].mask is None


@pytest.mark.parametrize("source", ["FOOBAR", "", b"FOOBAR", 3])
def test_nothing_is_created_from_what_is_no_header(source):
    with pytest.raises(DataError, match="header"):
        astrodata.create(source)


def test_ccddata_reads_the_planes_of_a_file_for_what_they_are(tmp_path):
    ad = frame()
    ad[0].hdr["BUNIT"] = "electron"
    ad[0].reset(ad[0].data, mask=np.eye(*SHAPE, dtype=np.uint16), variance=np.full(SHAPE, 4.0))
    written(ad, tmp_path)
    ccd = CCDData.read(tmp_path / "file.fits", hdu="SCI", hdu_uncertainty="VAR", hdu_mask="DQ")
    assert isinstance(ccd.uncertainty, VarianceUncertainty)
    assert np.all(ccd.uncertainty.represent_as(StdDevUncertainty).array == 2)
    assert ccd.unit == u.electron
    assert np.array_equal(ccd.mask, np.eye(*SHAPE, dtype=bool))


@pytest.mark.parametrize(
    "made",
    [
        lambda: frame(),
        lambda: frame()[0],
        lambda: frame()[:1],
        lambda: astrodata.create({}),
        lambda: astrodata.AstroData(),
        lambda: frame(INSTRUME="NIRI", TELESCOP="Gemini-North")[0],
        lambda: astrodata.create({"INSTRUME": "NIRI", "TELESCOP": "Gemini-North"}),
    ],
)
def test_inspection_raises_nothing(made):
    ad = made()
    names = {name for name, _ in inspect.getmembers(ad)}
    assert "phu" in names
    assert all(isinstance(hasattr(ad, name), bool) for name in dir(type(ad)))


def test_what_belongs_to_one_extension_says_so():
    ad = frame()
    for name in ("id", "ext_tables"):
        assert not hasattr(ad, name)
        assert hasattr(ad[0], name)
        with pytest.raises(ValueError, match=r"ad\[0\]"):
            getattr(ad, name)
