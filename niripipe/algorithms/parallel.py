"""Work over blocks of rows and other items, on one or several threads or processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from niripipe.algorithms.forks import can_fork, fork_seconds, map_forked
from niripipe.errors import ParameterError

__all__ = [
    "PLANE_BLOCK",
    "Run",
    "check_threads",
    "map_blocks",
    "map_items",
    "one_by_one",
    "plane_rows",
    "row_blocks",
    "share_items",
]

PLANE_BLOCK = 1 << 18
"""Pixels of a block for simple arithmetic. A NumPy call on them takes some 30 microseconds: in shorter calls
threads wait for the interpreter lock, longer ones need more memory and gain nothing."""

_COPY = 0.06
"""Seconds of work from which on a copy of the process helps; making one, and what both change, takes 0.02."""

_FORKS = 6.0
"""Times that it takes to copy a process with much memory: what is changed afterwards has to be copied too."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Run(Protocol):
    """Calls a function for every item, and returns the results in order."""

    def __call__(self, func: Callable[[_Item], _Result], items: Sequence[_Item], /) -> list[_Result]:
        """Do so."""
        ...


def plane_rows(width: int) -> int:
    """Return the number of rows of a block for simple arithmetic, at least one."""
    return max(PLANE_BLOCK // max(width, 1), 1)


def check_threads(threads: int) -> int:
    """Return a number of threads if it can be used; else raise `ParameterError`."""
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
    order is raised, and `numpy.errstate` does not reach into other threads.
    """
    threads = min(threads, len(items))
    if threads <= 1:
        return [func(item) for item in items]
    with ThreadPoolExecutor(threads, thread_name_prefix="niripipe-rows") as pool:
        return list(pool.map(func, items))


def share_items(func: Callable[[_Item], _Result], items: Sequence[_Item], *, workers: int) -> list[_Result]:
    """Call `func` for every item, in copies of this process if that takes less time, else on threads.

    How long the first item takes, here, tells whether it is worth it.

    Parameters
    ----------
    func : callable
        For `~niripipe.algorithms.forks.map_forked`, and for threads: it returns what can be pickled, and
        changes nothing.
    items : sequence
    workers : int
        Number of processes, or threads, this one included; 1 runs everything here.

    Returns
    -------
    list
        What `func` returned, in the order of the items. The first error in this order is raised.
    """
    workers = min(check_threads(workers), len(items))
    if workers < 2 or not can_fork():
        return map_items(func, items, threads=workers)
    begun = time.perf_counter()
    first = func(items[0])
    took = time.perf_counter() - begun
    rest = items[1:]
    if took * len(rest) < max(_COPY, _FORKS * fork_seconds()):
        return [first, *map_items(func, rest, threads=workers)]
    return [first, *map_forked(func, rest, processes=workers)]


def one_by_one(func: Callable[[_Item], _Result], items: Sequence[_Item], /) -> list[_Result]:
    """Call `func` for every item here and now: the `Run` of one thread."""
    return [func(item) for item in items]
