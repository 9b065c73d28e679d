"""What was done to a data set, and from what it was made.

Records are kept as Python objects and become the binary tables ``HISTORY`` and ``PROVENANCE``
when a table is asked for or the data set is written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache, partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from niripipe.errors import InputError, ParameterError

if TYPE_CHECKING:
    from niripipe.astrodata.core import AstroData

__all__ = [
    "RECORD_TABLES",
    "HistoryRecord",
    "ProvenanceRecord",
    "Records",
    "add_history",
    "add_provenance",
    "clone_history",
    "clone_provenance",
    "file_md5",
    "utc_now",
]

RECORD_TABLES = frozenset({"HISTORY", "PROVENANCE", "PROVHISTORY"})
"""Names of the tables that hold records; PROVHISTORY is the old name of HISTORY."""


@dataclass(frozen=True, slots=True)
class HistoryRecord:
    """One processing step.

    Attributes
    ----------
    primitive : str
        Name of the step.
    args : str
        JSON object with its parameters.
    timestamp_start, timestamp_stop : str
        UTC in ISO form, without zone.
    status : str
        ``DONE``, ``SKIPPED``, ``NOT_NEEDED`` or ``FAILED``; ``WARNING`` for a warning of the step; empty
        where unknown.
    reason : str
        Why it was not done, or the text of the warning.
    software : str
        Name and version of what did it.
    """

    primitive: str
    args: str = "{}"
    timestamp_start: str = ""
    timestamp_stop: str = ""
    status: str = ""
    reason: str = ""
    software: str = ""


@dataclass(frozen=True, slots=True)
class ProvenanceRecord:
    """One file that contributed.

    Attributes
    ----------
    timestamp : str
        UTC in ISO form, without zone.
    filename : str
        The contributing file.
    md5 : str
        Its MD5 checksum in hexadecimal; empty where unknown.
    provenance_added_by : str
        The step that used it.
    """

    timestamp: str
    filename: str
    md5: str = ""
    provenance_added_by: str = ""


_TYPES: dict[str, type[HistoryRecord | ProvenanceRecord]] = {
    "HISTORY": HistoryRecord,
    "PROVENANCE": ProvenanceRecord,
}


class Records:
    """The history and provenance of one data set, read from its file on first use."""

    def __init__(self) -> None:
        self._records: dict[str, list[Any]] = {"HISTORY": [], "PROVENANCE": []}
        self._loaders: dict[str, Callable[[], Any]] = {}

    def add_loader(self, name: str, rows: Callable[[], Any]) -> None:
        """Name a function that returns the rows of a record table."""
        self._loaders["PROVENANCE" if name == "PROVENANCE" else "HISTORY"] = rows

    @property
    def history(self) -> list[HistoryRecord]:
        """The steps, in order."""
        return self._loaded("HISTORY")

    @property
    def provenance(self) -> list[ProvenanceRecord]:
        """The contributing files, in order."""
        return self._loaded("PROVENANCE")

    def names(self) -> set[str]:
        """Return the names of the record tables that are not empty; nothing is read."""
        return {name for name, records in self._records.items() if records or name in self._loaders}

    def table(self, name: str) -> Any:
        """Return the records as an astropy table."""
        from astropy.table import Table

        return Table(self.rows(name))

    def rows(self, name: str) -> np.ndarray[Any, Any]:
        """Return the records as a structured array of bytes, each column as wide as it has to be."""
        records = self._loaded(name)
        names = [column.name for column in fields(_TYPES[name])]
        columns = [[_encoded(getattr(record, n)) for record in records] for n in names]
        widths = [max([1, *map(len, column)]) for column in columns]
        dtype = [(n, f"S{width}") for n, width in zip(names, widths, strict=True)]
        return np.array(list(zip(*columns, strict=True)), dtype)

    def replace(self, name: str, table: Any) -> None:
        """Replace the records by the rows of a table; None removes them."""
        self._loaders.pop(name, None)
        self._records[name] = [] if table is None else _parse(_TYPES[name], table)

    def copy(self) -> Records:
        """Return independent records."""
        twin = Records()
        twin._records = {name: records.copy() for name, records in self._records.items()}
        twin._loaders = self._loaders.copy()
        return twin

    def _loaded(self, name: str) -> list[Any]:
        loader = self._loaders.pop(name, None)
        if loader is not None:
            self._records[name][:0] = _parse(_TYPES[name], loader())
        return self._records[name]


def add_history(
    ad: AstroData,
    primitive: Any = None,
    args: Any = None,
    timestamp_start: Any = None,
    timestamp_stop: Any = None,
    *,
    status: str = "",
    reason: str = "",
    software: str = "",
) -> None:
    """Record a processing step; an identical record is not added twice.

    The order of DRAGONS, ``add_history(ad, timestamp_start, timestamp_stop, primitive, args)``, is
    understood as well: the name of a step is no time.

    Parameters
    ----------
    ad : AstroData
        The data set.
    primitive : str
        Name of the step.
    args : mapping or str, optional
        Its parameters, or their JSON text. Values that JSON does not know are written as text.
    timestamp_start, timestamp_stop : str or datetime, optional
        UTC; now by default.
    status, reason, software : str
        See `HistoryRecord`.
    """
    if _is_time(primitive):
        primitive, args, timestamp_start, timestamp_stop = timestamp_start, timestamp_stop, primitive, args
    if not primitive or isinstance(primitive, datetime):
        raise ParameterError(
            "the name of a step is missing",
            item="primitive",
            found=repr(primitive),
            expected="add_history(ad, primitive, args) or add_history(ad, start, stop, primitive, args)",
        )
    text = args if isinstance(args, str) else json.dumps(dict(args or {}), default=str)
    stop = _timestamp(timestamp_stop)
    start = stop if timestamp_start is None else _timestamp(timestamp_start)
    words = (str(word or "") for word in (status, reason, software))
    record = HistoryRecord(primitive, text, start, stop, *words)
    if record not in ad.history:
        ad.history.append(record)


def add_provenance(
    ad: AstroData,
    filename: str | PathLike[str] | None,
    md5: str | None = "",
    primitive: str = "",
    timestamp: str | datetime | None = None,
) -> None:
    """Record a contributing file, unless the same file, checksum and step are recorded already.

    Parameters
    ----------
    ad : AstroData
        The data set.
    filename : path-like or None
        The contributing file; None for data without one.
    md5 : str or None
        Its checksum, empty or None where unknown.
    primitive : str
        The step that used it.
    timestamp : str or datetime, optional
        UTC; now by default.
    """
    record = ProvenanceRecord(
        _timestamp(timestamp), os.fspath(filename or ""), str(md5 or ""), str(primitive or "")
    )
    clone_provenance([record], ad)


def clone_provenance(source: Any, ad: AstroData) -> None:
    """Add the provenance of one data set to another, without repeating records.

    Parameters
    ----------
    source : AstroData, table or iterable of ProvenanceRecord
        The data set that has it, or the records themselves, such as ``other.PROVENANCE``.
    ad : AstroData
        The data set that gets it.
    """
    records: Iterable[ProvenanceRecord] = _records(source, "provenance", ProvenanceRecord)
    present = {(r.filename, r.md5, r.provenance_added_by) for r in ad.provenance}
    for record in list(records):
        key = (record.filename, record.md5, record.provenance_added_by)
        if key not in present:
            present.add(key)
            ad.provenance.append(record)


def clone_history(source: Any, ad: AstroData) -> None:
    """Add the history of one data set to another, without repeating records.

    Parameters
    ----------
    source : AstroData, table or iterable of HistoryRecord
        The data set that has it, or the records themselves, such as ``other.HISTORY``.
    ad : AstroData
        The data set that gets it.
    """
    present = set(ad.history)
    records: Iterable[HistoryRecord] = _records(source, "history", HistoryRecord)
    ad.history.extend(record for record in list(records) if record not in present)


def _records(source: Any, attribute: str, cls: type[HistoryRecord | ProvenanceRecord]) -> Any:
    """Return the records of a data set, a table, or an iterable of records."""
    if hasattr(source, attribute):
        return getattr(source, attribute)
    return _parse(cls, source) if hasattr(source, "dtype") else source


def _is_time(value: Any) -> bool:
    """Tell whether a value is a moment, as an object or in ISO form."""
    if not isinstance(value, str):
        return isinstance(value, datetime)
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def file_md5(path: str | PathLike[str] | None) -> str:
    """Return the MD5 checksum of a file in hexadecimal; an empty string if there is no such file.

    MD5 is what DRAGONS records; it identifies files here and protects nothing.
    """
    try:
        stat = Path(path or "").stat()
        return _md5(os.fspath(path or ""), stat.st_size, stat.st_mtime_ns)
    except (OSError, ValueError):
        return ""


@lru_cache(maxsize=1024)
def _md5(path: str, size: int, mtime_ns: int) -> str:
    """Return the checksum of a file as it is now; one that has not changed is not read again."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def utc_now() -> str:
    """Return the time now as the records have it: UTC, ISO form, microseconds, no zone."""
    return _timestamp(None)


def _timestamp(time: str | datetime | None) -> str:
    if isinstance(time, str):
        return time
    moment = datetime.now(UTC) if time is None else time
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds")


def _parse(cls: type[HistoryRecord | ProvenanceRecord], rows: Any) -> list[Any]:
    """Turn the rows of a table into records, columns found by name; columns not known are dropped."""
    present = set(rows.dtype.names or ())
    names = [column.name for column in fields(cls)]
    required = "primitive" if cls is HistoryRecord else "filename"
    if required not in present:
        raise InputError(
            "this is not a table of records",
            found=f"columns {sorted(present)}",
            expected=f"columns among {names}, with {required!r}",
        )
    columns = [[_text(v) for v in rows[n]] if n in present else [""] * len(rows) for n in names]
    return [cls(*values) for values in zip(*columns, strict=True)]


def _encoded(value: Any) -> bytes:
    """Return a field of a record, which may be appended by hand and hold None, as FITS can keep it."""
    return ("" if value is None else str(value)).encode("ascii", "backslashreplace")


def _text(value: Any) -> str:
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).rstrip()
