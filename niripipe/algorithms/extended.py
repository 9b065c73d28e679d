"""Light of extended sources in sky frames, found before the sky is made.

Detection looks for what stands out from its surroundings within tens of pixels; the outskirts of a galaxy do
not, and enter the sky frame as a ghost of the galaxy, which leaves a dark halo after the subtraction. Here
frames are compared as mosaics of coarse boxes, in which faint light that is wide can be seen. A sky that
drifts unevenly looks alike in one frame; in dithered frames the light of a galaxy is at one place on the sky,
and the drift is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Float64
from niripipe.algorithms.box_maps import (
    LEAST_FRAMES,
    SkyGrid,
    detector_mean,
    light_regions,
    nine,
    same_sky,
)
from niripipe.algorithms.robust import MAD_TO_SIGMA, fast_median, good_pixels, median_of_good
from niripipe.algorithms.sources import PlaneSource
from niripipe.errors import AlgorithmError

__all__ = ["BOX", "ExtendedLight", "box_medians", "extended_light", "over_pixels"]


BOX = 32
"""Side of a box, pixels: several widths of a star, and a small part of the galaxies that matter."""

# A box with less than this share of usable pixels has no useful median.
_ENOUGH = 0.3
_ROUNDS = 8
# A region is kept when as many of its boxes exceed the noise of a box this many times, and it reaches as far
# as the mean of nine boxes exceeds the noise of a box this many times (3.6 deviations of that mean).
_SEEDS, _SEED, _REACH = 4, 8.0, 1.2
# Dithered frames agree on light where their mean exceeds its error so many times, and as far as this.
_AGREED_SEED, _AGREED_REACH = 4.0, 1.0
# Fewer boxes than this show no trend across the frame.
_LEAST_BOXES = 16


@dataclass(frozen=True, slots=True)
class ExtendedLight:
    """Where frames show extended light.

    Attributes
    ----------
    masks : ndarray of bool, shape (n, by, bx)
        Boxes of each frame with extended light in them.
    levels : ndarray of float64, shape (n,)
        Sky level of each frame in boxes without it, relative to the first frame's.
    """

    masks: Bool
    levels: Float64


def box_medians(
    plane: PlaneSource, *flags: PlaneSource | None, box: int = BOX, thinned: bool = True
) -> Float64:
    """Return the medians of the boxes of a frame.

    Parameters
    ----------
    plane : ndarray or PlaneSource, shape (ny, nx)
        The frame.
    *flags : ndarray or PlaneSource of the same shape, or None
        Pixels that are not zero in one of them are left out.
    box : int
        Side of a box, pixels; an odd one counts as one less.
    thinned : bool
        Look at a quarter of the pixels, evenly spread: quicker, with twice the noise.

    Returns
    -------
    ndarray of float64, shape (ny // box, nx // box)
        Medians; NaN where most pixels are left out. What is left over at the upper edges belongs to no box.

    Raises
    ------
    AlgorithmError
        If the frame has no box.
    """
    step = 2 if thinned else 1
    side = box // 2 * 2
    by, bx = (size // side for size in plane.shape)
    if by * bx == 0:
        raise AlgorithmError("The frame is smaller than a box", found=plane.shape, expected=f">= {box}")
    cut = (slice(0, by * side, step), slice(0, bx * side, step))
    values = plane[cut].astype(np.float32)
    good = good_pixels(values, *(one[cut] for one in flags if one is not None))
    width = side // step

    def boxes(part: NDArray[Any]) -> NDArray[Any]:
        return part.reshape(by, width, bx, width).transpose(0, 2, 1, 3).reshape(by, bx, width * width)

    usable = boxes(good)
    medians = median_of_good(boxes(values), usable, axis=2).astype(np.float64)
    medians[usable.mean(axis=2) < _ENOUGH] = np.nan
    return medians


def extended_light(
    boxes: Sequence[Float64], partners: Sequence[Sequence[int]], shifts: Float64 | None = None
) -> ExtendedLight:
    """Find the extended light in frames that are each other's sky.

    Parameters
    ----------
    boxes : sequence of ndarray, shape (by, bx)
        Box medians of each frame; NaN where unknown.
    partners : sequence of sequence of int
        For each frame those that are its sky; none: nothing is found in it.
    shifts : ndarray of float64, shape (n, 2), optional
        Position (y, x) of one place on the sky in each frame, in boxes; NaN where it is not known. Where
        three or more frames show a place and are dithered by a box, they must agree on its light.

    Returns
    -------
    ExtendedLight

    Notes
    -----
    From each frame the median of its partners is subtracted, without the light found so far; after a
    plane has been subtracted (skies brighten unevenly), a wide area that stands out is light of the frame.
    This is repeated until nothing changes: a galaxy that has moved by less than its size between the frames
    first hides in its own ghost and then emerges.
    """
    values = np.stack([plane.ravel() for plane in boxes])
    shape = boxes[0].shape
    known = np.isfinite(values)
    levels = np.array(
        [np.median(row[good]) if good.any() else 1.0 for row, good in zip(values, known, strict=True)]
    )
    light = np.zeros(values.shape, bool)
    if values.shape[1] < _LEAST_BOXES or not (levels > 0).all():
        return ExtendedLight(
            light.reshape(-1, *shape), levels / levels[0] if levels[0] else np.ones(len(levels))
        )
    for _ in range(_ROUNDS):
        found, rest, steps = _compared(values, known, levels, light, partners, shape)
        levels *= steps
        if (found == light).all():
            break
        light = found
    if shifts is not None and light.any():
        agreed = _agreed(light.reshape(-1, *shape), rest, known.reshape(-1, *shape), shifts)
        if (agreed != light).any():
            light = agreed
            levels *= _compared(values, known, levels, light, partners, shape)[2]
    return ExtendedLight(light.reshape(-1, *shape), levels / levels[0])


def over_pixels(boxes: Bool, shape: tuple[int, ...]) -> Bool:
    """Return a mask of boxes as a mask of pixels; edges that belong to no box are like the nearest one."""
    rows = np.minimum(np.arange(shape[0]) // BOX, boxes.shape[0] - 1)
    columns = np.minimum(np.arange(shape[1]) // BOX, boxes.shape[1] - 1)
    # Whole rows of pixels are copied, which is quicker than finding a box for each pixel.
    return np.asarray(boxes[:, columns][rows])


def _compared(
    values: Float64,
    known: Bool,
    levels: Float64,
    light: Bool,
    partners: Sequence[Sequence[int]],
    shape: tuple[int, int],
) -> tuple[Bool, Float64, Float64]:
    """Compare each frame with its partners: light in it, what is left of it, and how its level changes."""
    scaled = np.where(known, values / levels[:, None], 0.0)
    found, left, steps = np.zeros_like(light), np.zeros_like(values), np.ones(len(levels))
    design = _plane_terms(shape)
    for k, others in enumerate(partners):
        if len(others) == 0:
            continue
        rest, good = _against(scaled, known, light, k, list(others))
        quiet = good & ~light[k]
        if quiet.sum() < _LEAST_BOXES:
            continue
        trend, centre, noise = _trend(rest, quiet, design)
        steps[k] += centre
        left[k] = np.where(good, rest - trend, 0.0)
        found[k] = _regions(left[k], good, noise, shape)
    return found, left.reshape(-1, *shape), steps


def _agreed(light: Bool, rest: Float64, known: Bool, shifts: Float64) -> Bool:
    """Keep the light that dithered frames show at the same place on the sky; shape (n, boxes)."""
    from scipy import ndimage

    kept = light.copy()
    for group in same_sky(shifts, light.shape[1:]):
        # Without dithers sky and detector are the same.
        if len(group) < LEAST_FRAMES or np.ptp(shifts[group], axis=0).max() < 1:
            continue
        grid = SkyGrid(light.shape[1:], shifts[group])
        # Without what the frames show at the same place of the detector, that cannot pass for light.
        apart = rest[group] - detector_mean(rest[group], known[group])
        aligned = grid.aligned(apart, known[group])
        region = light_regions(aligned, seed=_AGREED_SEED, reach=_AGREED_REACH, seeds=_SEEDS)
        shown = grid.back(region.astype(float)) > 0
        unseen = grid.back(np.isfinite(aligned.error).astype(float)) < 1
        for k, seen, blind in zip(group, shown, unseen, strict=True):
            # What too few frames show is kept where it continues what they agree on.
            parts, _ = ndimage.label(light[k] & (seen | blind), structure=np.ones((3, 3)))
            good = np.unique(parts[seen & light[k]])
            kept[k] = np.isin(parts, good[good > 0])
    return kept.reshape(len(kept), -1)


def _against(scaled: Float64, known: Bool, light: Bool, k: int, others: list[int]) -> tuple[Float64, Bool]:
    """Return what a frame shows beyond the median of its partners, and where that can be told."""
    use = known[others] & ~light[others]
    nothing = ~use.any(axis=0)
    use[:, nothing] = known[others][:, nothing]
    median = median_of_good(scaled[others], use)
    good = known[k] & np.isfinite(median)
    return np.where(good, scaled[k] - median, 0.0), good


def _plane_terms(shape: tuple[int, int]) -> Float64:
    """Return the terms of a plane, constant, x and y, at the boxes: shape (boxes, 3)."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    return np.column_stack([np.ones(x.size), x.ravel(), y.ravel()])


def _trend(rest: Float64, quiet: Bool, design: Float64) -> tuple[Float64, float, float]:
    """Plane through the quiet boxes, its value in the middle, and the noise of a box about it."""
    # Light only adds: the start is the fainter half.
    level = fast_median(rest, quiet)
    kept = quiet & (rest <= level)
    model, noise = np.full(rest.size, level), 0.0
    for turn in range(6):
        away = rest - model
        below = away[quiet & (away < 0)]
        if below.size == 0:
            break
        noise = -MAD_TO_SIGMA * fast_median(below)
        before, kept = kept, quiet & (np.abs(away) <= 2.5 * noise)
        # The same boxes give the same plane.
        if kept.sum() < _LEAST_BOXES // 2 or (turn and np.array_equal(kept, before)):
            break
        used = design[kept]
        # Three terms over a square: well conditioned, and a tenth of the time of a general solution.
        terms = np.linalg.solve(used.T @ used, used.T @ rest[kept])
        model = design @ terms
    return model, float(np.mean(model)), noise


def _regions(rest: Float64, good: Bool, noise: float, shape: tuple[int, int]) -> Bool:
    """Boxes of wide regions that stand out."""
    if not noise > 0:
        return np.zeros(rest.size, bool)
    from scipy import ndimage

    plane, weight = rest.reshape(shape), good.reshape(shape).astype(float)
    share = np.mean(nine(weight), axis=0)
    smooth = np.mean(nine(plane * weight), axis=0) / np.maximum(share, 1e-3)
    bright = (smooth > _REACH * noise) & (share > 0.2)
    region, _ = ndimage.label(bright)
    seeds = np.bincount(region.ravel(), weights=(plane > _SEED * noise).ravel())
    wide = bright & (seeds >= _SEEDS)[region]
    grown: Bool = np.logical_or.reduce(nine(wide))
    return grown.ravel()
