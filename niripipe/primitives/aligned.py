"""The pixels of a frame on another grid, interpolated when somebody needs them."""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.affine import Grid
from niripipe.algorithms.flags import Flags
from niripipe.algorithms.repair import Repairs
from niripipe.algorithms.resample import Resampling
from niripipe.astrodata import DQ, ArrayPlane, AstroData
from niripipe.astrodata.planes import Rows
from niripipe.primitives.objmask import PackedMask

__all__ = ["Aligned", "Outline", "aligned", "outlined"]

_last = threading.local()
"""What a thread read last of a frame: variances are computed from the data, and looked at after them."""


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """What becomes of a frame on another grid, but for its pixels: lists and bits, which need little room.

    Attributes
    ----------
    flags : Flags
        Of the frame.
    repairs : Repairs
        How its bad pixels are replaced.
    spread : Flags
        On the whole grid, but for the places that the frame does not reach.
    objects : PackedMask or None
        Object mask on the whole grid.
    """

    flags: Flags
    repairs: Repairs
    spread: Flags
    objects: PackedMask | None


@dataclass(frozen=True, slots=True)
class Aligned:
    """The planes of a frame behind a mapping.

    Attributes
    ----------
    data, variance : ArrayPlane
        float32, on the part of the grid that the frame fills; `variance` is None if the frame has none.
    mask : callable
        Makes rows of the mask, on the whole grid; bit 16 (no data) where the frame does not reach.
    """

    data: ArrayPlane
    variance: ArrayPlane | None
    mask: Rows


def outlined(frame: AstroData, job: Resampling, grid: Grid, corner: tuple[int, int]) -> Outline:
    """Send the flags and the object mask of a frame through a mapping.

    Parameters
    ----------
    frame, job, grid, corner
        As for `aligned`. The frame is not changed.

    Returns
    -------
    Outline
    """
    plane = frame.rows("mask")
    flags = Flags.none() if plane is None else Flags.of(plane)
    source = _Source(frame, job, flags, job.repairs(flags))
    unknown = np.zeros(0, np.intp) if source.waits else source.unknown(slice(0, job.source[0]))
    spread = _spread(flags.united(unknown, int(DQ.no_data)), job, grid, corner)
    objmask = frame.read_once("OBJMASK")
    objects = None
    if objmask is not None:
        whole = np.zeros(grid.shape, np.uint8)
        whole[_cut(corner, job.target)] = job.objects(objmask)
        objects = PackedMask.of(whole)
    return Outline(flags, source.repairs, spread, objects)


def aligned(
    frame: AstroData, job: Resampling, grid: Grid, corner: tuple[int, int], outline: Outline
) -> Aligned:
    """Send the pixels of a frame through a mapping.

    What can be done row by row waits until somebody looks at the rows: a frame on a common grid then needs
    no more memory than it did before. What other mappings make is computed at once.

    Parameters
    ----------
    frame : AstroData
        With one extension. What becomes of it afterwards does not matter.
    job : Resampling
        The mapping, onto the part of the grid that the frame fills.
    grid : Grid
        The grid.
    corner : tuple of int
        Row and column of the grid at which that part begins.
    outline : Outline
        What `outlined` says.

    Returns
    -------
    Aligned
    """
    source = _Source(frame, job, outline.flags, outline.repairs)
    mask = _mask_within(source, outline.spread, grid, corner)
    if job.by_rows:
        data = ArrayPlane.computed(source.data, job.target, np.float32, using=[source.handles[0]])
        variance = None
        if source.has_variance:
            using = [source.handles[1]]
            variance = ArrayPlane.computed(source.variance, job.target, np.float32, using=using)
        return Aligned(data, variance, mask)
    every = slice(0, job.source[0])
    data = ArrayPlane(job.plane(source.read_data(every), source.repairs))
    noise = source.read_variance(every)
    variance = None if noise is None else ArrayPlane(job.plane(noise, source.repairs, variance=True))
    return Aligned(data, variance, mask)


