"""Noise that the frames of a stack have in common because their skies were made of the same exposures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from niripipe.algorithms.arrays import Bool, Float32, Float64, Indices, Integers
from niripipe.algorithms.kernels import kernel_weights
from niripipe.algorithms.parallel import plane_rows, row_blocks
from niripipe.algorithms.robust import fast_median
from niripipe.algorithms.sources import RowSource

__all__ = ["SharedSkies", "add_shared", "frame_covariance", "kernel_overlap", "shared_skies"]

_TAPS = 4
"""The overlap of kernels is that of the default one; that of the others differs little."""
_LEAST_OVERLAP = 0.02
"""Kernels that overlap less than this have no noise in common that counts."""
_NEAR = 2.0
"""Frames that are closer than this (pixels) show the same noise in an aperture, though not in a pixel."""
_STACKED = 0.8
"""A sky of one frame whose variance is below this part of the frame's is a stack: the frame under its name
is only a part of it."""
_WORTH = 0.002
"""Smaller changes of the variance are not applied."""
_FLOOR = 0.1
"""A variance keeps at least this part: skies can cancel noise of the stack, and are known only so well."""
_SOURCES = 2.0
"""Above this, times the typical variance, the noise in a pixel is that of a source, which the skies lack."""
_STRIDE = 8
"""One of so many rows tells the typical variance."""


@dataclass(frozen=True, slots=True)
class SharedSkies:
    """What frames of a stack have in common.

    Attributes
    ----------
    groups : tuple of ndarray of int
        The frames that share noise in a pixel of the stack: skies in common, and the same position.
    excess : tuple of float
        For each group, what its covariances add to the variance of the stack, over the variance without.
    aperture : float
        The same for a large aperture, all frames together, over the variance of a pixel without.
    """

    groups: tuple[Indices, ...]
    excess: tuple[float, ...]
    aperture: float

    @property
    def factor(self) -> float:
        """By what the variance of a pixel is multiplied where all frames contribute."""
        return max(1 + sum(self.excess), _FLOOR)

    def correlation(self, alone: float) -> float:
        """Return the variance of a large aperture over the sum of its variances; `alone` is without skies."""
        return max(alone + self.aperture, _FLOOR) / self.factor


def frame_covariance(variance: Float64, share: Float64, skies: Bool, own: Bool) -> Float64:
    """Return the covariance of sky-subtracted frames at the same pixel of the detector.

    Parameters
    ----------
    variance : ndarray of float64, shape (n,)
        Variance of each frame, typical of blank pixels, with that of its sky.
    share : ndarray of float64, shape (n,)
        Which part of it is the sky's.
    skies : ndarray of bool, shape (n, m)
        Which of m exposures each frame's sky was made of.
    own : ndarray of bool, shape (n, m)
        Which of these exposures the frame itself is; none for a frame that is nobody's sky.

    Returns
    -------
    ndarray of float64, shape (n, n)
        With the variances in its diagonal.

    Notes
    -----
    The frame x_i has the variance T_i = (1 - share) v_i, its sky S_i = share v_i. Frames whose skies are made
    of n and n' exposures, k of them the same, have the covariance ``sqrt(S S') k / sqrt(n n')``, which is S
    for the same sky. For medians the ratio f = n S / T is above 1; their covariance falls faster than
    the overlap o = k / sqrt(n n'), by ``(1 + (f - 1) o) / f``, which is good to 10 % (measured on normal
    deviates, n = 3 to 20). A frame i that is one of the n exposures of the sky of frame l adds
    ``-sqrt(T_i) t / n`` with the noise t of one exposure in that sky, ``t^2 = n S / f``: exactly so
    for a mean and for a median of exposures with the same normal noise (the median less the mean does not
    depend on the mean, and all exposures are alike).
    """
    number = np.maximum(skies.sum(axis=1), 1).astype(float)
    target, sky = (1 - share) * variance, share * variance
    ratio = np.divide(number * sky, target, out=np.ones_like(target), where=target > 0)
    gain = np.clip(ratio, 1.0, math.pi / 2)
    pairs = skies.astype(float) @ skies.T.astype(float)
    overlap = pairs / np.sqrt(np.outer(number, number))
    joint = np.sqrt(np.outer(gain, gain))
    covariance = overlap * np.sqrt(np.outer(sky, sky)) * (1 + (joint - 1) * overlap) / joint
    known = (number > 1) | (ratio > _STACKED)
    used = own.astype(float) @ (skies & known[:, None]).T.astype(float)
    crossed = used * np.outer(np.sqrt(target), np.sqrt(number * sky / gain) / number)
    covariance -= crossed + crossed.T
    np.fill_diagonal(covariance, variance)
    return np.asarray(covariance)


def kernel_overlap(positions: Float64) -> Float64:
    """Return the share of noise that the interpolated pixels of frames have in common, by where they lie.

    Parameters
    ----------
    positions : ndarray of float64, shape (n, 2)
        Position (y, x) in each frame that one pixel of the stack was interpolated at.

    Returns
    -------
    ndarray of float64, shape (n, n)
        1 for the same position, 0 for positions beyond the reach of the kernel.

    Notes
    -----
    A pixel is the sum of K_q x_q over pixels q of the frame. Where noise at the same q has the correlation c,
    that of two such sums is ``c sum(K K') / sqrt(sum(K^2) sum(K'^2))``.
    """
    result = np.ones((len(positions), len(positions)))
    for axis in positions.T:
        left = np.floor(axis)
        weights = kernel_weights(axis - left, _TAPS)
        steps = (left[None, :] - left[:, None]).astype(int)
        common = np.zeros_like(result)
        for lag in range(1 - _TAPS, _TAPS):
            shifted = np.zeros_like(weights)
            shifted[max(-lag, 0) : _TAPS - max(lag, 0)] = weights[max(lag, 0) : _TAPS + min(lag, 0)]
            common += np.where(steps == lag, shifted.T @ weights, 0.0)
        norm = np.sqrt((weights**2).sum(axis=0))
        result *= common / np.outer(norm, norm)
    return result


def shared_skies(
    covariance: Float64, positions: Float64, weights: Float64, correlation: Float64
) -> SharedSkies | None:
    """Return what the covariances of frames add to the variance of their weighted mean.

    Parameters
    ----------
    covariance : ndarray of float64, shape (n, n)
        Of `frame_covariance`.
    positions : ndarray of float64, shape (n, 2)
        Of `kernel_overlap`.
    weights : ndarray of float64, shape (n,)
        By which each frame is multiplied before the sum.
    correlation : ndarray of float64, shape (n,)
        Variance of a large aperture over the sum of its variances, of each frame.

    Returns
    -------
    SharedSkies or None
        None where the frames share nothing that counts, as of frames that are dithered without repeats.
    """
    whole = float(np.sum(weights**2 * np.diag(covariance)))
    if not whole > 0:
        return None
    terms = covariance * np.outer(weights, weights) / whole
    np.fill_diagonal(terms, 0.0)
    overlap = kernel_overlap(positions)
    linked = (np.abs(overlap) > _LEAST_OVERLAP) & (terms != 0)
    if not linked.any():
        return None
    from scipy.sparse.csgraph import connected_components

    number, labels = connected_components(linked, directed=False)
    groups = [np.flatnonzero(labels == k) for k in range(number)]
    groups = [group for group in groups if group.size > 1]
    excess = [float((terms * overlap)[np.ix_(group, group)].sum()) for group in groups]
    if not sum(abs(part) for part in excess) > _WORTH:
        return None
    distance = np.hypot(*(positions[None, :, :] - positions[:, None, :]).transpose(2, 0, 1))
    # Sums over an aperture have the noise of the pixels of the frames, before interpolation made it less.
    sums = terms * np.sqrt(np.outer(correlation, correlation))
    return SharedSkies(tuple(groups), tuple(excess), float(sums[distance < _NEAR].sum()))


def add_shared(
    variance: Float32,
    count: Integers,
    shared: SharedSkies,
    masks: Sequence[RowSource | None],
    unusable: np.uint16,
) -> None:
    """Add to the variance of a stack, in place, what its frames have in common.

    Parameters
    ----------
    variance : ndarray of float32, shape (ny, nx)
        Variance as if the frames were independent.
    count : ndarray of int, shape (ny, nx)
        Number of frames used in each pixel.
    shared : SharedSkies
    masks : sequence of RowSource or None
        Data quality of each frame, of the shape of the stack; None for a frame all of whose pixels count.
    unusable : uint16
        Bits that keep a pixel from being used.

    Notes
    -----
    A group of m frames of which n are used in a pixel has n (n - 1) of its m (m - 1) covariances there, and
    the variance without sharing is that of count frames. Light of sources has noise too, which skies do not
    share, because sources are left out of them: only the variance up to `_SOURCES` times the typical
    one is multiplied.
    """
    ny, nx = variance.shape
    total = len(masks)
    sizes = [group.size for group in shared.groups]
    typical = _typical(variance, count)
    for rows in row_blocks(ny, plane_rows(nx)):
        used = count[rows].astype(np.float32)
        usable = [np.zeros_like(used) for _ in shared.groups]
        present = np.zeros_like(used)
        belongs = {int(k): g for g, group in enumerate(shared.groups) for k in group}
        for k, mask in enumerate(masks):
            good = np.ones(used.shape, bool) if mask is None else (mask[rows] & unusable) == 0
            present += good
            if k in belongs:
                usable[belongs[k]] += good
        # Of what is usable a part was rejected; where nothing is, something was used all the same.
        kept = np.divide(used, present, out=used / np.float32(total), where=present > 0)
        ratio = np.zeros_like(used)
        for number, size, excess in zip(usable, sizes, shared.excess, strict=True):
            number = np.where(present > 0, number, np.float32(size)) * kept
            ratio += np.float32(excess / (size * (size - 1))) * number * np.maximum(number - 1, 0)
        ratio *= np.float32(total) / np.maximum(used, 1)
        np.maximum(ratio, np.float32(_FLOOR - 1), out=ratio)
        block = variance[rows]
        block += ratio * np.minimum(block, np.float32(_SOURCES * typical) / np.maximum(used, 1))


def _typical(variance: Float32, count: Integers) -> float:
    """Return the median variance of a single frame of a stack."""
    rows = slice(_STRIDE // 2, None, _STRIDE) if len(variance) > _STRIDE else slice(None)
    single = variance[rows] * count[rows]
    return fast_median(single, (single > 0) & np.isfinite(single))
