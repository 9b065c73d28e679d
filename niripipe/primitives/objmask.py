"""What several primitives do with object masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import morphology
from niripipe.astrodata import DQ, AstroData

__all__ = ["OBJECT_BIT", "PackedMask", "add_to_mask", "dilate", "dilated", "put"]

OBJECT_BIT = np.uint16(0x8000)
"""Private bit by which combinations avoid objects; it never reaches a frame."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedMask:
    """A mask of zeros and ones as bits.

    Attributes
    ----------
    bits : ndarray of uint8, shape (ny, ceil(nx / 8))
    width : int
        Pixels of a row, nx.
    """

    bits: NDArray[np.uint8]
    width: int

    @classmethod
    def of(cls, mask: NDArray[np.uint8]) -> PackedMask:
        """Pack a mask ``(ny, nx)``."""
        return cls(np.packbits(mask, axis=1), mask.shape[1])

    def rows(self, rows: slice) -> NDArray[np.uint8]:
        """Return some rows of the mask."""
        return np.unpackbits(self.bits[rows], axis=1, count=self.width)


def put(frame: AstroData, mask: PackedMask) -> None:
    """Give a frame an object mask, which is kept as bits until somebody changes it."""
    frame[0].compute_extra("OBJMASK", mask.rows, np.uint8)


def dilated(frame: AstroData, radius: float) -> np.ndarray | None:
    """Return a frame's object mask grown by a disc, as booleans, or None when the frame has none."""
    mask = frame[0].rows("OBJMASK")
    return None if mask is None else morphology.dilate(mask[:], radius)


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
    objects = ext.read_once("OBJMASK")
    if objects is None:
        return False
    mask = np.zeros(ext.shape, np.uint16) if ext.mask is None else ext.mask
    mask[objects > 0] |= np.uint16(bit)
    ext.mask = mask
    return True
