"""Estimates for bad pixels from their good neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Repairs", "replace_bad_pixels"]

Plane = NDArray[np.float32]

# The neighbours: those beside a pixel, then those across its corners.
_DY, _DX = np.array([[-1, 1, 0, 0, -1, -1, 1, 1], [0, 0, -1, 1, -1, 1, -1, 1]])


def _tables() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weights of the neighbours for each set of usable ones, ``(256, 8)``: smooth, sharpened."""
    usable = (np.arange(256)[:, None] >> np.arange(8)) & 1
    smooth = usable * np.array([1.0] * 4 + [0.5] * 4)
    smooth /= np.maximum(smooth.sum(axis=1, keepdims=True), 0.5)
    sharp = smooth.copy()
    sharp[255] = [0.5] * 4 + [-0.25] * 4
    return smooth, sharp


_SMOOTH, _SHARP = _tables()


@dataclass(frozen=True, slots=True)
class Repairs:
    """How the bad pixels of a frame are replaced.

    A single bad pixel is half the sum of its four neighbours less a quarter of the sum of the diagonal
    ones, which is exact for surfaces of third order in x and y together, so the core of a star keeps its
    height. With a neighbour missing it is the weighted mean of the good ones. From the rim of a bad area
    this goes some pixels inwards; what lies deeper becomes 0.

    Attributes
    ----------
    bad : ndarray of int32
        All of them, as ascending places in the flattened frame.
    turns : tuple of (ndarray of int32, ndarray of uint8)
        The pixels replaced first, those then next to good ones, and so on, with a bit for each
        neighbour that can be used.
    """

    bad: NDArray[np.int32]
    turns: tuple[tuple[NDArray[np.int32], NDArray[np.uint8]], ...]

    @classmethod
    def of(cls, bad: NDArray[np.integer], shape: tuple[int, int], *, reach: int) -> Repairs:
        """Work out the repair of a frame.

        Parameters
        ----------
        bad : ndarray of int
            Ascending places of the bad pixels in the flattened frame.
        shape : tuple of int
            Of the frame.
        reach : int
            How far into a bad area to go, in pixels.
        """
        ny, nx = shape
        good = np.ones(ny * nx, bool)
        good[bad] = False
        todo, turns = bad.astype(np.int32), []
        for _ in range(reach if todo.size else 0):
            y, x = np.divmod(todo, nx)
            usable = np.zeros(todo.size, np.uint8)
            for k, (dy, dx) in enumerate(zip(_DY.tolist(), _DX.tolist(), strict=True)):
                inside = (y >= -dy) & (y < ny - dy) & (x >= -dx) & (x < nx - dx)
                place = np.where(inside, todo + (dy * nx + dx), 0)
                usable |= (inside & good[place]).view(np.uint8) << np.uint8(k)
            can = usable != 0
            turns.append((todo[can], usable[can]))
            good[todo[can]] = True
            todo = todo[~can]
        return cls(bad.astype(np.int32), tuple(turns))

    def apply(self, block: Plane, first: int = 0, *, sharpen: bool = True) -> None:
        """Replace the bad pixels in some rows of a plane, in place.

        Parameters
        ----------
        block : ndarray of float32, shape (rows, nx)
            The rows, contiguous, good pixels finite. The outermost `reach` rows are not right, unless
            the frame ends there.
        first : int
            Which row of the frame the first one is.
        sharpen : bool
            Follow the curvature of the surroundings. A variance must not be extrapolated.
        """
        width = block.shape[1]
        start = first * width
        flat = block.reshape(-1)
        steps = _DY * width + _DX
        weights = _SHARP if sharpen else _SMOOTH

        def here(places: NDArray[np.int32]) -> slice:
            begin, end = places.searchsorted((start, start + flat.size))
            return slice(int(begin), int(end))

        # What is not replaced yet does not count, and must not be a NaN.
        flat[self.bad[here(self.bad)] - start] = 0
        for places, usable in self.turns:
            part = here(places)
            if part.start == part.stop:
                continue
            where = places[part] - start
            near = where[:, None] + steps
            np.clip(near, 0, flat.size - 1, out=near)
            flat[where] = np.einsum("ij,ij->i", flat[near], weights[usable[part]])


def replace_bad_pixels(planes: Sequence[Plane], bad: NDArray[np.bool_], *, reach: int = 3) -> None:
    """Replace pixels by estimates from their good neighbours, in place; see `Repairs`.

    Parameters
    ----------
    planes : sequence of ndarray of float32, shape (ny, nx)
        Planes to repair, contiguous, each by itself: the first is sharpened, and the others, its variance,
        are not.
    bad : ndarray of bool
        The pixels to replace.
    reach : int
        How far into a bad area to go, in pixels.
    """
    shape = (bad.shape[0], bad.shape[1])
    repairs = Repairs.of(np.flatnonzero(bad), shape, reach=reach)
    for number, plane in enumerate(planes):
        repairs.apply(plane, sharpen=number == 0)
