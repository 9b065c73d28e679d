"""Sharing work with copies of this process, which have all it needs without being sent anything.

Two threads of one Python process wait for each other at every call of NumPy that is shorter than a
millisecond, and calls on what fits into a cache are. A copy of the process made by ``fork`` computes without
waiting. It has the memory of its parent as it was, costs what it changes of it, and ends with the work.
"""

from __future__ import annotations

import gc
import io
import mmap
import os
import pickle
import select
import signal
import sys
import time
import warnings
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any, BinaryIO, NoReturn, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["SharedRoom", "can_fork", "fork_seconds", "map_forked", "shared_empty"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_NUMBER = 4
"""Bytes of the number of an item in the queue."""

_MOST = 1 << 13
"""Items at most: a pipe has room for the numbers of twice as many."""

_SECONDS, _TIMES = 10.0, 20.0
"""A helper is given up when it needs so many seconds for an item, and so many times what the slowest took
here: a copy of a process with threads has the locks that they held. The one that is needed is made anew."""

_is_helper = False
_last_fork = 0.0


def can_fork() -> bool:
    """Return whether this process can share its work with copies of itself: on Linux, unless it is one."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open") and not _is_helper


def fork_seconds() -> float:
    """Return how long it took to copy this process the last time: the longer the more memory it uses."""
    return _last_fork


def shared_empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of arbitrary values that copies of this process write into for each other.

    It is given back to the system as soon as nobody has it. Where there are no copies it is like any other.
    """
    return SharedRoom().empty(shape, dtype)


class SharedRoom:
    """Room for arrays as `shared_empty` gives them, which is used again when nobody has them any more.

    New memory costs a page fault every 4096 bytes, in each process: more than many a result takes to compute.
    """

    def __init__(self) -> None:
        self._free: defaultdict[int, list[mmap.mmap]] = defaultdict(list)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array of arbitrary values."""
        size = int(np.prod(shape, dtype=np.intp)) * np.dtype(dtype).itemsize
        if not can_fork() or size == 0:
            return np.empty(shape, dtype)
        memory = self._free[size].pop() if self._free[size] else mmap.mmap(-1, size)
        array: NDArray[Any] = np.ndarray(shape, dtype, buffer=memory)
        # Views keep the array alive. When all are gone the memory is back in this room, or gone with it.
        weakref.finalize(array, _give_back, weakref.ref(self), memory).atexit = False
        return array

    def _take_back(self, memory: mmap.mmap) -> None:
        self._free[len(memory)].append(memory)


def _give_back(room: weakref.ref[SharedRoom], memory: mmap.mmap) -> None:
    owner = room()
    if owner is not None:
        owner._take_back(memory)


def map_forked(func: Callable[[_Item], _Result], items: Sequence[_Item], *, processes: int) -> list[_Result]:
    """Call a function for every item, in this process and in copies of it, and return the results in order.

    Each takes the next item as soon as it has done one. What a helper did not do is done here in the end: it
    may fail, or be killed for want of memory, without harm.

    Parameters
    ----------
    func : callable
        Its results are sent by `pickle`; what else it changes, but for arrays of `shared_empty`, is lost.
        It may be called again for an item that a helper had begun. It should not log.
    items : sequence
    processes : int
        How many to use, this one included.

    Returns
    -------
    list
        What `func` returned.

    Notes
    -----
    The first error in the order of the items is raised, in this process, where it is raised anew.
    """
    results: dict[int, _Result] = {}
    for start in range(0, len(items), _MOST):
        part = range(start, min(start + _MOST, len(items)))
        _share(func, items, part, results, min(processes, len(part)))
    return [results[k] for k in range(len(items))]


def _share(
    func: Callable[[_Item], _Result],
    items: Sequence[_Item],
    part: range,
    results: dict[int, _Result],
    processes: int,
) -> None:
    """Find the results of some items."""
    failure: tuple[int, Exception] | None = None
    slowest = 0.0
    with ExitStack() as stack:
        queue = _queue(part, stack)
        helpers = [stack.enter_context(_Helper(func, items, queue)) for _ in range(processes - 1)]
        for k in _taken(queue):
            begun = time.perf_counter()
            try:
                results[k] = func(items[k])
            except Exception as error:
                failure = k, error
                break
            slowest = max(slowest, time.perf_counter() - begun)
        if failure:
            while os.read(queue, 1 << 16):
                pass
        for helper in helpers:
            results.update(helper.answers(max(_SECONDS, _TIMES * slowest)))
    for k in part:
        if failure and k == failure[0]:
            raise failure[1]
        if k not in results:
            results[k] = func(items[k])


def _queue(numbers: Sequence[int], stack: ExitStack) -> int:
    """Return the end of a pipe from which several processes take numbers."""
    queue, end = os.pipe()
    stack.callback(os.close, queue)
    os.write(end, b"".join(k.to_bytes(_NUMBER, "little") for k in numbers))
    os.close(end)
    return queue


def _taken(queue: int) -> Iterator[int]:
    """Take numbers until there is none left."""
    while number := os.read(queue, _NUMBER):
        yield int.from_bytes(number, "little")


class _Helper:
    """A copy of this process that takes items from a queue; it is gone when the block ends."""

    def __init__(self, func: Callable[[Any], Any], items: Sequence[Any], queue: int) -> None:
        self._answers: BinaryIO = io.BytesIO()
        self._handle: int | None = None
        with suppress(OSError):  # no room for one more process or file: the others do its work
            self._answers = os.fdopen(os.memfd_create("niripipe"), "w+b")
            self._process = _fork()
            if self._process == 0:
                _help(func, items, queue, self._answers)
            try:
                self._handle = os.pidfd_open(self._process)
            except OSError:
                os.kill(self._process, signal.SIGKILL)
                os.waitpid(self._process, 0)

    def __enter__(self) -> _Helper:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._answers.close()

    def answers(self, patience: float) -> dict[int, Any]:
        """Return the results by number of item, once there are no more to come."""
        if self._handle is not None:
            poll = select.poll()
            poll.register(self._handle, select.POLLIN)
            poll.poll(patience * 1000)
        self._end()
        found = {}
        self._answers.seek(0)
        # The last one may be cut off.
        with suppress(EOFError, pickle.UnpicklingError):
            while True:
                k, result = pickle.load(self._answers)  # noqa: S301  # written by this process's copy
                found[k] = result
        return found

    def _end(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            # Somebody else may wait for all children of this process.
            with suppress(ChildProcessError):
                os.waitpid(self._process, 0)
            os.close(handle)


def _fork() -> int:
    with warnings.catch_warnings():
        # That a copy may wait for what another thread held: it only computes, and is given up if it does not.
        warnings.simplefilter("ignore", DeprecationWarning)
        begun = time.perf_counter()
        process = os.fork()
        global _last_fork
        _last_fork = time.perf_counter() - begun
        return process


def _help(func: Callable[[Any], Any], items: Sequence[Any], queue: int, answers: BinaryIO) -> NoReturn:
    """Work as a helper until there is nothing left to do."""
    global _is_helper
    _is_helper = True
    try:
        # Nothing of the parent's is to be cleaned up here, and an interrupt is the parent's business.
        gc.disable()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for k in _taken(queue):
            answer = pickle.dumps((k, func(items[k])), pickle.HIGHEST_PROTOCOL)
            answers.write(answer)
            answers.flush()
    finally:
        os._exit(0)
