"""Masks of sources that single frames hardly show, from the frames added up on the sky in coarse bins.

A smooth fit to the sky of a frame takes along the light of whatever is not masked: halos of stars, and
sources too faint for a single frame, which are in all frames at the same place of the sky. Together the
frames show both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Float32, Float64
from niripipe.algorithms.robust import median_of_good, robust_sigma

__all__ = ["Binned", "DeepSources", "binned", "box_medians", "deep_sources"]

# A bin counts when so much of it is known, and a box when so many of its bins are.
_KNOWN, _ENOUGH = 0.5, 0.2
# Sources stand out by so many deviations of the sum of the frames, smoothed by this (bins), over so many
# bins.
_SEEN, _SMOOTHING, _LEAST_BINS = 3.0, 1.0, 6
# Masks grow by so many bins beside a multiple of the source's own radius.
_GROWN = 1.0


@dataclass(frozen=True, slots=True)
class Binned:
    """A frame in coarse bins.

    Attributes
    ----------
    mean : ndarray of float32, shape (ny, nx)
        Mean of the good pixels of each bin; 0 where there are too few.
    good : ndarray of bool, shape (ny, nx)
        Bins with enough good pixels.
    objects : ndarray of bool, shape (ny, nx)
        Bins with a pixel of a known object.
    """

    mean: Float32
    good: Bool
    objects: Bool


@dataclass(frozen=True, slots=True)
class DeepSources:
    """Sources of the frames added up.

    Attributes
    ----------
    away : ndarray of float32, shape (sy, sx)
        Distance to the nearest source, bins; infinite where there is none.
    radius : ndarray of float32, shape (sy, sx)
        Radius of a circle with the area of that source, bins.
    corners : ndarray of int, shape (n, 2)
        Where the first bin (y, x) of each frame lies.
    """

    away: Float32
    radius: Float32
    corners: NDArray[np.int64]

    def mask(self, k: int, shape: tuple[int, ...], growth: float) -> Bool:
        """Return which bins of a frame sources cover, each grown by a multiple of its radius."""
        y, x = self.corners[k]
        part = np.s_[y : y + shape[0], x : x + shape[1]]
        return np.asarray(self.away[part] <= _GROWN + growth * self.radius[part])


def binned(data: Float32, good: Bool, objects: Bool, side: int) -> Binned:
    """Bin a frame.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        The frame.
    good, objects : ndarray of bool, same shape
        Usable pixels, and those of known objects.
    side : int
        Side of a bin, pixels. What is left over at the upper edges belongs to no bin.

    Returns
    -------
    Binned
    """
    number = _summed(good.astype(np.float32), side)
    sums = _summed(np.where(good, data, np.float32(0)), side)
    enough = number >= max(_KNOWN * side * side, 1)
    mean = np.where(enough, sums / np.maximum(number, 1), 0).astype(np.float32)
    return Binned(mean, enough, _summed(objects.astype(np.float32), side) > 0)


def _summed(plane: Float32, side: int) -> Float32:
    """Add up the pixels of each bin; rows first, which are contiguous."""
    ny, nx = (size // side for size in plane.shape)
    rows = plane[: ny * side].reshape(ny, side, -1).sum(axis=1)
    return np.asarray(sum(rows[:, k : nx * side : side] for k in range(side)))


def box_medians(frame: Binned, masked: Bool, side: int, sky: Float32 | None = None) -> Float64:
    """Return the medians of boxes of bins.

    Parameters
    ----------
    frame : Binned
        The frame.
    masked : ndarray of bool
        Bins to leave out, beside those that are not good.
    side : int
        Side of a box, bins.
    sky : ndarray of float32, optional
        What to subtract from the bins first. Where a box is masked on one side, and the sky slopes, the
        median is not that of its middle; after the subtraction it does not matter.

    Returns
    -------
    ndarray of float64, shape (by, bx)
        NaN where most bins are left out.
    """
    by, bx = (size // side for size in frame.mean.shape)
    cut = np.s_[: by * side, : bx * side]

    def boxes(plane: NDArray[Any]) -> NDArray[Any]:
        parts = plane[cut].reshape(by, side, bx, side).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(parts).reshape(by, bx, side * side)

    usable = boxes(frame.good & ~masked)
    medians = median_of_good(boxes(frame.mean if sky is None else frame.mean - sky), usable, axis=2).astype(
        np.float64
    )
    medians[usable.mean(axis=2) < _ENOUGH] = np.nan
    return medians


def deep_sources(frames: Sequence[Binned], skies: Sequence[Float32], shifts: Float64) -> DeepSources:
    """Find sources in the sum of dithered frames.

    Parameters
    ----------
    frames : sequence of Binned
        Frames of one field and shape.
    skies : sequence of ndarray of float32
        What to subtract from the bins of each: the best known residual sky.
    shifts : ndarray of float64, shape (n, 2)
        Position (y, x) of one place on the sky in each frame, bins.

    Returns
    -------
    DeepSources
    """
    from scipy import ndimage

    corners = np.round(shifts.max(axis=0) - shifts).astype(np.int64)
    ny, nx = frames[0].mean.shape
    rows, columns = corners.max(axis=0) + np.array([ny, nx])
    total, number = np.zeros((2, rows, columns), np.float32)
    for frame, sky, (y, x) in zip(frames, skies, corners, strict=True):
        total[y : y + ny, x : x + nx] += np.where(frame.good, frame.mean - sky, 0)
        number[y : y + ny, x : x + nx] += frame.good
    weight = ndimage.gaussian_filter(np.sqrt(number), _SMOOTHING)
    # In units that are equally noisy, however many frames show a place.
    smooth = ndimage.gaussian_filter(total / np.sqrt(np.maximum(number, 1)), _SMOOTHING)
    shown = number > 0
    well = number > number.max() / 2
    level = float(np.median((smooth / np.maximum(weight, 1e-3))[well]))
    smooth -= level * weight
    seen = shown & (smooth > _SEEN * robust_sigma(smooth[well]))
    label, count = ndimage.label(
        ndimage.binary_opening(seen, np.ones((2, 2), bool)), structure=np.ones((3, 3))
    )
    area = np.bincount(label.ravel(), minlength=count + 1)
    area[0] = 0
    sources = (area >= _LEAST_BINS)[label]
    if not sources.any():
        nowhere = np.full(shown.shape, np.inf, np.float32)
        return DeepSources(nowhere, np.zeros_like(nowhere), corners)
    away, nearest = ndimage.distance_transform_edt(~sources, return_indices=True)
    radius = np.sqrt(area / np.pi)[label[tuple(nearest)]]
    return DeepSources(away.astype(np.float32), radius.astype(np.float32), corners)
