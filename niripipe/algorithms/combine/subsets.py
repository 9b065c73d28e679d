"""Medians of many overlapping subsets of the same planes, sharing the work between them.

The sky of a frame is the median of the other frames around it, so that neighbouring frames have nearly the
same sky inputs. Sorting them anew for each frame makes a night cost the square of its length; here what
several subsets have in common is sorted once, and each subset only adds what is its own, and takes out what
it does not have of the run of planes that it spans.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.flags import Flags
from niripipe.algorithms.forks import SharedRoom, can_fork, map_forked
from niripipe.algorithms.parallel import check_threads, even_rows, map_items, row_blocks
from niripipe.algorithms.sorting import select_rows
from niripipe.algorithms.sources import RowSource
from niripipe.errors import ParameterError

from .engine import Combined, combine_special, common_shape, per_input
from .reduce import median_variance_factor
from .select import BEST_TIER
from .settings import Settings

__all__ = ["MaskSource", "SubsetMedian", "subset_medians"]

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]
Subset = tuple[int, ...]

# How many results are made and held at a time at most, and their bytes; each time their inputs are read anew.
_HELD, _HELD_BYTES = 20, 105 << 20
# Values in a block of rows of all inputs, pixels that are sorted at a time, row by row, and pixels into whose
# ranks values are inserted at a time, many ranks in a call. Longer calls would leave the cache, and with
# shorter ones threads wait for the interpreter: measured.
_BLOCK_VALUES, _SORTED, _INSERTED = 1 << 22, 1 << 16, 1 << 15
# Inputs times results, in values, from which on processes share the work: of less, threads make as much.
_APART = 1 << 26
# Taking a value out costs about as much as two insertions into a shared part of the tree save.
_MOST_GAPS = 4
# Up to so many values, pixels without a clean input of several subsets are combined at once.
_TOGETHER = 1 << 18
# Up to this share of masked pixels in a block, it is quicker to do them again than to heed masks everywhere.
_FEW = 0.4


@dataclass(frozen=True, slots=True)
class SubsetMedian:
    """The median of one subset.

    Attributes
    ----------
    data : ndarray of float32
        Plane ``(ny, nx)``.
    variance : ndarray of float32 or None
        Its variance; None without input variances.
    number : ndarray of uint8 (or uint16 above 255 inputs) or None
        Of how many inputs each value is the median, if asked for.
    flags : Flags or None
        Where no clean input was used, the bits of the least bad ones, which were; None without input masks.
    """

    data: Float32
    variance: Float32 | None
    number: NDArray[np.unsignedinteger[Any]] | None
    flags: Flags | None


def subset_medians(
    data: Sequence[RowSource],
    variance: Sequence[RowSource] | None,
    mask: Sequence[RowSource | None] | None,
    subsets: Sequence[Sequence[int]],
    *,
    scale: Sequence[float] | NDArray[np.floating] | None = None,
    zero: Sequence[float] | NDArray[np.floating] | None = None,
    numbers: bool = False,
    threads: int = 1,
    rows_per_block: int | None = None,
) -> Iterator[list[SubsetMedian]]:
    """Combine many subsets of the same planes by their medians.

    Parameters
    ----------
    data, variance, mask, scale, zero
        As for `~niripipe.algorithms.combine.combine`. Sources are asked for their rows more than once.
    subsets : sequence of sequence of int
        Indices into the planes, without repetition. Put subsets with many inputs in common next to each
        other.
    numbers : bool
        Return the number of inputs used in each pixel. Where all inputs have the same noise it says all
        that the variance of a median depends on, see `median_variance_factor`, and is found faster.
    threads : int
        Number of threads; the result does not depend on it.
    rows_per_block : int, optional
        Rows to work on at a time; chosen to suit the cache by default.

    Yields
    ------
    list of SubsetMedian
        As many as are made at a time, for the subsets in order. Take them out of the list to let go of them.

    Raises
    ------
    ParameterError
        If a subset is empty, names a plane twice or one that does not exist, or a sequence has another
        length than `data`.
    DataError
        If there are no planes or shapes differ.

    Notes
    -----
    The data are those of ``combine(operation="median", reject="none")`` bit for bit, and with
    ``reject="minmax", nlow=k, nhigh=k`` too, which does not move a median; variances agree to the rounding of
    sums in another order. The bits "non-linear" and "saturated" of clean inputs are not passed on.

    Of all inputs in the order of their values only those near the middle can become a median. A
    common core is sorted by a network that keeps these; then, going down a binary tree of the subsets, inputs
    are inserted that the two halves do not share, ``v_k := max(v_(k-1), min(v_k, x))``. A frame is rarely
    among its own skies: a subset that lacks few planes of the run from its first to its last one is
    treated as that run, of which the values x of those planes are taken out in the end,
    ``v_k`` becoming ``v_(k+1)`` from x on. An input that must not be used takes part as an infinity, in turn
    positive and negative, so that the median stays at a rank that only depends on whether their number is
    even. All of this is minima, maxima and choices of whole rows.
    """
    check_threads(threads)
    planes = list(data)
    shape = common_shape(
        planes, None if variance is None else list(variance), None if mask is None else list(mask)
    )
    wanted = [_checked(subset, len(planes)) for subset in subsets]
    scales, zeros = per_input("scale", scale, len(planes), 1.0), per_input("zero", zero, len(planes), 0.0)
    result_bytes = (4 + 4 * (variance is not None) + numbers) * shape[0] * shape[1]
    held = int(np.clip(_HELD_BYTES // result_bytes, 2, _HELD))
    turns = math.ceil(len(wanted) / held)
    room = SharedRoom()
    for turn in range(turns):
        part = slice(turn * len(wanted) // turns, (turn + 1) * len(wanted) // turns)
        task = _Task(planes, variance, mask, wanted[part], scales, zeros, numbers, room, threads)
        rows = rows_per_block or max(_BLOCK_VALUES // (len(task.members) * max(shape[1], 1)), 2)
        blocks = row_blocks(shape[0], even_rows(shape[0], rows, threads))
        if task.apart:
            flags = map_forked(task.run, blocks, processes=threads)
        else:
            flags = map_items(task.run, blocks, threads=threads)
        results = task.results(flags)
        del task
        yield results


@runtime_checkable
class MaskSource(RowSource, Protocol):
    """A mask that knows more quickly than from its rows where pixels cannot be used."""

    def unusable(self, rows: slice) -> Bool:
        """Return where any but the bits "non-linear" and "saturated" are set, ``(rows, nx)``."""
        ...

    def at(self, rows: slice, where: NDArray[np.intp]) -> NDArray[np.uint16]:
        """Return the flags of some pixels, whose places in these rows, flattened, are given."""
        ...


@dataclass(frozen=True, slots=True)
class _Rows:
    """A mask of which there is nothing but its rows, as a `MaskSource`."""

    source: RowSource

    def unusable(self, rows: slice) -> Bool:
        return np.asarray(self.source[rows] & np.uint16(0xFFFF & ~BEST_TIER) != 0)

    def at(self, rows: slice, where: NDArray[np.intp]) -> NDArray[np.uint16]:
        return self.source[rows].reshape(-1)[where].astype(np.uint16)


@dataclass(slots=True)
class _Node:
    """What several subsets share: the inputs near the middle in order, and sums over all of them.

    ``rows`` ``(ranks, pixels)`` have the ranks ``first``, ``first + 1`` ... of ``size`` inputs. Of these
    ``masked`` are infinite, and the next one will be the infinity ``sign``.
    """

    rows: Float32
    first: int
    size: int
    sign: Float32 | None
    masked: NDArray[np.unsignedinteger[Any]] | None
    total: Float32 | None

    def cut(self, pixels: slice) -> _Node:
        """Return some of the pixels."""
        return replace(
            self,
            rows=self.rows[:, pixels],
            sign=_cut(self.sign, pixels),
            masked=_cut(self.masked, pixels),
            total=_cut(self.total, pixels),
        )


@dataclass(frozen=True, slots=True)
class _Piece:
    """The inputs in some pixels: values, variances (0 where masked), and what is masked, if anything is.

    ``place`` says which pixels of a block of rows they are. ``nothing`` receives for each subset those in
    which all of it is masked.
    """

    values: Float32
    variance: Float32 | None
    masked: list[Bool | None]
    place: slice | NDArray[np.intp]
    nothing: dict[int, list[NDArray[np.intp]]]

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(self.values.shape[1])

    def parts(self) -> list[_Piece]:
        """Part a block with few masked pixels: all of it as if there were none, then those pixels again."""
        anywhere = None
        for bad in self.masked:
            if bad is not None:
                anywhere = bad.copy() if anywhere is None else np.logical_or(anywhere, bad, out=anywhere)
        if anywhere is None or np.count_nonzero(anywhere) > _FEW * anywhere.size:
            return [self]
        where = np.flatnonzero(anywhere)
        few = _Piece(
            self.values.take(where, axis=1),
            None if self.variance is None else self.variance.take(where, axis=1),
            [None if bad is None else bad[where] for bad in self.masked],
            where,
            self.nothing,
        )
        return [replace(self, masked=[None] * len(self.masked)), few]

    def cut(self, pixels: slice) -> _Piece:
        """Return some of the pixels."""
        place = self.place
        if isinstance(place, slice):
            place = slice(place.start + pixels.start, place.start + pixels.stop)
        else:
            place = place[pixels]
        variance = None if self.variance is None else self.variance[:, pixels]
        masked = [_cut(bad, pixels) for bad in self.masked]
        return _Piece(self.values[:, pixels], variance, masked, place, self.nothing)


class _Task:
    """A few neighbouring subsets."""

    def __init__(
        self,
        data: list[RowSource],
        variance: Sequence[RowSource] | None,
        mask: Sequence[RowSource | None] | None,
        subsets: list[Subset],
        scale: NDArray[np.float64],
        zero: NDArray[np.float64],
        numbers: bool,
        room: SharedRoom,
        threads: int,
    ) -> None:
        self.members = sorted(set().union(*subsets))
        place = {member: k for k, member in enumerate(self.members)}
        self.subsets = [tuple(place[member] for member in subset) for subset in subsets]
        self.gaps = [_gaps(subset) for subset in self.subsets]
        self.runs = [frozenset(s).union(gaps) for s, gaps in zip(self.subsets, self.gaps, strict=True)]
        self.data = [data[k] for k in self.members]
        self.variance = None if variance is None else [variance[k] for k in self.members]
        self.mask: list[MaskSource | _Rows | None] | None = None
        if mask is not None and any(one is not None for one in mask):
            self.mask = [_as_mask(mask[k]) for k in self.members]
        self.scale, self.zero = scale[self.members], zero[self.members]
        self.shape = shape = data[0].shape
        self.counter = np.dtype(np.uint8 if len(self.members) < 256 else np.uint16)
        # Whether other processes are to do a part of it, and have to write where it is seen here.
        work = len(subsets) * len(self.members) * math.prod(shape)
        self.apart = threads > 1 and can_fork() and work >= _APART
        empty = room.empty if self.apart else np.empty
        self.out: list[Float32] = [empty(shape, np.float32) for _ in subsets]
        self.out_variance: list[Float32] | None = None
        if variance is not None:
            self.out_variance = [empty(shape, np.float32) for _ in subsets]
        self.out_number: list[NDArray[np.unsignedinteger[Any]]] | None = None
        if numbers:
            self.out_number = [empty(shape, self.counter) for _ in subsets]
        # To multiply the sum of the variances of n inputs by.
        factors = [0.0] + [median_variance_factor(n) / n**2 for n in range(1, len(self.members) + 1)]
        self.factors = np.array(factors, np.float32)

    def run(self, rows: slice) -> dict[int, Flags]:
        """Find the medians in some rows; return the flags of each subset that has any there."""
        every = range(len(self.subsets))
        with np.errstate(all="ignore"):
            block = self._load(rows)
            for part in block.parts():
                for pixels in row_blocks(part.size, _SORTED):
                    piece = part.cut(pixels)
                    core = self._core(piece)
                    for some in row_blocks(piece.size, _INSERTED):
                        self._descend(piece.cut(some), core.cut(some), every, rows)
            if not block.nothing:
                return {}
            nothing = {k: np.concatenate(places) for k, places in block.nothing.items()}
            return self._least_bad(rows, nothing, block.values)

    def results(self, flags: Sequence[dict[int, Flags]]) -> list[SubsetMedian]:
        """Return the results, with the flags found in all rows."""
        return [
            SubsetMedian(
                data,
                None if self.out_variance is None else self.out_variance[k],
                None if self.out_number is None else self.out_number[k],
                None if self.mask is None else Flags.joined([part[k] for part in flags if k in part]),
            )
            for k, data in enumerate(self.out)
        ]

    # ---- one block

    def _load(self, rows: slice) -> _Piece:
        pixels = (rows.stop - rows.start) * self.shape[1]
        values = np.empty((len(self.data), pixels), np.float32)
        variances = None if self.variance is None else np.empty_like(values)
        masked: list[Bool | None] = []
        for k, source in enumerate(self.data):
            value = values[k]
            np.multiply(source[rows].reshape(-1), np.float32(self.scale[k]), out=value, casting="unsafe")
            if self.zero[k] != 0:
                value += np.float32(self.zero[k])
            total = np.add.reduce(value)
            if variances is not None and self.variance is not None:
                factor = np.float32(self.scale[k]) ** 2
                np.multiply(self.variance[k][rows].reshape(-1), factor, out=variances[k], casting="unsafe")
                total += np.add.reduce(variances[k])
            worse = None
            if not np.isfinite(total):
                worse = ~np.isfinite(value)
                if variances is not None:
                    worse |= ~np.isfinite(variances[k])
            flags = None if self.mask is None else self.mask[k]
            if flags is not None:
                flagged = flags.unusable(rows).reshape(-1)
                worse = flagged if worse is None else worse | flagged
            if worse is not None and not worse.any():
                worse = None
            if worse is not None and variances is not None:
                np.putmask(variances[k], worse, 0)
            masked.append(worse)
        return _Piece(values, variances, masked, slice(0, pixels), {})

    def _core(self, block: _Piece) -> _Node:
        """Sort what all subsets share."""
        empty = _Node(np.empty((0, block.size), np.float32), 0, 0, None, None, None)
        shared = sorted(frozenset.intersection(*self.runs))
        return self._extended(block, empty, shared, range(len(self.subsets)))

    def _descend(self, block: _Piece, node: _Node, which: range, rows: slice) -> None:
        """Go down to each subset, adding what the subsets of a half share."""
        if len(which) == 1:
            k = which[0]
            self._leaf(block, self._reduced(block, node, self.gaps[k]), k, rows)
            return
        middle = len(which) // 2
        for half in (which[:middle], which[middle:]):
            shared = frozenset.intersection(*(self.runs[k] for k in half))
            above = frozenset.intersection(*(self.runs[k] for k in which))
            self._descend(block, self._extended(block, node, sorted(shared - above), half), half, rows)

    def _extended(self, block: _Piece, node: _Node, new: list[int], which: range) -> _Node:
        """Return a node with more inputs, cut to the ranks that its subsets need."""
        if not new:
            return node
        sign, masked, total = node.sign, node.masked, node.total
        entering: list[Float32] = []
        for k in new:
            value, bad = block.values[k], block.masked[k]
            if bad is not None:
                if sign is None or masked is None:
                    sign = np.full(bad.shape, np.inf, np.float32)
                    masked = np.zeros(bad.shape, self.counter)
                elif masked is node.masked:
                    sign, masked = sign.copy(), masked.copy()
                # One more infinity: of either sign in turn.
                value = np.where(bad, sign, value)
                _turn(sign, bad)
                masked += bad.view(np.uint8)
            entering.append(value)
            if block.variance is not None:
                if total is None:
                    total = block.variance[k].copy()
                elif total is node.total:
                    total = total + block.variance[k]
                else:
                    total += block.variance[k]
        size = node.size + len(new)
        low, high = self._ranks(which, size)
        rows = _joined(node, entering, low, high)
        return _Node(rows, low, size, sign, masked, total)

    def _reduced(self, block: _Piece, node: _Node, gone: Subset) -> _Node:
        """Return a node without some of its inputs."""
        rows, sign, masked, total = node.rows, node.sign, node.masked, node.total
        for k in gone:
            value, bad = block.values[k], block.masked[k]
            if bad is not None:
                assert sign is not None
                assert masked is not None
                # The infinity that came last goes first, whichever input it stood for.
                value = np.where(bad, -sign, value)
                sign, masked = sign.copy(), masked - bad.view(np.uint8)
                _turn(sign, bad)
            rows = _beside(rows[:-1], rows[1:], value)
            if total is not None and block.variance is not None:
                total = total - block.variance[k]
        return _Node(rows, node.first, node.size - len(gone), sign, masked, total)

    def _ranks(self, which: range, size: int) -> tuple[int, int]:
        """Lowest and highest rank, of `size` inputs, that may yet become a median of these subsets."""
        lengths = [(len(self.subsets[k]), len(self.gaps[k])) for k in which]
        low = min((n - 2) // 2 - (n + gaps - size) for n, gaps in lengths)
        high = max((n - 2) // 2 + 1 + gaps for n, gaps in lengths)
        return max(low, 0), min(high, size - 1)

    def _leaf(self, block: _Piece, node: _Node, k: int, rows: slice) -> None:
        """Take the median of one subset."""
        n = node.size
        low = node.rows[max((n - 2) // 2 - node.first, 0)]
        high = node.rows[min((n - 2) // 2 + 1, n - 1) - node.first]
        if n == 1:
            value = low
        elif node.sign is None:
            value = high if n % 2 else (low + high) * np.float32(0.5)
        else:
            # With an odd number of infinities there is one more above the median than below it.
            between = (low + high) * np.float32(0.5)
            odd = node.sign < 0
            value = np.where(odd, between, high) if n % 2 else np.where(odd, low, between)
        self.out[k][rows].reshape(-1)[block.place] = value
        if self.out_variance is not None and node.total is not None:
            factors = self.factors[n::-1]
            factor = factors[0] if node.masked is None else factors.take(node.masked, mode="clip")
            self.out_variance[k][rows].reshape(-1)[block.place] = node.total * factor
        if self.out_number is not None:
            number = n if node.masked is None else self.counter.type(n) - node.masked
            self.out_number[k][rows].reshape(-1)[block.place] = number
        if node.masked is not None:
            nothing = np.flatnonzero(node.masked == n)
            if nothing.size:
                place = block.place
                places = nothing + place.start if isinstance(place, slice) else place[nothing]
                block.nothing.setdefault(k, []).append(places)

    # ---- pixels without a clean input

    def _least_bad(
        self, rows: slice, nothing: dict[int, NDArray[np.intp]], values: Float32
    ) -> dict[int, Flags]:
        """Combine the least bad inputs where a subset has no clean one, and return the flags of these pixels.

        `nothing` has, for each subset that has any, their places in these rows.
        """
        where = np.unique(np.concatenate(list(nothing.values())))
        values = values.take(where, axis=1)
        variance = mask = None
        if self.variance is not None:
            # Those of masked inputs, which the block no longer has.
            variance = np.stack([source[rows].reshape(-1)[where] for source in self.variance])
            variance = variance * np.float32(self.scale[:, None]) ** 2
        if self.mask is not None:
            none = np.zeros(where.size, np.uint16)
            mask = np.stack([none if one is None else one.at(rows, where) for one in self.mask])
        found: dict[int, Flags] = {}
        for alike in self._alike(nothing):
            some = {k: nothing[k] for k in alike}
            cuts = [
                np.ix_(np.array(self.subsets[k]), np.searchsorted(where, places))
                for k, places in some.items()
            ]
            found.update(
                self._combined(
                    rows,
                    some,
                    _side_by_side(values, cuts),
                    None if variance is None else _side_by_side(variance, cuts),
                    None if mask is None else _side_by_side(mask, cuts),
                )
            )
        return found

    def _alike(self, nothing: dict[int, NDArray[np.intp]]) -> list[list[int]]:
        """Group subsets of as many inputs, as long as they have few pixels together: calls are what costs."""
        groups: list[list[int]] = []
        number = values = 0
        for k in sorted(nothing, key=lambda k: len(self.subsets[k])):
            own = len(self.subsets[k]) * nothing[k].size
            if len(self.subsets[k]) != number or values + own > _TOGETHER:
                groups.append([])
                values = 0
            number, values = len(self.subsets[k]), values + own
            groups[-1].append(k)
        return groups

    def _combined(
        self,
        rows: slice,
        places: dict[int, NDArray[np.intp]],
        values: Float32,
        variance: Float32 | None,
        mask: NDArray[np.uint16] | None,
    ) -> dict[int, Flags]:
        """Combine inputs ``(n, pixels)`` with regard to their flags, those of one subset after another."""
        pixels = values.shape[1]
        out = Combined(
            np.empty(pixels, np.float32),
            np.empty(pixels, np.float32),
            None if mask is None else np.zeros(pixels, np.uint16),
            np.empty(pixels, np.uint16),
            None,
        )
        combine_special(values, variance, mask, None, _median_of(len(values)), out, np.arange(pixels))
        found, first = {}, 0
        for k, there in places.items():
            own = slice(first, first + there.size)
            first = own.stop
            self.out[k][rows].reshape(-1)[there] = out.data[own]
            if self.out_variance is not None:
                self.out_variance[k][rows].reshape(-1)[there] = out.variance[own]
            if self.out_number is not None:
                self.out_number[k][rows].reshape(-1)[there] = out.count[own]
            found[k] = Flags.none()
            if out.mask is not None:
                order = np.argsort(there)
                order = order[out.mask[own][order] != 0]
                where = there[order] + rows.start * self.shape[1]
                found[k] = Flags(where.astype(np.int32), out.mask[own][order])
        return found


def _median_of(n: int) -> Settings:
    """Return the settings of a plain median."""
    return Settings.checked(
        n, operation="median", reject="none", hsigma=3, lsigma=3, mclip=True, max_iters=None,
        nlow=0, nhigh=0, median_variance="exact", noise=None,
    )  # fmt: skip


def _gaps(subset: Subset) -> Subset:
    """Return what a subset lacks of the run from its first to its last member, unless that is too much."""
    missing = sorted(set(range(min(subset), max(subset) + 1)).difference(subset))
    return tuple(missing) if len(missing) <= min(_MOST_GAPS, len(subset) // 2) else ()


def _beside(low: Float32, high: Float32, value: Float32) -> Float32:
    """Return the upper of two neighbouring ranks where the value taken out lies below them, else the lower.

    The value is a rank itself, never between the two: limited to them it is one of them, and what is wanted
    is the other. Exclusive-or finds that in full vector speed, which a choice by condition does not have.
    """
    result = np.maximum(low, value)
    np.minimum(result, high, out=result)
    bits = result.view(np.uint32)
    bits ^= low.view(np.uint32)
    bits ^= high.view(np.uint32)
    return result


def _turn(sign: Float32, where: Bool) -> None:
    """Change the sign of some values, in place."""
    sign.view(np.uint32)[:] ^= np.left_shift(where, np.uint32(31), dtype=np.uint32)


def _joined(node: _Node, entering: list[Float32], low: int, high: int) -> Float32:
    """Return the ranks `low` to `high` of the inputs of a node and new ones."""
    rows, first, size = node.rows, node.first, node.size
    if not len(rows):
        return np.stack(select_rows(entering, tuple(range(low, high + 1)), keep=True))
    for value in entering:
        # What is below the lowest row is unknown, unless there is nothing: its rank becomes that of the next.
        bottom, top = first == 0, first + len(rows) == size
        wider = np.empty((len(rows) - 1 + bottom + top, rows.shape[1]), np.float32)
        middle = wider[int(bottom) : len(rows) - 1 + bottom]
        np.minimum(rows[1:], value, out=middle)
        np.maximum(rows[:-1], middle, out=middle)
        if bottom:
            np.minimum(rows[0], value, out=wider[0])
        if top:
            np.maximum(rows[-1], value, out=wider[-1])
        rows, first, size = wider, first + (not bottom), size + 1
    return rows[low - first : high - first + 1]


def _side_by_side(plane: NDArray[Any], cuts: Sequence[tuple[NDArray[np.intp], ...]]) -> NDArray[Any]:
    return np.concatenate([plane[cut] for cut in cuts], axis=1)


def _as_mask(mask: RowSource | None) -> MaskSource | _Rows | None:
    return mask if mask is None or isinstance(mask, MaskSource) else _Rows(mask)


def _cut(values: Any, pixels: slice) -> Any:
    return None if values is None else values[pixels]


def _checked(subset: Sequence[int], n: int) -> Subset:
    members = tuple(int(k) for k in subset)
    if not members or len(set(members)) != len(members) or min(members) < 0 or max(members) >= n:
        raise ParameterError(
            "A subset names each of its planes once",
            item="subsets",
            found=list(subset),
            expected=f"at least one of 0 to {n - 1}",
        )
    return members
