"""Offsets of rows, columns and quadrants by the readout, removed as far as that lowers the noise.

The offset of a row is the mean of some hundred pixels and known to no better than their noise, which is often
more than the offset itself. So each kind of offset is measured twice, on stripes of pixels that take turns:
what both agree on is pattern, what they differ by is noise. With S the mean square of the pattern and E
that of the noise of the mean of both, ``S / (S + E)`` of what was measured is subtracted, which lowers the
variance of a pixel by ``S**2 / (S + E)`` (Wiener), and nothing where S does not exceed its own error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from niripipe.algorithms.arrays import Bool, Float32, Float64, Integers
from niripipe.algorithms.extended import box_medians
from niripipe.algorithms.pattern.levels import quadrant_shifts
from niripipe.algorithms.pattern.quadrants import Corner, quadrants_of
from niripipe.algorithms.residual_sky import at_pixels
from niripipe.algorithms.robust import good_pixels, robust_sigma

__all__ = ["Offsets", "remove_offsets"]

# Offsets are those of rows against the light around them, seen in boxes of this side, pixels. What is wider
# is sky or light of objects.
_BOX = 32
# Pixels that differ from the light around them by this many deviations belong to a source or a hit, and boxes
# whose level departs from a slope through their neighbours by so many of its own do.
_CLIP = 3.0
_BENT = 3.5
# Width of the stripes that take turns, pixels: wider than a source, so that the two halves share none.
_STRIPE = 64
# Rows of which less is seen keep their offset.
_LEAST_SHARE = 0.25
# Readout repeats itself after so many rows and columns (Aladdin arrays have 8 outputs per quadrant).
_PERIOD = 8
# The pattern must exceed its own error so many times; rarely by noise, also with 8 lines.
_SIGNIFICANT = 4.0
# Rows on each side of a border between quadrants by which their levels are compared.
_NEAR = 64
# Two pairs of stripes.
_SMALLEST = 2 * _STRIPE
# The mean square of the levels must be so many times that of their errors: with 3 degrees of freedom noise
# alone gets there in 1 of 1400 frames.
_UNEVEN = 5.5


@dataclass(frozen=True, slots=True)
class Offsets:
    """What was found and removed.

    Attributes
    ----------
    before, after : float
        Rms of the offsets of rows, columns and quadrants that are certain, and what is expected to be left of
        it, in the unit of the data.
    noise : float
        Standard deviation of a pixel about the light around it.
    levels : tuple of float
        What was added to each quadrant.
    parts : tuple of str
        What was removed where.
    """

    before: float
    after: float
    noise: float
    levels: tuple[float, ...]
    parts: tuple[str, ...]


def remove_offsets(
    frame: Float32,
    mask: Integers | None = None,
    objmask: Integers | None = None,
    *,
    centre: tuple[int, int] | None = None,
) -> Offsets:
    """Remove offsets of quadrants, rows and columns from a frame, in place.

    Parameters
    ----------
    frame : ndarray of float32, shape (ny, nx)
        The frame, sky-subtracted; changed.
    mask, objmask : integer ndarray of the same shape, optional
        Data quality and object mask: pixels where either is not zero are not used to measure.
    centre : tuple of int, optional
        First row and column beyond the middle of the detector; the middle of the frame by default.

    Returns
    -------
    Offsets

    Notes
    -----
    Levels of quadrants are measured by the steps across their borders. Then follow, in each quadrant: the
    mean of every eighth row and column; offsets of rows in common with the quadrant beside, their own
    offsets, and offsets of columns. Wide changes are no offsets but sky, so that a galaxy which fills the
    field keeps its light; sources are clipped. Frames of less than 128 pixels on a side are left alone.
    """
    ny, nx = frame.shape
    if min(ny, nx) < _SMALLEST:
        return Offsets(0.0, 0.0, 0.0, (), ())
    good = good_pixels(frame, mask, objmask)
    corners = quadrants_of(frame.shape, centre or (ny // 2, nx // 2))
    boxes, known = _light(frame, good)
    # Seen along one axis a step between quadrants is as bent as a source, along both only the source is.
    clear = good & ~_spread(np.logical_and(*_bends(boxes)), frame.shape)
    levels, power, left = _levels(frame, clear, corners)
    if levels.any():
        boxes, known = _light(frame, good)
    rest, weight, noise = _flattened(frame, good, boxes, known)
    sums = {corner.name: _Stripes.of(rest, weight, corner) for corner in corners}
    parts: list[str] = []
    for name, members, axis, fold in _trials(corners):
        found = _measured([sums[corner.name] for corner in members], noise, axis, fold)
        if found is None:
            continue
        offsets, pattern, error = found
        for corner in members:
            part = corner.rows, corner.columns
            frame[part] -= offsets
            rest[part] -= offsets * weight[part]
            sums[corner.name] = _Stripes.of(rest, weight, corner)
        share = sum(sums[corner.name].pixels for corner in members) / frame.size
        power += share * pattern
        left += share * pattern * error / (pattern + error)
        parts.append(name)
    if parts and not levels.any():
        # Offsets of rows can hide a step.
        levels, more, rest_of_it = _levels(frame, clear, corners)
        power, left = power + more, left + rest_of_it
    if levels.any():
        parts.append("levels of quadrants")
    return Offsets(power**0.5, left**0.5, noise, tuple(map(float, levels)), tuple(parts))


@dataclass(frozen=True, slots=True)
class _Stripes:
    """Sums over the stripes of a quadrant, which is all that the offsets are made of.

    The first item of each pair is for offsets of columns, the second for those of rows: of the pixels, less
    the light around them, and of their weights; for the stripes that are even and those that are odd,
    shape (2, columns) and (2, rows).
    """

    values: tuple[Float64, Float64]
    weights: tuple[Float64, Float64]
    pixels: int

    @classmethod
    def of(cls, rest: Float32, weight: Float32, corner: Corner) -> _Stripes:
        """Add up a quadrant."""
        part, known = (plane[corner.rows, corner.columns] for plane in (rest, weight))
        return cls(
            (_in_turns(part, 0), _in_turns(part, 1)), (_in_turns(known, 0), _in_turns(known, 1)), part.size
        )


def _levels(frame: Float32, good: Bool, corners: tuple[Corner, ...]) -> tuple[Float64, float, float]:
    """Level the quadrants in place; return what was added, its mean square, and that of what is left."""
    shifts, errors = quadrant_shifts(
        frame, good, corners, [True] * len(corners), near=_NEAR, far=_NEAR, straight=True
    )
    both, error = float(np.mean(shifts**2)), float(np.mean(errors**2))
    if not both > _UNEVEN * error:  # also where nothing was measured
        return np.zeros(len(corners)), 0.0, 0.0
    pattern = both - error
    shifts *= pattern / both
    for corner, shift in zip(corners, shifts, strict=True):
        frame[corner.rows, corner.columns] += np.float32(shift)
    return shifts, pattern, pattern * error / both


def _trials(corners: tuple[Corner, ...]) -> list[tuple[str, list[Corner], int, int]]:
    """Name, quadrants that share the offsets, axis of their mean, and period (0: none)."""
    trials: list[tuple[str, list[Corner], int, int]] = []
    for corner in corners:
        trials.append((f"every eighth row, {corner.name}", [corner], 1, _PERIOD))
        trials.append((f"every eighth column, {corner.name}", [corner], 0, _PERIOD))
    for top in dict.fromkeys(corner.top for corner in corners):
        half = "upper" if top else "lower"
        trials.append((f"rows, {half} half", [corner for corner in corners if corner.top == top], 1, 0))
    for corner in corners:
        trials.append((f"rows, {corner.name}", [corner], 1, 0))
        trials.append((f"columns, {corner.name}", [corner], 0, 0))
    return trials


def _flattened(frame: Float32, good: Bool, boxes: Float64, known: Bool) -> tuple[Float32, Float32, float]:
    """Return the frame less the light around each pixel, the weight of pixels (1 or 0), and their noise.

    Pixels without weight are 0 in the frame.
    """
    rest = at_pixels(boxes, _BOX, frame.shape)
    np.subtract(frame, rest, out=rest)
    usable = good & ~_spread(np.logical_or(*_bends(boxes)) | ~known, frame.shape)
    noise = robust_sigma(rest[::3, ::5][usable[::3, ::5]])
    usable &= np.abs(rest) < np.float32(_CLIP * noise)
    rest[~usable] = 0
    return rest, usable.astype(np.float32), noise


def _light(frame: Float32, good: Bool) -> tuple[Float64, Bool]:
    """Return medians of boxes, and where they are known; elsewhere the median of all is put."""
    boxes = box_medians(frame, ~good, box=_BOX)
    known = np.isfinite(boxes)
    return np.where(known, boxes, np.median(boxes[known]) if known.any() else 0.0), known


def _bends(boxes: Float64) -> list[Bool]:
    """Boxes whose level does not continue that of their neighbours, along columns and along rows."""
    padded = np.pad(boxes, 1, mode="reflect", reflect_type="odd")
    along_y = boxes - (padded[:-2, 1:-1] + padded[2:, 1:-1]) / 2
    along_x = boxes - (padded[1:-1, :-2] + padded[1:-1, 2:]) / 2
    return [np.abs(bend) > _BENT * robust_sigma(bend) for bend in (along_y, along_x)]


def _spread(boxes: Bool, shape: tuple[int, ...]) -> Bool:
    """Return a mask of boxes, grown by one, as a mask of pixels."""
    padded = np.pad(boxes, 1)
    rows, columns = boxes.shape
    grown = np.logical_or.reduce(
        [padded[dy : dy + rows, dx : dx + columns] for dy in range(3) for dx in range(3)]
    )
    at = [
        np.minimum(np.arange(size) // _BOX, number - 1)
        for size, number in zip(shape, grown.shape, strict=True)
    ]
    return np.asarray(grown[:, at[1]][at[0]])


def _measured(
    parts: list[_Stripes], noise: float, axis: int, fold: int
) -> tuple[Float32, float, float] | None:
    """Return what to subtract, the mean square of the pattern and that of its noise; None for no pattern."""
    sums = np.sum([part.values[axis] for part in parts], axis=0)
    counts = np.sum([part.weights[axis] for part in parts], axis=0)
    lines = sums.shape[1]
    if fold:
        sums, counts = _folded(sums, fold), _folded(counts, fold)
    least = _LEAST_SHARE / 2 * sum(part.pixels for part in parts) / sums.shape[1]
    seen = (counts > least).all(axis=0)
    if seen.sum() < _PERIOD:
        return None
    means = np.where(seen, sums / np.maximum(counts, 1), 0.0)
    means -= np.where(seen, means.sum(axis=1, keepdims=True) / seen.sum(), 0.0)
    if not fold:
        means = _narrow(means, seen)
    number = seen.sum() - 1
    pattern = float(np.sum(means[0] * means[1]) / number)
    # By the noise of a pixel, since eight lines are too few to show their own.
    error = noise**2 * float(np.mean(1 / counts.sum(axis=0)[seen]))
    error = max(error, float(np.sum((means[0] - means[1]) ** 2) / 4 / number))
    if not pattern > _SIGNIFICANT * 2 * error / number**0.5:
        return None
    offsets = pattern / (pattern + error) * means.mean(axis=0)
    if fold:
        offsets = np.resize(offsets, lines)
    shaped = offsets[:, None] if axis else offsets[None, :]
    return shaped.astype(np.float32), pattern, error


def _in_turns(part: Float32, axis: int) -> Float64:
    """Add up the stripes across an axis that are even, and those that are odd."""
    starts = range(0, part.shape[axis], _STRIPE)
    across = [np.s_[:, k : k + _STRIPE] if axis else np.s_[k : k + _STRIPE] for k in starts]
    stripes = np.array([part[stripe].sum(axis=axis) for stripe in across], float)
    return np.stack([stripes[::2].sum(axis=0), stripes[1::2].sum(axis=0)])


def _folded(lines: Float64, period: int) -> Float64:
    """Add up every so many-th line."""
    missing = -lines.shape[1] % period
    return np.asarray(np.pad(lines, ((0, 0), (0, missing))).reshape(2, -1, period).sum(axis=1))


def _narrow(means: Float64, seen: Bool) -> Float64:
    """Subtract from each line the mean of those within half a box, which is light and no offset."""
    from scipy.ndimage import uniform_filter1d

    size = _BOX // 2 + 1
    share = uniform_filter1d(seen.astype(float), size, mode="nearest")
    wide = uniform_filter1d(means, size, axis=1, mode="nearest") / np.maximum(share, 1 / size)
    return np.where(seen, means - wide, 0.0)
