"""The table of registered calibrations: in one SQLite file, or in a PostgreSQL database named by a URL.

Every operation is one transaction on a connection of its own, closed when it ends. Nothing is kept open
between operations, so a `Store` may be used from many threads and processes at once, and copied to others.
Writers wait for each other from the beginning of the transaction, so what was read within it still holds when
it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Literal

from niripipe.cal_service import tables
from niripipe.cal_service.backends import Backend, PostgresServer, SqliteFile, Trouble
from niripipe.cal_service.config import StoreLocation, is_url, shown, store_file
from niripipe.cal_service.records import CalibrationRecord
from niripipe.cal_service.tables import Connection
from niripipe.errors import StorageError
from niripipe.logutils import get_logger

__all__ = ["Store", "StoreState", "beside_foreign"]

log = get_logger(__name__)

StoreState = Literal["absent", "ready", "foreign", "outdated"]

# Servers quote whole statements and rows.
_FOUND_LENGTH = 240

_BAD_NAME = Trouble("a name cannot be written to the calibration store", "Rename the file")


@dataclass(frozen=True, slots=True, repr=False)
class Store:
    """Where calibrations are registered.

    Parameters
    ----------
    location : str
        Absolute path of an SQLite file, or a URL such as ``postgresql+psycopg://host/name``.
    """

    location: str

    @property
    def shown(self) -> str:
        """The location for people to read, without password."""
        return shown(self.location) if is_url(self.location) else self.location

    def state(self) -> StoreState:
        """Return whether the store can be used.

        ``absent``: there is nothing yet. ``foreign``: another program's database, or tables. ``outdated``:
        made by a version of niripipe that this one does not understand, or changed by someone else.

        Raises
        ------
        StorageError
            It cannot be read at all.
        """
        if not self._backend.exists():
            return "absent"
        with self._transaction() as connection:
            return self._state(connection)

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
            if not self._backend.discard_damaged():
                raise
            return self._rewrite(records)

    def add(self, records: Iterable[CalibrationRecord]) -> list[CalibrationRecord]:
        """Register calibrations, replacing what was registered for their paths; create the store if need be.

        Returns
        -------
        list of CalibrationRecord
            As registered, with their numbers. What is unchanged keeps its number.

        Raises
        ------
        StorageError
            Something else is there, or it cannot be written; nothing is registered then.
        """
        self._backend.prepare()
        with self._transaction(write=True) as connection:
            if not self._usable(connection):
                self._create(connection)
            return tables.add(connection, list(records))

    def remove(self, paths: Iterable[str]) -> None:
        """Forget the calibrations with these absolute paths.

        Raises
        ------
        StorageError
            Something else is there, or it cannot be written.
        """
        if not self._backend.exists():
            return
        with self._transaction(write=True) as connection:
            if self._usable(connection):
                tables.remove(connection, paths)

    def records(
        self, *, caltype: str | None = None, name: str | None = None, path: str | None = None
    ) -> list[CalibrationRecord]:
        """Return what is registered, in the order of registration; all of it, or of one type, name or path.

        A store that does not exist yet holds nothing.

        Raises
        ------
        StorageError
            Something else is there, or it cannot be read.
        """
        if not self._backend.exists():
            return []
        with self._transaction() as connection:
            if not self._usable(connection):
                return []
            return tables.select(connection, caltype=caltype, name=name, path=path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shown!r})"

    @property
    def _backend(self) -> Backend:
        return PostgresServer(self.location) if is_url(self.location) else SqliteFile(Path(self.location))

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[Connection]:
        backend = self._backend
        try:
            with closing(backend.connect(write=write)) as driver, driver:
                connection = Connection(driver, backend.dialect)
                backend.begin(connection, write=write)
                yield connection
        except Exception as err:
            trouble = _BAD_NAME if isinstance(err, UnicodeError) else backend.trouble(err)
            if trouble is None:
                raise
            found = shorten(shown(str(err)), _FOUND_LENGTH) or type(err).__name__
            problem, remedy = trouble
            raise StorageError(problem, file=self.shown, found=found, remedy=remedy) from err

    def _rewrite(self, records: Sequence[CalibrationRecord]) -> list[CalibrationRecord]:
        self._backend.prepare()
        with self._transaction(write=True) as connection:
            state = self._state(connection)
            if state == "foreign":
                raise self._unusable(state)
            if state == "ready":
                # Kept, not made anew: others may have given privileges on the tables, or look at them.
                tables.clear(connection)
            else:
                tables.drop_all(connection)
                self._create(connection)
            return tables.add(connection, records)

    def _create(self, connection: Connection) -> None:
        tables.create_all(connection)
        self._backend.mark(connection)

    def _usable(self, connection: Connection) -> bool:
        state = self._state(connection)
        if state in ("foreign", "outdated"):
            raise self._unusable(state)
        return state == "ready"

    def _state(self, connection: Connection) -> StoreState:
        layout = self._backend.layout(connection)
        about = layout.get(tables.ABOUT)
        version = tables.version(connection) if about == tables.LAYOUT[tables.ABOUT] else None
        owner = self._backend.owner(connection, layout, version)
        if owner != "niripipe":
            return "absent" if owner == "nobody" else "foreign"
        as_we_make_it = all(layout.get(table) == columns for table, columns in tables.LAYOUT.items())
        return "ready" if as_we_make_it and version == str(tables.SCHEMA_VERSION) else "outdated"

    def _unusable(self, state: StoreState) -> StorageError:
        if state == "foreign":
            problem, remedy = self._backend.foreign()
            return StorageError(problem, file=self.shown, remedy=remedy)
        return StorageError(
            "this calibration store was made by another version of niripipe",
            file=self.shown,
            expected=f"version {tables.SCHEMA_VERSION}",
            remedy="Recreate it from the calibration files with rebuild()",
        )


def beside_foreign(location: StoreLocation) -> StoreLocation:
    """Return another file in the same folder if a database of another program is in the way."""
    path = Path(location.location)
    if is_url(location.location) or not path.exists():
        return location
    try:
        if Store(str(path)).state() != "foreign":
            return location
    except StorageError:
        return location  # whoever uses the store is told what is wrong with it
    other = path.with_name(f"niripipe_{path.name}")
    log.warning("%s belongs to another program and is left alone; %s is used instead", path, other)
    return replace(location, location=store_file(other))
