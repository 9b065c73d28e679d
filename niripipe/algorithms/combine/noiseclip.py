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

from niripipe.algorithms.morphology import dilate
from niripipe.algorithms.sorting import lower_median_rows, sort_rows
from niripipe.errors import ParameterError

__all__ = ["HALO", "NoiseModel", "outliers"]

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

_NEIGHBOURS = 1.5
"""Radius of the second look: of the disc that is the 3 x 3 square."""

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
    usable: Bool | None,
    model: NoiseModel,
    *,
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
        Values and variances ``(n, rows, nx)``, the unusable ones finite.
    usable : ndarray of bool or None
        Inputs that take part, same shape; None for all.
    model : NoiseModel
        The expected scatter.
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
    centre, smallest, count = _centre(data, variance, usable)
    extra = _model_variance(centre, smallest, count, model)
    found = np.zeros(data.shape, bool)
    high, low = np.float32(hsigma**2), np.float32(-(lsigma**2))
    near = np.float32(min(model.neighbour_sigma, 1e15) ** 2)
    expected = np.empty_like(centre)
    for index, (values, own) in enumerate(zip(data, variance, strict=True)):
        deviation = values - centre
        np.multiply(deviation, np.float32(-scale[index] / model.gain), out=expected)
        expected += own
        np.maximum(expected, smallest, out=expected)
        expected += extra
        # Signed squares spare the square root.
        signed = np.abs(deviation)
        signed *= deviation
        hit = found[index]
        np.greater(signed, high * expected, out=hit)
        hit |= signed < low * expected
        if usable is not None:
            hit &= usable[index]
        if hit.any():
            beside = dilate(hit, _NEIGHBOURS)
            beside &= np.abs(signed) > near * expected
            hit |= beside
    if usable is not None:
        found &= usable
    return found


def _centre(
    data: Float32, variance: Float32, usable: Bool | None
) -> tuple[Float32, Float32, NDArray[np.intp]]:
    """Robust centre, smallest variance and number of inputs of each pixel; NaN where there are none."""
    n = len(data)
    # What the lower median lies below the mean of normal deviates on average, in sigma.
    below = np.array([0.0] + [_lower_median_offset(k) for k in range(1, n + 1)], np.float32)
    if usable is None:
        smallest = np.minimum.reduce(variance, axis=0)
        centre = lower_median_rows(data.copy())
        if n % 2 == 0:
            centre += below[n] * np.sqrt(smallest)
        return centre, smallest, np.asarray(n)
    infinity = np.float32(np.inf)
    smallest = np.where(usable, variance, infinity).min(axis=0)
    ordered = sort_rows(np.where(usable, data, infinity))
    count = np.count_nonzero(usable, axis=0)
    rank = np.maximum(count - 1, 0) // 2
    centre = np.take_along_axis(ordered, rank[None], axis=0)[0]
    centre += below[count] * np.sqrt(smallest)
    centre[count == 0] = np.nan
    return centre, smallest, count


def _model_variance(
    centre: Float32, smallest: Float32, count: NDArray[np.intp], model: NoiseModel
) -> Float32:
    """Variance from what differs between exposures besides noise."""
    undefined = np.isnan(centre)
    hollow = undefined.any()
    highest = _square_filter(np.maximum, np.where(undefined, -np.inf, centre) if hollow else centre)
    lowest = _square_filter(np.minimum, np.where(undefined, np.inf, centre) if hollow else centre)
    contrast = np.maximum(highest - centre, centre - lowest)
    contrast *= contrast
    # Four times the scatter of the median: what noise alone makes of a flat field.
    contrast -= smallest * np.float32(16 * 1.3) / np.maximum(count, 1).astype(np.float32)
    np.maximum(contrast, 0, out=contrast)
    contrast *= np.float32(model.contrast**2)
    # Of two inputs the centre is one, with all its noise; and only the higher one can be rejected, which must
    # not become a bias.
    contrast += np.where(count == 2, smallest, np.float32(0))
    brightness = centre - np.float32(model.background)
    np.maximum(brightness, 0, out=brightness)
    brightness *= np.float32(model.fraction)
    brightness *= brightness
    contrast += brightness
    return contrast


def _square_filter(extreme: np.ufunc, plane: Float32) -> Float32:
    """Running maximum or minimum over squares, cut off at the borders."""
    result = plane
    for axis in (0, 1):
        source = np.moveaxis(result, axis, 0)
        filtered = source.copy()
        for step in range(1, _REACH + 1):
            extreme(filtered[step:], source[:-step], out=filtered[step:])
            extreme(filtered[:-step], source[step:], out=filtered[:-step])
        result = np.moveaxis(filtered, 0, axis)
    return result


def _lower_median_offset(n: int) -> float:
    """How many sigma the lower median of `n` normal deviates lies below their mean (Blom's formula)."""
    return 0.0 if n % 2 else -NormalDist().inv_cdf((n / 2 - 0.375) / (n + 0.25))
