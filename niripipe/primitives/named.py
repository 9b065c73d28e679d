"""Frames that a user names in a parameter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from niripipe.astrodata import AstroData
from niripipe.errors import ParameterError
from niripipe.primitives.base import Frames, opened_name, raw_name

__all__ = ["frames_named", "is_named", "no_such_frame"]

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
    given = Path(name)
    names = {str(one) for one in (frame.filename, opened_name(frame), raw_name(frame)) if one}
    if _root(given.name) not in {_root(Path(one).name) for one in names}:
        return False
    if given.parent == Path() or frame.path is None:
        return True
    if given.is_absolute():
        return given.parent.resolve() == Path(frame.path).parent.resolve()
    # The current folder may be another one than when the name was given.
    wanted = [part for part in given.parent.parts if part != ".."]
    return list(Path(frame.path).parent.resolve().parts[-len(wanted) :]) == wanted if wanted else True


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
        found += [frame for frame in matches if not any(frame is other for other in found)]
    return found


def no_such_frame(frames: Sequence[AstroData], name: str, item: str) -> ParameterError:
    """Return the error of a name that no frame has."""
    known = ", ".join(opened_name(frame) for frame in frames)
    return ParameterError(
        "There is no frame of this name", item=item, found=name, expected=f"one of {known or 'no frames'}"
    )


def _root(name: str) -> str:
    return _ENDING.sub("", name)
