"""What can be drawn."""

from __future__ import annotations

from os import PathLike
from typing import Any

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.errors import InputError

__all__ = ["Frame", "extension_of", "opened"]

Frame = AstroData | str | PathLike[str]
"""What can be drawn: a data set, or the path of a file."""


def opened(frame: Frame) -> AstroData:
    """Return a data set, opened if it is a path."""
    return astrodata.open(frame) if isinstance(frame, (str, PathLike)) else frame


def extension_of(frame: AstroData) -> Any:
    """Return the first extension of a data set.

    Raises
    ------
    InputError
        There is none.
    """
    if not len(frame):
        raise InputError("There is no image to draw", file=frame.filename)
    return frame if frame.is_single else frame[0]
