"""Which rows carry the pattern: edges in its strength along the readout."""

from __future__ import annotations

import math

import numpy as np

from niripipe.algorithms.arrays import Bool, Float64

__all__ = ["Range", "find_zones", "ranges_of", "unit_strength"]

Range = tuple[int, int]


def find_zones(
    strength: Float64, weight: Float64, *, canny_sigma: float, simple_thres: float, margin: int
) -> tuple[Range, ...]:
    """Find the rows in which the pattern is on.

    Parameters
    ----------
    strength : ndarray of float64, shape (n,)
        Strength of the pattern in each row, about 1 where it is on and 0 where it is off.
    weight : ndarray of float64, shape (n,)
        Inverse variance of the strength, up to a factor.
    canny_sigma : float
        Standard deviation of the smoothing, in rows.
    simple_thres : float
        Least range between on and off to assume when setting the threshold for an edge.
    margin : int
        Edges nearer than this to either end are ignored.

    Returns
    -------
    tuple of (int, int)
        Half-open ranges in which the mean strength is at least half of `simple_thres`; without any edge,
        all rows or none.

    Notes
    -----
    As in DRAGONS: an edge is a local extremum of the gradient of the smoothed strength above
    ``0.8 R / (1.2 sigma + 0.28)``, with R the larger of half the range between the 10th and 90th percentile
    and `simple_thres`; a rising edge switches on, a falling one off. Then each edge is moved, within the
    reach of the smoothing, to the row where a sharp step fits best.
    """
    # A row that goes far beyond on and off is something else, and must not make an edge.
    strength = np.clip(strength, -1.0, 2.0)
    edges = _edges(strength, weight, canny_sigma, simple_thres, margin)
    half = 0.5 * simple_thres
    if not edges:
        # A few rows of something else make no edge either.
        on = _level(strength, weight, 0, strength.size) > half
        return ((0, strength.size),) if on else ()
    rows = _refined([row for row, _ in edges], strength, weight, reach=math.ceil(2 * canny_sigma) + 1)
    carrying = np.zeros(strength.size, bool)
    states = [not edges[0][1], *(rising for _, rising in edges)]
    for start, stop, state in zip([0, *rows], [*rows, strength.size], states, strict=True):
        carrying[start:stop] = state
    return tuple(zone for zone in ranges_of(carrying) if _level(strength, weight, *zone) > half)


def ranges_of(on: Bool) -> tuple[Range, ...]:
    """Return the half-open ranges in which flags are set."""
    bounds = np.flatnonzero(np.diff(on, prepend=False, append=False))
    return tuple(zip(bounds[::2].tolist(), bounds[1::2].tolist(), strict=True))


def unit_strength(amplitude: Float64) -> float:
    """Return the amplitude at which the pattern is on, whatever share of the rows it affects.

    The ratio of third to second moment weights rows by their power: it is A for any mixture of rows at 0 and
    A, and small for noise of either sign.
    """
    power = float(np.sum(amplitude**2))
    return float(np.sum(amplitude**3)) / power if power > 0 else 0.0


def _edges(
    strength: Float64, weight: Float64, sigma: float, simple_thres: float, margin: int
) -> list[tuple[int, bool]]:
    smooth = _smoothed(strength, weight, sigma)
    # gradient[i] belongs to the border between rows i and i + 1.
    gradient = smooth[1:] - smooth[:-1]
    low, high = np.quantile(strength, [0.1, 0.9])
    span = max(0.5 * float(high - low), simple_thres)
    # The threshold of the central difference is twice that of neighbouring rows.
    threshold = 0.4 * span / (1.2 * sigma + 0.28)
    size = np.abs(gradient)
    peak = size > threshold
    peak[1:] &= size[1:] > size[:-1]
    peak[:-1] &= size[:-1] >= size[1:]
    rows = np.flatnonzero(peak) + 1
    return [(int(r), bool(gradient[r - 1] > 0)) for r in rows if margin <= r <= strength.size - margin]


def _smoothed(strength: Float64, weight: Float64, sigma: float) -> Float64:
    half = int(2 * sigma + 0.8)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    total = np.convolve(np.pad(weight, half, mode="edge"), kernel, mode="valid")
    product = np.convolve(np.pad(weight * strength, half, mode="edge"), kernel, mode="valid")
    return np.asarray(np.divide(product, total, out=np.zeros_like(product), where=total > 0))


def _refined(rows: list[int], strength: Float64, weight: Float64, reach: int) -> list[int]:
    bounds = [0, *rows, strength.size]
    refined = []
    for number, row in enumerate(rows, start=1):
        first = max((bounds[number - 1] + row) // 2 + 1, row - reach)
        last = min((row + bounds[number + 1]) // 2, row + reach)
        below = _level(strength, weight, bounds[number - 1], max(first, bounds[number - 1] + 1))
        above = _level(strength, weight, min(last, bounds[number + 1] - 1), bounds[number + 1])
        window = slice(first, last)
        # Going over row y from "above" to "below" changes the sum of squares by this much.
        change = weight[window] * ((strength[window] - below) ** 2 - (strength[window] - above) ** 2)
        cost = np.concatenate([[0.0], np.cumsum(change)])
        refined.append(first + int(np.argmin(cost)) if cost.size > 1 else row)
    return refined


def _level(strength: Float64, weight: Float64, start: int, stop: int) -> float:
    total = float(np.sum(weight[start:stop]))
    return float(np.sum((weight * strength)[start:stop])) / total if total > 0 else 0.0
