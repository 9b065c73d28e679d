"""Data-quality bits as plain integers, for code that sees arrays only.

A mask is a ``uint16`` plane in which 0 means good. The values are those of Gemini's data-quality planes.
`niripipe.astrodata.DQ` is the same set as an `enum.IntFlag`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Mask

__all__ = [
    "BAD",
    "COSMIC_RAY",
    "FAIL",
    "NON_LINEAR",
    "NOT_SIGNAL",
    "NO_DATA",
    "OVERLAP",
    "SATURATED",
    "UNILLUMINATED",
    "as_flags",
]

BAD: Final = 1
"""Detector defect, from a static or a user's bad pixel mask."""

NON_LINEAR: Final = 2
"""At or above the non-linear level, below saturation."""

SATURATED: Final = 4
"""At or above saturation, or a hole in a saturated core."""

COSMIC_RAY: Final = 8
"""Cosmic-ray hit or afterglow of an earlier saturated exposure."""

NO_DATA: Final = 16
"""No measurement: outside the field, or nothing to interpolate from."""

OVERLAP: Final = 32
"""Overlap region of a mosaic."""

UNILLUMINATED: Final = 64
"""Outside the illuminated area, or a flat field beyond its limits."""

FAIL: Final = BAD | SATURATED | COSMIC_RAY | NO_DATA
"""Bits that make a pixel unfit for photometry."""

NOT_SIGNAL: Final = 0xFFFF & ~(NON_LINEAR | SATURATED)
"""Every bit except those that only say that the pixel is bright."""


def as_flags(values: NDArray[Any]) -> Mask:
    """Return a bad pixel mask of any software as flags.

    Parameters
    ----------
    values : ndarray
        Booleans, integers or floating-point numbers; 0 is good.

    Returns
    -------
    ndarray of uint16
        Whole numbers from 0 to 65535 as they are. `BAD` for all else: NaN, fractions, negative numbers and
        larger ones, which are flags of another convention.
    """
    if values.dtype.kind in "bu" and values.dtype.itemsize <= 2:
        return values.astype(np.uint16)
    with np.errstate(invalid="ignore"):
        flags = values.astype(np.uint16)
    flags[flags != values] = BAD
    return flags
