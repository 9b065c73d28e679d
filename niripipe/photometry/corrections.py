"""Aperture corrections: from the light in a small aperture to that in the aperture of the zero point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.robust import robust_sigma

__all__ = ["Correction", "correction_of_stars", "isolated"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

_CLIP: Final = 3.0
_SHARP: Final = 0.01
_ENOUGH: Final = 5
"""Stars whose ratio is known to this part, if so many, tell how much it differs from star to star."""

_FEWEST: Final = 3
"""Stars without which a correction is not taken from the field."""


@dataclass(frozen=True, slots=True)
class Correction:
    """By what fluxes of an aperture are multiplied.

    Attributes
    ----------
    factor, error : float
        Factor and its error.
    stars : int
        From how many stars.
    scatter : float
        How much the factor differs from star to star, beyond noise, as a part of it: the shape of stars
        varies over an image.
    """

    factor: float
    error: float
    stars: int
    scatter: float = 0.0


def correction_of_stars(
    small: Float64, large: Float64, small_error: Float64, large_error: Float64
) -> Correction | None:
    """Return the ratio of the fluxes of stars in two apertures, without outliers.

    Parameters
    ----------
    small, large : ndarray of float64, shape (n,)
        Fluxes of the same stars in both.
    small_error, large_error : ndarray of float64, shape (n,)
        Their errors. Those of the ratio are taken as of the ring between the two, whose variance is the
        difference.

    Returns
    -------
    Correction or None
        None with fewer than three stars. The mean is weighted, by errors of 0.2 per cent at least, so that
        a single bright star does not decide alone; its error is from the scatter of the stars.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = large / small
        error = np.sqrt(np.maximum(large_error**2 - small_error**2, 0.0)) / small
    used = np.isfinite(ratio) & np.isfinite(error) & (ratio > 0)
    noise: Float64 = error
    error = np.hypot(noise, 0.002)
    for _ in range(10):
        if used.sum() < _FEWEST:
            return None
        centre = float(np.median(ratio[used]))
        scale = robust_sigma(ratio[used])
        now = used & (np.abs(ratio - centre) <= _CLIP * np.maximum(scale * (1 + 2 / used.sum()), error))
        if (now == used).all():
            break
        used = now
    if used.sum() < _FEWEST:
        return None
    weights = 1 / error[used] ** 2
    mean = float(np.sum(weights * ratio[used]) / weights.sum())
    chi = float(np.sum(weights * (ratio[used] - mean) ** 2) / (used.sum() - 1))
    sharp = used & (noise < _SHARP)
    scatter = _scatter_beyond(ratio[sharp] - mean, noise[sharp]) / mean if sharp.sum() >= _ENOUGH else 0.0
    return Correction(mean, float(np.sqrt(max(chi, 1.0) / weights.sum())), int(used.sum()), scatter)


def _scatter_beyond(residuals: Float64, noise: Float64) -> float:
    """Return the scatter with which chi-squared of residuals is their number less one; 0 if it is less."""
    low, high = 0.0, float(np.max(np.abs(residuals)))
    freedom = residuals.size - 1
    if np.sum((residuals / np.maximum(noise, 1e-9)) ** 2) <= freedom:
        return 0.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        too_small = np.sum(residuals**2 / (noise**2 + middle**2)) > freedom
        low, high = (middle, high) if too_small else (low, middle)
    return high


def isolated(x: Float64, y: Float64, flux: Float64, radius: float, share: float = 0.01) -> Bool:
    """Return which sources have no neighbour within a radius of more than a share of their own flux."""
    from scipy.spatial import cKDTree

    alone = np.ones(x.shape, bool)
    if x.size < 2:
        return alone
    for a, b in cKDTree(np.column_stack([x, y])).query_pairs(radius):
        alone[a] &= flux[b] < share * flux[a]
        alone[b] &= flux[a] < share * flux[b]
    return alone
