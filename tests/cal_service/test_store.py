"""What holds for a store in each kind of database; see the tests of the backends for what differs."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from niripipe.cal_service.store import Store
from niripipe.cal_service.tables import SCHEMA_VERSION
from niripipe.errors import StorageError

from .facts_for_tests import FLAT
from .processes_for_tests import run_python
from .records_for_tests import record


@pytest.fixture
def store(place) -> Store:
    return Store(place)


def change(store: Store, statement: str) -> None:
    """Change a store behind our back."""
    with store._transaction(write=True) as connection:
        connection.execute(statement)


def test_what_is_added_comes_back_as_it_was(store):
    (added,) = store.add([record()])
    assert store.records() == [added]
    assert added == record(number=1)


def test_looking_creates_nothing(store):
    assert store.state() == "absent"
    assert store.records() == []
    store.remove(["/data/a_dark.fits"])
    assert store.state() == "absent"
    assert not Path(store.location).exists()


def test_created_store_is_ready_and_stays_as_it_is(store):
    store.add([])
    assert store.state() == "ready"
    store.add([record()])
    store.add([])
    assert len(store.records()) == 1


def test_unchanged_record_keeps_its_number_and_a_changed_one_is_replaced(store):
    store.add([record(), record("/data/b.fits")])
    (again,) = store.add([record(mtime_ns=5)])
    assert (again.number, again.mtime_ns) == (1, 5)
    (changed,) = store.add([record(md5="1" * 32)])
    assert changed.number == 3
    assert [r.number for r in store.records()] == [2, 3]


def test_many_are_registered_at_once_in_their_order(store):
    store.add([record(f"/data/{n}.fits") for n in range(0, 2500, 100)])
    wanted = [record(f"/data/{n}.fits", size=n) for n in reversed(range(2500))]
    added = store.add([*wanted, wanted[0]])
    assert [(r.path, r.size) for r in added] == [(r.path, r.size) for r in [*wanted, wanted[0]]]
    numbers = {r.path: r.number for r in added}
    assert [numbers[f"/data/{n}.fits"] for n in range(0, 2500, 100)] == list(range(1, 26))
    new = [r.number for r in added[:-1] if r.size % 100]
    assert new == sorted(new)
    assert len(store.records()) == 2500
    store.remove([r.path for r in wanted[:2400]])
    assert len(store.records()) == 100


def test_records_are_selected_by_type_name_and_path(store):
    store.add([record("/x/a.fits"), record("/y/a.fits"), record("/y/b.fits", caltype="processed_flat")])
    assert [r.path for r in store.records(caltype="processed_flat")] == ["/y/b.fits"]
    assert [r.path for r in store.records(name="a.fits")] == ["/x/a.fits", "/y/a.fits"]
    assert [r.path for r in store.records(path="/y/a.fits")] == ["/y/a.fits"]


def test_removed_numbers_are_not_used_again(store):
    store.add([record("/x/a.fits"), record("/y/a.fits")])
    store.remove(["/y/a.fits"])
    assert store.add([record("/z/a.fits")])[0].number == 3
    assert store.wipe([record("/z/b.fits")])[0].number == 4


def test_an_error_within_a_transaction_leaves_everything_as_it_was(store):
    store.add([record()])
    with pytest.raises(StorageError):
        store.add([record("/x/b.fits"), record("/x/c.fits", md5=None)])
    assert [r.path for r in store.records()] == ["/data/a_dark.fits"]


def test_wipe_empties_and_registers_anew_in_one_step(store):
    store.wipe([record()])
    assert [r.path for r in store.records()] == ["/data/a_dark.fits"]
    store.wipe([record("/x/b.fits")])
    assert [r.path for r in store.records()] == ["/x/b.fits"]
    with pytest.raises(StorageError):
        store.wipe([record("/x/c.fits", md5=None)])
    assert [r.path for r in store.records()] == ["/x/b.fits"]


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE niripipe_store SET value = '{SCHEMA_VERSION + 1}'",
        "DROP TABLE niripipe_calibrations",
        "ALTER TABLE niripipe_calibrations RENAME COLUMN facts TO guesses",
        "ALTER TABLE niripipe_calibrations ADD COLUMN more INTEGER",
    ],
)
def test_store_of_another_version_is_refused_until_wiped(statement, store):
    store.add([record()])
    change(store, statement)
    assert store.state() == "outdated"
    for action in (lambda: store.add([]), store.records, lambda: store.remove(["/data/a_dark.fits"])):
        with pytest.raises(StorageError, match=r"another version.*rebuild"):
            action()
    store.wipe([record()])
    assert store.state() == "ready"
    assert len(store.records()) == 1


def test_wiping_touches_no_table_but_the_two(store):
    store.add([record()])
    change(store, "CREATE TABLE niripipe_night_log (entry TEXT)")
    change(store, "INSERT INTO niripipe_night_log VALUES ('clear')")
    change(store, f"UPDATE niripipe_store SET value = '{SCHEMA_VERSION + 1}'")
    store.wipe()
    # Fails if the table is gone.
    change(store, "UPDATE niripipe_night_log SET entry = 'cloudy'")


def test_damaged_entry_is_a_storage_error_until_wiped(store):
    store.add([record()])
    change(store, "UPDATE niripipe_calibrations SET facts = '[1]'")
    with pytest.raises(StorageError, match=r"damaged.*rebuild"):
        store.records()
    assert len(store.wipe([record()])) == 1
    assert len(store.records()) == 1


def test_other_errors_within_a_transaction_stay_what_they_are_and_undo_it(store):
    store.add([record()])

    def fail() -> None:
        with store._transaction(write=True) as connection:
            connection.execute("DELETE FROM niripipe_calibrations")
            raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        fail()
    assert len(store.records()) == 1


def test_name_that_no_database_can_hold_is_a_storage_error(store):
    with pytest.raises(StorageError, match="Rename the file"):
        store.add([record("/data/\udcff_dark.fits")])
    assert store.records() == []


def test_facts_survive_the_store(store):
    facts = replace(FLAT, ut_datetime=datetime(2016, 1, 2, 3, 4, 5, 678900), filter_name="H2v=1-0s1&K é 银")
    store.add([record("/data/é 100% 'a' \"b\" 银.fits", facts=facts)])
    assert store.records()[0].facts == facts
    assert store.records()[0].path == "/data/é 100% 'a' \"b\" 银.fits"


def test_stores_can_be_sent_to_other_processes(store):
    store.add([record()])
    copy = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert copy == store
    assert copy.records() == store.records()


def test_locked_store_is_read_but_writers_wait_only_so_long(store, monkeypatch):
    store.add([])
    monkeypatch.setattr("niripipe.cal_service.backends.BUSY_SECONDS", 0.1)
    with store._transaction(write=True):
        assert store.records() == []
        with pytest.raises(StorageError, match="locked by another process"):
            store.add([record()])
    assert len(store.add([record()])) == 1


def test_threads_can_write_at_once(store):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.add([record(f"/data/{n % 20}.fits")]), range(60)))
    assert sorted(r.path for r in store.records()) == sorted(f"/data/{n}.fits" for n in range(20))


# Processes are forked when everything is imported, and wait for each other: then they all write at once.
_WRITERS = """
import os, sys
from dataclasses import replace
from datetime import datetime
from niripipe.cal_service import CalibrationFacts, CalibrationRecord
from niripipe.cal_service.store import Store

