"""Progress of long work, shown where the user asked for it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Protocol, TextIO

__all__ = ["NO_PROGRESS", "Progress", "ProgressBar", "as_progress"]


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


class ProgressBar:
    """A bar of tqdm: one line in a terminal, a widget in a notebook with ipywidgets, nothing elsewhere.

    It shows the primitive at work and the frames that it has passed, and is gone at the end. In a file or a
    pipe, where a line cannot be rewritten, nothing is shown.

    Parameters
    ----------
    stream : text stream, optional
        Where to write the line, whatever it is; by default the standard error, if it is a terminal.
    interval : float, optional
        Shortest time between two changes, s.
    """

    def __init__(self, stream: TextIO | None = None, *, interval: float = 0.1) -> None:
        self._stream = stream
        self._interval = interval
        self._bar: Any = None
        self._step = ""

    def update(self, step: str, done: int, total: int) -> None:
        """Show how far a step is."""
        if self._bar is None:
            self._bar = _bar(self._stream, self._interval, step, total)
        elif step != self._step or total != self._bar.total:
            self._bar.reset(total=total)
            self._bar.set_description_str(step, refresh=False)
        self._step = step
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Clear the line, or remove the widget."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _bar(stream: TextIO | None, interval: float, step: str, total: int) -> Any:
    """Make a bar of the kind that fits the place where the process runs."""
    # Importing tqdm takes longer than many a step, and most runs show nothing.
    from tqdm.notebook import tqdm as widget
    from tqdm.std import tqdm as line

    in_notebook = False
    if stream is None and find_spec("ipywidgets") is not None:
        # Without ipywidgets this import warns.
        from tqdm.auto import tqdm

        in_notebook = issubclass(tqdm, widget)

    class Bar(widget if in_notebook else line):  # type: ignore[misc]
        # Without this tqdm starts a thread that outlives the reduction.
        monitor_interval = 0

    # None: shown if the stream is a terminal.
    disable = False if in_notebook or stream is not None else None
    return Bar(
        desc=step,
        total=total,
        leave=False,
        file=stream,
        disable=disable,
        mininterval=interval,
        miniters=0,
        dynamic_ncols=stream is None,
        unit="frame",
    )


def as_progress(value: bool | Progress | None) -> Progress:
    """Return the progress display that a user's setting means: True for a bar, None or False for none."""
    if value is None or value is False:
        return NO_PROGRESS
    return ProgressBar() if value is True else value
