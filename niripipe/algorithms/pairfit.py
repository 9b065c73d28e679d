"""The displacement of pairs of sources: weights, fit, and how far it can be wrong."""

from __future__ import annotations

import numpy as np

from niripipe.algorithms.arrays import Bool, Floats, Indices
from niripipe.algorithms.register import Sources
from niripipe.algorithms.robust import RAYLEIGH_MEDIAN

__all__ = [
    "CENTRING",
    "FEW_PAIRS",
    "agreeing",
    "common_scatter",
    "least_squares",
    "pair_variance",
    "shift_error",
    "turn_of_pairs",
]


CENTRING = 0.01
"""What a pair may be wrong by, in FWHM, that its formal error does not say: the profile differs between
frames, and the optics distort. With one pair nothing measures it."""
FEW_PAIRS = 12
"""With fewer pairs their median is too uncertain to clip by."""

# Floor of a position's error, pixels: centring is not better than this on an undersampled or structured
# source.
_FLOOR = 0.01
# Error of a position that is not known, pixels.
_UNKNOWN_ERROR = 1.0
# Pairs further than so many deviations from the median displacement are clipped.
_CLIP = 3.5
# With few pairs none is clipped that is nearer than this to the median, in FWHM: it is distortion.
_DISTORTION = 0.15


def pair_variance(frame: Sources, reference: Sources, i: Indices, j: Indices) -> Floats:
    """Return the variance of the displacement of pairs (i, j) per axis, from the errors of both positions."""
    return np.asarray(_variances(frame)[i] + _variances(reference)[j])


def shift_error(variance: Floats, scatter: float, fwhm: float) -> float:
    """Return the standard error per axis of the mean of n pairs, weighted by their variances, pixels.

    The scatter of a few pairs is itself uncertain: it is taken n / (n - 1) times larger, like the variance of
    Student's distribution, but finite for two pairs. `CENTRING` is added, over the effective number of pairs.

    Parameters
    ----------
    variance : ndarray, shape (n,)
        Variances of the pairs per axis by their own errors.
    scatter : float
        Variance that all have in common besides, pixels squared.
    fwhm : float
        FWHM of the sources, pixels; NaN where unknown.
    """
    number = variance.size
    known = scatter * (number / (number - 1) if number > 1 else 1.0)
    weight = 1 / (variance + scatter)
    total, squares = float(weight.sum()), float((weight**2).sum())
    formal = float((weight**2 * (variance + known)).sum()) / total**2
    floor = CENTRING * fwhm if fwhm > 0 else 0.0
    return float(np.hypot(np.sqrt(formal), floor * squares / total**2))


def _variances(sources: Sources) -> Floats:
    """Return the variances of the positions per axis."""
    known = np.isfinite(sources.error) & (sources.error > 0)
    return np.asarray(np.where(known, np.hypot(sources.error, _FLOOR), _UNKNOWN_ERROR) ** 2)


def agreeing(rx: Floats, ry: Floats, weight: Floats, fwhm: float) -> Bool:
    """Return the pairs near the median displacement.

    Parameters
    ----------
    rx, ry : ndarray, shape (n,)
        Displacements, pixels.
    weight : ndarray, shape (n,)
        Inverse variances.
    fwhm : float
        FWHM of the sources, pixels; NaN where unknown.
    """
    if rx.size < 3:
        return np.ones(rx.size, bool)
    distance = np.hypot(rx - np.median(rx), ry - np.median(ry))
    # Robust deviation per axis.
    spread = float(np.median(distance)) / RAYLEIGH_MEDIAN
    limit = _CLIP * np.sqrt(2.0) * np.maximum(np.sqrt(1 / weight), min(spread, 1.0)) + 2 * _FLOOR
    if fwhm > 0 and rx.size < FEW_PAIRS:
        limit = np.maximum(limit, _DISTORTION * fwhm)
    keep = distance <= limit
    return keep if keep.sum() >= 2 else np.ones(rx.size, bool)


def common_scatter(rx: Floats, ry: Floats, variance: Floats) -> float:
    """Return the variance per axis by which pairs scatter beyond their own errors.

    It is the one that makes the weighted sum of squares about the weighted mean as large as its degrees of
    freedom, 2 n - 2 (Paule & Mandel 1982, J. Res. NBS 87, 377); 0 where the errors explain the scatter.

    Parameters
    ----------
    rx, ry : ndarray, shape (n,)
        Displacements, pixels.
    variance : ndarray, shape (n,)
        Their variances per axis.
    """
    if rx.size < 2:
        return 0.0

    def excess(extra: float) -> float:
        weight = 1 / (variance + extra)
        total = weight.sum()
        x, y = rx - (weight * rx).sum() / total, ry - (weight * ry).sum() / total
        return float((weight * (x**2 + y**2)).sum()) - (2 * rx.size - 2)

    if excess(0.0) <= 0:
        return 0.0
    low, high = 0.0, 2 * float(np.ptp(rx) ** 2 + np.ptp(ry) ** 2)
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return 0.5 * (low + high)


def least_squares(
    u: Floats, v: Floats, rx: Floats, ry: Floats, weight: Floats, rotate: bool, scale: bool
) -> tuple[float, float, float, float]:
    """Fit shift and, if wanted, angle and magnification to displacements.

    Parameters
    ----------
    u, v : ndarray, shape (n,)
        Positions from the centre, pixels.
    rx, ry : ndarray, shape (n,)
        Displacements, pixels.
    weight : ndarray, shape (n,)
        Inverse variances.
    rotate, scale : bool
        What is fitted besides the shift.

    Returns
    -------
    tuple of float
        Shift (x, y) in pixels, angle in radians, magnification minus 1.
    """
    if not (rotate or scale):
        total = weight.sum()
        return float((weight * rx).sum() / total), float((weight * ry).sum() / total), 0.0, 0.0
    one, zero = np.ones_like(u), np.zeros_like(u)
    # What each number moves a source by, along x and along y.
    terms = [(one, zero), (zero, one)] + [(-v, u)] * rotate + [(u, v)] * scale
    root = np.tile(np.sqrt(weight), 2)
    design = np.column_stack([np.concatenate(term) for term in terms]) * root[:, None]
    result = np.linalg.lstsq(design, np.concatenate([rx, ry]) * root, rcond=None)[0].tolist()
    return result[0], result[1], result[2] if rotate else 0.0, result[-1] if scale else 0.0


def turn_of_pairs(
    x: Floats, y: Floats, rx: Floats, ry: Floats, variance: Floats
) -> tuple[float, float, float]:
    """Return the rotation that pairs show, its standard error (radians), and the radius of their field.

    The weights are the inverse variances with a common scatter, and the error holds the scatter that a
    rotation leaves.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Positions, pixels; n >= 3.
    rx, ry : ndarray, shape (n,)
        What is left of their displacements after a shift, pixels.
    variance : ndarray, shape (n,)
        Variance of the pairs per axis by their own errors.
    """
    weight = 1 / (variance + common_scatter(rx, ry, variance))
    total = weight.sum()
    u, v, rx, ry = (values - (weight * values).sum() / total for values in (x, y, rx, ry))
    lever = (weight * (u**2 + v**2)).sum()
    angle = (weight * (u * ry - v * rx)).sum() / lever
    left = (weight * ((rx + angle * v) ** 2 + (ry - angle * u) ** 2)).sum() / (2 * x.size - 3)
    return float(angle), float(np.sqrt(left / lever)), float(np.hypot(u, v).max())
