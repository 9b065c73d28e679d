"""Level what the readout left at different levels: zones of a quadrant, and quadrants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.gaussian import MEDIAN_ERROR, robust_sigma
from niripipe.algorithms.pattern.quadrants import (
    Cleaned,
    Corner,
    Finding,
    Quadrant,
    masked_median,
)
from niripipe.algorithms.pattern.zones import Range, complement

__all__ = ["Step", "level_and_report", "level_quadrants", "level_zones", "measure_step"]

Float32 = NDArray[np.float32]
Flags = NDArray[np.bool_]

# A step is removed only when it is this many times its own error.
_SIGNIFICANT = 4.0
# Error assumed for a step without scatter, so that noise-free data get a finite weight.
_NO_ERROR = 1e-6


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the level and its standard error, in the unit of the data."""

    size: float
    error: float


def level_and_report(
    frame: Float32,
    good: Flags,
    corners: tuple[Corner, ...],
    findings: list[Finding],
    *,
    inside: bool,
    between: bool,
    near: int,
    far: int,
) -> Cleaned:
    """Level what was cleaned, in place, and put the records together.

    `inside` levels zones of a quadrant, `between` quadrants; `near` and `far` are those of `level_quadrants`,
    `far` also the reach of `level_zones`.
    """
    shifts: tuple[float, ...] = (0.0,) * len(corners)
    inner = [(0.0,) * len(finding.zones) for finding in findings]
    if inside:
        inner = [
            level_zones(frame, good, corner, finding.zones, reach=far)
            for corner, finding in zip(corners, findings, strict=True)
        ]
    movable = tuple(bool(finding.zones) for finding in findings)
    if between and any(movable):
        shifts = level_quadrants(frame, good, corners, movable, near=near, far=far)
    quadrants = []
    for corner, finding, zone_shifts, shift in zip(corners, findings, inner, shifts, strict=True):
        ranges = [corner.frame_rows(*zone) for zone in finding.zones]
        order = sorted(range(len(ranges)), key=ranges.__getitem__)
        quadrants.append(
            Quadrant(
                corner.name,
                bool(ranges),
                finding.strength,
                tuple(ranges[i] for i in order),
                finding.noise_before,
                finding.noise_after,
                tuple(zone_shifts[i] for i in order),
                shift,
                finding.reason,
            )
        )
    return Cleaned(frame, tuple(quadrants))


def measure_step(data: Float32, good: Flags, row: int, near: int, far: int) -> Step | None:
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
    slopes: Float32 = np.zeros(1, np.float32)
    if half < 2:
        steps = _part(data, good, row, near) - _part(data, good, row, -near)
    else:
        inner = _part(data, good, row, half) - _part(data, good, row, -half)
        outer = _part(data, good, row + half, half) - _part(data, good, row - half, -half)
        # The centres of the halves of a side are `half` rows apart; both sides together give twice the slope.
        slopes = np.divide(outer - inner, 2 * half, dtype=np.float32)
        slopes = slopes[np.isfinite(slopes)]
        if near >= 2 * half:
            near = 2 * half
            steps = np.float32(0.5) * (inner + outer)
        else:
            steps = _part(data, good, row, near) - _part(data, good, row, -near)
    steps = steps[np.isfinite(steps)]
    if min(steps.size, slopes.size if half >= 2 else 8) < 8:
        return None
    size = float(np.median(steps)) - near * float(np.median(slopes))
    return Step(size, math.hypot(_median_error(steps), near * _median_error(slopes)))


def level_zones(
    frame: Float32, good: Flags, corner: Corner, zones: tuple[Range, ...], *, reach: int
) -> tuple[float, ...]:
    """Bring the zones of a quadrant to the level of the rows between them, in place.

    Parameters
    ----------
    frame : ndarray of float32
        The frame, changed in the rows of the zones.
    good : ndarray of bool
        Pixels to measure on.
    corner : Corner
        The quadrant.
    zones : tuple of (int, int)
        Rows in readout order that carried the pattern.
    reach : int
        Rows on each side of an edge to compare at most.

    Returns
    -------
    tuple of float
        What was added to each zone; 0 where there is no significant step, or no row without pattern next to
        it.
    """
    view, flags = corner.view(frame), corner.view(good)
    quiet = complement(zones, len(view))
    shifts = []
    for start, stop in zones:
        steps: list[Step] = []
        for first, last in quiet:
            if last == start:
                steps += _steps(view[first:stop], flags[first:stop], last - first, reach, 1.0)
            elif first == stop:
                steps += _steps(view[start:last], flags[start:last], stop - start, reach, -1.0)
        shift = _mean_shift(steps)
        if shift:
            view[start:stop] -= np.float32(shift)
        shifts.append(-shift)
    return tuple(shifts)


