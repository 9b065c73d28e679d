"""What tells a usable raw frame from a useless one: its level, its noise, and how much of it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Float32
from niripipe.algorithms.robust import fast_median, robust_sigma

__all__ = ["FEWEST_ALIKE", "RawStatistics", "raw_statistics", "share_flagged", "unlike"]

_EVERY_ROW: Final = 4
"""Medians are taken of every fourth row: their errors stay below a hundredth of the noise."""
_MIDDLE: Final = (5.0, 95.0)
"""Percentiles between which a frame of the sky, of a lamp or of nothing must vary: hot and dead pixels are
fewer than 5 % at either end."""
FEWEST_ALIKE: Final = 3
"""Of two frames that differ nobody knows which is the odd one."""
_SCATTER: Final = 10.0
"""A level this many times the scatter of the others away does not belong to them."""


@dataclass(frozen=True, slots=True)
class RawStatistics:
    """Numbers of one frame, in the unit of its pixels.

    Attributes
    ----------
    finite : float
        Share of the pixels that are finite numbers.
    saturated : float
        Share of the pixels at or above the saturation level; 0 where the level is not known.
    level : float
        Median of the finite pixels; NaN of none.
    noise : float
        Standard deviation of a pixel, from the differences between neighbours along rows: the light may vary
        over the frame. NaN of none.
    constant : bool
        Whether nine tenths of the finite pixels have one value.
    """

    finite: float
    saturated: float
    level: float
    noise: float
    constant: bool


def raw_statistics(data: Float32, saturation: float | None = None) -> RawStatistics:
    """Measure what decides whether a frame can be used.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
    saturation : float, optional
        Saturation level in the unit of `data`.

    Returns
    -------
    RawStatistics
    """
    finite = share_flagged(np.isfinite(data))
    saturated = 0.0 if saturation is None else share_flagged(data >= np.float32(saturation))
    rows = data[::_EVERY_ROW] if data.shape[0] >= 16 * _EVERY_ROW else data
    values = rows[np.isfinite(rows)]
    if not values.size:
        return RawStatistics(finite, saturated, np.nan, np.nan, constant=False)
    with np.errstate(invalid="ignore", over="ignore"):
        steps = rows[:, 1:] - rows[:, :-1]
    steps = steps[np.isfinite(steps)]
    # One rank at a time is found several times quicker than several.
    ranks = (round(share / 100 * (values.size - 1)) for share in _MIDDLE)
    low, high = (np.partition(values, rank)[rank] for rank in ranks)
    noise = robust_sigma(steps) / np.sqrt(2) if steps.size else np.nan
    return RawStatistics(finite, saturated, fast_median(values), float(noise), constant=bool(low == high))


def unlike(levels: list[float], *, tolerance: float, share: float) -> list[bool]:
    """Return which levels do not belong to the others.

    Parameters
    ----------
    levels : list of float
        Levels of frames that should be alike.
    tolerance : float
        Difference from their median that means nothing.
    share : float
        Difference that means nothing, as a share of the median.

    Returns
    -------
    list of bool
        True for a level that differs by more than both, and by more than ten times the scatter of all
        (from the median absolute deviation). Of fewer than three levels none is told to be odd.
    """
    if len(levels) < FEWEST_ALIKE:
        return [False] * len(levels)
    values = np.asarray(levels)
    middle = float(np.median(values))
    limit = max(tolerance, share * abs(middle), _SCATTER * robust_sigma(values))
    return [bool(one) for one in np.abs(values - middle) > limit]


def share_flagged(values: NDArray[Any]) -> float:
    """Return the share of the pixels that a mask flags; anything but 0 is a flag, NaN too."""
    return np.count_nonzero(values) / values.size
