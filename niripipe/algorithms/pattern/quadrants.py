"""Quadrants of a frame in readout order, cut into boxes, and the record of what was done in each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Float32, Floats, Integers
from niripipe.algorithms.pattern.zones import Range, ranges_of
from niripipe.algorithms.robust import fast_median, good_pixels, median_of_good, robust_sigma
from niripipe.errors import DataError

__all__ = [
    "Cleaned",
    "Corner",
    "Quadrant",
    "Tiles",
    "prepared",
    "quadrants_of",
    "rms_before_and_after",
    "source_boxes",
]

_Pixel = TypeVar("_Pixel", bound=np.generic)

# A box whose mean differs from its row and column of boxes by this many standard deviations holds a source.
# About 0.3 of the 4096 boxes of an empty quadrant do so by chance.
_SOURCE_SIGMA = 4.0


@dataclass(frozen=True, slots=True)
class Quadrant:
    """What was found and done in one quadrant.

    Attributes
    ----------
    name : str
        "lower left", "lower right", "upper left" or "upper right".
    strength : float
        Standard deviation of the pattern over its period where it is on, in the unit of the data.
    noise_before, noise_after : float
        Standard deviation of source-free pixels in the cleaned rows about the local level, before and after.
        If not cleaned, both are the robust deviation over all rows, without what the boxes have in common.
    reason : str
        Why the quadrant was cleaned or left alone.
    rows : tuple of (int, int)
        Cleaned rows of the frame, as half-open ranges in ascending order; empty if not cleaned.
    row_shifts : tuple of float
        Constant added to each of the ranges in `rows` to level them with the rest of the quadrant.
    shift : float
        Constant added to the whole quadrant to level it with its neighbours.
    """

    name: str
    strength: float
    noise_before: float
    noise_after: float
    reason: str
    rows: tuple[Range, ...] = ()
    row_shifts: tuple[float, ...] = ()
    shift: float = 0.0

    @property
    def cleaned(self) -> bool:
        """Whether a pattern was subtracted."""
        return bool(self.rows)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A frame without its readout pattern.

    Attributes
    ----------
    data : ndarray of float32, shape (ny, nx)
        The frame, a copy; equal to the input bit for bit where no pattern was subtracted and no level
        changed.
    quadrants : tuple of Quadrant
        Lower left, lower right, upper left, upper right.
    """

    data: Float32
    quadrants: tuple[Quadrant, ...]

    @property
    def cleaned(self) -> bool:
        """Whether any quadrant was cleaned."""
        return any(quadrant.cleaned for quadrant in self.quadrants)


@dataclass(frozen=True, slots=True)
class Corner:
    """Where a quadrant lies in the frame.

    Attributes
    ----------
    name : str
        As in `Quadrant`.
    rows, columns : slice
        Its part of the frame.
    top : bool
        Read from its last row downwards.
    missing : int
        Rows that the outer edge lacks compared with the opposite quadrant.
    """

    name: str
    rows: slice
    columns: slice
    top: bool
    missing: int

    def view(self, plane: NDArray[_Pixel]) -> NDArray[_Pixel]:
        """Return the quadrant of a plane as a view in readout order: row 0 is the outer edge."""
        part = plane[self.rows, self.columns]
        return part[::-1] if self.top else part

    def ranges(self, on: Bool) -> tuple[Range, ...]:
        """Convert flags of rows in readout order to half-open ranges of rows of the frame, ascending."""
        rows = on[::-1] if self.top else on
        first = int(self.rows.start)
        return tuple((first + start, first + stop) for start, stop in ranges_of(rows))