def level_quadrants(
    frame: Float32,
    good: Flags,
    corners: tuple[Corner, ...],
    movable: tuple[bool, ...],
    *,
    near: int,
    far: int,
) -> tuple[float, ...]:
    """Bring quadrants to the level of their neighbours, in place.

    Parameters
    ----------
    frame : ndarray of float32
        The frame, changed in the quadrants that may move.
    good : ndarray of bool
        Pixels to measure on.
    corners : tuple of 4 Corner
        Lower left, lower right, upper left, upper right.
    movable : tuple of 4 bool
        Quadrants that may be shifted; the others are the reference. When all may, the mean of their shifts is
        0.
    near, far : int
        Rows or columns on each side of a border, see `measure_step`.

    Returns
    -------
    tuple of 4 float
        What was added to each quadrant.

    Notes
    -----
    The four steps across the borders determine the shifts by weighted least squares. A shift is applied when
    it is at least 4 times its error.
    """
    unknown = [number for number, can in enumerate(movable) if can]
    rows: list[NDArray[np.float64]] = []
    values: list[float] = []
    for low, high, vertical in ((0, 2, True), (1, 3, True), (0, 1, False), (2, 3, False)):
        if not (movable[low] or movable[high]):
            continue
        step = _border_step(frame, good, corners[low], corners[high], vertical, near, far)
        if step is None:
            continue
        weight = 1 / max(step.error, _NO_ERROR)
        row = np.zeros(4)
        row[high], row[low] = weight, -weight
        rows.append(row[unknown])
        values.append(-weight * step.size)
    shifts = np.zeros(4)
    if rows:
        # The pseudo-inverse picks, among equally good solutions, the one with the smallest shifts.
        inverse = np.linalg.pinv(np.array(rows), rcond=1e-10)
        solution = inverse @ np.array(values)
        error = np.sqrt(np.sum(inverse**2, axis=1))
        shifts[unknown] = np.where(np.abs(solution) > _SIGNIFICANT * error, solution, 0.0)
    for corner, shift in zip(corners, shifts, strict=True):
        if shift:
            frame[corner.rows, corner.columns] += np.float32(shift)
    return tuple(float(shift) for shift in shifts)


def _median_error(values: Float32) -> float:
    return MEDIAN_ERROR * robust_sigma(values) / float(np.sqrt(values.size))


def _part(data: Float32, good: Flags, row: int, count: int) -> Float32:
    """Column medians of `count` rows from `row` upwards, or of ``-count`` rows below it."""
    rows = slice(row, row + count) if count > 0 else slice(row + count, row)
    return masked_median(data[rows], good[rows])


def _steps(data: Float32, good: Flags, row: int, reach: int, sign: float) -> list[Step]:
    step = measure_step(data, good, row, reach, reach)
    return [] if step is None else [Step(sign * step.size, step.error)]


def _mean_shift(steps: list[Step]) -> float:
    """Weighted mean of the steps into a zone, or 0 if it is not significant."""
    if not steps:
        return 0.0
    weights = [1 / max(step.error, _NO_ERROR) ** 2 for step in steps]
    mean = sum(w * step.size for w, step in zip(weights, steps, strict=True)) / sum(weights)
    error = sum(weights) ** -0.5
    # Two edges of a zone on a real slope disagree by more than their errors; their scatter counts then.
    if len(steps) > 1:
        error = max(error, 0.5 * float(np.ptp([step.size for step in steps])))
    return float(mean) if abs(mean) > _SIGNIFICANT * error else 0.0


def _border_step(
    frame: Float32, good: Flags, low: Corner, high: Corner, vertical: bool, near: int, far: int
) -> Step | None:
    across: Any = (
        (slice(low.rows.start, high.rows.stop), low.columns)
        if vertical
        else (
            low.rows,
            slice(low.columns.start, high.columns.stop),
        )
    )
    part, flags = frame[across], good[across]
    if not vertical:
        part, flags = part.T, flags.T
    border = high.rows.start - low.rows.start if vertical else high.columns.start - low.columns.start
    return measure_step(part, flags, border, near, far)
