from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

import niripipe.errors
from niripipe.cal_service import CalibrationRecord
from niripipe.cal_service.store import SCHEMA_VERSION, Store
from niripipe.errors import StorageError

from .facts_for_tests import DARK, FLAT

NOW = datetime(2026, 1, 1)


def record(name: str = "/data/a_dark.fits", **values) -> CalibrationRecord:
    start = CalibrationRecord(name, "processed_dark", "0" * 32, 2880, 1_700_000_000_123_456_789, NOW, DARK)
    return replace(start, **values)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "cal_manager.db"))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_is_added_comes_back_as_it_was(store):
    (added,) = store.add([record()])
    assert store.records() == [added]
    assert added == record(number=1)


def test_looking_never_creates_a_file(store):
    assert store.state() == "absent"
    assert store.records() == []
    assert not store.path.exists()


def test_created_store_is_ready_and_marked_as_ours(store):
    store.create()
    store.create()
    assert store.state() == "ready"
    assert store.path.read_bytes()[68:72] == b"NIRI"


def test_empty_file_is_as_good_as_none(store):
    store.path.write_bytes(b"")
    assert store.state() == "absent"
    assert store.records() == []
    store.create()
    assert store.state() == "ready"


def test_unchanged_record_keeps_its_number_and_a_changed_one_is_replaced(store):
    store.add([record(), record("/data/b.fits")])
    (again,) = store.add([record(mtime_ns=5)])
    assert (again.number, again.mtime_ns) == (1, 5)
    (changed,) = store.add([record(md5="1" * 32)])
    assert changed.number == 3
    assert [r.number for r in store.records()] == [2, 3]


def test_records_are_selected_by_type_name_and_path(store):
    store.add([record("/x/a.fits"), record("/y/a.fits"), record("/y/b.fits", caltype="processed_flat")])
    assert [r.path for r in store.records(caltype="processed_flat")] == ["/y/b.fits"]
    assert [r.path for r in store.records(name="a.fits")] == ["/x/a.fits", "/y/a.fits"]
    assert [r.path for r in store.records(path="/y/a.fits")] == ["/y/a.fits"]


def test_removed_numbers_are_not_used_again(store):
    store.add([record("/x/a.fits"), record("/y/a.fits")])
    store.remove(["/y/a.fits"])
    assert store.add([record("/z/a.fits")])[0].number == 3


def test_an_error_within_a_transaction_leaves_everything_as_it_was(store):
    store.add([record()])
    with pytest.raises(StorageError):
        store.add([record("/x/b.fits"), record("/x/c.fits", md5=None)])
    assert [r.path for r in store.records()] == ["/data/a_dark.fits"]


def test_wipe_empties_and_registers_anew_in_one_step(store):
    store.add([record()])
    store.wipe([record("/x/b.fits")])
    assert [r.path for r in store.records()] == ["/x/b.fits"]
    with pytest.raises(StorageError):
        store.wipe([record("/x/c.fits", md5=None)])
    assert [r.path for r in store.records()] == ["/x/b.fits"]


def test_any_character_may_be_part_of_the_path(tmp_path):
    folder = tmp_path / "a b%20c?d#e&mode=ro é"
    folder.mkdir()
    store = Store(str(folder / "x.db"))
    store.add([record()])
    assert len(store.records()) == 1
    assert sorted(p.name for p in folder.iterdir()) == ["x.db"]


def test_last_folder_is_created_but_not_those_above(tmp_path):
    Store(str(tmp_path / "new" / "x.db")).create()
    with pytest.raises(StorageError, match="does not exist"):
        Store(str(tmp_path / "no" / "such" / "x.db")).create()
    assert not (tmp_path / "no").exists()


