"""The log file of a night."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from niripipe.errors import storage_faults
from niripipe.logutils import FULLINFO, level_name, listening

__all__ = ["LOG_NAME", "log_file"]

LOG_NAME = "night.log"
"""Name of the log file in the folder of products."""


def _lines(level: int, text: str) -> str:
    """Return a message as lines of the log file, with the time now."""
    prefix = f"{datetime.now():%Y-%m-%d %H:%M:%S} {level_name(level):<8} - "
    return "\n".join(prefix + line for line in text.splitlines() or [""])


@contextlib.contextmanager
def log_file(folder: Path, *, wanted: bool = True) -> Iterator[None]:
    """Write what is logged in the ``with`` block into the log file of a folder, after what is there already.

    What the log shows elsewhere, and its levels, do not change.

    Parameters
    ----------
    folder : Path
        Of the products.
    wanted : bool
        Whether a file is written at all.

    Raises
    ------
    StorageError
        The file cannot be opened.
    """
    if not wanted:
        yield
        return
    path = folder / LOG_NAME
    with storage_faults("The log file cannot be written", path, item="output_dir"):
        # Lines are seen as they come, also when the process is killed.
        file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)

    def write(level: int, text: str) -> None:
        # A full disk must not stop a night whose products fit.
        with contextlib.suppress(OSError):
            file.write(_lines(level, text) + "\n")

    try:
        with listening(write, FULLINFO):
            yield
    finally:
        with contextlib.suppress(OSError):
            file.close()
