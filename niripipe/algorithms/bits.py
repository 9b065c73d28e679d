"""Data-quality bits as plain integers, for code that sees arrays only.

A mask is a ``uint16`` plane in which 0 means good. The values are those of Gemini's data-quality planes.
`niripipe.astrodata.DQ` is the same set as an `enum.IntFlag`.
"""

from __future__ import annotations

from typing import Final

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