@dataclass(frozen=True, slots=True)
class Tiles:
    """A quadrant cut into boxes.

    Attributes
    ----------
    values : ndarray of float32, shape (boxes in a row, rows of boxes, box height, box width)
        Pixels in readout order, less a common level; 0 where not good.
    good : ndarray of bool
        Pixels to use. Those that complete the last boxes are not.
    mean : ndarray of float32, shape (boxes in a row, rows of boxes)
        Mean of the good pixels of each box.
    valid : ndarray of bool
        Whether half of a box is good.
    """

    values: Float32
    good: Bool
    mean: Float32
    valid: Bool

    @classmethod
    def cut(cls, corner: Corner, frame: Float32, good: Bool, height: int, width: int) -> Tiles:
        """Cut a quadrant; phases count from its outer row (whether or not it exists) and its first column."""
        view, flags = corner.view(frame), corner.view(good)
        ny, nx = view.shape
        before, after = corner.missing % height, -(ny + corner.missing) % height
        pad = ((before, after), (0, -nx % width))
        if any(any(side) for side in pad):
            view, flags = np.pad(view, pad), np.pad(flags, pad)
        shape = (view.shape[0] // height, height, view.shape[1] // width, width)
        # One contiguous copy with the boxes of a row along the first axis, over which medians are taken.
        values = view.reshape(shape).transpose(2, 0, 1, 3).copy()
        flags = flags.reshape(shape).transpose(2, 0, 1, 3).copy()
        # A rough level, subtracted only to keep float32 sums accurate.
        sample = values.reshape(-1)[::17][flags.reshape(-1)[::17]]
        values -= np.float32(fast_median(sample)) if sample.size else np.float32(0)
        values[~flags] = 0
        boxes = (*flags.shape[:2], height * width)
        count = np.einsum("abc->ab", flags.reshape(boxes).view(np.uint8), dtype=np.intp)
        total = values.reshape(boxes).sum(axis=-1)
        mean = (total / np.maximum(count, 1)).astype(np.float32)
        return cls(values, flags, mean, count >= max(1.0, 0.5 * height * width))


def prepared(
    data: Floats,
    mask: Integers | None,
    objmask: Integers | None,
    missing: int,
    centre: tuple[int, int] | None = None,
) -> tuple[Float32, Bool, tuple[Corner, ...]]:
    """Check the planes of a frame and cut it into quadrants.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame.
    mask, objmask : ndarray of the same shape, or None
        Data quality and object mask.
    missing : int
        Rows that the frame lacks at the top.
    centre : tuple of int, optional
        First row and column of the frame beyond the middle of the detector, where the quadrants meet; the
        middle of the frame, with `missing` rows added, by default.

    Returns
    -------
    frame : ndarray of float32
        A copy of the data.
    good : ndarray of bool
        Pixels that are finite, have no data-quality bit, and belong to no known object.
    corners : tuple of Corner
        Lower left, lower right, upper left, upper right; without those that the frame does not reach.

    Raises
    ------
    DataError
        If the frame is too small for quadrants.
    """
    frame = np.array(data, dtype=np.float32)
    good = good_pixels(frame, mask, objmask)
    ny, nx = data.shape
    if centre is None:
        centre = (ny + missing) // 2, nx // 2
        if not 0 < centre[0] < ny or centre[1] < 1:
            raise DataError(
                "The frame is too small to have quadrants", found=data.shape, remedy="Lower pad_rows."
            )
    return frame, good, quadrants_of(data.shape, centre)


def quadrants_of(shape: tuple[int, ...], centre: tuple[int, int]) -> tuple[Corner, ...]:
    """Return the quadrants of a frame.

    Parameters
    ----------
    shape : tuple of int
        Shape of the frame.
    centre : tuple of int
        First row and column beyond the middle of the detector; may be outside of the frame.

    Returns
    -------
    tuple of Corner
        Lower left, lower right, upper left, upper right; without those that the frame does not reach.
    """
    (ny, nx), (y, x) = shape, (min(max(at, 0), size) for at, size in zip(centre, shape, strict=True))
    corners: tuple[Corner, ...] = (
        Corner("lower left", slice(0, y), slice(0, x), False, max(ny - 2 * y, 0)),
        Corner("lower right", slice(0, y), slice(x, nx), False, max(ny - 2 * y, 0)),
        Corner("upper left", slice(y, ny), slice(0, x), True, max(2 * y - ny, 0)),
        Corner("upper right", slice(y, ny), slice(x, nx), True, max(2 * y - ny, 0)),
    )
    # The upper half alone lacks no rows of an opposite one.
    if y in (0, ny):
        corners = tuple(replace(corner, missing=0) for corner in corners)
    return tuple(c for c in corners if c.rows.start < c.rows.stop and c.columns.start < c.columns.stop)


def source_boxes(tiles: Tiles) -> Bool:
    """Find boxes that stand out from their surroundings, shape (boxes in a row, rows of boxes).

    The mean over a whole number of periods does not see the pattern, whatever its strength, so sources can be
    found before the pattern is known.
    """
    mean, valid = tiles.mean, tiles.valid
    # Twice: the median over rows of boxes first sees steps of the level where the pattern switches on.
    excess = mean - np.nan_to_num(median_of_good(mean, valid))
    excess = excess - np.nan_to_num(median_of_good(excess.T, valid.T))[:, None]
    sigma = robust_sigma(excess[valid])
    return valid & (np.abs(excess) > _SOURCE_SIGMA * sigma) if sigma > 0 else np.zeros_like(valid)


def rms_before_and_after(
    before: Float32, after: Float32, pattern: Float32, usable: Bool, sigma: float
) -> tuple[float, float, int]:
    """Return the rms of usable pixels before and after a pattern is subtracted, and their number.

    Pixels that are sources or hits in view of the noise ``sigma`` are left out.
    """
    if sigma > 0:
        # One limit for both, so that clipping favours neither.
        usable = usable & (np.abs(before) + np.abs(after) < np.float32(8 * sigma) + np.abs(pattern))
    number = int(np.count_nonzero(usable))
    if number == 0:
        return float("nan"), float("nan"), 0
    first, second = (
        float(np.sqrt(np.mean(np.square(plane[usable], dtype=np.float64)))) for plane in (before, after)
    )
    return first, second, number
