"""A registered calibration: where its file is, what it was like when registered, and whether it still is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple, overload

from niripipe import astrodata
from niripipe.cal_service.facts import CalibrationFacts, facts_of
from niripipe.cal_service.rules import calibration_type
from niripipe.errors import CalibrationError, InputError, StorageError

__all__ = ["CalibrationRecord", "FileData", "FileList", "FileState", "read_record"]

FileState = Literal["present", "missing", "changed"]


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """A registered calibration.

    Attributes
    ----------
    path : str
        Absolute path of the file.
    caltype : str
        ``processed_dark``, ``processed_flat`` or ``processed_bpm``.
    md5 : str
        Checksum of the file when it was registered.
    size : int
        Size of the file in bytes.
    mtime_ns : int
        Time of the file's last change, in nanoseconds.
    registered : datetime.datetime
        When it was registered, UTC, without time zone.
    facts : CalibrationFacts
        What the association rules look at.
    number : int
        Running number within the store, larger for what was registered later.
    """

    path: str
    caltype: str
    md5: str
    size: int
    mtime_ns: int
    registered: datetime
    facts: CalibrationFacts = field(repr=False)
    number: int = 0

    @property
    def name(self) -> str:
        """File name without folder."""
        return os.path.basename(self.path)  # noqa: PTH119 (called once a row)

    def file_state(self) -> FileState:
        """Return whether the file is still what was registered.

        Size and time of the last change decide where they agree; the checksum is computed only if the file
        was touched.
        """
        try:
            now = Path(self.path).stat()
            if now.st_size == self.size and now.st_mtime_ns == self.mtime_ns:
                return "present"
            same = now.st_size == self.size and _md5(Path(self.path)) == self.md5
        except OSError:
            return "missing"
        return "present" if same else "changed"


class FileData(NamedTuple):
    """One line of the list of files.

    Attributes
    ----------
    name : str
        File name.
    path : str
        Folder of the file.
    """

    name: str
    path: str


class FileList(Sequence[FileData]):
    """The files of a store, sorted by name; prints as a table.

    Parameters
    ----------
    records : sequence of CalibrationRecord
        What is registered.
    store : str
        Where.
    """

    def __init__(self, records: Sequence[CalibrationRecord], store: str) -> None:
        self.records = tuple(sorted(records, key=lambda record: (record.name, record.path)))
        self.store = store
        self._files = [FileData(record.name, str(Path(record.path).parent)) for record in self.records]

    @overload
    def __getitem__(self, index: int) -> FileData: ...
    @overload
    def __getitem__(self, index: slice) -> list[FileData]: ...
    def __getitem__(self, index: int | slice) -> FileData | list[FileData]:
        return self._files[index]

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[FileData]:
        return iter(self._files)

    def __repr__(self) -> str:
        head = f"{len(self)} calibration{'s' * (len(self) != 1)} in {self.store}"
        width = max((len(record.name) for record in self.records), default=0)
        lines = [
            f"  {record.name:<{width}}  {record.caltype:<14}  {folder}"
            for record, (_, folder) in zip(self.records, self._files, strict=True)
        ]
        return "\n".join([head, *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(record.name)}</td><td>{record.caltype}</td><td>{escape(folder)}</td></tr>"
            for record, (_, folder) in zip(self.records, self._files, strict=True)
        )
        return (
            f"<table><caption>{len(self)} calibrations in {escape(self.store)}</caption>"
            f"<tr><th>name</th><th>type</th><th>folder</th></tr>{rows}</table>"
        )


def read_record(path: str | PathLike[str]) -> CalibrationRecord:
    """Look at a file and return what is to be registered.

    Parameters
    ----------
    path : path-like
        A processed dark, flat or bad pixel mask.

    Raises
    ------
    InputError
        There is no such file.
    DataError
        The file cannot be opened.
    CalibrationError
        It is not a processed dark, flat or bad pixel mask; the message names the tags found.
    """
    file = absolute(path)
    if not file.is_file():
        raise InputError(
            "there is no such calibration file" if not file.is_dir() else "this is a folder, not a file",
            file=file,
            remedy="Use add_directory() for folders" if file.is_dir() else None,
        )
    try:
        stat = file.stat()
        checksum = _md5(file)
    except OSError as err:
        raise StorageError("the calibration file cannot be read", file=file, found=err.strerror) from err
    facts = facts_of(astrodata.open(file))
    caltype = calibration_type(facts.tags)
    if caltype is None:
        raise CalibrationError(
            "this file is not a processed calibration",
            file=file,
            item="tags",
            found=", ".join(sorted(facts.tags)) or "none",
            expected="PROCESSED with DARK or FLAT, or BPM",
        )
    now = datetime.now(UTC).replace(tzinfo=None)
    return CalibrationRecord(str(file), caltype, checksum, stat.st_size, stat.st_mtime_ns, now, facts)


def absolute(path: str | PathLike[str]) -> Path:
    """Return an absolute path, with ``~`` expanded and ``..`` removed; symbolic links stay."""
    return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 (Path.absolute keeps "..")


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
