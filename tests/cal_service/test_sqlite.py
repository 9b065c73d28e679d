from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from niripipe.cal_service.store import Store
from niripipe.errors import StorageError

from .records_for_tests import record


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "cal_manager.db"))


def test_created_file_is_marked_as_ours(store):
    store.create()
    assert store.path.read_bytes()[68:72] == b"NIRI"


def test_empty_file_is_as_good_as_none(store):
    store.path.write_bytes(b"")
    assert store.state() == "absent"
    assert store.records() == []
    store.create()
    assert store.state() == "ready"


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


@contextmanager
def write_protected(path: Path) -> Iterator[None]:
    """Protect a file and its folder, from root as well, who is made an ordinary user meanwhile."""
    is_root = os.geteuid() == 0
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        if is_root:
            os.seteuid(65534)
        yield
    finally:
        if is_root:
            os.seteuid(0)
        path.parent.chmod(0o755)


def test_write_protected_store_can_be_read_but_not_changed():
    # Not in pytest's folder, which an ordinary user cannot look into if it is root's.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        store = Store(f"{folder}/x.db")
        store.add([record()])
        content = store.path.read_bytes()
        with write_protected(store.path):
            assert [r.path for r in store.records()] == ["/data/a_dark.fits"]
            for action in (
                lambda: store.add([record("/x/b.fits")]),
                store.wipe,
                lambda: store.remove(["/x"]),
            ):
                with pytest.raises(StorageError, match=r"write-protected.*permissions"):
                    action()
            with pytest.raises(StorageError, match="cannot be opened"):
                Store(f"{folder}/new.db").create()
        assert store.path.read_bytes() == content


def test_nothing_stays_open(tmp_path):
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the system does not list the files that are open")
    Store(str(tmp_path / "0.db")).add([record()])
    before = descriptors()
    for n in range(20):
        store = Store(str(tmp_path / f"{n}.db"))
        store.add([record()])
        store.records()
    assert descriptors() == before
    assert {p.suffix for p in tmp_path.iterdir()} == {".db"}
