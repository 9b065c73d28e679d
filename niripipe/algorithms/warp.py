"""Interpolation at positions that bend: each row along x, then each column along y.

A frame that is shifted, hardly turned and distorted is interpolated with one-dimensional kernels in two
passes, as `niripipe.algorithms.shear` does where whole rows and columns move alike (Catmull & Smith 1980,
SIGGRAPH 14, 279). Every output pixel is one weighted sum of input pixels: there is one interpolation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.affine import Transform
from niripipe.algorithms.arrays import Float32, Float64
from niripipe.algorithms.kernels import Power, kernel_weights, powered, tap_weights
from niripipe.algorithms.parallel import plane_rows, row_blocks
from niripipe.errors import AlgorithmError

__all__ = ["Bend", "Pass", "warp"]

# Distance of the points at which a mapping is evaluated, pixels. Between them a cubic spline is good to 1e-3
# pixel, also in the centre of r**2, where it bends most.
_LATTICE = 16
# Weights are taken from a table with so many steps a pixel: positions are off by 1/2048 pixel at most.
_STEPS = 1024
# Iterations for the position along y that belongs to a row of the input.
_ITERATIONS = 12
# Two passes are used where neither axis turns by more than this anywhere; they lose nothing up to there.
_TURNED = 0.1


class Pass(NamedTuple):
    """Where the points of lines are taken from: the sample at the left, and steps of 1/1024 pixel beyond it.

    Both are int arrays of shape (lines, points).
    """

    left: NDArray[np.int32]
    step: NDArray[np.int16]


class Bend:
    """A smooth mapping of output pixels to input positions, known on a lattice.

    Parameters
    ----------
    to_input : callable
        Takes arrays y and x of output pixels, returns y and x in the input.
    shape : tuple of int
        Of the output.
    source : tuple of int
        Of the input.

    Raises
    ------
    AlgorithmError
        The mapping is not finite somewhere on the output.
    """

    def __init__(self, to_input: Transform, shape: tuple[int, int], source: tuple[int, int]) -> None:
        self.shape, self.source = shape, source
        self._axes = [_axis(0, n - 1) for n in shape]
        y, x = (np.asarray(p, float) for p in to_input(*np.meshgrid(*self._axes, indexing="ij")))
        if not (np.isfinite(y).all() and np.isfinite(x).all()):
            raise AlgorithmError("The mapping has no finite value on the output", found=shape)
        self._y, self._x = _spline(self._axes, y), _spline(self._axes, x)
        self._to_input = to_input

    def positions(self, rows: slice) -> tuple[Float64, Float64]:
        """Return y and x in the input of the output pixels in some rows."""
        row, column = np.arange(rows.start, rows.stop), np.arange(self.shape[1])
        return self._y(row, column), self._x(row, column)

    def is_upright(self) -> bool:
        """Tell whether rows stay rows and columns columns, nearly, so that two passes will do."""
        turned = [self._y(*self._axes, dy=1), self._x(*self._axes, dx=1)]
        straight = [self._y(*self._axes, dx=1) - 1, self._x(*self._axes, dy=1) - 1]
        return all(float(np.abs(part).max()) < _TURNED for part in turned + straight)

    def along_x(self) -> Pass:
        """Return where the rows of the input, at the columns of the output, are taken from along x."""
        # Rows of the input that the output reaches; other ones have no part in it.
        ny, nx = self.source
        axes = [_axis(0, ny - 1), self._axes[1]]
        y, column = np.meshgrid(*axes, indexing="ij")
        row = y - (self._to_input(np.zeros_like(column), column)[0])
        for _ in range(_ITERATIONS):
            row = row - (self._to_input(row, column)[0] - y)
        x = np.asarray(self._to_input(row, column)[1], float)
        grid = _spline(axes, np.where(np.isfinite(x), x, -1.0))
        return _split(
            lambda rows: grid(np.arange(rows.start, rows.stop), np.arange(self.shape[1])),
            ny,
            nx,
            self.shape[1],
        )

    def along_y(self) -> Pass:
        """Return where the columns of the output are taken from along y; an entry for each output pixel."""
        return _split(lambda rows: self.positions(rows)[0], self.shape[0], self.source[0], self.shape[1])


def warp(plane: Float32, along_x: Pass, along_y: Pass, *, taps: int, power: Power) -> Float32:
    """Interpolate a plane in two passes.

    Parameters
    ----------
    plane : ndarray of float32, shape (ny, nx)
        The input; all values are finite.
    along_x : Pass
        Of shape (ny, mx): x for each row of the input and each column of the output.
    along_y : Pass
        Of shape (my, mx): y for each output pixel.
    taps : {2, 4, 6}
        Number of samples of the polynomial; nearer to an end, the next lower one that fits.
    power : {"signed", "squared", "absolute"}
        What is done to the weights.

    Returns
    -------
    ndarray of float32, shape (my, mx)
    """
    table = powered(kernel_weights(np.arange(_STEPS + 1) / _STEPS, taps), power)
    (ny, nx), mx = plane.shape, along_y.left.shape[1]
    middle = np.empty((ny, mx), np.float32)
    flat = np.ascontiguousarray(plane).reshape(-1)
    for rows in row_blocks(ny, plane_rows(mx)):
        start = (np.arange(rows.start, rows.stop, dtype=np.int32) * nx)[:, None]
        middle[rows] = _summed(flat, start, 1, along_x.left[rows], along_x.step[rows], nx, table, power)
    out = np.empty(along_y.left.shape, np.float32)
    flat, column = middle.reshape(-1), np.arange(mx, dtype=np.int32)[None, :]
    for rows in row_blocks(len(out), plane_rows(mx)):
        out[rows] = _summed(flat, column, mx, along_y.left[rows], along_y.step[rows], ny, table, power)
    return out


def _summed(
    flat: Float32,
    start: NDArray[np.int32],
    stride: int,
    left: NDArray[np.int32],
    step: NDArray[np.int16],
    samples: int,
    table: Float32,
    power: Power,
) -> Float32:
    """Return weighted sums of samples that lie `stride` from each other in a flat plane."""
    taps = len(table)
    before = taps // 2 - 1
    first = np.clip(left - before, 0, samples - taps)
    first *= stride
    first += start
    out: Float32 = flat[first] * table[0][step]
    for tap in range(1, taps):
        first += stride
        out += flat[first] * table[tap][step]
    near = (left < before) | (left > samples - taps + before)
    if near.any():
        position = left[near] + step[near] / _STEPS
        origin = np.broadcast_to(start, left.shape)[near]
        samples_left, weights = tap_weights(position, samples, taps)
        weight = powered(weights, power)
        total = np.zeros(position.shape, np.float32)
        for tap in range(taps):
            index = np.clip(samples_left + tap - before, 0, samples - 1)
            total += weight[tap] * flat[origin + index * stride]
        out[near] = total
    return out


def _split(position: Any, lines: int, samples: int, points: int) -> Pass:
    """Split positions, made block by block, into samples and steps; those beyond the ends move there."""
    left, step = np.empty((lines, points), np.int32), np.empty((lines, points), np.int16)
    for rows in row_blocks(lines, plane_rows(points)):
        steps = np.rint(np.clip(position(rows), 0, samples - 1) * _STEPS).astype(np.int32)
        left[rows], step[rows] = steps // _STEPS, steps % _STEPS
    return Pass(left, step)


def _axis(first: float, last: float) -> Float64:
    """Return the points of a lattice along an axis: four at least, both ends among them."""
    return np.linspace(first, max(last, first + 1), max(4, int(-(-(last - first) // _LATTICE)) + 1))


def _spline(axes: list[Float64], values: Float64) -> Any:
    from scipy.interpolate import RectBivariateSpline

    return RectBivariateSpline(axes[0], axes[1], values, kx=3, ky=3)
