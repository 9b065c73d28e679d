"""Replace pixels: flagged ones by a statistic of others, regions by interpolation across them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.bits import NO_DATA, NOT_SIGNAL
from niripipe.errors import AlgorithmError, DataError, ParameterError

__all__ = ["Filled", "Region", "interpolate_regions", "parse_regions", "replace_flagged"]

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Flags = NDArray[np.bool_]
Statistic = Literal["median", "mean"]

# Pixels whose rings are looked at together: with rings of 100 pixels, 1.6 MB, which stays in the cache.
_BLOCK = 4096
# Ring for single pixels, inner and outer radius (DRAGONS, fixPixels).
_RING = (3.0, 5.0)


@dataclass(frozen=True, slots=True)
class Filled:
    """A frame with pixels replaced.

    Attributes
    ----------
    data : ndarray of float32, shape (ny, nx)
        The frame, a copy.
    variance : ndarray of float32 or None
        Its variance, where that is known after the replacement.
    mask : ndarray of uint16 or None
        Its data quality.
    replaced : int
        Number of pixels replaced.
    left : int
        Number of pixels that should have been replaced but had nothing to be replaced from.
    """

    data: NDArray[np.float32]
    variance: NDArray[np.float32] | None
    mask: NDArray[np.uint16] | None
    replaced: int
    left: int


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of pixels.

    Attributes
    ----------
    rows, columns : tuple of (int, int)
        Half-open ranges, counted from 0.
    extension : int or None
        Number of the extension, counted from 1, that a text named.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    extension: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]


def replace_flagged(
    data: Floats,
    mask: Integers,
    *,
    flags: int = NOT_SIGNAL,
    value: Statistic | float = "median",
    inner: float | None = None,
    outer: float | None = None,
    max_iters: int = 1,
) -> Filled:
    """Replace flagged pixels by a value or a statistic of pixels that are not flagged.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame.
    mask : ndarray of uint16, shape (ny, nx)
        Data quality.
    flags : int
        Pixels with any of these bits are replaced. Values that are not finite are never used, and stay
        unless they are flagged.
    value : {"median", "mean"} or float
        Statistic, or the value itself.
    inner, outer : float, optional
        Radii in pixels: the statistic is that of pixels at ``inner <= r <= outer`` around each. Without them
        it is that of all pixels that are not flagged. `inner` alone is an error; without it the ring is a
        disc.
    max_iters : int
        Rounds. In each, pixels whose ring holds a usable pixel are replaced, and are usable in the next.

    Returns
    -------
    Filled
        Without variance and mask, which do not change.

    Raises
    ------
    DataError
        If the planes differ in shape.
    AlgorithmError
        If no usable pixel is there to take a statistic of.
    ParameterError
        If `value`, the radii or `max_iters` are not usable.
    """
    if data.shape != mask.shape or data.ndim != 2:
        raise DataError("Data and mask are not images of one shape", found=(data.shape, mask.shape))
    _check(value, inner, outer, max_iters)
    filled = np.array(data, dtype=np.float32)
    bad = (mask & mask.dtype.type(flags)) != 0
    number = int(np.count_nonzero(bad))
    if number == 0:
        return Filled(filled, None, None, 0, 0)
    if not isinstance(value, str):
        filled[bad] = value
        return Filled(filled, None, None, number, 0)
    usable = ~bad & np.isfinite(filled)
    if outer is not None:
        left = _fill_rings(filled, usable, bad, value, (inner or 0.0, outer), max_iters)
        return Filled(filled, None, None, number - left, left)
    if not usable.any():
        raise AlgorithmError(
            "No pixel is left to take a statistic of",
            found=f"{number} of {bad.size} pixels flagged",
            remedy="Give a number as the value, or flag fewer bits.",
        )
    good = filled[usable]
    filled[bad] = np.median(good) if value == "median" else np.mean(good, dtype=np.float64)
    return Filled(filled, None, None, number, 0)


def interpolate_regions(
    data: Floats,
    regions: Iterable[Region],
    *,
    variance: Floats | None = None,
    mask: Integers | None = None,
    axis: int | None = None,
    use_local_median: bool = False,
) -> Filled:
    """Replace rectangles of pixels by straight lines between the pixels beside them.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame.
    regions : iterable of Region
        What to replace; each sees the result of those before it. Parts outside the frame are ignored.
    variance : ndarray, shape (ny, nx), optional
        Its variance.
    mask : ndarray of uint16, shape (ny, nx), optional
        Its data quality. The ends of a line are the nearest pixels, outside the region, without any bit but
        non-linear and saturated, and with a finite value.
    axis : {1, 2}, optional
        1: lines run along x, within rows; 2: along y. By default across the narrower side, for squares along
        x; and if the region reaches over the whole frame there, along the other.
    use_local_median : bool
        Single pixels become the median of the ring from 3 to 5 pixels around them instead.

    Returns
    -------
    Filled
        `mask` is a copy of the one given, or a new one, with the bit for no data added in the regions. The
        variance of an interpolated pixel is ``w1**2 V1 + w2**2 V2``, of the two ends; that of a local median
        is pi / 2 times the mean of the variances in its ring over their number.

    Raises
    ------
    AlgorithmError
        If a line has no usable pixel on either side.
    DataError
        If the planes differ in shape.
    ParameterError
        If `axis` is neither 1 nor 2.
    """
    for name, plane in (("variance", variance), ("mask", mask)):
        if plane is not None and plane.shape != data.shape:
            raise DataError("Planes differ in shape", item=name, found=plane.shape, expected=data.shape)
    if axis not in (None, 1, 2):
        raise ParameterError("There is no such axis", item="axis", found=axis, expected="1 (x) or 2 (y)")
    filled = np.array(data, dtype=np.float32)
    var = None if variance is None else np.array(variance, dtype=np.float32)
    flags = np.zeros(data.shape, np.uint16) if mask is None else np.array(mask, dtype=np.uint16)
    usable = np.isfinite(filled) & ((flags & NOT_SIGNAL) == 0)
    changed = np.zeros(data.shape, bool)
    for region in regions:
        inside = _clipped(region, filled.shape)
        if 0 in inside.shape:
            continue
        box = slice(*inside.rows), slice(*inside.columns)
        usable[box] = False
        if use_local_median and region.shape == (1, 1):
            _local_median(filled, var, usable, inside)
        else:
            _interpolate(filled, var, usable, inside, axis)
        changed[box] = usable[box] = True
    flags[changed] |= NO_DATA
    return Filled(filled, var, flags, int(np.count_nonzero(changed)), 0)


def parse_regions(text: str, shape: tuple[int, int]) -> tuple[Region, ...]:
    """Read regions written as ``"x1:x2,y1:y2; ..."``.

    Parameters
    ----------
    text : str
        Regions separated by semicolons or line ends. Pixels count from 1 and limits are included; a single
        number is one pixel, ``*`` the whole axis, a missing limit the end of the axis. ``2/`` in front of a
        region names the extension. What follows ``#`` in a line is a comment.
    shape : tuple of (int, int)
        Shape of the frame, ``(ny, nx)``.

    Returns
    -------
    tuple of Region

    Raises
    ------
    ParameterError
        If a region is not written like this, is empty, or reaches outside the frame.
    """
    lines = (line.partition("#")[0] for line in text.splitlines())
    parts = [part.strip() for line in lines for part in line.split(";")]
    return tuple(_parse_region(part, shape) for part in parts if part)


def _parse_region(text: str, shape: tuple[int, int]) -> Region:
    match = re.fullmatch(r"(?:(\d+)\s*/)?([^,/]*),([^,/]*)", text)
    if match is None:
        raise _unreadable(text, shape)
    extension = None if match[1] is None else int(match[1])
    columns, rows = (
        _parse_limits(part.strip(), size, text, shape)
        for part, size in zip((match[2], match[3]), (shape[1], shape[0]), strict=True)
    )
    return Region(rows, columns, extension)


def _parse_limits(text: str, size: int, region: str, shape: tuple[int, int]) -> tuple[int, int]:
    if text == "*":
        return 0, size
    match = re.fullmatch(r"(\d*)\s*(:?)\s*(\d*)", text)
    if match is None or not (match[1] or match[2]):
        raise _unreadable(region, shape)
    first = int(match[1] or 1)
    last = int(match[3] or size) if match[2] else first
    if not 1 <= first <= last <= size:
        raise _unreadable(region, shape)
    return first - 1, last


def _unreadable(text: str, shape: tuple[int, int]) -> ParameterError:
    return ParameterError(
        "A region cannot be used",
        item="regions",
        found=text,
        expected=f"x1:x2,y1:y2 with x in 1:{shape[1]} and y in 1:{shape[0]}",
    )


def _check(value: Statistic | float, inner: float | None, outer: float | None, max_iters: int) -> None:
    if isinstance(value, str) and value not in ("median", "mean"):
        raise ParameterError(
            "Unknown statistic", item="replace_value", found=value, expected="median, mean or a number"
        )
    if outer is None and inner is None:
        return
    if outer is None or not 0 <= (inner or 0.0) <= outer or outer < 1:
        raise ParameterError(
            "The ring is not usable",
            item="inner, outer",
            found=(inner, outer),
            expected="0 <= inner <= outer, outer >= 1",
        )
    if max_iters < 1:
        raise ParameterError(
            "At least one round is needed", item="max_iters", found=max_iters, expected=">= 1"
        )


def _fill_rings(
    data: NDArray[np.float32],
    usable: Flags,
    bad: Flags,
    statistic: Statistic,
    radii: tuple[float, float],
    rounds: int,
) -> int:
    """Fill bad pixels from their rings, in place; return how many were left."""
    dy, dx = _ring(*radii)
    todo = np.flatnonzero(bad)
    for _ in range(rounds):
        values = np.empty(todo.size, np.float32)
        for start in range(0, todo.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            values[block] = _ring_statistic(data, usable, todo[block], dy, dx, statistic)
        found = np.isfinite(values)
        # Only after the round, so that the result does not depend on the order of the pixels.
        data.ravel()[todo[found]] = values[found]
        usable.ravel()[todo[found]] = True
        todo = todo[~found]
        if todo.size == 0 or not found.any():
            break
    return int(todo.size)


def _ring(inner: float, outer: float) -> tuple[Integers, Integers]:
    half = int(outer)
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1]
    square = dy**2 + dx**2
    # The pixel itself is never a source of its own value.
    chosen = (square >= inner**2) & (square <= outer**2) & (square > 0)
    return dy[chosen], dx[chosen]


def _ring_statistic(
    data: NDArray[np.float32],
    usable: Flags,
    pixels: NDArray[np.intp],
    dy: Integers,
    dx: Integers,
    statistic: Statistic,
) -> NDArray[np.float32]:
    """Statistic of the usable pixels in the ring of each pixel; NaN where there is none."""
    values, take = _gather(data, usable, pixels, dy, dx)
    count = take.sum(axis=1)
    if statistic == "mean":
        total = np.sum(values, axis=1, where=take, dtype=np.float64)
        result = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        return np.asarray(result, dtype=np.float32)
    ordered = np.sort(np.where(take, values, np.float32(np.inf)), axis=1)
    each = np.arange(len(ordered))
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, dy.size - 1)
    middle = np.float32(0.5) * (ordered[each, low] + ordered[each, high])
    return np.asarray(np.where(count > 0, middle, np.nan), dtype=np.float32)


def _gather(
    plane: NDArray[np.float32], usable: Flags, pixels: NDArray[np.intp], dy: Integers, dx: Integers
) -> tuple[NDArray[np.float32], Flags]:
    ny, nx = plane.shape
    y, x = (pixels // nx)[:, None] + dy, (pixels % nx)[:, None] + dx
    inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
    place = np.where(inside, y * nx + x, 0)
    return plane.ravel()[place], inside & usable.ravel()[place]


def _clipped(region: Region, shape: tuple[int, ...]) -> Region:
    (y0, y1), (x0, x1) = (
        (min(max(low, 0), size), min(max(high, 0), size))
        for (low, high), size in zip((region.rows, region.columns), shape, strict=True)
    )
    return Region((y0, max(y0, y1)), (x0, max(x0, x1)), region.extension)


def _local_median(
    data: NDArray[np.float32], variance: NDArray[np.float32] | None, usable: Flags, region: Region
) -> None:
    place = np.array([region.rows[0] * data.shape[1] + region.columns[0]])
    dy, dx = _ring(*_RING)
    value = _ring_statistic(data, usable, place, dy, dx, "median")
    if not np.isfinite(value[0]):
        raise _nothing_beside(region)
    if variance is not None:
        values, take = _gather(variance, usable, place, dy, dx)
        variance.ravel()[place] = 0.5 * np.pi * float(np.mean(values[take])) / int(take.sum())
    data.ravel()[place] = value


def _interpolate(
    data: NDArray[np.float32],
    variance: NDArray[np.float32] | None,
    usable: Flags,
    region: Region,
    axis: int | None,
) -> None:
    height, width = region.shape
    along_x = axis == 1 if axis is not None else width <= height
    if axis is None and (width if along_x else height) == data.shape[1 if along_x else 0]:
        along_x = not along_x
    lines, span = (region.rows, region.columns) if along_x else (region.columns, region.rows)
    planes = [data, usable] if variance is None else [data, usable, variance]
    # Lines along the second axis, whichever way they run in the frame.
    views = [(plane if along_x else plane.T)[slice(*lines)] for plane in planes]
    good = views[1]
    start, stop = span
    # A column that is never usable keeps argmax defined at the ends of the frame.
    left, right = (np.pad(part, ((0, 0), (0, 1))) for part in (good[:, :start][:, ::-1], good[:, stop:]))
    before, after = start - 1 - np.argmax(left, axis=1), stop + np.argmax(right, axis=1)
    has_before, has_after = left.any(axis=1), right.any(axis=1)
    if not (has_before | has_after).all():
        raise _nothing_beside(region)
    before, after = np.where(has_before, before, after), np.where(has_after, after, before)
    each = np.arange(len(good))
    place = np.arange(start, stop)
    width_of_gap = np.maximum(after - before, 1)[:, None]
    share = ((place - before[:, None]) / width_of_gap).astype(np.float32)
    share[before == after] = 0
    view = views[0]
    view[:, start:stop] = (1 - share) * view[each, before][:, None] + share * view[each, after][:, None]
    if variance is not None:
        view = views[2]
        low, high = view[each, before][:, None], view[each, after][:, None]
        view[:, start:stop] = (1 - share) ** 2 * low + share**2 * high


def _nothing_beside(region: Region) -> AlgorithmError:
    return AlgorithmError(
        "There is no usable pixel beside a region to interpolate from",
        item="regions",
        found=f"x {region.columns[0] + 1}:{region.columns[1]}, y {region.rows[0] + 1}:{region.rows[1]}",
        remedy="Choose the other axis, or a smaller region.",
    )
