"""The noise of frames that were taken and processed alike, as a function of their level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.parallel import map_blocks, plane_rows
from niripipe.algorithms.sorting import select_rows
from niripipe.algorithms.sources import RowSource

__all__ = ["NoiseLine", "noise_line"]

Float32 = NDArray[np.float32]

_FRAMES = 7
"""So many frames give the line of a pixel to the rounding of float32."""
_NEAR = 6.0
"""Values further from a low rank, in deviations, are stars or hits: the line is for the sky."""
_SAME = 1e-3
"""Relative precision to which frames of the same noise lie on the line, but for some pixels in a hundred."""
_EXCEPTIONS = 0.02
_CHECKED_ROWS = 8


@dataclass(frozen=True, slots=True)
class NoiseLine:
    """Variance of each pixel as a straight line of its level: read noise, and photon noise over the gain.

    Attributes
    ----------
    constant, slope : ndarray of float32, shape (ny, nx)
        In the square of the data's unit, and in the data's unit.
    """

    constant: Float32
    slope: Float32

    def at(self, level: Float32, rows: slice = slice(None)) -> Float32:
        """Return the variance at a level, for all rows or some."""
        variance = self.slope[rows] * level
        variance += self.constant[rows]
        return variance


def noise_line(
    data: Sequence[RowSource], variance: Sequence[RowSource], *, threads: int = 1
) -> NoiseLine | None:
    """Fit the variances of frames, pixel by pixel, by a line of their data.

    Parameters
    ----------
    data, variance : sequence of RowSource, shape (ny, nx) each
        Frames of the sky. A few of them, evenly spread, are fitted; all are checked on a few rows.
    threads : int
        Number of threads.

    Returns
    -------
    NoiseLine or None
        None if the frames do not have the same noise.
    """
    height, width = data[0].shape
    chosen = np.unique(np.linspace(0, len(data) - 1, min(len(data), _FRAMES)).astype(int))
    line = NoiseLine(np.empty((height, width), np.float32), np.empty((height, width), np.float32))

    def fit(rows: slice) -> None:
        levels = np.stack([data[k][rows] for k in chosen])
        spreads = np.stack([variance[k][rows] for k in chosen])
        with np.errstate(all="ignore"):
            line.constant[rows], line.slope[rows] = _fitted(levels, spreads)

    map_blocks(fit, height, rows_per_block=max(plane_rows(width) // len(chosen), 1), threads=threads)
    same = all(_is_on(line, values, spread) for values, spread in zip(data, variance, strict=True))
    return line if same else None


def _fitted(levels: Float32, variance: Float32) -> tuple[Float32, Float32]:
    """Return constant and slope of each pixel, by least squares over ``(n, rows, nx)``."""
    levels[~np.isfinite(levels)] = np.inf
    # Stars move with the dithers and only add light: a low rank is sky in nearly all pixels.
    centre = select_rows(levels, ((len(levels) - 1) // 4,))[0]
    x = levels - centre
    near = x * x <= np.float32(_NEAR**2) * variance
    number = np.maximum(np.count_nonzero(near, axis=0), 1).astype(np.float32)
    x[~near] = 0
    y = np.where(near, variance, np.float32(0))
    mean_x, mean_y = x.sum(axis=0) / number, y.sum(axis=0) / number
    x -= mean_x
    y -= mean_y
    x[~near] = 0
    squares = (x * x).sum(axis=0)
    slope = (x * y).sum(axis=0) / squares
    unknown = ~(squares > 0)
    if unknown.any():
        # A single value has no slope; that of other pixels differs by the flat field only.
        slope[unknown] = 0 if unknown.all() else np.median(slope[~unknown])
    return mean_y - slope * (centre + mean_x), slope


def _is_on(line: NoiseLine, data: RowSource, variance: RowSource) -> bool:
    """Return whether a frame has this noise, judged on some rows."""
    rows = slice(0, None, max(data.shape[0] // _CHECKED_ROWS, 1))
    levels, spread = data[rows], variance[rows]
    with np.errstate(all="ignore"):
        off = np.abs(line.at(levels, rows) - spread) > _SAME * spread
        off &= np.isfinite(levels)
    return bool(np.count_nonzero(off) <= _EXCEPTIONS * off.size)
