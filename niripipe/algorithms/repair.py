"""Estimates for bad pixels from their good neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from niripipe.algorithms.arrays import Bool, Float32, Float64

__all__ = ["replace_bad_pixels"]


# The neighbours: those that share a side with a pixel, then those that share a corner.
_DY, _DX = np.array([[-1, 1, 0, 0, -1, -1, 1, 1], [0, 0, -1, 1, -1, 1, -1, 1]])


def _tables() -> tuple[Float64, Float64]:
    """Return the weights of the neighbours for each set of usable ones, ``(256, 8)``: smooth, sharpened."""
    usable = (np.arange(256)[:, None] >> np.arange(8)) & 1
    smooth = usable * np.array([1.0] * 4 + [0.5] * 4)
    smooth /= np.maximum(smooth.sum(axis=1, keepdims=True), 0.5)
    sharp = smooth.copy()
    sharp[255] = [0.5] * 4 + [-0.25] * 4
    return smooth, sharp


_SMOOTH, _SHARP = _tables()


def replace_bad_pixels(planes: Sequence[Float32], bad: Bool, *, reach: int = 3, sharpen: bool = True) -> None:
    """Replace pixels by estimates from their good neighbours, in place.

    A single bad pixel becomes half the sum of its four neighbours less a quarter of the sum of the diagonal
    ones, which is exact for surfaces of third order in x and y together, so the core of a star keeps its
    height. With a neighbour missing it becomes the weighted mean of the good ones. From the rim of a bad area
    this goes some pixels inwards; pixels deeper inside become 0.

    Parameters
    ----------
    planes : sequence of ndarray of float32, shape (ny, nx)
        Planes to repair, contiguous, with finite good pixels.
    bad : ndarray of bool, shape (ny, nx)
        The pixels to replace.
    reach : int
        How far into a bad area to go, in pixels.
    sharpen : bool
        Follow the curvature of the surroundings in the first plane. The others are taken for its variance,
        which must not be extrapolated, and get weighted means.
    """
    ny, nx = bad.shape
    for plane in planes:
        # Pixels that are not replaced yet do not count, and must not be NaN.
        plane[bad] = 0
    good = ~bad.reshape(-1)
    todo = np.flatnonzero(bad)
    for _ in range(reach):
        if not todo.size:
            break
        y, x = (todo // nx)[:, None] + _DY, (todo % nx)[:, None] + _DX
        inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
        near = np.where(inside, y * nx + x, 0)
        usable = np.packbits(inside & good[near], axis=1, bitorder="little")[:, 0]
        now = usable != 0
        pixels, near, usable = todo[now], near[now], usable[now]
        for number, plane in enumerate(planes):
            weights = _SHARP if sharpen and number == 0 else _SMOOTH
            flat = plane.reshape(-1)
            flat[pixels] = np.einsum("ij,ij->i", flat[near], weights[usable])
        good[pixels] = True
        todo = todo[~now]
