"""Rejection by a noise model: outliers among as few as two inputs.

With n inputs no value can lie more than ``n / sqrt(n - 1)`` of their own standard deviations from the median,
so sigma clipping at three sigma finds no single outlier among fewer than eight. The variance planes say what
scatter to expect, and no outlier can inflate that, provided that the part of the variance which comes from a
pixel's own counts is replaced by that of the median level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.sorting import lower_median_rows, sort_rows
from niripipe.errors import ParameterError

__all__ = ["HALO", "NoiseModel", "outliers"]

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

_REACH = 2
"""Half the width of the square in which the contrast is measured: about a seeing disc at NIRI's f/6."""

HALO = _REACH + 1
"""Rows needed on either side of a block: neighbours of rejected pixels, and the contrast there."""


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """What scatter to expect among the inputs of one pixel.

    The expected variance of input i, with value d_i and variance v_i, about the centre c is

    ``max(v_i + (c - d_i) / gain, smallest v) + (contrast r)**2 + (fraction max(c - background, 0))**2``

    in which r is the largest difference between the centre of this pixel and those of the 5 x 5 pixels around
    it, less what noise alone makes of it.

    Parameters
    ----------
    gain : float
        Electrons per data unit of the inputs before scaling: 1 for data in electrons. ``inf`` leaves the
        variances as they are.
    contrast : float
        By which fraction of r the inputs may differ because they are out of register or differ in seeing. If
        the width of stars changes by a fraction f, their peaks change by about 2 f; r is some 40 % of a
        peak at NIRI's f/6 and a width of four to five pixels. With limits of four sigma, the default
        keeps the cores of stars up to f = 0.2 and 0.1 pixel out of place; where the seeing differs more,
        raise it in proportion. In turn, a hit on a star has to reach about half the star's height to be
        found; a smaller one changes the star's flux in a stack of four by less than 0.5 %.
    fraction : float
        By which fraction the fluxes may differ between inputs.
    background : float
        Level above which `fraction` counts: 0 for sky-subtracted frames, else the sky level.
    neighbour_sigma : float
        Limit for the eight neighbours of a rejected pixel in the same input, in sigma: interpolation
        spreads a hit over its surroundings. ``inf`` switches the second look off.
    """

    gain: float = 1.0
    contrast: float = 0.35
    fraction: float = 0.03
    background: float = 0.0
    neighbour_sigma: float = 2.5

    def __post_init__(self) -> None:
        for item, value, usable in (
            ("gain", self.gain, self.gain > 0),
            ("contrast", self.contrast, 0 <= self.contrast < math.inf),
            ("fraction", self.fraction, 0 <= self.fraction < math.inf),
            ("background", self.background, math.isfinite(self.background)),
            ("neighbour_sigma", self.neighbour_sigma, self.neighbour_sigma >= 0),
        ):
            if not usable:
                raise ParameterError("the noise model cannot use this", item=item, found=value)


def outliers(
    data: Float32,
    variance: Float32,
    model: NoiseModel,
    *,
    special: NDArray[np.intp],
    usable: Bool,
    scale: NDArray[np.float64],
    hsigma: float,
    lsigma: float,
) -> Bool:
    """Find outliers in a block of rows.

    The centre is the median; for an even number of inputs the *lower* of the two middle values, raised by
    what it lies below the mean on average. So a hit in one of two inputs, or in two of four, does not
    reach the centre. Hits add light, so it is right to suspect the higher value; of two inputs, only
    the higher one can be rejected, and the dark lobes that interpolation puts around a hit stay. The centre
    needs no iteration: it is wrong only where more than half of the inputs are hit.

    Parameters
    ----------
    data, variance : ndarray
        Values and variances ``(n, rows, nx)``.
    model : NoiseModel
        The expected scatter.
    special : ndarray of int
        Flat indices of the pixels where not every input takes part.
    usable : ndarray of bool
        Which ones do there, ``(n, special.size)``.
    scale : ndarray
        Factors by which the inputs were multiplied, ``(n,)``: photon noise scales with them.
    hsigma, lsigma : float
        Limits above and below the centre.

    Returns
    -------
    ndarray of bool
        ``(n, rows, nx)``. Valid in all rows except `HALO` at either end of the block, unless
        that is the end of the image.
    """
    centre, smallest, count = _centre(data, variance, special, usable)
    extra = _model_variance(centre, smallest, count, model)
    found = np.empty(data.shape, bool)
    high, low = np.float32(hsigma**2), np.float32(lsigma**2)
    deviation, expected = np.empty_like(centre), np.empty_like(centre)
    for index, (values, own) in enumerate(zip(data, variance, strict=True)):
        np.subtract(values, centre, out=deviation)
        np.multiply(deviation, np.float32(-scale[index] / model.gain), out=expected)
        expected += own
        np.maximum(expected, smallest, out=expected)
        expected += extra
        limit = high if high == low else np.where(deviation > 0, high, low)
        deviation *= deviation
        hit = found[index]
        np.greater(deviation, limit * expected, out=hit)
        hit.reshape(-1)[special] &= usable[index]
        _look_around(hit, deviation, expected, model.neighbour_sigma)
        hit.reshape(-1)[special] &= usable[index]
    return found


