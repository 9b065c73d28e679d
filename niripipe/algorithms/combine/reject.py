"""Rejection of outliers among the usable inputs of each pixel.

`doubtful` examines whole blocks in ``float32`` and finds the pixels where something may be rejected, with
some false alarms but no misses. `reject` decides for those exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.sorting import Order, sort_rows

from .select import count_true
from .settings import Settings

__all__ = ["doubtful", "median_of_sorted", "reject", "sorted_usable"]

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

# Clipping converges in a handful of rounds; the limit only guards against values that alternate.
_MOST_ITERATIONS = 100
# Relative error that float32 sums over a few hundred inputs stay well below.
_MARGIN = np.float32(1e-4)
_ULP = np.float32(2.4e-7)
# Largest relative error of one rounding to float32.
_ROUNDING = np.float32(6e-8)


def doubtful(
    data: Float32, variance: Float32 | None, order: Order, total: Float32, settings: Settings
) -> Bool:
    """Where sigma clipping about the median may reject something if every input is usable.

    Parameters
    ----------
    data, variance : ndarray
        Values and variances ``(n, pixels)``.
    order : Order
        Extremes and median of each pixel.
    total : ndarray of float32
        Sum of the values of each pixel.
    settings : Settings
        With `reject` either ``"sigclip"`` or ``"varclip"``.
    """
    centre = order.median
    above, below = order.highest - centre, centre - order.lowest
    level = np.abs(centre)
    slack = level * _ULP
    if settings.reject == "varclip":
        assert variance is not None
        # The largest deviation against the smallest variance: a few false alarms more, but one pass.
        nearer = np.float32(min(settings.hsigma, settings.lsigma)) ** 2 * (1 - _MARGIN)
        far = np.maximum(above, below, out=above)
        far += slack
        far *= far
        limit = np.minimum.reduce(variance, axis=0)
        limit *= nearer
        suspected: Bool = far > limit
        return suspected
    n = np.float32(len(data))
    squares, deviation = np.zeros_like(centre), np.empty_like(centre)
    for values in data:
        np.subtract(values, centre, out=deviation)
        deviation *= deviation
        squares += deviation
    squares /= n
    # The mean deviation, and by how much that may be wrong because the sum was rounded at every input.
    mean = np.divide(total, n, out=deviation)
    mean -= centre
    np.abs(mean, out=mean)
    rounding = np.maximum(above, below)
    rounding += level
    rounding *= n * _ROUNDING
    mean += rounding
    mean *= mean
    squares -= mean
    np.clip(squares, 0, np.inf, out=squares)
    spread = np.sqrt(squares, out=squares)
    spread *= 1 - _MARGIN
    # Values equal to the median are no outliers, even where the spread is zero.
    found: Bool = (above > np.float32(settings.hsigma) * spread - slack) & (above > 0)
    found |= (below > np.float32(settings.lsigma) * spread - slack) & (below > 0)
    return found


def sorted_usable(data: Float32, usable: Bool) -> tuple[Float32, NDArray[np.intp]]:
    """Sort the usable values of each pixel to the front; also return how many there are."""
    ordered = sort_rows(np.where(usable, data, np.float32(np.inf)))
    return ordered, count_true(usable)


def median_of_sorted(ordered: Float32, count: NDArray[np.intp], *, lower: bool = False) -> Float32:
    """Median of the first `count` sorted values of each pixel; 0 where there are none."""
    low = _pick(ordered, np.maximum(count - 1, 0) // 2)
    if not lower:
        high = _pick(ordered, np.minimum(count // 2, len(ordered) - 1))
        low += np.where(count % 2 == 0, high, low)
        low *= np.float32(0.5)
    low[count == 0] = 0
    return low


def reject(data: Float32, variance: Float32 | None, usable: Bool, settings: Settings) -> Bool:
    """Reject outliers exactly.

    Parameters
    ----------
    data, variance : ndarray
        Values and variances ``(n, pixels)``, finite everywhere (the unusable ones replaced).
    usable : ndarray of bool
        Inputs that take part.
    settings : Settings
        The method and its limits.

    Returns
    -------
    ndarray of bool
        The inputs left, a subset of `usable`. Where nothing was left, all usable ones are.
    """
    if settings.reject == "minmax":
        left = _minmax(data, usable, settings)
    else:
        left = _clip(data, variance, usable, settings)
    lost = ~left.any(axis=0)
    if lost.any():
        left[:, lost] = usable[:, lost]
    return left


def _clip(data: Float32, variance: Float32 | None, usable: Bool, settings: Settings) -> Bool:
    ordered, count = sorted_usable(data, usable)
    median = median_of_sorted(ordered, count)
    left = usable.copy()
    own = None
    if settings.reject == "varclip":
        assert variance is not None
        own = np.sqrt(np.maximum(variance, 0))
    active = np.arange(data.shape[1])
    for iteration in range(min(settings.max_iters or _MOST_ITERATIONS, _MOST_ITERATIONS)):
        values, inside, about = data[:, active], left[:, active], median[active]
        number = count_true(inside)
        mean, spread = _moments(np.subtract(values, about, dtype=np.float64), inside, number)
        centre = about
        if not settings.mclip and iteration:
            centre = (about + mean).astype(np.float32)
        sigma = spread if own is None else own[:, active]
        low = (centre - settings.lsigma * sigma).astype(np.float32)
        high = (centre + settings.hsigma * sigma).astype(np.float32)
        # Written so that a limit that is not a number rejects nothing.
        outside = (values < low) | (values > high)
        inside &= ~outside
        left[:, active] = inside
        now = count_true(inside)
        active = active[(now != number) & (now > 0)]
        if not active.size or (settings.mclip and own is not None):
            break
    return left


def _moments(
    deviation: NDArray[np.float64], inside: Bool, number: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population standard deviation of the deviations inside."""
    divisor = np.maximum(number, 1)
    kept = deviation * inside
    mean = np.add.reduce(kept, axis=0) / divisor
    kept *= deviation
    square = np.add.reduce(kept, axis=0) / divisor
    return mean, np.sqrt(np.maximum(square - mean * mean, 0))


def _minmax(data: Float32, usable: Bool, settings: Settings) -> Bool:
    ordered, count = sorted_usable(data, usable)
    # The fraction asked for of all inputs, truncated, of those that are usable here.
    number = np.arange(settings.n_inputs + 1)
    nlow, nhigh = settings.trim
    n_low = (number * nlow / settings.n_inputs + 0.001).astype(np.intp)[count]
    n_high = (number * nhigh / settings.n_inputs + 0.001).astype(np.intp)[count]
    left = usable.copy()
    if nlow:
        limit = _pick(ordered, np.maximum(n_low - 1, 0))
        _drop(left, data < limit, data == limit, n_low)
    if nhigh:
        limit = _pick(ordered, np.clip(count - n_high, 0, len(ordered) - 1))
        _drop(left, data > limit, data == limit, n_high)
    return left


def _drop(left: Bool, beyond: Bool, equal: Bool, wanted: NDArray[np.intp]) -> None:
    """Take `wanted` inputs a pixel out of `left`: those beyond a limit, then equal ones in input order."""
    some = wanted > 0
    beyond &= left & some
    equal &= left & some
    left &= ~beyond
    missing = wanted - count_true(beyond)
    for is_equal, is_left in zip(equal, left, strict=True):
        taken = is_equal & (missing > 0)
        is_left &= ~taken
        missing -= taken


def _pick(ordered: Float32, rank: NDArray[np.intp]) -> Float32:
    picked: Float32 = np.take_along_axis(ordered, rank[None], axis=0)[0]
    return picked
