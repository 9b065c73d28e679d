from __future__ import annotations

from niripipe.cal_service import CalibrationService, clear_calservice, get_calservice, set_calservice


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
