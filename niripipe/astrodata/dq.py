"""Data quality bits: what a pixel's mask value says about it."""

from __future__ import annotations

from enum import IntFlag
from typing import Any

__all__ = ["DQ", "FAIL", "NOT_SIGNAL"]


class DQ(IntFlag):
    """Bits of the data quality mask, with the values that DRAGONS writes.

    A mask is a uint16 plane; 0 means no known problem and bits are combined by bitwise OR. `DQ.max`
    is the largest mask value.
    """

    good = 0
    """No known problem."""
    bad_pixel = 1
    """In a static or user bad pixel mask."""
    non_linear = 2
    """Above the non-linear level, below saturation."""
    saturated = 4
    """At or above the saturation level, or a hole in a saturated core."""
    cosmic_ray = 8
    """Flagged as a cosmic-ray hit."""
    no_data = 16
    """Outside the area with data: edges after resampling, gaps."""
    overlap = 32
    """In an overlap region of a mosaic."""
    unilluminated = 64
    """Outside the illuminated field, or vignetted."""
    fail = bad_pixel | saturated | cosmic_ray | no_data
    """The pixel value is unusable (29)."""
    not_signal = 65535 ^ (non_linear | saturated)
    """All bits except those that strong signal causes (65529): for masking where bright sources must stay."""
    max = 65535
    """All sixteen bits."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        # An exact int takes the type of the other operand; numpy would take a flag for int64.
        plain = (int(value) if isinstance(value, DQ) else value for value in inputs)
        return getattr(ufunc, method)(*plain, **settings)


FAIL = DQ.fail
"""The bits that make a pixel value unusable, as a constant (29)."""

NOT_SIGNAL = DQ.not_signal
"""All bits but those that bright signal sets, as a constant (65529)."""
