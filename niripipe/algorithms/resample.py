"""Putting a frame on another pixel grid: shifts, small rotations and any affine mapping.

Coordinates are 0-based array positions, ``(y, x)``, pixel centres at integers. A mapping is an `Affine`;
the pixel ``(Y, X)`` of the output takes the value of the input at ``matrix @ (Y + origin_y, X + origin_x) +
offset``.

Shifts, and rotations so small that they amount to a shear along each axis, are done by two passes of
one-dimensional kernels (`niripipe.algorithms.shear`), distorted frames too (`niripipe.algorithms.warp`).
Anything else gathers its pixels one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.affine import WHOLE, Affine, Transform
from niripipe.algorithms.arrays import Bool, Float32, Float64, Floats, Indices, Mask
from niripipe.algorithms.bits import BAD, COSMIC_RAY, NO_DATA
from niripipe.algorithms.kernels import (
    TAPS,
    Kernel,
    Power,
    kernel_weights,
    powered,
    spline_squares,
    tap_weights,
    weights_near_ends,
)
from niripipe.algorithms.parallel import plane_rows, row_blocks
from niripipe.algorithms.repair import replace_bad_pixels
from niripipe.algorithms.shear import Shifts, shear, split
from niripipe.algorithms.warp import Bend, Pass, warp

__all__ = ["DQ_THRESHOLD", "REPLACED", "Resampled", "resample"]


DQ_THRESHOLD = 0.1
"""Weight of flagged input pixels above which an output pixel is flagged."""

REPLACED = BAD | COSMIC_RAY | NO_DATA
"""Bits of pixels that say nothing about the sky; a saturated one still says "at least this bright"."""

# Mappings that differ by less than this many pixels anywhere on the frame are the same mapping: 1 % of the
# best centring of a star.
_SAME = 1e-3
# Accuracy of the positions in a distorted frame, pixels: what is so near to the outermost pixels is on them.
_BENT = 1e-3
_SPLINES: dict[str, Literal[3, 5]] = {"spline3": 3, "spline5": 5}
# A bit set in more than this share of the frame is spread plane-wise rather than pixel by pixel.
_DENSE = 0.03


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """Planes on the output grid.

    Attributes
    ----------
    data, variance : ndarray of float32
        0 where the input does not reach. ``variance`` is None when none was given.
    mask : ndarray of uint16
        Data quality; bit 16 (no data) where the input does not reach. Always made.
    objmask : ndarray of uint8 or None
        Object mask, when one was given.
    jacobian : float
        Input pixels per output pixel, ``abs(det(matrix)) / area``, whether it was applied or not.
    correlation : float
        By how much the variance of the sum over a large area exceeds the sum of the variances in it,
        because neighbouring output pixels share input pixels. 1 for an integer shift.
    """

    data: Float32
    variance: Float32 | None
    mask: Mask
    objmask: NDArray[np.uint8] | None
    jacobian: float
    correlation: float


def resample(
    data: Float32,
    variance: Float32 | None = None,
    mask: Mask | None = None,
    objmask: NDArray[np.uint8] | None = None,
    *,
    matrix: Floats,
    offset: Floats | Sequence[float],
    shape: tuple[int, int],
    origin: tuple[int, int] = (0, 0),
    kernel: Kernel = "poly3",
    dq_threshold: float = DQ_THRESHOLD,
    clean: bool = True,
    conserve: bool = True,
    distort: Transform | None = None,
    area: float = 1.0,
) -> Resampled:
    """Resample a frame through an affine mapping, and out of a distortion.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        The frame. Not modified.
    variance : ndarray of float32 of the same shape, optional
        Its variance.
    mask : ndarray of uint16 of the same shape, optional
        Its data quality.
    objmask : ndarray of uint8 of the same shape, optional
        Its object mask.
    matrix, offset : array-like, shapes (2, 2) and (2,)
        Mapping of reference positions to positions in this frame, array order.
    shape : tuple of int
        Shape of the output.
    origin : tuple of int
        Position of the output pixel (0, 0) in the reference, ``(y, x)``.
    kernel : {"nearest", "linear", "poly3", "poly5", "spline3", "spline5"}
        Interpolation: Lagrange polynomials through 4 or 6 points per axis, or splines. Nearer to the edge
        than half a kernel, the next lower polynomial that fits is used, on each axis by itself.
    dq_threshold : float
        An output pixel gets a bit when the input pixels that have it carry more than this much weight (sum
        of the weights' absolute values).
    clean : bool
        Replace bad (1), cosmic-ray (8), no-data (16) and non-finite pixels by an estimate from their
        neighbours before interpolating, so that their values do not ring into good pixels.
    conserve : bool
        Multiply by the Jacobian, so that the flux of a source stays the same; False keeps the surface
        brightness.
    distort : callable, optional
        Takes arrays y and x of positions without distortion, to which the affine mapping leads, and returns
        where the frame has them: the output has no distortion then. The areas of single pixels are not
        applied: a frame divided by a flat has the light of equal areas in equal pixels.
    area : float
        That area, in pixels without distortion: the one at which the flat is 1.

    Returns
    -------
    Resampled
        New arrays, also where nothing needs interpolating.

    Raises
    ------
    AlgorithmError
        For a mapping that is not invertible.

    Notes
    -----
    The variance of an output pixel is that of a weighted sum of independent pixels, sum(w**2 v):
    interpolation averages noise, and the variance says so. What the average hides shows in ``correlation``;
    multiply the variance of the sum over an aperture much larger than the kernel by it. With the splines,
    whose weights reach over the frame, the variance is interpolated linearly and multiplied by the kernel's
    sum of squares at that position, which is exact where it varies slowly.
    """
    mapping = Affine(np.asarray(matrix, dtype=np.float64), np.asarray(offset, dtype=np.float64))
    mapping.inverse()
    jacobian = float(abs(np.linalg.det(mapping.matrix))) / area
    scale = jacobian if conserve else 1.0
    mapping = Affine.shift(*origin).then(mapping)
    job = _Resampling((data.shape[0], data.shape[1]), shape, mapping, kernel, dq_threshold, distort)
    flags = np.zeros(data.shape, np.uint16) if mask is None else np.array(mask, np.uint16)
    bad = (flags & np.uint16(REPLACED)) != 0 if clean else None
    for plane in (data,) if variance is None else (data, variance):
        finite = np.isfinite(plane)
        if not finite.all():
            flags[~finite] |= np.uint16(NO_DATA)
    return Resampled(
        job.data(data, bad, scale),
        None if variance is None else job.variance(variance, bad, scale),
        job.mask(flags),
        None if objmask is None else job.objmask(objmask),
        jacobian,
        1.0 / (job.noise_reduction() * jacobian),
    )


class _Resampling:
    """An affine mapping from one pixel grid to another, and how planes are sent through it."""

    def __init__(
        self,
        source: tuple[int, int],
        target: tuple[int, int],
        mapping: Affine,
        kernel: Kernel,
        threshold: float,
        distort: Transform | None = None,
    ) -> None:
        self._source, self._target = source, target
        self._mapping = mapping = _snap(mapping, target) if distort is None else mapping
        self._taps = TAPS[kernel]
        self._spline: Literal[3, 5] | None = _SPLINES.get(kernel)
        self._threshold = np.float32(threshold)
        m, o = mapping.matrix, mapping.offset
        self._bend: Bend | None = None
        self._passes: tuple[Pass, Pass] | None = None
        if distort is not None:
            self._bend = Bend(lambda y, x: distort(*mapping(y, x)), target, source)
            if self._taps > 1 and not self._spline and min(source) >= self._taps and self._bend.is_upright():
                self._passes = self._bend.along_x(), self._bend.along_y()
        straight = self._bend is None
        self._exact = bool(straight and (m == np.eye(2)).all() and (o == np.rint(o)).all())
        # Shifts of the input's rows along x and of the output's columns along y.
        self._shifts: tuple[Shifts, Shifts] | None = None
        if straight and self._taps > 1 and not self._exact and _is_shear(m, max(*source, *target)):
            along_x = split(m[1, 0] / m[0, 0] * (np.arange(source[0]) - o[0]) + o[1])
            self._shifts = along_x, split(m[0, 1] * np.arange(target[1]) + o[0])
        self._outside = ~self._inside()

    def data(self, plane: Float32, bad: Bool | None, scale: float) -> Float32:
        """Send data through the mapping; `bad` pixels are replaced first if it is given."""
        out = self._sent(self._finite(plane, bad, sharpen=True), "signed")
        return self._finished(out, scale)

    def variance(self, plane: Float32, bad: Bool | None, scale: float) -> Float32:
        """Send the variance of data through the mapping."""
        out = self._sent(self._finite(plane, bad, sharpen=False), "squared")
        # Splines can go below zero; a variance never does.
        np.clip(out, 0, np.inf, out=out)
        return self._finished(out, scale**2)

    def mask(self, flags: Mask) -> Mask:
        """Send flags through the mapping; the bit "no data" marks what the input does not reach."""
        out = self._copied(flags) if self._exact else self._spread(flags)
        out[self._outside] = NO_DATA
        return out

    def objmask(self, objmask: NDArray[Any]) -> NDArray[np.uint8]:
        """Send an object mask through the mapping."""
        out = self._covered(objmask != 0).astype(np.uint8)
        out[self._outside] = 0
        return out

    def noise_reduction(self) -> float:
        """Return the mean over the output of the sum of squared weights."""
        if self._exact or self._taps == 1:
            return 1.0
        if self._shifts is not None:
            along_x, along_y = (self._squares(shifts.fraction).mean() for shifts in self._shifts)
            return float(along_x * along_y)
        # Fractions of a general mapping are spread evenly.
        return float(self._squares(np.linspace(0, 1, 256, endpoint=False)).mean() ** 2)

    def _finite(self, plane: Float32, bad: Bool | None, *, sharpen: bool) -> Float32:
        """Return a copy without NaN and, on request, without the values of bad pixels."""
        plane = np.array(plane, np.float32, order="C")
        finite = np.isfinite(plane)
        if bad is None or self._exact:
            plane[~finite] = 0
        else:
            reach = max(1, self._taps // 2)
            replace_bad_pixels([plane], bad | ~finite, reach=reach, sharpen=sharpen)
        return plane

    def _sent(self, plane: Float32, power: Power) -> Float32:
        if self._exact:
            return self._copied(plane)
        if self._spline and power != "absolute":
            return self._by_splines(plane, self._spline, power)
        if self._shifts is not None:
            return shear(plane, *self._shifts, self._target, taps=self._taps, power=power)
        if self._passes is not None:
            return warp(plane, *self._passes, taps=self._taps, power=power)
        return self._gathered(plane, power)

    def _finished(self, out: Float32, scale: float) -> Float32:
        if scale != 1.0:
            out *= np.float32(scale)
        out[self._outside] = 0
        return out

    # --- flags ------------------------------------------------------------------------------------------

    def _spread(self, flags: Mask) -> Mask:
        """Set each bit where the input pixels that have it carry enough weight."""
        out = np.zeros(self._target, np.uint16)
        flagged = np.flatnonzero(flags != 0)
        values = flags.reshape(-1)[flagged]
        for bit in (np.uint16(1 << k) for k in range(16)):
            pixels = flagged[values & bit != 0]
            if not pixels.size:
                continue
            if self._shifts is not None and pixels.size < _DENSE * flags.size:
                out.reshape(-1)[self._reached(pixels, *self._shifts)] |= bit
            else:
                out[self._covered(flags & bit != 0)] |= bit
        return out

    def _covered(self, flagged: Bool) -> Bool:
        """Return the output pixels to which flagged input pixels contribute enough."""
        if self._exact:
            return self._copied(flagged)
        return np.asarray(self._sent(flagged.astype(np.float32), "absolute") > self._threshold)

    def _reached(self, pixels: Indices, along_x: Shifts, along_y: Shifts) -> Indices:
        """Return the output pixels to which a few input pixels contribute enough; all are flat indices."""
        ny, nx = self._source
        my, mx = self._target
        steps = (np.arange(self._taps) - (self._taps // 2 - 1))[:, None]
        y, x = np.divmod(pixels, nx)
        # Each pixel is tap t of the column whose left sample lies `steps[t]` before the pixel.
        left = x - steps
        weight_x = powered(weights_near_ends(left, along_x.fraction[y], nx, self._taps), "absolute")
        column = left - along_x.whole[y]
        keep = (column >= 0) & (column < mx) & (weight_x > 0)
        y, column = np.broadcast_to(y, column.shape)[keep], column[keep]
        left = y - steps
        weight_y = powered(weights_near_ends(left, along_y.fraction[column], ny, self._taps), "absolute")
        row = left - along_y.whole[column]
        inside = (row >= 0) & (row < my)
        target = (row * mx + column)[inside]
        total = np.zeros(my * mx, dtype=np.float32)
        np.add.at(total, target, (weight_x[keep] * weight_y)[inside])
        return np.asarray(target[total[target] > self._threshold])

    # --- geometry ---------------------------------------------------------------------------------------

    def _inside(self) -> Bool:
        """Return for which output pixels the input has a value."""
        x = np.arange(self._target[1])[None, :]
        # The nearest pixel is taken as a whole; other kernels need a neighbour on the far side.
        rim = 0.5 if self._taps == 1 else WHOLE
        if self._bend is not None:
            return self._bent_inside(rim)
        inside = np.ones(self._target, dtype=bool)
        axes = list(zip(self._source, self._mapping.matrix, self._mapping.offset, strict=True))
        for rows in self._blocks():
            y = np.arange(rows.start, rows.stop)[:, None]
            for size, row, offset in axes:
                # Without a mixed term the position depends on one coordinate only, and so do the comparisons.
                position = sum(c * p for c, p in zip(row, (y, x), strict=True) if c != 0) + offset
                inside[rows] &= (position >= -rim) & (position <= size - 1 + rim)
        return inside

    def _bent_inside(self, rim: float) -> Bool:
        inside = np.empty(self._target, dtype=bool)
        (ny, nx), rim = self._source, max(rim, _BENT)
        for rows in self._blocks():
            y, x = self._positions(rows)
            inside[rows] = (y >= -rim) & (y <= ny - 1 + rim) & (x >= -rim) & (x <= nx - 1 + rim)
        return inside

    def _squares(self, fraction: Floats) -> Float64:
        if self._spline:
            return spline_squares(fraction, self._spline)
        return np.asarray((kernel_weights(fraction, self._taps) ** 2).sum(axis=0))

    # --- methods of interpolation -----------------------------------------------------------------------

    def _copied(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Move a plane by whole pixels."""
        out = np.zeros(self._target, plane.dtype)
        (from_y, to_y), (from_x, to_x) = (
            _overlap(size, new, round(shift))
            for size, new, shift in zip(self._source, self._target, self._mapping.offset, strict=True)
        )
        out[to_y, to_x] = plane[from_y, from_x]
        return out

    def _gathered(self, plane: Float32, power: Power) -> Float32:
        """Interpolate pixel by pixel."""
        out = np.empty(self._target, np.float32)
        ny, nx = self._source
        half = self._taps // 2 - 1
        for rows in self._blocks():
            y, x = self._positions(rows)
            if self._taps == 1:
                iy = np.clip(np.floor(y + 0.5), 0, ny - 1).astype(np.intp)
                ix = np.clip(np.floor(x + 0.5), 0, nx - 1).astype(np.intp)
                out[rows] = plane[iy, ix]
                continue
            (iy, wy), (ix, wx) = tap_weights(y, ny, self._taps), tap_weights(x, nx, self._taps)
            along_y, along_x = powered(wy, power), powered(wx, power)
            columns = [np.clip(ix + tap - half, 0, nx - 1) for tap in range(self._taps)]
            out[rows] = 0
            for u in range(self._taps):
                start = np.clip(iy + u - half, 0, ny - 1) * nx
                line = np.zeros(y.shape, dtype=np.float32)
                for weight, column in zip(along_x, columns, strict=True):
                    line += weight * plane.reshape(-1)[start + column]
                out[rows] += along_y[u] * line
        return out

    def _by_splines(self, plane: Float32, order: Literal[3, 5], power: Power) -> Float32:
        from scipy.ndimage import affine_transform, map_coordinates

        if self._bend is not None:
            used = 1 if power == "squared" else order
            at = np.stack(self._positions(slice(0, self._target[0])))
            out: Float32 = map_coordinates(plane, at, np.dtype(np.float32), order=used, mode="nearest")
            return self._times_squares(out) if power == "squared" else out
        out = affine_transform(
            plane,
            self._mapping.matrix,
            self._mapping.offset,
            output_shape=self._target,
            output=np.dtype(np.float32),
            order=1 if power == "squared" else order,
            mode="nearest",
        )
        return self._times_squares(out) if power == "squared" else out

    def _times_squares(self, out: Float32) -> Float32:
        """Multiply by the sums of squared weights of the spline, in place."""
        for rows in self._blocks():
            y, x = self._positions(rows)
            squares = self._squares(y - np.floor(y)) * self._squares(x - np.floor(x))
            out[rows] *= squares.astype(np.float32)
        return out

    def _blocks(self) -> list[slice]:
        return row_blocks(self._target[0], plane_rows(self._target[1]))

    def _positions(self, rows: slice) -> tuple[Float64, Float64]:
        """Return the positions in the input of the pixels in some rows of the output."""
        if self._bend is not None:
            return self._bend.positions(rows)
        return self._mapping(np.arange(rows.start, rows.stop)[:, None], np.arange(self._target[1])[None, :])


def _snap(mapping: Affine, shape: tuple[int, int]) -> Affine:
    """Round a matrix to the unit matrix, and an offset to whole pixels, where the error is negligible."""
    m, o = mapping.matrix, mapping.offset
    centre = (np.array(shape) - 1) / 2
    if np.abs((m - np.eye(2)) * np.array(shape)).sum(axis=1).max() < _SAME:
        # Kept exact at the centre, so that the error is at most half of the limit.
        o, m = o + (m - np.eye(2)) @ centre, np.eye(2)
    if (m == np.eye(2)).all():
        whole = np.rint(o)
        o = np.where(np.abs(o - whole) < WHOLE, whole, o)
    return Affine(m, o)


def _is_shear(matrix: Float64, size: int) -> bool:
    """Tell whether each row moves as a whole along x, then each column along y, to well below a pixel."""
    if not matrix[0, 0] > 0:
        return False
    stretch_x = np.linalg.det(matrix) / matrix[0, 0] - 1
    return bool(abs(stretch_x) * size < _SAME and abs(matrix[0, 0] - 1) * size < _SAME)


def _overlap(source: int, target: int, shift: int) -> tuple[slice, slice]:
    """Return the parts of source and target where target[k] = source[k + shift] exists."""
    start, stop = max(0, -shift), min(target, source - shift)
    stop = max(start, stop)
    return slice(start + shift, stop + shift), slice(start, stop)
