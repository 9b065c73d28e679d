"""What differs between the kinds of database that a calibration store can be kept in.

An SQLite file is the store's alone and says so in its header; what lacks the mark is never written to, unless
it is empty. Writers take SQLite's write lock when the transaction begins, not at the first change, so what
was read within it still holds when it is written.

A PostgreSQL database may be shared with other programs. The store is two tables, ``niripipe_store`` and
``niripipe_calibrations``, in the schema that the connection creates tables in;
``?options=-csearch_path%3Dname`` in the URL chooses another one. No other table is looked at or touched, and
tables of these names that are not ours are left alone. Writers take turns by an advisory lock, which is held
until the transaction ends, however it ends. With ``READ COMMITTED`` whatever a writer reads once it has the
lock is what the writer before it left.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from niripipe.cal_service.config import connection_options
from niripipe.cal_service.tables import LAYOUT, Connection, Dialect, Layout
from niripipe.errors import StorageError, storage_faults

if TYPE_CHECKING:
    import psycopg

__all__ = ["Backend", "Owner", "PostgresServer", "SqliteFile", "Trouble"]

Owner = Literal["nobody", "niripipe", "another"]
"""Whose tables are there, as far as it matters to a store."""

BUSY_SECONDS = 60.0
"""How long a writer waits for another one."""

STORE_MARK = 0x4E495249
"""The letters NIRI: the application number of an SQLite file, the number of the lock on a server."""


class Trouble(NamedTuple):
    """What went wrong in a database, for people to read.

    Attributes
    ----------
    problem, remedy : str
        As in `niripipe.errors.NiripipeError`.
    """

    problem: str
    remedy: str


class Backend(ABC):
    """One kind of database."""

    dialect: ClassVar[Dialect]
    """How its statements are written."""

    def exists(self) -> bool:
        """Return whether there is something to connect to; a server is found out about by connecting."""
        return True

    def prepare(self) -> None:  # noqa: B027
        """Make the folder for a new store; databases on a server are made by whoever runs it.

        Raises
        ------
        StorageError
            It cannot be made.
        """

    @abstractmethod
    def connect(self, *, write: bool) -> Any:
        """Return a new connection of the driver: as a context manager it ends the transaction."""

    @abstractmethod
    def begin(self, connection: Connection, *, write: bool) -> None:
        """Begin a transaction; a writer then has the store for itself, but for readers."""

    @abstractmethod
    def layout(self, connection: Connection) -> Layout:
        """Return the tables that are there and may matter to a store."""

    @abstractmethod
    def owner(self, connection: Connection, layout: Layout, version: str | None) -> Owner:
        """Return whose they are; `version` is what a table about the store says, if there is one."""

    def mark(self, connection: Connection) -> None:  # noqa: B027
        """Note that the tables, just created, are ours; on a server the table about the store says so."""

    @abstractmethod
    def trouble(self, error: Exception) -> Trouble | None:
        """Return what an error of the database means; None if it is another error."""

    @abstractmethod
    def foreign(self) -> Trouble:
        """Return what to say when another program's tables are in the way."""

    def discard_damaged(self) -> bool:
        """Delete a store that is ours but damaged beyond use; return whether that was done.

        Raises
        ------
        StorageError
            It cannot be deleted.
        """
        return False


_LOCKED = Trouble(
    "the calibration store is locked by another process", f"Try again; it was waited for {BUSY_SECONDS:g} s"
)


def _matching(troubles: Mapping[str, Trouble], code: str) -> Trouble:
    """Return the first trouble whose key is the beginning of a code."""
    return next(trouble for start, trouble in troubles.items() if code.startswith(start))


# -- SQLite

_CHOOSE = "Choose another place with config(db_dir=...)"


