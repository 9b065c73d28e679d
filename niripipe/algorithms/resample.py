"""Putting a frame on another pixel grid: shifts, small rotations and any affine mapping.

Coordinates are 0-based array positions, ``(y, x)``, pixel centres at integers. A mapping is an `Affine`;
the pixel ``(Y, X)`` of the output takes the value of the input at ``matrix @ (Y + origin_y, X + origin_x) +
offset``.

Shifts, and rotations so small that they amount to a shear along each axis, are done by two passes of
one-dimensional kernels over blocks of rows. Anything else gathers its pixels one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.affine import WHOLE, Affine
from niripipe.algorithms.bits import BAD, COSMIC_RAY, NO_DATA
from niripipe.algorithms.flags import Flags
from niripipe.algorithms.parallel import map_blocks, plane_rows, row_blocks
from niripipe.algorithms.repair import Repairs
from niripipe.errors import AlgorithmError, ParameterError

__all__ = [
    "KERNELS",
    "REPLACED",
    "TAPS",
    "Kernel",
    "Resampled",
    "Resampling",
    "check_arguments",
    "check_planes",
    "kernel_weights",
    "resample",
]

Floats = NDArray[np.floating[Any]]
Plane = NDArray[np.float32]
Kernel = Literal["nearest", "linear", "poly3", "poly5", "spline3", "spline5"]
Rules = Literal["niripipe", "dragons"]

# Number of samples per axis; the splines, of endless reach, are judged by the polynomials of the same order.
TAPS = {"nearest": 1, "linear": 2, "poly3": 4, "poly5": 6, "spline3": 4, "spline5": 6}
KERNELS: tuple[Kernel, ...] = ("nearest", "linear", "poly3", "poly5", "spline3", "spline5")
# Bits whose pixels hold no information about the sky; a saturated pixel still says "at least this bright".
REPLACED = BAD | COSMIC_RAY | NO_DATA
# Mappings that differ by less than this many pixels anywhere on the frame are the same mapping: 1 % of the
# best centring of a star.
_SAME = 1e-3
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
        Input pixels per output pixel, ``abs(det(matrix))``, whether it was applied or not.
    correlation : float
        By how much the variance of the sum over a large area exceeds the sum of the variances in it,
        because neighbouring output pixels share input pixels. 1 for an integer shift.
    """

    data: Plane
    variance: Plane | None
    mask: NDArray[np.uint16]
    objmask: NDArray[np.uint8] | None
    jacobian: float
    correlation: float


def resample(
    data: Plane,
    variance: Plane | None = None,
    mask: NDArray[np.uint16] | None = None,
    objmask: NDArray[np.uint8] | None = None,
    *,
    matrix: Floats,
    offset: Floats | Sequence[float],
    shape: tuple[int, int],
    origin: tuple[int, int] = (0, 0),
    kernel: Kernel = "poly3",
    dq_threshold: float | None = None,
    clean: bool | None = None,
    conserve: bool = True,
    rules: Rules = "niripipe",
    threads: int = 1,
) -> Resampled:
    """Resample a frame through an affine mapping.

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
    dq_threshold : float, optional
        An output pixel gets a bit when the input pixels that have it carry more than this much weight (sum
        of the weights' absolute values). Default
        0.1; 0.001 with ``rules="dragons"``, where the signed sum counts.
    clean : bool, optional
        Replace bad (1), cosmic-ray (8), no-data (16) and non-finite pixels by an estimate from their
        neighbours before interpolating, so that their values do not ring into good pixels. Default True;
        False with ``rules="dragons"``.
    conserve : bool
        Multiply by the Jacobian, so that the flux of a source stays the same; False keeps the surface
        brightness.
    rules : {"niripipe", "dragons"}
        "dragons" follows DRAGONS 4.2: the last row and column are lost, the variance is interpolated like
        the data and multiplied by the Jacobian once.
    threads : int
        Number of threads. The result does not depend on it.

    Returns
    -------
    Resampled
        New arrays, also where nothing needs interpolating.

    Raises
    ------
    ParameterError
        For an unknown kernel, a threshold outside [0, 1), an output without pixels.
    AlgorithmError
        For a mapping that is not invertible or planes of different shapes.

    Notes
    -----
    The variance of an output pixel is that of a weighted sum of independent pixels, sum(w**2 v):
    interpolation averages noise, and the variance says so. What the average hides shows in ``correlation``;
    multiply the variance of the sum over an aperture much larger than the kernel by it. With the splines,
    whose weights reach over the frame, the variance is interpolated linearly and multiplied by the kernel's
    sum of squares at that position, which is exact where it varies slowly.

    The weights are those of the Lagrange polynomials as DRAGONS writes them
    (gempy/library/cython_utils.pyx, polyinterp).
    """
    check_planes(data, (variance, mask, objmask))
    job = Resampling(
        (data.shape[0], data.shape[1]),
        matrix=matrix,
        offset=offset,
        shape=shape,
        origin=origin,
        kernel=kernel,
        dq_threshold=dq_threshold,
        clean=clean,
        conserve=conserve,
        rules=rules,
        threads=threads,
    )
    flags = Flags.none() if mask is None else Flags.of(mask)
    repairs = job.repairs(flags)
    finite = np.isfinite(data) if variance is None else np.isfinite(data) & np.isfinite(variance)
    if not finite.all():
        flags = flags.united(np.flatnonzero(~finite), NO_DATA)
    out = job.plane(data, repairs)
    out_variance = None if variance is None else job.plane(variance, repairs, variance=True)
    out_objects = None if objmask is None else job.objects(objmask)
    return Resampled(out, out_variance, job.mask(flags), out_objects, job.jacobian, job.correlation)


