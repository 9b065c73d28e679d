"""Candidates for the shift between two lists of sources: a vote of all possible pairs."""

from __future__ import annotations

from functools import reduce

import numpy as np

from niripipe.algorithms.arrays import Floats, Indices
from niripipe.algorithms.register import Sources

__all__ = ["brightest_first", "vote"]


# Number of peaks that are returned at most.
_PEAKS = 8
# Largest cell of the histogram, pixels, and number of cells from the middle to the edge of the box at most.
_CELL, _CELLS = 1.0, 250


def vote(
    x: Floats, y: Floats, frame: Sources, reference: Sources, search: float, match: float
) -> list[tuple[float, float, float]]:
    """Find shifts that bring many sources of a frame to sources of a reference.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Positions of the sources of the frame, possibly rotated and scaled.
    frame, reference : Sources
        Sources of the frame, whose fluxes are used, and of the reference.
    search : float
        Half-width of the box in which the shift is looked for, pixels.
    match : float
        Largest distance of a pair after alignment, pixels.

    Returns
    -------
    list of tuple
        The highest peaks of the smoothed histogram of differences: votes, dx, dy (pixels).
    """
    dx = reference.x[None, :] - x[:, None]
    dy = reference.y[None, :] - y[:, None]
    inside = (np.abs(dx) <= search + match) & (np.abs(dy) <= search + match)
    if not inside.any():
        return []
    weight = _likeness(frame, reference)[inside]
    cell = max(min(match / 2, _CELL), (search + match) / _CELLS)
    number = int(np.ceil(2 * (search + match) / cell)) + 5
    column, row = (((d[inside] + search + match) / cell).astype(np.intp) + 2 for d in (dx, dy))
    counts = np.bincount(row * number + column, weights=weight, minlength=number * number)
    smooth = _over_square(counts.reshape(number, number).astype(np.float64), 3, np.add) / 9
    peaks = (smooth == _over_square(smooth, 5, np.maximum)) & (smooth > 0)
    row, column = np.nonzero(peaks)
    order = np.argsort(-smooth[row, column], kind="stable")
    row, column = row[order], column[order]
    height = smooth[row, column]
    found: list[tuple[float, float, float]] = []
    free = np.ones(row.size, bool)
    while free.any() and len(found) < _PEAKS:
        k = int(np.argmax(free))
        # One pair alone makes a square of equal votes: their middle is one candidate.
        same = free & (abs(row - row[k]) <= 2) & (abs(column - column[k]) <= 2) & (height == height[k])
        free[same] = False
        to_x, to_y = (float(np.mean(at[same]) - 1.5) * cell - search - match for at in (column, row))
        found.append((float(height[k]), to_x, to_y))
    return found


def _over_square(values: Floats, size: int, function: np.ufunc) -> Floats:
    """Combine the values in a square around each one, zeros beyond the edges."""
    margin = (size // 2, size // 2)
    for _ in range(2):
        padded = np.pad(values, (margin, (0, 0)))
        values = reduce(function, [padded[k : k + len(values)] for k in range(size)]).T
    return values


def _likeness(frame: Sources, reference: Sources) -> Floats:
    """Weight of each possible pair: bright sources of like flux say more."""
    rank = brightest_first(frame.flux).argsort()[:, None] + brightest_first(reference.flux).argsort()[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(
            np.log(np.maximum(frame.flux, 1e-30)[:, None] / np.maximum(reference.flux, 1e-30)[None, :])
        )
    # Transparency may change by half, faint fluxes are noisy: a soft preference.
    return np.asarray((1 + 2 / (1 + rank / 5)) * (0.2 + np.exp(-((ratio / 0.7) ** 2))))


def brightest_first(flux: Floats) -> Indices:
    """Return the indices of the sources, the brightest first."""
    return np.argsort(-np.nan_to_num(flux), kind="stable")
