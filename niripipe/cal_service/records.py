"""A registered calibration: where its file is, what it was like when registered, and whether it still is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.astrodata.display import html_table
from niripipe.cal_service.facts import CalibrationFacts, facts_of
from niripipe.cal_service.rules import calibration_type
from niripipe.errors import CalibrationError, InputError, NiripipeError, storage_faults
from niripipe.logutils import get_logger
from niripipe.paths import usable_path

__all__ = [
    "CalReturn",
    "CalibrationRecord",
    "FileData",
    "FileList",
    "FileState",
    "absolute",
    "read_folder",
    "read_record",
]

log = get_logger(__name__)

_FITS_SUFFIXES = (".fits", ".fits.gz", ".fits.bz2", ".fits.fz")

FileState = Literal["present", "missing", "changed"]


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """A registered calibration.

    Attributes
    ----------
    path : str
        Absolute path of the file.
    caltype : str
        ``processed_dark``, ``processed_flat``, ``processed_bpm`` or ``processed_standard``.
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


@dataclass(frozen=True, slots=True, eq=False)
class CalReturn:
    """The calibrations found, one entry a frame.

    Its length is the number of frames, an index gives a pair of file and origin, and iterating gives the
    list of files and then the list of origins.

    Attributes
    ----------
    files : list of str or None
        Absolute path of the best calibration of each frame, None where there is none.
    origins : list of str or None
        Where each was found.
    matches : list of list of CalibrationRecord
        For each frame the best calibrations, best first, as many as were asked for.
    reasons : list of str or None
        For each frame why nothing was found, as one sentence for the history of a product; None where
        something was.
    """

    files: list[str | None]
    origins: list[str | None]
    matches: list[list[CalibrationRecord]]
    reasons: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Whoever finds calibrations in another way need not say why there is none.
        if len(self.reasons) != len(self.files):
            reasons = [None if file else "no calibration was found" for file in self.files]
            object.__setattr__(self, "reasons", reasons)

    def items(self) -> Iterator[tuple[str | None, str | None]]:
        """Iterate over pairs of file and origin."""
        return iter(zip(self.files, self.origins, strict=True))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[str | None, str | None]:
        return self.files[index], self.origins[index]

    def __iter__(self) -> Iterator[list[str | None]]:
        return iter((self.files, self.origins))


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


class FileList(list[FileData]):
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
        super().__init__(FileData(record.name, str(Path(record.path).parent)) for record in self.records)

    def __repr__(self) -> str:
        head = f"{len(self)} calibration{'s' * (len(self) != 1)} in {self.store}"
        width = max((len(record.name) for record in self.records), default=0)
        lines = [
            f"  {record.name:<{width}}  {record.caltype:<14}  {folder}"
            for record, (_, folder) in zip(self.records, self, strict=True)
        ]
        return "\n".join([head, *lines])

    def _repr_html_(self) -> str:
        types = (record.caltype for record in self.records)
        rows = [(name, kind, folder) for kind, (name, folder) in zip(types, self, strict=True)]
        return html_table(("name", "type", "folder"), rows, f"{len(self)} calibrations in {self.store}")


def read_record(path: str | PathLike[str] | AstroData) -> CalibrationRecord:
    """Look at a file and return what is to be registered.

    Parameters
    ----------
    path : path-like or AstroData
        A processed dark, flat, bad pixel mask or standard; an AstroData stands for the file that it was
        read from or written to.

    Raises
    ------
    InputError
        There is no such file, or a frame exists in memory only.
    DataError
        The file cannot be opened.
    CalibrationError
        It is none of these; the message names the tags found.
    """
    if isinstance(path, AstroData):
        if path.path is None:
            raise InputError(
                "a calibration in memory cannot be registered",
                file=path.filename,
                remedy="Write it to a file first",
            )
        path = path.path
    file = absolute(path)
    if not file.is_file():
        raise InputError(
            "there is no such calibration file" if not file.is_dir() else "this is a folder, not a file",
            file=file,
            remedy="Use add_directory() for folders" if file.is_dir() else None,
        )
    with storage_faults("the calibration file cannot be read", file):
        stat = file.stat()
        checksum = _md5(file)
    facts = facts_of(astrodata.open(file))
    caltype = calibration_type(facts.tags)
    if caltype is None:
        raise CalibrationError(
            "this file is not a processed calibration",
            file=file,
            item="tags",
            found=", ".join(sorted(facts.tags)) or "none",
            expected="PROCESSED with DARK, FLAT or STANDARD, or BPM",
        )
    now = datetime.now(UTC).replace(tzinfo=None)
    return CalibrationRecord(str(file), caltype, checksum, stat.st_size, stat.st_mtime_ns, now, facts)


def read_folder(folder: str | PathLike[str], walk: bool) -> Iterator[CalibrationRecord]:
    """Yield the processed calibrations in a folder, and with `walk` in those inside it.

    A FITS file that cannot be opened is named in a warning.

    Raises
    ------
    InputError
        There is no such folder.
    """
    path = absolute(folder)
    if not path.is_dir():
        raise InputError("there is no such folder", file=path)
    for file in sorted(path.rglob("*") if walk else path.iterdir()):
        if not file.name.lower().endswith(_FITS_SUFFIXES) or not file.is_file():
            continue
        try:
            yield read_record(file)
        except CalibrationError:
            log.fullinfo("%s is not a processed calibration and is passed over", file)
        except NiripipeError as err:
            log.warning("%s", err)


def absolute(path: str | PathLike[str]) -> Path:
    """Return an absolute path, with ``~`` expanded and ``..`` removed; symbolic links stay."""
    return Path(os.path.abspath(usable_path(path)))  # noqa: PTH100 (Path.absolute keeps "..")


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
