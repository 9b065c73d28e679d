"""Paths that users give."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from niripipe.errors import InputError

__all__ = ["usable_path"]


def usable_path(path: str | PathLike[str], *, item: str | None = None) -> Path:
    """Return a path with ``~`` replaced, after a look at whether the system can have such a file.

    Parameters
    ----------
    path : path-like
        It need not exist.
    item : str, optional
        What the path was given as, for the error.

    Raises
    ------
    InputError
        It holds a null character, is longer than the system allows, or names the home of nobody; its last
        part holds control characters, which no FITS header can hold, and which do things to a terminal.
    """
    try:
        expanded = Path(path).expanduser()
        # Only what no folder can hold is an error here; whether the file may be read is asked when it is.
        os.stat(expanded)  # noqa: PTH116  # Path.exists() takes a null character for a missing file
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            "This cannot be the path of a file",
            file=path,
            item=item,
            found=getattr(error, "strerror", None) or str(error),
            remedy="Check the name.",
        ) from None
    if any(c < " " or "\x7f" <= c < "\xa0" for c in expanded.name):
        raise InputError(
            "The name of a file holds control characters", file=path, item=item, remedy="Rename it."
        )
    return expanded
