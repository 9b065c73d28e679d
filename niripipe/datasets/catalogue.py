"""The data sets, as data: what `data_catalog` holds, validated."""

from __future__ import annotations

import functools
import html
import textwrap
import tomllib
from collections.abc import Mapping
from datetime import date
from importlib import resources
from importlib.resources.abc import Traversable
from os import PathLike
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from niripipe.datasets.frames import FileName, expand
from niripipe.datasets.integrity import parse_checksum
from niripipe.errors import DataError, InputError, NiripipeError
from niripipe.inspection import Table
from niripipe.primitives.params import nearest

__all__ = ["ArchiveSource", "DataSet", "FileGroup", "Package", "Role", "bpm_names", "get", "names", "read"]

Role = Literal["target", "sky", "standard", "dark", "short_dark", "lamp_on", "lamp_off", "bpm"]
"""What frames are for: science on target and on sky, standard star, darks for the science frames, short
darks for a bad pixel mask, flats with the lamp on and off, bad pixel masks."""


def _as_value_error(function: Any, text: str) -> Any:
    # Validators report through ValueError, which pydantic collects; ours would end the validation.
    try:
        return function(text)
    except NiripipeError as err:
        raise ValueError(str(err)) from err


def _valid_folder(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{text!r} leaves the folder of the package")
    return text


_ChecksumText = Annotated[str, AfterValidator(functools.partial(_as_value_error, parse_checksum))]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class FileGroup(_Record):
    """Frames of a data set that serve the same purpose.

    Attributes
    ----------
    role : str
        What they are for; one of `Role`.
    description : str
    frames : tuple of str
        File names, ending in ``.fits``. Ranges such as ``N20160102S0270-274`` are accepted and expanded.
    valid_from : datetime.date or None
        First day of validity, for static calibrations.
    """

    role: Role
    description: str = ""
    frames: tuple[str, ...] = Field(min_length=1)
    valid_from: date | None = None

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("frames"), list | tuple):
            frames = [name for entry in values["frames"] for name in _as_value_error(expand, str(entry))]
            return {**values, "frames": tuple(frames)}
        return values


class Package(_Record):
    """A data set as one file.

    Attributes
    ----------
    name : str
        Name of the tar file.
    url : str
        Where it is; http or https.
    data_folder : str
        Where the frames are inside, with forward slashes.
    checksum : str or None
        ``sha256:<hex>`` or ``md5:<hex>`` of the tar file; None where it is not known. Then it is recorded
        when the file first arrives, and compared afterwards.
    """

    name: FileName
    url: Annotated[str, Field(pattern=r"^https?://")]
    data_folder: Annotated[str, AfterValidator(_valid_folder)] = "."
    checksum: _ChecksumText | None = None


class ArchiveSource(_Record):
    """Where the archive has a data set, in the terms of a search (see `niripipe.datasets.find`).

    Attributes
    ----------
    instrument : str
    programs : tuple of str
        Program identifiers of the science frames.
    dates : tuple of datetime.date
        UT dates of the nights.
    """

    instrument: str = "NIRI"
    programs: tuple[str, ...] = ()
    dates: tuple[date, ...] = ()


