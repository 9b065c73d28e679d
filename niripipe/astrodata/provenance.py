"""What was done to a data set, and from what it was made.

Records are kept as light Python objects and become the binary tables ``HISTORY`` and ``PROVENANCE``
when somebody asks for a table or the data set is written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from niripipe.errors import InputError

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
        ``DONE``, ``SKIPPED``, ``NOT_NEEDED`` or ``FAILED``; empty where unknown.
    reason : str
        Why it was not done.
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


_AT_ONCE = 1 << 23
_Record = TypeVar("_Record", HistoryRecord, ProvenanceRecord)


class Records:
    """The history and provenance of one data set, read from its file on first use."""

    def __init__(self) -> None:
        self._history: list[HistoryRecord] = []
        self._provenance: list[ProvenanceRecord] = []
        self._loaders: dict[str, Callable[[], Any]] = {}
        # Contributing files whose checksums may still be on their way.
        self._waiting: list[ProvenanceRecord | Callable[[], ProvenanceRecord]] = []

    def add_loader(self, name: str, rows: Callable[[], Any]) -> None:
        """Name a function that returns the rows of a record table."""
        self._loaders["PROVENANCE" if name == "PROVENANCE" else "HISTORY"] = rows

    @property
    def history(self) -> list[HistoryRecord]:
        """The steps, in order."""
        self._load("HISTORY", HistoryRecord, self._history)
        return self._history

    @property
    def provenance(self) -> list[ProvenanceRecord]:
        """The contributing files, in order."""
        self._load("PROVENANCE", ProvenanceRecord, self._provenance)
        waiting, self._waiting = self._waiting, []
        if waiting:
            known = {(r.filename, r.md5, r.provenance_added_by) for r in self._provenance}
            for one in waiting:
                record = one() if callable(one) else one
                key = (record.filename, record.md5, record.provenance_added_by)
                if key not in known:
                    known.add(key)
                    self._provenance.append(record)
        return self._provenance

    def add_provenance(self, record: ProvenanceRecord | Callable[[], ProvenanceRecord]) -> None:
        """Add a contributing file, or what will return it, unless it is there for the same step.

        What returns it is asked when somebody looks at the files.
        """
        self._waiting.append(record)

    def add_provenance_of(self, other: Records) -> None:
        """Add the contributing files of other records, without waiting for what is still to come."""
        other._load("PROVENANCE", ProvenanceRecord, other._provenance)
        self._waiting += [*other._provenance, *other._waiting]

    def has(self, name: str) -> bool:
        """Return whether there are records of this kind, without reading them."""
        if name == "HISTORY":
            return bool(self._history) or name in self._loaders
        added = bool(self._provenance or self._waiting)
        return name == "PROVENANCE" and (added or name in self._loaders)

    def names(self) -> set[str]:
        """Return the names of the record tables that are not empty."""
        return {name for name in ("HISTORY", "PROVENANCE") if self.has(name)}

    def table(self, name: str) -> Any:
        """Return the records as an astropy table."""
        from astropy.table import Table

        return Table(self.rows(name))

    def rows(self, name: str) -> np.ndarray[Any, Any]:
        """Return the records as a structured array of bytes, each column as wide as it has to be."""
        records: list[Any] = list(self.history if name == "HISTORY" else self.provenance)
        cls = HistoryRecord if name == "HISTORY" else ProvenanceRecord
        names = [column.name for column in fields(cls)]
        columns = [np.array([_ascii(getattr(r, n)) for r in records] or [b""], dtype="S") for n in names]
        rows = np.zeros(
            len(records), [(n, f"S{max(1, c.itemsize)}") for n, c in zip(names, columns, strict=True)]
        )
        for n, column in zip(names, columns, strict=True):
            rows[n] = column[: len(records)]
        return rows

    def replace(self, name: str, table: Any) -> None:
        """Replace the records by the rows of a table; None removes them."""
        self._loaders.pop(name, None)
        if name == "HISTORY":
            self._history = [] if table is None else _parse(HistoryRecord, table)
        else:
            self._waiting = []
            self._provenance = [] if table is None else _parse(ProvenanceRecord, table)

    def copy(self) -> Records:
        """Return independent records."""
        twin = Records()
        twin._history, twin._provenance = list(self._history), list(self._provenance)
        twin._loaders, twin._waiting = dict(self._loaders), list(self._waiting)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        # The checksums that others still compute stay with them.
        return {**self.__dict__, "_provenance": self.provenance, "_waiting": []}

    def _load(self, name: str, cls: type[_Record], into: list[_Record]) -> None:
        loader = self._loaders.pop(name, None)
        if loader is not None:
            into[:0] = _parse(cls, loader())


def add_history(
    ad: AstroData,
    primitive: str,
    args: str | Mapping[str, Any] | None = None,
    timestamp_start: str | datetime | None = None,
    timestamp_stop: str | datetime | None = None,
    *,
    status: str = "",
    reason: str = "",
    software: str = "",
) -> None:
    """Record a processing step; an identical record is not added twice.

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
    text = args if isinstance(args, str) else json.dumps(dict(args or {}), default=str)
    stop = _timestamp(timestamp_stop)
    start = stop if timestamp_start is None else _timestamp(timestamp_start)
    _add(ad.history, HistoryRecord(primitive, text, start, stop, status, reason, software))


