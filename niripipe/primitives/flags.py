"""Setting data-quality bits of a few pixels."""

from __future__ import annotations

import numpy as np

from niripipe.algorithms.flags import Flags
from niripipe.astrodata import AstroData

__all__ = ["flag"]


def flag(frame: AstroData, flags: Flags) -> None:
    """Set bits in the mask of a frame that has one.

    Parameters
    ----------
    frame : AstroData
        With one extension. A mask that can be computed again stays so.
    flags : Flags
        Which pixels, and the bits of each.
    """
    if not flags.where.size:
        return
    ext = frame[0]
    height = ext.shape[0]
    if not ext.derive_mask(lambda values, rows: flags.add_to(values.copy(), rows, height)):
        ext.mask = flags.add_to(np.array(ext.read("mask")))
