"""Flat fields: their level, and limits that make them safe to divide by."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from niripipe.algorithms import bits
from niripipe.algorithms.arrays import Float32, Mask
from niripipe.algorithms.robust import fast_median, good_pixels
from niripipe.errors import AlgorithmError

__all__ = ["ThresholdedFlat", "level", "threshold"]


class ThresholdedFlat(NamedTuple):
    """Planes of a flat after `threshold`."""

    data: Float32
    mask: Mask


def level(
    data: Float32, mask: Mask | None = None, *, statistic: Literal["median", "mean"] = "median"
) -> float:
    """Return the level of a flat: the statistic of all finite pixels without any flag.

    Raises
    ------
    AlgorithmError
        If there is no such pixel, or the level is not positive.
    """
    good = good_pixels(data, mask)
    if not good.any():
        raise AlgorithmError(
            "the flat has no usable pixel",
            found=f"{int(np.count_nonzero(np.isfinite(data)))} finite pixels, all of them flagged",
            expected="finite pixels with a mask of 0",
        )
    if statistic == "mean":
        found = float(np.float32(data[good].mean(dtype=np.float64)))
    else:
        found = fast_median(data, good)
    if found <= 0:
        raise AlgorithmError(
            "the level of the flat is not positive",
            item=statistic,
            found=found,
            expected="> 0",
            remedy="Check that the lamp-on frames have more light than the lamp-off frames.",
        )
    return found


def threshold(
    data: Float32, mask: Mask | None = None, *, lower: float = 0.01, upper: float = 10.0
) -> ThresholdedFlat:
    """Make a normalised flat safe to divide by.

    Pixels below `lower`, above `upper` or not a number are flagged `bits.UNILLUMINATED`, unless they are
    `bits.BAD` already, and set to 1. Bad pixels below `lower` or not a number are set to 1 too; bad
    pixels above `upper` keep their value. The limits themselves are good.

    Parameters
    ----------
    data : ndarray of float32
        Normalised flat ``(ny, nx)``.
    mask : ndarray of uint16, optional
        Its mask; nothing flagged by default. Pixels it calls unilluminated are set to 1.
    lower, upper : float
        Limits.

    Returns
    -------
    ThresholdedFlat
        New data and mask. The variance of a flat does not change.
    """
    flags = np.zeros(data.shape, np.uint16) if mask is None else mask.copy()
    # Negated, so that what is not a number is outside.
    dark = ~(data >= np.float32(lower))
    outside = dark | ~(data <= np.float32(upper))
    outside &= flags & np.uint16(bits.BAD) == 0
    flags[outside] |= np.uint16(bits.UNILLUMINATED)
    flat = data.copy()
    flat[dark | (flags & np.uint16(bits.UNILLUMINATED) != 0)] = 1
    return ThresholdedFlat(flat, flags)
