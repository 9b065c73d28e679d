"""Progress of long work, shown where the user asked for it."""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO

__all__ = ["NO_PROGRESS", "Progress", "TextProgress", "as_progress"]


class Progress(Protocol):
    """What is told about the progress of a run.

    Any object with these two methods can be passed as ``Reduce(progress=...)``.
    """

    def update(self, step: str, done: int, total: int) -> None:
        """Take note that `done` of `total` frames have passed the primitive `step`."""

    def close(self) -> None:
        """Take note that the run has ended."""


class _NoProgress:
    def update(self, step: str, done: int, total: int) -> None:
        pass

    def close(self) -> None:
        pass


NO_PROGRESS: Progress = _NoProgress()


class TextProgress:
    """One line of text that is rewritten in place: the primitive at work and the frames it has passed.

    Parameters
    ----------
    stream : text stream, optional
        Where to write. By default the standard error, if it is a terminal or belongs to a notebook: in
        a file a line cannot be rewritten.
    interval : float, optional
        Shortest time between two changes of the line, s.
    """

    _WIDTH = 60

    def __init__(self, stream: TextIO | None = None, *, interval: float = 0.1) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._live = stream is not None or sys.stderr.isatty() or "ipykernel" in sys.modules
        self._interval = interval
        self._shown = False
        self._next = 0.0

    def update(self, step: str, done: int, total: int) -> None:
        """Rewrite the line, unless it has just been rewritten."""
        now = time.monotonic()
        if not self._live or now < self._next:
            return
        self._next = now + self._interval
        bar = "#" * (20 * done // max(total, 1))
        text = f"{step:<24s} [{bar:<20s}] {done}/{total}"
        self._stream.write(f"\r{text:<{self._WIDTH}s}")
        self._stream.flush()
        self._shown = True

    def close(self) -> None:
        """Clear the line."""
        if self._shown:
            self._stream.write("\r" + " " * self._WIDTH + "\r")
            self._stream.flush()
            self._shown = False


def as_progress(value: bool | Progress | None) -> Progress:
    """Return the progress display that a user's setting means: True for text, None or False for none."""
    if value is None or value is False:
        return NO_PROGRESS
    return TextProgress() if value is True else value