store = Store(sys.argv[1])
record = CalibrationRecord("", "processed_dark", "0" * 32, 1, 1, datetime(2026, 1, 1), CalibrationFacts())
gate, opener = os.pipe()
children = []
for who in range(4):
    child = os.fork()
    if child == 0:
        os.close(opener)
        os.read(gate, 1)
        status = 1
        try:
            for n in range(8):
                store.add([replace(record, path=f"/data/{who}_{n}.fits")])
                store.add([replace(record, path="/data/shared.fits", md5=str(who) * 32)])
                if n % 3 == 0:
                    store.remove([f"/data/{who}_{n}.fits"])
            status = 0
        finally:
            os._exit(status)
    children.append(child)
os.close(gate)
os.close(opener)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_processes_can_create_and_write_one_store_at_once(store):
    run_python(_WRITERS, store.location)
    records = store.records()
    expected = [f"/data/{who}_{n}.fits" for who in range(4) for n in range(8) if n % 3]
    assert sorted(r.path for r in records) == sorted([*expected, "/data/shared.fits"])
    numbers = [r.number for r in records]
    assert numbers == sorted(set(numbers))


def test_location_is_shown_without_password():
    store = Store("postgresql+psycopg://me:secret@host/name?password=secret&sslpassword=secret")
    assert store.shown == "postgresql+psycopg://me:***@host/name?password=***&sslpassword=***"
    assert repr(store) == f"Store('{store.shown}')"
    assert "secret" not in f"{store!r} {store}"
    assert repr(Store("/data/cal_manager.db")) == "Store('/data/cal_manager.db')"


@pytest.mark.parametrize("scheme", ["nodatabase", "postgresql", "postgresql+psycopg"])
def test_unreachable_server_is_a_storage_error_without_the_password(scheme):
    store = Store(f"{scheme}://me:secret@localhost:1/name?connect_timeout=2")
    for action in (store.records, lambda: store.add([]), store.state, store.wipe):
        with pytest.raises(StorageError) as caught:
            action()
        assert "secret" not in str(caught.value)
        assert "***" in caught.value.file


def test_error_tells_what_the_database_said(store):
    store.add([])
    with pytest.raises(StorageError) as caught:
        store.add([record(md5=None)])
    assert "IntegrityError" in [kind.__name__ for kind in type(caught.value.__cause__).__mro__]
    assert "md5" in caught.value.found
