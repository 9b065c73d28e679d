"""Medians, the standard deviation in spite of outliers, and constants of the normal distribution."""

from __future__ import annotations

import math
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Floats, Indices, Integers

__all__ = [
    "MAD_TO_SIGMA",
    "MEDIAN_ERROR",
    "RAYLEIGH_MEDIAN",
    "SIGMA_TO_FWHM",
    "fast_median",
    "good_pixels",
    "median_of_good",
    "median_of_ranks",
    "robust_sigma",
    "weighted_median",
]

_Real = TypeVar("_Real", bound=np.floating[Any])

MAD_TO_SIGMA: Final = 1.482602218505602
"""Standard deviation over median absolute deviation, 1 / Phi^-1(3/4)."""

MEDIAN_ERROR: Final = math.sqrt(math.pi / 2)
"""Standard error of a median over that of a mean."""

RAYLEIGH_MEDIAN: Final = 1.1774
"""Median distance from the centre of a round distribution in two dimensions, over its deviation per axis:
sqrt(2 ln 2), to four decimals."""

SIGMA_TO_FWHM: Final = 2.3548200450309493
"""Full width at half maximum over standard deviation, sqrt(8 ln 2)."""


def good_pixels(values: Floats, *masks: Integers | None) -> Bool:
    """Return where values are finite and no mask is set."""
    good = np.isfinite(values)
    for mask in masks:
        if mask is not None:
            good &= mask == 0
    return good


def robust_sigma(values: Floats) -> float:
    """Estimate the standard deviation from the median absolute deviation; 0 of no values."""
    if values.size == 0:
        return 0.0
    away = np.subtract(values, fast_median(values), dtype=values.dtype)
    return MAD_TO_SIGMA * fast_median(np.abs(away, out=away))


def fast_median(values: NDArray[np.floating], good: Bool | None = None) -> float:
    """Median of the good values, several times quicker than `numpy.median`.

    Parameters
    ----------
    values : ndarray
        Any shape; finite where good.
    good : ndarray of bool, optional
        Which values count; all by default.

    Returns
    -------
    float
        The middle value, or the mean of the two middle ones, in the precision of `values`; NaN if there are
        none.
    """
    chosen = values.ravel() if good is None else values[good]
    rank = chosen.size // 2
    if chosen.size == 0:
        return float("nan")
    # The upper middle value by selection; the lower one is the largest of those before it.
    parted = np.partition(chosen, rank)
    upper = parted[rank]
    if chosen.size % 2:
        return float(upper)
    return float((parted[:rank].max() + upper) * values.dtype.type(0.5))


def median_of_good(values: NDArray[_Real], good: Bool, axis: int = 0) -> NDArray[_Real]:
    """Median of the good values along an axis; NaN where there are none."""
    count = np.count_nonzero(good, axis=axis)
    # Values that are next to each other in memory are sorted several times quicker.
    ordered = np.moveaxis(np.where(good, values, values.dtype.type(np.inf)), axis, -1).copy(order="C")
    ordered.sort(axis=-1)
    median = median_of_ranks(ordered, np.zeros_like(count), count, -1)
    return np.where(count > 0, median, values.dtype.type(np.nan))


def median_of_ranks(ordered: NDArray[_Real], low: Indices, high: Indices, axis: int = 0) -> NDArray[_Real]:
    """Median of the values of ranks ``low`` to ``high - 1``, in an array that is sorted along an axis."""
    values = np.moveaxis(ordered, axis, -1)
    last = values.shape[-1] - 1
    columns = tuple(np.ogrid[tuple(slice(size) for size in values.shape[:-1])])
    lower, upper = (
        values[(*columns, np.clip(rank, 0, last))] for rank in ((low + high - 1) // 2, (low + high) // 2)
    )
    return np.asarray(ordered.dtype.type(0.5) * (lower + upper))


def weighted_median(values: Floats, weights: Floats) -> float:
    """Return the value with half of the weight on either side; with equal weights it is the median.

    Parameters
    ----------
    values, weights : ndarray, shape (n,)
        At least one; weights are positive.
    """
    order = np.argsort(values, kind="stable")
    # Each value stands for the middle of its weight.
    share = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    return float(np.interp(0.5, share, values[order]))