@dataclass(frozen=True, slots=True)
class SqliteFile(Backend):
    """The backend for a file.

    Parameters
    ----------
    path : Path
        The file, absolute.
    """

    path: Path
    dialect: ClassVar[Dialect] = Dialect("?", "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", "DATETIME")

    def exists(self) -> bool:  # noqa: D102
        return self.path.exists()

    def prepare(self) -> None:
        """Create the folder of the file, but not those above."""
        folder = self.path.parent
        if folder.is_dir():
            return
        if not folder.parent.is_dir():
            raise StorageError(
                "the folder for the calibration store does not exist",
                file=folder,
                remedy="Create it first, or choose another place with config(db_dir=...)",
            )
        with storage_faults("the folder for the calibration store cannot be created", folder):
            folder.mkdir(exist_ok=True)

    def connect(self, *, write: bool) -> sqlite3.Connection:
        """Return a new connection; a reader never creates the file."""
        # Opening by URI: any character may be part of the path.
        address = f"{self.path.as_uri()}?mode={'rwc' if write else 'rw'}"
        return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)

    def begin(self, connection: Connection, *, write: bool) -> None:  # noqa: D102
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")

    def layout(self, connection: Connection) -> Layout:  # noqa: D102
        rows = connection.rows(
            "SELECT s.name, c.name FROM sqlite_master AS s JOIN pragma_table_info(s.name) AS c"
            " WHERE s.type IN ('table', 'view')"
        )
        return {table: frozenset(c for t, c in rows if t == table) for table in {t for t, _ in rows}}

    def owner(self, connection: Connection, layout: Layout, version: str | None) -> Owner:  # noqa: D102
        ((mark,),) = connection.rows("PRAGMA application_id")
        if mark == STORE_MARK:
            return "niripipe"
        return "another" if mark or layout else "nobody"

    def mark(self, connection: Connection) -> None:  # noqa: D102
        connection.execute(f"PRAGMA application_id = {STORE_MARK}")

    def trouble(self, error: Exception) -> Trouble | None:  # noqa: D102
        if not isinstance(error, sqlite3.Error):
            return None
        return _matching(_SQLITE_TROUBLE, getattr(error, "sqlite_errorname", ""))

    def foreign(self) -> Trouble:  # noqa: D102
        return Trouble("this database belongs to another program and is left alone", _CHOOSE)

    def discard_damaged(self) -> bool:
        """Delete the file if its header says that it is ours and it fails SQLite's own check."""
        if not self._is_ours() or self._is_sound():
            return False
        with storage_faults("the damaged calibration store cannot be deleted", self.path):
            # The journal first: left behind, it would be played back into the new file.
            self.path.with_name(self.path.name + "-journal").unlink(missing_ok=True)
            self.path.unlink()
        return True

    def _is_ours(self) -> bool:
        # The mark is read without SQLite, which does not open every damaged file.
        if not self.path.is_file():
            return False
        with self.path.open("rb") as stream:
            header = stream.read(72)
        return header.startswith(b"SQLite format 3\0") and header[68:72] == STORE_MARK.to_bytes(4, "big")

    def _is_sound(self) -> bool:
        try:
            with closing(self.connect(write=False)) as connection:
                return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
        except sqlite3.Error:
            return False


# By the beginning of SQLite's name for what went wrong.
_SQLITE_TROUBLE = {
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_READONLY": Trouble(
        "the calibration store is write-protected", "Change its permissions and those of its folder"
    ),
    "SQLITE_CORRUPT": Trouble(
        "the calibration store is damaged", "Recreate it from the calibration files with rebuild()"
    ),
    "SQLITE_NOTADB": Trouble(
        "this file is not a calibration store",
        f"{_CHOOSE}, or, if it was a store, move it away and rebuild()",
    ),
    "SQLITE_FULL": Trouble("the disk is full", "Make room for the calibration store"),
    "SQLITE_CANTOPEN": Trouble(
        "the calibration store cannot be opened", "Check that its folder exists and may be written to"
    ),
    "": Trouble("the calibration store cannot be used", _CHOOSE),
}


# -- PostgreSQL

_DEFAULTS = {"application_name": "niripipe", "client_encoding": "utf8", "connect_timeout": "10"}
"""Options of libpq, unless the URL has them: who asks, in which encoding, and seconds until giving up."""

_OUR_TABLES = (
    "SELECT c.relname, a.attname FROM pg_catalog.pg_class AS c"
    " LEFT JOIN pg_catalog.pg_attribute AS a"
    " ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
    # Tables, views, materialised views, foreign and partitioned tables, but no indexes or sequences.
    " WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p') AND pg_catalog.pg_table_is_visible(c.oid)"
    " AND c.relname IN (?, ?)"
)


