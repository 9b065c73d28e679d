"""Quadrants of a frame in readout order, cut into boxes, and the record of what was done in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.gaussian import robust_sigma
from niripipe.algorithms.pattern.zones import Range
from niripipe.errors import DataError

__all__ = [
    "Cleaned",
    "Corner",
    "Flags",
    "Float32",
    "Float64",
    "Floats",
    "Integers",
    "Quadrant",
    "Tiles",
    "masked_median",
    "prepared",
    "ranked_median",
    "source_boxes",
    "without_sources",
]

Floats = NDArray[np.floating[Any]]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Integers = NDArray[np.integer[Any]] | NDArray[np.bool_]
Flags = NDArray[np.bool_]
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
        Equal if not cleaned, then over all rows.
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

    def ranges(self, on: Flags) -> tuple[Range, ...]:
        """Convert flags of rows in readout order to half-open ranges of rows of the frame, ascending."""
        rows = on[::-1] if self.top else on
        bounds = np.flatnonzero(np.diff(rows, prepend=False, append=False)) + self.rows.start
        return tuple(zip(bounds[::2].tolist(), bounds[1::2].tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Tiles:
    """A quadrant cut into boxes.

    Attributes
    ----------
    values : ndarray of float32, shape (boxes in a row, rows of boxes, box height, box width)
        Pixels in readout order, less a common level; 0 where not good.
    good : ndarray of bool
        Pixels to use. Those that complete the last boxes are not.
    """

    values: Float32
    good: Flags

    @classmethod
    def cut(cls, corner: Corner, frame: Float32, good: Flags, height: int, width: int) -> Tiles:
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
        values -= np.median(sample) if sample.size else np.float32(0)
        values[~flags] = 0
        return cls(values, flags)

    def means(self) -> tuple[Float32, Flags]:
        """Mean of each box, ``(boxes in a row, rows of boxes)``, and whether half of it is good."""
        count = self.good.sum(axis=(2, 3))
        total = self.values.reshape(*count.shape, -1).sum(axis=-1)
        size = self.good.shape[2] * self.good.shape[3]
        return (total / np.maximum(count, 1)).astype(np.float32), count >= max(1.0, 0.5 * size)


def prepared(
    data: Floats, mask: Integers | None, objmask: Integers | None, missing: int
) -> tuple[Float32, Flags, tuple[Corner, ...]]:
    """Check the planes of a frame and cut it into quadrants.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame.
    mask, objmask : ndarray of the same shape, or None
        Data quality and object mask.
    missing : int
        Rows that the frame lacks at the top.

    Returns
    -------
    frame : ndarray of float32
        A copy of the data.
    good : ndarray of bool
        Pixels that are finite, have no data-quality bit, and belong to no known object.
    corners : tuple of Corner
        Lower left, lower right, upper left, upper right.

    Raises
    ------
    DataError
        If the planes are not images of one shape, or too small for quadrants.
    """
    if data.ndim != 2:
        raise DataError(
            "A readout pattern can only be removed from an image",
            found=data.shape,
            expected="2 axes, (ny, nx)",
        )
    frame = np.array(data, dtype=np.float32)
    good = np.isfinite(frame)
    for name, plane in (("mask", mask), ("objmask", objmask)):
        if plane is None:
            continue
        if plane.shape != data.shape:
            raise DataError(
                "A mask does not have the shape of the data",
                item=name,
                found=plane.shape,
                expected=data.shape,
            )
        good &= plane == 0
    ny, nx = data.shape
    middle_y, middle_x = (ny + missing) // 2, nx // 2
    if not 0 < middle_y < ny or middle_x < 1:
        raise DataError(
            "The frame is too small to have quadrants", found=data.shape, remedy="Lower pad_rows."
        )
    lower, upper = slice(0, middle_y), slice(middle_y, ny)
    left, right = slice(0, middle_x), slice(middle_x, nx)
    corners = (
        Corner("lower left", lower, left, False, 0),
        Corner("lower right", lower, right, False, 0),
        Corner("upper left", upper, left, True, missing),
        Corner("upper right", upper, right, True, missing),
    )
    return frame, good, corners


def source_boxes(tiles: Tiles) -> Flags:
    """Find boxes that stand out from their surroundings, shape (boxes in a row, rows of boxes).

    The mean over a whole number of periods does not see the pattern, whatever its strength, so sources can be
    found before the pattern is known.
    """
    mean, valid = tiles.means()
    # Twice: the median over rows of boxes first sees steps of the level where the pattern switches on.
    excess = mean - np.nan_to_num(masked_median(mean, valid))
    excess = excess - np.nan_to_num(masked_median(excess.T, valid.T))[:, None]
    sigma = robust_sigma(excess[valid])
    return valid & (np.abs(excess) > _SOURCE_SIGMA * sigma) if sigma > 0 else np.zeros_like(valid)


def without_sources(frame: Float32, good: Flags, corner: Corner, height: int, width: int) -> Flags:
    """Return the good pixels of a quadrant, in readout order, without boxes that hold a source."""
    tiles = Tiles.cut(corner, frame, good, height, width)
    boxes = np.repeat(np.repeat(source_boxes(tiles).T, height, axis=0), width, axis=1)
    view = corner.view(good)
    first = corner.missing % height
    return np.asarray(view & ~boxes[first : first + len(view), : view.shape[1]])


def masked_median(values: Float32, good: Flags) -> Float32:
    """Median along the first axis of the good values; NaN where there is none."""
    count = np.count_nonzero(good, axis=0)
    ordered = np.sort(np.where(good, values, np.float32(np.inf)), axis=0)
    return np.where(count > 0, ranked_median(ordered, np.zeros_like(count), count), np.float32(np.nan))


def ranked_median(ordered: Float32, low: NDArray[np.intp], high: NDArray[np.intp]) -> Float32:
    """Median of ranks low to high - 1 of columns that are sorted along the first axis."""
    last = len(ordered) - 1
    first = np.take_along_axis(ordered, np.clip((low + high - 1) // 2, 0, last)[None], axis=0)[0]
    second = np.take_along_axis(ordered, np.clip((low + high) // 2, 0, last)[None], axis=0)[0]
    return np.asarray(np.float32(0.5) * (first + second))
