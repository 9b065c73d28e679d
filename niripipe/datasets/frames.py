"""Names of frames: how they are written, and ranges of them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from niripipe.errors import InputError

__all__ = ["COMPRESSIONS", "FileName", "expand", "frame_name"]

COMPRESSIONS = (".bz2", ".gz")

# One path component that is a plain name on every file system, and that is not hidden.
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
# Gemini North and South: site, night, running number (`N20160102S0270`).
_RANGE = re.compile(r"([NS]\d{8}S)(\d{4})-(\d{3,4})")


def _plain(name: str) -> str:
    if _SAFE.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a plain file name")
    return name


FileName = Annotated[str, AfterValidator(_plain)]
"""A file in a folder and nothing else: no path, not hidden, no odd letters."""


def frame_name(name: str) -> str:
    """Return the archive's name of a frame: ending in ``.fits``, without the suffix of a compression.

    Parameters
    ----------
    name : str
        Such as ``N20160102S0270``, ``N20160102S0270.fits`` or ``N20160102S0270.fits.bz2``.

    Returns
    -------
    str

    Raises
    ------
    InputError
        The name is not that of a file: it holds a path, a blank, or nothing.
    """
    root = name
    for suffix in COMPRESSIONS:
        root = root.removesuffix(suffix)
    root = root.removesuffix(".fits")
    if _SAFE.fullmatch(root) is None:
        raise InputError(
            "this is not the name of a file in the archive",
            item="file name",
            found=repr(name),
            expected="a name such as N20160102S0270.fits, without a path",
        )
    return f"{root}.fits"


def expand(entry: str) -> list[str]:
    """Return the frames that an entry of the catalogue stands for.

    Parameters
    ----------
    entry : str
        A name, or a range of running numbers: ``N20160102S0270-274`` is 0270 to 0274, both included. As in
        Gemini's manuals the second number may leave out leading digits.

    Returns
    -------
    list of str
        Names ending in ``.fits``, in ascending order.

    Raises
    ------
    InputError
        The range runs backwards, or the name is not that of a file.
    """
    match = _RANGE.fullmatch(entry)
    if match is None:
        return [frame_name(entry)]
    prefix, first, last = match.groups()
    start, end = int(first), int(first[: 4 - len(last)] + last)
    if end < start:
        raise InputError("the range of frames runs backwards", item="frames", found=entry)
    return [f"{prefix}{number:04d}.fits" for number in range(start, end + 1)]
