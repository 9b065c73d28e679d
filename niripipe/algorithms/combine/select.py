"""Which inputs of a pixel may be used, judged by their data-quality bits."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import bits

__all__ = ["BEST_TIER", "UNUSABLE", "count_true", "select_usable", "with_infinities"]

BEST_TIER: Final = bits.NON_LINEAR | bits.SATURATED
"""Bits that do not make an input worse: that a pixel is bright says nothing against it."""

UNUSABLE: Final = np.uint16(0xFFFF & ~BEST_TIER)
"""Bits that keep an input from being used as long as the pixel has better ones."""

# Each tier adds what is worse than everything before it.
_TIERS: Final = (BEST_TIER, bits.COSMIC_RAY, bits.OVERLAP, bits.BAD, bits.UNILLUMINATED, bits.NO_DATA)
_NEVER: Final = 255


def select_usable(mask: NDArray[np.uint16] | None, finite: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Select, pixel by pixel, the inputs of the best tier that any input reaches.

    Parameters
    ----------
    mask : ndarray of uint16 or None
        Bits ``(n, pixels)``.
    finite : ndarray of bool
        Where value and variance are numbers, ``(n, pixels)``; other inputs are never selected.

    Returns
    -------
    ndarray of bool
        ``(n, pixels)``; a pixel without any selected input has no finite one.
    """
    if mask is None:
        return finite.copy()
    usable: NDArray[np.bool_] = (mask & UNUSABLE) == 0
    usable &= finite
    worse = np.flatnonzero(~np.logical_or.reduce(usable, axis=0))
    if worse.size:
        rank = np.where(finite[:, worse], _tier_table()[mask[:, worse]], np.uint8(_NEVER))
        best = rank.min(axis=0)
        usable[:, worse] = (rank == best) & (best != _NEVER)
    return usable


def count_true(flags: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Count along the first axis, faster than `numpy.count_nonzero` does."""
    number = np.add.reduce(flags, axis=0, dtype=np.min_scalar_type(len(flags)))
    return np.asarray(number, np.intp)


def with_infinities(
    values: NDArray[np.float32], unusable: NDArray[np.bool_], infinity: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return values of one input with infinities in place of the unusable ones, so that they can be sorted.

    The sign of `infinity` is turned there, in place: over several inputs as many values of a pixel become
    positive as negative infinities, or one more of the sign that came first.
    """
    where = np.flatnonzero(unusable)
    if where.size:
        values = values.copy()
        values[where] = infinity[where]
        infinity[where] *= -1
    return values


@lru_cache(maxsize=1)
def _tier_table() -> NDArray[np.uint8]:
    values = np.arange(1 << 16, dtype=np.uint16)
    table = np.zeros(values.size, np.uint8)
    for tier, added in enumerate(_TIERS):
        table[values & added != 0] = tier
    known = 0
    for added in _TIERS:
        known |= added
    table[values & (0xFFFF & ~known) != 0] = len(_TIERS)
    # The first tier holds the good pixels as well as the merely bright ones.
    table.setflags(write=False)
    return table