def foreign_database(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    connection.execute("create table diskfile (id integer)")
    connection.commit()
    connection.close()
    return path.read_bytes()


def test_database_of_another_program_is_refused_and_left_alone(store):
    before = foreign_database(store.path)
    assert store.state() == "foreign"
    for action in (store.create, store.wipe, store.records, lambda: store.add([record()])):
        with pytest.raises(StorageError, match=r"another program.*db_dir"):
            action()
    assert store.path.read_bytes() == before


def test_file_that_is_no_database_is_refused_and_left_alone(store):
    content = b"SIMPLE  =                    T" * 100
    store.path.write_bytes(content)
    for action in (store.create, store.wipe, store.records, store.state):
        with pytest.raises(StorageError, match="not a calibration store"):
            action()
    assert store.path.read_bytes() == content


def test_store_of_another_version_is_refused_until_wiped(store):
    store.add([record()])
    connection = sqlite3.connect(store.path)
    connection.execute("update niripipe_store set value = ?", (str(SCHEMA_VERSION + 1),))
    connection.commit()
    connection.close()
    assert store.state() == "outdated"
    for action in (store.create, store.records):
        with pytest.raises(StorageError, match=r"another version.*rebuild"):
            action()
    store.wipe([record()])
    assert len(store.records()) == 1


def test_damaged_store_is_reported_and_can_be_wiped(store):
    store.add([record(f"/data/{n}.fits") for n in range(200)])
    content = bytearray(store.path.read_bytes())
    content[100:] = os.urandom(len(content) - 100)
    store.path.write_bytes(content)
    for action in (store.create, store.records):
        with pytest.raises(StorageError, match="damaged"):
            action()
    store.wipe([record()])
    assert len(store.records()) == 1


def test_truncated_store_is_reported_and_can_be_wiped(store):
    store.add([record(f"/data/{n}.fits") for n in range(200)])
    os.truncate(store.path, 5000)
    with pytest.raises(StorageError):
        store.records()
    store.wipe()
    assert store.records() == []


def test_damaged_entry_is_a_storage_error(store):
    store.add([record()])
    connection = sqlite3.connect(store.path)
    connection.execute("update niripipe_calibrations set facts = '[1]'")
    connection.commit()
    connection.close()
    with pytest.raises(StorageError, match=r"damaged.*rebuild"):
        store.records()


@pytest.mark.skipif(os.geteuid() == 0, reason="the super-user may write anywhere")
def test_write_protected_store_can_be_read(store):
    store.add([record()])
    store.path.chmod(0o444)
    store.path.parent.chmod(0o555)
    try:
        assert len(store.records()) == 1
        with pytest.raises(StorageError, match="write-protected"):
            store.add([record("/x/b.fits")])
    finally:
        store.path.parent.chmod(0o755)


def test_locked_store_says_so(store, monkeypatch):
    store.create()
    monkeypatch.setattr("niripipe.cal_service.store._BUSY_SECONDS", 0.1)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        assert store.records() == []
        with pytest.raises(StorageError, match="locked by another process"):
            store.add([record()])
    finally:
        other.close()


def test_unreachable_server_is_a_storage_error_without_the_password():
    store = Store("nodatabase://me:secret@host/name")
    with pytest.raises(StorageError) as caught:
        store.records()
    assert "secret" not in str(caught.value)


def test_stores_can_be_sent_to_other_processes(store):
    assert pickle.loads(pickle.dumps(store)) == store  # noqa: S301


def test_nothing_stays_open(tmp_path):
    Store(str(tmp_path / "0.db")).add([record()])
    before = descriptors()
    for n in range(100):
        store = Store(str(tmp_path / f"{n}.db"))
        store.add([record()])
        store.records()
    assert descriptors() == before
    assert {p.suffix for p in tmp_path.iterdir()} == {".db"}


def test_threads_can_write_at_once(store):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.add([record(f"/data/{n % 20}.fits")]), range(60)))
    assert sorted(r.path for r in store.records()) == sorted(f"/data/{n}.fits" for n in range(20))


_WRITER = """
import sys
from dataclasses import replace
from datetime import datetime
from niripipe.cal_service import CalibrationFacts, CalibrationRecord
from niripipe.cal_service.store import Store

store, who = Store(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
record = CalibrationRecord("", "processed_dark", "0" * 32, 1, 1, datetime(2026, 1, 1), CalibrationFacts())
for n in range(15):
    store.add([replace(record, path=f"/data/{who}_{n}.fits")])
    store.add([replace(record, path="/data/shared.fits", md5=who * 32)])
"""


def test_processes_can_create_and_write_one_store_at_once(store):
    env = {**os.environ, "PYTHONPATH": str(Path(niripipe.errors.__file__).parents[1])}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, store.location, str(who)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        for who in range(4)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert (writer.returncode, errors) == (0, "")
    paths = [r.path for r in store.records()]
    expected = [f"/data/{who}_{n}.fits" for who in range(4) for n in range(15)] + ["/data/shared.fits"]
    assert sorted(paths) == sorted(expected)


def test_tables_can_be_made_on_a_server():
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateTable

    from niripipe.cal_service.store import _calibrations

    statement = str(CreateTable(_calibrations).compile(dialect=postgresql.dialect()))
    assert "number SERIAL" in statement
    assert "mtime_ns BIGINT" in statement


def test_facts_survive_the_store(store):
    facts = replace(FLAT, ut_datetime=datetime(2016, 1, 2, 3, 4, 5, 678900), filter_name="H2v=1-0s1&K é")
    store.add([record(facts=facts)])
    assert store.records()[0].facts == facts
