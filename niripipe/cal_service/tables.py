"""The tables of a calibration store, and what is done with them on an open connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from niripipe.cal_service.facts import CalibrationFacts, damaged_entry
from niripipe.cal_service.records import CalibrationRecord

__all__ = [
    "ABOUT",
    "LAYOUT",
    "SCHEMA_VERSION",
    "Connection",
    "Dialect",
    "Layout",
    "add",
    "clear",
    "create_all",
    "drop_all",
    "remove",
    "select",
    "version",
]

Layout = Mapping[str, frozenset[str]]
"""The names of the columns of tables, by the name of the table."""

SCHEMA_VERSION = 1

# A statement takes no more values than this: databases have limits, the lowest of them 32766.
_AT_ONCE = 1000

ABOUT = "niripipe_store"
"""The table that says that the others are ours, and of which version."""

_CALIBRATIONS = "niripipe_calibrations"


class _Row(NamedTuple):
    """A calibration as it is read; the names are those of the columns."""

    number: int
    path: str
    name: str
    caltype: str
    md5: str
    size: int
    mtime_ns: int
    registered: Any
    facts: str


LAYOUT: Layout = MappingProxyType(
    {ABOUT: frozenset({"item", "value"}), _CALIBRATIONS: frozenset(_Row._fields)}
)
"""What a store consists of."""

_CREATE = (
    f"CREATE TABLE {ABOUT} (item VARCHAR(40) NOT NULL PRIMARY KEY, value VARCHAR(200) NOT NULL)",
    # Numbers are never used twice, so that the larger one is always the later one.
    f"""CREATE TABLE {_CALIBRATIONS} (
        number {{number}},
        path TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        caltype VARCHAR(40) NOT NULL,
        md5 VARCHAR(32) NOT NULL,
        size BIGINT NOT NULL,
        mtime_ns BIGINT NOT NULL,
        registered {{time}} NOT NULL,
        facts TEXT NOT NULL
    )""",
    f"CREATE INDEX ix_{_CALIBRATIONS}_name ON {_CALIBRATIONS} (name)",
    f"CREATE INDEX ix_{_CALIBRATIONS}_caltype ON {_CALIBRATIONS} (caltype)",
)
_SELECT = f"SELECT {', '.join(_Row._fields)} FROM {_CALIBRATIONS}"
_INSERT = (
    f"INSERT INTO {_CALIBRATIONS} (path, name, caltype, md5, size, mtime_ns, registered, facts)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


class Dialect(NamedTuple):
    """How a kind of database writes what is not written the same in all.

    Attributes
    ----------
    value : str
        What stands in a statement for a value.
    number : str
        Type of a key that the database counts up, never using a number twice.
    time : str
        Type of a date and time without time zone.
    """

    value: str
    number: str
    time: str


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection in a transaction; statements are written with ``?`` for values, whatever the database.

    Parameters
    ----------
    driver : object
        Connection of the driver, as in PEP 249; it also has `execute`, as `sqlite3` and psycopg do.
    dialect : Dialect
        Of the database.
    """

    driver: Any
    dialect: Dialect

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query and return what it finds."""
        found: list[tuple[Any, ...]] = self.driver.execute(self._translated(statement), values).fetchall()
        return found

    def execute(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Run a statement that finds nothing."""
        self.driver.execute(self._translated(statement), values)

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement with the values of each row."""
        if rows:
            self.driver.cursor().executemany(self._translated(statement), rows)

    def _translated(self, statement: str) -> str:
        return statement.replace("?", self.dialect.value)


def version(connection: Connection) -> str | None:
    """Return the version of the layout that the store says it has."""
    rows = connection.rows(f"SELECT value FROM {ABOUT} WHERE item = 'version'")
    return rows[0][0] if rows else None


def create_all(connection: Connection) -> None:
    """Create the tables."""
    for statement in _CREATE:
        connection.execute(statement.format(**connection.dialect._asdict()))
    connection.execute(f"INSERT INTO {ABOUT} (item, value) VALUES ('version', ?)", [str(SCHEMA_VERSION)])


def drop_all(connection: Connection) -> None:
    """Delete the tables with all they hold; no other table is touched."""
    for table in LAYOUT:
        connection.execute(f"DROP TABLE IF EXISTS {table}")


def clear(connection: Connection) -> None:
    """Forget all calibrations; their numbers are not used again."""
    connection.execute(f"DELETE FROM {_CALIBRATIONS}")


def add(connection: Connection, records: Sequence[CalibrationRecord]) -> list[CalibrationRecord]:
    """Register calibrations and return them with their numbers; what is unchanged keeps its number.

    The statements are few, whatever the number of calibrations: on a server each costs a round trip.
    """
    wanted = {record.path: record for record in records}
    there = _rows(connection, wanted)
    same = {path for path, row in there.items() if _is_same(row, wanted[path])}
    connection.execute_many(
        f"UPDATE {_CALIBRATIONS} SET size = ?, mtime_ns = ? WHERE path = ?",
        [(*_stamp(wanted[p]), p) for p in same if _stamp(there[p]) != _stamp(wanted[p])],
    )
    remove(connection, there.keys() - same)
    connection.execute_many(_INSERT, [_values(record) for path, record in wanted.items() if path not in same])
    there = _rows(connection, wanted)
    return [_record(there[record.path]) for record in records]


def remove(connection: Connection, paths: Iterable[str]) -> None:
    """Forget the calibrations with these paths."""
    for some, is_one_of_them in _batches(paths):
        connection.execute(f"DELETE FROM {_CALIBRATIONS} WHERE path {is_one_of_them}", some)


def select(connection: Connection, **wanted: str | None) -> list[CalibrationRecord]:
    """Return the calibrations whose columns have these values, in the order of registration."""
    values = {column: value for column, value in wanted.items() if value is not None}
    conditions = " AND ".join(f"{column} = ?" for column in values)
    where = f" WHERE {conditions}" if values else ""
    rows = connection.rows(f"{_SELECT}{where} ORDER BY number", [*values.values()])
    return [_record(_Row(*row)) for row in rows]


def _rows(connection: Connection, paths: Iterable[str]) -> dict[str, _Row]:
    return {
        row.path: row
        for some, is_one_of_them in _batches(paths)
        for row in map(_Row._make, connection.rows(f"{_SELECT} WHERE path {is_one_of_them}", some))
    }


def _batches(values: Iterable[str]) -> Iterator[tuple[list[str], str]]:
    """Yield some values at a time, with the condition that a column has one of them."""
    everything = list(values)
    for start in range(0, len(everything), _AT_ONCE):
        some = everything[start : start + _AT_ONCE]
        yield some, f"IN ({', '.join('?' * len(some))})"


def _is_same(row: _Row, record: CalibrationRecord) -> bool:
    known = (row.caltype, row.md5, row.facts)
    return known == (record.caltype, record.md5, record.facts.to_json())


def _stamp(entry: _Row | CalibrationRecord) -> tuple[int, int]:
    return entry.size, entry.mtime_ns


def _values(record: CalibrationRecord) -> tuple[str | int, ...]:
    return (
        record.path,
        record.name,
        record.caltype,
        record.md5,
        record.size,
        record.mtime_ns,
        # As text, which a server understands as a time; microseconds always, so that all look the same.
        record.registered.isoformat(" ", "microseconds"),
        record.facts.to_json(),
    )


def _record(row: _Row) -> CalibrationRecord:
    values: dict[str, Any] = row._asdict()
    del values["name"]  # the path says it
    values |= {"registered": _time(row.registered), "facts": CalibrationFacts.from_json(row.facts)}
    return CalibrationRecord(**values)


def _time(value: Any) -> datetime:
    # A server returns a time, SQLite the text that it was given, or whatever was put in its place.
    if isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError) as err:
        raise damaged_entry(value) from err
