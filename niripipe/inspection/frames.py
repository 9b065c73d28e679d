"""What frames are: descriptors and tags of many files as tables."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.astrodata.descriptors import descriptor_methods
from niripipe.dataselect.frames import ask
from niripipe.errors import InputError, NiripipeError
from niripipe.inspection.table import Table
from niripipe.instruments import AstroDataNiri
from niripipe.instruments.known_tags import check_tags
from niripipe.paths import usable_path
from niripipe.primitives.params import nearest
from niripipe.reduction.inputs import Source, expand

__all__ = ["frame_files", "opened", "showd", "typewalk"]

_UNITS = {
    **dict.fromkeys(("exposure_time", "exposure_time_per_coadd"), "s"),
    **dict.fromkeys(("azimuth", "elevation", "cass_rotator_pa", "position_angle"), "deg"),
    **dict.fromkeys(("ra", "dec", "target_ra", "target_dec", "wcs_ra", "wcs_dec"), "deg"),
    **dict.fromkeys(("telescope_x_offset", "telescope_y_offset", "pixel_scale", "ao_seeing"), "arcsec"),
    **dict.fromkeys(("detector_x_offset", "detector_y_offset"), "pixel"),
    "effective_wavelength": "m",
    "read_noise": "electron",
}
"""Units of descriptors, for tables."""

_SUFFIXES = (".fits", ".fits.gz", ".fits.bz2", ".fits.fz", ".fit", ".fit.gz", ".fts", ".fz")


def showd(
    frames: Iterable[Source] | Source,
    descriptors: str | Iterable[str] = "exposure_time,object",
    *,
    long: bool = False,
) -> Table:
    """Show descriptors of frames.

    Parameters
    ----------
    frames : path, pattern, folder, ``@list`` or AstroData, or an iterable of them
        A text with ``*``, ``?`` or ``[`` is a pattern, a folder stands for the FITS files in it.
    descriptors : str or iterable of str
        Names, in one text separated by commas, or one by one. ``tags`` shows the tags.
    long : bool
        Show names of filters, cameras and so on in full, with component identifiers; by default those
        descriptors that have a pretty form are shown in it.

    Returns
    -------
    Table
        Columns ``filename`` and the descriptors, one row a frame; the rows also hold ``path``. A file that
        cannot be opened has None everywhere, and the reason is a note below the table. Values that are
        equal in all extensions are shown once.

    Raises
    ------
    InputError
        There are no frames, or an unknown descriptor (the nearest names are given).

    Examples
    --------
    >>> showd("night", "object,exposure_time,filter_name")     # doctest: +SKIP
    ------------------------------------------------------------
    filename                object   exposure_time   filter_name
    ------------------------------------------------------------
    N20160102S0270.fits    SN2014J          20.002             H
    """
    names = _names(descriptors)
    rows, notes = [], []
    for source in _sources(frames):
        try:
            frame = opened(source)
        except NiripipeError as error:
            path = Path(str(source))
            notes.append(f"{path.name} cannot be opened: {error.problem}")
            rows.append({"filename": path.name, **dict.fromkeys(names), "path": str(path)})
            continue
        values = {name: _value(frame, name, pretty=not long) for name in names}
        rows.append({"filename": frame.filename, **values, "path": frame.path and str(frame.path)})
    return Table(["filename", *names], rows, notes=notes, right=names, units=_UNITS)


def typewalk(
    folder: str | PathLike[str],
    *,
    tags: Iterable[str] | str = (),
    xtags: Iterable[str] | str = (),
    any_of: bool = False,
    mask: str = "*.fit*",
    recursive: bool = True,
) -> Table:
    """Show the tags of the files in a folder.

    Parameters
    ----------
    folder : path-like
        Where to look.
    tags : iterable of str
        Only files that have all of these tags (one of them, with `any_of`).
    xtags : iterable of str
        Only files that have none of these tags.
    any_of : bool
        Whether one of `tags` is enough.
    mask : str
        Pattern of file names, in any letter case.
    recursive : bool
        Whether to look into the folders inside the folder.

    Returns
    -------
    Table
        Columns ``file`` (relative to the folder) and ``tags`` (a tuple, sorted); the rows also hold
        ``path``. Files that cannot be opened are named, with reasons, below the table.

    Raises
    ------
    InputError
        There is no such folder, or no such tag (the nearest are named).
    """
    wanted = {tags} if isinstance(tags, str) else set(tags)
    unwanted = {xtags} if isinstance(xtags, str) else set(xtags)
    check_tags(wanted, "tags")
    check_tags(unwanted, "xtags")
    top = usable_path(folder)
    rows, notes = [], []
    for path in frame_files(top, mask=mask, recursive=recursive):
        try:
            found = {str(tag) for tag in astrodata.open(path).tags}
        except NiripipeError as error:
            notes.append(f"{path.relative_to(top)} cannot be opened: {error.problem}")
            continue
        fits = bool(wanted & found) if any_of and wanted else wanted <= found
        if fits and not unwanted & found:
            name, tag_names = str(path.relative_to(top)), tuple(sorted(found))
            rows.append({"file": name, "tags": tag_names, "path": str(path.absolute())})
    return Table(["file", "tags"], rows, title=f"{len(rows)} files in {top}", notes=notes)


def frame_files(folder: str | PathLike[str], *, mask: str = "*.fit*", recursive: bool = False) -> list[Path]:
    """Return the FITS files in a folder, sorted by name.

    Parameters
    ----------
    folder : path-like
        Where to look.
    mask : str
        Pattern of file names, in any letter case; of the names that match, those that end like FITS files are
        taken, hidden ones excepted.
    recursive : bool
        Whether to look into the folders inside the folder.

    Raises
    ------
    InputError
        There is no such folder.
    """
    top = usable_path(folder)
    if not top.is_dir():
        raise InputError(
            "There is no such folder", file=top, found="a file" if top.exists() else "nothing of that name"
        )
    found = top.rglob("*") if recursive else top.iterdir()
    return sorted(
        path
        for path in found
        if fnmatch.fnmatch(path.name.lower(), mask.lower())
        and path.name.lower().endswith(_SUFFIXES)
        and not path.name.startswith(".")
        and path.is_file()
    )


def opened(source: Source) -> AstroData:
    """Return a frame: itself, or opened (headers only)."""
    return source if isinstance(source, AstroData) else astrodata.open(source)


def _sources(frames: Iterable[Source] | Source) -> list[Source]:
    found = [source for given in expand(frames) for source in _expanded(given)]
    if not found:
        raise InputError("There are no frames to show", item="frames", found=repr(frames))
    return found


def _expanded(source: Source) -> Iterator[Source]:
    """Replace a folder by its FITS files and a pattern by the files that match."""
    if isinstance(source, AstroData):
        yield source
        return
    path = usable_path(source)
    if path.is_dir():
        yield from frame_files(path)
    elif not path.exists() and glob.has_magic(str(path)):
        yield from sorted(glob.glob(str(path)))  # noqa: PTH207 (the pattern may have an absolute folder)
    else:
        yield path


def _names(descriptors: str | Iterable[str]) -> list[str]:
    parts = descriptors.split(",") if isinstance(descriptors, str) else list(descriptors)
    names = [part.strip() for part in parts if part.strip()]
    known = ["tags", *descriptor_methods(AstroDataNiri)]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InputError(
            "Unknown descriptor" if unknown else "No descriptor was named",
            item="descriptors",
            found=", ".join(unknown) or repr(descriptors),
            expected=None if unknown and nearest(unknown[0], known) else ", ".join(known),
            remedy=nearest(unknown[0], known) if unknown else None,
        )
    return names


def _value(frame: AstroData, name: str, *, pretty: bool) -> Any:
    if name == "tags":
        return tuple(sorted(str(tag) for tag in frame.tags))
    try:
        value = ask(frame, name, pretty)
    except NiripipeError:
        return None
    if isinstance(value, list) and value and all(other == value[0] for other in value):
        return value[0]
    return value
