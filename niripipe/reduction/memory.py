"""Keeping the pixels of a reduction within a limit of memory."""

from __future__ import annotations

import mmap
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

from niripipe.astrodata import AstroData, ScratchFolder
from niripipe.errors import ParameterError, StorageError
from niripipe.logutils import get_logger

__all__ = ["FrameStore", "automatic_limit", "parse_size", "resident_bytes"]

log = get_logger(__name__)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}

_AUTOMATIC = 610 * 10**6
"""Bytes that a reduction may use, beyond those in use when it starts, unless the user sets a limit."""

_WORKING = 260 * 10**6
"""Bytes kept free for what algorithms need in addition to the frames: unfinished skies, blocks of rows of all
frames. It does not grow with the number of frames."""

_LEAST = 48 * 2**20
"""Frames of at least this many bytes stay in memory whatever the limit: a few full frames with all planes."""

_SMALLEST = 200 * 10**6
"""Bytes beyond those in use at the start that a reduction of full frames needs whatever the limit."""

_SLACK = 32 * 10**6
"""Bytes of frames that are treated between two counts of all, which take 5 microseconds a frame."""

_ELSEWHERE = 100 * 10**6
"""What a process is taken to use in addition to the frames where the system does not say."""


def parse_size(value: int | float | str | None) -> int | None:
    """Return a number of bytes that is written as a number or as text such as ``"500 MB"`` or ``"2 GiB"``.

    Raises
    ------
    ParameterError
        It is not a positive size.
    """
    if value is None:
        return None
    match = re.fullmatch(r"\s*([0-9.]+)\s*([KMG]?I?)B?\s*", str(value).upper())
    try:
        size = float(match[1]) * _UNITS[match[2]] if match else 0.0
    except (ValueError, KeyError):
        size = 0.0
    if not size > 0:
        raise ParameterError(
            "The memory limit is not a size",
            item="max_memory",
            found=repr(value),
            expected="bytes, or text such as '500 MB'",
        )
    return int(size)


def automatic_limit() -> int:
    """Return the bytes that the process may use when the user set no limit: a fixed amount more than now."""
    return (resident_bytes() or _ELSEWHERE) + _AUTOMATIC


class FrameStore:
    """Keeps the planes of frames within a limit; what exceeds it is moved to disk.

    Frames that the running step does not treat are moved first, then those that it has treated, the latest
    first: every step goes through its frames in the same order, so that the same frames stay in memory from
    step to step.

    The scratch folder is private, made when it is first needed, and deleted when the block ends, also after
    an error or an interrupt. Values are moved bit for bit, so results do not depend on the limit.

    Parameters
    ----------
    limit : int or None
        Bytes that the whole process may use; None for no limit.
    folder : path-like, optional
        Where the scratch folder is made; the system's folder for temporary files by default.
    required : bool
        Whether it is an error if the scratch folder cannot be written; else the limit is given up.

    Attributes
    ----------
    budget : int
        Bytes that the planes of frames may occupy; meaningless without a limit.

    Notes
    -----
    Use it as a context manager.
    """

    def __init__(
        self, limit: int | None, folder: str | PathLike[str] | None = None, *, required: bool = True
    ) -> None:
        self.limit = limit
        self.budget = 0
        self._required = required
        self._where = folder
        self._scratch: ScratchFolder | None = None
        # Keeps no frame alive.
        self._frames: weakref.WeakValueDictionary[int, AstroData] = weakref.WeakValueDictionary()
        self._inputs: set[int] = set()
        self._busy: set[int] = set()
        self._treated: list[int] = []
        self._since_count = 0
        self._before = resident_bytes() or _ELSEWHERE
        if limit is not None:
            self.budget = max(limit - _WORKING - self._before, _LEAST)
            if limit < self._before + _SMALLEST:
                log.warning("the memory limit of %d MB is less than a reduction needs", limit // 10**6)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._frames.clear()
        if self._scratch is not None:
            # Products live on, and so may frames that the caller shares with the reduction.
            self._scratch.restore()
            shutil.rmtree(self._scratch.path, ignore_errors=True)
            self._scratch = None

    def watch(self, inputs: Iterable[AstroData], others: Iterable[AstroData] = ()) -> None:
        """Take the inputs of a step and other frames under control, and forget all others."""
        treated = {id(frame): frame for frame in inputs}
        self._inputs, self._treated = set(treated), []
        self._frames = weakref.WeakValueDictionary({id(frame): frame for frame in others} | treated)
        self.settle()

    def add(self, frames: Iterable[AstroData]) -> None:
        """Take more frames under control, for as long as they exist or until the next `watch`."""
        self._frames.update({id(frame): frame for frame in frames})

    @contextmanager
    def using(self, item: object) -> Iterator[None]:
        """Keep a frame, alone or in a tuple, in memory while it is worked on, and settle if due."""
        frames = {id(frame): frame for frame in _frames_in(item)}
        self._busy.update(frames)
        self._frames.update(frames)
        try:
            yield
        finally:
            self._busy.difference_update(frames)
            self._treated += frames
            self._since_count += _bytes_of(frames.values())
            if self._since_count >= _SLACK:
                self.settle()

    def settle(self) -> None:
        """Move frames to disk until the rest fits."""
        # Asking the system is quicker than counting planes, and it never counts less.
        if self.limit is None or 0 < resident_bytes() < self._before + self.budget:
            return
        self._since_count = 0
        excess = _bytes_of(self._frames.values()) - self.budget
        if excess <= 0:
            return
        try:
            for frame in self._movable():
                excess -= frame.move_to_disk(self._folder())
                if excess <= 0:
                    return
        except StorageError as error:
            if self._required:
                raise
            log.warning("frames stay in memory: %s", error)
            self.limit = None

    def flush(self, frames: Iterable[AstroData]) -> int:
        """Move frames to disk whatever the limit; return the number of bytes.

        Raises
        ------
        StorageError
            The scratch folder cannot be written.
        """
        return sum(frame.move_to_disk(self._folder()) for frame in frames)

    def _movable(self) -> list[AstroData]:
        """Return the frames that are not in use, in the order in which they are moved."""
        treated = list(dict.fromkeys(reversed(self._treated)))
        left = [key for key in self._frames if key not in treated]
        others = [key for key in left if key not in self._inputs]
        to_come = [key for key in reversed(left) if key in self._inputs]
        order = [*others, *treated, *to_come]
        frames = (self._frames.get(key) for key in order if key not in self._busy)
        return [frame for frame in frames if frame is not None]

    def _folder(self) -> ScratchFolder:
        if self._scratch is None:
            try:
                self._scratch = ScratchFolder(Path(tempfile.mkdtemp(prefix="niripipe-", dir=self._where)))
            except OSError as error:
                raise StorageError(
                    "The scratch folder cannot be made",
                    file=self._where or tempfile.gettempdir(),
                    item="scratch_dir",
                    found=error.strerror,
                ) from None
            log.fullinfo("frames beyond the memory limit are kept in %s", self._scratch.path)
        return self._scratch


def resident_bytes() -> int:
    """Return how much memory this process uses now; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_bytes().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * mmap.PAGESIZE


def _frames_in(item: object) -> list[AstroData]:
    return [part for part in (item if isinstance(item, tuple) else (item,)) if isinstance(part, AstroData)]


def _bytes_of(frames: Iterable[AstroData]) -> int:
    """Return the bytes that frames occupy in memory; a plane that several share counts once."""
    planes = {
        plane.identity: plane.nbytes for frame in frames for ext in frame.extensions for plane in ext.arrays()
    }
    return sum(planes.values())
