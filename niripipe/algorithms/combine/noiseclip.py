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

from niripipe.algorithms.parallel import row_blocks
from niripipe.algorithms.sorting import lower_median_rows
from niripipe.errors import ParameterError

from .select import count_true, with_infinities

__all__ = ["HALO", "NoiseModel", "outliers", "smoothed"]

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

_REACH = 2
"""Half the width of the square in which the contrast is measured: about a seeing disc at NIRI's f/6."""

HALO = _REACH + 2
"""Rows needed on either side of a block: neighbours of rejected pixels, and the contrast there, for which
the centre may be smoothed."""

_CHANCE = 16 * 1.3
"""The squared contrast of a flat field, in variances of the mean: four times the scatter of the median."""


_SORTED = 1 << 20
"""Values sorted at a time: more would not stay in the cache, with fewer threads would wait for each other."""


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
    contrasts : tuple of float, optional
        A contrast for each input, instead of `contrast`: for frames of different seeing, as measured. Then r
        is the larger of that of the centre and that of the centre smoothed over 3 x 3 pixels, which has
        less noise.
    fluxes : tuple of float, optional
        Relative flux of the sources in each input, after scaling: for frames taken through clouds. Inputs are
        judged after what exceeds `background` is divided by it. The mean is that of the values as they
        are, but a pixel that lacks inputs gets the mean that all would have: what exceeds `background` is
        multiplied by the mean flux of all inputs over that of those used. Operations other than the
        mean are not corrected.
    """

    gain: float = 1.0
    contrast: float = 0.35
    fraction: float = 0.03
    background: float = 0.0
    neighbour_sigma: float = 2.5
    contrasts: tuple[float, ...] | None = None
    fluxes: tuple[float, ...] | None = None

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
        for item, values, least in (("contrasts", self.contrasts, 0.0), ("fluxes", self.fluxes, 1e-6)):
            if values is not None and not all(least <= value < math.inf for value in values):
                raise ParameterError("the noise model cannot use this", item=item, found=values)

    def check_number(self, n: int) -> None:
        """Check that what is given for each input is given for `n` inputs; else raise `ParameterError`."""
        for item, values in (("contrasts", self.contrasts), ("fluxes", self.fluxes)):
            if values is not None and len(values) != n:
                raise ParameterError(
                    "one number an input is needed", item=item, found=len(values), expected=n
                )


def outliers(
    data: Float32,
    variance: Float32,
    usable: Bool,
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
        Values and variances ``(n, rows, nx)``.
    usable : ndarray of bool
        ``(n, rows, nx)``: False for inputs that take no part.
    model : NoiseModel
        The expected scatter.
    scale : ndarray
        Factors by which the inputs were multiplied, ``(n,)``: photon noise scales with them.
    hsigma, lsigma : float
        Limits above and below the centre.

    Returns
    -------
    ndarray of bool
        The outliers, ``(n, rows, nx)``; only usable inputs are. Valid in all rows except `HALO` at either
        end of the block, unless that is the end of the image.
    """
    count = count_true(usable)
    if model.fluxes is not None:
        scale = scale / np.array(model.fluxes)
        data, variance = _to_common_flux(data, variance, model.fluxes, model.background)
    centre, smallest = _centre(data, variance, usable, count)
    extra, contrast = _model_variance(centre, smallest, count, model)
    high, low = np.float32(hsigma**2), np.float32(lsigma**2)
    factors = (-scale / model.gain).astype(np.float32)
    squared, expected, limit = (np.empty_like(centre) for _ in range(3))
    hits = np.empty(data.shape, bool)
    for k, hit in enumerate(hits):
        deviation = np.subtract(data[k], centre, out=squared)
        np.multiply(deviation, factors[k], out=expected)
        expected += variance[k]
        np.maximum(expected, smallest, out=expected)
        expected += extra
        if contrast is not None and model.contrasts is not None:
            expected += np.multiply(contrast, np.float32(model.contrasts[k] ** 2), out=limit)
        factor = high if high == low else np.where(deviation > 0, high, low)
        np.multiply(expected, factor, out=limit)
        squared *= deviation
        np.greater(squared, limit, out=hit)
        hit &= usable[k]
        if not math.isinf(model.neighbour_sigma):
            _add_neighbours(hit, squared, expected, model.neighbour_sigma)
            hit &= usable[k]
    return hits


