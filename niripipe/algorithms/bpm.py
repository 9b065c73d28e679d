"""Bad pixel masks from flats and short darks."""

from __future__ import annotations

import numpy as np

from niripipe.algorithms import bits
from niripipe.algorithms.arrays import Bool, Float32, Mask
from niripipe.errors import DataError

__all__ = ["bad_pixels"]

Limits = tuple[float | None, float | None]


def bad_pixels(
    flat: Float32,
    dark: Float32,
    *,
    flat_limits: Limits = (0.8, 1.25),
    dark_limits: Limits = (-20.0, 1300.0),
    flat_mask: Mask | None = None,
) -> Mask:
    """Find the pixels whose response or dark signal is out of bounds.

    Parameters
    ----------
    flat : ndarray of float32
        Normalised lamp flat ``(ny, nx)``.
    dark : ndarray of float32
        Stack of short darks, in the unit of its limits (electrons for the defaults), same shape.
    flat_limits, dark_limits : tuple of (float or None)
        Lower and upper limit. The limits themselves are good; None is no limit.
    flat_mask : ndarray of uint16, optional
        Mask of the flat: pixels that it calls unilluminated get `bits.UNILLUMINATED` instead of a verdict.

    Returns
    -------
    ndarray of uint16
        0 for good pixels, `bits.BAD` for bad ones. A pixel that is not a number in flat or dark is bad.

    Raises
    ------
    DataError
        If flat and dark differ in shape.
    """
    if dark.shape != flat.shape:
        raise DataError("planes differ in shape", item="dark", found=dark.shape, expected=flat.shape)
    good = _within(flat, flat_limits) & _within(dark, dark_limits)
    result = np.where(good, np.uint16(0), np.uint16(bits.BAD))
    if flat_mask is not None:
        result[flat_mask & np.uint16(bits.UNILLUMINATED) != 0] = bits.UNILLUMINATED
    return result


def _within(plane: Float32, limits: Limits) -> Bool:
    low = np.float32(-np.inf if limits[0] is None else limits[0])
    high = np.float32(np.inf if limits[1] is None else limits[1])
    return np.asarray(np.isfinite(plane) & (plane >= low) & (plane <= high))
