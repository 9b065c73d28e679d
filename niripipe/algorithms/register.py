"""The displacement of a frame from a reference, the sources that it is found from, and pairs of them.

Displacements are found by `niripipe.algorithms.match` from sources, by `niripipe.algorithms.correlate` from
images.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Float64, Floats, Indices

__all__ = ["Pairs", "Registration", "Sources", "pair_sources"]

Pairs = tuple[Indices, Indices]


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """Positions and fluxes of n sources, in the pixels of one frame; arrays of shape (n,).

    Attributes
    ----------
    x, y : ndarray of float64
        0-based positions, pixels.
    flux, flux_error : ndarray of float64
        Fluxes and their errors; errors are NaN where unknown.
    error : ndarray of float64
        Error of the positions, rms per axis, pixels; NaN where unknown.
    suspect : ndarray of bool
        Sources whose position may be wrong (saturated, truncated, flagged); they are used only when the
        others do not suffice.
    fwhm : float
        Typical FWHM of the sources, pixels; NaN where unknown. One number, not one a source.
    """

    x: Floats
    y: Floats
    flux: Floats
    flux_error: Floats
    error: Floats
    suspect: Bool
    fwhm: float = float("nan")

    def __len__(self) -> int:
        return len(self.x)

    def take(self, which: NDArray[Any]) -> Sources:
        """Return the sources that an index array or a mask chooses."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        fwhm = columns.pop("fwhm")
        return Sources(**{name: values[which] for name, values in columns.items()}, fwhm=fwhm)

    def snr(self) -> Floats:
        """Return flux over its error; NaN where unknown."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.flux / self.flux_error, np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A displacement and how far it can be trusted.

    Attributes
    ----------
    method : {"sources", "correlation"}
        How it was found.
    centre : tuple of float
        Fixed point of rotation and scaling, (x, y).
    accepted : bool
        Whether to use it.
    doubt : str
        Of a shift that is accepted: why it is doubtful, with numbers; empty if it is not.
    reason : str
        Why, or why not, with numbers.
    dx, dy : float
        Shift, pixels: a source at (x, y) in the frame is at (x + dx, y + dy) in the reference (carried into
        the frame's pixels), after rotation and scaling about ``centre``.
    angle : float
        Rotation, degrees, counter-clockwise (from x to y).
    scale : float
        Magnification.
    n_matched : int
        Pairs that the result rests on.
    rms : float
        Scatter of the pairs about it, per axis, pixels; NaN when not measurable.
    error : float
        Standard error of the shift per axis, pixels; NaN when not measurable.
    significance : float
        Sources: minus the decimal logarithm of the chance that so many pairs are an accident. Correlation:
        height of the peak above the next independent one, in deviations of the correlation.
    ties : int
        Number of frames that it was compared with: one, or more if it is the solution for many.
    residual : float
        What the comparisons differ from it by, rms per axis, pixels; NaN with one.
    """

    method: Literal["sources", "correlation"]
    centre: tuple[float, float]
    accepted: bool = False
    doubt: str = ""
    reason: str
    dx: float = 0.0
    dy: float = 0.0
    angle: float = 0.0
    scale: float = 1.0
    n_matched: int = 0
    rms: float = float("nan")
    error: float = float("nan")
    significance: float = 0.0
    ties: int = 1
    residual: float = float("nan")

    def matrix(self) -> tuple[Float64, Float64]:
        """Return matrix and offset, array order (y, x), that carry frame positions to reference positions."""
        angle = np.deg2rad(self.angle)
        cos, sin = self.scale * np.cos(angle), self.scale * np.sin(angle)
        matrix = np.array([[cos, sin], [-sin, cos]])
        centre = np.array([self.centre[1], self.centre[0]])
        return matrix, centre - matrix @ centre + np.array([self.dy, self.dx])


def pair_sources(x: Floats, y: Floats, x_ref: Floats, y_ref: Floats, radius: float) -> Pairs:
    """Pair two lists of positions one to one, the closest pair first.

    Parameters
    ----------
    x, y, x_ref, y_ref : ndarray
        Positions; those that are not finite have no partner.
    radius : float
        Largest distance.

    Returns
    -------
    tuple of two integer ndarrays
        Indices into the first and the second list, in the order of the first.
    """
    x, y, x_ref, y_ref = (np.asarray(values, np.float64) for values in (x, y, x_ref, y_ref))
    first, second, distance = _neighbours(x, y, x_ref, y_ref, radius)
    order = np.lexsort((second, first, distance))
    free_i, free_j = np.ones(len(x), bool), np.ones(len(x_ref), bool)
    pairs = []
    for i, j in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if free_i[i] and free_j[j]:
            free_i[i] = free_j[j] = False
            pairs.append((i, j))
    pairs.sort()
    result = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return result[:, 0], result[:, 1]


def _neighbours(
    x: Floats, y: Floats, x_ref: Floats, y_ref: Floats, radius: float
) -> tuple[Indices, Indices, Floats]:
    """Return indices and distance of all pairs within a radius."""
    own = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    others = np.flatnonzero(np.isfinite(x_ref) & np.isfinite(y_ref))
    others = others[np.argsort(y_ref[others], kind="stable")]
    # Candidates lie in a strip of rows. It is a little wider than the radius, so that rounding decides about
    # no pair here.
    reach = 1.001 * radius
    start = np.searchsorted(y_ref[others], y[own] - reach, "left")
    number = np.searchsorted(y_ref[others], y[own] + reach, "right") - start
    i = np.repeat(own, number)
    j = others[np.arange(i.size) + np.repeat(start - np.cumsum(number) + number, number)]
    distance = np.sqrt((x_ref[j] - x[i]) ** 2 + (y_ref[j] - y[i]) ** 2)
    near = distance <= radius
    return i[near], j[near], distance[near]
