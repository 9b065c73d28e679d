"""Tracks of cosmic rays across the array."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["cosmic_ray_hits"]

Float64 = NDArray[np.float64]

#: Charge per pixel crossed, e-: median and width (natural logarithm).
_CHARGE, _CHARGE_SPREAD = 3500.0, 0.8
#: Mean of the exponential part of a track's length, and the longest, pixels.
_LENGTH, _LONGEST = 2.5, 30.0
#: A pixel that got less than this was not hit, e-.
_LEAST = 20.0
#: Points a pixel length at which charge is laid down.
_FINE = 10


def cosmic_ray_hits(rate: float, seconds: float, size: int, rng: np.random.Generator) -> Float64:
    """Draw the cosmic rays of an exposure.

    Parameters
    ----------
    rate : float
        Hits per second on 1024 x 1024 pixels.
    seconds : float
        Exposure time over all coadds.
    size : int
        Pixels along a side.
    rng : numpy.random.Generator
        Where chance comes from.

    Returns
    -------
    ndarray of float64, shape (n, 3)
        y, x and charge (e-) of each pixel hit, once a pixel, in the order of rows.
    """
    hits = int(rng.poisson(rate * seconds * (size / 1024) ** 2)) if rate > 0 else 0
    if hits == 0:
        return np.empty((0, 3))
    start = rng.uniform(-0.5, size - 0.5, (hits, 2))
    angle = rng.uniform(0, math.pi, hits)
    length = np.minimum(1 + rng.exponential(_LENGTH, hits), _LONGEST)
    charge = _CHARGE * np.exp(_CHARGE_SPREAD * rng.standard_normal(hits))
    points = np.maximum(1, np.rint(length * _FINE).astype(int))
    hit = np.repeat(np.arange(hits), points)
    along = (np.arange(points.sum()) - np.repeat(np.cumsum(points) - points, points)) / _FINE
    y = np.rint(start[hit, 0] + along * np.sin(angle[hit])).astype(int)
    x = np.rint(start[hit, 1] + along * np.cos(angle[hit])).astype(int)
    inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
    pixel, which = np.unique(y[inside] * size + x[inside], return_inverse=True)
    total = np.bincount(which, weights=charge[hit[inside]] / _FINE, minlength=pixel.size)
    kept = total >= _LEAST
    rows, columns = np.divmod(pixel[kept], size)
    return np.stack([rows, columns, np.round(total[kept], 1)], axis=1)
