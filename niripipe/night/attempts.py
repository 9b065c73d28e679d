"""Attempts at reductions in processes that may be lost, and what such processes leave behind."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from niripipe.errors import StorageError
from niripipe.logutils import get_logger

__all__ = ["attempt", "attempts"]

log = get_logger(__name__)

_PREFIX = ".niripipe-night-"
_DONE = ".done"


@contextlib.contextmanager
def attempts(folder: Path) -> Iterator[Path]:
    """Keep account of who works in a folder of products; clean up after the processes that were lost.

    A product appears under its name only when it is complete. What a killed process leaves is the hidden
    file that it was writing, which bears the number of the process.

    Parameters
    ----------
    folder : Path
        Where the products are written.

    Yields
    ------
    Path
        A hidden folder in it for `attempt`, which is gone afterwards.

    Raises
    ------
    StorageError
        It cannot be made.
    """
    try:
        notes = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
        # Workers may belong to another account of the same group.
        notes.chmod(folder.stat().st_mode & 0o777)
    except OSError as error:
        raise StorageError(
            "The output folder cannot be written", file=folder, item="output_dir", found=error.strerror
        ) from None
    try:
        yield notes
    finally:
        _clean(folder, notes)
        shutil.rmtree(notes, ignore_errors=True)


@contextlib.contextmanager
def attempt(notes: Path, number: int) -> Iterator[bool]:
    """Note that this process works on a reduction, and that it has come to an end with it.

    Parameters
    ----------
    notes : Path
        As `attempts` gave it.
    number : int
        Which reduction.

    Yields
    ------
    bool
        Whether there was an earlier attempt: its process was lost, or its answer.

    Raises
    ------
    StorageError
        The folder is gone, so that the run is over, or it cannot be written.
    """
    try:
        again = next(notes.glob(f"{number}@*"), None) is not None
        note = notes / f"{number}@{platform.node()}@{os.getpid()}"
        note.with_name(note.name + _DONE).unlink(missing_ok=True)
        note.touch()
    except OSError as error:
        raise StorageError(
            "The run that asked for this reduction cannot be reached or is over",
            file=notes,
            found=error.strerror,
        ) from None
    try:
        yield again
    finally:
        with contextlib.suppress(OSError):
            note.rename(note.with_name(note.name + _DONE))


def _clean(folder: Path, notes: Path) -> None:
    """Remove the unfinished files of the processes that did not come to an end."""
    own = (platform.node(), str(os.getpid()))
    for note in sorted(notes.glob("*@*")):
        _, host, process = note.name.removesuffix(_DONE).rsplit("@", 2)
        # A thread of this process that is still at work tidies up after itself.
        if note.name.endswith(_DONE) or (host, process) == own:
            continue
        for left in (*folder.glob(f".*.{process}-*.part"), *folder.glob(f".niripipe-scratch-{process}-*")):
            log.debug("removing %s, which a lost process left", left)
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
