from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from niripipe.cal_service import CalibrationFacts
from niripipe.cal_service.store import Store
from niripipe.errors import StorageError

from .records_for_tests import record


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "cal_manager.db"))


def test_created_file_is_marked_as_ours(store):
    store.add([])
    assert Path(store.location).read_bytes()[68:72] == b"NIRI"


_FACTS = (
    '{"camera": null, "coadds": null, "data_label": null, "data_section": null, "detector_binning": null, '
    '"detector_section": null, "disperser": null, "exposure_time": null, "filename": "", '
    '"filter_name": null, "focal_plane_mask": null, "gcal_lamp": null, "instrument": null, "object": null, '
    '"observation_class": null, "processing_mode": null, "program_id": null, "qa_state": null, '
    '"read_mode": null, "tags": [], "uses_lamp_flats": null, "ut_datetime": null, '
    '"well_depth_setting": null}'
)
_MADE_BEFORE = f"""
CREATE TABLE niripipe_store (
    item VARCHAR(40) NOT NULL,
    value VARCHAR(200) NOT NULL,
    PRIMARY KEY (item)
);
CREATE TABLE niripipe_calibrations (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL,
    name TEXT NOT NULL,
    caltype VARCHAR(40) NOT NULL,
    md5 VARCHAR(32) NOT NULL,
    size BIGINT NOT NULL,
    mtime_ns BIGINT NOT NULL,
    registered DATETIME NOT NULL,
    facts TEXT NOT NULL,
    UNIQUE (path)
);
CREATE INDEX ix_niripipe_calibrations_caltype ON niripipe_calibrations (caltype);
CREATE INDEX ix_niripipe_calibrations_name ON niripipe_calibrations (name);
INSERT INTO niripipe_store VALUES ('version', '1');
INSERT INTO niripipe_calibrations VALUES (1, '/data/a.fits', 'a.fits', 'processed_dark',
 '00000000000000000000000000000000', 2880, 1700000000123456789, '2026-01-01 00:00:00.000000', '{_FACTS}');
INSERT INTO niripipe_calibrations VALUES (2, '/data/é.fits', 'é.fits', 'processed_dark',
 '11111111111111111111111111111111', 2880, 1700000000123456789, '2026-01-01 02:03:04.005678', '{_FACTS}');
PRAGMA application_id = 1313428041;
"""
_FIRST = record("/data/a.fits", registered=datetime(2026, 1, 1), facts=CalibrationFacts(), number=1)
_SECOND = replace(
    _FIRST, path="/data/é.fits", md5="1" * 32, registered=datetime(2026, 1, 1, 2, 3, 4, 5678), number=2
)


def made_before(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_MADE_BEFORE)


def test_file_made_before_is_read_and_written(store):
    made_before(Path(store.location))
    assert store.state() == "ready"
    assert store.records() == [_FIRST, _SECOND]
    assert store.add([_SECOND, replace(_FIRST, md5="2" * 32)])[1].number == 3
    store.remove([_SECOND.path])
    assert [(r.path, r.number) for r in store.records()] == [("/data/a.fits", 3)]


def test_file_is_what_it_always_was(store, tmp_path):
    """The columns, indexes and values, and how each value is stored, as in a file made before."""

    def content(path: Path) -> list[list[tuple]]:
        queries = [
            "SELECT s.name, c.* FROM sqlite_master s, pragma_table_info(s.name) c"
            " WHERE s.type = 'table' ORDER BY 1, 2",
            "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'index' ORDER BY 1",
            "SELECT * FROM sqlite_sequence",
            "SELECT * FROM niripipe_store",
            "SELECT *, typeof(registered) FROM niripipe_calibrations",
            "PRAGMA application_id",
            "PRAGMA user_version",
        ]
        with closing(sqlite3.connect(path)) as connection:
            return [connection.execute(query).fetchall() for query in queries]

    made_before(tmp_path / "before.db")
    store.add([_FIRST, _SECOND])
    assert content(Path(store.location)) == content(tmp_path / "before.db")


@pytest.mark.parametrize("value", ["'yesterday'", "12"])
def test_damaged_time_is_a_storage_error_until_wiped(value, store):
    store.add([record()])
    with closing(sqlite3.connect(Path(store.location))) as connection, connection:
        connection.execute(f"UPDATE niripipe_calibrations SET registered = {value}")
    with pytest.raises(StorageError, match=r"damaged.*rebuild"):
        store.records()
    store.wipe([record()])
    assert len(store.records()) == 1


def test_empty_file_is_as_good_as_none(store):
    Path(store.location).write_bytes(b"")
    assert store.state() == "absent"
    assert store.records() == []
    store.add([])
    assert store.state() == "ready"


def test_any_character_may_be_part_of_the_path(tmp_path):
    folder = tmp_path / "a b%20c?d#e&mode=ro é"
    folder.mkdir()
    store = Store(str(folder / "x.db"))
    store.add([record()])
    assert len(store.records()) == 1
    assert sorted(p.name for p in folder.iterdir()) == ["x.db"]


def test_last_folder_is_created_but_not_those_above(tmp_path):
    Store(str(tmp_path / "new" / "x.db")).add([])
    with pytest.raises(StorageError, match="does not exist"):
        Store(str(tmp_path / "no" / "such" / "x.db")).add([])
    assert not (tmp_path / "no").exists()


def foreign_database(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    connection.execute("create table diskfile (id integer)")
    connection.commit()
    connection.close()
    return path.read_bytes()


def test_database_of_another_program_is_refused_and_left_alone(store):
    before = foreign_database(Path(store.location))
    assert store.state() == "foreign"
    for action in (lambda: store.add([]), store.wipe, store.records, lambda: store.add([record()])):
        with pytest.raises(StorageError, match=r"another program.*db_dir"):
            action()
    assert Path(store.location).read_bytes() == before


def test_file_that_is_no_database_is_refused_and_left_alone(store):
    content = b"SIMPLE  =                    T" * 100
    Path(store.location).write_bytes(content)
    for action in (lambda: store.add([]), store.wipe, store.records, store.state):
        with pytest.raises(StorageError, match="not a calibration store"):
            action()
    assert Path(store.location).read_bytes() == content


def test_damaged_store_is_reported_and_can_be_wiped(store):
    store.add([record(f"/data/{n}.fits") for n in range(200)])
    content = bytearray(Path(store.location).read_bytes())
    content[100:] = os.urandom(len(content) - 100)
    Path(store.location).write_bytes(content)
    for action in (lambda: store.add([]), store.records):
        with pytest.raises(StorageError, match="damaged"):
            action()
    store.wipe([record()])
    assert len(store.records()) == 1


def test_truncated_store_is_reported_and_can_be_wiped(store):
    store.add([record(f"/data/{n}.fits") for n in range(200)])
    os.truncate(Path(store.location), 5000)
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
        content = Path(store.location).read_bytes()
        with write_protected(Path(store.location)):
            assert [r.path for r in store.records()] == ["/data/a_dark.fits"]
            for action in (
                lambda: store.add([record("/x/b.fits")]),
                store.wipe,
                lambda: store.remove(["/x"]),
            ):
                with pytest.raises(StorageError, match=r"write-protected.*permissions"):
                    action()
            with pytest.raises(StorageError, match="cannot be opened"):
                Store(f"{folder}/new.db").add([])
        assert Path(store.location).read_bytes() == content


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