def kernel_weights(fraction: Floats | float, taps: int) -> NDArray[np.float64]:
    """Return the weights of a Lagrange polynomial.

    Parameters
    ----------
    fraction : array-like
        Distance past the sample at the left, in [0, 1).
    taps : {1, 2, 4, 6}
        Number of samples.

    Returns
    -------
    ndarray of float64, shape (taps,) + shape of ``fraction``
        Weights of the samples at ``1 - taps/2 ... taps/2``. Their sum is 1.
    """
    p = np.asarray(fraction, dtype=np.float64)
    if taps == 1:
        return np.ones((1, *p.shape))
    q = 1 - p
    if taps == 2:
        return np.stack([q, p])
    a, b = p * (p**2 - 1) / 6, q * (q**2 - 1) / 6
    if taps == 4:
        return np.stack([b, q + a - 2 * b, p + b - 2 * a, a])
    a2, b2 = a * (p**2 - 4) / 20, b * (q**2 - 4) / 20
    return np.stack(
        [
            b2,
            b - 4 * b2 + a2,
            q - 2 * b + a + 6 * b2 - 4 * a2,
            p - 2 * a + b + 6 * a2 - 4 * b2,
            a - 4 * a2 + b2,
            a2,
        ]
    )


def check_arguments(kernel: str, threshold: float, shape: tuple[int, int]) -> None:
    """Refuse what no resampling can be done with: kernel, threshold of flags, output shape."""
    if kernel not in KERNELS:
        raise ParameterError("Unknown kernel", item="kernel", found=kernel, expected=", ".join(KERNELS))
    if not 0 <= threshold < 1:
        raise ParameterError(
            "Not a usable threshold", item="dq_threshold", found=threshold, expected="[0, 1)"
        )
    if min(shape) < 1:
        raise ParameterError("The output has no pixels", item="shape", found=shape)


def check_planes(data: Plane, others: Sequence[NDArray[Any] | None]) -> None:
    """Refuse planes of different shapes."""
    for plane in others:
        if plane is not None and plane.shape != data.shape:
            raise AlgorithmError("The planes differ in shape", found=plane.shape, expected=data.shape)


Combine = Literal["signed", "squared", "absolute"]


