"""Affine mappings between pixel grids, and the grids that hold several frames.

Coordinates are 0-based array positions, ``(y, x)``, pixel centres at integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Float64, Floats
from niripipe.errors import AlgorithmError

__all__ = [
    "WHOLE",
    "Affine",
    "Grid",
    "Transform",
    "affine_approximation",
    "around",
    "corners_of",
    "output_grid",
    "part_of_grid",
]

Transform = Callable[[Floats, Floats], tuple[Floats, Floats]]
Position = Floats | NDArray[np.signedinteger[Any]] | float

WHOLE = 1e-6
"""What differs from a whole pixel by less is one."""
# Pixels around the field of a frame that its part of a grid has: flags grow by less.
_AROUND = 8


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """An affine mapping of array positions, ``matrix @ (y, x) + offset``.

    Attributes
    ----------
    matrix : ndarray of float64, shape (2, 2)
        In array order: the first row gives y.
    offset : ndarray of float64, shape (2,)
        In array order, pixels.
    """

    matrix: Float64
    offset: Float64

    @classmethod
    def shift(cls, dy: float, dx: float) -> Affine:
        """Return the mapping that adds ``(dy, dx)``."""
        return cls(np.eye(2), np.array([dy, dx], dtype=np.float64))

    def __call__(self, y: Position, x: Position) -> tuple[Float64, Float64]:
        """Map positions; y and x are broadcast against each other."""
        m, o = self.matrix, self.offset
        y, x = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
        return m[0, 0] * y + m[0, 1] * x + o[0], m[1, 0] * y + m[1, 1] * x + o[1]

    def then(self, other: Affine) -> Affine:
        """Return the mapping that applies this one first and ``other`` to its result."""
        return Affine(other.matrix @ self.matrix, other.matrix @ self.offset + other.offset)

    def inverse(self) -> Affine:
        """Return the mapping that undoes this one; a singular matrix raises `AlgorithmError`."""
        if not abs(np.linalg.det(self.matrix)) > 1e-12:
            raise AlgorithmError("The mapping cannot be inverted", found=self.matrix.tolist())
        inverse = np.linalg.inv(self.matrix).astype(np.float64)
        return Affine(inverse, -inverse @ self.offset)


@dataclass(frozen=True, slots=True)
class Grid:
    """An output frame: position of its pixel (0, 0) in the reference, and shape; both ``(y, x)``."""

    origin: tuple[int, int]
    shape: tuple[int, int]


def output_grid(corners: Iterable[Floats]) -> Grid:
    """Find the grid that holds every frame.

    Parameters
    ----------
    corners : iterable of ndarray, shape (n, 2)
        For each frame the positions ``(y, x)`` of its corner pixels in the reference; see `corners_of`.

    Returns
    -------
    Grid
        On each axis from the least ceiling to the greatest floor of the corners: pixels that at least one
        frame can fill.

    Raises
    ------
    AlgorithmError
        When a corner is not finite.
    """
    low, high = [], []
    for frame in corners:
        points = np.asarray(frame, dtype=np.float64)
        if not np.isfinite(points).all():
            raise AlgorithmError("A frame's corners are not finite in the reference", found=points.tolist())
        # A corner that misses an integer by rounding still belongs to it.
        low.append(np.ceil(points.min(axis=0) - WHOLE))
        high.append(np.floor(points.max(axis=0) + WHOLE))
    first, last = np.min(low, axis=0).astype(int), np.max(high, axis=0).astype(int)
    return Grid((int(first[0]), int(first[1])), (int(last[0] - first[0] + 1), int(last[1] - first[1] + 1)))


def part_of_grid(grid: Grid, shape: tuple[int, int], mapping: Affine, outline: Float64 | None = None) -> Grid:
    """Return the part of a grid outside of which a frame has no data, with a few pixels around it.

    Parameters
    ----------
    grid : Grid
    shape : tuple of int
        Shape of the frame.
    mapping : Affine
        Of positions in the reference to positions in the frame.
    outline : ndarray of float64, shape (n, 2), optional
        Of a frame with a distortion: positions (y, x) around it without distortion.

    Returns
    -------
    Grid
        Of one pixel at least.
    """
    back = mapping.inverse()
    corners = corners_of(shape, back) if outline is None else np.stack(back(*outline.T), axis=1)
    first, size = np.array(grid.origin), np.array(grid.shape)
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - _AROUND, first, first + size - 1)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + _AROUND, low, first + size - 1)
    return Grid((int(low[0]), int(low[1])), (int(high[0] - low[0] + 1), int(high[1] - low[1] + 1)))


def corners_of(shape: tuple[int, int], mapping: Affine | None = None) -> Float64:
    """Return the positions ``(y, x)`` of a frame's four corner pixels, mapped if wanted; shape (4, 2)."""
    y = np.array([0, 0, shape[0] - 1, shape[0] - 1], dtype=np.float64)
    x = np.array([0, shape[1] - 1, 0, shape[1] - 1], dtype=np.float64)
    return np.stack([y, x] if mapping is None else mapping(y, x), axis=1)


def around(shape: tuple[int, int], points: int = 9) -> Float64:
    """Return positions ``(y, x)`` on the outermost pixels of a frame, so many a side; shape (4 points, 2)."""
    y, x = np.linspace(0, shape[0] - 1, points), np.linspace(0, shape[1] - 1, points)
    low, high_y, high_x = np.zeros(points), np.full(points, shape[0] - 1), np.full(points, shape[1] - 1)
    sides = (low, x), (high_y, x), (y, low), (y, high_x)
    return np.concatenate([np.stack(side, axis=1) for side in sides]).astype(np.float64)


def affine_approximation(transform: Transform, shape: tuple[int, int]) -> Affine:
    """Approximate a mapping by an affine one over a frame.

    Parameters
    ----------
    transform : callable
        Takes arrays y and x, returns arrays y and x.
    shape : tuple of int
        The frame on which the approximation should hold.

    Returns
    -------
    Affine
        Exact at the centre ``(ny/2, nx/2)``; slopes from the middles of the four sides.

    Raises
    ------
    AlgorithmError
        When the mapping is not finite there.
    """
    half = np.array(shape, dtype=np.float64) / 2
    step = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float64)
    points = half + step * half
    mapped = np.stack(transform(points[:, 0], points[:, 1]), axis=1).astype(np.float64)
    if not np.isfinite(mapped).all():
        raise AlgorithmError("The mapping has no finite value on the frame", found=mapped.tolist())
    matrix = np.stack(
        [(mapped[1] - mapped[2]) / (2 * half[0]), (mapped[3] - mapped[4]) / (2 * half[1])], axis=1
    )
    return Affine(matrix, mapped[0] - matrix @ half)
