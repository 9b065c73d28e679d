"""Bad pixel masks from flats and short darks."""

from __future__ import annotations

import numpy as np

from niripipe.algorithms import bits
from niripipe.algorithms.arrays import Bool, Float32, Mask
from niripipe.algorithms.pattern.quadrants import quadrants_of
from niripipe.algorithms.robust import MAD_TO_SIGMA, MEDIAN_ERROR
from niripipe.errors import DataError

__all__ = ["bad_pixels", "readout_pattern"]

Limits = tuple[float | None, float | None]

_SIGNIFICANT = 4.0
"""A column's offset counts as pattern from this many of its own errors on: by chance one column in 16000."""

_LARGEST_PATTERN = 100.0
"""Offsets of columns and rows by the read-out are some tens of electrons; what exceeds this is a defect."""

_FEWEST_PIXELS = 16
"""Shorter columns have a median that a few hot pixels can shift."""


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


def readout_pattern(
    dark: Float32, *, largest: float = _LARGEST_PATTERN, centre: tuple[int, int] | None = None
) -> Float32:
    """Measure the offsets of columns and rows that the read-out adds to a short dark.

    In each quadrant, which has its own amplifiers, the pattern of a column is the difference between its
    median and that of the quadrant, where it is significant; then the same for rows. Defects are fewer than
    half of the pixels of a column, so the median does not see them.

    Parameters
    ----------
    dark : ndarray of float32, shape (ny, nx)
        Stack of short darks, electrons.
    largest : float
        Largest offset (electrons) that is taken for pattern.
    centre : tuple of int, optional
        First row and column beyond the middle of the detector, where the quadrants meet; may be outside of
        a window. The middle of the frame by default.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        The pattern, electrons, with a median near 0: 0 in columns and rows without a significant one.
    """
    ny, nx = dark.shape
    pattern = np.zeros(dark.shape, np.float32)
    for corner in quadrants_of(dark.shape, centre or (ny // 2, nx // 2)):
        part = dark[corner.rows, corner.columns]
        good = np.isfinite(part)
        if not good.any():
            continue
        # What is no number is bad anyway; the median of the quadrant shifts no line.
        part = np.where(good, part, np.median(part[good]))
        along_columns = _offsets(part, 0, largest)
        along_rows = _offsets(part - along_columns, 1, largest)
        pattern[corner.rows, corner.columns] = along_columns + along_rows
    return pattern


def _offsets(part: Float32, axis: int, largest: float) -> Float32:
    """Return the significant offsets of the lines along an axis, in a shape to be subtracted."""
    if part.shape[axis] < _FEWEST_PIXELS:
        return np.zeros((1, 1), np.float32)
    medians = np.median(part, axis=axis, keepdims=True)
    offsets = medians - np.median(part)
    noise = MAD_TO_SIGMA * np.median(np.abs(part - medians))
    error = MEDIAN_ERROR * noise / np.sqrt(part.shape[axis])
    is_pattern = (np.abs(offsets) > _SIGNIFICANT * error) & (np.abs(offsets) <= largest)
    return np.asarray(np.where(is_pattern, offsets, 0), np.float32)


def _within(plane: Float32, limits: Limits) -> Bool:
    low = np.float32(-np.inf if limits[0] is None else limits[0])
    high = np.float32(np.inf if limits[1] is None else limits[1])
    return np.asarray(np.isfinite(plane) & (plane >= low) & (plane <= high))
