"""Replace pixels: flagged ones by a statistic of others, regions by interpolation across them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Float32, Floats, Indices, Integers, Mask
from niripipe.algorithms.bits import NO_DATA, NOT_SIGNAL
from niripipe.algorithms.robust import median_of_good
from niripipe.errors import AlgorithmError, ParameterError

__all__ = ["Filled", "Region", "interpolate_regions", "parse_regions", "replace_flagged"]

Statistic = Literal["median", "mean"]
Ring = tuple[Integers, Integers]
"""Offsets of the pixels of a ring, along y and x."""

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

    data: Float32
    variance: Float32 | None
    mask: Mask | None
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
    AlgorithmError
        If no usable pixel is there to take a statistic of.
    ParameterError
        If the radii are not usable.
    """
    if inner is not None and (outer is None or inner > outer):
        raise ParameterError(
            "The ring is not usable",
            item="inner, outer",
            found=(inner, outer),
            expected="0 <= inner <= outer, outer >= 1",
        )
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
    """Replace rectangles of pixels by straight lines between the pixels next to them.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame.
    regions : iterable of Region
        What to replace, inside the frame; each sees the result of those before it.
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
    """
    filled = np.array(data, dtype=np.float32)
    var = None if variance is None else np.array(variance, dtype=np.float32)
    flags = np.zeros(data.shape, np.uint16) if mask is None else np.array(mask, dtype=np.uint16)
    usable = np.isfinite(filled) & ((flags & NOT_SIGNAL) == 0)
    changed = np.zeros(data.shape, bool)
    for region in regions:
        box = slice(*region.rows), slice(*region.columns)
        usable[box] = False
        if use_local_median and region.shape == (1, 1):
            _local_median(filled, var, usable, region)
        else:
            _interpolate(filled, var, usable, region, axis)
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
    rows = None if match is None else _parse_limits(match[3].strip(), shape[0])
    columns = None if match is None else _parse_limits(match[2].strip(), shape[1])
    if match is None or rows is None or columns is None:
        raise ParameterError(
            "A region cannot be used",
            item="regions",
            found=text,
            expected=f"x1:x2,y1:y2 with x in 1:{shape[1]} and y in 1:{shape[0]}",
        )
    return Region(rows, columns, None if match[1] is None else int(match[1]))


def _parse_limits(text: str, size: int) -> tuple[int, int] | None:
    """Read the limits along an axis as a half-open range; None if they are not usable."""
    match = re.fullmatch(r"(\d*)\s*(:?)\s*(\d*)", ":" if text == "*" else text)
    if match is None or not (match[1] or match[2]):
        return None
    first = int(match[1] or 1)
    last = int(match[3] or size) if match[2] else first
    return (first - 1, last) if 1 <= first <= last <= size else None


def _fill_rings(
    data: Float32, usable: Bool, bad: Bool, statistic: Statistic, radii: tuple[float, float], rounds: int
) -> int:
    """Fill bad pixels from their rings, in place; return how many were left."""
    ring = _ring(*radii)
    todo = np.flatnonzero(bad)
    for _ in range(rounds):
        blocks = [todo[start : start + _BLOCK] for start in range(0, todo.size, _BLOCK)]
        values = np.concatenate([_ring_statistic(data, usable, block, ring, statistic) for block in blocks])
        found = np.isfinite(values)
        # Only after the round, so that the result does not depend on the order of the pixels.
        data.ravel()[todo[found]] = values[found]
        usable.ravel()[todo[found]] = True
        todo = todo[~found]
        if todo.size == 0 or not found.any():
            break
    return int(todo.size)


def _ring(inner: float, outer: float) -> Ring:
    half = int(outer)
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1]
    square = dy**2 + dx**2
    # A pixel is not replaced from itself.
    chosen = (square >= inner**2) & (square <= outer**2) & (square > 0)
    return dy[chosen], dx[chosen]


def _ring_statistic(
    data: Float32, usable: Bool, pixels: Indices, ring: Ring, statistic: Statistic
) -> Float32:
    """Return the statistic of the usable pixels in the ring of each pixel; NaN where there is none."""
    values, take = _gather(data, usable, pixels, ring)
    if statistic == "mean":
        count = take.sum(axis=1)
        total = np.sum(values, axis=1, where=take, dtype=np.float64)
        result = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        return np.asarray(result, dtype=np.float32)
    return np.asarray(median_of_good(values, take, axis=1))


def _gather(plane: Float32, usable: Bool, pixels: Indices, ring: Ring) -> tuple[Float32, Bool]:
    """Return the values in the ring of each pixel, ``(pixels, ring)``, and which of them are usable."""
    ny, nx = plane.shape
    y, x = (pixels // nx)[:, None] + ring[0], (pixels % nx)[:, None] + ring[1]
    inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
    index = np.where(inside, y * nx + x, 0)
    return plane.ravel()[index], inside & usable.ravel()[index]


def _local_median(data: Float32, variance: Float32 | None, usable: Bool, region: Region) -> None:
    pixel = np.array([region.rows[0] * data.shape[1] + region.columns[0]])
    ring = _ring(*_RING)
    value = _ring_statistic(data, usable, pixel, ring, "median")
    if not np.isfinite(value[0]):
        raise _no_neighbours(region)
    if variance is not None:
        values, take = _gather(variance, usable, pixel, ring)
        variance.ravel()[pixel] = 0.5 * np.pi * float(np.mean(values[take])) / int(take.sum())
    data.ravel()[pixel] = value


def _interpolate(
    data: Float32, variance: Float32 | None, usable: Bool, region: Region, axis: int | None
) -> None:
    height, width = region.shape
    along_x = axis == 1 if axis is not None else width <= height
    if axis is None and (width if along_x else height) == data.shape[1 if along_x else 0]:
        along_x = not along_x
    lines, span = (region.rows, region.columns) if along_x else (region.columns, region.rows)
    start, stop = span

    def lines_of(plane: NDArray[Any]) -> NDArray[Any]:
        """Return the lines along the second axis, for lines along x and along y."""
        return (plane if along_x else plane.T)[slice(*lines)]

    good = lines_of(usable)
    # A column that is never usable keeps argmax defined at the ends of the frame.
    left, right = (np.pad(part, ((0, 0), (0, 1))) for part in (good[:, :start][:, ::-1], good[:, stop:]))
    before, after = start - 1 - np.argmax(left, axis=1), stop + np.argmax(right, axis=1)
    has_before, has_after = left.any(axis=1), right.any(axis=1)
    if not (has_before | has_after).all():
        raise _no_neighbours(region)
    before, after = np.where(has_before, before, after), np.where(has_after, after, before)
    each = np.arange(len(good))
    gap = np.maximum(after - before, 1)[:, None]
    share = ((np.arange(start, stop) - before[:, None]) / gap).astype(np.float32)
    share[before == after] = 0
    for plane, power in ((data, 1), (variance, 2)):
        if plane is not None:
            view = lines_of(plane)
            low, high = view[each, before][:, None], view[each, after][:, None]
            view[:, start:stop] = (1 - share) ** power * low + share**power * high


def _no_neighbours(region: Region) -> AlgorithmError:
    return AlgorithmError(
        "There is no usable pixel beside a region to interpolate from",
        item="regions",
        found=f"x {region.columns[0] + 1}:{region.columns[1]}, y {region.rows[0] + 1}:{region.rows[1]}",
        remedy="Choose the other axis, or a smaller region.",
    )
