"""Errors in the cores of stars that are no noise of pixels: those of alignment and interpolation."""

from __future__ import annotations

import math

import numpy as np

from niripipe.algorithms.arrays import Float32
from niripipe.algorithms.parallel import plane_rows, row_blocks

__all__ = ["add_core_errors"]

_BRIGHT = 30.0
"""Pixels so many deviations above zero are looked at. Below, the terms are a hundredth of the variance."""
_SIGNIFICANT = 0.05
"""Part of the variance from which a term is added: the noise of neighbours makes a few hundredths of it."""
_CUBIC = 0.0153
"""Mean of f (1 - f^2) (2 - f) / 24 over all fractions f of a pixel: by so much of the fourth derivative a
cubic polynomial is off (the remainder of Lagrange's formula through four points)."""
_REACH = 3
_EVEN = 0.289
"""Root of the correlation factor, less 1, where all fractions are alike: 1 / 0.7757 - 1."""


def add_core_errors(
    variance: Float32, data: Float32, *, shift_error: float = 0.0, correlation: float = 1.0
) -> int:
    """Add to the variance of a stack, in place, what alignment and interpolation do to bright steep sources.

    Parameters
    ----------
    variance : ndarray of float32, shape (ny, nx)
        Variance of each pixel.
    data : ndarray of float32, shape (ny, nx)
        The stack, without sky.
    shift_error : float
        Error of the mean of the frames' shifts per axis, pixels: ``sqrt(sum e_i^2) / n``.
    correlation : float
        Variance of a large aperture over the sum of its variances: 1 where nothing was interpolated.

    Returns
    -------
    int
        Number of pixels changed.

    Notes
    -----
    A shift by e changes a pixel by ``e`` times the gradient. Interpolation by a cubic polynomial flattens
    peaks by ``b (d4/dx4 + d4/dy4)`` with b = 0.0153 where the fractions of pixels are spread evenly, in
    proportion to ``sqrt(correlation) - 1`` elsewhere; it is the same in all frames, and its square is added.
    (Derivatives are differences with the next term of their series.) Both move light
    between neighbouring pixels and hardly change a flux.
    """
    share = _CUBIC * max(math.sqrt(correlation) - 1, 0.0) / _EVEN
    ny, nx = data.shape
    if min(ny, nx) <= 2 * _REACH or not (share > 0 or shift_error > 0):
        return 0
    bright = []
    for rows in row_blocks(ny, plane_rows(nx)):
        values = data[rows]
        above = (values > 0) & (values * values > np.float32(_BRIGHT**2) * variance[rows])
        above[:, :_REACH] = above[:, -_REACH:] = False
        bright.append(np.flatnonzero(above) + rows.start * nx)
    pixels = np.concatenate(bright)
    pixels = pixels[(pixels >= _REACH * nx) & (pixels < (ny - _REACH) * nx)]
    flat, spread = data.reshape(-1), variance.reshape(-1)
    extra = np.zeros(pixels.size)
    curved = np.zeros(pixels.size)
    for step in (1, nx):
        at = [flat[pixels + k * step].astype(float) for k in range(-_REACH, _REACH + 1)]
        extra += (shift_error * (8 * (at[4] - at[2]) - (at[5] - at[1])) / 12) ** 2
        fourth = at[1] - 4 * at[2] + 6 * at[3] - 4 * at[4] + at[5]
        sixth = at[0] - 6 * at[1] + 15 * at[2] - 20 * at[3] + 15 * at[4] - 6 * at[5] + at[6]
        curved += share * (fourth - sixth / 6)
    extra += curved**2
    worth = extra > _SIGNIFICANT * spread[pixels]
    spread[pixels[worth]] += extra[worth].astype(np.float32)
    return int(np.count_nonzero(worth))
