"""Positions of many frames from the ties between pairs of them, by least squares.

Shifts and positions are complex numbers, x + 1j y, in the pixels of one frame, the reference. A turn is
ln(scale) + 1j angle (radians, counter-clockwise): to first order it moves what is at a distance r from the
centre of a frame by turn * r.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Floats

__all__ = ["Placed", "Tie", "place_frames", "reached_by"]

Complex = NDArray[np.complexfloating[Any, Any]]

FLOOR = 0.02
"""What two frames are tied to at best, pixels: distortion that is not known, and undersampled stars."""

CONTRADICTION = 5.0
"""A tie that is off by so many deviations, and by `HARMLESS`, is left out: its stars were not the same."""

HARMLESS = 0.3
"""What a tie may be off by whatever its error says, pixels."""


@dataclass(frozen=True, slots=True)
class Tie:
    """What two frames show about their positions.

    Attributes
    ----------
    first, second : int
        Indices of the frames.
    shift : complex
        By how much more than the second the first has to be moved at `at`, so that their sources agree.
    at : complex
        Where that is: the middle of what they share.
    error : float
        Standard error of the shift per axis.
    turn : complex
        By how much more the first has to be turned.
    """

    first: int
    second: int
    shift: complex
    at: complex
    error: float
    turn: complex = 0j


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Where ties put frames; arrays of shape (n,).

    Attributes
    ----------
    reached : ndarray of bool
        Whether ties lead from the reference to the frame. The other values of the others mean nothing.
    shift, turn : ndarray of complex
        Movement at the centre of each frame, and its turn.
    error : ndarray of float
        Standard error of the shift per axis: of the fit, enlarged where the ties disagree by more.
    residual : ndarray of float
        By how much the ties of the frame are off, rms per axis, pixels.
    number : ndarray of int
        Ties of each frame.
    refused : tuple of int
        Indices of the ties that contradict the others.
    """

    reached: Bool
    shift: Complex
    turn: Complex
    error: Floats
    residual: Floats
    number: NDArray[np.intp]
    refused: tuple[int, ...]


def place_frames(ties: Sequence[Tie], centres: Complex, reference: int) -> Placed:
    """Solve for the movements of all frames together.

    Parameters
    ----------
    ties : sequence of Tie
    centres : ndarray of complex, shape (n,)
        Where the headers put the centres of the frames.
    reference : int
        Index of the frame that is not moved.

    Returns
    -------
    Placed

    Notes
    -----
    Weights are the inverse variances of the ties. While the worst tie is off by `CONTRADICTION` deviations,
    it is left out and the rest is solved again; a tie that alone holds two parts together cannot be off.
    """
    kept = list(range(len(ties)))
    refused: list[int] = []
    while True:
        placed, off = _solved([ties[k] for k in kept], centres, reference)
        # The residual of a tie with few neighbours is small because it was fitted: in its own deviations.
        worst = int(np.argmax(off)) if off.size else 0
        if not off.size or off[worst] <= CONTRADICTION:
            return Placed(*placed, refused=tuple(sorted(refused)))
        refused.append(kept.pop(worst))


def _solved(
    ties: Sequence[Tie], centres: Complex, reference: int
) -> tuple[tuple[Bool, Complex, Complex, Floats, Floats, NDArray[np.intp]], Floats]:
    """Return the fields of `Placed`, and the deviations of each tie (0 where harmless)."""
    number = len(centres)
    reached = reached_by(ties, number, reference)
    ties_used = [reached[tie.first] for tie in ties]
    first = np.array([tie.first for tie in ties], int)
    second = np.array([tie.second for tie in ties], int)
    variance = np.array([tie.error**2 + FLOOR**2 for tie in ties])
    weight = np.where(ties_used, 1 / variance, 0.0) if ties else variance
    at = np.array([tie.at for tie in ties], complex)
    # One movement a frame; the reference has none, and frames out of reach are held where they are.
    free = np.flatnonzero(reached & (np.arange(number) != reference))
    design = np.zeros((len(ties), number))
    design[np.arange(len(ties)), first] += 1
    design[np.arange(len(ties)), second] -= 1
    inner = design[:, free]
    normal = inner.T @ (weight[:, None] * inner)
    inverse = np.linalg.inv(normal) if free.size else normal
    turn, shift = np.zeros(number, complex), np.zeros(number, complex)
    turn[free] = inverse @ (inner.T @ (weight * np.array([tie.turn for tie in ties], complex)))
    moved = np.array([tie.shift for tie in ties], complex)
    moved = moved - turn[first] * (at - centres[first]) + turn[second] * (at - centres[second])
    shift[free] = inverse @ (inner.T @ (weight * moved))
    rest = moved - design @ shift
    square = np.abs(rest) ** 2 / 2
    freedom = int(np.count_nonzero(weight)) - free.size
    excess = max(1.0, float((weight * square).sum()) / freedom) if freedom > 0 else 1.0
    error = np.full(number, np.nan)
    error[reference] = 0.0
    error[free] = np.sqrt(np.diag(inverse) * excess)
    counts = (np.abs(design) * (weight > 0)[:, None]).sum(axis=0)
    squares = (np.abs(design) * np.where(weight > 0, square, 0.0)[:, None]).sum(axis=0)
    residual = np.sqrt(squares / np.maximum(counts, 1))
    # The variance of a residual is that of the tie less what the fit took of it.
    taken = np.einsum("ij,jk,ik->i", inner, inverse, inner)
    left = np.maximum(variance - taken, 1e-3 * variance)
    wrong = (weight > 0) & (square > HARMLESS**2 / 2)
    off = np.where(wrong, np.sqrt(square / left), 0.0)
    return (reached, shift, turn, error, residual, counts.astype(np.intp)), off


def reached_by(ties: Sequence[Tie], number: int, reference: int) -> Bool:
    """Return which frames ties lead to from the reference, shape (n,)."""
    reached: Bool = np.arange(number) == reference
    before = 0
    while reached.sum() > before:
        before = int(reached.sum())
        for tie in ties:
            if reached[tie.first] or reached[tie.second]:
                reached[[tie.first, tie.second]] = True
    return reached
