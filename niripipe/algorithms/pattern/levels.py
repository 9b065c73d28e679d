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

__all__ = ["levelled", "measure_step", "quadrant_shifts"]

# A step is removed only when it is this many times its own error.
_SIGNIFICANT = 4.0
# A change of the slope is no chance when it is this many times its own error.
_BENT = 2.5
# No profile makes a step whose change of the slope is smaller against it than this.
_SMALL = 0.5
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
    corners, quadrants : sequence of Corner, of Quadrant
        Lower left, lower right, upper left, upper right, as far as there are any.
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
    half = min(far, row, len(data) - row) // 2
    return _step(data, good, row, near, half, _quarters(data, good, row, half))


def _quarters(data: Float32, good: Bool, row: int, half: int) -> list[Float32]:
    """Return the column medians of two parts of `half` rows below a row, and of two above it."""
    if half < 1:
        return []
    return [
        _part(data, good, *rows)
        for rows in ((row - half, -half), (row, -half), (row, half), (row + half, half))
    ]


def _step(data: Float32, good: Bool, row: int, near: int, half: int, quarters: list[Float32]) -> Step | None:
    """Measure a step; see `measure_step`."""
    near = min(near, row, len(data) - row)
    if near < 1:
        return None
    slopes = np.zeros(8, np.float32)
    if half >= 2:
        below, low, high, above = quarters
        inner, outer = high - low, above - below
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


def _is_bent(quarters: list[Float32], step: Step) -> bool:
    """Whether the slope changes across a border by more than the step, and not by chance.

    In the wing of an exponential profile what this measures is at least twice the false step, whatever the
    scale length; where the profile has its peak near the border, about as much.
    """
    if not quarters:
        return False
    # Two parts on each side, the outer ones less the inner ones: a level and a slope cancel, and a step.
    below, low, high, above = quarters
    bend = (above - high) + (below - low)
    bend = bend[np.isfinite(bend)]
    if bend.size < 8:
        return True
    size = abs(float(np.median(bend)))
    return size > max(_SMALL * abs(step[0]), _BENT * _median_error(bend))


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


def quadrant_shifts(
    frame: Float32,
    good: Bool,
    corners: Sequence[Corner],
    movable: Sequence[bool],
    *,
    near: int,
    far: int,
    straight: bool = False,
) -> tuple[Float64, Float64]:
    """Measure what brings quadrants to the level of their neighbours.

    Parameters
    ----------
    frame, good, corners, near, far
        As in `levelled`.
    movable : sequence of bool
        Quadrants that are not movable are the reference; when all are, the mean of their shifts is 0.
    straight : bool
        Whether to give it up where the slope changes across one of the borders: light of a galaxy does so,
        and by more than the step for which it could be taken.

    Returns
    -------
    shifts, errors : ndarray of float64, shape (quadrants,)
        What to add to each, and its standard error; 0 where not movable.

    Notes
    -----
    The steps across the borders determine the shifts by weighted least squares.
    """
    unknown = np.flatnonzero(movable)
    rows: list[Float64] = []
    values: list[float] = []
    for low, high in _neighbours(corners):
        if not (movable[low] or movable[high]):
            continue
        first, second = corners[low], corners[high]
        both = slice(first.rows.start, second.rows.stop), slice(first.columns.start, second.columns.stop)
        if first.rows == second.rows:
            data, flags, at = frame[both].T, good[both].T, second.columns.start - first.columns.start
        else:
            data, flags, at = frame[both], good[both], second.rows.start - first.rows.start
        half = min(far, at, len(data) - at) // 2
        quarters = _quarters(data, flags, at, half)
        step = _step(data, flags, at, near, half, quarters)
        if step is None:
            continue
        if straight and _is_bent(quarters, step):
            return np.zeros(len(corners)), np.zeros(len(corners))
        size, error = step
        weight = 1 / max(error, _NO_ERROR)
        row = np.zeros(len(corners))
        row[high], row[low] = weight, -weight
        rows.append(row[unknown])
        values.append(-weight * size)
    shifts, errors = np.zeros((2, len(corners)))
    if rows:
        # The pseudo-inverse picks, among equally good solutions, the one with the smallest shifts.
        inverse = np.linalg.pinv(np.array(rows), rcond=1e-10)
        shifts[unknown] = inverse @ np.array(values)
        errors[unknown] = np.sqrt(np.sum(inverse**2, axis=1))
    return shifts, errors


def _level_quadrants(
    frame: Float32, good: Bool, corners: Sequence[Corner], movable: Sequence[bool], *, near: int, far: int
) -> Float64:
    """Bring quadrants to the level of their neighbours, in place, and return what was added to each.

    A shift is applied when it is at least 4 times its error.
    """
    shifts, errors = quadrant_shifts(frame, good, corners, movable, near=near, far=far)
    shifts = np.where(np.abs(shifts) > _SIGNIFICANT * errors, shifts, 0.0)
    for corner, shift in zip(corners, shifts, strict=True):
        if shift:
            frame[corner.rows, corner.columns] += np.float32(shift)
    return shifts


def _neighbours(corners: Sequence[Corner]) -> list[tuple[int, int]]:
    """Pairs of quadrants with a common border, the lower or left one first."""
    pairs = []
    for low, first in enumerate(corners):
        for high, second in enumerate(corners):
            above = first.columns == second.columns and first.rows.stop == second.rows.start
            beside = first.rows == second.rows and first.columns.stop == second.columns.start
            if above or beside:
                pairs.append((low, high))
    return pairs


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
