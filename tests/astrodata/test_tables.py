from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from niripipe import astrodata
from niripipe.astrodata.tables import HeldTable, as_rows
from niripipe.errors import InputError

from .conftest import SHAPE

ROWS = as_rows(
    {
        "N": np.array([1, 2, 3], np.int32),
        "X": np.array([1.5, np.nan, -3], np.float32),
        "Y": [0.1, 0.2, 0.3],
        "NAME": ["a", "bcd", ""],
        "SMALL": np.array([1, 2, 255], np.uint8),
        "BITS": np.array([1, -2, 3], np.int16),
        "LONG": [1, 2, 3],
    }
)


def _frame(value: Any = ROWS) -> astrodata.AstroData:
    ad = astrodata.create({})
    ad.append(np.ones(SHAPE))
    ad[0].OBJCAT = value.copy()
    ad.SKYTABLE = value.copy()
    return ad


def test_a_structured_array_is_a_table_for_whoever_asks() -> None:
    ad = _frame()
    assert ad[0].tables == {"SKYTABLE"}
    assert ad[0].ext_tables == {"OBJCAT"}
    table = ad[0].OBJCAT
    assert isinstance(table, Table)
    assert ad[0].OBJCAT is table
    assert ad[0].read("OBJCAT") is table
    assert isinstance(ad.SKYTABLE, Table)
    assert ad.SKYTABLE is ad.SKYTABLE
    for name in ROWS.dtype.names:
        assert np.array_equal(table[name], ROWS[name], equal_nan=name == "X")
        assert table[name].dtype == ROWS[name].dtype


def test_columns_are_read_without_a_table() -> None:
    ad = _frame()
    for columns in (ad[0].columns("OBJCAT"), ad.columns("SKYTABLE"), ad[0].columns("SKYTABLE")):
        assert type(columns) is np.ndarray
        assert list(columns["NAME"]) == ["a", "bcd", ""]
        with pytest.raises(ValueError, match="read-only"):
            columns["N"][0] = 5
    table = ad[0].OBJCAT
    table["N"][0] = 7
    assert ad[0].columns("OBJCAT") is table
    with pytest.raises(AttributeError, match="REFCAT"):
        ad[0].columns("REFCAT")


@pytest.mark.parametrize("asked", [False, True], ids=["array", "table"])
def test_columns_are_replaced_for_one_owner(asked: bool) -> None:
    ad = _frame()
    if asked:
        _ = ad[0].OBJCAT
    twin = ad.copy()
    twin[0].set_columns("OBJCAT", {"X": [1.0, 2.0, 3.0], "NEW": [True, False, True]})
    assert list(twin[0].columns("OBJCAT")["X"]) == [1, 2, 3]
    assert twin[0].columns("OBJCAT")["X"].dtype == np.float64
    assert twin[0].columns("OBJCAT").dtype.names[-1] == "NEW"
    assert np.isnan(ad[0].columns("OBJCAT")["X"][1])
    assert "NEW" not in ad[0].OBJCAT.colnames


def test_changes_to_a_table_that_was_handed_out_belong_to_one_data_set(tmp_path: Path) -> None:
    ad = _frame()
    before = ad.copy()
    ad[0].OBJCAT["N"][0] = 7
    after = ad.copy()
    ad[0].OBJCAT["N"][0] = 8
    assert [x[0].OBJCAT["N"][0] for x in (before, after, ad)] == [1, 7, 8]
    ad.write(tmp_path / "x.fits")
    assert astrodata.open(tmp_path / "x.fits")[0].OBJCAT["N"][0] == 8


def test_rows_are_written_as_astropy_writes_the_table(tmp_path: Path) -> None:
    plain, table = tmp_path / "rows.fits", tmp_path / "table.fits"
    _frame().write(plain)
    _frame(Table(ROWS)).write(table)
    with fits.open(plain, checksum=True) as ours, fits.open(table) as theirs:
        for name in ("OBJCAT", "SKYTABLE"):
            skip = {"CHECKSUM"}
            found, expected = (
                {k: v for k, v in h[name].header.items() if k not in skip} for h in (ours, theirs)
            )
            assert found == expected
            assert ours[name].data.tobytes() == theirs[name].data.tobytes()


@pytest.mark.parametrize(
    "columns",
    [
        {"A": [True, False]},
        {"A": np.array([1, 2], np.uint16)},
        {"A": np.ones((2, 3), np.float32)},
        {"A": np.array([1, 2j])},
    ],
    ids=["bool", "unsigned", "vector", "complex"],
)
def test_other_columns_are_left_to_astropy(columns: dict[str, Any], tmp_path: Path) -> None:
    _frame(as_rows(columns)).write(tmp_path / "x.fits")
    found = astrodata.open(tmp_path / "x.fits")[0].OBJCAT
    assert np.array_equal(found["A"], columns["A"])
    assert found["A"].shape == np.shape(columns["A"])


def test_a_table_without_rows_is_written(tmp_path: Path) -> None:
    _frame(ROWS[:0]).write(tmp_path / "x.fits")
    ad = astrodata.open(tmp_path / "x.fits")
    assert (len(ad[0].OBJCAT), ad[0].OBJCAT.colnames) == (0, list(ROWS.dtype.names))


def test_the_sizes_of_tables_are_said_without_making_them(capsys: pytest.CaptureFixture[str]) -> None:
    ad = _frame()
    assert ad.table_sizes()["SKYTABLE"] == "(3, 7)"
    ad.info()
    assert "(3, 7)" in capsys.readouterr().out
    assert type(ad.columns("SKYTABLE")) is np.ndarray


def test_only_plain_rows_are_tables() -> None:
    ad = _frame()
    with pytest.raises(InputError):
        ad[0].OTHER = ROWS.reshape(3, 1)
    with pytest.raises(InputError):
        ad.OTHER = np.ones(3)
    assert len(HeldTable(ROWS).columns()) == 3
