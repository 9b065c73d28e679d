"""A store with the flag ``store`` has the products of the store recipes registered by themselves."""

from __future__ import annotations

import pytest

from niripipe import Reduce, cal_service
from niripipe.errors import InputError
from niripipe.reduction import normalize_ucals

from .. import frames as make


@pytest.fixture
def darks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield make.sequence(tmp_path / "raw", [make.noise(k, 2.0, 10.0) for k in range(3)], kind="dark", first=20)
    cal_service.clear_calservice()


@pytest.mark.parametrize(("flags", "registered"), [("get store", 1), ("get", 0), ("", 0)])
def test_products_register_themselves(tmp_path, darks, flags, registered):
    (tmp_path / "dragonsrc").write_text(f"[calibs]\ndatabases = {tmp_path}/cal.db {flags}\n")
    caldb = cal_service.set_local_database(tmp_path / "dragonsrc")
    r = Reduce()
    r.files.extend(darks)
    r.runr()
    assert len(caldb.list_files()) == registered
    if registered:
        assert caldb.list_files()[0].name == r.output_filenames[0]
        # To do it by hand as well, as older scripts do, changes nothing.
        caldb.add_cal(r.output_filenames[0])
        assert len(caldb.list_files()) == 1


def test_a_product_that_cannot_be_registered_is_kept(tmp_path, darks, caplog):
    (tmp_path / "cal.db").write_text("this is no database, and longer than the header of one" * 10)
    caldb = cal_service.LocalDB(tmp_path / "cal.db", get_cal=False, store_cal=True)
    r = Reduce(darks, calibrations=caldb)
    r.runr()
    assert (tmp_path / r.output_filenames[0]).is_file()
    assert "is not registered" in caplog.text


def test_calibrations_by_hand_are_made_a_dict(tmp_path, darks):
    r = Reduce(darks)
    r.runr()
    dark = tmp_path / r.output_filenames[0]
    entries = [f"processed_dark:{dark.name}"]
    assert normalize_ucals(entries) == normalize_ucals(darks, entries) == {"processed_dark": str(dark)}
    assert normalize_ucals(None) == {}
    r.ucals = normalize_ucals(entries)
    with pytest.raises(InputError):
        normalize_ucals(["processed_dark:missing.fits"])