@dataclass(frozen=True, slots=True)
class PostgresServer(Backend):
    """The backend for a server.

    Parameters
    ----------
    url : str
        As returned by `niripipe.cal_service.config.checked_url`.
    """

    url: str
    dialect: ClassVar[Dialect] = Dialect("%s", "SERIAL NOT NULL PRIMARY KEY", "TIMESTAMP")

    def connect(self, *, write: bool) -> psycopg.Connection[tuple[Any, ...]]:  # noqa: D102
        import psycopg
        from psycopg.conninfo import make_conninfo

        options = make_conninfo(**{**_DEFAULTS, **connection_options(self.url)})
        # Connections live for one transaction: statements prepared on the server would not be used again,
        # and a pool of connections between us and the server may not know them.
        connection = psycopg.connect(options, prepare_threshold=None)
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        return connection

    def begin(self, connection: Connection, *, write: bool) -> None:  # noqa: D102
        connection.execute(f"SET LOCAL lock_timeout = {round(1000 * BUSY_SECONDS)}")
        if write:
            connection.execute(f"SELECT pg_catalog.pg_advisory_xact_lock({STORE_MARK})")

    def layout(self, connection: Connection) -> Layout:  # noqa: D102
        columns: dict[str, set[str]] = defaultdict(set)
        for table, column in connection.rows(_OUR_TABLES, sorted(LAYOUT)):
            columns[table].add(column)
        return {table: frozenset(names) for table, names in columns.items()}

    def owner(self, connection: Connection, layout: Layout, version: str | None) -> Owner:
        """Return whose the tables of our names are: ours, if the one about the store is as we make it."""
        if not layout:
            return "nobody"
        return "another" if version is None else "niripipe"

    def trouble(self, error: Exception) -> Trouble | None:  # noqa: D102
        if isinstance(error, ImportError):
            return _NO_DRIVER
        if isinstance(error, ValueError):
            # The URL cannot be understood.
            return _OTHER
        import psycopg

        if not isinstance(error, psycopg.Error):
            return None
        state = error.sqlstate
        if state is None:
            # Only refusals by the server itself have a number; without one there was no connection.
            return _NO_CONNECTION if isinstance(error, psycopg.OperationalError) else _OTHER
        return _matching(_POSTGRES_TROUBLE, state)

    def foreign(self) -> Trouble:  # noqa: D102
        names = " or ".join(sorted(LAYOUT))
        return Trouble(
            f"a table {names} in this database belongs to another program and is left alone",
            "Choose another database, or another schema with ?options=-csearch_path%3Dname in the URL",
        )


_OTHER = Trouble("the calibration store cannot be used", "Check the location given to config()")
_NO_DRIVER = Trouble(
    "the driver for PostgreSQL, psycopg, is not installed", 'Install it with: pip install "niripipe[cluster]"'
)
_NO_CONNECTION = Trouble(
    "there is no connection to the database server of the calibration store",
    "Check that it runs, and host, port, database, user and password in the URL given to config(); "
    "the password may also be in ~/.pgpass or PGPASSWORD",
)

# By the beginning of the SQLSTATE, the number that PostgreSQL gives to what went wrong (PostgreSQL
# documentation, appendix A).
_POSTGRES_TROUBLE = {
    "08": _NO_CONNECTION,
    "28": _NO_CONNECTION,
    "3D": _NO_CONNECTION,
    "57P": _NO_CONNECTION,
    "55P03": _LOCKED,
    "25006": Trouble(
        "the calibration store is write-protected", "Name the server that takes changes, not a copy of it"
    ),
    "42501": Trouble(
        "the calibration store is write-protected for this user, or not for its eyes",
        "Ask whoever runs the server for the privileges to create, read and change the niripipe tables",
    ),
    "3F000": Trouble(
        "there is no schema in this database for the calibration store", "Create it, or change search_path"
    ),
    "53100": Trouble("the disk of the server is full", "Make room for the calibration store"),
    "53": Trouble("the database server has too much to do", "Try again later"),
    "XX": Trouble(
        "the database of the calibration store is damaged",
        "Have it repaired, or name another one, and recreate the store from the files with rebuild()",
    ),
    "": _OTHER,
}
