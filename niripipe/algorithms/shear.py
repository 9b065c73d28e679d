"""Moving each row of a frame along x, then each column along y."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.affine import WHOLE
from niripipe.algorithms.arrays import Float32, Float64, Indices
from niripipe.algorithms.kernels import Power, kernel_weights, powered
from niripipe.algorithms.parallel import plane_rows, row_blocks

__all__ = ["Shifts", "shear", "split"]


class Shifts(NamedTuple):
    """Shifts of parallel lines along themselves, as whole pixels and a fraction in [0, 1)."""

    whole: Indices
    fraction: Float64


def split(shift: NDArray[Any]) -> Shifts:
    """Split shifts into whole pixels and fractions; what is within 1e-6 of a whole pixel has no fraction."""
    whole = np.floor(shift + WHOLE)
    fraction = np.maximum(shift - whole, 0.0)
    return Shifts(whole.astype(np.intp), np.where(fraction < WHOLE, 0.0, fraction))


def shear(
    plane: Float32, along_x: Shifts, along_y: Shifts, shape: tuple[int, int], *, taps: int, power: Power
) -> Float32:
    """Interpolate a plane by two passes of one-dimensional kernels.

    Parameters
    ----------
    plane : ndarray of float32, shape (ny, nx)
        The input; all values are finite.
    along_x : Shifts
        For each row of the input.
    along_y : Shifts
        For each column of the output.
    shape : tuple of int
        Shape of the output.
    taps : {2, 4, 6}
        Number of samples of the polynomial.
    power : {"signed", "squared", "absolute"}
        What is done to the weights.

    Returns
    -------
    ndarray of float32
        Beyond the ends of a line, its outermost sample is repeated.
    """
    # Blocks of rows stay in the cache of the processor.
    middle = np.empty((plane.shape[0], shape[1]), np.float32)
    for rows in row_blocks(len(plane), plane_rows(plane.shape[1])):
        for run in _runs(along_x, rows):
            shifts = Shifts(along_x.whole[run], along_x.fraction[run])
            _interpolate(plane[run], middle[run], shifts, 0, taps, power)
    out = np.empty(shape, np.float32)
    for rows in row_blocks(shape[0], plane_rows(shape[1])):
        for run in _runs(along_y, slice(0, shape[1])):
            shifts = Shifts(along_y.whole[run], along_y.fraction[run])
            _interpolate(middle.T[run], out[rows].T[run], shifts, rows.start, taps, power)
    return out


def _runs(shifts: Shifts, lines: slice) -> Iterator[slice]:
    """Yield the runs of neighbouring lines that move by the same number of whole pixels."""
    steps = np.flatnonzero(np.diff(shifts.whole[lines])) + 1 + lines.start
    for start, stop in itertools.pairwise([lines.start, *steps.tolist(), lines.stop]):
        yield slice(start, stop)


def _interpolate(
    source: Float32, target: Float32, shifts: Shifts, first: int, taps: int, power: Power
) -> None:
    """Interpolate lines that move by the same number of whole pixels, along the last axis.

    Point k of a line of `target` takes the value at sample ``first + k + shift`` of `source`.
    """
    samples, points = source.shape[1], target.shape[1]
    left = first + int(shifts.whole[0])  # of point 0
    fraction = shifts.fraction
    if (fraction == fraction[0]).all():
        fraction = fraction[:1]
    orders = [1] if not fraction.any() else [order for order in (6, 4, 2) if order <= taps]
    done: tuple[int, int] | None = None
    for order in orders:
        before = max(order // 2 - 1, 0)
        start = max(before - left, 0)
        stop = min(samples - order // 2 - left, points)
        if stop <= start:
            continue
        # Lower orders fit nearer to the ends, on both sides of what is done.
        parts = [(start, stop)] if done is None else [(start, done[0]), (done[1], stop)]
        weights = powered(kernel_weights(fraction, order), power)[:, :, None]
        for begin, end in parts:
            _weighted_sum(source[:, begin + left - before :], target[:, begin:end], weights)
        done = start, stop
    end = min(max(-left, 0), points)
    first_done, last_done = (end, end) if done is None else done
    target[:, :first_done] = source[:, :1]
    target[:, last_done:] = source[:, -1:]


def _weighted_sum(source: Float32, target: Float32, weights: Float32) -> None:
    """Write the sums of neighbouring samples, multiplied by ``(taps, lines, 1)`` weights."""
    points = target.shape[1]
    np.multiply(source[:, :points], weights[0], out=target)
    product = np.empty_like(target)
    for tap in range(1, len(weights)):
        np.multiply(source[:, tap : tap + points], weights[tap], out=product)
        target += product
