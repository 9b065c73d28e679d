"""From the used inputs of each pixel to one value and its variance."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.sorting import lower_median_rows

from .reject import median_of_sorted, sorted_usable
from .select import count_true
from .settings import Settings

__all__ = [
    "mean_and_variance",
    "median_variance_factor",
    "median_variance_factors",
    "reduce_all",
    "reduce_used",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

# Sums over up to so many inputs are formed in float32, in input order, as DRAGONS forms them: calibrations
# then agree with its products bit for bit even where counts cancel. Over more inputs rounding would begin to
# show.
_FLOAT32_INPUTS = 32

# n times the variance of the median of n unit normal deviates, n = 1 ... 20, by numerical integration over
# the (joint) density of the middle order statistics.
_MEDIAN: tuple[float, ...] = (
    1.0,
    1.0,
    1.346013,
    1.192798,
    1.434168,
    1.288456,
    1.473128,
    1.345447,
    1.494912,
    1.383264,
    1.508787,
    1.410194,
    1.518387,
    1.43035,
    1.52542,
    1.446003,
    1.530792,
    1.458513,
    1.535029,
    1.468741,
)
# The same for the lower of the two middle values, even n = 2 ... 20.
_LOWER = (1.36338, 1.441821, 1.477275, 1.49749, 1.510539, 1.519653, 1.526377, 1.531541, 1.53563, 1.538949)


def median_variance_factor(n: int, *, lower: bool = False) -> float:
    """How much larger the variance of a median is than that of a mean of the same values.

    Parameters
    ----------
    n : int
        Number of values, at least 1.
    lower : bool
        For the lower median: the smaller of the two middle values if `n` is even.

    Returns
    -------
    float
        ``n var(median) / var(one value)`` for normal deviates: 1 for one or two values, rising to pi/2.
        Tabulated to six digits up to 20 values; beyond, the expansion about pi/2, good to 0.1 %.
    """
    if n <= len(_MEDIAN):
        return _LOWER[n // 2 - 1] if lower and n % 2 == 0 else _MEDIAN[n - 1]
    if n % 2 or lower:
        return math.pi / 2 * (1 - (2 - math.pi / 2) / n)
    return math.pi / 2 * (1 - (3 - math.pi / 2) / n + 2.8 / n**2)


def median_variance_factors(most: int) -> Float32:
    """Return by what the variance of one value is multiplied to be that of the median of 0, 1 ... `most`.

    float32, shape ``(most + 1,)``; 0 for no value.
    """
    return np.array([0.0] + [median_variance_factor(n) / n for n in range(1, most + 1)], np.float32)


def reduce_all(
    data: Float32,
    variance: Float32 | None,
    median: Float32 | None,
    totals: tuple[Float32, Float32 | None],
    settings: Settings,
) -> tuple[Float32, Float32]:
    """Reduce a block in which every input of every pixel is used.

    Parameters
    ----------
    data, variance : ndarray
        Values and variances ``(n, pixels)``. Pixels with values that are not finite come out not finite.
    median : ndarray or None
        The medians; needed if they are wanted.
    totals : tuple of ndarray
        The sums over the inputs, in float32 and in their order, of the values and of the variances (or None).
    settings : Settings
        The operation.

    Returns
    -------
    value, variance : ndarray
        ``(pixels,)`` each.
    """
    n = len(data)
    if settings.operation == "wtmean" and variance is not None:
        return _weighted(data, variance, None)
    if settings.operation == "median":
        assert median is not None
        value = median
    elif settings.operation == "lmedian":
        value = lower_median_rows(data)
    else:
        value = _mean(data, n, totals[0])
    if variance is not None:
        spread = _mean(variance, n, totals[1])
    else:
        deviation = data - value
        deviation *= deviation
        spread = _mean(deviation, max(n - 1, 1))
    spread /= n
    spread *= np.float32(_factor(n, settings))
    return value, spread


def reduce_used(
    data: Float32, variance: Float32 | None, used: Bool, usable: Bool, settings: Settings
) -> tuple[Float32, Float32]:
    """Reduce the used inputs of each pixel.

    Parameters
    ----------
    data, variance : ndarray
        Values and variances ``(n, pixels)``, finite everywhere.
    used : ndarray of bool
        What takes part, ``(n, pixels)``.
    usable : ndarray of bool
        What took part before rejection.
    settings : Settings
        The operation.

    Returns
    -------
    value, variance : ndarray
        ``(pixels,)`` each; 0 and 0 where nothing is used.
    """
    if settings.operation == "wtmean" and variance is not None:
        return _weighted(data, variance, used)
    count = count_true(used)
    if settings.is_median:
        ordered, _ = sorted_usable(data, used)
        value = median_of_sorted(ordered, count, lower=settings.operation == "lmedian")
    else:
        value = _mean(data * used, count)
    # The variance of a median is that of all values before they were trimmed symmetrically.
    averaged, number = used, count
    if settings.trims_median:
        averaged, number = usable, count_true(usable)
    factors = np.array([1.0] + [_factor(n, settings) for n in range(1, len(data) + 1)], np.float32)
    if variance is not None:
        spread = _mean(variance * averaged, number)
    else:
        deviation = (data - value) * averaged
        deviation *= deviation
        spread = _mean(deviation, number - 1)
    spread /= np.maximum(number, 1).astype(np.float32)
    spread *= factors[number]
    return value, spread


def mean_and_variance(data: Float32, variance: Float32, number: NDArray[np.intp]) -> tuple[Float32, Float32]:
    """Return the mean and its variance, for pixels ``(pixels,)``.

    Parameters
    ----------
    data, variance : ndarray
        Inputs ``(n, pixels)``; 0 where they are not used.
    number : ndarray of int
        How many inputs each pixel uses.
    """
    value, spread = _mean(data, number), _mean(variance, number)
    spread /= np.maximum(number, 1).astype(np.float32)
    return value, spread


def _mean(block: Float32, number: NDArray[np.intp] | int, total: Float32 | None = None) -> Float32:
    """Sum over the inputs, which may be known in float32, divided by their number (at least 1)."""
    if len(block) <= _FLOAT32_INPUTS:
        total = np.add.reduce(block, axis=0) if total is None else total
        mean: Float32 = total / np.maximum(number, 1).astype(np.float32)
        return mean
    return _as_float32(np.add.reduce(block, axis=0, dtype=np.float64) / np.maximum(number, 1))


def _factor(n: int, settings: Settings) -> float:
    """By what the variance of the result exceeds that of a mean."""
    if not settings.is_median:
        return 1.0
    return median_variance_factor(n, lower=settings.operation == "lmedian")


def _weighted(data: Float32, variance: Float32, used: Bool | None) -> tuple[Float32, Float32]:
    weight = 1 / variance
    if used is None:
        total = np.add.reduce(weight, axis=0, dtype=np.float64)
        return (
            _as_float32(np.add.reduce(data * weight, axis=0, dtype=np.float64) / total),
            _as_float32(1 / total),
        )
    known = used & (variance > 0)
    weight = np.where(known, weight, np.float32(0))
    unknown = ~known.any(axis=0)
    # Without a single known variance all used inputs count the same, and the variance is unknown: 0.
    weight[:, unknown] = used[:, unknown]
    total = np.add.reduce(weight, axis=0, dtype=np.float64)
    divisor = np.where(total > 0, total, 1.0)
    value = np.add.reduce(data * weight, axis=0, dtype=np.float64) / divisor
    return _as_float32(value), _as_float32(np.where(unknown, 0.0, 1 / divisor))


def _as_float32(values: Float64) -> Float32:
    return values.astype(np.float32)
