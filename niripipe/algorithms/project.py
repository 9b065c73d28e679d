"""Putting a frame on the pixels of any other projection, with exact noise.

`niripipe.algorithms.resample` does shifts, rotations and other affine mappings; here a mapping may bend,
and the new pixels may be larger than the old ones. Every output pixel is a weighted sum of input pixels, and
the weights are held as a sparse matrix W, block by block of rows: data become ``W d``, variances
``W**2 v``, and a flag spreads to where it carries more than a share of the weight. That is why `reproject`
is not used for it: it returns sums, not weights, and the variance of a sum needs their squares.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.affine import Transform
from niripipe.algorithms.arrays import Bool, Float32, Float64, Floats, Indices, Mask
from niripipe.algorithms.bits import NO_DATA
from niripipe.algorithms.kernels import TAPS, Kernel, tap_weights
from niripipe.algorithms.parallel import row_blocks
from niripipe.algorithms.repair import replace_bad_pixels
from niripipe.algorithms.resample import DQ_THRESHOLD, REPLACED, Resampled
from niripipe.errors import AlgorithmError

__all__ = ["project"]


# Distance of the points at which the mapping is evaluated, pixels. Between them a cubic spline leaves errors
# of 1e-6 pixel for projections of the sky over the field of a camera.
_LATTICE = 32
# New pixels larger than this along a side are averages over points inside them.
_COARSE = 1.5
# Points along a side for each input pixel that an output pixel covers.
_DENSITY = 2.0
# Weights of one block: 2**21 of them take 24 MB.
_BLOCK_WEIGHTS = 1 << 21


def project(
    data: Float32,
    variance: Float32 | None = None,
    mask: Mask | None = None,
    objmask: NDArray[np.uint8] | None = None,
    *,
    to_input: Transform,
    to_area: Transform | None = None,
    area: float = 1.0,
    shape: tuple[int, int],
    kernel: Kernel = "poly3",
    dq_threshold: float = DQ_THRESHOLD,
    clean: bool = True,
    conserve: bool = True,
) -> Resampled:
    """Resample a frame through any smooth mapping.

    Parameters
    ----------
    data, variance, mask, objmask : ndarray, shape (ny, nx)
        The frame, as for `niripipe.algorithms.resample.resample`. Not modified.
    to_input : callable
        Takes arrays y and x of output positions, returns y and x in the frame; smooth over the output. It is
        evaluated on a lattice only. Positions that are not finite lie outside of the frame.
    to_area : callable, optional
        As `to_input`; the mapping whose areas `conserve` multiplies by, for a frame with a distortion the one
        without: division by a flat has equalised the areas of its pixels.
    area : float
        The area that they all have then, in pixels without distortion: the one at which the flat is 1.
    shape : tuple of int
        Shape of the output.
    kernel : {"nearest", "linear", "poly3", "poly5", "spline3", "spline5"}
        Interpolation where a new pixel is about as large as an old one or smaller; the polynomial of the same
        order stands for a spline. Larger pixels are means of linear interpolations at points inside them.
    dq_threshold : float
        Share of the weight (absolute values) from which a flag spreads.
    clean : bool
        Replace bad, cosmic-ray, no-data and non-finite pixels from their neighbours first.
    conserve : bool
        Multiply by the number of input pixels in an output pixel, so that fluxes stay; False keeps the
        surface brightness.

    Returns
    -------
    Resampled
        `jacobian` and `correlation` are means over the output that the frame covers.

    Raises
    ------
    AlgorithmError
        For a mapping that nowhere reaches the frame.
    """
    mapping = _Mapping(to_input, shape, data.shape)
    areas = mapping if to_area is None else _Mapping(to_area, shape, data.shape)
    data, variance, flags = _prepared(data, variance, mask, clean)
    out = np.zeros(shape, np.float32)
    out_variance = None if variance is None else np.zeros(shape, np.float32)
    out_mask = np.full(shape, NO_DATA, np.uint16)
    out_objects = None if objmask is None else np.zeros(shape, np.uint8)
    bits = [np.uint16(1 << k) for k in range(16) if np.any(flags & (1 << k))]
    points = max(1, int(np.ceil(_DENSITY * mapping.size))) if mapping.size > _COARSE else 1
    taps = 2 if points > 1 else TAPS[kernel]
    squares, number = 0.0, 0
    for rows in row_blocks(shape[0], max(1, _BLOCK_WEIGHTS // (shape[1] * (points * taps) ** 2))):
        inside, weights = mapping.weights(rows, points, taps)
        if not inside.any():
            continue
        squared, absolute = weights.power(2), abs(weights)
        factor = areas.area(rows)[inside] / area if conserve else 1.0
        out[rows][inside] = (weights @ data.ravel()) * factor
        if variance is not None and out_variance is not None:
            out_variance[rows][inside] = (squared @ variance.ravel()) * factor**2
        found = np.zeros(weights.shape[0], np.uint16)
        for bit in bits:
            found[_share(absolute, flags & bit) > dq_threshold] |= bit
        out_mask[rows][inside] = found
        if objmask is not None and out_objects is not None:
            out_objects[rows][inside] = _share(absolute, objmask) > dq_threshold
        squares += float(squared.sum())
        number += weights.shape[0]
    if number == 0:
        raise AlgorithmError(
            "The frame does not reach the output",
            found=f"a frame of {data.shape}",
            expected=f"overlap with {shape}",
        )
    # Over a large area an output pixel takes the variance of its whole area, whatever the kernel.
    correlation = 1.0 / (squares / number * mapping.jacobian)
    return Resampled(out, out_variance, out_mask, out_objects, areas.jacobian / area, correlation)


def _share(weights: Any, plane: NDArray[Any]) -> Float32:
    """Return the weight of the pixels that are not zero."""
    return np.asarray(weights @ (plane != 0).ravel().astype(np.float32))


class _Mapping:
    """A smooth mapping from output pixels to input pixels."""

    def __init__(self, to_input: Transform, shape: tuple[int, int], source: tuple[int, ...]) -> None:
        from scipy.interpolate import RectBivariateSpline

        self.shape, self.source = shape, (int(source[0]), int(source[1]))
        # One pixel more on each side, for points inside the outermost pixels.
        axes = [np.linspace(-1.0, n, max(4, -(-n // _LATTICE) + 1)) for n in shape]
        y, x = to_input(*np.meshgrid(*axes, indexing="ij"))
        y, x = (np.asarray(part, np.float64).reshape(axes[0].size, axes[1].size) for part in (y, x))
        finite = np.isfinite(y) & np.isfinite(x)
        if not finite.any():
            raise AlgorithmError("The mapping has no finite value on the output", found=shape)
        # The far side of the sky: anywhere outside will do, and it must not bend the spline near the frame.
        far = -1e6
        self._y, self._x = (
            RectBivariateSpline(axes[0], axes[1], np.where(finite, part, far), kx=3, ky=3) for part in (y, x)
        )
        area = self._areas(axes[0], axes[1])
        near = (y > -1) & (y < self.source[0]) & (x > -1) & (x < self.source[1]) & finite
        self.jacobian = float(area[near].mean()) if near.any() else float(np.median(area))
        self.size = float(np.sqrt(self.jacobian))

    def area(self, rows: slice) -> Float64:
        """Return the number of input pixels in each output pixel of some rows."""
        return self._areas(np.arange(rows.start, rows.stop), np.arange(self.shape[1]))

    def weights(self, rows: slice, points: int, taps: int) -> tuple[Bool, Any]:
        """Return which output pixels of some rows lie on the frame, and the matrix of their weights."""
        from scipy.sparse import csr_matrix

        row, column = np.arange(rows.start, rows.stop), np.arange(self.shape[1])
        y, x = self._y(row, column), self._x(row, column)
        rim = 0.5 if taps == 1 or points > 1 else 1e-6
        ny, nx = self.source
        inside = (y >= -rim) & (y <= ny - 1 + rim) & (x >= -rim) & (x <= nx - 1 + rim)
        number = int(np.count_nonzero(inside))
        steps = (np.arange(points) + 0.5) / points - 0.5
        index, weight = [], []
        for dy, dx in itertools.product(steps, steps):
            if points > 1:
                y, x = self._y(row + dy, column + dx), self._x(row + dy, column + dx)
            iy, wy = _taps(y[inside], ny, taps)
            ix, wx = _taps(x[inside], nx, taps)
            index.append((iy[:, :, None] * nx + ix[:, None, :]).reshape(number, taps**2))
            weight.append((wy[:, :, None] * wx[:, None, :]).reshape(number, taps**2))
        columns = np.concatenate(index, axis=1)
        values = np.concatenate(weight, axis=1) / points**2
        starts = np.arange(number + 1) * columns.shape[1]
        matrix = csr_matrix((values.ravel(), columns.ravel(), starts), shape=(number, ny * nx))
        # Points of one pixel share input pixels: their weights add before they are squared.
        matrix.sum_duplicates()
        return inside, matrix

    def _areas(self, y: NDArray[Any], x: NDArray[Any]) -> Float64:
        yy, yx = self._y(y, x, dx=1), self._y(y, x, dy=1)
        xy, xx = self._x(y, x, dx=1), self._x(y, x, dy=1)
        return np.abs(np.asarray(yy * xx - yx * xy))


def _taps(position: Floats, samples: int, taps: int) -> tuple[Indices, Float64]:
    """Return samples and weights for each position, shape (n, taps); of lower order near the edges."""
    if taps == 1:
        nearest = np.rint(np.clip(position, 0, samples - 1)).astype(np.intp)
        return nearest[:, None], np.ones((position.size, 1))
    left, weights = tap_weights(position, samples, taps)
    index = left[:, None] + np.arange(taps) - (taps // 2 - 1)
    return np.clip(index, 0, samples - 1), weights.T


def _prepared(
    data: Float32, variance: Float32 | None, mask: Mask | None, clean: bool
) -> tuple[Float32, Float32 | None, Mask]:
    """Make planes that are finite and, on request, free of the values of bad pixels."""
    flags = np.zeros(data.shape, np.uint16) if mask is None else mask.astype(np.uint16)
    planes = [plane.astype(np.float32) for plane in (data, variance) if plane is not None]
    finite = np.logical_and.reduce([np.isfinite(plane) for plane in planes])
    flags[~finite] |= NO_DATA
    if clean:
        replace_bad_pixels(planes, (flags & REPLACED) != 0)
    else:
        for plane in planes:
            plane[~finite] = 0
    return planes[0], None if variance is None else planes[1], flags
