"""Flat fields: normalisation and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import bits
from niripipe.algorithms.normalize import masked_median
from niripipe.errors import AlgorithmError, ParameterError

__all__ = ["NormalizedFlat", "ThresholdedFlat", "level", "normalize", "threshold"]

Float32 = NDArray[np.float32]
Mask = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class NormalizedFlat:
    """Planes of a normalised flat, and the level by which they were divided."""

    data: Float32
    variance: Float32 | None
    level: float


@dataclass(frozen=True, slots=True)
class ThresholdedFlat:
    """Planes of a flat after `threshold`."""

    data: Float32
    mask: Mask


def level(
    data: Float32, mask: Mask | None = None, *, statistic: Literal["median", "mean"] = "median"
) -> float:
    """Level of a flat: the statistic of all finite pixels without any flag.

    Raises
    ------
    ParameterError
        If the statistic is unknown.
    AlgorithmError
        If there is no such pixel, or the level is not positive.
    """
    good = np.isfinite(data)
    if mask is not None:
        good &= mask == 0
    if statistic not in ("median", "mean"):
        raise ParameterError(
            "unknown statistic", item="statistic", found=statistic, expected="median or mean"
        )
    if not good.any():
        raise AlgorithmError(
            "the flat has no usable pixel",
            found=f"{int(np.count_nonzero(np.isfinite(data)))} finite pixels, all of them flagged",
            expected="finite pixels with a mask of 0",
        )
    if statistic == "mean":
        found = float(np.float32(data[good].mean(dtype=np.float64)))
    else:
        found = masked_median(data, good)
    if found <= 0:
        raise AlgorithmError(
            "the level of the flat is not positive",
            item=statistic,
            found=found,
            expected="> 0",
            remedy="Check that the lamp-on frames have more light than the lamp-off frames.",
        )
    return found


def normalize(
    data: Float32,
    variance: Float32 | None = None,
    mask: Mask | None = None,
    *,
    statistic: Literal["median", "mean"] = "median",
    divisor: float | None = None,
    out: Float32 | None = None,
    variance_out: Float32 | None = None,
) -> NormalizedFlat:
    """Divide a flat by its level, and its variance by the square of it.

    Parameters
    ----------
    data : ndarray of float32
        The flat ``(ny, nx)``.
    variance : ndarray of float32, optional
        Its variance.
    mask : ndarray of uint16, optional
        Its mask; only pixels without any flag determine the level.
    statistic : {"median", "mean"}
        What the level is, see `level`.
    divisor : float, optional
        Use this level instead, for several extensions with one level in common.
    out, variance_out : ndarray of float32, optional
        Receive the results; they may be the inputs themselves.

    Returns
    -------
    NormalizedFlat
        The planes, and the level.

    Raises
    ------
    AlgorithmError
        If no level can be found.
    """
    value = np.float32(level(data, mask, statistic=statistic) if divisor is None else divisor)
    normalized = np.divide(data, value, out=out)
    spread = None
    if variance is not None:
        spread = np.divide(variance, value * value, out=variance_out)
    return NormalizedFlat(normalized, spread, float(value))


def threshold(
    data: Float32,
    mask: Mask | None = None,
    *,
    lower: float = 0.01,
    upper: float = 10.0,
    out: Float32 | None = None,
    mask_out: Mask | None = None,
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
    out, mask_out : ndarray, optional
        Receive the results; they may be the inputs themselves.

    Returns
    -------
    ThresholdedFlat
        Data and mask. The variance of a flat does not change.

    Raises
    ------
    ParameterError
        If the limits are not in order.
    """
    if not lower < upper:
        raise ParameterError(
            "the limits are not in order", item="lower, upper", found=(lower, upper), expected="lower < upper"
        )
    flags = np.zeros(data.shape, np.uint16) if mask_out is None else mask_out
    np.copyto(flags, 0 if mask is None else mask)
    # Negated, so that what is not a number is outside.
    dark = ~(data >= np.float32(lower))
    outside = dark | ~(data <= np.float32(upper))
    outside &= flags & np.uint16(bits.BAD) == 0
    flags[outside] |= np.uint16(bits.UNILLUMINATED)
    flat = np.empty(data.shape, np.float32) if out is None else out
    np.copyto(flat, data)
    flat[dark | (flags & np.uint16(bits.UNILLUMINATED) != 0)] = 1
    return ThresholdedFlat(flat, flags)
