"""Mosaics of box medians of dithered frames, brought onto the sky."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Float64

__all__ = ["LEAST_FRAMES", "Aligned", "SkyGrid", "detector_mean", "light_regions", "nine", "same_sky"]

# A box that is brought onto the sky counts where so much of it is known.
_KNOWN = 0.5
LEAST_FRAMES = 3
"""A mean of fewer frames has no scatter to be judged by."""
# Two frames whose fields overlap by less than this share of their sides are of different fields.
_OVERLAP = 0.25


@dataclass(frozen=True, slots=True)
class Aligned:
    """Frames compared at the same places of the sky.

    Attributes
    ----------
    mean : ndarray of float64, shape (sy, sx)
        Mean over the frames; 0 where there is none.
    error : ndarray of float64, shape (sy, sx)
        Its standard error by the scatter over the frames, at least the typical one; infinite where there are
        fewer than 3 frames.
    fixed : ndarray of float64, shape (sy, sx)
        What the mean at each place of the detector would make on the sky; like ``mean`` for a pattern of the
        detector, and fainter at its place than ``mean`` for light of the sky.
    """

    mean: Float64
    error: Float64
    fixed: Float64


class SkyGrid:
    """A grid of boxes on the sky that holds all frames.

    Parameters
    ----------
    shape : tuple of int
        Number of boxes (by, bx) of a frame.
    shifts : ndarray of float64, shape (n, 2)
        Position (y, x) of one place on the sky in each frame, in boxes.
    """

    def __init__(self, shape: tuple[int, ...], shifts: Float64) -> None:
        self._shape = shape
        start = shifts.max(axis=0) - shifts
        self._whole = np.floor(start).astype(int)
        self._part = start - self._whole
        # One box more for the part of a box by which a frame is moved.
        self.shape = tuple(int(size) for size in np.array(shape) + self._whole.max(axis=0) + 1)

    def aligned(self, maps: Float64, known: Bool) -> Aligned:
        """Return mean and error over the frames at each place of the sky.

        Parameters
        ----------
        maps : ndarray of float64, shape (n, by, bx)
        known : ndarray of bool of the same shape
            Which boxes count.

        Returns
        -------
        Aligned
        """
        total, square, number, fixed = (np.zeros(self.shape) for _ in range(4))
        on_detector = detector_mean(maps, known)
        for k, (plane, good) in enumerate(zip(maps, known, strict=True)):
            weight = self._moved(good.astype(float), k)
            share = np.maximum(weight, 1e-9)
            value = self._moved(np.where(good, plane, 0.0), k) / share
            pattern = self._moved(np.where(good, on_detector, 0.0), k) / share
            use = weight >= _KNOWN
            total += np.where(use, value, 0.0)
            square += np.where(use, value**2, 0.0)
            fixed += np.where(use, pattern, 0.0)
            number += use
        counted = np.maximum(number, 1)
        mean = total / counted
        enough = number >= LEAST_FRAMES
        scatter = np.sqrt(np.maximum(square - number * mean**2, 0) / np.maximum(number - 1, 1))
        typical = float(np.median(scatter[enough])) if enough.any() else float("inf")
        error = np.maximum(scatter, typical) / np.sqrt(counted)
        return Aligned(mean, np.where(enough, error, np.inf), fixed / counted)

    def back(self, plane: Float64) -> Float64:
        """Return a map of the sky as each frame sees it, shape (n, by, bx)."""
        rows, columns = self._shape
        seen = np.empty((len(self._whole), rows, columns))
        for k, ((y, x), (fy, fx)) in enumerate(zip(self._whole, self._part, strict=True)):
            part = plane[y : y + rows + 1, x : x + columns + 1]
            part = (1 - fy) * part[:-1] + fy * part[1:]
            seen[k] = (1 - fx) * part[:, :-1] + fx * part[:, 1:]
        return seen

    def _moved(self, plane: Float64, k: int) -> Float64:
        """Return a map of a frame on the grid, by linear interpolation; 0 outside."""
        (y, x), (fy, fx) = self._whole[k], self._part[k]
        rows, columns = self._shape
        moved = np.zeros(self.shape)
        for dy, wy in ((0, 1 - fy), (1, fy)):
            for dx, wx in ((0, 1 - fx), (1, fx)):
                moved[y + dy : y + dy + rows, x + dx : x + dx + columns] += wy * wx * plane
        return moved


def detector_mean(maps: Float64, known: Bool) -> Float64:
    """Return the mean over frames at each place of the detector, shape (by, bx); 0 where nothing is known."""
    return np.asarray(np.where(known, maps, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))


def light_regions(aligned: Aligned, *, seed: float, reach: float, seeds: int = 1) -> Bool:
    """Find where frames agree on light of the field.

    Parameters
    ----------
    aligned : Aligned
        The frames on the sky.
    seed, reach : float
        A region holds boxes whose mean exceeds its error `seed` times, and goes as far as the mean of nine
        exceeds it `reach` times.
    seeds : int
        How many such boxes.

    Returns
    -------
    ndarray of bool, shape (sy, sx)
        Regions, grown by a box. What stands out no more than the mean on the detector is no light of the
        field.
    """
    from scipy import ndimage

    finite = np.isfinite(aligned.error)
    weight = finite.astype(float)
    share = np.mean(nine(weight), axis=0)
    smooth = np.mean(nine(aligned.mean * weight), axis=0) / np.maximum(share, 1e-3)
    bright = finite & (smooth > reach * aligned.error)
    region, number = ndimage.label(bright, structure=np.ones((3, 3)))

    def over_regions(plane: NDArray[Any]) -> Float64:
        sums = np.bincount(region.ravel(), weights=plane.ravel(), minlength=number + 1)
        return np.asarray(sums, np.float64)

    enough = over_regions(aligned.mean > seed * aligned.error) >= seeds
    on_sky = over_regions(aligned.mean**2) > over_regions(aligned.fixed**2)
    wide = bright & (enough & on_sky)[region]
    return np.asarray(np.logical_or.reduce(nine(wide)))


def nine(plane: NDArray[Any]) -> list[NDArray[Any]]:
    """Return a mosaic and its eight shifts by one box; boxes at the edge are their own neighbours."""
    rows, columns = plane.shape
    padded = np.pad(plane, 1, mode="edge")
    return [padded[dy : dy + rows, dx : dx + columns] for dy in range(3) for dx in range(3)]


def same_sky(shifts: Float64, shape: Sequence[int]) -> list[list[int]]:
    """Return groups of frames that show the same field.

    Parameters
    ----------
    shifts : ndarray of float64, shape (n, 2)
        Position (y, x) of one place on the sky in each frame, in boxes; NaN where it is not known.
    shape : sequence of int
        Number of boxes (by, bx) of a frame.

    Returns
    -------
    list of list of int
        Indices; a frame without a position is in none.
    """
    left = [k for k in range(len(shifts)) if np.isfinite(shifts[k]).all()]
    limit = (1 - _OVERLAP) * np.asarray(shape)
    groups = []
    while left:
        group = [left.pop(0)]
        for member in group:
            near = [k for k in left if (np.abs(shifts[k] - shifts[member]) < limit).all()]
            group += near
            left = [k for k in left if k not in near]
        groups.append(sorted(group))
    return groups
