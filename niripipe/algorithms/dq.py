"""Flags that follow from the counts of raw frames, and where to look for afterglow."""

from __future__ import annotations

import numpy as np

from niripipe.algorithms import bits
from niripipe.algorithms.arrays import Bool, Float32, Indices, Mask
from niripipe.algorithms.sources import RowSource

__all__ = ["flags", "where_flagged"]


# Area, in pixels, of the box around the largest saturated star. A star that saturates is some tens of pixels
# across; larger patches are sky, glow or a lamp.
_LARGEST_SOURCE = 10000


def flags(data: Float32, *, saturation: float | None, non_linear: float | None) -> Mask:
    """Flag pixels by level, the holes in saturated cores, and values that are not finite.

    At or above `saturation` a pixel gets `bits.SATURATED`, below that at or above `non_linear`
    `bits.NON_LINEAR`; NaN and infinite values get `bits.NO_DATA`, and so do values below minus `saturation`:
    no difference of two reads is that, and the linearity correction would blow it up. The core of a very
    bright source can read low, because it saturates before the first of the two reads that are subtracted;
    it shows as a hole in a patch of flagged pixels. Such a hole is flagged `bits.SATURATED` if

    * flagged pixels (touching by sides or corners) surround it on all sides: it does not reach the border,
    * the patch around it contains saturated pixels, and
    * patch and holes fit a box of at most 10000 pixels, the size of a source.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Raw counts, all coadds summed.
    saturation, non_linear : float or None
        Levels in the unit of `data`; None flags nothing by that level. A non-linear level that is not
        below the saturation level is ignored. Without both levels no holes are looked for.

    Returns
    -------
    ndarray of uint16, shape (ny, nx)
        The mask.

    Notes
    -----
    DRAGONS flags every island of up to 10000 pixels below the non-linear level. The two agree on
    saturated stars; frames that are mostly above the level, as those of the thermal sky can be, keep their
    cold and dead pixels unflagged here.
    """
    mask = np.zeros(data.shape, np.uint16)
    graded = non_linear is not None and (saturation is None or non_linear < saturation)
    if graded:
        mask[data >= np.float32(non_linear or 0.0)] = bits.NON_LINEAR
    if saturation is not None:
        mask[data >= np.float32(saturation)] = bits.SATURATED
        if graded and _may_have_holes(mask != 0):
            _fill_holes(mask)
    lowest = np.float32(-np.inf if saturation is None else -saturation)
    possible = (data >= lowest) & np.isfinite(data)
    if not possible.all():
        mask[~possible] |= np.uint16(bits.NO_DATA)
    return mask


def where_flagged(mask: RowSource, wanted: int, *, ignore: int = 0) -> Indices:
    """Return the positions of the pixels with any of some bits, such as those that may leave an afterglow.

    Parameters
    ----------
    mask : ndarray of uint16, shape (ny, nx), or RowSource
        Mask; a plane in a file is read as a whole.
    wanted : int
        Bits to look for: `bits.SATURATED`, perhaps with `bits.NON_LINEAR`, for afterglow. Only these make
        afterglow, and its own flag is another, so it is not propagated from frame to frame.
    ignore : int
        Bits that take a pixel out: with `bits.BAD`, defects that are saturated in every frame do not count.

    Returns
    -------
    ndarray of int, shape (n, 2)
        Rows and columns, in image order.
    """
    values = mask[:]
    # Indices of flat truth values are found several times faster than those of numbers in two dimensions.
    found = np.flatnonzero((values & np.uint16(wanted)) != 0)
    found = found[values.ravel()[found] & np.uint16(ignore) == 0]
    return np.stack(np.divmod(found, values.shape[1]), axis=1)


def _may_have_holes(flagged: Bool) -> bool:
    """Return whether flagged pixels may surround any that are not.

    The first row of a hole lies between two flagged pixels of its row, under flagged ones. Few frames have
    such a gap, and labelling their patches takes ten times longer than everything else.
    """
    width = flagged.shape[1]
    flat = flagged.reshape(-1)
    pixels = np.flatnonzero(flat)
    before, behind = pixels[:-1], pixels[1:]
    gap = (behind - before > 1) & (before // width == behind // width) & (before >= width)
    return bool((flat[before[gap] + 1 - width] & flat[behind[gap] - 1 - width]).any())


def _fill_holes(mask: Mask) -> None:
    """Flag the holes of saturated patches that have the size of a source, in place."""
    from scipy import ndimage

    patches, _ = ndimage.label(mask != 0, np.ones((3, 3), bool))
    saturated = np.zeros(int(patches.max()) + 1, bool)
    saturated[patches[mask == bits.SATURATED]] = True
    for number, box in enumerate(ndimage.find_objects(patches), start=1):
        height, width = (side.stop - side.start for side in box)
        if not saturated[number] or min(height, width) < 3 or height * width > _LARGEST_SOURCE:
            continue
        holes = ndimage.binary_fill_holes(patches[box] == number)
        # Pixels of another patch inside this one keep the flag they have.
        mask[box][holes & (patches[box] == 0)] = bits.SATURATED
