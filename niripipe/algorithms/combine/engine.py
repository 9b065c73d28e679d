"""The combination itself: planes in, one plane out, block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from niripipe.algorithms import bits
from niripipe.algorithms.forks import can_fork, map_forked, shared_empty
from niripipe.algorithms.parallel import (
    PLANE_BLOCK,
    Run,
    check_threads,
    even_rows,
    one_by_one,
    row_blocks,
    tapering_blocks,
    workers,
)
from niripipe.algorithms.sorting import order_rows
from niripipe.algorithms.sources import RowSource
from niripipe.errors import DataError, ParameterError

from .noiseclip import HALO, NoiseModel, outliers
from .places import LeftOut
from .reduce import mean_of_used, reduce_all, reduce_used
from .reject import doubtful, reject
from .select import BEST_TIER, select_usable
from .settings import MedianVariance, Operation, Rejection, Settings

__all__ = ["Combined", "MedianVariance", "Operation", "Rejection", "combine"]

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

# Values of all inputs together in a block of rows: eight megabytes of float32. Smaller blocks would suit the
# cache better, but threads then spend their time handing the interpreter lock to each other.
_BLOCK_VALUES = 1 << 21
# Values of all inputs that are read at a time, input by input, by all processes: data, variance and mask of
# them take 105 megabytes. Rows that are computed need more rows of what they are computed from.
_READ_VALUES = 10 << 20
# Rows of an input with fewer values are read by one thread: two would wait for each other's short calls.
_SHARED = 1 << 16
# Strips that a process goes through at a time: each but the first needs fewer rows.
_LANE = 3
# Rows of such a lane at least: each also reads a dozen rows more than it combines.
_LEAST_LANE = 48
# Values from which on processes share the work: of fewer, two threads make as much in the time.
_APART = 12 << 20


@dataclass(frozen=True, slots=True)
class Combined:
    """What `combine` returns.

    Attributes
    ----------
    data, variance : ndarray of float32
        Planes ``(ny, nx)``.
    mask : ndarray of uint16 or None
        Bitwise OR of the masks of the inputs used; None if no input had a mask.
    count : ndarray of uint8 (or uint16 above 255 inputs)
        Number of inputs used.
    rejected : ndarray like `count`, or None
        Number of usable inputs that were rejected as outliers, if asked for. DRAGONS's rejection map, which
        counts the inputs left out by data quality too, is the number of inputs less `count`.
    exposure : ndarray of float32, or None
        Sum of the exposures of the inputs used, if they were given.
    """

    data: Float32
    variance: Float32
    mask: NDArray[np.uint16] | None
    count: NDArray[np.unsignedinteger[Any]]
    rejected: NDArray[np.unsignedinteger[Any]] | None
    exposure: Float32 | None = None


def combine(
    data: Sequence[RowSource] | NDArray[Any],
    variance: Sequence[RowSource] | NDArray[Any] | None = None,
    mask: Sequence[RowSource | None] | NDArray[Any] | None = None,
    *,
    operation: Operation = "mean",
    reject: Rejection = "none",
    hsigma: float = 3.0,
    lsigma: float = 3.0,
    mclip: bool = True,
    max_iters: int | None = None,
    nlow: int = 0,
    nhigh: int = 0,
    scale: Sequence[float] | NDArray[np.floating] | None = None,
    zero: Sequence[float] | NDArray[np.floating] | None = None,
    noise: NoiseModel | None = None,
    median_variance: MedianVariance = "exact",
    threads: int = 1,
    rejection_map: bool = False,
    exposures: Sequence[float] | None = None,
    rows_per_block: int | None = None,
) -> Combined:
    """Combine planes of one shape, pixel by pixel.

    Data become ``data * scale + zero`` and variances ``variance * scale**2``; then each pixel selects its
    inputs by data quality, rejects outliers among them, and reduces the rest. The working memory is a
    few blocks of rows per thread, whatever the number and size of the planes; the result does not depend
    on the size of the blocks or the number of threads.

    Parameters
    ----------
    data : sequence of RowSource, or ndarray
        N planes ``(ny, nx)``, read as ``float32``.
    variance : sequence of RowSource, or ndarray, optional
        N planes of variance, in the square of the data's unit.
    mask : sequence of RowSource or None, or ndarray, optional
        N planes of data-quality bits; None in the sequence stands for a good plane. The inputs with the
        best tier of bits are used: none but non-linear and saturated; and cosmic ray; and overlap; and bad;
        and unilluminated; and no data; and any other.
    operation : {"mean", "wtmean", "median", "lmedian"}
        The reduction. ``"wtmean"`` weighs by inverse variance (inputs with variance 0 get no weight; without
        variances it is the mean), ``"lmedian"`` takes the lower of two middle values.
    reject : {"none", "minmax", "sigclip", "varclip", "noiseclip"}
        The rejection: the `nlow` lowest and `nhigh` highest values; values beyond `hsigma` and
        `lsigma` times the standard deviation of the values left so far, or times their own standard
        deviations; or values that a noise model does not explain (see `NoiseModel`; limits of 4 or 5
        suit it).
    hsigma, lsigma : float
        Clipping limits above and below the centre.
    mclip : bool
        The centre of clipping is the median of the selected inputs in every iteration; otherwise the mean
        of those left, from the second iteration.
    max_iters : int, optional
        Most iterations of clipping; until nothing changes by default. ``"noiseclip"`` needs none.
    nlow, nhigh : int
        For minmax. With n of N inputs selected, ``int(n * nlow / N + 0.001)`` are rejected. Both are lowered
        together until one of N values is left.
    scale, zero : sequence of float, optional
        N factors and offsets.
    noise : NoiseModel, optional
        For ``"noiseclip"``; `NoiseModel`'s defaults otherwise.
    median_variance : {"exact", "asymptotic"}
        Variance of a median of n values with mean variance v: ``k(n) v / n`` with `median_variance_factor`
        k, counting all selected values if minmax has rejected as many low as high ones; or
        ``(pi/2) v / n`` counting those left.
    threads : int
        Number of threads.
    rejection_map : bool
        Return the number of rejected inputs too.
    exposures : sequence of float, optional
        Exposure time of each input; their sum over the inputs used in a pixel is returned.
    rows_per_block : int, optional
        Rows to work on at a time; chosen to suit the cache by default.

    Returns
    -------
    Combined
        The variance is ``sum(v) / n**2`` for the mean, ``1 / sum(1 / v)`` for the weighted mean, and as
        above for medians. Without input variances v is the sample variance of the inputs used, and 0 if
        there is one.

    Raises
    ------
    ParameterError
        If a setting cannot be used, or a sequence has another length than `data`.
    DataError
        If there are no planes, shapes differ, or the rejection needs variances and there are none.
    """
    settings = Settings.checked(
        len(data),
        operation=operation,
        reject=reject,
        hsigma=hsigma,
        lsigma=lsigma,
        mclip=mclip,
        max_iters=max_iters,
        nlow=nlow,
        nhigh=nhigh,
        median_variance=median_variance,
        noise=noise,
    )
    check_threads(threads)
    task = _Task(settings, list(data), variance, mask, scale, zero, rejection_map, exposures, threads)
    read_values = _READ_VALUES // threads if task.apart else _READ_VALUES
    rows_per_strip = _rows_that_fit(read_values, PLANE_BLOCK, len(data), task.shape[1])
    if rows_per_block is None:
        fit = _rows_that_fit(_BLOCK_VALUES, PLANE_BLOCK // 2, len(data), task.shape[1])
        least = 8 * HALO if reject == "noiseclip" else 4
        rows_per_block = math.ceil(rows_per_strip / max(rows_per_strip // max(fit, least), 1))
    else:
        rows_per_strip = max(rows_per_strip // rows_per_block, 1) * rows_per_block
    if task.apart:

        def go_through(lane: slice) -> None:
            strip = even_rows(lane.stop - lane.start, rows_per_strip, 1)
            task.run(lane, rows_per_strip=strip, rows_per_block=rows_per_block)

        lanes = tapering_blocks(task.shape[0], _LANE * rows_per_strip, threads, least=_LEAST_LANE)
        map_forked(go_through, lanes, processes=threads)
        return task.result
    every = slice(0, task.shape[0])
    with workers(threads) as run:
        read = run if rows_per_strip * task.shape[1] >= _SHARED else one_by_one
        task.run(every, rows_per_strip=rows_per_strip, rows_per_block=rows_per_block, read=read, combine=run)
    return task.result


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows of all inputs ``(n, rows, nx)``: those to combine, and a few more on either side."""

    rows: slice
    wide: slice
    data: Float32
    variance: Float32 | None
    mask: NDArray[np.uint16] | None

    @property
    def planes(self) -> list[NDArray[Any]]:
        """Data, and variance and mask as far as there are any."""
        return [plane for plane in (self.data, self.variance, self.mask) if plane is not None]

    def rest(self, first: int) -> tuple[slice, slice]:
        """Return where its rows from row `first` on are: in the block, and among rows that begin there."""
        begin = max(first, self.wide.start)
        return slice(begin - self.wide.start, None), slice(begin - first, max(self.wide.stop - first, 0))


