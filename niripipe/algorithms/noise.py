"""Variance planes: what read-out and photon statistics say about each pixel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.parallel import map_blocks, plane_rows
from niripipe.algorithms.sorting import median_rows
from niripipe.errors import DataError, ParameterError

__all__ = ["smoothed_level", "variance"]

Float32 = NDArray[np.float32]


def variance(
    data: Float32,
    *,
    gain: float,
    read_noise: float = 0.0,
    poisson: bool = True,
    existing: Float32 | None = None,
    level: Float32 | None = None,
    out: Float32 | None = None,
    threads: int = 1,
) -> Float32:
    """Make a variance plane from read noise and photon noise, or add them to one.

    The sum of ``(read_noise / gain)**2`` and ``max(counts, 0) / gain``, in the square of the data's unit.

    A pixel's own counts underestimate its variance where they are low by chance and overestimate it where
    they are high. The mean of such variances is right, but whoever weighs or clips by them gets a bias
    of about one electron, at any level. With `level`, the expected counts, there is none.

    Parameters
    ----------
    data : ndarray of float32
        Counts ``(ny, nx)`` before any subtraction of dark or sky: what was subtracted left its noise.
    gain : float
        Electrons per data unit: the detector's gain for ADU, 1 for electrons.
    read_noise : float
        Read noise in electrons, of all coadds together.
    poisson : bool
        Whether to add the photon variance.
    existing : ndarray of float32, optional
        Variance so far.
    level : ndarray of float32, optional
        Counts to use for the photon variance instead of those of `data`, such as its `smoothed_level`.
    out : ndarray of float32, optional
        Receives the result; may be `existing` itself.
    threads : int
        Number of threads.

    Returns
    -------
    ndarray of float32
        The variance plane. With photon noise it is NaN where the counts are.

    Raises
    ------
    ParameterError
        If the gain is not positive, or the read noise negative.
    DataError
        If the planes differ in shape.
    """
    if not (math.isfinite(gain) and gain > 0):
        raise ParameterError("the gain must be positive", item="gain", found=gain)
    if not (math.isfinite(read_noise) and read_noise >= 0):
        raise ParameterError("the read noise cannot be negative", item="read_noise", found=read_noise)
    for name, plane in (("existing", existing), ("level", level)):
        if plane is not None and plane.shape != data.shape:
            raise DataError("planes differ in shape", item=name, found=plane.shape, expected=data.shape)
    result = np.empty(data.shape, np.float32) if out is None else out
    counts = data if level is None else level
    constant = np.float32((read_noise / gain) ** 2)
    unit = np.float32(gain)

    def add(rows: slice) -> None:
        if poisson:
            total = np.clip(counts[rows], 0, np.inf)
            if unit != 1:
                total /= unit
            total += constant
        else:
            total = np.full(counts[rows].shape, constant)
        if existing is not None:
            total += existing[rows]
        result[rows] = total

    map_blocks(add, len(data), rows_per_block=plane_rows(data.shape[1]), threads=threads)
    return result


def smoothed_level(data: Float32, *, threads: int = 1) -> Float32:
    """Median of the 3 x 3 surroundings of each pixel, its own value included.

    As the expected level for `variance` it follows stars and gradients and ignores cosmic rays, hot pixels
    and most of the noise. At the borders the outermost rows and columns are repeated. NaN spreads to the
    neighbours.

    Parameters
    ----------
    data : ndarray of float32
        Plane ``(ny, nx)``.
    threads : int
        Number of threads.

    Returns
    -------
    ndarray of float32
        Plane of the same shape.
    """
    height, width = data.shape
    result = np.empty(data.shape, np.float32)

    def smooth(rows: slice) -> None:
        inside = np.clip(np.arange(rows.start - 1, rows.stop + 1), 0, height - 1)
        block = np.pad(data[inside], ((0, 0), (1, 1)), mode="edge")
        n_rows = rows.stop - rows.start
        shifted = [block[dy : dy + n_rows, dx : dx + width] for dy in range(3) for dx in range(3)]
        result[rows] = median_rows(shifted)

    map_blocks(smooth, height, rows_per_block=max((1 << 15) // max(width, 1), 1), threads=threads)
    return result
