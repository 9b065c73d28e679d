"""Looking for a source at a position where it should be, below the limit of detection."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool
from niripipe.algorithms.robust import SIGMA_TO_FWHM, fast_median, robust_sigma

__all__ = ["Glimpse", "look_for"]

_LEAST_SNR = 5.0
"""Of the highest peak in a stamp: noise reaches 4 among the hundreds of independent positions of a stamp."""

_BACKGROUND = 4.0
"""A stamp reaches this many FWHM beyond the region that is searched, for its background and noise."""

_LEAST_GOOD = 0.5
"""Share of usable pixels below which a stamp is not searched."""


class Glimpse(NamedTuple):
    """A source that was looked for.

    Attributes
    ----------
    x, y : float
        Its position, 0-based.
    flux : float
    error : float
        Of the position along each axis, pixels: ``sqrt(2) sigma / (S/N)``, which is what a matched filter
        leaves for a Gaussian of deviation sigma in even noise.
    """

    x: float
    y: float
    flux: float
    error: float


def look_for(
    data: NDArray[Any], good: Bool, x: float, y: float, *, fwhm: float, reach: float
) -> Glimpse | None:
    """Find the brightest point source within some distance of a position.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Image; its background may vary slowly.
    good : ndarray of bool, shape (ny, nx)
        Usable pixels.
    x, y : float
        Where it should be, 0-based.
    fwhm : float
        Of point sources, pixels.
    reach : float
        Largest distance, pixels.

    Returns
    -------
    Glimpse or None
        None without a source of S/N 5, or where the stamp has too few pixels. The flux is that of a Gaussian
        with the peak of the image after it was smoothed with one of this FWHM (a matched filter).
    """
    from scipy.ndimage import gaussian_filter

    sigma, half = fwhm / SIGMA_TO_FWHM, math.ceil(reach + _BACKGROUND * fwhm)
    ny, nx = data.shape
    rows = slice(max(round(y) - half, 0), min(round(y) + half + 1, ny))
    columns = slice(max(round(x) - half, 0), min(round(x) + half + 1, nx))
    usable = good[rows, columns]
    if usable.size == 0 or usable.mean() < _LEAST_GOOD:
        return None
    stamp = data[rows, columns].astype(float)
    stamp = np.where(usable, stamp - fast_median(stamp[usable]), 0.0)
    smooth = gaussian_filter(stamp, sigma, mode="nearest")
    yy, xx = np.mgrid[rows, columns]
    near = np.hypot(xx - x, yy - y) <= reach
    if not near.any():
        return None
    top = np.unravel_index(np.argmax(np.where(near, smooth, -np.inf)), smooth.shape)
    away = np.hypot(xx - xx[top], yy - yy[top]) > 1.5 * fwhm
    noise = robust_sigma(smooth[away])
    if not smooth[top] > _LEAST_SNR * noise > 0:
        return None
    row, column = (int(k) for k in top)
    dx, dy = _vertex(smooth[row], column), _vertex(smooth[:, column], row)
    peak = float(smooth[top])
    error = math.sqrt(2) * sigma * noise / peak
    return Glimpse(float(xx[top]) + dx, float(yy[top]) + dy, 4 * math.pi * sigma**2 * peak, error)


def _vertex(line: NDArray[np.float64], k: int) -> float:
    """Return how far from an element the top of the parabola through it and its neighbours is."""
    if not 0 < k < line.size - 1:
        return 0.0
    before, middle, after = line[k - 1 : k + 2]
    bend = before - 2 * middle + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0
