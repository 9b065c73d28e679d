"""Masks of which only the pixels with flags are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.parallel import plane_rows, row_blocks
from niripipe.algorithms.sources import RowSource

__all__ = ["Flags", "few_true"]


@dataclass(frozen=True, slots=True)
class Flags:
    """Flags of a few pixels of a plane.

    Attributes
    ----------
    where : ndarray of int32, shape (n,)
        Places in the flattened plane, in ascending order.
    bits : ndarray of uint16, shape (n,)
        The flags of each.
    """

    where: NDArray[np.int32]
    bits: NDArray[np.uint16]

    @classmethod
    def none(cls) -> Flags:
        """Return a mask without a flag."""
        return cls(np.zeros(0, np.int32), np.zeros(0, np.uint16))

    @classmethod
    def of(cls, mask: RowSource) -> Flags:
        """Return the flags of a mask, which is read block by block."""
        height, width = mask.shape
        found, bits = [np.zeros(0, np.intp)], [np.zeros(0, np.uint16)]
        for rows in row_blocks(height, plane_rows(width)):
            flags = mask[rows].reshape(-1)
            where = few_true(flags != 0)
            found.append(where + rows.start * width)
            bits.append(flags[where].astype(np.uint16))
        return cls(np.concatenate(found).astype(np.int32), np.concatenate(bits))

    @classmethod
    def joined(cls, parts: Sequence[Flags]) -> Flags:
        """Return the flags of several parts of a mask, each behind the one before."""
        if not parts:
            return cls.none()
        return cls(
            np.concatenate([part.where for part in parts]), np.concatenate([part.bits for part in parts])
        )

    def at(self, where: NDArray[np.intp]) -> NDArray[np.uint16]:
        """Return the flags of some places in the flattened plane, 0 for those without any."""
        if not self.where.size:
            return np.zeros(where.size, np.uint16)
        found = np.minimum(np.searchsorted(self.where, where), self.where.size - 1)
        return np.where(self.where[found] == where, self.bits[found], np.uint16(0))

    def united(self, where: NDArray[np.intp], bit: int) -> Flags:
        """Return these flags and a bit in some places more, which are in ascending order."""
        every = np.union1d(self.where, where)
        bits = self.at(every)
        bits[np.searchsorted(every, where)] |= np.uint16(bit)
        return Flags(every.astype(np.int32), bits)

    def add_to(
        self, mask: NDArray[np.uint16], rows: slice = slice(None), height: int | None = None
    ) -> NDArray[np.uint16]:
        """Set the flags in some rows of a mask, in place, and return it.

        Parameters
        ----------
        mask : ndarray of uint16, shape (n, nx)
            These rows, contiguous.
        rows : slice
            Which rows of the plane they are; all by default.
        height : int, optional
            Number of rows of the plane; needed with `rows`.
        """
        if not self.where.size:
            return mask
        first, last, step = rows.indices(len(mask) if height is None else height)
        width = mask.shape[1]
        begin, end = np.searchsorted(self.where, (first * width, last * width))
        where, bits = self.where[begin:end] - first * width, self.bits[begin:end]
        if step > 1:
            row, column = np.divmod(where, width)
            there = row % step == 0
            where, bits = (row // step * width + column)[there], bits[there]
        mask.reshape(-1)[where] |= bits
        return mask


def few_true(where: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return where a flat array is true, looking at eight values at a time as long as they are false."""
    if where.size % 8:
        return np.flatnonzero(where)
    # Whether eight are false is asked of all at once: numbers that are not zero are found one by one.
    eights = np.flatnonzero(where.view(np.uint64) != 0)
    found = np.flatnonzero(where.reshape(-1, 8)[eights])
    few: NDArray[np.intp] = eights[found >> 3] * 8 + (found & 7)
    return few
