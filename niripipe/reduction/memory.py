"""Keeping a reduction within a limit of memory, and giving memory back."""

from __future__ import annotations

import ctypes
import gc
import mmap
import re
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

from niripipe.algorithms.parallel import map_items
from niripipe.astrodata import AstroData, restore
from niripipe.errors import ParameterError, StorageError
from niripipe.logutils import get_logger

__all__ = [
    "FrameStore",
    "automatic_limit",
    "copies_within",
    "keep_freed_memory",
    "older_objects_untouched",
    "parse_size",
    "resident_bytes",
    "return_freed_memory",
]

log = get_logger(__name__)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}

_AUTOMATIC = 400 * 10**6
"""What a reduction may use unasked: the largest take little longer than without a limit."""

_WORKING = 225 * 10**6
"""Bytes kept free for what an algorithm needs beside the frames: skies that are being made, strips of rows of
all frames, working space for each thread. It does not grow with the number of frames."""

_TWO, _COPY = 430 * 10**6, 60 * 10**6
"""Bytes, beyond those in use, that two processes sharing the work need, and that each further one needs."""

_NEARLY = 0.95
"""From this part of the limit on freed memory is returned; having it back later takes time."""

_LEAST = 48 * 2**20
"""Frames of at least this many bytes stay in memory whatever the limit: a few full frames with all planes."""

_LOOK_AROUND = 0.1
"""After what part of the frames was worked on all are looked at again: a frame may share planes with others,
and looking at it takes 10 microseconds."""

_ELSEWHERE = 150 * 10**6
"""What a process is taken to use beside the frames where the system does not say."""

# Options of mallopt, numbered as in glibc's malloc.h.
_ALLOCATION = {
    -8: 1,  # M_ARENA_MAX: pools of freed memory
    -3: 2**25,  # M_MMAP_THRESHOLD: blocks from this size on enter no pool; the most that glibc takes
    -1: 2**30,  # M_TRIM_THRESHOLD: bytes that a pool may keep
}


_MALLOC_INFO = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _MallInfo(ctypes.Structure):
    """What glibc says about its pools of memory (malloc.h)."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLOC_INFO)


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
    """Return how many bytes the process may use when nobody has said: more than now by a fixed amount."""
    return (resident_bytes() or _ELSEWHERE) + _AUTOMATIC


def copies_within(limit: int | None) -> int:
    """Return how many processes may share the work within a limit of memory; two always may."""
    return sys.maxsize if limit is None else max((limit - resident_bytes() - _TWO) // _COPY, 0) + 2


class FrameStore:
    """Keeps the planes of frames within a limit; what is over it waits in a scratch folder.

    The folder is private, made when it is first needed, and gone when the block ends, also after an
    error or an interrupt. Values are moved bit for bit, so results do not depend on the limit.
    Within the block the process keeps the memory of freed planes for new ones (`keep_freed_memory`); it
    is given back when the block ends, and before each step when a limit is near.

    Parameters
    ----------
    limit : int or None
        Bytes that the whole process may use; None for no limit.
    folder : path-like, optional
        Where the scratch folder is made; the system's folder for temporary files by default.
    required : bool
        Whether it is an error if the scratch folder cannot be written; else there is no limit any more.
    threads : int
        How many frames are written at the same time.

    Attributes
    ----------
    budget : int
        Bytes that the planes of frames may occupy; meaningless without a limit.

    Notes
    -----
    Use it as a context manager.
    """

    def __init__(
        self,
        limit: int | None,
        folder: str | PathLike[str] | None = None,
        *,
        required: bool = True,
        threads: int = 1,
    ) -> None:
        self.limit = limit
        self._threads = threads
        self._required = required
        self._where = folder
        self._scratch: Path | None = None
        self._lock = threading.Lock()
        # Frames in the order of their last use, the latest at the end. It keeps none of them alive.
        self._frames: weakref.WeakValueDictionary[int, AstroData] = weakref.WeakValueDictionary()
        self._busy: set[int] = set()
        # Bytes in memory when last looked at. Frames share planes: work on one may load those of another.
        self._sizes: dict[int, int] = {}
        self._settled = 0
        # Whether freed memory is returned before each step; and what was free, or returned, at the start.
        self._returning = False
        self._kept_before = kept_bytes()
        self.budget = self._budget(0)
        if limit is not None and self.budget <= _LEAST:
            log.warning("the memory limit of %d MB is less than a reduction needs at all", limit // 10**6)

    def __enter__(self) -> Self:
        keep_freed_memory()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._frames.clear()
        if self._scratch is not None:
            # Products live on, and so may frames that the caller shares with the reduction.
            restore(self._scratch)
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
        return_freed_memory()

    def watch(self, frames: Iterable[AstroData]) -> None:
        """Take the frames that exist now under control, and forget all others."""
        if self.limit is None:
            return
        with self._lock:
            present = {id(frame): frame for frame in frames}
            kept = {key: frame for key, frame in self._frames.items() if key in present}
            self._frames = weakref.WeakValueDictionary({**kept, **present})
            self._sizes = {key: _nbytes(frame) for key, frame in present.items()}
            if self._returning or resident_bytes() > _NEARLY * self.limit:
                # From now on before each step: what was returned once cannot be told from what is kept.
                self._returning = True
                return_freed_memory()
            self.budget = self._budget(sum(self._sizes.values()))

    def add(self, frames: Iterable[AstroData]) -> None:
        """Take more frames under control, for as long as they exist or until the next `watch`."""
        if self.limit is None:
            return
        with self._lock:
            for frame in frames:
                self._frames[id(frame)] = frame
                self._sizes[id(frame)] = _nbytes(frame)

    def begin(self, item: object) -> None:
        """Note that a frame, alone or in a tuple, is being worked on: it stays in memory."""
        if self.limit is not None:
            with self._lock:
                for frame in _frames_in(item):
                    self._busy.add(id(frame))
                    self._frames.pop(id(frame), None)
                    self._frames[id(frame)] = frame

    def end(self, item: object) -> None:
        """Note that the work on a frame is done, and make room."""
        if self.limit is not None:
            with self._lock:
                for frame in _frames_in(item):
                    self._busy.discard(id(frame))
                    self._sizes[id(frame)] = _nbytes(frame)
            self.settle()

    def settle(self, *, changed: bool = False) -> None:
        """Move the frames that were not used for the longest time to disk until the rest fits.

        All frames are looked at if they may have changed, else now and then.
        """
        if self.limit is None:
            return
        with self._lock:
            self._settled += 1
            if changed or self._settled >= max(_LOOK_AROUND * len(self._frames), 2):
                self._settled = 0
                self._sizes = {key: _nbytes(frame) for key, frame in self._frames.items()}
            total = sum(self._sizes.values())
            idle = [key for key in self._frames if key not in self._busy and self._sizes.get(key)]
            while idle and total > self.budget:
                some = {key: frame for key in idle[: self._threads] if (frame := self._frames.get(key))}
                del idle[: self._threads]
                try:
                    park = partial(_parked, folder=self._folder())
                    total -= sum(map_items(park, list(some.values()), threads=self._threads))
                except StorageError as error:
                    if self._required:
                        raise
                    log.warning("frames stay in memory: %s", error)
                    self.limit = None
                    return
                self._sizes |= {key: _nbytes(frame) for key, frame in some.items()}

    def _budget(self, planes: int) -> int:
        """Return how many bytes the planes of frames may occupy, now that they occupy so many.

        What the process uses beside them is measured anew before each step, because it grows with the
        libraries and the results that a reduction comes to need.
        """
        if self.limit is None:
            return 0
        used = resident_bytes()
        # Freed memory that is kept is there for the next planes.
        kept = 0 if self._returning else max(kept_bytes() - self._kept_before, 0)
        elsewhere = max(used - planes - kept, 0) if used else _ELSEWHERE
        return max(self.limit - _WORKING - elsewhere, _LEAST)

    def _folder(self) -> Path:
        if self._scratch is None:
            try:
                self._scratch = Path(tempfile.mkdtemp(prefix="niripipe-", dir=self._where))
            except OSError as error:
                raise StorageError(
                    "The scratch folder cannot be made",
                    file=self._where or tempfile.gettempdir(),
                    item="scratch_dir",
                    found=error.strerror,
                ) from None
            log.fullinfo("frames beyond the memory limit wait in %s", self._scratch)
        return self._scratch


def resident_bytes() -> int:
    """Return how much memory this process uses now; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_bytes().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * mmap.PAGESIZE