def add_provenance(
    ad: AstroData,
    filename: str,
    md5: str | Callable[[], str] = "",
    primitive: str = "",
    timestamp: str | datetime | None = None,
) -> None:
    """Record a contributing file, unless the same file, checksum and step are recorded already.

    Parameters
    ----------
    ad : AstroData
        The data set.
    filename : str
        The contributing file.
    md5 : str or callable
        Its checksum, empty where unknown; or what returns it, asked when somebody looks at the records.
    primitive : str
        The step that used it.
    timestamp : str or datetime, optional
        UTC; now by default.
    """
    stamp = _timestamp(timestamp)
    ad.records.add_provenance(
        lambda: ProvenanceRecord(stamp, filename, md5() if callable(md5) else md5, primitive)
    )


def clone_provenance(source: AstroData | Iterable[ProvenanceRecord], ad: AstroData) -> None:
    """Add the provenance of one data set, or given records, to another, without repeating records."""
    records: Records | None = getattr(source, "records", None)
    if records is not None:
        ad.records.add_provenance_of(records)
        return
    for record in cast("Iterable[ProvenanceRecord]", source):
        ad.records.add_provenance(record)


def clone_history(source: AstroData, ad: AstroData) -> None:
    """Add the history of one data set to another, without repeating records."""
    present = set(ad.history)
    ad.history.extend(record for record in source.history if record not in present)


def file_md5(path: str | PathLike[str] | None) -> str:
    """Return the MD5 checksum of a file in hexadecimal; an empty string if there is no such file.

    MD5 is what DRAGONS records; it identifies files here and protects nothing.
    """
    try:
        stat = Path(path or "").stat()
        return _md5(os.fspath(path or ""), stat.st_size, stat.st_mtime_ns)
    except OSError:
        return ""


@lru_cache(maxsize=1024)
def _md5(path: str, size: int, mtime_ns: int) -> str:
    """Return the checksum of a file as it is now; one that has not changed is not read again."""
    digest = hashlib.md5(usedforsecurity=False)
    with Path(path).open("rb", buffering=0) as file:
        # A raw frame at a time: with short pieces a thread would wait for the interpreter after each.
        while block := file.read(_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


def utc_now() -> str:
    """Return the time now as the records have it: UTC, ISO form, microseconds, no zone."""
    return _timestamp(None)


def _add(records: list[_Record], record: _Record) -> None:
    if record not in records:
        records.append(record)


def _timestamp(time: str | datetime | None) -> str:
    if isinstance(time, str):
        return time
    moment = datetime.now(UTC) if time is None else time
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds")


def _parse(cls: type[_Record], rows: Any) -> list[_Record]:
    """Turn the rows of a table into records, columns found by name; columns not known are dropped."""
    present = set(
        getattr(rows, "colnames", None) or getattr(getattr(rows, "dtype", None), "names", None) or ()
    )
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


def _text(value: Any) -> str:
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).rstrip()


def _ascii(text: str) -> bytes:
    return text.encode("ascii", "backslashreplace")
