"""Sorting many short columns at once with sorting networks.

A sorting network is a fixed sequence of compare-and-exchange steps. Applied to whole rows with
`numpy.minimum` and `numpy.maximum` it sorts every column of a block along axis 0 in vector instructions,
several times faster than a sort of each column, as long as the block stays in the processor's cache.
Steps that cannot influence the wanted ranks are left out.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["lower_median_rows", "median_rows", "network", "select_rows", "sort_rows"]

Step = tuple[int, int, bool, bool]
"""Rows to compare, and whether the smaller and the larger value are needed afterwards."""


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


def select_rows(block: NDArray[np.float32], ranks: tuple[int, ...]) -> list[NDArray[np.float32]]:
    """Find order statistics of every column.

    Parameters
    ----------
    block : ndarray
        Values ``(n, ...)``, used as working space. NaN spoils its column; +inf sorts last.
    ranks : tuple of int
        Wanted ranks, 0 for the smallest.

    Returns
    -------
    list of ndarray
        One array a rank, of the shape of a row. They are views of `block` or of a spare row.
    """
    rows = _run(block, network(len(block), tuple(sorted(set(ranks)))))
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


def median_rows(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Median of every column: the middle value, or the mean of the two middle values.

    `block` ``(n, ...)`` is used as working space. The result owns its memory.
    """
    n = len(block)
    low, high = select_rows(block, ((n - 1) // 2, n // 2))
    if n % 2:
        return low.copy()
    middle = low + high
    middle *= np.float32(0.5)
    return middle


def lower_median_rows(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lower median of every column: the middle value, or the smaller of the two middle values.

    `block` ``(n, ...)`` is used as working space. The result owns its memory.
    """
    return select_rows(block, ((len(block) - 1) // 2,))[0].copy()


def _run(block: NDArray[np.float32], steps: tuple[Step, ...]) -> list[NDArray[np.float32]]:
    # Minimum and maximum need one row more than they have. Instead of copying it back, the row that
    # becomes free serves as the next spare one.
    rows = list(block)
    spare = np.empty_like(rows[0])
    for low, high, keep_low, keep_high in steps:
        first, second = rows[low], rows[high]
        if keep_low and keep_high:
            np.minimum(first, second, out=spare)
            np.maximum(first, second, out=second)
            rows[low], spare = spare, first
        elif keep_low:
            np.minimum(first, second, out=first)
        else:
            np.maximum(first, second, out=second)
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
