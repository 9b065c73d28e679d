"""Flags that follow from the counts of raw frames, and where to look for afterglow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import bits
from niripipe.algorithms.flags import Flags, few_true
from niripipe.algorithms.parallel import plane_rows, row_blocks
from niripipe.algorithms.regions import connected
from niripipe.algorithms.sources import RowSource
from niripipe.errors import DataError

__all__ = ["find_flags", "flag_levels", "where_flagged"]

Bool = NDArray[np.bool_]
Mask = NDArray[np.uint16]

# A star that saturates is some tens of pixels across; what is larger is sky, glow or a lamp.
_LARGEST_SOURCE = 10000


def flag_levels(
    data: NDArray[np.float32],
    saturation: float | None,
    non_linear: float | None = None,
    *,
    largest_source: int = _LARGEST_SOURCE,
    out: Mask | None = None,
) -> Mask:
    """Flag pixels by level, and the holes in saturated cores.

    At or above `saturation` a pixel gets `bits.SATURATED`, below that at or above `non_linear`
    `bits.NON_LINEAR`. The core of a very bright source can read low, because it saturates before the first
    of the two reads that are subtracted; it shows as a hole in a patch of flagged pixels. Such a hole is
    flagged `bits.SATURATED` if

    * flagged pixels (touching by sides or corners) surround it on all sides: it does not reach the border,
    * the patch around it contains saturated pixels, and
    * patch and holes fit a box of at most `largest_source` pixels, the size of a source.

    DRAGONS flags every island of up to 10000 pixels below the non-linear level. The two agree on
    saturated stars; frames that are mostly above the level, as those of the thermal sky can be, keep their
    cold and dead pixels unflagged here.

    Parameters
    ----------
    data : ndarray of float32
        Raw counts ``(ny, nx)``, all coadds summed. Pixels that are not a number are never flagged.
    saturation, non_linear : float or None
        Levels in the unit of `data`; None flags nothing by that level. A non-linear level that is not
        below the saturation level is ignored.
    largest_source : int
        Largest area, in pixels, of the box around a patch with holes; 0 leaves holes alone.
    out : ndarray of uint16, optional
        Mask to which the flags are added, in place; a new one otherwise.

    Returns
    -------
    ndarray of uint16
        The mask.

    Raises
    ------
    DataError
        If `out` has another shape than `data`.
    """
    if out is None:
        out = np.zeros(data.shape, np.uint16)
    elif out.shape != data.shape:
        raise DataError("mask and data differ in shape", found=out.shape, expected=data.shape)
    find_flags(data, saturation, non_linear, largest_source=largest_source).add_to(out)
    return out


def find_flags(
    data: RowSource,
    saturation: float | None,
    non_linear: float | None = None,
    *,
    largest_source: int = _LARGEST_SOURCE,
    not_finite: int = 0,
) -> Flags:
    """Find the pixels that `flag_levels` flags; the plane is looked at once, block by block.

    Parameters
    ----------
    data, saturation, non_linear, largest_source
        See `flag_levels`; of `data`, slices of rows are enough.
    not_finite : int
        Bits for pixels that are infinite or not a number.

    Returns
    -------
    Flags
    """
    height, width = data.shape
    levels = [np.float32(level) for level in (saturation, non_linear) if level is not None]
    found, lost = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    bright: list[NDArray[np.float32]] = [np.zeros(0, np.float32)]
    for rows in row_blocks(height, plane_rows(width)):
        values = data[rows].reshape(-1)
        if levels:
            where = few_true(values >= min(levels))
            found.append(where + rows.start * width)
            bright.append(values[where])
        finite = np.isfinite(values)
        if not_finite and not finite.all():
            lost.append(np.flatnonzero(~finite) + rows.start * width)
    where, values = np.concatenate(found), np.concatenate(bright)
    flags = np.zeros(where.size, np.uint16)
    if saturation is not None:
        flags[values >= np.float32(saturation)] = bits.SATURATED
    graded = non_linear is not None and (saturation is None or non_linear < saturation)
    if graded:
        flags[(flags == 0) & (values >= np.float32(non_linear or 0.0))] = bits.NON_LINEAR
    parts = [(where, flags)]
    if graded and saturation is not None and largest_source > 0 and _may_surround(where, width):
        rows_, columns = np.divmod(where, width)
        holes = _holes(rows_, columns, flags == bits.SATURATED, (height, width), largest_source)
        parts.append((holes, np.full(holes.size, bits.SATURATED, np.uint16)))
    missing = np.concatenate(lost)
    parts.append((missing, np.full(missing.size, not_finite, np.uint16)))
    return _united(parts)


def _united(parts: list[tuple[NDArray[np.intp], Mask]]) -> Flags:
    """Join flags; a place that several parts name gets the bits of all."""
    parts = [part for part in parts if part[0].size]
    if len(parts) == 1:
        return Flags(parts[0][0].astype(np.int32), parts[0][1])
    every = np.concatenate([np.zeros(0, np.intp), *(where for where, _ in parts)])
    where, place = np.unique(every, return_inverse=True)
    united = np.zeros(where.size, np.uint16)
    np.bitwise_or.at(united, place, np.concatenate([np.zeros(0, np.uint16), *(flags for _, flags in parts)]))
    return Flags(where.astype(np.int32), united)


def where_flagged(mask: RowSource, wanted: int, *, ignore: int = 0) -> NDArray[np.intp]:
    """Positions of the pixels with any of some bits, such as those that may glow on in later exposures.

    Parameters
    ----------
    mask : RowSource
        Mask ``(ny, nx)``, uint16; it is read block by block.
    wanted : int
        Bits to look for: `bits.SATURATED`, perhaps with `bits.NON_LINEAR`, for afterglow. Only these make
        afterglow, and its own flag is another, so it is not handed on from frame to frame.
    ignore : int
        Bits that take a pixel out: with `bits.BAD`, defects that are saturated in every frame do not count.

    Returns
    -------
    ndarray of int
        Rows and columns ``(n, 2)``, in image order.
    """
    height, width = mask.shape
    found = [np.zeros(0, np.intp)]
    for rows in row_blocks(height, plane_rows(width)):
        flags = mask[rows].reshape(-1)
        where = few_true(flags & np.uint16(wanted) != 0)
        found.append(where[flags[where] & np.uint16(ignore) == 0] + rows.start * width)
    return np.stack(np.divmod(np.concatenate(found), width), axis=1)


def _may_surround(where: NDArray[np.intp], width: int) -> bool:
    """Return whether flagged places, in ascending order, may surround any that are not.

    The first row of a hole lies between two flagged pixels of its row, under flagged ones. Few frames have
    such a gap, and finding their patches takes longer than all else.
    """
    before, behind = where[:-1], where[1:]
    gap = (behind - before > 1) & (before // width == behind // width)
    first, last = before[gap] + 1 - width, behind[gap] - 1 - width
    return bool((_among(first, where) & _among(last, where)).any())


def _among(places: NDArray[np.intp], where: NDArray[np.intp]) -> Bool:
    """Return which places are among others, which are in ascending order."""
    found: Bool = where[np.minimum(np.searchsorted(where, places), where.size - 1)] == places
    return found


def _holes(
    rows: NDArray[np.intp], columns: NDArray[np.intp], saturated: Bool, shape: tuple[int, int], largest: int
) -> NDArray[np.intp]:
    """Return the places of the pixels in the holes of saturated patches that are not flagged themselves."""
    patch = connected(rows, columns, shape, corners=True)
    size = np.bincount(patch)
    n = len(size)
    # Pixels come in image order: the first of a patch is in its top row, the last in its bottom row.
    order = np.argsort(patch, kind="stable")
    start = np.concatenate([[0], np.cumsum(size)])
    top, bottom = rows[order[start[:-1]]], rows[order[start[1:] - 1]]
    left = np.minimum.reduceat(columns[order], start[:-1])
    right = np.maximum.reduceat(columns[order], start[:-1])
    height, width = bottom - top + 1, right - left + 1
    holds_saturated = np.bincount(patch, weights=saturated) > 0
    # The smallest patch that surrounds a pixel has four, in a box of three by three.
    candidates = holds_saturated & (size >= 4) & (height >= 3) & (width >= 3) & (height * width <= largest)
    # A row of a patch that runs through a hole has a gap.
    gap = (np.diff(rows[order]) == 0) & (np.diff(patch[order]) == 0) & (np.diff(columns[order]) > 1)
    candidates &= np.bincount(patch[order[1:]][gap], minlength=n) > 0
    found = [np.zeros(0, np.intp)]
    for index in np.flatnonzero(candidates):
        members = order[start[index] : start[index + 1]]
        own = np.zeros((height[index], width[index]), bool)
        own[rows[members] - top[index], columns[members] - left[index]] = True
        inside, across = np.nonzero(_surrounded(own))
        found.append((inside + top[index]) * shape[1] + across + left[index])
    # Pixels of another patch inside this one keep the flag they have.
    return np.setdiff1d(np.concatenate(found), rows * shape[1] + columns)


def _surrounded(wall: Bool) -> Bool:
    """Return the pixels outside a wall from which no path of pixels that share sides leads to the border.

    Done here because the box of a source is small: walking inwards takes as many steps as it is wide,
    less than a call of an image library that has to be imported first.
    """
    open_ = np.pad(~wall, 1, constant_values=True)
    outside = np.zeros_like(open_)
    outside[[0, -1]] = outside[:, [0, -1]] = True
    reached = 0
    while (count := int(np.count_nonzero(outside))) > reached:
        reached = count
        beside = outside.copy()
        beside[1:] |= outside[:-1]
        beside[:-1] |= outside[1:]
        beside[:, 1:] |= outside[:, :-1]
        beside[:, :-1] |= outside[:, 1:]
        outside = beside & open_
    surrounded: Bool = (open_ & ~outside)[1:-1, 1:-1]
    return surrounded


def flags(data, *, saturation, non_linear, not_finite):  # type: ignore
    return find_flags(data, saturation, non_linear, not_finite=not_finite).add_to(
        np.zeros(data.shape, np.uint16)
    )
