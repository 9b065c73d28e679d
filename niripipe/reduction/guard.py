"""The guard of raw frames, files of other software and better products: a reduction does not replace them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from niripipe import astrodata
from niripipe.errors import NiripipeError, StorageError

__all__ = ["check_target", "is_own_product"]

_SOFTWARE = "niripipe"


def check_target(path: Path, inputs: Iterable[Path], *, named: bool = False, mode: str = "sq") -> None:
    """Refuse to replace an input, a file that niripipe did not make, or a better product.

    Parameters
    ----------
    path : pathlib.Path
        The file that is about to be written.
    inputs : iterable of pathlib.Path
        The files that the reduction was given.
    named : bool
        Whether the user named the file itself; then nothing is refused.
    mode : str
        Mode of the reduction: ``ql`` and ``qa`` do not replace products of ``sq``.

    Raises
    ------
    StorageError
        `path` is one of the inputs, also by way of a link, was not made by niripipe, or is of a better mode.
    """
    if named or not os.path.lexists(path):
        return
    remedy = "Give a suffix or another output_dir, or name the file (writeOutputs:outfilename)."
    if any(_is_same_file(path, other) for other in inputs):
        raise StorageError("This would replace an input of the reduction", file=path, remedy=remedy)
    if not is_own_product(path):
        raise StorageError(
            "This would replace a file that niripipe did not make",
            file=path,
            found="no step of niripipe in its history",
            remedy=remedy,
        )
    if mode != "sq" and str(astrodata.open(path).phu.get("PROCMODE", "")) == "sq":
        raise StorageError(
            f"A product of mode {mode} would replace one of science quality (sq)", file=path, remedy=remedy
        )


def is_own_product(path: Path) -> bool:
    """Return whether niripipe made a file, by PROCSOFT of its primary header or its history."""
    try:
        frame = astrodata.open(path)
        return (
            str(frame.phu.get("PROCSOFT", "")).startswith(_SOFTWARE)
            or "BPMOWN" in frame.phu
            or any(record.software.startswith(_SOFTWARE) for record in frame.history)
        )
    except NiripipeError:
        return False


def _is_same_file(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False
