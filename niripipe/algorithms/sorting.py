"""Sorting many short columns at once with sorting networks.

A sorting network is a fixed sequence of compare-and-exchange steps. Applied to whole rows with
`numpy.minimum` and `numpy.maximum` it sorts every column of a block along axis 0 in vector instructions,
several times faster than a sort of each column, as long as the block stays in the processor's cache.
Steps that cannot change the wanted ranks are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Order", "lower_median_rows", "network", "order_rows", "select_rows", "sort_rows"]

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


def select_rows(block: Block, ranks: tuple[int, ...]) -> list[NDArray[np.float32]]:
    """Find order statistics of every column.

    Parameters
    ----------
    block : ndarray, or sequence of ndarray
        Values ``(n, ...)``; not changed. NaN spoils its column; +inf sorts last.
    ranks : tuple of int
        Wanted ranks, 0 for the smallest.

    Returns
    -------
    list of ndarray
        One array a rank, of the shape of a row: possibly a row of `block` itself.
    """
    rows = _run(block, network(len(block), tuple(sorted(set(ranks)))))
    return [rows[rank] for rank in ranks]


def sort_rows(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sort every column of a block.

    Parameters
    ----------
    block : ndarray
        Values ``(n, ...)``; not changed. NaN spoils its column; +inf sorts last.

    Returns
    -------
    ndarray
        The values, ascending along axis 0.
    """
    return np.stack(_run(block, network(len(block))))


def order_rows(block: NDArray[np.float32]) -> Order:
    """Smallest value, median and largest value of every column of a block ``(n, ...)``.

    The extremes take a few steps more than the median alone.
    """
    last = len(block) - 1
    lowest, low, high, highest = select_rows(block, (0, last // 2, len(block) // 2, last))
    return Order(lowest, _middle(low, high), highest)


def lower_median_rows(block: Block) -> NDArray[np.float32]:
    """Lower median of every column of a block ``(n, ...)``: the smaller of two middle values."""
    return select_rows(block, ((len(block) - 1) // 2,))[0].copy()


def _middle(low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float32]:
    if low is high:
        return low.copy()
    middle = low + high
    middle *= np.float32(0.5)
    return middle


def _run(block: Block, steps: tuple[Step, ...]) -> list[NDArray[np.float32]]:
    # Results replace intermediate rows, never those of the block. Minimum and maximum need one row more than
    # they have: the row that becomes free is the next spare one.
    rows = list(block)
    is_own = [False] * len(rows)
    spare: list[NDArray[np.float32]] = []

    def free_row() -> NDArray[np.float32]:
        return spare.pop() if spare else np.empty_like(rows[0])

    for low, high, keep_low, keep_high in steps:
        first, second = rows[low], rows[high]
        released = [row for row, own in ((first, is_own[low]), (second, is_own[high])) if own]
        if keep_low and keep_high:
            rows[low] = np.minimum(first, second, out=free_row())
        target = released.pop() if released else free_row()
        if keep_high:
            rows[high] = np.maximum(first, second, out=target)
        else:
            rows[low] = np.minimum(first, second, out=target)
        spare += released
        is_own[low] = is_own[high] = True
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
