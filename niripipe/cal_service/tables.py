"""The tables of a calibration store, and what is done with them on an open connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from niripipe.cal_service.facts import CalibrationFacts
from niripipe.cal_service.records import CalibrationRecord

__all__ = [
    "ABOUT",
    "LAYOUT",
    "SCHEMA_VERSION",
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

ABOUT = _about.name
"""The table that says that the others are ours, and of which version."""

LAYOUT: Layout = MappingProxyType(
    {table.name: frozenset(table.columns.keys()) for table in (_about, _calibrations)}
)
"""What a store consists of."""


def version(connection: sa.Connection) -> str | None:
    """Return the version of the layout that the store says it has."""
    query = sa.select(_about.c.value).where(_about.c.item == "version")
    value: str | None = connection.execute(query).scalar()
    return value


def create_all(connection: sa.Connection) -> None:
    """Create the tables."""
    _metadata.create_all(connection)
    connection.execute(sa.insert(_about).values(item="version", value=str(SCHEMA_VERSION)))


def drop_all(connection: sa.Connection) -> None:
    """Delete the tables with all they hold; no other table is touched."""
    _metadata.drop_all(connection)


def clear(connection: sa.Connection) -> None:
    """Forget all calibrations; their numbers are not used again."""
    connection.execute(sa.delete(_calibrations))


def add(connection: sa.Connection, records: Sequence[CalibrationRecord]) -> list[CalibrationRecord]:
    """Register calibrations and return them with their numbers; what is unchanged keeps its number.

    The statements are few, whatever the number of calibrations: on a server each costs a round trip.
    """
    wanted = {record.path: record for record in records}
    there = _rows(connection, wanted)
    same = {path for path, row in there.items() if _is_same(row, wanted[path])}
    touched = [path for path in same if _stamp(there[path]) != _stamp(wanted[path])]
    if touched:
        stamps = [dict(zip(("to_size", "to_mtime"), _stamp(wanted[p]), strict=True), at=p) for p in touched]
        update = sa.update(_calibrations).where(_calibrations.c.path == sa.bindparam("at"))
        update = update.values(size=sa.bindparam("to_size"), mtime_ns=sa.bindparam("to_mtime"))
        connection.execute(update, stamps)
    remove(connection, there.keys() - same)
    new = [_values(record) for path, record in wanted.items() if path not in same]
    if new:
        connection.execute(sa.insert(_calibrations), new)
    there = _rows(connection, wanted)
    return [_record(there[record.path]) for record in records]


def remove(connection: sa.Connection, paths: Iterable[str]) -> None:
    """Forget the calibrations with these paths."""
    for some in _batches(paths):
        connection.execute(sa.delete(_calibrations).where(_calibrations.c.path.in_(some)))


def select(connection: sa.Connection, **wanted: str | None) -> list[CalibrationRecord]:
    """Return the calibrations whose columns have these values, in the order of registration."""
    query = sa.select(_calibrations).order_by(_calibrations.c.number)
    for column, value in wanted.items():
        if value is not None:
            query = query.where(_calibrations.c[column] == value)
    return [_record(row) for row in connection.execute(query)]


def _rows(connection: sa.Connection, paths: Iterable[str]) -> dict[str, sa.Row[Any]]:
    return {
        row.path: row
        for some in _batches(paths)
        for row in connection.execute(sa.select(_calibrations).where(_calibrations.c.path.in_(some)))
    }


def _batches(values: Iterable[str]) -> Iterator[list[str]]:
    everything = list(values)
    for start in range(0, len(everything), _AT_ONCE):
        yield everything[start : start + _AT_ONCE]


def _is_same(row: sa.Row[Any], record: CalibrationRecord) -> bool:
    known = (row.caltype, row.md5, row.facts)
    return bool(known == (record.caltype, record.md5, record.facts.to_json()))


def _stamp(entry: Any) -> tuple[int, int]:
    return entry.size, entry.mtime_ns


def _values(record: CalibrationRecord) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in LAYOUT[_calibrations.name] - {"number", "facts"}}
    return {**values, "facts": record.facts.to_json()}


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
