"""Level zones of a quadrant, and quadrants, that the readout left at different levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from niripipe.algorithms.arrays import Bool, Float32, Float64
from niripipe.algorithms.pattern.quadrants import Cleaned, Corner, Quadrant
from niripipe.algorithms.pattern.zones import Range
from niripipe.algorithms.robust import MEDIAN_ERROR, median_of_good, robust_sigma

__all__ = ["levelled", "measure_step"]

# A step is removed only when it is this many times its own error.
_SIGNIFICANT = 4.0
# Error assumed for a step without scatter, so that noise-free data get a finite weight.
_NO_ERROR = 1e-6


Step = tuple[float, float]
"""A step of the level and its standard error, in the unit of the data."""


def levelled(
    frame: Float32,
    good: Bool,
    corners: Sequence[Corner],
    quadrants: Sequence[Quadrant],
    *,
    inside: bool,
    between: bool,
    near: int,
    far: int,
) -> Cleaned:
    """Level what was cleaned, in place.

    Parameters
    ----------
    frame : ndarray of float32
        The frame, changed in the quadrants that were cleaned.
    good : ndarray of bool
        Pixels to measure on.
    corners, quadrants : sequence of 4 Corner, of 4 Quadrant
        Lower left, lower right, upper left, upper right.
    inside, between : bool
        Whether to level the cleaned rows of a quadrant with its other rows, and quadrants with each other.
    near : int
        Rows or columns on each side of a border between quadrants that are compared.
    far : int
        Rows or columns on each side from which the gradient across the border is measured; also the rows
        compared on each side of an edge inside a quadrant.

    Returns
    -------
    Cleaned
        The frame, and the records with the shifts.
    """
    records = [replace(record, row_shifts=(0.0,) * len(record.rows)) for record in quadrants]
    if inside:
        records = [
            replace(record, row_shifts=_level_rows(frame, good, corner, record.rows, reach=far))
            for corner, record in zip(corners, records, strict=True)
        ]
    if between:
        movable = [record.cleaned for record in records]
        shifts = _level_quadrants(frame, good, corners, movable, near=near, far=far).tolist()
        records = [replace(record, shift=shift) for record, shift in zip(records, shifts, strict=True)]
    return Cleaned(frame, tuple(records))


def measure_step(data: Float32, good: Bool, row: int, near: int, far: int) -> Step | None:
    """Measure by how much the level rises from below a row to at and above it.

    Parameters
    ----------
    data : ndarray of float32, shape (n, m)
        Rows along the first axis.
    good : ndarray of bool
        Pixels to use.
    row : int
        First row of the upper part.
    near : int
        Rows on each side that are compared.
    far : int
        Rows on each side from which the gradient across the step is measured, so that a slope is not taken
        for a step; below 4 the slope is taken to be 0.

    Returns
    -------
    Step or None
        None when fewer than 8 columns have good pixels on both sides.

    Notes
    -----
    In each column the medians above and below are compared, less what the slope contributes; the step is the
    median over the columns, its error that of a median from the scatter of the columns. A source, which
    covers few columns, does not matter.
    """
    near = min(near, row, len(data) - row)
    half = min(far, row, len(data) - row) // 2
    if near < 1:
        return None
    slopes = np.zeros(8, np.float32)
    if half >= 2:
        inner = _part(data, good, row, half) - _part(data, good, row, -half)
        outer = _part(data, good, row + half, half) - _part(data, good, row - half, -half)
        # The centres of the halves of a side are `half` rows apart; both sides together give twice the slope.
        slopes = np.divide(outer - inner, 2 * half, dtype=np.float32)
        slopes = slopes[np.isfinite(slopes)]
    if half >= 2 and near >= 2 * half:
        near = 2 * half
        steps = np.float32(0.5) * (inner + outer)
    else:
        steps = _part(data, good, row, near) - _part(data, good, row, -near)
    steps = steps[np.isfinite(steps)]
    if min(steps.size, slopes.size) < 8:
        return None
    size = float(np.median(steps)) - near * float(np.median(slopes))
    return size, math.hypot(_median_error(steps), near * _median_error(slopes))


def _level_rows(
    frame: Float32, good: Bool, corner: Corner, ranges: tuple[Range, ...], *, reach: int
) -> tuple[float, ...]:
    """Bring ranges of rows of a quadrant to the level of the rows between them, in place.

    Returns what was added to each range; 0 where there is no significant step, or no row without pattern next
    to it.
    """
    data, flags = frame[:, corner.columns], good[:, corner.columns]
    starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
    shifts = []
    for before, start, stop, after in zip(
        [corner.rows.start, *stops], starts, stops, [*starts[1:], corner.rows.stop], strict=False
    ):
        below = measure_step(data[before:stop], flags[before:stop], start - before, reach, reach)
        above = measure_step(data[start:after], flags[start:after], stop - start, reach, reach)
        steps = [below] if below else []
        if above:
            steps.append((-above[0], above[1]))
        shift = _mean_step(steps)
        if shift:
            data[start:stop] -= np.float32(shift)
        shifts.append(-shift)
    return tuple(shifts)


def _level_quadrants(
    frame: Float32, good: Bool, corners: Sequence[Corner], movable: Sequence[bool], *, near: int, far: int
) -> Float64:
    """Bring quadrants to the level of their neighbours, in place, and return what was added to each.

    Quadrants that are not movable are the reference; when all are, the mean of their shifts is 0. The four
    steps across the borders determine the shifts by weighted least squares. A shift is applied when it is at
    least 4 times its error.
    """
    unknown = np.flatnonzero(movable)
    rows: list[Float64] = []
    values: list[float] = []
    for low, high in ((0, 2), (1, 3), (0, 1), (2, 3)):
        if not (movable[low] or movable[high]):
            continue
        first, second = corners[low], corners[high]
        both = slice(first.rows.start, second.rows.stop), slice(first.columns.start, second.columns.stop)
        if first.rows == second.rows:
            step = measure_step(frame[both].T, good[both].T, second.columns.start, near, far)
        else:
            step = measure_step(frame[both], good[both], second.rows.start, near, far)
        if step is None:
            continue
        size, error = step
        weight = 1 / max(error, _NO_ERROR)
        row = np.zeros(4)
        row[high], row[low] = weight, -weight
        rows.append(row[unknown])
        values.append(-weight * size)
    shifts = np.zeros(4)
    if rows:
        # The pseudo-inverse picks, among equally good solutions, the one with the smallest shifts.
        inverse = np.linalg.pinv(np.array(rows), rcond=1e-10)
        solution = inverse @ np.array(values)
        errors = np.sqrt(np.sum(inverse**2, axis=1))
        shifts[unknown] = np.where(np.abs(solution) > _SIGNIFICANT * errors, solution, 0.0)
    for corner, shift in zip(corners, shifts, strict=True):
        if shift:
            frame[corner.rows, corner.columns] += np.float32(shift)
    return shifts


def _median_error(values: Float32) -> float:
    return MEDIAN_ERROR * robust_sigma(values) / float(np.sqrt(values.size))


def _part(data: Float32, good: Bool, row: int, count: int) -> Float32:
    """Column medians of `count` rows from `row` upwards, or of ``-count`` rows below it."""
    rows = slice(row, row + count) if count > 0 else slice(row + count, row)
    return median_of_good(data[rows], good[rows])


def _mean_step(steps: list[Step]) -> float:
    """Weighted mean of the steps into a zone, or 0 if it is not significant."""
    if not steps:
        return 0.0
    sizes, errors = np.array(steps).T
    weights = 1 / np.maximum(errors, _NO_ERROR) ** 2
    mean = float(np.sum(weights * sizes) / np.sum(weights))
    # Two edges of a zone on a real slope disagree by more than their errors; their scatter counts then.
    error = max(np.sum(weights) ** -0.5, 0.5 * np.ptp(sizes))
    return mean if abs(mean) > _SIGNIFICANT * error else 0.0
