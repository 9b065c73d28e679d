"""The ratio of fluxes between two frames, from the sources that both have."""

from __future__ import annotations

import numpy as np

from niripipe.algorithms.arrays import Floats
from niripipe.algorithms.robust import weighted_median
from niripipe.errors import AlgorithmError

__all__ = ["flux_scale", "within_tolerance"]


def flux_scale(flux: Floats, flux_error: Floats, reference: Floats, reference_error: Floats) -> float:
    """Fit the factor by which a frame's fluxes have to be multiplied to get those of a reference.

    Parameters
    ----------
    flux, flux_error : ndarray, shape (n,)
        Fluxes in the frame and their errors.
    reference, reference_error : ndarray, shape (n,)
        Fluxes of the same sources in the reference.

    Returns
    -------
    float
        The factor.

    Raises
    ------
    AlgorithmError
        When no source has finite fluxes, positive errors and a positive flux in the frame.

    Notes
    -----
    A start F0 that no single source can spoil, the weighted median of the ratios; then a straight
    line through the origin, weights 1 / (sy**2 + F0**2 sx**2), with sources beyond three deviations of the
    residuals left out, two rounds (the second step is that of DRAGONS, scaleCountsToReference).
    """
    x, sx, y, sy = (
        np.asarray(part, dtype=np.float64) for part in (flux, flux_error, reference, reference_error)
    )
    good = np.isfinite(x) & np.isfinite(y) & (sx > 0) & (sy > 0) & (x > 0) & np.isfinite(sx) & np.isfinite(sy)
    x, sx, y, sy = x[good], sx[good], y[good], sy[good]
    if x.size == 0:
        raise AlgorithmError(
            "No source has a usable flux in both frames", found=0, expected="at least 1 source"
        )
    start = weighted_median(y / x, x**2 / (sy**2 + (y / x) ** 2 * sx**2))
    weight = 1 / (sy**2 + start**2 * sx**2)
    kept = np.ones(x.size, dtype=bool)
    factor = _fit(x, y, weight)
    for _ in range(2):
        deviation = (y - factor * x) * np.sqrt(weight)
        spread = float(np.std(deviation[kept]))
        inside = np.abs(deviation - np.mean(deviation[kept])) <= 3 * spread
        if not inside.any() or (inside == kept).all():
            break
        kept = inside
        factor = _fit(x[kept], y[kept], weight[kept])
    return factor


def within_tolerance(factor: float, expected: float, tolerance: float) -> bool:
    """Tell whether a measured factor agrees with the ratio of exposure times.

    Parameters
    ----------
    factor : float
        Measured factor.
    expected : float
        Ratio of the exposure times.
    tolerance : float
        0 accepts nothing, 1 everything positive, in between ``1 - tolerance <= factor / expected <= 1 / (1
        - tolerance)``. DRAGONS compares the factor itself, whatever the exposure times.
    """
    if not (factor > 0 and np.isfinite(factor)) or tolerance <= 0:
        return False
    return tolerance >= 1 or 1 - tolerance <= factor / expected <= 1 / (1 - tolerance)


def _fit(x: Floats, y: Floats, weight: Floats) -> float:
    return float((weight * x * y).sum() / (weight * x * x).sum())
