"""Searching the Gemini Observatory Archive.

The archive answers searches in JSON at ``/jsonsummary/<criteria>``, the criteria being parts of the path in
any order, and delivers a file at ``/file/<name>`` (https://archive.gemini.edu/help/api.html). Words it does
not know are ignored by it, which would widen a search; so values are checked here, and what does not match
the instrument and the program that were asked for is left out.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from typing import Annotated, Any, Unpack

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, ValidationError

from niripipe.datasets.connection import Connection, TransferOptions, get_json
from niripipe.datasets.frames import FileName
from niripipe.errors import InputError, StorageError
from niripipe.inspection import Table
from niripipe.logutils import get_logger

__all__ = ["ARCHIVE_URL", "ArchiveFile", "ArchiveFiles", "file_url", "find", "look_up"]

ARCHIVE_URL = "https://archive.gemini.edu"
"""The public archive."""

# Calibration masks and reduced frames are not engineering data, so one selection serves for both.
_SELECTION = ("canonical", "notengineering", "NotFail")

_SHOWN = 200  # files in a table

_Md5 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{32}$")]

_log = get_logger(__name__)


def _or_none(read: Callable[[str], Any]) -> BeforeValidator:
    # Curated by hand over twenty years: a date that cannot be read must not sink the listing.
    def value_or_none(value: Any) -> Any:
        try:
            return read(str(value))
        except ValueError:
            return None

    return BeforeValidator(value_or_none)


class ArchiveFile(BaseModel):
    """A file in the archive, as its search describes it.

    Attributes
    ----------
    name : str
        File name, ending in ``.fits``.
    data_md5, data_size : str or None, int or None
        MD5 and size in bytes of the uncompressed file.
    file_md5, file_size : str or None, int or None
        The same of the file as the archive stores it, usually compressed with bzip2.
    program_id, observation_id, data_label : str or None
        Gemini's identifiers.
    instrument, object, filter_name : str or None
    observation_type, observation_class, qa_state : str or None
        Such as ``OBJECT`` or ``DARK``; ``science`` or ``dayCal``; ``Pass``.
    exposure_time : float or None
        s.
    ut_datetime : datetime.datetime or None
        UT of the observation, without time zone.
    release : datetime.date or None
        The day the data become public.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: FileName
    data_md5: _Md5 | None = None
    data_size: NonNegativeInt | None = None
    file_md5: _Md5 | None = None
    file_size: NonNegativeInt | None = None
    program_id: str | None = None
    observation_id: str | None = None
    data_label: str | None = None
    instrument: str | None = None
    object: str | None = None
    filter_name: str | None = None
    observation_type: str | None = None
    observation_class: str | None = None
    qa_state: str | None = None
    exposure_time: float | None = None
    ut_datetime: Annotated[datetime | None, _or_none(datetime.fromisoformat)] = None
    release: Annotated[date | None, _or_none(lambda text: date.fromisoformat(text[:10]))] = None

    def is_proprietary(self, on: date | None = None) -> bool:
        """Tell whether the data are still proprietary.

        Parameters
        ----------
        on : datetime.date, optional
            The day in question; today (UT) by default.

        Returns
        -------
        bool
            False if the archive names no day of release.
        """
        day = datetime.now(UTC).date() if on is None else on
        return self.release is not None and self.release > day


class ArchiveFiles(list[ArchiveFile]):
    """What a search has found: a list that shows itself as a table.

    Attributes
    ----------
    truncated : bool
        The archive held back further files because the search was too wide.
    """

    def __init__(self, files: Iterable[ArchiveFile] = (), *, truncated: bool = False) -> None:
        super().__init__(files)
        self.truncated = truncated

    def _table(self) -> Table:
        """Return a table of at most 200 rows and a note that counts the files."""
        count = f"{len(self)} files"
        if len(self) > _SHOWN:
            count += f", {len(self) - _SHOWN} of them not shown"
        if self.truncated:
            count += "; the archive may hold more: narrow the search"
        columns = ("name", "UT", "type", "class", "object", "filter", "exposure (s)", "program", "")
        rows = [dict(zip(columns, _shown(file), strict=True)) for file in self[:_SHOWN]]
        return Table(columns, rows, notes=[count])

    def __repr__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()


def _shown(file: ArchiveFile) -> list[str]:
    """Return what a row shows of a file; unknown values are empty."""
    values = (
        file.name,
        None if file.ut_datetime is None else file.ut_datetime.isoformat(" ", "seconds"),
        file.observation_type,
        file.observation_class,
        file.object,
        file.filter_name,
        None if file.exposure_time is None else f"{file.exposure_time:.3f}",
        file.program_id,
        "proprietary" if file.is_proprietary() else None,
    )
    return ["" if value is None else value for value in values]


