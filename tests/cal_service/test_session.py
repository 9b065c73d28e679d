from __future__ import annotations

import pytest

from niripipe.cal_service import (
    CalibrationService,
    LocalDB,
    clear_calservice,
    get_calservice,
    load_config,
    set_calservice,
    set_local_database,
)
from niripipe.errors import InputError, ParameterError


def test_no_service_is_current_until_one_is_set(tmp_path):
    service = CalibrationService()
    service.config(db_dir=tmp_path)
    assert get_calservice() is None


def test_without_argument_the_service_configured_last_becomes_current(tmp_path):
    first, last = CalibrationService(), CalibrationService()
    first.config(db_dir=tmp_path / "a.db")
    last.config(db_dir=tmp_path / "b.db")
    set_calservice()
    assert get_calservice() is last
    set_calservice(first)
    assert get_calservice() is first


def test_configuring_another_service_does_not_change_the_current_one(tmp_path):
    set_calservice(tmp_path / "a.db")
    current = get_calservice()
    CalibrationService().config(db_dir=tmp_path / "b.db")
    assert get_calservice() is current
    assert current.dbfile == str(tmp_path / "a.db")


def test_without_any_service_a_new_one_is_configured_in_the_usual_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    set_calservice()
    assert get_calservice().dbfile == str(tmp_path / "cal_manager.db")


def test_a_configuration_file_may_be_named(tmp_path):
    CalibrationService().config(db_dir=tmp_path / "other.db")
    path = tmp_path / "rsys.cfg"
    path.write_text(f"[calibs]\ndatabase_dir = {tmp_path}/x.db\n")
    set_calservice(config_file=path)
    assert get_calservice().dbfile == str(tmp_path / "x.db")


def test_the_current_service_can_be_forgotten(tmp_path):
    set_calservice(tmp_path)
    clear_calservice()
    assert get_calservice() is None


def written(path, line):
    path.write_text(f"[calibs]\ndatabases = {line}\n")
    return path


@pytest.mark.parametrize(
    ("flags", "get", "store"),
    [("", True, False), ("get", True, False), ("get store", True, True), ("store", False, True)],
)
def test_flags_of_a_configuration_file_say_what_a_store_is_used_for(tmp_path, flags, get, store):
    caldb = set_local_database(written(tmp_path / "dragonsrc", f"{tmp_path}/x.db {flags}"))
    assert (caldb.get_cal, caldb.store_cal) == (get, store)
    caldb.get_cal, caldb.store_cal = not get, not store
    assert (caldb.get_cal, caldb.store_cal) == (not get, not store)


def test_a_store_without_the_flag_get_is_not_asked(tmp_path, make):
    caldb = LocalDB(tmp_path / "x.db", "mine", get_cal=False, force_init=True)
    answer = caldb.get_processed_dark([make("a.fits"), make("b.fits")])
    assert (answer.files, answer.origins) == ([None, None], [None, None])
    assert "mine is not asked" in answer.reasons[0]


def test_the_configuration_is_loaded_by_the_name_of_dragons(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = written(tmp_path / "a.cfg", f"{tmp_path}/a.db")
    last = written(tmp_path / "b.cfg", f"{tmp_path}/b.db")
    nothing = tmp_path / "c.cfg"
    nothing.write_text("[interactive]\nbrowser = x\n")
    for files, name in ((first, "a.db"), ([first, last], "b.db"), ([str(first), str(nothing)], "a.db")):
        load_config(files)
        assert get_calservice().dbfile == str(tmp_path / name)
    monkeypatch.setenv("DRAGONSRC", str(last))
    load_config()
    assert get_calservice().dbfile == str(tmp_path / "b.db")
    for files in (nothing, [], tmp_path / "missing.cfg"):
        with pytest.raises(InputError):
            load_config(files)


def test_a_service_has_a_name(tmp_path):
    caldb = LocalDB(tmp_path / "x.db", name="mine", store_cal=True)
    assert (caldb.name, caldb.store_cal, caldb.get_cal) == ("mine", True, True)
    assert LocalDB(tmp_path / "x.db").name == str(tmp_path / "x.db")
    caldb.name = "ours"
    assert caldb.name == "ours"


@pytest.mark.parametrize(
    ("argument", "instead"), [("valid_caltypes", "are known"), ("procmode", "mode="), ("log", "logutils")]
)
def test_arguments_that_mean_nothing_here_say_what_to_write(tmp_path, argument, instead):
    with pytest.raises(ParameterError, match=instead):
        LocalDB(tmp_path / "x.db", **{argument: ["x"]})
