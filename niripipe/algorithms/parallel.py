"""Work over blocks of rows and other items, on one or several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

from niripipe.errors import ParameterError

__all__ = ["check_threads", "map_blocks", "map_items", "plane_rows", "row_blocks", "startable_threads"]

_PLANE_BLOCK = 1 << 18
"""Pixels of a block for simple arithmetic. A call on them takes some 30 microseconds: shorter ones leave
threads waiting for the interpreter, longer ones need more memory and gain nothing."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def plane_rows(width: int) -> int:
    """Return of how many rows a block for simple arithmetic consists, at least one."""
    return max(_PLANE_BLOCK // max(width, 1), 1)


def check_threads(threads: int) -> int:
    """Return a number of threads that is usable; else raise `ParameterError`."""
    if threads < 1:
        raise ParameterError(
            "at least one thread is needed", item="threads", found=threads, expected="a positive integer"
        )
    return threads


def row_blocks(n_rows: int, rows_per_block: int) -> list[slice]:
    """Cut `n_rows` rows into consecutive slices of `rows_per_block` rows, the last one possibly shorter.

    Raises
    ------
    ParameterError
        If `rows_per_block` is not positive.
    """
    if rows_per_block < 1:
        raise ParameterError(
            "a block needs at least one row",
            item="rows_per_block",
            found=rows_per_block,
            expected="a positive integer",
        )
    return [slice(start, min(start + rows_per_block, n_rows)) for start in range(0, n_rows, rows_per_block)]


def map_blocks(
    func: Callable[[slice], _Result], n_rows: int, *, rows_per_block: int = 16, threads: int = 1
) -> list[_Result]:
    """Call `func` for every block of rows.

    NumPy releases the interpreter lock inside its loops, so threads share the work as long as `func`
    spends its time there.

    Parameters
    ----------
    func : callable
        Takes a slice of rows. With several threads it runs concurrently for different slices: it may
        write to those rows of shared arrays, and to nothing else that is shared.
    n_rows : int
        Number of rows; 0 calls nothing.
    rows_per_block : int
        Rows of one block.
    threads : int
        Number of threads; 1 (the default) runs everything in the calling thread.

    Returns
    -------
    list
        What `func` returned, in row order whatever the number of threads.

    Raises
    ------
    ParameterError
        If `rows_per_block` or `threads` is not positive.

    Notes
    -----
    The first error in row order is raised; blocks that have not started are then left undone.
    `numpy.errstate` does not reach into other threads: `func` has to set it itself.
    """
    check_threads(threads)
    return map_items(func, row_blocks(n_rows, rows_per_block), threads=threads)


def map_items(func: Callable[[_Item], _Result], items: Sequence[_Item], *, threads: int) -> list[_Result]:
    """Call `func` for every item, and return the results in order.

    As in `map_blocks`: threads share the work as long as `func` spends its time in NumPy, the first error in
    order is raised, and `numpy.errstate` does not reach into other threads. The calling thread works, too,
    so that the work is done even where the system allows no further thread.
    """
    threads = min(threads, len(items))
    if threads <= 1:
        return [func(item) for item in items]
    work = _Work(func, items)
    with ThreadPoolExecutor(threads - 1, thread_name_prefix="niripipe-rows") as pool:
        try:
            for _ in range(threads - 1):
                # Without a thread to start, those that there are do it all.
                with suppress(RuntimeError):
                    pool.submit(work.do)
            work.do()
        finally:
            work.stopped = True
    return work.result()


def startable_threads(wanted: int) -> int:
    """Return how many threads can work at a time, the calling one included: at most `wanted`, at least 1.

    The system may allow fewer (``ulimit -u``).
    """
    release = threading.Event()
    started = []
    try:
        for _ in range(wanted - 1):
            thread = threading.Thread(target=release.wait, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                break
            started.append(thread)
    finally:
        release.set()
        for thread in started:
            thread.join()
    return len(started) + 1


class _Work(Generic[_Item, _Result]):
    """Items that several threads take one after the other."""

    def __init__(self, func: Callable[[_Item], _Result], items: Sequence[_Item]) -> None:
        self.stopped = False
        self._func, self._items = func, items
        self._results: dict[int, _Result] = {}
        self._errors: dict[int, BaseException] = {}
        self._lock = threading.Lock()
        self._numbers = iter(range(len(items)))

    def do(self) -> None:
        """Take items until there are none, or one has failed."""
        while True:
            with self._lock:
                number = None if self.stopped else next(self._numbers, None)
            if number is None:
                return
            try:
                self._results[number] = self._func(self._items[number])
            except BaseException as error:
                self._errors[number] = error
                self.stopped = True

    def result(self) -> list[_Result]:
        """Return the results in order, or raise the first error in order."""
        if self._errors:
            raise self._errors[min(self._errors)]
        return [self._results[number] for number in range(len(self._items))]
