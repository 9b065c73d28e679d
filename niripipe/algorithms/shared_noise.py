"""Noise that a frame and its sky have in common, because the same dark and flat were applied to both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from niripipe.algorithms.arrays import Float32, Mask
from niripipe.algorithms.parallel import plane_rows, row_blocks
from niripipe.algorithms.robust import fast_median, good_pixels

__all__ = ["Calibrations", "inputs_per_variance", "remove_shared"]

_FLOOR = 0.1
"""A variance keeps at least this part: where the flat is far from 1 the terms are large and known badly."""
_STRIDE = 16
"""One of so many rows tells the ratio of variances."""


@dataclass(frozen=True, slots=True)
class Calibrations:
    """What was applied to a frame and to its skies alike; None for what was not, or is not known.

    Attributes
    ----------
    dark_variance : ndarray of float32, shape (ny, nx), or None
        Variance of the dark, before the flat was divided by.
    flat, flat_variance : ndarray of float32, shape (ny, nx), or None
        The flat, and its variance.
    """

    dark_variance: Float32 | None
    flat: Float32 | None
    flat_variance: Float32 | None


def inputs_per_variance(variance: Float32, sky_variance: Float32, *masks: Mask | None) -> float:
    """Return the variance of a sky over that of a single frame at the same level, typical of good pixels."""
    rows = slice(_STRIDE // 2, None, _STRIDE)
    above, below = sky_variance[rows], variance[rows]
    good = good_pixels(above, *(None if mask is None else mask[rows] for mask in masks)) & (below > 0)
    ratio = np.divide(above, below, out=np.zeros_like(above), where=good)
    found = fast_median(ratio, good)
    return found if np.isfinite(found) else 0.0


def remove_shared(
    variance: Float32,
    data: Float32,
    sky: Float32,
    used: Calibrations,
    *,
    factor: float,
    share: float,
    scale: float = 1.0,
    offset: float = 0.0,
) -> None:
    """Remove from the variance of ``data - F sky`` what dark and flat add twice though it cancels; in place.

    Parameters
    ----------
    variance : ndarray of float32, shape (ny, nx)
        ``var(data) + F^2 var(sky)``, as if the two were independent.
    data, sky : ndarray of float32, shape (ny, nx)
        Frame before the subtraction, and sky.
    used : Calibrations
    factor : float
        F.
    share : float
        Variance of the sky over that of one of its frames, k: 1 / n for a mean of n.
    scale : float
        Mean factor by which the frames of the sky were multiplied, m.
    offset : float
        Mean number that was added to them afterwards; it has no noise.

    Notes
    -----
    With dark d and flat f the frame is ``(t - d) / f`` and the sky a mean of ``m (s - d) / f``. An error of
    the dark adds ``-(1 - F m) / f`` times itself to the difference, and a relative error of the flat
    ``-(data - F sky)`` times itself. Their variances in the difference are therefore
    ``(1 - F m)^2 var_d / f^2`` and ``(data - F sky)^2 var_f / f^2``, while the variances of frame and sky
    hold ``(1 + F^2 k) var_d / f^2`` and ``(data^2 + F^2 k sky^2) var_f / f^2``. The difference is removed,
    with the sky without its offset for the sky.
    """
    dark_part = np.float32(1 + factor**2 * share - (1 - factor * scale) ** 2)
    ny, nx = variance.shape
    blocks = row_blocks(ny, plane_rows(nx))
    memory = np.empty((3, *variance[blocks[0]].shape), np.float32)
    for rows in blocks:
        excess, light, part = memory[:, : rows.stop - rows.start]
        excess[...] = 0
        if used.dark_variance is not None:
            np.multiply(used.dark_variance[rows], dark_part, out=excess)
        if used.flat_variance is not None:
            np.subtract(sky[rows], np.float32(offset), out=light)
            light *= np.float32(factor)
            np.multiply(light, np.float32(share - 1), out=part)
            part += data[rows]
            part += data[rows]
            part *= light
            part *= used.flat_variance[rows]
            excess += part
        block = variance[rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            if used.flat is not None:
                np.square(used.flat[rows], out=part)
                excess /= part
            np.subtract(block, excess, out=light)
            np.maximum(light, np.multiply(block, np.float32(_FLOOR), out=part), out=light)
        np.copyto(block, light, where=np.isfinite(excess))
