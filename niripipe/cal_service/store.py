"""The table of registered calibrations: one SQLite file, or a database server named by a URL.

Every operation is one transaction on a connection of its own, closed when it ends. Nothing is kept open
between operations, so a `Store` may be used from many threads and processes at once, and copied to others.
Writers wait for each other: SQLite takes its write lock when the transaction begins, not at the first
change, so what was read within it still holds when it is written; PostgreSQL takes an advisory lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from niripipe.cal_service.facts import CalibrationFacts
from niripipe.cal_service.records import CalibrationRecord
from niripipe.errors import StorageError

__all__ = ["Store", "StoreState"]

StoreState = Literal["absent", "ready", "foreign", "outdated"]

APPLICATION_ID = 0x4E495249
"""Marks an SQLite file as ours, in its header: the letters NIRI."""

SCHEMA_VERSION = 1

_BUSY_SECONDS = 60.0
_ADVISORY_LOCK = 0x4E495249
_metadata = sa.MetaData()

_about = sa.Table(
    "niripipe_store",
    _metadata,
    sa.Column("item", sa.String(40), primary_key=True),
    sa.Column("value", sa.String(200), nullable=False),
)
_calibrations = sa.Table(
    "niripipe_calibrations",
    _metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("path", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False, index=True),
    sa.Column("caltype", sa.String(40), nullable=False, index=True),
    sa.Column("md5", sa.String(32), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("mtime_ns", sa.BigInteger, nullable=False),
    sa.Column("registered", sa.DateTime, nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
    # Numbers are never used twice, so that the larger one is always the later one.
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, slots=True)
class Store:
    """Where calibrations are registered.

    Parameters
    ----------
    location : str
        Absolute path of an SQLite file, or a database URL such as ``postgresql+psycopg://host/name``.
    """

    location: str

    @property
    def path(self) -> Path | None:
        """The SQLite file; None for a database server."""
        return None if "://" in self.location else Path(self.location)

    def state(self) -> StoreState:
        """Return whether the store can be used.

        ``absent``: there is nothing yet. ``foreign``: another program's database. ``outdated``: made by a
        version of niripipe that this one does not understand.

        Raises
        ------
        StorageError
            It cannot be read at all.
        """
        if self.path is not None and not self.path.exists():
            return "absent"
        with self._transaction() as connection:
            return _state(connection)

    def create(self) -> None:
        """Create the tables if they do not exist yet.

        Raises
        ------
        StorageError
            Something else is there, or it cannot be written.
        """
        self.add([])

    def wipe(self, records: Sequence[CalibrationRecord] = ()) -> list[CalibrationRecord]:
        """Forget everything and register these calibrations instead; create the store if need be.

        Other processes see either the old content or the new. Only a damaged file is replaced by a new one,
        and only if its header says that it is ours.

        Returns
        -------
        list of CalibrationRecord
            As registered, with their numbers.

        Raises
        ------
        StorageError
            Something else is there, or it cannot be written.
        """
        try:
            return self._rewrite(records)
        except StorageError:
            if not self._is_ours_but_damaged():
                raise
            self._delete()
            return self._rewrite(records)

    def add(self, records: Iterable[CalibrationRecord]) -> list[CalibrationRecord]:
        """Register calibrations, replacing what was registered for their paths; create the store if need be.

        Returns
        -------
        list of CalibrationRecord
            As registered, with their numbers. What is unchanged keeps its number.
        """
        self._make_folder()
        with self._transaction(write=True) as connection:
            self._prepare(connection)
            return [_add(connection, record) for record in records]

    def remove(self, paths: Iterable[str]) -> None:
        """Forget the calibrations with these absolute paths."""
        with self._transaction(write=True) as connection:
            self._usable(connection)
            connection.execute(sa.delete(_calibrations).where(_calibrations.c.path.in_(list(paths))))

    def records(
        self, *, caltype: str | None = None, name: str | None = None, path: str | None = None
    ) -> list[CalibrationRecord]:
        """Return what is registered, in the order of registration; all of it, or of one type, name or path.

        A store that does not exist yet holds nothing.
        """
        if self.path is not None and not self.path.exists():
            return []
        query = sa.select(_calibrations).order_by(_calibrations.c.number)
        for column, value in (("caltype", caltype), ("name", name), ("path", path)):
            if value is not None:
                query = query.where(_calibrations.c[column] == value)
        with self._transaction() as connection:
            if not self._usable(connection):
                return []
            return [_record(row) for row in connection.execute(query)]

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        try:
            engine = self._engine(create=write)
            _begin_with(engine, write)
            with engine.begin() as connection:
                yield connection
        except (sa.exc.SQLAlchemyError, sqlite3.Error, ImportError) as err:
            raise self._error(err) from err

    def _engine(self, *, create: bool) -> sa.Engine:
        path = self.path
        if path is None:
            return sa.create_engine(self.location, poolclass=NullPool)

        def connect() -> sqlite3.Connection:
            # Opening by URI: reading never creates a file, and any character may be part of the path.
            mode = "rwc" if create else "rw"
            return sqlite3.connect(
                f"{path.as_uri()}?mode={mode}", uri=True, timeout=_BUSY_SECONDS, isolation_level=None
            )

        return sa.create_engine("sqlite://", creator=connect, poolclass=NullPool)

    def _rewrite(self, records: Sequence[CalibrationRecord]) -> list[CalibrationRecord]:
        self._make_folder()
        with self._transaction(write=True) as connection:
            if _state(connection) == "foreign":
                raise self._unusable("foreign")
            _drop_all(connection)
            _create_all(connection)
            return [_add(connection, record) for record in records]

    def _prepare(self, connection: sa.Connection) -> None:
        if not self._usable(connection):
            _create_all(connection)

    def _usable(self, connection: sa.Connection) -> bool:
        state = _state(connection)
        if state in ("foreign", "outdated"):
            raise self._unusable(state)
        return state == "ready"

    def _unusable(self, state: StoreState) -> StorageError:
        if state == "foreign":
            return StorageError(
                "this database belongs to another program and is left alone",
                file=self.shown,
                remedy="Choose another place with config(db_dir=...)",
            )
        return StorageError(
            "this calibration store was made by another version of niripipe",
            file=self.shown,
            expected=f"version {SCHEMA_VERSION}",
            remedy="Recreate it from the calibration files with rebuild()",
        )

    @property
    def shown(self) -> str:
        """The location for people to read, without password."""
        if self.path is not None:
            return self.location
        return sa.make_url(self.location).render_as_string(hide_password=True)

    def _error(self, err: Exception) -> StorageError:
        cause = getattr(err, "orig", None) or err
        code = getattr(cause, "sqlite_errorname", "")
        problem, remedy = next(
            (words for start, words in _SQLITE_TROUBLE.items() if code.startswith(start)),
            ("the calibration store cannot be used", "Check the location given to config()"),
        )
        return StorageError(problem, file=self.shown, found=str(cause).splitlines()[0], remedy=remedy)

    def _make_folder(self) -> None:
        if self.path is None or self.path.parent.is_dir():
            return
        folder = self.path.parent
        if not folder.parent.is_dir():
            raise StorageError(
                "the folder for the calibration store does not exist",
                file=folder,
                remedy="Create it first, or choose another place with config(db_dir=...)",
            )
        try:
            folder.mkdir(exist_ok=True)
        except OSError as err:
            raise StorageError(
                "the folder for the calibration store cannot be created", file=folder, found=err.strerror
            ) from err

    def _is_ours_but_damaged(self) -> bool:
        if self.path is None or not self.path.is_file():
            return False
        with self.path.open("rb") as stream:
            header = stream.read(72)
        ours = header.startswith(b"SQLite format 3\0") and header[68:72] == APPLICATION_ID.to_bytes(4, "big")
        try:
            with self._transaction() as connection:
                sound = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar() == "ok"
        except StorageError:
            sound = False
        return ours and not sound

    def _delete(self) -> None:
        assert self.path is not None
        try:
            # The journal first: left behind, it would be played back into the new file.
            self.path.with_name(self.path.name + "-journal").unlink(missing_ok=True)
            self.path.unlink()
        except OSError as err:
            raise StorageError(
                "the damaged calibration store cannot be deleted", file=self.path, found=err.strerror
            ) from err


# By the beginning of SQLite's name for what went wrong: the problem and its remedy.
_SQLITE_TROUBLE = {
    "SQLITE_BUSY": (
        "the calibration store is locked by another process",
        f"Try again; it was waited for {_BUSY_SECONDS:g} s",
    ),
    "SQLITE_READONLY": (
        "the calibration store is write-protected",
        "Change its permissions and those of its folder",
    ),
    "SQLITE_CORRUPT": (
        "the calibration store is damaged",
        "Recreate it from the calibration files with rebuild()",
    ),
    "SQLITE_NOTADB": (
        "this file is not a calibration store",
        "Choose another place with config(db_dir=...), or, if it was a store, move it away and rebuild()",
    ),
    "SQLITE_FULL": ("the disk is full", "Make room for the calibration store"),
    "SQLITE_CANTOPEN": (
        "the calibration store cannot be opened",
        "Check that its folder exists and may be written to",
    ),
}


def _begin_with(engine: sa.Engine, write: bool) -> None:
    statement = {
        "sqlite": "BEGIN IMMEDIATE" if write else "BEGIN",
        "postgresql": f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})" if write else None,
    }.get(engine.dialect.name)
    if statement is not None:

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql(statement)


def _state(connection: sa.Connection) -> StoreState:
    tables = set(sa.inspect(connection).get_table_names())
    if connection.dialect.name == "sqlite":
        marker = connection.exec_driver_sql("PRAGMA application_id").scalar()
        if marker != APPLICATION_ID:
            return "foreign" if marker or tables else "absent"
    elif not tables & set(_metadata.tables):
        # A server's database is shared with others: only our own tables count.
        return "absent"
    if not set(_metadata.tables) <= tables:
        return "outdated"
    query = sa.select(_about.c.value).where(_about.c.item == "version")
    return "ready" if connection.execute(query).scalar() == str(SCHEMA_VERSION) else "outdated"


def _create_all(connection: sa.Connection) -> None:
    _metadata.create_all(connection)
    connection.execute(sa.insert(_about).values(item="version", value=str(SCHEMA_VERSION)))
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")


def _drop_all(connection: sa.Connection) -> None:
    tables = sa.MetaData()
    tables.reflect(connection, only=lambda name, _: name.startswith("niripipe_"))
    tables.drop_all(connection)


def _add(connection: sa.Connection, record: CalibrationRecord) -> CalibrationRecord:
    there = _calibrations.c.path == record.path
    row = connection.execute(sa.select(_calibrations).where(there)).one_or_none()
    if row is not None and row.md5 == record.md5 and row.facts == record.facts.to_json():
        values = {"size": record.size, "mtime_ns": record.mtime_ns}
        connection.execute(sa.update(_calibrations).where(there).values(values))
        return _record(connection.execute(sa.select(_calibrations).where(there)).one())
    connection.execute(sa.delete(_calibrations).where(there))
    connection.execute(
        sa.insert(_calibrations).values(
            path=record.path,
            name=record.name,
            caltype=record.caltype,
            md5=record.md5,
            size=record.size,
            mtime_ns=record.mtime_ns,
            registered=record.registered,
            facts=record.facts.to_json(),
        )
    )
    return _record(connection.execute(sa.select(_calibrations).where(there)).one())


def _record(row: sa.Row[Any]) -> CalibrationRecord:
    return CalibrationRecord(
        path=row.path,
        caltype=row.caltype,
        md5=row.md5,
        size=row.size,
        mtime_ns=row.mtime_ns,
        registered=row.registered,
        facts=CalibrationFacts.from_json(row.facts),
        number=row.number,
    )
