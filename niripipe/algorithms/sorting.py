"""Sorting many short columns at once with sorting networks.

A sorting network is a fixed sequence of compare-and-exchange steps. Applied to whole rows with
`numpy.minimum` and `numpy.maximum` it sorts every column of a block along axis 0 in vector instructions,
several times faster than a sort of each column, as long as the block stays in the processor's cache.
Steps that cannot influence the wanted ranks are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Order", "lower_median_rows", "median_rows", "network", "order_rows", "select_rows", "sort_rows"]

Block = NDArray[np.float32] | Sequence[NDArray[np.float32]]
"""Rows of one shape, as one array or several."""
Step = tuple[int, int, bool, bool]
"""Rows to compare, and whether the smaller and the larger value are needed afterwards."""


class Order(NamedTuple):
    """Order statistics of every column, each an array of the shape of a row.

    Attributes
    ----------
    lowest, median, highest : ndarray of float32
        The median is the middle value, or the mean of the two middle values.
    """

    lowest: NDArray[np.float32]
    median: NDArray[np.float32]
    highest: NDArray[np.float32]


@lru_cache(maxsize=256)
def network(n: int, ranks: tuple[int, ...] | None = None) -> tuple[Step, ...]:
    """List the steps that bring `n` values into order, or at least the wanted ranks into place.

    Batcher's merge exchange in the form that works for any `n` (Knuth, The Art of Computer Programming
    vol. 3, 5.2.2, algorithm M), walked backwards once to drop what the wanted ranks do not depend on.

    Parameters
    ----------
    n : int
        Number of values.
    ranks : tuple of int, optional
        Wanted positions in ascending order, from 0; all of them by default.

    Returns
    -------
    tuple of (int, int, bool, bool)
        For each step: position of the smaller value, position of the larger value, and which of the two
        are needed.
    """
    needed = set(range(n) if ranks is None else ranks)
    steps: list[Step] = []
    for low, high in reversed(_merge_exchange(n)):
        keep_low, keep_high = low in needed, high in needed
        if keep_low or keep_high:
            steps.append((low, high, keep_low, keep_high))
            needed |= {low, high}
    return tuple(reversed(steps))


def select_rows(block: Block, ranks: tuple[int, ...], *, keep: bool = False) -> list[NDArray[np.float32]]:
    """Find order statistics of every column.

    Parameters
    ----------
    block : ndarray, or sequence of ndarray
        Values ``(n, ...)``, used as working space. NaN spoils its column; +inf sorts last.
    ranks : tuple of int
        Wanted ranks, 0 for the smallest.
    keep : bool
        Leave the block as it is. That takes less time than a copy of it would.

    Returns
    -------
    list of ndarray
        One array a rank, of the shape of a row. They are views of `block` or of spare rows.
    """
    rows = _run(block, network(len(block), tuple(sorted(set(ranks)))), keep=keep)
    return [rows[rank] for rank in ranks]


def sort_rows(block: NDArray[np.float32], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Sort every column of a block.

    Parameters
    ----------
    block : ndarray
        Values ``(n, ...)``, used as working space. NaN spoils its column; +inf sorts last.
    out : ndarray, optional
        Receives the result; must not share memory with `block`.

    Returns
    -------
    ndarray
        The values, ascending along axis 0, in memory of their own.
    """
    rows = _run(block, network(len(block)))
    return np.stack(rows, out=out)


def order_rows(block: NDArray[np.float32]) -> Order:
    """Smallest value, median and largest value of every column of a block ``(n, ...)``, which stays as it is.

    The extremes take a few steps more than the median alone.
    """
    last = len(block) - 1
    lowest, low, high, highest = select_rows(block, (0, last // 2, len(block) // 2, last), keep=True)
    return Order(lowest, _middle(low, high), highest)


def median_rows(block: Block, *, keep: bool = False) -> NDArray[np.float32]:
    """Median of every column: the middle value, or the mean of the two middle values.

    `block` ``(n, ...)`` is used as working space unless it is to `keep`. The result owns its memory.
    """
    return _middle(*select_rows(block, ((len(block) - 1) // 2, len(block) // 2), keep=keep))


def lower_median_rows(block: Block, *, keep: bool = False) -> NDArray[np.float32]:
    """Lower median of every column: the middle value, or the smaller of the two middle values.

    `block` ``(n, ...)`` is used as working space unless it is to `keep`. The result owns its memory.
    """
    return select_rows(block, ((len(block) - 1) // 2,), keep=keep)[0].copy()


def _middle(low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float32]:
    if low is high:
        return low.copy()
    middle = low + high
    middle *= np.float32(0.5)
    return middle


def _run(block: Block, steps: tuple[Step, ...], *, keep: bool = False) -> list[NDArray[np.float32]]:
    # Minimum and maximum need one row more than they have. Instead of copying it back, the row that
    # becomes free serves as the next spare one.
    rows = list(block)
    writable = [not keep] * len(rows)
    spare: list[NDArray[np.float32]] = []

    def room() -> NDArray[np.float32]:
        return spare.pop() if spare else np.empty_like(rows[0])

    for low, high, keep_low, keep_high in steps:
        first, second = rows[low], rows[high]
        into_high = second if writable[high] else room()
        if keep_low and keep_high:
            into_low = room()
            np.minimum(first, second, out=into_low)
            np.maximum(first, second, out=into_high)
            rows[low], rows[high] = into_low, into_high
            if writable[low]:
                spare.append(first)
        elif keep_low:
            into_low = first if writable[low] else into_high
            np.minimum(first, second, out=into_low)
            rows[low] = into_low
            if into_low is first:
                spare.append(into_high)
        else:
            np.maximum(first, second, out=into_high)
            rows[high] = into_high
            if writable[low]:
                spare.append(first)
        writable[low] = writable[high] = True
    return rows


@lru_cache(maxsize=256)
def _merge_exchange(n: int) -> tuple[tuple[int, int], ...]:
    steps: list[tuple[int, int]] = []
    top = 1 << max((n - 1).bit_length() - 1, 0)
    p = top if n > 1 else 0
    while p:
        q, r, d = top, 0, p
        while True:
            steps.extend((i, i + d) for i in range(n - d) if i & p == r)
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2
    return tuple(steps)
