"""Measuring the noise of apertures on those that show nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Float32, Float64
from niripipe.algorithms.robust import fast_median, robust_sigma
from niripipe.aperture_noise import ApertureNoise

__all__ = ["RADII", "BlankApertures", "measure_apertures"]

RADII = (1.5, 2.5, 4.0, 6.0, 9.0, 13.0)
"""Radii at which the scatter is measured, pixels: from the core of a star to the apertures of photometry."""
_TRIES = 3000
"""Positions that are tried at each radius: a scatter of so many is good to 2 %."""
_FEWEST = 40
"""A scatter of fewer independent apertures is not used: its error would be 15 % or more."""
_FEWEST_RADII = 3
_AWAY = 1.0
"""Apertures keep this distance from pixels that are not blank."""
_LENGTHS = tuple(np.geomspace(1.0, 64.0, 25).tolist())
"""Correlation lengths that are tried, pixels. Structure much larger than an aperture is one level in it."""
_SIGNIFICANT = 3.0
"""A residual sky is taken for real when it exceeds its error so many times."""
_MODEL = 0.03
"""Relative error of predictions beside that of the scatter: no residual sky has exactly the shape assumed."""
_SEED = 20160102
_STRIDE = 8


@dataclass(frozen=True, slots=True)
class BlankApertures:
    """Scatter of blank apertures, and the noise that explains it.

    Attributes
    ----------
    noise : ApertureNoise
        Correlation as given, residual sky as measured.
    radius : ndarray of float64, shape (n,)
        Radii, pixels.
    ratio : ndarray of float64, shape (n,)
        Scatter measured over that predicted by the variances and their correlation, without residual sky.
    error : ndarray of float64, shape (n,)
        Its error.
    number : ndarray of int, shape (n,)
        Apertures that were measured; they overlap.
    """

    noise: ApertureNoise
    radius: Float64
    ratio: Float64
    error: Float64
    number: NDArray[np.intp]


def measure_apertures(
    data: Float32,
    variance: Float32,
    blank: Bool,
    *,
    correlation: float = 1.0,
    depth: NDArray[Any] | None = None,
) -> BlankApertures | None:
    """Measure the scatter of apertures without sources, and what residual sky it says there is.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Image without its background.
    variance : ndarray of float32, shape (ny, nx)
        Its variance.
    blank : ndarray of bool, shape (ny, nx)
        Good pixels without sources.
    correlation : float
        Variance of a large aperture over the sum of its variances.
    depth : ndarray of int, shape (ny, nx), optional
        Number of frames in each pixel: with fewer there is more residual sky.

    Returns
    -------
    BlankApertures or None
        None where there is too little blank area for three radii.

    Notes
    -----
    The scatter is robust (median absolute deviation) and is that of sums over their predicted deviations.
    Its square is compared with ``1 + residual(A) / (factor(A) sum(VAR))`` of `ApertureNoise`; the length is
    the best of a list, the rms follows by least squares. Positions are drawn with a fixed seed.
    """
    noise = ApertureNoise(correlation)
    hidden = (~blank).astype(np.float32)
    # A value that is not finite would spoil apertures that do not contain it.
    data, variance = (np.where(blank, plane, np.float32(0)) for plane in (data, variance))
    area = float(np.count_nonzero(blank))
    rng = np.random.default_rng(_SEED)
    rows = []
    for radius in RADII:
        scatter, number = _scatter(data, variance, hidden, radius, noise, rng)
        independent = min(number, area / (math.pi * radius**2))
        if independent >= _FEWEST and scatter > 0:
            # The error of a scatter from the median absolute deviation is 1.17 / sqrt(n) of it.
            rows.append((radius, scatter, 1.17 * scatter / math.sqrt(independent), number))
    if len(rows) < _FEWEST_RADII:
        return None
    found = np.array(rows)
    level = _level(variance, blank, depth)
    fitted = _fit(noise, found[:, 0], found[:, 1], found[:, 2], level) if level > 0 else noise
    return BlankApertures(fitted, found[:, 0], found[:, 1], found[:, 2], found[:, 3].astype(np.intp))


def _level(variance: Float32, blank: Bool, depth: NDArray[Any] | None) -> float:
    """Return the typical variance that blank pixels would have if all frames contributed."""
    sample = variance[::_STRIDE]
    if depth is not None:
        sample = sample * depth[::_STRIDE].astype(np.float32) / np.float32(max(depth.max(), 1))
    return fast_median(sample, blank[::_STRIDE])


def _scatter(
    data: Float32,
    variance: Float32,
    hidden: Float32,
    radius: float,
    noise: ApertureNoise,
    rng: np.random.Generator,
) -> tuple[float, int]:
    """Return scatter of blank apertures over that predicted, and their number."""
    import sep

    ny, nx = data.shape
    edge = radius + _AWAY
    if min(ny, nx) <= 2 * edge + 1:
        return 0.0, 0
    x, y = rng.uniform(edge, nx - 1 - edge, _TRIES), rng.uniform(edge, ny - 1 - edge, _TRIES)
    # Most are ruled out by their centres, which is quick.
    keep = hidden[np.rint(y).astype(int), np.rint(x).astype(int)] == 0
    x, y = x[keep], y[keep]
    keep = sep.sum_circle(hidden, x, y, edge, subpix=1)[0] == 0
    x, y = x[keep], y[keep]
    if x.size < _FEWEST:
        return 0.0, int(x.size)
    total, summed = (sep.sum_circle(plane, x, y, radius)[0] for plane in (data, variance))
    expected = noise.factor(math.pi * radius**2) * summed
    good = expected > 0
    return robust_sigma(total[good] / np.sqrt(expected[good])), int(np.count_nonzero(good))


def _fit(
    noise: ApertureNoise, radius: Float64, ratio: Float64, error: Float64, variance: float
) -> ApertureNoise:
    """Return the noise with the residual sky that explains the ratios best."""
    area = math.pi * radius**2
    excess = ratio**2 - 1
    weight = 1 / (4 * ratio**2 * (error**2 + (_MODEL * ratio) ** 2))
    best, least = noise, float((weight * excess**2).sum())
    for length in _LENGTHS:
        shape = ApertureNoise(noise.correlation, 1.0, length).residual(area)
        shape = shape / (noise.factor(area) * area * variance)
        information = float((weight * shape**2).sum())
        square = float((weight * shape * excess).sum()) / information
        left = float((weight * (excess - square * shape) ** 2).sum())
        if square * math.sqrt(information) > _SIGNIFICANT and left < least:
            best, least = ApertureNoise(noise.correlation, math.sqrt(square), length), left
    return best
