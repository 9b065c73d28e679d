"""Quadrants of a frame in readout order, cut into boxes, and what is known about each after cleaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.gaussian import robust_sigma
from niripipe.algorithms.sorting import sort_rows
from niripipe.errors import DataError, ParameterError

__all__ = [
    "Clean",
    "Cleaned",
    "Corner",
    "Finding",
    "Quadrant",
    "Tiles",
    "at_least",
    "check_choice",
    "check_planes",
    "corners_of",
    "masked_median",
    "source_boxes",
    "untouched",
    "usable_pixels",
]

Floats = NDArray[np.floating[Any]]
Float32 = NDArray[np.float32]
Integers = NDArray[np.integer[Any]] | NDArray[np.bool_]
Flags = NDArray[np.bool_]
Clean = Literal["skip", "default", "force"]
_Pixel = TypeVar("_Pixel", bound=np.generic)

# A box whose mean stands out from its row and column of boxes by this many deviations holds a source. About
# 0.3 of the 4096 boxes of an empty quadrant do so by chance.
_SOURCE_SIGMA = 4.0


@dataclass(frozen=True, slots=True)
class Quadrant:
    """What was found and done in one quadrant.

    Attributes
    ----------
    name : str
        "lower left", "lower right", "upper left" or "upper right".
    cleaned : bool
        Whether a pattern was subtracted.
    strength : float
        Standard deviation of the pattern over its period where it is on, in the unit of the data.
    rows : tuple of (int, int)
        Cleaned rows of the frame, as half-open ranges in ascending order; empty if not cleaned.
    noise_before, noise_after : float
        Standard deviation of source-free pixels in those rows about the local level, before and after. Equal
        if not cleaned, then over all rows.
    row_shifts : tuple of float
        Constant added to each of the ranges in `rows` to level them with the rest of the quadrant.
    shift : float
        Constant added to the whole quadrant to level it with its neighbours.
    reason : str
        Why the quadrant was cleaned or left alone.
    """

    name: str
    cleaned: bool
    strength: float
    rows: tuple[tuple[int, int], ...]
    noise_before: float
    noise_after: float
    row_shifts: tuple[float, ...]
    shift: float
    reason: str


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
class Finding:
    """Outcome of a quadrant before levelling: as in `Quadrant`, with zones in readout order."""

    zones: tuple[tuple[int, int], ...]
    strength: float
    noise_before: float
    noise_after: float
    reason: str


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

    def frame_rows(self, start: int, stop: int) -> tuple[int, int]:
        """Convert a half-open range of rows in readout order to rows of the frame."""
        if self.top:
            return self.rows.stop - stop, self.rows.stop - start
        return self.rows.start + start, self.rows.start + stop


@dataclass(frozen=True, slots=True)
class Tiles:
    """A quadrant cut into boxes.

    Attributes
    ----------
    values : ndarray of float32, shape (boxes in a row, rows of boxes, box height, box width)
        Pixels in readout order; 0 where not good.
    good : ndarray of bool
        Pixels to use. Those that complete the last boxes are not.
    level : float
        Was subtracted from the values.
    """

    values: Float32
    good: Flags
    level: float

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
        level = _sampled_level(values, flags)
        values -= np.float32(level)
        values[~flags] = 0
        return cls(values, flags, level)

    def means(self, least: float = 0.5) -> tuple[Float32, Flags]:
        """Mean of each box, ``(boxes in a row, rows of boxes)``, and whether enough of it is good."""
        count = self.good.sum(axis=(2, 3))
        total = self.values.reshape(*count.shape, -1).sum(axis=-1)
        size = self.good.shape[2] * self.good.shape[3]
        return (total / np.maximum(count, 1)).astype(np.float32), count >= max(1.0, least * size)


def check_choice(clean: str) -> None:
    """Refuse what is none of `Clean`."""
    if clean not in ("skip", "default", "force"):
        raise ParameterError("Unknown choice", item="clean", found=clean, expected="skip, default or force")


def check_planes(data: Floats, mask: Integers | None, objmask: Integers | None) -> None:
    """Raise DataError unless the planes are images of one shape, at least 2 x 2 pixels."""
    if data.ndim != 2 or min(data.shape) < 2:
        raise DataError(
            "A readout pattern can only be removed from an image",
            found=data.shape,
            expected="2 axes, (ny, nx)",
        )
    for name, plane in (("mask", mask), ("objmask", objmask)):
        if plane is not None and plane.shape != data.shape:
            raise DataError(
                "A mask does not have the shape of the data",
                item=name,
                found=plane.shape,
                expected=data.shape,
            )


def at_least(limits: dict[str, tuple[float, float]]) -> None:
    """Raise ParameterError for the first ``{name: (value, minimum)}`` below its minimum, or NaN."""
    for name, (value, minimum) in limits.items():
        if not value >= minimum:
            raise ParameterError(
                "A parameter is out of range", item=name, found=value, expected=f">= {minimum:g}"
            )


def corners_of(shape: tuple[int, int], missing: int) -> tuple[Corner, ...]:
    """Cut a frame into quadrants, halves in x and y after adding the missing rows at the top."""
    ny, nx = shape
    middle_y, middle_x = (ny + missing) // 2, nx // 2
    if not 0 < middle_y < ny or middle_x < 1:
        raise DataError("The frame is too small to have quadrants", found=shape, remedy="Lower pad_rows.")
    lower, upper = slice(0, middle_y), slice(middle_y, ny)
    left, right = slice(0, middle_x), slice(middle_x, nx)
    return (
        Corner("lower left", lower, left, False, 0),
        Corner("lower right", lower, right, False, 0),
        Corner("upper left", upper, left, True, missing),
        Corner("upper right", upper, right, True, missing),
    )


def usable_pixels(data: Floats, mask: Integers | None, objmask: Integers | None) -> Flags:
    """Pixels that are finite, have no data-quality bit, and belong to no known object."""
    good = np.isfinite(data)
    for plane in (mask, objmask):
        if plane is not None:
            good &= plane == 0
    return good


def untouched(frame: Float32, corners: tuple[Corner, ...], reason: str) -> Cleaned:
    """Report a frame of which nothing was looked at."""
    nan = float("nan")
    return Cleaned(frame, tuple(Quadrant(c.name, False, nan, (), nan, nan, (), 0.0, reason) for c in corners))


def source_boxes(tiles: Tiles) -> Flags:
    """Find boxes that stand out from their surroundings, shape (boxes in a row, rows of boxes).

    The mean over a whole number of periods does not see the pattern, whatever its strength, so sources can be
    found before the pattern is known.
    """
    mean, valid = tiles.means()
    # Twice: the median over rows of boxes first sees steps of the level where the pattern switches on.
    excess = mean - _filled(masked_median(mean, valid))
    excess = excess - _filled(masked_median(excess.T, valid.T))[:, None]
    sigma = robust_sigma(excess[valid])
    return valid & (np.abs(excess) > _SOURCE_SIGMA * sigma) if sigma > 0 else np.zeros_like(valid)


def masked_median(values: Float32, good: Flags) -> Float32:
    """Median along the first axis of the good values; NaN where there is none."""
    count = good.sum(axis=0)
    filled = np.where(good, values, np.float32(np.inf))
    # A sorting network works on whole rows, which pays when they are long.
    ordered = sort_rows(filled) if filled.shape[1] > 8 * len(filled) else np.sort(filled, axis=0)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, len(values) - 1)[None], axis=0)[0]
    median = np.where(count > 0, np.float32(0.5) * (low + high), np.float32(np.nan))
    return median.astype(np.float32, copy=False)


def _filled(values: Float32) -> Float32:
    return np.where(np.isfinite(values), values, np.float32(0))


def _sampled_level(values: Float32, good: Flags) -> float:
    """Rough level, only to keep float32 sums accurate."""
    sample = values.reshape(-1)[::17][good.reshape(-1)[::17]]
    return float(np.median(sample)) if sample.size else 0.0
