"""What several primitives do with object masks."""

from __future__ import annotations

import numpy as np

from niripipe.algorithms import morphology
from niripipe.astrodata import DQ, AstroData

__all__ = ["OBJECT_BIT", "add_to_mask", "dilate", "dilated"]

OBJECT_BIT = np.uint16(0x8000)
"""Private bit by which combinations avoid objects; it never reaches a frame."""


def dilated(frame: AstroData, radius: float) -> np.ndarray | None:
    """Return a frame's object mask grown by a disc, as booleans, or None when the frame has none."""
    mask = frame[0].read("OBJMASK")
    return None if mask is None else morphology.dilate(mask, radius)


def dilate(frame: AstroData, radius: float) -> bool:
    """Grow the object mask of a frame by a disc; return whether there was one."""
    mask = dilated(frame, radius)
    if mask is None:
        return False
    frame[0].OBJMASK = mask.view(np.uint8)
    return True


def add_to_mask(frame: AstroData, bit: DQ) -> bool:
    """Set a data-quality bit where the frame has an object; return whether it has an object mask."""
    ext = frame[0]
    objects = ext.read("OBJMASK")
    if objects is None:
        return False
    mask = np.zeros(ext.shape, np.uint16) if ext.mask is None else ext.mask
    mask[objects > 0] |= np.uint16(bit)
    ext.mask = mask
    return True