def find(
    *,
    program: str | None = None,
    date: date | str | tuple[date | str, date | str] | None = None,
    object: str | None = None,
    instrument: str = "NIRI",
    observation_type: str | None = None,
    observation_class: str | None = None,
    exposure_time: float | None = None,
    base_url: str = ARCHIVE_URL,
    **options: Unpack[TransferOptions],
) -> ArchiveFiles:
    """Search the archive for frames.

    Frames that failed quality assessment and engineering data are left out. Darks for a bad pixel mask,
    which calibration association in the archive does not offer, are found by a range of dates with
    ``observation_type="DARK"`` and ``exposure_time=1``.

    Parameters
    ----------
    program : str, optional
        Program identifier, such as ``GN-2015B-Q-31``.
    date : datetime.date, str or pair of them, optional
        UT day (``"2016-01-02"`` or ``"20160102"``), or first and last day.
    object : str, optional
        Name of the target as given by the observer, in any case; it may begin or end with ``*``.
    instrument : str
    observation_type, observation_class : str, optional
        Such as ``"DARK"``, ``"FLAT"``, ``"OBJECT"``; ``"science"``, ``"partnerCal"``, ``"dayCal"``.
    exposure_time : float, optional
        s; frames within 0.5 s of it are found.
    base_url : str
        The archive.
    **options
        See `TransferOptions`.

    Returns
    -------
    ArchiveFiles
        In the order of file names. `ArchiveFiles.truncated` tells whether there are more: the archive
        limits searches that name neither program nor date.

    Raises
    ------
    InputError
        Neither program, date nor object is given, or a value cannot be part of a search.
    StorageError
        The archive cannot be reached or answers nonsense.
    """
    if program is None and date is None and object is None:
        raise InputError(
            "this search would list the whole archive", remedy="Give a program, a date or an object"
        )
    criteria = [_word("instrument", instrument)]
    if date is not None:
        criteria.append(_days(date))
    words = {"observation_type": observation_type, "observation_class": observation_class}
    criteria += [_word(item, value) for item, value in words.items() if value is not None]
    if program is not None:
        criteria.append(f"progid={_word('program', program.upper())}")
    if exposure_time is not None:
        criteria.append(f"exposure_time={_seconds(exposure_time)}")
    if object is not None:
        criteria.append(f"object={_target(object)}")
    files = _ask("jsonsummary", [*_SELECTION, *criteria], base_url, Connection(**options))
    matching = ArchiveFiles(
        (file for file in files if _matches(file, instrument, program)), truncated=files.truncated
    )
    if matching.truncated:
        _log.warning("The archive found more than it lists (%d files): narrow the search", len(matching))
    return matching


def look_up(name: str, base_url: str, connection: Connection) -> ArchiveFile:
    """Return what the archive says of one file.

    Raises
    ------
    InputError
        The archive has no such file.
    StorageError
        The archive cannot be reached or answers nonsense.
    """
    files = _ask("jsonfilelist", ["canonical", f"filename={name}"], base_url, connection)
    for file in files:
        if file.name == name:
            return file
    raise InputError(
        "the archive has no such file",
        item="file name",
        found=name,
        remedy="Check the name, or search with find()",
    )


def file_url(name: str, base_url: str) -> str:
    """Return the address of a file in the archive."""
    return f"{base_url.rstrip('/')}/file/{urllib.parse.quote(name, safe='')}"


def _ask(feature: str, criteria: Iterable[str], base_url: str, connection: Connection) -> ArchiveFiles:
    url = "/".join([base_url.rstrip("/"), feature, *criteria])
    rows = get_json(url, connection)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StorageError(
            "the archive's answer is not a list of files", item=url, found=f"{str(rows)[:80]!r}"
        )
    try:
        files = [ArchiveFile.model_validate(row) for row in rows]
    except ValidationError as err:
        fault = err.errors()[0]
        raise StorageError(
            "the archive's answer describes a file that cannot be",
            item=url,
            found=f"{'.'.join(map(str, fault['loc']))}: {str(fault.get('input'))[:80]!r}",
        ) from err
    return ArchiveFiles(files, truncated=any(row.get("results_truncated") is True for row in rows))


def _matches(file: ArchiveFile, instrument: str, program: str | None) -> bool:
    if file.instrument is not None and file.instrument.upper() != instrument.upper():
        return False
    return program is None or file.program_id is None or file.program_id.upper() == program.upper()


def _word(item: str, value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", value) is None:
        raise InputError(
            "this cannot be part of a search",
            item=item,
            found=repr(value),
            expected="letters, digits, '-', '_', '.' and '+'",
        )
    return urllib.parse.quote(value, safe="")


def _target(value: str) -> str:
    if not value.strip() or "/" in value or not value.isprintable():
        raise InputError(
            "this cannot be part of a search",
            item="object",
            found=repr(value),
            expected="a name without '/'",
            remedy="Use '*' for what cannot be written",
        )
    return urllib.parse.quote(value.strip(), safe="*")


def _seconds(value: float) -> str:
    if not 0 <= value < 1e6:
        raise InputError("no exposure time", item="exposure_time", found=value, expected="seconds")
    return f"{value:.3f}"


def _days(value: date | str | tuple[date | str, date | str]) -> str:
    if not isinstance(value, tuple):
        return _day(value).strftime("%Y%m%d")
    if len(value) != 2 or (first := _day(value[0])) > (last := _day(value[1])):
        raise InputError("no range of days", item="date", found=value, expected="first and last day")
    return f"{first:%Y%m%d}-{last:%Y%m%d}"


def _day(value: date | str) -> date:
    try:
        if isinstance(value, datetime):
            return value.date()
        return value if isinstance(value, date) else date.fromisoformat(value)
    except (ValueError, TypeError) as err:
        raise InputError(
            "this is not a day", item="date", found=repr(value), expected="2016-01-02 or 20160102"
        ) from err
