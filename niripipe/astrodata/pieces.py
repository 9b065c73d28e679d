"""Large arrays for a file, a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["in_pieces"]

_PIECE = 1 << 18
"""Bytes of a piece. It fits into a cache; and a file that grows by much more at a time is given long
stretches of memory by the system, which in a virtual machine takes several times as long as to give short
ones."""


def in_pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield the elements of an array in C order, as short one-dimensional arrays."""
    flat = np.ascontiguousarray(array).reshape(-1)
    step = _PIECE // flat.itemsize
    for start in range(0, flat.size, step):
        yield flat[start : start + step]