def _add_neighbours(hit: Bool, squared: Float32, expected: Float32, limit: float) -> None:
    """Apply a lower limit to the eight neighbours of every hit of one input, in place."""
    height, width = hit.shape
    step = np.arange(-1, 2)
    y, x = np.divmod(np.flatnonzero(hit)[:, None, None], width)
    y, x = np.broadcast_arrays(y + step[:, None], x + step)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    near = y[inside] * width + x[inside]
    beyond = squared.reshape(-1)[near] > np.float32(limit**2) * expected.reshape(-1)[near]
    hit.reshape(-1)[near[beyond]] = True


def _centre(
    data: Float32, variance: Float32, usable: Bool, count: NDArray[np.intp]
) -> tuple[Float32, Float32]:
    """Robust centre and smallest variance of each pixel; NaN and infinity where there are no inputs."""
    n = len(data)
    smallest = np.minimum.reduce(variance, axis=0, where=usable, initial=np.inf)
    centre = _lower_medians(data.reshape(n, -1), usable.reshape(n, -1)).reshape(count.shape)
    # What the lower median lies below the mean of normal deviates on average, in sigma.
    below = np.array([np.nan] + [_lower_median_offset(k) for k in range(1, n + 1)], np.float32)
    centre += below.take(count) * np.sqrt(smallest)
    return centre, smallest


def _to_common_flux(
    data: Float32, variance: Float32, fluxes: tuple[float, ...], background: float
) -> tuple[Float32, Float32]:
    """Divide what exceeds the background by the flux of each input."""
    factor = (1 / np.array(fluxes)).astype(np.float32).reshape(-1, 1, 1)
    level = np.float32(background)
    return (data - level) * factor + level, variance * factor**2


def _lower_medians(data: Float32, usable: Bool) -> Float32:
    """Lower median of the usable inputs of each pixel of ``(n, pixels)``.

    The others take part as infinities of alternating sign. The first one is negative where the number of
    inputs is odd, so that the lower median of the usable ones keeps its rank whatever their number.
    """
    n, pixels = data.shape
    first = np.inf if n % 2 == 0 else -np.inf
    medians = np.empty(pixels, np.float32)
    for some in row_blocks(pixels, max(_SORTED // n, 1)):
        infinity = np.full(some.stop - some.start, first, np.float32)
        rows = [
            with_infinities(values, unusable, infinity)
            for values, unusable in zip(data[:, some], ~usable[:, some], strict=True)
        ]
        medians[some] = lower_median_rows(rows)
    return medians


def _model_variance(
    centre: Float32, smallest: Float32, count: NDArray[np.intp], model: NoiseModel
) -> tuple[Float32, Float32 | None]:
    """Variance from what differs between exposures besides noise; squared contrast if inputs differ in it."""
    missing = np.isnan(centre)
    undefined = missing if missing.any() else None
    by_chance: Float32 = smallest * (np.float32(_CHANCE) / np.maximum(count, 1).astype(np.float32))
    total = _squared_contrast(centre, by_chance, undefined)
    if model.contrasts is not None:
        # A star that hardly stands out of the noise needs all of its contrast where frames differ much: the
        # mean of nine pixels has a third of the noise.
        by_chance *= np.float32(1 / 9)
        filled = centre if undefined is None else np.where(undefined, np.float32(0), centre)
        np.maximum(total, _squared_contrast(smoothed(filled), by_chance, undefined), out=total)
    contrast = None
    if model.contrasts is None:
        total *= np.float32(model.contrast**2)
    else:
        contrast, total = total, np.zeros_like(total)
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
    return total, contrast


def _squared_contrast(shape: Float32, by_chance: Float32, undefined: Bool | None) -> Float32:
    """Return the square of the largest difference from the 5 x 5 pixels around, less what is chance, or 0."""
    highest, lowest = shape, shape
    if undefined is not None:
        highest, lowest = (np.where(undefined, value, shape) for value in (-np.inf, np.inf))
    highest, lowest = _square_filter(np.maximum, highest), _square_filter(np.minimum, lowest)
    total: Float32 = np.maximum(highest - shape, shape - lowest)
    total *= total
    total -= by_chance
    # Maxima with a number are not vectorised, limits are.
    return np.clip(total, 0, np.inf, out=total)


def smoothed(planes: Float32) -> Float32:
    """Return the mean over the 3 x 3 pixels around each one of planes (..., rows, nx), 0 outside them."""
    tall = planes.copy()
    tall[..., 1:, :] += planes[..., :-1, :]
    tall[..., :-1, :] += planes[..., 1:, :]
    wide = tall.copy()
    wide[..., 1:] += tall[..., :-1]
    wide[..., :-1] += tall[..., 1:]
    wide *= np.float32(1 / 9)
    return wide


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
