"""Radial extent of sources: full width at half maximum, half-light diameter, Gaussian core."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from niripipe.algorithms.arrays import Float32, Floats
from niripipe.algorithms.source_catalogue import MISSING

__all__ = ["Profiles", "measure_profiles", "stamp_half_size"]


_BATCH = 1 << 16
"""Pixels in the stamps that are measured at a time: their arrays stay in the cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Profiles:
    """Measurements of n sources; float32 arrays of shape (n,), -999 where not measurable.

    Attributes
    ----------
    fwhm : ndarray
        Full width at half maximum, pixels: diameter of the circle with as many pixels as are brighter than
        half the peak.
    ee50 : ndarray
        Diameter of the circle that holds half of the flux, pixels.
    peak : ndarray
        Brightest of the 5 x 5 pixels at the centre.
    core : ndarray
        Full width at half maximum of a normal profile fitted to the pixels above 30 % of the peak, pixels.
    """

    fwhm: Float32
    ee50: Float32
    peak: Float32
    core: Float32


def stamp_half_size(pixel_scale: float | None) -> int:
    """Return the half-size in pixels of the stamps of `measure_profiles`: 0.5 arcsec, but at least 10.

    ``pixel_scale`` is in arcseconds per pixel; None if it is not known.
    """
    return max(10, int(0.5 / pixel_scale)) if pixel_scale else 10


def measure_profiles(
    data: Floats, x: Floats, y: Floats, flux: Floats, peak: Floats, *, half_size: int = 10
) -> Profiles:
    """Measure the extent of sources on square stamps.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame, free of background.
    x, y : ndarray, shape (n,)
        0-based positions, pixel centres at integers.
    flux : ndarray, shape (n,)
        Total flux of each source, against which half is measured.
    peak : ndarray, shape (n,)
        Peak, used where the one measured here is negative, and kept where the stamp does not fit.
    half_size : int
        Half-size h of the stamps, 2h pixels on a side.

    Returns
    -------
    Profiles

    Notes
    -----
    The rules are those of DRAGONS (gempy.gemini.gemini_tools, profile measurement). Pixels are
    counted, not divided, so a width of 6 pixels is uncertain by a few per cent; ``core`` is the smoother
    number.
    """
    found = Profiles(*(np.full(len(x), MISSING, dtype=np.float32) for _ in range(4)))
    found.peak[:] = peak
    h = half_size
    # Corner-based coordinates: pixel i covers i to i + 1.
    xc, yc = np.asarray(x, dtype=np.float64) + 0.5, np.asarray(y, dtype=np.float64) + 0.5
    # This is false for positions that are not finite, too.
    fits = (xc >= h) & (yc >= h) & (xc < data.shape[1] - h) & (yc < data.shape[0] - h)
    indices = np.flatnonzero(fits)
    if indices.size == 0:
        return found
    stamps = np.lib.stride_tricks.sliding_window_view(data, (2 * h, 2 * h))
    step = max(1, _BATCH // (4 * h * h))
    for k in range(0, indices.size, step):
        some = indices[k : k + step]
        ix, iy = xc[some].astype(np.intp), yc[some].astype(np.intp)
        stamp = stamps[iy - h, ix - h].astype(np.float64)
        top = stamp[:, h - 2 : h + 3, h - 2 : h + 3].max(axis=(1, 2))
        top = np.where(top < 0, found.peak[some], top)
        found.peak[some] = top
        grid = np.arange(-h, h) + 0.5
        dx2, dy2 = ((grid + (i - c)[:, None]) ** 2 for i, c in ((ix, xc[some]), (iy, yc[some])))
        square = dy2[:, :, None] + dx2[:, None, :]
        found.core[some] = _core(stamp, square, top)
        flat, square = stamp.reshape(some.size, -1), square.reshape(some.size, -1)
        found.fwhm[some] = _half_maximum(flat, square, top, h)
        found.ee50[some] = _half_light(flat, square, np.asarray(flux, dtype=np.float64)[some])
    return found


def _half_maximum(stamp: Floats, square: Floats, top: Floats, h: int) -> Floats:
    bright = stamp > 0.5 * top[:, None]
    area = np.count_nonzero(bright, axis=1) / np.pi
    # Neighbours that rise above half the peak lie outside 1.2 times the radius.
    inner = np.count_nonzero(bright & (square < 1.5 * area[:, None]), axis=1) / np.pi
    radius = np.sqrt(inner)
    return np.where((radius >= h) | (radius == 0), MISSING, 2 * radius)


def _half_light(stamp: Floats, square: Floats, flux: Floats) -> Floats:
    """Return the diameter at which the sum of pixels from the centre outwards reaches half the flux."""
    order = np.argsort(square, axis=1)
    growth = np.cumsum(np.take_along_axis(stamp, order, axis=1), axis=1)
    beyond = growth >= 0.5 * flux[:, None]
    first = np.argmax(beyond, axis=1)
    rows = np.arange(flux.size)
    diameter = 2 * np.sqrt(square[rows, order[rows, first]])
    return np.where(beyond[rows, first], diameter, MISSING)


def _core(stamp: Floats, square: Floats, top: Floats) -> Floats:
    """Slope of the logarithm against the squared radius, weighted by flux squared (constant noise)."""
    h = stamp.shape[1] // 2
    inner = slice(max(h - 7, 0), h + 7)
    value, radius = stamp[:, inner, inner], square[:, inner, inner]
    used = (value > 0.3 * top[:, None, None]) & (radius < 36.0)
    usable = (top > 0) & (np.count_nonzero(used, axis=(1, 2)) >= 5)
    value = np.where(used & usable[:, None, None], value, 1.0)
    weight, log = np.where(used, value**2, 0.0), np.log(value)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = weight.sum(axis=(1, 2))
        mean_r, mean_l = ((weight * v).sum(axis=(1, 2)) / total for v in (radius, log))
        radius, log = radius - mean_r[:, None, None], log - mean_l[:, None, None]
        spread = (weight * radius**2).sum(axis=(1, 2))
        slope = (weight * radius * log).sum(axis=(1, 2)) / spread
        # log f = const - r^2 / (2 sigma^2); FWHM = sqrt(8 ln 2) sigma.
        width = np.sqrt(-4 * np.log(2) / slope)
    return np.where(usable & (slope < 0), width, MISSING)
