"""Flags that follow from the counts of raw frames, and where to look for afterglow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import bits
from niripipe.algorithms.regions import connected
from niripipe.errors import DataError

__all__ = ["flag_levels", "where_flagged"]

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
    levels = [level for level in (saturation, non_linear) if level is not None]
    if not levels:
        return out
    where = np.flatnonzero(data >= np.float32(min(levels)))
    if not where.size:
        return out
    values = data.reshape(-1)[where]
    flags = np.zeros(where.size, np.uint16)
    if saturation is not None:
        flags[values >= np.float32(saturation)] = bits.SATURATED
    graded = non_linear is not None and (saturation is None or non_linear < saturation)
    if graded:
        flags[(flags == 0) & (values >= np.float32(non_linear or 0.0))] = bits.NON_LINEAR
    rows, columns = np.divmod(where, data.shape[1])
    out[rows, columns] |= flags
    if graded and saturation is not None and largest_source > 0:
        _flag_holes(out, rows, columns, flags == bits.SATURATED, largest_source)
    return out


def where_flagged(mask: Mask, wanted: int, *, ignore: int = 0) -> NDArray[np.intp]:
    """Positions of the pixels with any of some bits, such as those that may glow on in later exposures.

    Parameters
    ----------
    mask : ndarray of uint16
        Mask ``(ny, nx)``.
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
    chosen = (mask & np.uint16(wanted)) != 0
    if ignore:
        chosen &= (mask & np.uint16(ignore)) == 0
    return np.stack(np.divmod(np.flatnonzero(chosen), mask.shape[1]), axis=1)


def _flag_holes(
    mask: Mask, rows: NDArray[np.intp], columns: NDArray[np.intp], saturated: Bool, largest: int
) -> None:
    patch = connected(rows, columns, mask.shape, corners=True)
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
    for index in np.flatnonzero(candidates):
        members = order[start[index] : start[index + 1]]
        own = np.zeros((height[index], width[index]), bool)
        own[rows[members] - top[index], columns[members] - left[index]] = True
        holes = _surrounded(own)
        if holes.any():
            box = mask[top[index] : bottom[index] + 1, left[index] : right[index] + 1]
            # Pixels of another patch inside this one keep the flag they have.
            box[holes & (box & np.uint16(bits.NON_LINEAR | bits.SATURATED) == 0)] |= np.uint16(bits.SATURATED)


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
