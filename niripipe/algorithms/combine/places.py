"""Inputs that take no part in some pixels, as a list of places: few of them are flagged or hit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.flags import few_true

from .select import BEST_TIER, select_usable

__all__ = ["LeftOut"]


class LeftOut:
    """The inputs of a block that are not usable, as `select_usable` judges it.

    Parameters
    ----------
    data, variance, mask : ndarray
        Inputs ``(n, pixels)``. Not modified.

    Attributes
    ----------
    where : list of ndarray of int
        For each input its pixels that take no part, ascending: at the edges of a mosaic these are many.
    first_and_every_second : list of ndarray of bool
        For each of them, whether it is the first, third ... in its pixel.
    number : ndarray of int, shape (pixels,)
        How many inputs are left.
    """

    def __init__(
        self, data: NDArray[np.float32], variance: NDArray[np.float32], mask: NDArray[np.uint16] | None
    ) -> None:
        n = len(data)
        bad = np.zeros(data.shape, bool)
        if mask is not None:
            for flags, there in zip(mask, bad, strict=True):
                np.not_equal(flags & np.uint16(0xFFFF & ~BEST_TIER), 0, out=there)
        # An input with something that is not a number shows in its sum.
        for k in np.flatnonzero(~np.isfinite(np.add.reduce(data, axis=1) + np.add.reduce(variance, axis=1))):
            bad[k] |= ~(np.isfinite(data[k]) & np.isfinite(variance[k]))
        hopeless = np.flatnonzero(np.logical_and.reduce(bad, axis=0))
        if hopeless.size:
            finite = np.isfinite(data[:, hopeless]) & np.isfinite(variance[:, hopeless])
            bad[:, hopeless] = ~select_usable(None if mask is None else mask[:, hopeless], finite)
        self.where = [few_true(there) for there in bad]
        self.number = n - np.add.reduce(bad, axis=0, dtype=np.min_scalar_type(n)).astype(np.intp)
        # In vector instructions, which `accumulate` does not use.
        for before, now in itertools.pairwise(bad):
            now ^= before
        self.first_and_every_second = [now[where] for now, where in zip(bad, self.where, strict=True)]

    def __bool__(self) -> bool:
        return any(where.size for where in self.where)

    def put(self, plane: NDArray[Any], value: float) -> None:
        """Write a value in their place into inputs ``(n, ...)``."""
        for one, where in zip(plane.reshape(len(plane), -1), self.where, strict=True):
            one[where] = value

    def among(self, inputs: slice) -> NDArray[np.intp]:
        """Return their ascending indices into some flattened inputs."""
        some = [where + np.intp(k * self.number.size) for k, where in enumerate(self.where[inputs])]
        return np.concatenate(some)
