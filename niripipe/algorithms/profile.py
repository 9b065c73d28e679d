"""Radial extent of sources: full width at half maximum, half-light diameter, Gaussian core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Profiles", "measure_profiles", "stamp_half_size"]

Floats = NDArray[np.floating[Any]]

_MISSING = -999.0


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
        Brightest of the 5 x 5 pixels at the centre, above the background.
    core : ndarray
        Full width at half maximum of a normal profile fitted to the pixels above 30 % of the peak, pixels.
    """

    fwhm: NDArray[np.float32]
    ee50: NDArray[np.float32]
    peak: NDArray[np.float32]
    core: NDArray[np.float32]


def stamp_half_size(pixel_scale: float | None, seeing: float | None) -> int:
    """Half-size in pixels of the stamp that `measure_profiles` needs.

    Parameters
    ----------
    pixel_scale : float, optional
        Arcseconds per pixel.
    seeing : float, optional
        Expected full width at half maximum, arcseconds.

    Returns
    -------
    int
        1.2 times the seeing, or half an arcsecond when it is not known; never less than 10.
    """
    if pixel_scale is None or not pixel_scale > 0:
        return 10
    width = 0.5 if seeing is None or not seeing > 0 else 1.2 * seeing
    return max(10, int(width / pixel_scale))


def measure_profiles(
    data: Floats,
    x: Floats,
    y: Floats,
    background: Floats | float,
    flux: Floats,
    peak: Floats,
    *,
    half_size: int = 10,
) -> Profiles:
    """Measure the extent of sources on square stamps.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame.
    x, y : ndarray, shape (n,)
        0-based positions, pixel centres at integers.
    background : ndarray, shape (n,), or float
        Background level at each source.
    flux : ndarray, shape (n,)
        Total flux of each source, against which half is measured.
    peak : ndarray, shape (n,)
        Peak above background, used where the one measured here is negative, and kept where the stamp does
        not fit.
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
    number = len(x)
    fwhm, ee50, core = (np.full(number, _MISSING, dtype=np.float32) for _ in range(3))
    peaks = np.array(peak, dtype=np.float32)
    level = np.broadcast_to(np.asarray(background, dtype=np.float64), (number,))
    h = half_size
    grid = np.arange(-h, h)
    for k in range(number):
        # Corner-based coordinates: pixel i covers i to i + 1.
        xc, yc = float(x[k]) + 0.5, float(y[k]) + 0.5
        if not (np.isfinite(xc) and np.isfinite(yc)):
            continue
        ix, iy = int(xc), int(yc)
        if ix - h < 0 or iy - h < 0 or ix + h >= data.shape[1] or iy + h >= data.shape[0]:
            continue
        stamp = data[iy - h : iy + h, ix - h : ix + h] - level[k]
        top = float(stamp[h - 2 : h + 3, h - 2 : h + 3].max())
        if top < 0:
            top = float(peaks[k])
        peaks[k] = top
        square = (grid + (iy + 0.5 - yc))[:, None] ** 2 + (grid + (ix + 0.5 - xc)) ** 2
        fwhm[k] = _half_maximum(stamp, square, top, h)
        core[k] = _core(stamp, square, top)
        order = np.argsort(square, axis=None, kind="stable")
        growth = np.cumsum(stamp.ravel()[order], dtype=np.float64)
        beyond = growth >= 0.5 * float(flux[k])
        first = int(np.argmax(beyond))
        if beyond[first]:
            ee50[k] = 2 * np.sqrt(square.ravel()[order[first]])
    return Profiles(fwhm, ee50, peaks, core)


def _half_maximum(stamp: Floats, square: Floats, top: float, h: int) -> float:
    bright = stamp > 0.5 * top
    area = np.count_nonzero(bright) / np.pi
    # Neighbours that rise above half the peak lie outside 1.2 times the radius.
    inner = np.count_nonzero(bright & (square < 1.5 * area)) / np.pi
    radius = float(np.sqrt(inner))
    return _MISSING if radius >= h or radius == 0 else 2 * radius


def _core(stamp: Floats, square: Floats, top: float) -> float:
    """Slope of the logarithm against the squared radius, weighted by flux squared (constant noise)."""
    used = (stamp > 0.3 * top) & (square < 36.0)
    if top <= 0 or np.count_nonzero(used) < 5:
        return _MISSING
    value, radius = stamp[used].astype(np.float64), square[used]
    weight = value**2
    log = np.log(value)
    total = weight.sum()
    mean_r, mean_l = (weight * radius).sum() / total, (weight * log).sum() / total
    spread = (weight * (radius - mean_r) ** 2).sum()
    slope = (weight * (radius - mean_r) * (log - mean_l)).sum() / spread if spread > 0 else 0.0
    # log f = const - r^2 / (2 sigma^2); FWHM = sqrt(8 ln 2) sigma.
    return float(np.sqrt(-4 * np.log(2) / slope)) if slope < 0 else _MISSING
