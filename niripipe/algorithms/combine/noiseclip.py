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

from niripipe.algorithms.flags import few_true
from niripipe.algorithms.parallel import row_blocks
from niripipe.algorithms.sorting import lower_median_rows
from niripipe.errors import ParameterError

from .places import LeftOut

__all__ = ["HALO", "NoiseModel", "outliers"]

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

_REACH = 2
"""Half the width of the square in which the contrast is measured: about a seeing disc at NIRI's f/6."""

HALO = _REACH + 1
"""Rows needed on either side of a block: neighbours of rejected pixels, and the contrast there."""


_GROUP = 1 << 18
"""Values of some inputs that are compared with the centre at a time: they stay in the cache."""


_SORTED = 1 << 20
"""Values that are sorted at a time. Fewer would leave threads waiting for each other."""


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
    left_out: LeftOut,
    scale: NDArray[np.float64],
    hsigma: float,
    lsigma: float,
) -> NDArray[np.intp]:
    """Find outliers in a block of rows.

    The centre is the median; for an even number of inputs the *lower* of the two middle values, raised by
    what it lies below the mean on average. So a hit in one of two inputs, or in two of four, does not
    reach the centre. Hits add light, so it is right to suspect the higher value; of two inputs, only
    the higher one can be rejected, and the dark lobes that interpolation puts around a hit stay. The centre
    needs no iteration: it is wrong only where more than half of the inputs are hit.

    Parameters
    ----------
    data, variance : ndarray
        Values and variances ``(n, rows, nx)``, contiguous. Not modified in the end.
    model : NoiseModel
        The expected scatter.
    left_out : LeftOut
        Inputs that take no part.
    scale : ndarray
        Factors by which the inputs were multiplied, ``(n,)``: photon noise scales with them.
    hsigma, lsigma : float
        Limits above and below the centre.

    Returns
    -------
    ndarray of int
        The outliers, as ascending indices into the flattened inputs; none is among those left out. Valid in
        all rows except `HALO` at either end of the block, unless that is the end of the image.
    """
    n, height, width = data.shape
    centre, smallest = _centre(data, variance, left_out)
    extra = _model_variance(centre, smallest, left_out.number.reshape(height, width), model)
    high, low = np.float32(hsigma**2), np.float32(lsigma**2)
    factor = (-scale / model.gain).astype(np.float32)[:, None, None]
    group = max(_GROUP // centre.size, 1)
    deviation = np.empty((group, height, width), np.float32)
    expected, limit = np.empty_like(deviation), np.empty_like(deviation)
    hit = np.empty(deviation.shape, bool)
    found = []
    for first in range(0, n, group):
        inputs = slice(first, min(first + group, n))
        some = slice(0, inputs.stop - first)
        np.subtract(data[inputs], centre, out=deviation[some])
        np.multiply(deviation[some], factor[inputs], out=expected[some])
        expected[some] += variance[inputs]
        np.maximum(expected[some], smallest, out=expected[some])
        expected[some] += extra
        sides = high if high == low else np.where(deviation[some] > 0, high, low)
        np.multiply(expected[some], sides, out=limit[some])
        deviation[some] *= deviation[some]
        np.greater(deviation[some], limit[some], out=hit[some])
        unusable = left_out.among(inputs)
        places = _with_neighbours(hit[some], unusable, deviation[some], expected[some], model.neighbour_sigma)
        found.append(places + first * centre.size)
    return np.concatenate(found)


def _with_neighbours(
    hit: Bool, unusable: NDArray[np.intp], squared: Float32, expected: Float32, limit: float
) -> NDArray[np.intp]:
    """Return where usable pixels are hit, a lower limit holding for the eight neighbours of every hit."""
    _, height, width = hit.shape
    flat = hit.reshape(-1)
    flat[unusable] = False
    places = few_true(flat)
    if not places.size or np.isinf(limit):
        return places
    step = np.arange(-1, 2)
    line, x = np.divmod(places[:, None, None], width)
    y = line % height + step[:, None]
    x = x + step
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    near = (places[:, None, None] + step[:, None] * width + step)[inside]
    beyond = squared.reshape(-1)[near] > np.float32(limit**2) * expected.reshape(-1)[near]
    flat[near[beyond]] = True
    flat[unusable] = False
    return few_true(flat)


def _centre(data: Float32, variance: Float32, left_out: LeftOut) -> tuple[Float32, Float32]:
    """Robust centre and smallest variance of each pixel; NaN and infinity where there are no inputs.

    Inputs that take no part do so as infinities, in turn of either sign. The first one is negative where the
    number of inputs is odd, so that the lower median of the rest keeps its rank whatever their number.
    """
    n = len(data)
    smallest = _smallest(variance, left_out)
    centre = _medians(data.reshape(n, -1), left_out).reshape(smallest.shape)
    if n % 2 == 0 or left_out:
        # What the lower median lies below the mean of normal deviates on average, in sigma.
        below = np.array([np.nan] + [_lower_median_offset(k) for k in range(1, n + 1)], np.float32)
        centre += below.take(left_out.number, mode="clip").reshape(centre.shape) * np.sqrt(smallest)
    return centre, smallest


def _medians(data: Float32, left_out: LeftOut) -> Float32:
    """Lower median of what takes part in each pixel of ``(n, pixels)``."""
    n, pixels = data.shape
    first = np.float32(np.inf) if n % 2 == 0 else -np.float32(np.inf)
    medians = np.empty(pixels, np.float32)
    parts = row_blocks(pixels, max(_SORTED // n, 1))
    edges = [*(some.start for some in parts), pixels]
    cuts = [np.searchsorted(where, edges).tolist() for where in left_out.where]
    for number, some in enumerate(parts):
        values = data[:, some].copy()
        for value, where, odd, cut in zip(
            values, left_out.where, left_out.first_and_every_second, cuts, strict=True
        ):
            there = slice(cut[number], cut[number + 1])
            if there.start < there.stop:
                value[where[there] - some.start] = np.where(odd[there], first, -first)
        medians[some] = lower_median_rows(values)
    return medians


def _smallest(variance: Float32, left_out: LeftOut) -> Float32:
    """Smallest variance of what takes part in each pixel; infinity where nothing does."""
    smallest = np.full(variance[0].size, np.inf, np.float32)
    for one, where in zip(variance.reshape(len(variance), -1), left_out.where, strict=True):
        kept = one[where]
        one[where] = np.inf
        np.minimum(smallest, one, out=smallest)
        one[where] = kept
    return smallest.reshape(variance.shape[1:])


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