class _Known:
    """The last rows of all inputs, which the next strip begins with."""

    def __init__(self, block: _Block, first: int) -> None:
        self.first, self.end = first, block.wide.stop
        # What is combined is changed.
        self._planes = [plane[:, first - block.wide.start :].copy() for plane in block.planes]

    def put_into(self, block: _Block) -> None:
        """Copy what a block has of these rows."""
        begin, end = max(self.first, block.wide.start), min(self.end, block.wide.stop)
        if begin < end:
            for plane, rows in zip(block.planes, self._planes, strict=True):
                plane[:, begin - block.wide.start : end - block.wide.start] = rows[
                    :, begin - self.first : end - self.first
                ]


class _Task:
    """Inputs, buffers and result of one combination."""

    def __init__(
        self,
        settings: Settings,
        data: list[RowSource],
        variance: Sequence[RowSource] | NDArray[Any] | None,
        mask: Sequence[RowSource | None] | NDArray[Any] | None,
        scale: Sequence[float] | NDArray[np.floating] | None,
        zero: Sequence[float] | NDArray[np.floating] | None,
        rejection_map: bool,
        exposures: Sequence[float] | None,
        threads: int,
    ) -> None:
        self.settings = settings
        self.data = data
        self.variance = None if variance is None else list(variance)
        self.mask = None if mask is None or all(one is None for one in mask) else list(mask)
        self.shape = common_shape(data, self.variance, self.mask)
        if self.variance is None and settings.reject in ("varclip", "noiseclip"):
            raise DataError(
                "this rejection needs the variance of every input", item="reject", found=settings.reject
            )
        self.scale = per_input("scale", scale, len(data), 1.0)
        self.zero = per_input("zero", zero, len(data), 0.0)
        # Whether other processes are to do a part of it, and have to write where it is seen here.
        self.apart = threads > 1 and can_fork() and len(data) * math.prod(self.shape) >= _APART
        empty = shared_empty if self.apart else np.empty
        counter: DTypeLike = np.uint8 if len(data) < 256 else np.uint16
        self.result = Combined(
            empty(self.shape, np.float32),
            empty(self.shape, np.float32),
            None if self.mask is None else empty(self.shape, np.uint16),
            empty(self.shape, counter),
            empty(self.shape, counter) if rejection_map else None,
            None if exposures is None else empty(self.shape, np.float32),
        )
        self.exposures = None if exposures is None else per_input("exposures", exposures, len(data), 0.0)
        # Rows beyond a block that its combination looks at.
        self.halo = HALO if settings.reject == "noiseclip" else 0
        self._buffers: dict[tuple[str, int], NDArray[Any]] = {}

    def run(
        self,
        lane: slice,
        *,
        rows_per_strip: int,
        rows_per_block: int,
        read: Run = one_by_one,
        combine: Run = one_by_one,
    ) -> None:
        """Combine rows, strip by strip; what a strip and the next one need is read once."""
        known = None
        for part in row_blocks(lane.stop - lane.start, rows_per_strip):
            strip = slice(lane.start + part.start, lane.start + part.stop)
            blocks = self.blocks(strip, rows_per_block)
            if known is not None:
                for block in blocks:
                    known.put_into(block)
            first = blocks[0].wide.start if known is None else known.end
            if first < blocks[-1].wide.stop:
                read(partial(self.load, blocks, first), range(len(self.data)))
            known = _Known(blocks[-1], max(strip.stop - self.halo, 0))
            combine(self.combine, blocks)

    def blocks(self, strip: slice, rows_per_block: int) -> list[_Block]:
        """Cut rows that are read together into blocks, with room for the inputs that is used again."""
        found = []
        most = min(rows_per_block + 2 * self.halo, self.shape[0])
        n_rows = strip.stop - strip.start
        for number, part in enumerate(row_blocks(n_rows, even_rows(n_rows, rows_per_block, 1))):
            rows = slice(strip.start + part.start, strip.start + part.stop)
            wide = slice(max(rows.start - self.halo, 0), min(rows.stop + self.halo, self.shape[0]))
            buffer = partial(self._buffer, number=number, height=wide.stop - wide.start, most=most)
            found.append(
                _Block(
                    rows,
                    wide,
                    buffer("data", np.float32),
                    None if self.variance is None else buffer("variance", np.float32),
                    None if self.mask is None else buffer("mask", np.uint16),
                )
            )
        return found

    def load(self, blocks: list[_Block], first: int, k: int) -> None:
        """Read an input from row `first` on; a variance after the data, from which it may be computed."""
        rows = slice(first, blocks[-1].wide.stop)
        factor, offset = np.float32(self.scale[k]), np.float32(self.zero[k])
        with np.errstate(all="ignore"):
            values = self.data[k][rows]
            for block in blocks:
                own, given = block.rest(first)
                part = block.data[k][own]
                np.copyto(part, values[given], casting="unsafe")
                if factor != 1:
                    part *= factor
                if offset != 0:
                    part += offset
            if self.variance is not None:
                values = self.variance[k][rows]
                for block in blocks:
                    assert block.variance is not None
                    own, given = block.rest(first)
                    part = block.variance[k][own]
                    np.copyto(part, values[given], casting="unsafe")
                    if factor != 1:
                        part *= factor**2
            if self.mask is not None:
                source = self.mask[k]
                flags = None if source is None else source[rows]
                for block in blocks:
                    assert block.mask is not None
                    own, given = block.rest(first)
                    np.copyto(block.mask[k][own], 0 if flags is None else flags[given], casting="unsafe")

    def combine(self, block: _Block) -> None:
        """Combine the rows of one block."""
        data, variance, mask = block.data, block.variance, block.mask
        inner = slice(block.rows.start - block.wide.start, block.rows.stop - block.wide.start)
        out = _rows(self.result, block.rows)
        kept = None
        # What is not a number is found, not warned about; threads do not inherit the caller's settings.
        with np.errstate(all="ignore"):
            if self.settings.reject == "noiseclip":
                assert variance is not None
                left_out = LeftOut(_flat(data), _flat(variance), None if mask is None else _flat(mask))
                hits = self._hits(data, variance, left_out)
                if self.settings.operation == "mean":
                    _mean_of_rest(data, variance, mask, left_out, hits, inner, out, self.exposures)
                    return
                kept = np.ones(data.shape, bool)
                kept.reshape(-1)[hits] = False
                kept = _flat(kept[:, inner])
            _combine_block(
                _flat(data[:, inner]),
                None if variance is None else _flat(variance[:, inner]),
                None if mask is None else _flat(mask[:, inner]),
                kept,
                self.settings,
                out,
                self.exposures,
            )

    def _hits(self, data: Float32, variance: Float32, left_out: LeftOut) -> NDArray[np.intp]:
        return outliers(
            data,
            variance,
            self.settings.noise,
            left_out=left_out,
            scale=self.scale,
            hsigma=self.settings.hsigma,
            lsigma=self.settings.lsigma,
        )

    def _buffer(self, name: str, dtype: DTypeLike, *, number: int, height: int, most: int) -> NDArray[Any]:
        """Return room for so many rows of all inputs, of one that has room for the largest block."""
        values = len(self.data) * self.shape[1]
        if (name, number) not in self._buffers:
            self._buffers[name, number] = np.empty(values * most, dtype)
        return self._buffers[name, number][: values * height].reshape(len(self.data), height, self.shape[1])


