"""How aligned frames of one field differ: level, flux, width of the stars.

The frames show the same scene, so that whatever differs is not of the sky: a residual level, clouds, seeing,
guiding. Each frame is taken for ``level + flux * scene``. Fluxes come from stars against their own
surroundings, levels from what is left in boxes all over the frame; a galaxy that fills the field is part
of the scene and does no harm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Float64, Indices
from niripipe.algorithms.combine.select import UNUSABLE
from niripipe.algorithms.parallel import map_items
from niripipe.algorithms.robust import MAD_TO_SIGMA, MEDIAN_ERROR, median_of_good, weighted_median
from niripipe.algorithms.sources import RowSource
from niripipe.algorithms.star_stamps import StarStamps, cut_stamps

__all__ = ["FrameLevels", "measure_frames"]

_BOXES, _BOX = 16, (16, 64)
"""Boxes across a frame, unless they become narrower or wider than these limits, pixels."""
_BOX_ROWS = 2
"""Rows of a box: 128 pixels give its median to a tenth of a pixel's noise."""
_LEAST_IN_BOX = 0.5
"""Share of good pixels below which a box is not used."""
_ROUNDS = 20
"""Rounds of levels and scene: frames that all overlap need two, a mosaic more."""
_FLUX_ROUNDS, _SETTLED = 20, 1e-4
"""Rounds of fluxes of frames and of stars at most, and the change below which they end."""
_SAME_FIELD = 0.5
"""Frames are tiles of a mosaic if two of them share less than this part of their boxes."""
_QUIET = 0.5
"""Share of the boxes, the faintest ones, that give the levels."""
_LEAST_BOXES = 8
"""Boxes in common that a level needs at least."""
_SAME_FLUX = 0.01
"""Fluxes that differ less, or by less than three of their errors, are taken for equal: the response of the
detector and the interpolation account for as much."""
_UNSURE = 0.05
"""A flux with a larger error is taken for the mean: the stars do not agree, or are too faint."""
_TRAILED = 0.06
"""Change of ellipticity against the median frame from which on stars are trailed: 8 pixels in a fifth of the
exposure make 0.14, 0.12 and 0.065 at a FWHM of 3.4, 4.7 and 7.7 pixels."""
_CERTAIN = 5.0
"""How many of its errors it is at least."""
_LONGER = 1.03
"""A trail makes stars wider by 1.045 at least in those cases; adaptive optics also changes their shape."""
_MARGIN = 1.2
"""By how much more than the stars measured have shown the inputs may differ."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameLevels:
    """What differs between n aligned frames. Arrays of float64, shape (n,), but for the stars.

    Attributes
    ----------
    level : ndarray
        Level of each frame above the mean of all, data units; 0 where it is not known.
    level_error : ndarray
        Its standard error; NaN where it is not known.
    flux : ndarray
        Flux of the sources relative to the mean of all frames; exactly 1 where all are equal or nothing is
        known.
    flux_error : ndarray
        Its standard error; NaN without stars.
    fwhm : ndarray
        Full width at half maximum, pixels; NaN without stars. It is the width of the median star times the
        root of the frame's area of light, ``sum(d)**2 / sum(d**2)``, over that of the median star. So a
        trail counts, even if its tail is fainter than half the peak.
    elongation : ndarray
        Change of the stars' ellipticity against that of the median frame, ``(a**2 - b**2) / (a**2 + b**2)``
        of second moments; NaN without stars.
    trailed : ndarray of bool
        Frames whose elongation is large and certain.
    deviation : ndarray
        Largest deviation in the stars from the median star, in units of the largest difference between the
        median star's pixel and its 5 x 5 neighbours; NaN without stars.
    background : float
        Level of the faint half of the boxes.
    stars : ndarray of int, shape (m, 2)
        y and x of the stars measured.
    """

    level: Float64
    level_error: Float64
    flux: Float64
    flux_error: Float64
    fwhm: Float64
    elongation: Float64
    trailed: Bool
    deviation: Float64
    background: float
    stars: Indices

    def contrasts(self, least: float, sigma: float) -> tuple[float, ...]:
        """Return the contrast of each frame that keeps the stars within limits of `sigma`, `least` or more.

        See `~niripipe.algorithms.combine.NoiseModel`, which has one contrast for each input.
        """
        if sigma <= 0:
            return (least,) * len(self.level)
        needed = np.nan_to_num(_MARGIN * self.deviation / sigma)
        return tuple(float(value) for value in np.maximum(needed, least))


def measure_frames(
    data: Sequence[RowSource],
    variance: Sequence[RowSource] | None,
    mask: Sequence[RowSource | None] | None,
    *,
    correlation: Sequence[float] | None = None,
    threads: int = 1,
) -> FrameLevels:
    """Measure how aligned frames differ.

    Parameters
    ----------
    data : sequence of RowSource
        n planes ``(ny, nx)`` of one field on one grid, sky subtracted or not.
    variance : sequence of RowSource, optional
        n planes of variance.
    mask : sequence of RowSource or None, optional
        n planes of data-quality bits; pixels with other bits than non-linear and saturated are not used.
    correlation : sequence of float, optional
        By which variances summed over an aperture are too small in each frame; 1 by default.
    threads : int
        Number of threads.

    Returns
    -------
    FrameLevels

    Notes
    -----
    With b_ik the median of frame i in box k, ``b_ik = level_i + flux_i scene_k`` is solved by medians in
    turn: the scene over the frames, the level over the faint half of the boxes. Levels have the mean 0 and
    fluxes the mean 1, so that corrected frames have the mean of the frames.
    """
    masks = [None] * len(data) if mask is None else list(mask)
    tasks: list[Callable[[], Any]] = [
        partial(cut_stamps, data, variance, masks),
        partial(_all_boxes, data, masks),
    ]
    found = map_items(_done, tasks, threads=threads)
    (stamps, widths), boxes = found
    factors = np.ones(len(data)) if correlation is None else np.asarray(correlation, float)
    flux, flux_error = _fluxes(stamps, np.sqrt(factors))
    level, error, background = _levels(boxes, flux)
    fwhm, deviation = _widths(stamps, widths, flux)
    elongation, trailed = _elongations(stamps, fwhm, np.sqrt(factors))
    return FrameLevels(
        level,
        error,
        flux,
        flux_error,
        fwhm,
        elongation,
        trailed,
        deviation,
        background,
        stamps.positions,
    )


def _done(task: Callable[[], Any]) -> Any:
    return task()


def _all_boxes(data: Sequence[RowSource], masks: Sequence[RowSource | None]) -> Float64:
    return np.stack([_box_medians(plane, flags) for plane, flags in zip(data, masks, strict=True)])


def _box_medians(plane: RowSource, mask: RowSource | None) -> Float64:
    """Medians of the good pixels of boxes, 1-d; NaN where there are too few."""
    ny, nx = plane.shape
    width = min(max(min(ny, nx) // _BOXES, _BOX[0]), _BOX[1], nx)
    down, across = max(ny // width, 1), nx // width

    def boxes(source: RowSource) -> NDArray[Any]:
        rows = [source[slice(k, down * width, width)][:, : across * width] for k in range(_BOX_ROWS)]
        return np.concatenate([row.reshape(down, across, width) for row in rows], axis=2)

    values = np.asarray(boxes(plane), np.float32)
    good = np.isfinite(values)
    if mask is not None:
        good &= boxes(mask) & UNUSABLE == 0
    enough = np.count_nonzero(good, axis=2) >= _LEAST_IN_BOX * good.shape[2]
    return np.where(enough, median_of_good(values, good, axis=2), np.nan).astype(float).ravel()


def _levels(boxes: Float64, flux: Float64) -> tuple[Float64, Float64, float]:
    """Return levels, their errors, and the level of the faint half of the scene."""
    n = len(boxes)
    level, error = np.zeros(n), np.full(n, np.nan)
    known = ~np.isnan(boxes)
    boxes = boxes[:, known.sum(axis=0) >= min(2, n)]
    if boxes.shape[1] < _LEAST_BOXES:
        return level, error, 0.0
    level = _levels_of_pairs(boxes, flux)
    scene = _median((boxes - level[:, None]) / flux[:, None], axis=0)
    quiet = scene <= np.quantile(scene, _QUIET)
    for _ in range(_ROUNDS):
        residual = boxes - flux[:, None] * scene
        there = ~np.isnan(residual)
        # A frame that shares no faint boxes with the others is compared where it does share some.
        use = np.where((there & quiet).sum(axis=1, keepdims=True) >= _LEAST_BOXES, there & quiet, there)
        residual = np.where(use, residual, np.nan)
        new = np.nan_to_num(_median(residual, axis=1))
        new -= new.mean()
        moved = float(np.abs(new - level).max())
        level = new
        scene = _median((boxes - level[:, None]) / flux[:, None], axis=0)
        spread = MAD_TO_SIGMA * _median(np.abs(residual - level[:, None]), axis=1)
        number = use.sum(axis=1)
        error = MEDIAN_ERROR * spread / np.sqrt(np.maximum(number, 1))
        error[number < _LEAST_BOXES] = np.nan
        if moved <= 0.1 * float(np.nanmax(np.nan_to_num(error))):
            break
    level = np.where(np.isnan(error), 0.0, level)
    return level, error, float(np.median(scene[quiet]))


def _levels_of_pairs(boxes: Float64, flux: Float64) -> Float64:
    """Return levels of the frames of a mosaic to start from; zeros where all frames show the same field.

    The rounds of levels and scene carry a level from tile to tile by a part of it each, and would end before
    it has passed through a mosaic. Differences of all pairs of frames, weighted by the boxes that they share,
    give the levels at once; parts that share nothing have a mean of zero each.
    """
    n = len(boxes)
    known = (~np.isnan(boxes)).astype(float)
    shared = known @ known.T
    if shared.min() >= _SAME_FIELD * known.sum(axis=1).min():
        return np.zeros(n)
    normal, right = np.zeros((n, n)), np.zeros(n)
    for i, j in zip(*np.nonzero(np.triu(shared >= _LEAST_BOXES, 1)), strict=True):
        both = (known[i] * known[j]) > 0
        step = float(np.median(boxes[i, both] - flux[i] / flux[j] * boxes[j, both]))
        weight = shared[i, j]
        normal[[i, j], [i, j]] += weight
        normal[[i, j], [j, i]] -= weight
        right[i] += weight * step
        right[j] -= weight * step
    return np.asarray(np.linalg.pinv(normal, rcond=1e-9, hermitian=True) @ right)


def _fluxes(stamps: StarStamps, noisier: Float64) -> tuple[Float64, Float64]:
    """Return relative fluxes of mean 1, and their errors; `noisier` multiplies errors from pixels."""
    ratio, weight = stamps.fluxes()
    n, number = len(noisier), (~np.isnan(ratio)).sum(axis=1)
    if not ratio.shape[1] or (number == 0).any():
        return np.ones(n), np.full(n, np.nan)
    # The median star is that of other frames where a star lacks some: its own factor is found as well.
    flux, own = np.ones(n), ratio
    for _ in range(_FLUX_ROUNDS):
        own = ratio / _median(ratio / flux[:, None], axis=0)
        there = ~np.isnan(own)
        new = np.array([weighted_median(own[k, there[k]], weight[there[k]]) for k in range(n)])
        if (new <= 0).any():
            return np.ones(n), np.full(n, np.nan)
        moved, flux = float(np.abs(new / flux - 1).max()), new
        if moved < _SETTLED:
            break
    errors = stamps.relative_errors * noisier[:, None]
    relative = np.array([_flux_error(own[k] / flux[k], errors[k], weight) for k in range(n)])
    flux /= flux.mean()
    # Relative to the mean, of which the frame is a part.
    error = flux * np.sqrt(relative**2 * (1 - 2 / n) + np.sum((flux * relative) ** 2) / n**2)
    flux[error > _UNSURE] = 1.0
    flux /= flux.mean()
    if (np.abs(flux - 1) <= np.maximum(_SAME_FLUX, 3 * error)).all():
        flux = np.ones(n)
    return flux, error


def _flux_error(ratio: Float64, errors: Float64, weight: Float64) -> float:
    """Return the relative error of a frame's flux: the noise of the pixels, or more where stars disagree.

    Parameters
    ----------
    ratio, errors, weight : ndarray, shape (m,)
        Flux of each star over that of the frame, relative errors, and weights in the median.
    """
    there = ~np.isnan(ratio)
    ratio, errors, weight = ratio[there], errors[there], weight[there]
    number = len(ratio)
    # Up to two values the weighted median is a mean.
    worse = 1.0 if number <= 2 else MEDIAN_ERROR
    noise = worse * math.sqrt(float(np.sum((weight * errors) ** 2))) / float(weight.sum())
    if number == 1:
        return noise
    # Stars may disagree by more than their noise: aperture losses, the flat field. A median of few deviations
    # from a median of their own is too small.
    disagreement = MAD_TO_SIGMA * float(np.median(np.abs(ratio - 1) / np.hypot(errors, noise)))
    return noise * max(1.0, disagreement * math.sqrt(number / (number - 1)))


def _elongations(stamps: StarStamps, fwhm: Float64, noisier: Float64) -> tuple[Float64, Bool]:
    """Return changes of ellipticity against the median frame, and which of them are trails."""
    ellipticity, error = stamps.shapes()
    known: Bool = np.isfinite(ellipticity[:, 0]) & np.isfinite(fwhm)
    if not known.any():
        return np.full(len(known), np.nan), known
    difference = ellipticity - np.median(ellipticity[known], axis=0)
    change = np.asarray(np.hypot(difference[:, 0], difference[:, 1]), float)
    trailed = np.nan_to_num(change) > np.fmax(_TRAILED, _CERTAIN * noisier * error)
    return change, trailed & (np.nan_to_num(fwhm) > _LONGER * np.median(fwhm[known]))


def _widths(stamps: StarStamps, fwhm: Float64, flux: Float64) -> tuple[Float64, Float64]:
    """Return widths of stars, pixels, and how far they deviate from the median star."""
    n = len(flux)
    if not len(stamps.positions):
        return np.full(n, np.nan), np.full(n, np.nan)
    proven, single = stamps.deviations(flux)
    # A hit on the only star would allow for hits on everything: no more than the width explains.
    single = np.minimum(single, [_explained(width, fwhm) for width in fwhm])
    return fwhm, np.where(np.isnan(fwhm), np.nan, np.maximum(proven, single))


def _explained(width: float, widths: Float64) -> float:
    """Return the deviation of a star's peak that its width explains, over the contrast.

    The peak of a star goes with the inverse square of its width. The contrast over two pixels along both
    axes is that of a Moffat profile (beta = 3) of the widest frame, where it is least. Half as much
    again is allowed, and 1 more for a position out of place by a tenth of the width.
    """
    if not np.isfinite(width):
        return math.inf
    contrast = 1 - (1 + 8 / (0.981 * float(np.nanmax(widths))) ** 2) ** -3
    ratio = max(float(np.nanmax(widths)) / width, width / float(np.nanmin(widths)))
    return 1.5 * (ratio**2 - 1) / contrast + 1


def _median(values: Float64, axis: int) -> Float64:
    return median_of_good(values, ~np.isnan(values), axis)