class DataSet(_Record):
    """A data set: which frames it has, what each is for, and where to get them.

    Attributes
    ----------
    name : str
        The name to ask for.
    title, description, reference : str
        What it is in one line and in a few, and where it is described.
    files : tuple of FileGroup
        The frames; no frame is in two groups.
    package : Package or None
        The same as one file, where there is one.
    archive : ArchiveSource
        How to search for it in the archive.
    checksums : mapping of str to str
        ``sha256:<hex>`` or ``md5:<hex>`` of frames, by name, of the uncompressed FITS file. A frame that is
        not listed is checked against what the archive publishes.
    """

    name: FileName
    title: str
    description: str = ""
    reference: str = ""
    files: tuple[FileGroup, ...] = Field(min_length=1)
    package: Package | None = None
    archive: ArchiveSource = ArchiveSource()
    checksums: Mapping[str, _ChecksumText] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> DataSet:
        frames = self.file_names()
        twice = sorted({name for name in frames if frames.count(name) > 1})
        if twice:
            raise ValueError(f"listed twice: {', '.join(twice)}")
        foreign = sorted(set(self.checksums) - set(frames))
        if foreign:
            raise ValueError(f"checksums of files that are not listed: {', '.join(foreign)}")
        return self

    def file_names(self, *roles: Role) -> list[str]:
        """Return the names of the frames, ending in ``.fits``.

        Parameters
        ----------
        *roles : str
            Only these groups; all of them by default.

        Returns
        -------
        list of str
            In the order of the catalogue.

        Raises
        ------
        InputError
            The data set has no frames of such a role.
        """
        known = {group.role for group in self.files}
        for role in roles:
            if role not in known:
                raise InputError(
                    f"data set {self.name!r} has no such frames",
                    item="role",
                    found=repr(role),
                    expected=" or ".join(map(repr, sorted(known))),
                )
        return [name for group in self.files if not roles or group.role in roles for name in group.frames]

    def _table(self) -> Table:
        """Return the groups as a table, with the sources as notes."""
        rows = []
        for group in self.files:
            first, last = (name.removesuffix(".fits") for name in (group.frames[0], group.frames[-1]))
            span = group.frames[0] if first == last else f"{first} ... {last}"
            row = {"role": group.role, "files": len(group.frames)}
            rows.append(row | {"frames": span, "description": group.description})
        archive = self.archive
        search = [archive.instrument, *archive.programs, *(day.isoformat() for day in archive.dates)]
        sources = {
            "archive": ", ".join(search),
            "package": "" if self.package is None else self.package.url,
            "reference": " ".join(self.reference.split()),
        }
        notes = [f"{title}: {value}" for title, value in sources.items() if value]
        return Table(("role", "files", "frames", "description"), rows, notes=notes)

    def __repr__(self) -> str:
        lines = [f"{self.name}: {self.title}"]
        lines += textwrap.wrap(" ".join(self.description.split()), 88)
        return "\n".join([*lines, "", str(self._table())])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        name, title, description = map(html.escape, (self.name, self.title, self.description))
        return f"<div><b>{name}</b>: {title}<p>{description}</p>{self._table()._repr_html_()}</div>"


def names() -> list[str]:
    """Return the names of the data sets in the catalogue, in alphabetical order."""
    return sorted(_catalogue())


def get(name: str) -> DataSet:
    """Return a data set of the catalogue.

    Parameters
    ----------
    name : str
        One of `names`.

    Returns
    -------
    DataSet

    Raises
    ------
    InputError
        There is none of that name; the nearest names are in the message.
    """
    catalogue = _catalogue()
    if name in catalogue:
        return catalogue[name]
    raise InputError(
        "there is no such data set in the catalogue",
        item="data set",
        found=repr(name),
        expected=" or ".join(names()),
        remedy=nearest(name, names()),
    )


def bpm_names() -> list[str]:
    """Return the file names of the static NIRI bad pixel masks that the archive is known to hold."""
    return [
        name
        for data_set in _catalogue().values()
        for group in data_set.files
        if group.role == "bpm"
        for name in group.frames
    ]


def read(path: str | PathLike[str]) -> DataSet:
    """Read the description of a data set of your own.

    Parameters
    ----------
    path : path-like
        A TOML file of the form of those in ``data_catalog``.

    Returns
    -------
    DataSet

    Raises
    ------
    InputError
        There is no such file.
    DataError
        It is not TOML, or does not describe a data set; every fault is named.
    """
    try:
        return _parse(Path(path).read_text(encoding="utf-8"), str(path))
    except OSError as err:
        raise InputError(
            "the description of the data set cannot be read", file=path, found=err.strerror
        ) from err
    except UnicodeDecodeError as err:
        raise DataError("the description of the data set is not UTF-8 text", file=path) from err


@functools.cache
def _catalogue() -> Mapping[str, DataSet]:
    entries = sorted(_folder().iterdir(), key=lambda entry: entry.name)
    sets = [
        _parse(entry.read_text(encoding="utf-8"), entry.name)
        for entry in entries
        if entry.name.endswith(".toml")
    ]
    return MappingProxyType({data_set.name: data_set for data_set in sets})


def _folder() -> Traversable:
    # Inside the package once installed; beside it in a source checkout.
    package = resources.files("niripipe")
    for folder in (package / "data_catalog", package / ".." / "data_catalog"):
        if folder.is_dir():
            return folder
    raise DataError(
        "the data catalogue is missing from this installation",
        file=str(package / "data_catalog"),
        remedy="Install niripipe again",
    )


def _parse(text: str, source: str) -> DataSet:
    try:
        return DataSet.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as err:
        raise DataError("the description of a data set is not TOML", file=source, found=str(err)) from err
    except ValidationError as err:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'data set'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in err.errors()
        )
        raise DataError("this does not describe a data set", file=source, found=faults) from err
