"""Medians of many overlapping subsets of the same planes, sharing the work between them.

The sky of a frame is the median of the frames around it, so that neighbouring frames have nearly the same
sky inputs. Neighbouring subsets form a group; its union is sorted once, and the few inputs that a subset
lacks are taken out of the sorted values. The work grows with the length of a night, not with its square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.parallel import check_threads, map_blocks, row_blocks
from niripipe.algorithms.sorting import select_rows
from niripipe.algorithms.sources import RowSource
from niripipe.errors import ParameterError

from .inputs import Inputs, Numbers
from .pixels import Combined, combine_special, counter
from .reduce import median_variance_factor
from .select import UNUSABLE, select_usable, with_infinities
from .settings import Settings

__all__ = ["subset_medians"]

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]
Count = NDArray[np.unsignedinteger[Any]]
Subset = tuple[int, ...]

_HELD, _HELD_BYTES = 20, 60 << 20
"""How many results are made and held at a time at most, and their bytes; inputs are read again each time."""
_BLOCK_VALUES = 1 << 20
"""Values of all inputs in a block of rows."""
_SORTED = 1 << 15
"""Pixels sorted at a time: more leave the cache, and with fewer threads wait for each other."""
_LENGTH_PER_ABSENT = 6
"""A subset of so many inputs may lack one of its group, a longer one more in proportion."""


def subset_medians(
    data: Sequence[RowSource],
    variance: Sequence[RowSource] | None,
    mask: Sequence[RowSource | None] | None,
    subsets: Sequence[Sequence[int]],
    *,
    scale: Numbers | None = None,
    zero: Numbers | None = None,
    threads: int = 1,
    rows_per_block: int | None = None,
) -> Iterator[list[Combined]]:
    """Combine many subsets of the same planes by their medians; the inputs are released with the last batch.

    Parameters
    ----------
    data, variance, mask, scale, zero, threads, rows_per_block
        As for `~niripipe.algorithms.combine.combine`. Sources are read more than once.
    subsets : sequence of sequence of int
        Indices into the planes. Put subsets with many inputs in common next to each other.

    Yields
    ------
    list of Combined
        A batch of results, in order. The variance is None without input variances; the mask has the bits of
        the least bad inputs where none is clean.

    Raises
    ------
    ParameterError, DataError
        If a subset is empty or names planes twice or wrongly; lengths or shapes differ; there are no planes.

    Notes
    -----
    The data are those of ``combine(operation="median", reject="none")`` bit for bit. The bits "non-linear"
    and "saturated" of clean inputs do not reach the mask.
    """
    check_threads(threads)
    inputs = Inputs.checked(data, variance, mask, scale, zero)
    wanted = [_checked(subset, len(data)) for subset in subsets]
    ny, nx = inputs.shape
    result_bytes = (5 + 4 * (variance is not None) + 2 * (inputs.mask is not None)) * ny * nx
    held = int(np.clip(_HELD_BYTES // max(result_bytes, 1), 2, _HELD))
    turns = -(-len(wanted) // held)
    for turn in range(turns):
        part = wanted[turn * len(wanted) // turns : (turn + 1) * len(wanted) // turns]
        members = sorted(set().union(*part))
        local = {member: k for k, member in enumerate(members)}
        batch = _Batch(inputs.select(members), [tuple(local[k] for k in subset) for subset in part])
        rows = rows_per_block or max(_BLOCK_VALUES // (len(members) * max(nx, 1)), 2)
        map_blocks(batch.run, ny, rows_per_block=rows, threads=threads)
        results = batch.results
        del batch
        if turn == turns - 1:
            del inputs, data, variance, mask
        yield results


def _checked(subset: Sequence[int], n: int) -> Subset:
    members = tuple(int(k) for k in subset)
    if members and len(set(members)) == len(members) and min(members) >= 0 and max(members) < n:
        return members
    raise ParameterError(
        "A subset names each of its planes once",
        item="subsets",
        found=list(subset),
        expected=f"at least one of 0 to {n - 1}",
    )


def _grouped(subsets: list[Subset]) -> list[list[int]]:
    """Group consecutive subsets, by number, so that none lacks many members of the union."""
    groups: list[list[int]] = []
    for k in range(len(subsets)):
        group = [*groups[-1], k] if groups else [k]
        smallest = min(len(subsets[number]) for number in group)
        lacking = len(frozenset().union(*(subsets[number] for number in group))) - smallest
        if groups and lacking <= max(smallest // _LENGTH_PER_ABSENT, 1):
            groups[-1] = group
        else:
            groups.append([k])
    return groups


@dataclass(frozen=True, slots=True)
class _Block:
    """All inputs in some pixels ``(n, pixels)``; variances are 0 where an input is unusable."""

    data: Float32
    variance: Float32 | None
    unusable: Bool

    def cut(self, pixels: slice) -> _Block:
        """Return some of the pixels."""
        variance = None if self.variance is None else self.variance[:, pixels]
        return _Block(self.data[:, pixels], variance, self.unusable[:, pixels])


class _Batch:
    """A few neighbouring subsets, whose results are made at the same time."""

    def __init__(self, inputs: Inputs, subsets: list[Subset]) -> None:
        self.inputs = inputs
        self.subsets = subsets
        self.groups = _grouped(subsets)
        n, shape = len(inputs.data), inputs.shape
        # The variance of a median of k values is the sum of their variances times factor k.
        factors = [0.0] + [median_variance_factor(k) / k**2 for k in range(1, n + 1)]
        self.factors = np.array(factors, np.float32)
        self.results = [
            Combined(
                np.empty(shape, np.float32),
                None if inputs.variance is None else np.empty(shape, np.float32),
                None if inputs.mask is None else np.zeros(shape, np.uint16),
                np.empty(shape, counter(n)),
            )
            for _ in subsets
        ]

    def run(self, rows: slice) -> None:
        """Find the medians in some rows."""
        with np.errstate(all="ignore"):
            planes = self.inputs.read(rows).flat()
            # Where no input is clean the least bad ones are used.
            usable = select_usable(planes.mask, planes.finite())
            # Negative zeros become positive: values that are equal have to have the same bits.
            planes.data[:] += np.float32(0)
            variance = planes.variance
            known = None if variance is None else np.where(usable, variance, np.float32(0))
            block = _Block(planes.data, known, ~usable)
            results = [result.flat_rows(rows) for result in self.results]
            for pixels in row_blocks(usable.shape[1], _SORTED):
                for group in self.groups:
                    self._run_group(
                        block.cut(pixels), group, [result.flat_rows(pixels) for result in results]
                    )
            if planes.mask is not None:
                self._set_flags(planes.mask, usable, results)
            for subset, result in zip(self.subsets, results, strict=True):
                where = np.flatnonzero(~np.logical_or.reduce([usable[k] for k in subset]))
                if where.size:
                    # The least bad inputs of this subset are worse than those of the others.
                    chosen = itemgetter(np.ix_(np.array(subset), where))
                    settings = Settings(n_inputs=len(subset), operation="median")
                    result.put(where, combine_special(planes.each(chosen), None, settings))

    def _set_flags(self, mask: NDArray[np.uint16], usable: Bool, results: list[Combined]) -> None:
        """Pass the flags of the inputs used to the results where no input is clean."""
        where = np.flatnonzero(~np.logical_or.reduce(usable & (mask & UNUSABLE == 0)))
        flags = mask.take(where, axis=1) * usable.take(where, axis=1)
        for subset, result in zip(self.subsets, results, strict=True):
            if result.mask is not None:
                result.mask[where] = np.bitwise_or.reduce([flags[k] for k in subset])

    def _run_group(self, block: _Block, group: list[int], results: list[Combined]) -> None:
        members = frozenset().union(*(self.subsets[k] for k in group))
        lengths = [len(self.subsets[k]) for k in group]
        last = max(_low_rank(n) + 1 + len(members) - n for n in lengths)
        union = _Sorted.of(block, sorted(members), _low_rank(min(lengths)), min(last, len(members) - 1))
        for k in group:
            n, result = len(self.subsets[k]), results[k]
            absent = sorted(members.difference(self.subsets[k]))
            found = union.without(block, absent, _low_rank(n))
            result.data[:] = found.median(n)
            result.count[:] = number = np.subtract(n, found.masked, dtype=found.masked.dtype)
            if result.variance is not None and found.total is not None:
                np.multiply(found.total, self.factors.take(number), out=result.variance)


def _low_rank(n: int) -> int:
    """Return the lowest rank that the median of `n` inputs depends on if some of them are infinities."""
    return max((n - 2) // 2, 0)


@dataclass(frozen=True, slots=True)
class _Sorted:
    """The middle of the sorted values of some inputs; unusable ones are infinities.

    In each pixel the first infinity is positive, the next one negative and so on. The median of the usable
    values then stays at a rank that only depends on whether the number of infinities is even.

    `rows` ``(ranks, pixels)`` are the ranks `first`, ``first + 1`` ...; `infinity` is the one that would come
    next, `masked` the number of infinities, `total` the sum of the variances of the usable inputs.
    """

    rows: Float32
    first: int
    infinity: Float32
    masked: Count
    total: Float32 | None

    @classmethod
    def of(cls, block: _Block, members: list[int], first: int, last: int) -> _Sorted:
        """Sort some inputs as far as the ranks `first` to `last` need it."""
        pixels = block.data.shape[1]
        infinity = np.full(pixels, np.inf, np.float32)
        masked = np.zeros(pixels, counter(len(members)))
        values = [with_infinities(block.data[k], block.unusable[k], infinity) for k in members]
        for k in members:
            masked += block.unusable[k]
        total = None
        if block.variance is not None:
            total = np.zeros(pixels, np.float32)
            for k in members:
                total += block.variance[k]
        rows = np.stack(select_rows(values, tuple(range(first, last + 1))))
        return cls(rows, first, infinity, masked, total)

    def without(self, block: _Block, absent: list[int], low: int) -> _Sorted:
        """Return the ranks `low` and ``low + 1`` of the inputs that are not absent."""
        infinity, masked, total = -self.infinity, self.masked, self.total
        gone = []
        for k in absent:
            # Infinities leave in the reverse order of their coming, whichever inputs they stand for.
            gone.append(with_infinities(block.data[k], block.unusable[k], infinity))
            masked = masked - block.unusable[k]
            if total is not None and block.variance is not None:
                total = total - block.variance[k]
        start = low - self.first
        rows = self.rows[start : start + 2]
        for step, value in enumerate(select_rows(gone, tuple(range(len(gone)))), start=1):
            rows = _next_rank(rows, self.rows[start + step : start + step + 2], value)
        return _Sorted(rows, low, -infinity, masked, total)

    def median(self, n: int) -> Float32:
        """Return the median of the usable ones among `n` inputs; the rows are the ranks about it."""
        lower, upper = self.rows[0], self.rows[-1]
        if n == 1:
            return np.asarray(lower)
        between = (lower + upper) * np.float32(0.5)
        # With an odd number of infinities there is one more above the median than below it.
        odd = np.right_shift(self.infinity.view(np.int32), 31)
        return _blend(odd, between, upper) if n % 2 else _blend(odd, lower, between)


def _next_rank(rank: Float32, following: Float32, gone: Float32) -> Float32:
    """Return the following rank where a value taken out is not above a rank, else that rank.

    The value, limited to the range of the two ranks, is one of them, and the other one is wanted.
    Exclusive-or finds it faster than `numpy.where`, which suffers from unpredictable branches.
    """
    result = np.maximum(gone, rank)
    np.minimum(result, following, out=result)
    pattern = result.view(np.int32)
    pattern ^= rank.view(np.int32)
    pattern ^= following.view(np.int32)
    return result


def _blend(choice: NDArray[np.int32], first: Float32, second: Float32) -> Float32:
    """Return the first value where all bits of `choice` are set, the second where none is."""
    pattern = np.bitwise_xor(first.view(np.int32), second.view(np.int32))
    pattern &= choice
    pattern ^= second.view(np.int32)
    return pattern.view(np.float32)
