"""A calibration store in a PostgreSQL database, which it may share with other programs.

The store is two tables, ``niripipe_store`` and ``niripipe_calibrations``, in the schema that the connection
creates tables in; ``?options=-csearch_path%3Dname`` in the URL chooses another one. No other table is looked
at or touched, and tables of these names that are not ours are left alone.

Writers take turns by an advisory lock, which is held until the transaction ends, however it ends. With
``READ COMMITTED`` whatever a writer reads once it has the lock is what the writer before it left.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from niripipe.cal_service import tables
from niripipe.cal_service.backend import (
    BUSY_SECONDS,
    STORE_MARK,
    Backend,
    Connection,
    Dialect,
    Owner,
    Trouble,
)
from niripipe.cal_service.tables import Layout
from niripipe.cal_service.urls import connection_options

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresServer"]

_DEFAULTS = {
    "application_name": "niripipe",
    "client_encoding": "utf8",
    "connect_timeout": "10",
}
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
    """The backend for a server; see `niripipe.cal_service.backend.Backend` for its methods.

    Parameters
    ----------
    url : str
        As returned by `niripipe.cal_service.urls.checked_url`.
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
        for table, column in connection.rows(_OUR_TABLES, sorted(tables.LAYOUT)):
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
        return next((trouble for start, trouble in _TROUBLE.items() if state.startswith(start)), _OTHER)

    def foreign(self) -> Trouble:  # noqa: D102
        names = " or ".join(sorted(tables.LAYOUT))
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
_TROUBLE = {
    "08": _NO_CONNECTION,
    "28": _NO_CONNECTION,
    "3D": _NO_CONNECTION,
    "57P": _NO_CONNECTION,
    "55P03": Trouble(
        "the calibration store is locked by another process",
        f"Try again; it was waited for {BUSY_SECONDS:g} s",
    ),
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
}