class Resampling:
    """A mapping from one pixel grid to another, and the ways to send planes through it.

    Parameters
    ----------
    source : tuple of int
        Shape of the frames.
    matrix, offset, shape, origin, kernel, dq_threshold, clean, conserve, rules, threads
        As for `resample`.

    Attributes
    ----------
    by_rows : bool
        Whether some rows of the output need some rows of the input only, see `rows`.
    jacobian, correlation : float
        As in `Resampled`.

    Raises
    ------
    ParameterError
        For an unknown kernel, a threshold outside [0, 1), an output without pixels.
    AlgorithmError
        For a mapping that is not invertible.
    """

    def __init__(
        self,
        source: tuple[int, int],
        *,
        matrix: Floats,
        offset: Floats | Sequence[float],
        shape: tuple[int, int],
        origin: tuple[int, int] = (0, 0),
        kernel: Kernel = "poly3",
        dq_threshold: float | None = None,
        clean: bool | None = None,
        conserve: bool = True,
        rules: Rules = "niripipe",
        threads: int = 1,
    ) -> None:
        self._dragons = rules == "dragons"
        self._threshold = (0.001 if self._dragons else 0.1) if dq_threshold is None else dq_threshold
        check_arguments(kernel, self._threshold, shape)
        mapping = Affine(np.asarray(matrix, dtype=np.float64), np.asarray(offset, dtype=np.float64))
        mapping.inverse()
        mapping = Affine.shift(*origin).then(mapping)
        self.jacobian = float(abs(np.linalg.det(mapping.matrix)))
        self.source, self.target = source, shape
        self._taps = TAPS[kernel]
        self._spline = kernel.startswith("spline")
        self._clean = not self._dragons if clean is None else clean
        self._threads = threads
        self._mapping = mapping if self._dragons else _snap(mapping, shape)
        m = self._mapping.matrix
        near = np.rint(self._mapping.offset)
        self._exact = bool((m == np.eye(2)).all() and (self._mapping.offset == near).all())
        self._shear = _is_shear(m, max(*source, *shape))
        self._scale = self.jacobian if conserve else 1.0
        self._lines: tuple[_Lines, _Lines] | None = None
        self._edges: tuple[tuple[int, int], list[tuple[slice, NDArray[np.bool_]]]] | None = None
        if self._shear and not self._exact:
            rows, columns = np.arange(source[0]), np.arange(shape[1])
            self._lines = _Lines(*self._row_shift(rows)), _Lines(*self._column_shift(columns))
        self.by_rows = self._exact or (self._shear and self._taps > 1 and not self._spline)
        self.correlation = 1.0 / (self._noise_reduction() * self._scale)

    # --- planes -----------------------------------------------------------------------------------------

    def repairs(self, flags: Flags) -> Repairs:
        """Return how the values of flagged pixels of the input are replaced."""
        bad = flags.where[flags.bits & np.uint16(REPLACED) != 0]
        return self._repairs_of(bad if self._clean and not self._exact else bad[:0], self.source)

    def _repairs_of(self, bad: NDArray[np.integer], shape: tuple[int, int]) -> Repairs:
        return Repairs.of(bad, shape, reach=max(1, self._taps // 2))

    def plane(self, plane: Plane, repairs: Repairs, *, variance: bool = False) -> Plane:
        """Send data, or with `variance` their variance, through the mapping.

        Parameters
        ----------
        plane : ndarray of float32
            Not modified.
        repairs : Repairs
            What `repairs` returned. Values that are not finite are replaced as well.
        variance : bool
            What the plane is.

        Returns
        -------
        ndarray of float32
            0 where the input does not reach.
        """
        if not self.by_rows:
            plane = self._repaired(plane, repairs, 0, sharpen=not variance)
            out = self._interpolate(plane, self._kind(variance))
            self._finish(out, slice(0, self.target[0]), variance)
            return out
        out = np.empty(self.target, np.float32)

        def block(rows: slice) -> None:
            out[rows] = self.rows(plane[self.window(rows)], repairs, rows, variance=variance)

        map_blocks(block, self.target[0], rows_per_block=plane_rows(self.target[1]), threads=self._threads)
        return out

    def window(self, rows: slice) -> slice:
        """Return the rows of the input that some rows of the output need; for mappings `by_rows`."""
        reach = max(1, self._taps // 2)
        low, high = self._column_reach()
        first, last = rows.start + low - 2 * reach, rows.stop + high + 2 * reach + 1
        top = self.source[0]
        first = min(max(first, 0), top - 1)
        return slice(first, max(min(last, top), first + 1))

    def rows(self, block: Plane, repairs: Repairs, rows: slice, *, variance: bool = False) -> Plane:
        """Return rows of what `plane` returns, from rows of the input.

        Parameters
        ----------
        block : ndarray of float32
            The rows of the input that `window` names. Not modified.
        repairs, variance
            As for `plane`.
        rows : slice
            Which rows of the output.
        """
        first = self.window(rows).start
        block = self._repaired(block, repairs, first, sharpen=not variance)
        if self._exact:
            out = self._copy(block, first, rows)
        else:
            out = np.empty((rows.stop - rows.start, self.target[1]), np.float32)
            self._sheared(block, first, out, rows, self._kind(variance))
        self._finish(out, rows, variance)
        return out

    def mask(self, flags: Flags) -> NDArray[np.uint16]:
        """Send flags through the mapping; the bit "no data" marks what the input does not reach."""
        out = self._spread(flags)
        self._fill_outside(out, slice(0, self.target[0]), NO_DATA)
        return out

    def objects(self, objmask: NDArray[Any]) -> NDArray[np.uint8]:
        """Send an object mask through the mapping."""
        out = self._spread_plane(objmask)
        self._fill_outside(out, slice(0, self.target[0]), 0)
        return out

    def _kind(self, variance: bool) -> Combine:
        return "squared" if variance and not self._dragons else "signed"

    def _repaired(self, block: Plane, repairs: Repairs, first: int, *, sharpen: bool) -> Plane:
        """Return rows of the input, from row `first` on, without NaN and the values of bad pixels."""
        finite = np.isfinite(block)
        unknown = None if finite.all() else ~finite
        block = np.array(block, np.float32)
        if unknown is not None and self._clean and not self._exact:
            start = first * block.shape[1]
            begin, end = np.searchsorted(repairs.bad, (start, start + block.size))
            unknown.reshape(-1)[repairs.bad[begin:end] - start] = True
            here = self._repairs_of(np.flatnonzero(unknown), (block.shape[0], block.shape[1]))
            here.apply(block, sharpen=sharpen)
            return block
        if unknown is not None:
            block[unknown] = 0
        repairs.apply(block, first, sharpen=sharpen)
        return block

    def _finish(self, out: Plane, rows: slice, variance: bool) -> None:
        """Scale some rows, and write 0 where the input does not reach."""
        if variance:
            # Only the signed kernel can go below zero; a variance never does.
            np.clip(out, 0, np.inf, out=out)
        if self._scale != 1.0:
            out *= np.float32(self._scale**2 if variance and not self._dragons else self._scale)
        self._fill_outside(out, rows, 0)

    def _interpolate(self, plane: Plane, combine: Combine) -> Plane:
        if self._spline and combine != "absolute":
            return self._by_splines(plane, combine)
        out = np.empty(self.target, dtype=np.float32)
        source = np.ascontiguousarray(plane, dtype=np.float32)

        def block(rows: slice) -> None:
            if self._shear and self._taps > 1:
                self._sheared(source, 0, out[rows], rows, combine)
            else:
                self._gathered(source, out, rows, combine)

        map_blocks(block, self.target[0], rows_per_block=plane_rows(self.target[1]), threads=self._threads)
        return out

    def _spread(self, flags: Flags) -> NDArray[np.uint16]:
        if self._exact:
            return self._copy(flags.add_to(np.zeros(self.source, np.uint16)))
        out = np.zeros(self.target, dtype=np.uint16)
        flagged, values = flags.where.astype(np.intp), flags.bits
        present = int(np.bitwise_or.reduce(values)) if values.size else 0
        for bit in (1 << k for k in range(16)):
            if not present & bit:
                continue
            places = flagged[(values & bit) != 0]
            few = places.size < _DENSE * self.source[0] * self.source[1]
            if self._shear and self._taps > 1 and not self._dragons and few:
                self._scatter(places, out, bit)
            else:
                plane = np.zeros(self.source, np.uint8)
                plane.reshape(-1)[places] = 1
                out |= self._spread_plane(plane).astype(np.uint16) * np.uint16(bit)
        return out

    def _spread_plane(self, plane: NDArray[Any]) -> NDArray[np.uint8]:
        present = (plane != 0).astype(np.float32)
        if self._exact:
            return self._copy(present).astype(np.uint8)
        weight = self._interpolate(present, "signed" if self._dragons else "absolute")
        return (np.abs(weight) > np.float32(self._threshold)).astype(np.uint8)

    def _fill_outside(self, out: NDArray[Any], rows: slice, value: int) -> None:
        """Write a value into those of some rows of the output where the input does not reach."""
        for some in row_blocks(rows.stop - rows.start, plane_rows(self.target[1])):
            wanted = slice(rows.start + some.start, rows.start + some.stop)
            for columns, outside in self._outside(wanted):
                out[some, columns][outside] = value

    def _outside(self, rows: slice) -> list[tuple[slice, NDArray[np.bool_]]]:
        """Return columns with pixels outside of the input, and which; at once for the rows asked for last."""
        key, last = (rows.start, rows.stop), self._edges
        if last is None or last[0] != key:
            y, x = np.arange(rows.start, rows.stop), np.arange(self.target[1])
            found = [(columns, ~self._inside(y, x[columns])) for columns in self._doubtful(rows)]
            last = self._edges = key, [(columns, outside) for columns, outside in found if outside.any()]
        return last[1]

    def _doubtful(self, rows: slice) -> Iterator[slice]:
        """Yield columns that are not inside in all of some rows: what is in the first and last is in all."""
        ends = self._inside(np.array([rows.start, rows.stop - 1]), np.arange(self.target[1]))
        inside = np.flatnonzero(ends[0] & ends[1])
        width = self.target[1]
        first, last = (int(inside[0]), int(inside[-1]) + 1) if inside.size else (width, width)
        if first:
            yield slice(0, first)
        if last < width:
            yield slice(last, width)

    def _noise_reduction(self) -> float:
        """Mean over the output of the sum of squared weights."""
        if self._exact or self._taps == 1:
            return 1.0
        if self._lines is not None:
            row, column = (self._squares(lines.fraction).mean() for lines in self._lines)
            return float(row * column)
        # Fractions of a general mapping are spread evenly.
        return float(self._squares(np.linspace(0, 1, 256, endpoint=False)).mean() ** 2)

    # --- geometry ---------------------------------------------------------------------------------------

    def _row_shift(self, y: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Shift along x of each *input* row, as whole pixels and fraction."""
        m, o = self._mapping.matrix, self._mapping.offset
        return _split(m[1, 0] / m[0, 0] * (y - o[0]) + o[1])

    def _column_shift(self, x: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Shift along y of each *output* column."""
        return _split(self._mapping.matrix[0, 1] * x + self._mapping.offset[0])

    def _column_reach(self) -> tuple[int, int]:
        """Return the least and the greatest shift along y, whole pixels."""
        if self._lines is None:
            dy = round(self._mapping.offset[0])
            return dy, dy
        return self._lines[1].reach

    def _inside(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
        y, x = rows[:, None], columns[None, :]
        m, o = self._mapping.matrix, self._mapping.offset
        inside = np.ones((y.size, x.size), dtype=bool)
        for axis in (0, 1):
            if m[axis, 1 - axis] == 0:
                inside &= self._inside_along(axis, y if axis == 0 else x)
            else:
                inside &= self._reached(axis, m[axis, 0] * y + m[axis, 1] * x + o[axis])
        return inside

    def _inside_along(self, axis: int, pixel: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which pixels along an axis lie inside, where the other axis does not matter."""
        return self._reached(axis, self._mapping.matrix[axis, axis] * pixel + self._mapping.offset[axis])

    def _reached(self, axis: int, position: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which positions along an axis of the input it has a value for."""
        size = self.source[axis]
        if self._dragons and self._taps > 1:
            return np.asarray((position >= 0) & (position < size - 1))
        # nearest takes the whole pixel; everything else needs a neighbour on the far side.
        rim = 0.5 if self._taps == 1 else WHOLE
        return np.asarray((position >= -rim) & (position <= size - 1 + rim))

    def _squares(self, fraction: Floats) -> NDArray[np.float64]:
        if self._spline:
            return np.asarray(_spline_squares(fraction, 3 if self._taps == 4 else 5))
        return np.asarray((kernel_weights(fraction, self._taps) ** 2).sum(axis=0))

    # --- ways -------------------------------------------------------------------------------------------

    def _copy(self, block: NDArray[Any], first: int = 0, rows: slice | None = None) -> NDArray[Any]:
        """Move rows of the input, from row `first` on, by whole pixels to rows of the output, or to all."""
        rows = slice(0, self.target[0]) if rows is None else rows
        out = np.zeros((rows.stop - rows.start, self.target[1]), block.dtype)
        dy, dx = (round(o) for o in self._mapping.offset)
        cut_y = _overlap(len(block), len(out), rows.start + dy - first)
        cut_x = _overlap(self.source[1], self.target[1], dx)
        out[cut_y[1], cut_x[1]] = block[cut_y[0], cut_x[0]]
        return out

    def _sheared(self, block: Plane, start: int, out: Plane, rows: slice, combine: Combine) -> None:
        """Interpolate rows of the output from rows of the input, from row `start` on."""
        assert self._lines is not None
        ny, nx = self.source
        row_lines, column_lines = self._lines
        reach = self._taps // 2
        low, high = self._column_reach()
        first = min(max(rows.start + low - reach, 0), ny - 1)
        last = min(max(rows.stop + high + reach + 1, first + 1), ny)
        middle = np.empty((last - first, self.target[1]), dtype=np.float32)
        for lines in row_lines.runs(slice(first, last)):
            run = slice(lines.start - first, lines.stop - first)
            _interpolate(
                block[lines.start - start : lines.stop - start],
                middle[run],
                row_lines,
                lines,
                self._taps,
                combine,
                sample0=0,
                samples=nx,
                point0=0,
            )
        for run in column_lines.runs(slice(0, column_lines.whole.size)):
            _interpolate(
                middle.T[run],
                out.T[run],
                column_lines,
                run,
                self._taps,
                combine,
                sample0=first,
                samples=ny,
                point0=rows.start,
            )

    def _gathered(self, source: Plane, out: Plane, rows: slice, combine: Combine) -> None:
        y, x = self._mapping(np.arange(rows.start, rows.stop)[:, None], np.arange(self.target[1])[None, :])
        ny, nx = self.source
        if self._taps == 1:
            iy = np.clip(np.floor(y + 0.5), 0, ny - 1).astype(np.intp)
            ix = np.clip(np.floor(x + 0.5), 0, nx - 1).astype(np.intp)
            out[rows] = source[iy, ix]
            return
        iy, wy = _tap_weights(y, ny, self._taps, combine)
        ix, wx = _tap_weights(x, nx, self._taps, combine)
        flat = source.ravel()
        total = np.zeros(y.shape, dtype=np.float32)
        half = self._taps // 2 - 1
        columns = [np.clip(ix + t - half, 0, nx - 1) for t in range(self._taps)]
        for u in range(self._taps):
            line = np.clip(iy + u - half, 0, ny - 1) * nx
            part = np.zeros(y.shape, dtype=np.float32)
            for t, column in enumerate(columns):
                part += wx[t] * flat[line + column]
            total += wy[u] * part
        out[rows] = total

    def _by_splines(self, plane: Plane, combine: Combine) -> Plane:
        from scipy.ndimage import affine_transform

        order: Literal[1, 3, 5] = 1 if combine == "squared" else 3 if self._taps == 4 else 5
        m, o = self._mapping.matrix, self._mapping.offset
        out = affine_transform(
            plane.astype(np.float32, copy=False),
            m,
            o,
            output_shape=self.target,
            output=np.dtype(np.float32),
            order=order,
            mode="nearest",
        )
        if combine == "squared":
            for rows in row_blocks(self.target[0], plane_rows(self.target[1])):
                y, x = self._mapping(
                    np.arange(rows.start, rows.stop)[:, None], np.arange(self.target[1])[None, :]
                )
                out[rows] *= (self._squares(y - np.floor(y)) * self._squares(x - np.floor(x))).astype(
                    np.float32
                )
        return out

    def _scatter(self, places: NDArray[np.intp], out: NDArray[np.uint16], bit: int) -> None:
        """Set a bit in the output pixels to which the given input pixels contribute enough."""
        ny, nx = self.source
        my, mx = self.target
        steps = np.arange(self._taps) - (self._taps // 2 - 1)
        y, x = (places // nx)[:, None], (places % nx)[:, None]
        whole, fraction = self._row_shift(y)
        column = x - whole - steps
        tap = np.arange(self._taps)
        # In the column `steps[t]` to the left of a pixel, that pixel is tap t.
        weight_x = _tap_weights(column + whole + fraction, nx, self._taps, "absolute")[1][tap, :, tap].T
        y, column, weight_x = (
            np.broadcast_to(part, column.shape).reshape(-1, 1) for part in (y, column, weight_x)
        )
        keep = ((column >= 0) & (column < mx) & (weight_x > 0)).ravel()
        y, column, weight_x = y[keep], column[keep], weight_x[keep]
        whole, fraction = self._column_shift(column)
        row = y - whole - steps
        weight_y = _tap_weights(row + whole + fraction, ny, self._taps, "absolute")[1][tap, :, tap].T
        weight_y = np.where((row >= 0) & (row < my), weight_y, 0)
        target = (np.clip(row, 0, my - 1) * mx + column).ravel()
        total = np.zeros(my * mx, dtype=np.float32)
        np.add.at(total, target, (weight_x * weight_y).astype(np.float32).ravel())
        hit = target[total[target] > np.float32(self._threshold)]
        out.ravel()[hit] |= np.uint16(bit)


class _Lines:
    """Shifts of lines along themselves, and the weights of the interpolation, which are computed once."""

    def __init__(self, whole: NDArray[np.intp], fraction: NDArray[np.float64]) -> None:
        self.whole, self.fraction = whole, fraction
        self.reach = int(whole.min()), int(whole.max())
        self._steps = [0, *(np.flatnonzero(np.diff(whole)) + 1).tolist(), whole.size]
        self._weights: dict[tuple[int, Combine], NDArray[np.float32]] = {}

    def runs(self, lines: slice) -> Iterator[slice]:
        """Yield the runs of some lines that move by the same number of whole pixels."""
        for start, stop in itertools.pairwise(self._steps):
            if start < lines.stop and stop > lines.start:
                yield slice(max(start, lines.start), min(stop, lines.stop))

    def weights(self, order: int, combine: Combine) -> NDArray[np.float32]:
        """Return the weights of all lines, ``(order, lines, 1)``."""
        if (order, combine) not in self._weights:
            weights = _combined(kernel_weights(self.fraction, order), combine)
            self._weights[order, combine] = weights.astype(np.float32)[:, :, None]
        return self._weights[order, combine]


def _interpolate(
    source: Plane,
    target: Plane,
    lines: _Lines,
    which: slice,
    taps: int,
    combine: Combine,
    *,
    sample0: int,
    samples: int,
    point0: int,
) -> None:
    """Interpolate lines along the last axis.

    ``source[:, j]`` is sample ``sample0 + j`` of ``samples``; ``target[:, k]`` gets the value at position
    ``point0 + k + whole + fraction``, of which there is one a line; they are those of some of `lines`.
    Outside, the outermost sample is repeated.
    """
    points = target.shape[1]
    whole, fraction = int(lines.whole[which.start]), lines.fraction[which]
    level = bool((fraction == fraction[0]).all())
    if level:
        which = slice(which.start, which.start + 1)
    orders = [1] if level and fraction[0] == 0 else [n for n in (6, 4, 2) if n <= taps]
    # Position k of the target has its left sample at k + shift of the source.
    shift = point0 + whole - sample0
    done_from, done_to = None, None
    scratch = np.empty_like(target)
    for order in orders:
        before = max(order // 2 - 1, 0)
        start = min(max(before - whole - point0, 0), points)
        stop = max(min(samples - order // 2 - whole - point0, points), start)
        pieces = [(start, stop)] if done_from is None else [(start, done_from), (done_to, stop)]
        weights = lines.weights(order, combine)[:, which]
        for begin, end in pieces:
            if begin is None or end is None or end <= begin:
                continue
            piece, work = target[:, begin:end], scratch[:, begin:end]
            for t in range(order):
                j = begin + shift + t - before
                part = source[:, j : j + end - begin]
                if t == 0 and order == 1:
                    piece[...] = part
                elif t == 0:
                    np.multiply(part, weights[t], out=piece)
                else:
                    np.multiply(part, weights[t], out=work)
                    piece += work
        if stop > start:
            done_from = start if done_from is None else min(done_from, start)
            done_to = stop if done_to is None else max(done_to, stop)
    if done_from is None or done_to is None:
        done_from = done_to = min(max(-whole - point0, 0), points)
    last = source.shape[1] - 1
    target[:, :done_from] = source[:, min(max(-sample0, 0), last), None]
    target[:, done_to:] = source[:, min(samples - 1 - sample0, last), None]


def _tap_weights(
    position: Floats, samples: int, taps: int, combine: Combine
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Left sample and weights, of reduced order near the edges, for positions one by one."""
    position = np.clip(position, 0, samples - 1)
    left = np.floor(position).astype(np.intp)
    fraction = position - left
    half = taps // 2 - 1
    out = np.zeros((taps, *position.shape), dtype=np.float32)
    out[half] = 1.0
    for order in (n for n in (2, 4, 6) if n <= taps):
        fits = (left >= order // 2 - 1) & (left <= samples - 1 - order // 2)
        weights = _combined(kernel_weights(fraction, order), combine)
        first = half - (order // 2 - 1)
        for t in range(taps):
            inner = t - first
            value = weights[inner] if 0 <= inner < order else 0.0
            out[t] = np.where(fits, value, out[t])
    return left, out


def _combined(weights: NDArray[np.float64], combine: Combine) -> NDArray[np.float64]:
    if combine == "signed":
        return weights
    return weights**2 if combine == "squared" else np.abs(weights)


def _spline_squares(fraction: Floats, order: Literal[3, 5]) -> NDArray[np.float64]:
    """Sum of squared weights of a cardinal spline at a fraction, from a table."""
    from scipy.ndimage import map_coordinates

    grid = np.linspace(0, 1, 33)
    impulse = np.zeros(65)
    impulse[32] = 1.0
    reach = np.arange(-24, 25)
    positions = 32 + reach[None, :] + grid[:, None]
    weights = map_coordinates(impulse, positions[None], order=order, mode="constant")
    return np.asarray(np.interp(np.asarray(fraction), grid, (weights**2).sum(axis=1)), dtype=np.float64)


def _split(shift: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    whole = np.floor(shift + WHOLE)
    fraction = np.maximum(shift - whole, 0.0)
    return whole.astype(np.intp), np.where(fraction < WHOLE, 0.0, fraction)


def _snap(mapping: Affine, shape: tuple[int, int]) -> Affine:
    """Round a matrix to the unit matrix, and an offset to whole pixels, where nobody sees the difference."""
    m, o = mapping.matrix, mapping.offset
    centre = (np.array(shape) - 1) / 2
    if np.abs((m - np.eye(2)) * np.array(shape)).sum(axis=1).max() < _SAME:
        # Kept exact at the centre, so that the error is at most half of the limit.
        o, m = o + (m - np.eye(2)) @ centre, np.eye(2)
    if (m == np.eye(2)).all():
        whole = np.rint(o)
        o = np.where(np.abs(o - whole) < WHOLE, whole, o)
    return Affine(m, o)


def _is_shear(matrix: NDArray[np.float64], size: int) -> bool:
    """Tell whether each row moves as a whole along x, then each column along y, to well below a pixel."""
    if not matrix[0, 0] > 0:
        return False
    stretch_x = np.linalg.det(matrix) / matrix[0, 0] - 1
    return bool(abs(stretch_x) * size < _SAME and abs(matrix[0, 0] - 1) * size < _SAME)


def _overlap(source: int, target: int, shift: int) -> tuple[slice, slice]:
    """Cuts of source and target where target[k] = source[k + shift] exists."""
    start, stop = max(0, -shift), min(target, source - shift)
    stop = max(start, stop)
    return slice(start + shift, stop + shift), slice(start, stop)