class _Source:
    """A frame, and what of it rows on the new grid are made from."""

    def __init__(self, frame: AstroData, job: Resampling, flags: Flags, repairs: Repairs) -> None:
        data, variance = frame.handle("data"), frame.handle("variance")
        assert data is not None
        self.job = job
        self.handles = [data] if variance is None else [data, variance]
        self.has_variance = variance is not None
        self._noise_of = None if variance is None else variance.derivation(data)
        self.flags, self.repairs = flags, repairs

    @property
    def waits(self) -> bool:
        """Whether pixels without a value are looked for with the rows, because they are not at hand now."""
        return self.job.by_rows and not self.handles[0].is_loaded

    def data(self, rows: slice) -> NDArray[np.float32]:
        """Return rows of the data on the new grid."""
        every, step = self._contiguous(rows)
        return self.job.rows(self.read_data(self.job.window(every)), self.repairs, every)[::step]

    def variance(self, rows: slice) -> NDArray[np.float32]:
        """Return rows of the variance on the new grid."""
        every, step = self._contiguous(rows)
        block = self.read_variance(self.job.window(every))
        assert block is not None
        return self.job.rows(block, self.repairs, every, variance=True)[::step]

    def unknown(self, rows: slice) -> NDArray[np.intp]:
        """Return the places, among some rows of the frame, of pixels without a value."""
        finite = np.isfinite(self.read_data(rows))
        noise = self.read_variance(rows)
        if noise is not None:
            finite &= np.isfinite(noise)
        if finite.all():
            return np.zeros(0, np.intp)
        places: NDArray[np.intp] = np.flatnonzero(~finite) + rows.start * finite.shape[1]
        return places

    def read_data(self, rows: slice) -> NDArray[np.float32]:
        """Return rows of the data of the frame."""
        known: NDArray[np.float32] | None = self._known(rows)[0]
        if known is None:
            _last.rows = None  # its memory can be used again
            known = self.handles[0].rows()[rows]
            _last.rows = (weakref.ref(self), rows, known, None)
        return known

    def read_variance(self, rows: slice) -> NDArray[np.float32] | None:
        """Return rows of the variance of the frame."""
        if not self.has_variance:
            return None
        data, known = self._known(rows)
        if known is None:
            data = self.read_data(rows) if self._noise_of is not None else data
            known = self.handles[1].rows()[rows] if self._noise_of is None else self._noise_of(data, rows)
            _last.rows = (weakref.ref(self), rows, data, known)
        return cast("NDArray[np.float32]", known)

    def _known(self, rows: slice) -> tuple[Any, Any]:
        last = getattr(_last, "rows", None)
        return last[2:] if last is not None and last[0]() is self and last[1] == rows else (None, None)

    def _contiguous(self, rows: slice) -> tuple[slice, int]:
        first, last, step = rows.indices(self.job.target[0])
        return slice(first, last), step


def _spread(flags: Flags, job: Resampling, grid: Grid, corner: tuple[int, int]) -> Flags:
    """Send flags through a mapping. Most of a mask is no data, or nothing: what differs is kept."""
    found = Flags.of(job.mask(flags))
    y, x = np.divmod(found.where, job.target[1])
    return Flags((y + corner[0]) * grid.shape[1] + x + corner[1], found.bits)


def _mask_within(source: _Source, usual: Flags, grid: Grid, corner: tuple[int, int]) -> Rows:
    """Return the mask of a frame that fills a part of a grid, and has no data elsewhere."""
    height, width = grid.shape
    job = source.job
    inside = _cut(corner, job.target)

    later = source.waits

    def rows_of(rows: slice) -> NDArray[np.uint16]:
        first, last, step = rows.indices(height)
        low, high = max(first - corner[0], 0), min(last - corner[0], job.target[0])
        flags = usual
        if later and low < high:
            unknown = source.unknown(job.window(slice(low, high)))
            if unknown.size:
                flags = _spread(source.flags.united(unknown, int(DQ.no_data)), job, grid, corner)
        present = range(first, last, step)
        made = np.full((len(present), width), DQ.no_data, np.uint16)
        within = (bisect_left(present, edge) for edge in (inside[0].start, inside[0].stop))
        made[slice(*within), inside[1]] = 0
        return flags.add_to(made, rows, height)

    return rows_of


def _cut(corner: tuple[int, int], shape: tuple[int, ...]) -> tuple[slice, slice]:
    return slice(corner[0], corner[0] + shape[0]), slice(corner[1], corner[1] + shape[1])
