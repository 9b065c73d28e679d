from __future__ import annotations

import logging
import os
import pickle
import re
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from niripipe import astrodata, cal_service
from niripipe.cal_service import CalibrationFacts, CalibrationService, CalReturn, FileData, LocalDB, facts_of
from niripipe.cal_service.store import Store
from niripipe.cal_service.tables import SCHEMA_VERSION
from niripipe.errors import CalibrationError, DataError, InputError, ParameterError, StorageError

from .processes_for_tests import run_python
from .records_for_tests import record


def warnings_of(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


# ---------------------------------------------------------------------- configuration


def test_the_workflow_of_the_tutorial(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    caldb = cal_service.CalibrationService()
    caldb.config()
    caldb.init()
    cal_service.set_calservice()
    make("N20160102S0423_dark.fits", "dark")
    caldb.add_cal("N20160102S0423_dark.fits")
    assert cal_service.get_calservice() is caldb
    assert caldb.get_processed_dark(make("N20160102S0270.fits")).files == [
        str(tmp_path / "N20160102S0423_dark.fits")
    ]
    assert (tmp_path / "cal_manager.db").is_file()


def test_creating_and_configuring_a_service_writes_nothing(tmp_path):
    service = CalibrationService()
    assert "config() has not been called" in repr(service)
    service.config(db_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert service.dbfile == str(tmp_path / "cal_manager.db")


def test_store_stays_where_it_was_when_the_folder_changes(tmp_path, monkeypatch, make):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    service = CalibrationService()
    service.config(db_dir="mine.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    service.init()
    assert (tmp_path / "mine.db").is_file()


def test_config_is_implied_and_logged(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("DEBUG", "niripipe")
    assert len(CalibrationService().list_files()) == 0
    assert f"Calibration store: {tmp_path}/cal_manager.db (default, the current folder)" in caplog.messages


def test_verbose_config_lists_the_store(caldb, make, place, caplog):
    caplog.set_level("DEBUG", "niripipe")
    caldb.add_cal(make("a_dark.fits", "dark"))
    caldb.config(db_dir=place, verbose=True)
    assert any("a_dark.fits" in message for message in caplog.messages)


def test_init_keeps_a_store_and_wipe_empties_it(caldb, make):
    caldb.add_cal(make("a_dark.fits", "dark"))
    caldb.init()
    assert len(caldb.list_files()) == 1
    caldb.init(wipe=True)
    assert len(caldb.list_files()) == 0


def test_a_named_file_of_another_program_is_never_touched(tmp_path):
    path = tmp_path / "observations.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table mine (x)")
    connection.close()
    before = path.read_bytes()
    service = CalibrationService()
    service.config(db_dir=path)
    for wipe in (False, True):
        with pytest.raises(StorageError, match="another program"):
            service.init(wipe=wipe)
    assert path.read_bytes() == before


def test_a_store_of_dragons_in_the_same_folder_is_left_alone(tmp_path, caplog):
    path = tmp_path / "cal_manager.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table diskfile (x)")
    connection.close()
    before = path.read_bytes()
    service = CalibrationService()
    service.config(db_dir=tmp_path)
    service.init()
    assert service.dbfile == str(tmp_path / "niripipe_cal_manager.db")
    assert "belongs to another program" in warnings_of(caplog)[0]
    assert path.read_bytes() == before
    again = CalibrationService()
    again.config(db_dir=tmp_path)
    assert again.dbfile == service.dbfile


def test_local_db_names_its_store_at_once(place, make):
    store = LocalDB(place, force_init=True)
    assert len(store.list_files()) == 0
    store.add_cal(make("a_dark.fits", "dark"))
    assert [f.name for f in LocalDB(place).list_files()] == ["a_dark.fits"]


def test_a_store_may_be_named_to_the_session_and_in_a_configuration_file(place, make, tmp_path):
    LocalDB(place).add_cal(make("a_dark.fits", "dark"))
    config = tmp_path / "rsys.cfg"
    config.write_text(f"[calibs]\ndatabase_dir = {place}\n")
    for named in ({"service": place}, {"config_file": config}):
        cal_service.set_calservice(**named)
        service = cal_service.get_calservice()
        assert [f.name for f in service.list_files()] == ["a_dark.fits"]
        assert service.dbfile == place


def test_passwords_are_neither_shown_nor_logged(caplog):
    caplog.set_level("DEBUG", "niripipe")
    service = CalibrationService()
    service.config(db_dir="postgresql://me:secret@localhost:1/name?connect_timeout=2")
    assert service.dbfile == "postgresql+psycopg://me:***@localhost:1/name?connect_timeout=2"
    assert "no connection" in repr(service)
    with pytest.raises(StorageError) as caught:
        service.get_processed_dark("N1.fits")
    shown = [repr(service), service._repr_html_(), str(caught.value), service.source, *caplog.messages]
    assert not [text for text in shown if "secret" in text]


def test_set_local_database_makes_the_service_current(tmp_path):
    config = tmp_path / "dragonsrc"
    config.write_text(f"[calibs]\ndatabases = {tmp_path}/x.db get store\n")
    service = cal_service.set_local_database(config)
    assert cal_service.get_calservice() is service
    assert service.dbfile == str(tmp_path / "x.db")
    assert str(config) in service.source


# ---------------------------------------------------------------------- registering


@pytest.mark.parametrize("kind", ["dark", "flat", "bpm"])
def test_products_are_registered_by_their_tags(kind, make, caldb, tmp_path):
    record = caldb.add_cal(make(f"a_{kind}.fits", kind, value=1.0))
    assert record.caltype == f"processed_{kind}"
    assert record.path == str(tmp_path / f"a_{kind}.fits")
    assert record.size == (tmp_path / f"a_{kind}.fits").stat().st_size
    assert len(record.md5) == 32


def test_astrodata_stands_for_its_file(make, caldb):
    path = make("a_dark.fits", "dark")
    assert caldb.add_cal(astrodata.open(path)).path == str(path)


def test_relative_paths_are_stored_as_absolute_ones(make, caldb, tmp_path, monkeypatch):
    make("sub/a_dark.fits", "dark")
    monkeypatch.chdir(tmp_path)
    assert caldb.add_cal("./sub/../sub/a_dark.fits").path == str(tmp_path / "sub" / "a_dark.fits")


@pytest.mark.parametrize("kind", ["science", "raw_dark"])
def test_what_is_not_a_processed_calibration_is_refused_with_its_tags(kind, make, caldb):
    with pytest.raises(CalibrationError, match=r"not a processed calibration.*NIRI.*RAW"):
        caldb.add_cal(make("x.fits", kind))
    assert len(caldb.list_files()) == 0


def test_files_that_are_missing_or_unreadable_are_refused(caldb, tmp_path):
    with pytest.raises(InputError, match="no such calibration"):
        caldb.add_cal(tmp_path / "none.fits")
    with pytest.raises(InputError, match=r"folder.*add_directory"):
        caldb.add_cal(tmp_path)
    (tmp_path / "text.fits").write_text("hello")
    with pytest.raises((DataError, InputError)):
        caldb.add_cal(tmp_path / "text.fits")
    (tmp_path / "empty.fits").write_bytes(b"")
    with pytest.raises((DataError, InputError)):
        caldb.add_cal(tmp_path / "empty.fits")
    assert len(caldb.list_files()) == 0


def test_adding_creates_the_store_on_demand(make, place):
    service = CalibrationService()
    service.config(db_dir=place)
    service.add_cal(make("a_dark.fits", "dark"))
    assert [f.name for f in service.list_files()] == ["a_dark.fits"]


def test_folder_of_the_store_is_created_on_demand(make, tmp_path):
    service = LocalDB(tmp_path / "new")
    service.add_cal(make("a_dark.fits", "dark"))
    assert (tmp_path / "new" / "cal_manager.db").is_file()


def test_adding_twice_changes_nothing_and_after_an_edit_replaces(make, caldb):
    path = make("a_dark.fits", "dark")
    first = caldb.add_cal(path)
    assert caldb.add_cal(path) == first
    make("a_dark.fits", "dark", value=2.0, COADDS=2)
    edited = caldb.add_cal(path)
    assert edited.md5 != first.md5
    assert edited.facts.coadds == 2
    assert len(caldb.list_files()) == 1


def test_same_name_in_two_folders_is_two_calibrations(make, caldb, tmp_path):
    for folder in ("one", "two"):
        caldb.add_cal(make(f"{folder}/a_dark.fits", "dark"))
    assert list(caldb.list_files()) == [
        FileData("a_dark.fits", str(tmp_path / "one")),
        FileData("a_dark.fits", str(tmp_path / "two")),
    ]


def test_add_directory_takes_products_and_walks_only_when_asked(make, caldb, tmp_path, caplog):
    for name in ("n/a_dark.fits", "n/sub/b_dark.fits"):
        make(name, "dark")
    make("n/science.fits")
    (tmp_path / "n" / "broken.fits").write_text("x")
    (tmp_path / "n" / "notes.txt").write_text("x")
    assert [r.name for r in caldb.add_directory(tmp_path / "n")] == ["a_dark.fits"]
    assert any("broken.fits" in message for message in warnings_of(caplog))
    assert len(caldb.add_directory(tmp_path / "n", walk=True)) == 2
    with pytest.raises(InputError, match="no such folder"):
        caldb.add_directory(tmp_path / "none")


def test_removing_by_name_takes_all_and_by_path_takes_one(make, caldb):
    one, two = (make(f"{folder}/a_dark.fits", "dark") for folder in ("one", "two"))
    for path in (one, two):
        caldb.add_cal(path)
    assert [r.path for r in caldb.remove_cal(two)] == [str(two)]
    caldb.add_cal(two)
    assert len(caldb.remove_cal("a_dark.fits")) == 2
    assert len(caldb.list_files()) == 0
    assert one.exists()


def test_removing_what_is_not_there_names_what_is(make, caldb):
    with pytest.raises(InputError, match="empty"):
        caldb.remove_cal("N20160102S0423_dark.fits")
    caldb.add_cal(make("N20160102S0423_dark.fits", "dark"))
    with pytest.raises(InputError, match=r"expected: N20160102S0423_dark\.fits"):
        caldb.remove_cal("N20160102S0424_dark.fits")


def test_listing_is_sorted_complete_and_readable(caldb, place):
    Store(place).add([record(f"/data/f{n:03}_dark.fits") for n in reversed(range(600))])
    files = caldb.list_files()
    assert [f.name for f in files] == [f"f{n:03}_dark.fits" for n in range(600)]
    assert files[0] == FileData("f000_dark.fits", "/data")
    assert files[:2] == [files[0], files[1]]
    assert "600 calibrations in" in repr(files)
    assert "f599_dark.fits" in repr(caldb)
    assert re.search(r"<td[^>]*>f599_dark.fits</td><td[^>]*>processed_dark</td>", caldb._repr_html_())


# ---------------------------------------------------------------------- finding


def test_one_frame_and_many_are_answered_alike(make, caldb):
    frame, other = make("N1.fits"), make("N2.fits", LNRS=16)
    dark = caldb.add_cal(make("a_dark.fits", "dark"))
    for single in (frame, str(frame), astrodata.open(frame), facts_of(astrodata.open(frame))):
        assert caldb.get_processed_dark(single).files == [dark.path]
    answer = caldb.get_calibrations([frame, astrodata.open(other)], "processed_dark")
    assert answer.files == [dark.path, None]
    assert answer.origins == [caldb.dbfile, None]
    assert list(answer.items()) == [(dark.path, caldb.dbfile), (None, None)]
    assert answer[0] == (dark.path, caldb.dbfile)
    files, origins = answer
    assert (files, origins) == (answer.files, answer.origins)
    assert len(answer) == 2
    assert caldb.get_calibrations([], "processed_dark").files == []


def test_each_type_is_found_among_the_others(make, caldb):
    frame = make("N1.fits")
    paths = {kind: caldb.add_cal(make(f"a_{kind}.fits", kind)).path for kind in ("dark", "flat", "bpm")}
    assert caldb.get_processed_dark(frame).files == [paths["dark"]]
    assert caldb.get_processed_flat(frame).files == [paths["flat"]]
    assert caldb.get_processed_bpm(frame).files == [paths["bpm"]]
    assert caldb.get_calibrations(frame, "bpm").files == [paths["bpm"]]


def test_mask_made_from_flats_is_never_served_as_flat(make, caldb):
    caldb.add_cal(make("a_bpm.fits", "bpm", PROCFLAT="2016-01-03"))
    assert caldb.get_processed_flat(make("N1.fits")).files == [None]


@pytest.mark.parametrize(
    "cards",
    [
        {},
        {"DATE_OBS": None, "DATE": "2021-05-06T07:08:09"},
        {"BPMASK": None, "OBSTYPE": "BPM"},
        {
            "EXPTIME": "",
            "COADDS": 0,
            "LNRS": "none",
            "NDAVGS": -1,
            "A_VDDUC": "x",
            "CAMERA": 3,
            "GCALLAMP": 5,
        },
    ],
)
def test_static_mask_of_the_archive_is_a_calibration_like_any_other(cards, make, make_static_mask, caldb):
    mask = make_static_mask(**cards)
    record = caldb.add_cal(mask)
    assert record.caltype == "processed_bpm"
    assert record.facts.detector_section == (0, 1024, 0, 1024)
    assert record.facts.exposure_time is None
    window, full = make("N1.fits"), make("N2.fits", LNRS=3, EXPTIME=None)
    assert caldb.get_processed_bpm([window, full]).files == [str(mask), str(mask)]
    assert caldb.get_processed_flat(window).files == [None]
    # One made of flats of the same night is nearer in time.
    newer = caldb.add_cal(make("a_bpm.fits", "bpm"))
    assert [r.path for r in caldb.get_processed_bpm(window, howmany=2).matches[0]] == [newer.path, str(mask)]
    assert caldb.rebuild(mask.parent).records[-1].path == str(mask)
    early = caldb.get_processed_bpm(make("N3.fits", DATE_OBS="2000-12-01"))
    assert early.files == [None]
    assert "not after 2000-12-01" in early.reasons[0]


def test_nearest_comes_first_and_as_many_as_asked_for(make, caldb):
    frame = make("N1.fits")
    near, far, furthest = (
        caldb.add_cal(make(f"{name}_dark.fits", "dark", UT=ut)).path
        for name, ut in (("x", "08:30:00"), ("y", "07:00:00"), ("z", "10:00:00"))
    )
    answer = caldb.get_processed_dark(frame, howmany=2)
    assert [r.path for r in answer.matches[0]] == [near, far]
    assert answer.files == [near]
    assert [r.path for r in caldb.get_processed_dark(frame, howmany=9).matches[0]] == [near, far, furthest]


def test_last_registered_wins_a_tie(make, caldb):
    paths = [make(f"{name}_dark.fits", "dark") for name in "ab"]
    for path in paths:
        caldb.add_cal(path)
    assert caldb.get_processed_dark(make("N1.fits")).files == [str(paths[1])]
    make("a_dark.fits", "dark", value=1.0)
    caldb.add_cal(paths[0])
    assert caldb.get_processed_dark(make("N1.fits")).files == [str(paths[0])]


def test_quick_look_products_do_not_satisfy_science_quality(make, caldb):
    frame = make("N1.fits")
    quick = caldb.add_cal(make("ql_dark.fits", "dark", PROCMODE="ql")).path
    assert caldb.get_processed_dark(frame, procmode="sq").files == [None]
    assert caldb.get_processed_dark(frame, procmode="ql").files == [quick]
    assert caldb.get_processed_dark(frame).files == [quick]
    assert "at least sq" in str(caldb.explain(frame, "processed_dark", "sq"))


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_next_best_is_used_when_a_file_is_missing_or_changed(harm, make, caldb, caplog):
    frame = make("N1.fits")
    second = caldb.add_cal(make("far_dark.fits", "dark", UT="09:00:00"))
    first = caldb.add_cal(make("near_dark.fits", "dark"))
    if harm == "missing":
        Path(first.path).unlink()
    else:
        make("near_dark.fits", "dark", value=3.0)
    for _ in range(2):
        assert caldb.get_processed_dark([frame, frame]).files == [second.path] * 2
    assert warnings_of(caplog) == [f"{first.path} is {harm} since it was registered; the next best is tried"]
    table = caldb.explain(frame, "processed_dark")
    assert table.chosen == second.path
    assert table.rows[1]["failed"] == [f"the file is {harm}"]


def test_touched_but_unchanged_file_is_still_good(make, caldb):
    record = caldb.add_cal(make("a_dark.fits", "dark"))
    os.utime(record.path, ns=(1, 1))
    assert record.file_state() == "present"
    assert caldb.get_processed_dark(make("N1.fits")).files == [record.path]


def test_old_calibration_is_used_with_one_warning_about_its_age(make, caldb, caplog):
    frame = make("N1.fits")
    record = caldb.add_cal(make("a_dark.fits", "dark", DATE_OBS="2016-02-02"))
    assert caldb.get_processed_dark([frame, frame]).files == [record.path] * 2
    assert warnings_of(caplog) == ["a_dark.fits fits N1.fits but is 31 days away from it"]


def test_recent_calibrations_and_old_masks_need_no_warning(make, caldb, caplog):
    frame = make("N1.fits")
    caldb.add_cal(make("a_dark.fits", "dark", DATE_OBS="2016-02-01"))
    caldb.add_cal(make("a_bpm.fits", "bpm", DATE_OBS="2001-03-17"))
    assert caldb.get_processed_dark(frame).files != [None]
    assert caldb.get_processed_bpm(frame).files != [None]
    assert warnings_of(caplog) == []


def test_looking_in_a_store_that_does_not_exist_finds_nothing_and_says_so_once(make, place, caplog):
    service = CalibrationService()
    service.config(db_dir=place)
    frame = make("N1.fits")
    for _ in range(2):
        assert service.get_processed_dark(frame).files == [None]
    assert len(warnings_of(caplog)) == 1
    assert "does not exist yet" in warnings_of(caplog)[0]
    assert Store(place).state() == "absent"
    service.init()
    caplog.clear()
    assert service.get_processed_flat(frame).files == [None]
    assert warnings_of(caplog) == []


def test_finding_nothing_has_a_reason_that_can_be_recorded(make, caldb):
    frame = make("N1.fits")
    answer = caldb.get_processed_bpm(frame)
    assert answer.files == [None]
    assert answer.reasons == ["no processed_bpm is registered"]
    caldb.add_cal(make("a_bpm.fits", "bpm", DATE_OBS="2016-02-01"))
    (reason,) = caldb.get_processed_bpm(frame).reasons
    assert reason.startswith("the only processed_bpm does not fit: a_bpm.fits: ut_datetime is 2016-02-01")
    assert reason == caldb.explain(frame, "processed_bpm").reason == caldb.explain(frame, "bpm").reason
    caldb.add_cal(make("b_bpm.fits", "bpm", DATE_OBS="2016-03-01", RAWGEMQA="BAD", RAWPIREQ="NO"))
    (reason,) = caldb.get_processed_bpm(frame).reasons
    assert reason.startswith("none of 2 processed_bpm fits; nearest is a_bpm.fits")
    caldb.add_cal(make("c_bpm.fits", "bpm"))
    assert caldb.get_processed_bpm([frame, frame]).reasons == [None, None]
    assert caldb.explain(frame, "processed_bpm").reason is None


def test_answers_made_elsewhere_need_no_reasons():
    answer = CalReturn([None, "/data/a_dark.fits"], [None, "plan"], [[], []])
    assert answer.reasons == ["no calibration was found", None]


def test_one_long_exposure_is_not_two_short_ones(make, caldb):
    frame = make("N1.fits", EXPTIME=60.001, COADDS=1)
    caldb.add_cal(make("a_dark.fits", "dark", EXPTIME=60.002, COADDS=2))
    answer = caldb.get_processed_dark(frame)
    assert answer.files == [None]
    table = caldb.explain(frame, "processed_dark")
    for text in (answer.reasons[0], str(table), str(table.error()), table.rows[0]["failed"][0]):
        assert "1 x 60.001 s is not 2 x 30.001 s" in text


def test_require_gives_paths_or_the_table_of_reasons(make, caldb):
    frame, other = make("N1.fits"), make("N2.fits", EXPTIME=10.001, COADDS=2)
    dark = caldb.add_cal(make("a_dark.fits", "dark")).path
    assert caldb.require([frame, frame], "processed_dark") == [dark, dark]
    with pytest.raises(CalibrationError, match=r"2 x 10.001 s is not 1 x 20.002 s") as caught:
        caldb.require([frame, other], "processed_dark")
    assert caught.value.file == "N2.fits"
    assert caught.value.candidates[0]["calibration"] == "a_dark.fits"
    with pytest.raises(CalibrationError, match="the store holds 1 processed_dark"):
        caldb.require(frame, "processed_flat")


def test_explanation_orders_candidates_by_how_well_they_do(make, caldb):
    frame = make("N1.fits")
    caldb.add_cal(make("bad_dark.fits", "dark", COADDS=2, LNRS=16))
    caldb.add_cal(make("near_miss_dark.fits", "dark", COADDS=2, EXPTIME=20.002))
    caldb.add_cal(make("good_dark.fits", "dark", UT="03:00:00"))
    caldb.add_cal(make("best_dark.fits", "dark"))
    rows = caldb.explain(frame, "processed_dark").rows
    assert [(row["calibration"], row["result"]) for row in rows] == [
        ("best_dark.fits", "chosen"),
        ("good_dark.fits", "fits"),
        ("near_miss_dark.fits", "rejected"),
        ("bad_dark.fits", "rejected"),
    ]


def test_unknown_types_and_counts_are_parameter_errors(make, caldb):
    frame = make("N1.fits")
    with pytest.raises(ParameterError, match=r"processed_drak.*processed_dark"):
        caldb.get_calibrations(frame, "processed_drak")
    with pytest.raises(ParameterError):
        caldb.explain(frame, "dark")
    with pytest.raises(ParameterError, match="howmany"):
        caldb.get_processed_dark(frame, howmany=0)


# ---------------------------------------------------------------------- several at once


def test_two_services_never_interfere(make, new_place, tmp_path):
    services = []
    for _ in range(2):
        service = CalibrationService()
        service.config(db_dir=new_place())
        services.append(service)
    frame = make("N1.fits")
    services[0].init()
    assert Store(services[1].dbfile).state() == "absent"
    paths = [str(make(f"{name}/x_dark.fits", "dark")) for name in "ab"]

    def work(n: int) -> list[str | None]:
        services[n % 2].add_cal(paths[n % 2])
        return services[n % 2].get_processed_dark(frame).files

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(20))) == [[paths[n % 2]] for n in range(20)]
    assert [[f.path for f in s.list_files()] for s in services] == [
        [str(tmp_path / "a")],
        [str(tmp_path / "b")],
    ]


# Each process has its own service and registers its own files, and one that all of them register.
_ADDERS = """
import os, sys
from niripipe.cal_service import CalibrationService

gate, opener = os.pipe()
children = []
for who in range(4):
    child = os.fork()
    if child == 0:
        os.close(opener)
        os.read(gate, 1)
        status = 1
        try:
            service = CalibrationService()
            service.config(db_dir=sys.argv[1])
            for path in [*sys.argv[2 + who :: 4], sys.argv[2]]:
                service.add_cal(path)
            status = 0
        finally:
            os._exit(status)
    children.append(child)
os.close(gate)
os.close(opener)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_processes_can_register_in_one_store_at_once(make, place):
    paths = [str(make(f"{n}_dark.fits", "dark")) for n in range(12)]
    run_python(_ADDERS, place, *paths)
    records = LocalDB(place).list_files().records
    assert sorted(record.path for record in records) == sorted(paths)
    assert len({record.number for record in records}) == 12


def use_hundred_services(places: Iterable[str], dark: Path, facts: CalibrationFacts) -> None:
    for place in places:
        service = LocalDB(place)
        service.add_cal(dark)
        assert service.get_processed_dark(facts).files == [str(dark)]


def test_hundred_services_leave_no_file_open(make, tmp_path):
    dark, facts = make("a_dark.fits", "dark"), facts_of(astrodata.open(make("N1.fits")))
    use_hundred_services([str(tmp_path / "first.db")], dark, facts)
    before = len(list(Path("/proc/self/fd").iterdir()))
    use_hundred_services([str(tmp_path / f"{n}.db") for n in range(100)], dark, facts)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_hundred_services_leave_no_connection_open(make, postgresql):
    dark, facts = make("a_dark.fits", "dark"), facts_of(astrodata.open(make("N1.fits")))
    place = postgresql.new_place()
    # Each is another client: nothing can be shared between them.
    use_hundred_services([f"{place}&application_name=client_{n}" for n in range(100)], dark, facts)
    assert postgresql.connections_left() == 0


def test_services_can_be_sent_to_other_processes(caldb, make):
    caldb.add_cal(make("a_dark.fits", "dark"))
    copy = pickle.loads(pickle.dumps(caldb))  # noqa: S301
    assert list(copy.list_files()) == list(caldb.list_files())


def test_importing_needs_no_database_library():
    code = (
        "import sys, niripipe.cal_service as c; c.CalibrationService(); c.rules_for('flat');"
        "c.get_calservice(); assert not {'sqlite3', 'psycopg'} & set(sys.modules)"
    )
    run_python(code)


# ---------------------------------------------------------------------- repair


def test_outdated_store_is_rebuilt_from_a_folder(make, caldb, place, tmp_path):
    caldb.add_cal(make("gone_dark.fits", "dark"))
    with Store(place)._transaction(write=True) as connection:
        connection.execute(f"UPDATE niripipe_store SET value = '{SCHEMA_VERSION + 1}'")
    with pytest.raises(StorageError, match="rebuild"):
        caldb.list_files()
    assert "another version" in repr(caldb)
    for n in range(3):
        make(f"products/{n}_dark.fits", "dark")
    files = caldb.rebuild(tmp_path / "products")
    assert [f.name for f in files] == [f"{n}_dark.fits" for n in range(3)]
    assert list(caldb.list_files()) == list(files)


def test_damaged_file_is_rebuilt_from_a_folder(make, tmp_path):
    caldb = LocalDB(tmp_path)
    for n in range(3):
        caldb.add_cal(make(f"products/{n}_dark.fits", "dark"))
    store = Path(caldb.dbfile)
    store.write_bytes(store.read_bytes()[:100] + b"\xff" * 8000)
    with pytest.raises(StorageError, match="rebuild"):
        caldb.list_files()
    assert "damaged" in repr(caldb)
    assert "damaged" in caldb._repr_html_()
    files = caldb.rebuild(tmp_path / "products")
    assert [f.name for f in files] == [f"{n}_dark.fits" for n in range(3)]
    assert list(caldb.list_files()) == list(files)


def test_rebuilding_from_a_bad_file_leaves_the_store_as_it_was(make, caldb):
    caldb.add_cal(make("a_dark.fits", "dark"))
    with pytest.raises(CalibrationError):
        caldb.rebuild([make("b_dark.fits", "dark"), make("science.fits")])
    assert [f.name for f in caldb.list_files()] == ["a_dark.fits"]


def test_real_frames_tell_what_the_rules_need(shared, caldb):
    frames = sorted((shared / "data").rglob("N20160102S027*.fits*"))
    if not frames:
        pytest.skip("the tutorial night is not here")
    facts = facts_of(astrodata.open(frames[0]))
    assert (facts.filter_name, facts.read_mode, facts.coadds) == ("H_G0203", "Medium Background", 1)
    assert caldb.get_processed_dark(facts).files == [None]