def _combine_block(
    data: Float32,
    variance: Float32 | None,
    mask: NDArray[np.uint16] | None,
    kept: Bool | None,
    settings: Settings,
    out: Combined,
    exposures: NDArray[np.float64] | None,
) -> None:
    """Combine ``(n, pixels)``; most pixels are plain, and only the others need the careful way."""
    order = None
    if settings.operation == "median" or settings.reject in ("sigclip", "varclip"):
        order = order_rows(data)
    total = np.add.reduce(data, axis=0)
    special, variances = ~np.isfinite(total), None
    if variance is not None:
        variances = np.add.reduce(variance, axis=0)
        special |= ~np.isfinite(variances)
        if settings.operation == "wtmean":
            special |= np.minimum.reduce(variance, axis=0) <= 0
    if mask is not None:
        assert out.mask is not None
        flags = np.bitwise_or.reduce(mask, axis=0, out=out.mask)
        special |= flags & np.uint16(0xFFFF & ~BEST_TIER) != 0
    if kept is not None:
        special |= ~np.logical_and.reduce(kept, axis=0)
    elif settings.reject in ("sigclip", "varclip"):
        assert order is not None
        special |= doubtful(data, variance, order, total, settings)
    elif settings.reject == "minmax" and settings.trims_median:
        # The median is known without knowing what is rejected; only the bits of the rejected matter.
        if mask is not None:
            special |= flags != 0
    elif settings.reject == "minmax":
        special[:] = True
    rejected = settings.nlow + settings.nhigh if settings.reject == "minmax" else 0
    out.count[:] = len(data) - rejected
    if out.rejected is not None:
        out.rejected[:] = rejected
    if out.exposure is not None and exposures is not None:
        out.exposure[:] = exposures.sum()
        # Which of the inputs was rejected has to be known.
        special |= rejected > 0
    where = np.flatnonzero(special)
    if where.size < special.size:
        median = None if order is None else order.median
        value, spread = reduce_all(data, variance, median, (total, variances), settings)
        out.data[:] = value
        out.variance[:] = spread
    if where.size:
        combine_special(data, variance, mask, kept, settings, out, where, exposures)


