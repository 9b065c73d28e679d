"""Frames that a user names in a parameter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.errors import NiripipeError, ParameterError
from niripipe.instruments.identity import exposure_of, pixel_checksum
from niripipe.logutils import get_logger
from niripipe.primitives.base import Frames, opened_name, raw_name

__all__ = ["frames_named", "is_named", "no_such_frame", "same_exposure", "tell_apart"]

log = get_logger(__name__)

_ENDING = re.compile(r"\.(fits|fit|fts)(\.(gz|bz2|fz))?$", re.IGNORECASE)


def is_named(frame: AstroData, name: str) -> bool:
    """Return whether a name that a user gives is that of a frame.

    Parameters
    ----------
    frame : AstroData
    name : str
        A whole file name, with or without its ending and folder: that of the frame now, when it was opened,
        or of its raw file.
    """
    given, source = Path(name), frame.source_path or frame.path
    names = {str(one) for one in (frame.filename, opened_name(frame), raw_name(frame), source) if one}
    if _root(given.name) not in {_root(Path(one).name) for one in names}:
        return False
    if given.parent == Path() or source is None:
        return True
    if given.is_absolute():
        return given.parent.resolve() == Path(source).parent.resolve()
    # The current folder may be another one than when the name was given.
    wanted = [part for part in given.parent.parts if part != ".."]
    return list(Path(source).parent.resolve().parts[-len(wanted) :]) == wanted if wanted else True


def frames_named(frames: Sequence[AstroData], names: Sequence[str], item: str) -> Frames:
    """Return the frames that a user names.

    Parameters
    ----------
    frames : sequence of AstroData
    names : sequence of str
        As for `is_named`.
    item : str
        Parameter in which they are named.

    Raises
    ------
    ParameterError
        A name is that of no frame.
    """
    found: Frames = []
    for name in names:
        matches = [frame for frame in frames if is_named(frame, name)]
        if not matches:
            raise no_such_frame(frames, name, item)
        if len(matches) > 1:
            sources = ", ".join(str(frame.source_path or opened_name(frame)) for frame in matches)
            log.warning("%s: %r names %d frames: %s", item, name, len(matches), sources)
        found += [frame for frame in matches if not any(frame is other for other in found)]
    return found


def no_such_frame(frames: Sequence[AstroData], name: str, item: str) -> ParameterError:
    """Return the error of a name that no frame has."""
    known = ", ".join(opened_name(frame) for frame in frames)
    return ParameterError(
        "There is no frame of this name", item=item, found=name, expected=f"one of {known or 'no frames'}"
    )


def same_exposure(a: AstroData, b: AstroData) -> bool:
    """Return whether two frames hold the same exposure, whatever was done to either.

    By data label and time; where a header lacks one of the two, by the pixels of the files that the frames
    were opened from.
    """
    if a is b:
        return True
    first, second = exposure_of(a), exposure_of(b)
    if first.key is not None and second.key is not None:
        return first.key == second.key
    if first.time is not None and second.time is not None and first.time != second.time:
        return False
    try:
        return _checksum_of_source(a) == _checksum_of_source(b)
    except NiripipeError:
        return False


def _checksum_of_source(frame: AstroData) -> str:
    source = frame.source_path
    return pixel_checksum(frame if source is None or not Path(source).is_file() else astrodata.open(source))


def tell_apart(frames: Sequence[AstroData], known: Sequence[AstroData] = ()) -> None:
    """Give different frames that share a name names with their folders: reports and tables go by names.

    Parameters
    ----------
    frames : sequence of AstroData
        The first of a name keeps it; others are renamed, also in ORIGNAME, with a warning.
    known : sequence of AstroData
        Frames whose names are taken.
    """
    taken = {opened_name(frame) for frame in known}
    for frame in frames:
        name = opened_name(frame)
        if name in taken:
            new = _free_name(name, Path(str(frame.source_path or frame.path)), taken)
            log.warning("%s is another frame than the first of this name; it is called %s", frame.path, new)
            if frame.phu.get("ORIGNAME") == name:
                frame.phu["ORIGNAME"] = new
            frame.filename = new
            frame.orig_filename = new
            name = new
        taken.add(name)


def _free_name(name: str, path: Path, taken: set[str]) -> str:
    """Return a name with that of the folder of the file, and a number if need be."""
    stem, dot, extension = name.partition(".")
    # Header values hold plain ASCII.
    folder = re.sub(r"[^A-Za-z0-9]+", "", path.absolute().parent.name) or "2"
    numbers = ("", *(str(number) for number in range(2, len(taken) + 3)))
    return next(new for number in numbers if (new := f"{stem}-{folder}{number}{dot}{extension}") not in taken)


def _root(name: str) -> str:
    return _ENDING.sub("", name)
