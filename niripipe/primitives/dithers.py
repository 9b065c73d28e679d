"""How frames are dithered, by their headers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from niripipe.astrodata import AstroData, undistorted
from niripipe.primitives.geometry import require_sky_mapping

__all__ = ["box_shifts"]

_TURNED = 0.5
"""Frames whose corners are displaced by more than this many boxes by rotation or scale are not compared."""


def box_shifts(frames: Sequence[AstroData], box: int) -> NDArray[np.float64]:
    """Return where each frame shows the middle of the first, in boxes.

    Parameters
    ----------
    frames : sequence of AstroData
        Frames of one shape.
    box : int
        Side of a box, pixels.

    Returns
    -------
    ndarray of float64, shape (n, 2)
        Position (y, x), which is a shift up to a constant. NaN where a frame has no WCS, or is turned or
        scaled against the first that has one. Pointing errors are far below a box.
    """
    shifts = np.full((len(frames), 2), np.nan)
    known = [k for k, frame in enumerate(frames) if frame[0].sky_mapping is not None]
    # Without distortion, which displaces corners against each other by up to a few pixels.
    skies = {k: undistorted(require_sky_mapping(frames[k])) for k in known}
    if not known:
        return shifts
    ny, nx = frames[known[0]][0].shape
    x = np.array([(nx - 1) / 2, 0, nx - 1, 0, nx - 1])
    y = np.array([(ny - 1) / 2, 0, 0, ny - 1, ny - 1])
    ra, dec = skies[known[0]].all_pix2world(x, y, 0)
    for k in known:
        there = np.array(skies[k].all_world2pix(ra, dec, 0)[::-1]) - [y, x]
        if np.abs(there - there[:, :1]).max() <= _TURNED * box:
            shifts[k] = there[:, 0] / box
    return shifts
