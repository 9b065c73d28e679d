"""Binary morphology with discs, fast enough to run on every frame."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool

__all__ = ["dilate"]


def dilate(mask: NDArray[np.generic], radius: float) -> Bool:
    """Grow the non-zero pixels of a mask by a disc.

    The result equals that of `scipy.ndimage.binary_dilation` with the integer offsets for which ``x**2 + y**2
    <= radius**2``. A disc consists of horizontal runs, so the mask is widened step by step and each width is
    OR-ed into the rows where the disc is that wide: of order ``4 * radius`` passes over bytes instead of
    ``pi * radius**2``.

    Parameters
    ----------
    mask : ndarray
        Plane ``(ny, nx)`` of any number type or bool; non-zero is set.
    radius : float
        Radius of the disc in pixels. Below 1 nothing grows; 1.5 gives the full 3 x 3 square.

    Returns
    -------
    ndarray of bool
        Plane of the same shape.
    """
    half = int(radius)
    grown: Bool = mask != 0
    if half == 0 or not grown.any():
        return grown
    original = grown.copy()
    widened = grown.copy()
    n_rows, n_columns = grown.shape
    width = 0
    # From the top of the disc to its middle the runs only get longer.
    for dy in range(half, -1, -1):
        wanted = math.isqrt(math.floor(radius * radius - dy * dy))
        while width < wanted:
            width += 1
            if width < n_columns:
                widened[:, width:] |= original[:, : n_columns - width]
                widened[:, : n_columns - width] |= original[:, width:]
        if dy < n_rows:
            grown[dy:] |= widened[: n_rows - dy]
            grown[: n_rows - dy] |= widened[dy:]
    return grown