def _mean_of_rest(
    data: Float32,
    variance: Float32 | None,
    mask: NDArray[np.uint16] | None,
    left_out: LeftOut,
    hits: NDArray[np.intp],
    inner: slice,
    out: Combined,
    exposures: NDArray[np.float64] | None,
) -> None:
    """Take the mean of what is left of ``(n, rows, nx)``, in place: what is left out becomes 0.

    Bit for bit what `combine_special` makes of each pixel, without picking pixels out of all inputs.
    """
    assert variance is not None
    pixels = data[0].size
    cut = slice(inner.start * data.shape[2], inner.stop * data.shape[2])
    count = left_out.number - np.bincount(hits % pixels, minlength=pixels)
    used = count[cut]
    _clear(data, left_out, hits)
    _clear(variance, left_out, hits)
    out.data[:], out.variance[:] = mean_of_used(_flat(data[:, inner]), _flat(variance[:, inner]), used)
    out.count[:] = used
    if mask is not None:
        assert out.mask is not None
        block = _flat(mask[:, inner])
        nothing = np.flatnonzero(used == 0)
        worst = np.bitwise_or.reduce(block[:, nothing], axis=0) | bits.NO_DATA
        _clear(mask, left_out, hits)
        flags = np.bitwise_or.reduce(block, axis=0, out=out.mask)
        flags[nothing] = worst
    if out.rejected is not None:
        out.rejected[:] = left_out.number[cut] - used
    if out.exposure is not None and exposures is not None:
        lost = np.zeros(pixels)
        for where, exposure in zip(left_out.where, exposures, strict=True):
            lost[where] += exposure
        np.add.at(lost, hits % pixels, exposures[hits // pixels])
        out.exposure[:] = exposures.sum() - lost[cut]


def _clear(plane: NDArray[Any], left_out: LeftOut, hits: NDArray[np.intp]) -> None:
    """Put 0 in place of all that does not take part."""
    left_out.put(plane, 0)
    plane.reshape(-1)[hits] = 0


def combine_special(
    data: Float32,
    variance: Float32 | None,
    mask: NDArray[np.uint16] | None,
    kept: Bool | None,
    settings: Settings,
    out: Combined,
    where: NDArray[np.intp],
    exposures: NDArray[np.float64] | None = None,
) -> None:
    """Combine the pixels of a block at the indices `where`, with everything that can be wrong with them."""
    data = data.take(where, axis=1)
    variance = None if variance is None else variance.take(where, axis=1)
    mask = None if mask is None else mask.take(where, axis=1)
    usable = _usable(data, variance, mask)
    if settings.reject == "noiseclip":
        assert kept is not None
        used = usable & kept.take(where, axis=1)
    elif settings.reject == "none":
        used = usable
    else:
        used = reject(data, variance, usable, settings)
    value, spread = reduce_used(data, variance, used, usable, settings)
    count = np.count_nonzero(used, axis=0)
    out.data[where] = value
    out.variance[where] = spread
    out.count[where] = count
    if out.exposure is not None and exposures is not None:
        total = np.zeros(where.size)
        for exposure, there in zip(exposures, used, strict=True):
            total += exposure * there
        out.exposure[where] = total
    if out.rejected is not None:
        out.rejected[where] = np.count_nonzero(usable, axis=0) - count
    if mask is not None:
        assert out.mask is not None
        flags = np.bitwise_or.reduce(mask * used, axis=0)
        nothing = count == 0
        flags[nothing] = np.bitwise_or.reduce(mask[:, nothing], axis=0) | bits.NO_DATA
        out.mask[where] = flags


def _usable(data: Float32, variance: Float32 | None, mask: NDArray[np.uint16] | None) -> Bool:
    """Select by data quality; put 0 in place of what is not a number, in `data` and `variance` themselves."""
    finite = np.isfinite(data)
    if variance is not None:
        finite &= np.isfinite(variance)
    usable = select_usable(mask, finite)
    if not finite.all():
        np.copyto(data, 0, where=~finite)
        if variance is not None:
            np.copyto(variance, 0, where=~finite)
    return usable


def _rows(result: Combined, rows: slice) -> Combined:
    """Flat views of some rows of a result."""
    return Combined(
        result.data[rows].reshape(-1),
        result.variance[rows].reshape(-1),
        None if result.mask is None else result.mask[rows].reshape(-1),
        result.count[rows].reshape(-1),
        None if result.rejected is None else result.rejected[rows].reshape(-1),
        None if result.exposure is None else result.exposure[rows].reshape(-1),
    )


def _flat(block: NDArray[Any]) -> NDArray[Any]:
    return block.reshape(len(block), -1)


def _rows_that_fit(values: int, pixels: int, n: int, width: int) -> int:
    """Return of how many rows n inputs have no more than so many values, and each so many pixels."""
    return max(min(values // n, pixels) // max(width, 1), 1)


def common_shape(
    data: list[RowSource], variance: list[RowSource] | None, mask: list[RowSource | None] | None
) -> tuple[int, int]:
    if not data:
        raise DataError("there is nothing to combine", found="no planes", expected="at least one")
    shape = tuple(data[0].shape)
    if len(shape) != 2:
        raise DataError("a plane must have two dimensions", found=shape, expected="(ny, nx)")
    for name, planes in (("data", data), ("variance", variance or []), ("mask", mask or [])):
        if planes and len(planes) != len(data):
            raise ParameterError(
                "one plane an input is needed", item=name, found=len(planes), expected=len(data)
            )
        for index, plane in enumerate(planes):
            if plane is not None and tuple(plane.shape) != shape:
                raise DataError(
                    "planes to combine must have the same shape",
                    item=f"{name} of input {index}",
                    found=tuple(plane.shape),
                    expected=shape,
                )
    return shape[0], shape[1]


def per_input(
    item: str, values: Sequence[float] | NDArray[np.floating] | None, n: int, default: float
) -> NDArray[np.float64]:
    if values is None:
        return np.full(n, default)
    numbers = np.asarray(values, np.float64)
    if numbers.shape != (n,) or not np.isfinite(numbers).all() or (item == "scale" and (numbers <= 0).any()):
        raise ParameterError(
            "one usable number an input is needed",
            item=item,
            found=numbers.tolist(),
            expected=f"{n} finite numbers" + (" above 0" if item == "scale" else ""),
        )
    return numbers
