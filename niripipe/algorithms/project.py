"""Putting a frame on the pixels of any other projection, with exact noise.

`niripipe.algorithms.resample` does shifts, rotations and other affine mappings; here a mapping may bend,
and the new pixels may be larger than the old ones. Every output pixel is a weighted sum of input pixels, and
the weights are held as a sparse matrix W, block by block of rows: data become ``W d``, variances
``W**2 v``, and a flag spreads to where it carries more than a share of the weight. That is why `reproject`
is not used for it: it returns sums, not weights, and the variance of a sum needs their squares.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.affine import Transform
from niripipe.algorithms.bits import NO_DATA
from niripipe.algorithms.parallel import map_blocks
from niripipe.algorithms.repair import replace_bad_pixels
from niripipe.algorithms.resample import (
    REPLACED,
    TAPS,
    Kernel,
    Resampled,
    check_arguments,
    check_planes,
    kernel_weights,
)
from niripipe.errors import AlgorithmError

__all__ = ["project"]

Floats = NDArray[np.floating[Any]]
Plane = NDArray[np.float32]

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
    data: Plane,
    variance: Plane | None = None,
    mask: NDArray[np.uint16] | None = None,
    objmask: NDArray[np.uint8] | None = None,
    *,
    to_input: Transform,
    shape: tuple[int, int],
    kernel: Kernel = "poly3",
    dq_threshold: float = 0.1,
    clean: bool = True,
    conserve: bool = True,
    threads: int = 1,
) -> Resampled:
    """Resample a frame through any smooth mapping.

    Parameters
    ----------
    data, variance, mask, objmask : ndarray, shape (ny, nx)
        The frame, as for `niripipe.algorithms.resample.resample`. Not modified.
    to_input : callable
        Takes arrays y and x of output positions, returns y and x in the frame; smooth over the output. It is
        evaluated on a lattice only. Positions that are not finite lie outside of the frame.
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
    threads : int
        Number of threads. The result does not depend on it.

    Returns
    -------
    Resampled
        `jacobian` and `correlation` are means over the output that the frame covers.

    Raises
    ------
    ParameterError
        For an unknown kernel, a threshold outside [0, 1), an output without pixels.
    AlgorithmError
        For planes of different shapes, or a mapping that nowhere reaches the frame.
    """
    check_arguments(kernel, dq_threshold, shape)
    check_planes(data, (variance, mask, objmask))
    mapping = _Mapping(to_input, shape, data.shape)
    data, variance, flags = _prepared(data, variance, mask, clean)
    out = np.zeros(shape, np.float32)
    out_variance = None if variance is None else np.zeros(shape, np.float32)
    out_mask = np.full(shape, NO_DATA, np.uint16)
    out_objects = None if objmask is None else np.zeros(shape, np.uint8)
    squares, number = np.zeros(shape[0]), np.zeros(shape[0])
    bits = [1 << k for k in range(16) if np.any(flags & (1 << k))]
    points = max(1, int(np.ceil(_DENSITY * mapping.size))) if mapping.size > _COARSE else 1
    taps = 2 if points > 1 else TAPS[kernel]
    rows_per_block = max(1, _BLOCK_WEIGHTS // (shape[1] * (points * taps) ** 2))

    def block(rows: slice) -> None:
        inside, weights = mapping.weights(rows, points, taps)
        covered = np.flatnonzero(inside)
        if covered.size == 0:
            return
        # A flat view of these rows, so that covered pixels can be written by number.
        factor = mapping.area(rows).ravel()[covered] if conserve else 1.0
        squared = weights.power(2)
        out[rows].ravel()[covered] = (weights @ data.ravel()) * factor
        if variance is not None and out_variance is not None:
            out_variance[rows].ravel()[covered] = (squared @ variance.ravel()) * factor**2
        absolute = abs(weights)
        found = np.zeros(covered.size, np.uint16)
        for bit in bits:
            share = absolute @ ((flags & bit) != 0).ravel().astype(np.float32)
            found |= (share > dq_threshold).astype(np.uint16) * np.uint16(bit)
        out_mask[rows].ravel()[covered] = found
        if objmask is not None and out_objects is not None:
            share = absolute @ (objmask != 0).ravel().astype(np.float32)
            out_objects[rows].ravel()[covered] = share > dq_threshold
        sums = np.asarray(squared.sum(axis=1)).ravel()
        squares[rows.start], number[rows.start] = sums.sum(), covered.size

    map_blocks(block, shape[0], rows_per_block=rows_per_block, threads=threads)
    total = number.sum()
    if total == 0:
        raise AlgorithmError(
            "The frame does not reach the output",
            found=f"a frame of {data.shape}",
            expected=f"overlap with {shape}",
        )
    # Over a large area an output pixel takes the variance of its whole area, whatever the kernel.
    correlation = 1.0 / (squares.sum() / total * mapping.jacobian)
    return Resampled(out, out_variance, out_mask, out_objects, mapping.jacobian, float(correlation))


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

    def area(self, rows: slice) -> NDArray[np.float64]:
        """Input pixels in each output pixel of some rows."""
        return self._areas(np.arange(rows.start, rows.stop), np.arange(self.shape[1]))

    def weights(self, rows: slice, points: int, taps: int) -> tuple[NDArray[np.bool_], Any]:
        """Return which output pixels of some rows lie on the frame, and the matrix of their weights."""
        from scipy.sparse import csr_matrix

        y, x = self._at(np.arange(rows.start, rows.stop), np.arange(self.shape[1]))
        rim = 0.5 if taps == 1 or points > 1 else 1e-6
        ny, nx = self.source
        inside = ((y >= -rim) & (y <= ny - 1 + rim) & (x >= -rim) & (x <= nx - 1 + rim)).ravel()
        number = int(np.count_nonzero(inside))
        steps = (np.arange(points) + 0.5) / points - 0.5
        index, weight = [], []
        for dy in steps:
            for dx in steps:
                if points > 1:
                    y, x = self._at(np.arange(rows.start, rows.stop) + dy, np.arange(self.shape[1]) + dx)
                iy, wy = _taps(y.ravel()[inside], ny, taps)
                ix, wx = _taps(x.ravel()[inside], nx, taps)
                index.append((iy[:, :, None] * nx + ix[:, None, :]).reshape(number, taps**2))
                weight.append((wy[:, :, None] * wx[:, None, :]).reshape(number, taps**2))
        columns = np.concatenate(index, axis=1)
        values = np.concatenate(weight, axis=1) / points**2
        starts = np.arange(number + 1) * columns.shape[1]
        matrix = csr_matrix((values.ravel(), columns.ravel(), starts), shape=(number, ny * nx))
        # Points of one pixel share input pixels: their weights add before they are squared.
        matrix.sum_duplicates()
        return inside, matrix

    def _at(self, y: NDArray[Any], x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._y(y, x), self._x(y, x)

    def _areas(self, y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float64]:
        yy, yx = self._y(y, x, dx=1), self._y(y, x, dy=1)
        xy, xx = self._x(y, x, dx=1), self._x(y, x, dy=1)
        return np.abs(np.asarray(yy * xx - yx * xy))


def _taps(position: Floats, samples: int, taps: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return samples and weights for each position, shape (n, taps); of lower order near the edges."""
    position = np.clip(position, 0, samples - 1)
    if taps == 1:
        return np.rint(position).astype(np.intp)[:, None], np.ones((position.size, 1))
    left = np.minimum(np.floor(position).astype(np.intp), max(samples - 2, 0))
    fraction = position - left
    weights = np.zeros((position.size, taps))
    for order in (n for n in (2, 4, 6) if n <= taps):
        first = taps // 2 - order // 2
        fits = (left >= order // 2 - 1) & (left <= samples - 1 - order // 2)
        weights[fits] = 0.0
        weights[np.flatnonzero(fits)[:, None], first + np.arange(order)] = kernel_weights(
            fraction[fits], order
        ).T
    index = left[:, None] + np.arange(taps) - (taps // 2 - 1)
    return np.clip(index, 0, samples - 1), weights


def _prepared(
    data: Plane, variance: Plane | None, mask: NDArray[np.uint16] | None, clean: bool
) -> tuple[Plane, Plane | None, NDArray[np.uint16]]:
    """Make planes that are finite and, on request, free of the values of bad pixels."""
    flags = np.zeros(data.shape, np.uint16) if mask is None else mask.astype(np.uint16)
    finite = np.isfinite(data)
    if variance is not None:
        finite &= np.isfinite(variance)
    flags[~finite] |= NO_DATA
    bad = ((flags & REPLACED) != 0) if clean else ~finite
    data = data.astype(np.float32)
    planes = [data] if variance is None else [data, variance.astype(np.float32)]
    if clean:
        replace_bad_pixels(planes, bad)
    else:
        for plane in planes:
            plane[bad] = 0
    return data, None if variance is None else planes[1], flags