def _look_around(hit: Bool, squared: Float32, expected: Float32, limit: float) -> None:
    """Apply a lower limit to the eight neighbours of every hit."""
    height, width = hit.shape
    rows, columns = np.divmod(np.flatnonzero(hit), width)
    if not rows.size or np.isinf(limit):
        return
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            y, x = rows + dy, columns + dx
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            y, x = y[inside], x[inside]
            hit[y, x] |= squared[y, x] > np.float32(limit**2) * expected[y, x]


def _centre(
    data: Float32, variance: Float32, special: NDArray[np.intp], usable: Bool
) -> tuple[Float32, Float32, NDArray[np.intp]]:
    """Robust centre, smallest variance and number of inputs of each pixel; NaN where there are none."""
    n = len(data)
    # What the lower median lies below the mean of normal deviates on average, in sigma.
    below = np.array([0.0] + [_lower_median_offset(k) for k in range(1, n + 1)], np.float32)
    smallest = np.minimum.reduce(variance, axis=0)
    centre = lower_median_rows(data.copy())
    if n % 2 == 0:
        centre += below[n] * np.sqrt(smallest)
    if not special.size:
        return centre, smallest, np.asarray(n)
    infinity = np.float32(np.inf)
    least = np.where(usable, variance.reshape(n, -1).take(special, axis=1), infinity).min(axis=0)
    number = np.count_nonzero(usable, axis=0)
    ordered = sort_rows(np.where(usable, data.reshape(n, -1).take(special, axis=1), infinity))
    middle = np.take_along_axis(ordered, np.maximum(number - 1, 0)[None] // 2, axis=0)[0]
    middle += below[number] * np.sqrt(least)
    middle[number == 0] = np.nan
    count = np.full(centre.shape, n)
    for plane, part in ((centre, middle), (smallest, least), (count, number)):
        plane.reshape(-1)[special] = part
    return centre, smallest, count


def _model_variance(
    centre: Float32, smallest: Float32, count: NDArray[np.intp], model: NoiseModel
) -> Float32:
    """Variance from what differs between exposures besides noise."""
    undefined = np.isnan(centre)
    hollow = undefined.any()
    highest = _square_filter(np.maximum, np.where(undefined, -np.inf, centre) if hollow else centre)
    lowest = _square_filter(np.minimum, np.where(undefined, np.inf, centre) if hollow else centre)
    total: Float32 = np.maximum(highest - centre, centre - lowest)
    total *= total
    # Four times the scatter of the median: what noise alone makes of a flat field.
    by_chance: Float32 = np.float32(16 * 1.3) / np.maximum(count, 1).astype(np.float32)
    total -= smallest * by_chance
    # Maxima with a number are not vectorised, limits are.
    np.clip(total, 0, np.inf, out=total)
    total *= np.float32(model.contrast**2)
    # Of two inputs the centre is one, with all its noise; and only the higher one can be rejected, which must
    # not become a bias.
    two = count == 2
    if two.any():
        total += np.where(two, smallest, np.float32(0))
    brightness = centre - np.float32(model.background)
    np.clip(brightness, 0, np.inf, out=brightness)
    brightness *= np.float32(model.fraction)
    brightness *= brightness
    total += brightness
    return total


def _square_filter(extreme: np.ufunc, plane: Float32) -> Float32:
    """Take the running maximum or minimum over squares, cut off at the borders."""
    tall = plane.copy()
    for step in range(1, _REACH + 1):
        extreme(tall[step:], plane[:-step], out=tall[step:])
        extreme(tall[:-step], plane[step:], out=tall[:-step])
    wide = tall.copy()
    for step in range(1, _REACH + 1):
        extreme(wide[:, step:], tall[:, :-step], out=wide[:, step:])
        extreme(wide[:, :-step], tall[:, step:], out=wide[:, :-step])
    return wide


def _lower_median_offset(n: int) -> float:
    """How many sigma the lower median of `n` normal deviates lies below their mean (Blom's formula)."""
    return 0.0 if n % 2 else -NormalDist().inv_cdf((n / 2 - 0.375) / (n + 0.25))