def kept_bytes() -> int:
    """Return how much freed memory the C library has kept or returned; 0 where it does not say."""
    library = _c_library()
    if library is None or not hasattr(library, "mallinfo2"):
        return 0
    return int(library.mallinfo2().fordblks)


def keep_freed_memory() -> bool:
    """Let the C library keep freed image planes for the next ones, in one pool for all threads.

    Without this the C library of Linux hands every freed plane back at once and asks for it again, page
    by page, when the next one is made: a third of the time that a reduction spends in the system. And each
    thread has a pool of its own, which together hold more than is in use. Elsewhere nothing is done.

    Returns
    -------
    bool
        Whether it was arranged, for this process and all that it does from now on.

    See Also
    --------
    return_freed_memory : gives back what was kept, when a reduction ends.
    """
    library = _c_library()
    if library is None or not hasattr(library, "mallopt"):
        return False
    taken = [library.mallopt(option, value) for option, value in _ALLOCATION.items()]
    return all(taken)


@contextmanager
def older_objects_untouched() -> Iterator[None]:
    """Keep Python's collector of cycles from going through the objects that exist already.

    A reduction makes enough small objects to have all of them looked at, which after the imports takes 50
    milliseconds, and finds nothing: what is new is collected as always. Afterwards all is as it was.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def return_freed_memory() -> bool:
    """Return memory that has been freed to the operating system.

    Only the C library of Linux keeps any (see `keep_freed_memory`); elsewhere nothing is done.

    Returns
    -------
    bool
        Whether anything was given back.
    """
    library = _c_library()
    return library is not None and hasattr(library, "malloc_trim") and bool(library.malloc_trim(0))


@cache
def _c_library() -> ctypes.CDLL | None:
    """Return the C library on Linux. Others than glibc lack the functions used here."""
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL(None)
    except OSError:
        return None
    if hasattr(library, "mallinfo2"):
        library.mallinfo2.restype = _MallInfo
    return library


def _frames_in(item: object) -> list[AstroData]:
    return [part for part in (item if isinstance(item, tuple) else (item,)) if isinstance(part, AstroData)]


def _parked(frame: AstroData, folder: Path) -> int:
    """Move a frame to a scratch folder; return how many bytes that frees."""
    return sum(extension.park(folder) for extension in frame.extensions)


def _nbytes(frame: AstroData) -> int:
    return sum(extension.nbytes for extension in frame.extensions)
