"""The displacement of pairs of sources: weights, fit, and how far it can be wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from niripipe.algorithms.arrays import Bool, Floats, Indices
from niripipe.algorithms.register import Sources
from niripipe.algorithms.robust import RAYLEIGH_MEDIAN

__all__ = ["CENTRING", "FEW_PAIRS", "PairNoise", "agreeing", "common_scatter", "least_squares", "pair_noise"]


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
# Of the common scatter a faint source is given up to so many times the brightest one's.
_MOST_SCATTER = 10.0


class PairNoise(NamedTuple):
    """Noise of n pairs; arrays of shape (n,).

    Attributes
    ----------
    variance : ndarray
        Variance of the displacement per axis by the errors of the two positions, pixels squared.
    share : ndarray
        Factor of the common scatter in the weights: 1 for the pair of the highest S/N, the square root of
        the ratio of S/N for others, 10 at most. Distortion displaces bright and faint sources alike, but a
        blurred bright star harms most.
    """

    variance: Floats
    share: Floats

    def take(self, which: Bool) -> PairNoise:
        """Return the pairs that a mask chooses."""
        return PairNoise(self.variance[which], self.share[which])

    def weights(self, scatter: float) -> Floats:
        """Return the weights of the pairs for a common scatter, a variance in pixels squared."""
        return np.asarray(1 / (self.variance + scatter * self.share))

    def error(self, scatter: float, fwhm: float) -> float:
        """Return the standard error of the weighted mean per axis, pixels.

        The scatter of a few pairs is itself uncertain: it is taken n / (n - 1) times larger, like the
        variance of Student's distribution, but finite for two pairs. `CENTRING` is added, over the
        effective number of pairs.
        """
        number = self.variance.size
        known = scatter * (number / (number - 1) if number > 1 else 1.0)
        weight = self.weights(scatter)
        total = float(weight.sum())
        formal = float((weight**2 * (self.variance + known)).sum()) / total**2
        effective = total**2 / float((weight**2).sum())
        return float(np.hypot(np.sqrt(formal), (CENTRING * fwhm if fwhm > 0 else 0.0) / effective))


def pair_noise(frame: Sources, reference: Sources, i: Indices, j: Indices) -> PairNoise:
    """Return the noise of the pairs (i, j) of two lists."""
    variance = _variances(frame)[i] + _variances(reference)[j]
    snr = np.fmin(frame.snr()[i], reference.snr()[j])
    snr = np.where(np.isfinite(snr) & (snr > 0), snr, np.nan)
    if not np.isfinite(snr).any():
        return PairNoise(variance, np.ones(variance.size))
    ratio = np.nan_to_num(np.nanmax(snr) / snr, nan=_MOST_SCATTER**2)
    return PairNoise(variance, np.minimum(np.sqrt(ratio), _MOST_SCATTER))


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
