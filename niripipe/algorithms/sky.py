"""How much of a sky frame is in a science frame: a factor or a constant.

The frames are looked at once, to draw a sample of pixels that are usable in both; everything that is
repeated works on that sample. Multiplying and subtracting whole planes is left to the caller, who can do it
in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Final, Literal

import numpy as np

from niripipe.algorithms.arrays import Bool, Float32, Float64, Floats, Indices
from niripipe.algorithms.background import Background, clipped_level, lattice, level_of
from niripipe.algorithms.robust import MEDIAN_ERROR, good_pixels, median_of_ranks
from niripipe.algorithms.sources import PlaneSource, Section
from niripipe.errors import AlgorithmError

__all__ = ["LevelKind", "SkyMatch", "can_be_scaled", "sky_factor", "sky_offset", "sky_residual", "subtracted"]

LevelKind = Literal["peak", "median", "faint", "boxes"]

_SAMPLES = 1 << 18
# Side of the boxes, in pixels, and share of them, that define the level "faint".
_BOX, _FAINT_SHARE = 32, 0.2
# A sky is scaled when its level exceeds the error of the level so many times: the factor is good to 5 %.
_SIGNIFICANT = 20.0
# The levels of boxes need as many of them.
_LEAST_BOXES = 25


@dataclass(frozen=True, slots=True)
class SkyMatch:
    """The sky in a science frame, in terms of a sky frame.

    Attributes
    ----------
    value : float
        The factor F of ``data - F * sky`` or the constant c of ``data - sky - c``.
    residual : float
        Level left after the subtraction, on the sample, in the unit of the data.
    std : float
        Deviation of the pixels about it.
    rounds : int
        Rounds taken.
    n : int
        Number of pixels looked at.
    share : float
        Part of the field that agrees with the level; 1 for levels other than "boxes", which do not tell.
    """

    value: float
    residual: float
    std: float
    rounds: int
    n: int
    share: float = 1.0


def subtracted(data: Float32, sky: Float32, *, factor: float = 1.0, constant: float = 0.0) -> Float32:
    """Subtract a sky from some pixels of a frame.

    Parameters
    ----------
    data, sky : ndarray of float32
        Frame and sky, of one shape. Not modified.
    factor, constant : float
        What the sky is multiplied by, and a number to subtract too. With the signs of both changed the sky
        is put back, to the rounding of float32.

    Returns
    -------
    ndarray of float32
        ``data - factor * sky - constant``.
    """
    result: Float32 = sky * np.float32(-factor)
    result += data
    if constant:
        result -= np.float32(constant)
    return result


def sky_factor(
    data: PlaneSource,
    sky: PlaneSource,
    *masks: PlaneSource | None,
    level: LevelKind = "peak",
    threshold: float = 0.001,
) -> SkyMatch:
    """Find the factor by which a sky frame must be multiplied to cancel the sky of a science frame.

    Parameters
    ----------
    data, sky : ndarray or PlaneSource, shape (ny, nx)
        Science frame and sky frame; only a sample is read.
    *masks : ndarray of int or PlaneSource of the same shape, or None
        Data quality of either, and sources in the science frame; pixels that are not zero in one of them are
        left out. Give the sources whenever they are known: a frame that is measured with its sources in has
        too much subtracted.
    level : {"peak", "median", "faint", "boxes"}
        What the sky level is. "peak": the peak of the distribution (see
        `~niripipe.algorithms.background.level_of`), for most fields. "median": the clipped median. "faint":
        the level of the faintest fifth of the 32-pixel boxes, corrected for having chosen the faintest, for
        a galaxy that reaches over most of the field; it is noisier, and real structure of the sky drags it
        down by about its amplitude. "boxes": the mean of all boxes that agree with each other, starting from
        the faintest: as good as "peak" where there is sky alone, and blind to a galaxy that leaves a fifth
        of the field free; it needs 160 x 160 pixels, like "faint".
    threshold : float
        The rounds end when a correction is at most this fraction.

    Returns
    -------
    SkyMatch
        ``value`` is the factor F. Propagate as VAR + F**2 VAR_sky.

    Raises
    ------
    AlgorithmError
        When there are too few common pixels, the sky frame has no level to scale (it is zero, negative, or
        not 20 times its error), or the factor does not settle within 100 rounds.

    Notes
    -----
    Iterated so that the residual level is zero even where the estimator is biased: with work = data,
    T = sky, c = 1 repeat f = level(work) / level(T); T = f T; work = work - T; c = c f; F = F + c until
    abs(c) <= threshold (DRAGONS, subtractSky).
    """
    sample = _sampled(data, sky, masks, level)
    whole = level_of(sample.sky_pixels) if level != "median" else clipped_level(sample.sky_pixels)
    base = whole.level
    if not base > 0:
        raise AlgorithmError(
            "The sky frame has no positive level, so there is nothing to scale it by",
            found=f"{base:.6g} +- {whole.std:.3g}",
            expected="> 0",
            remedy="Use an offset instead of a factor (offset_sky), or neither.",
        )
    if not can_be_scaled(base, whole.std, whole.n):
        raise AlgorithmError(
            "There is hardly any sky, so there is nothing to scale by",
            found=f"{base:.4g}, with pixels of {whole.std:.3g} deviation",
            expected=f"a level of at least {_SIGNIFICANT:g} times its error",
            remedy="Use an offset instead of a factor (offset_sky), or neither.",
        )
    # No factor is known better than the level that it refers to.
    error = MEDIAN_ERROR * whole.std / math.sqrt(max(whole.n, 1)) / base
    precision = max(threshold, 0.1 * error)
    factor, correction = 0.0, 1.0
    for turn in range(1, 101):
        correction = sample.left(factor).level / base
        factor += correction
        if abs(correction) <= precision:
            return sample.match(factor, turn)
    raise AlgorithmError(
        "The sky factor did not settle",
        found=f"last correction {correction:.3g} after 100 rounds, factor {factor:.6g}",
        expected=f"a correction of at most {threshold:g}",
        remedy="Look at the frame and its object mask, or subtract the sky unscaled (scale_sky=False).",
    )


def can_be_scaled(level: float, std: float, number: int) -> bool:
    """Return whether a sky has enough light for a factor: a level of 20 times its error.

    Parameters
    ----------
    level, std : float
        Level and deviation of its pixels.
    number : int
        Number of pixels that the level is measured from.
    """
    return level > 0 and level >= _SIGNIFICANT * MEDIAN_ERROR * std / math.sqrt(max(number, 1))


def sky_offset(
    data: PlaneSource, sky: PlaneSource, *masks: PlaneSource | None, level: LevelKind = "peak"
) -> SkyMatch:
    """Find the constant that remains when a sky frame is subtracted from a science frame.

    Parameters
    ----------
    data, sky, *masks, level
        As for `sky_factor`.

    Returns
    -------
    SkyMatch
        ``value`` is the constant c of ``data - sky - c``. Its own variance can be neglected.

    Raises
    ------
    AlgorithmError
        When there are too few common pixels.
    """
    found = _sampled(data, sky, masks, level).match(1.0, 1)
    return replace(found, value=found.residual, residual=0.0)


def sky_residual(
    data: PlaneSource,
    sky: PlaneSource,
    *masks: PlaneSource | None,
    factor: float = 1.0,
    level: LevelKind = "peak",
) -> SkyMatch:
    """Measure the level that remains when a sky frame is subtracted with a known factor.

    Parameters
    ----------
    data, sky, *masks, level
        As for `sky_factor`.
    factor : float
        What the sky frame is multiplied by.

    Returns
    -------
    SkyMatch
        ``value`` is the factor, ``residual`` the level of ``data - factor * sky``.

    Raises
    ------
    AlgorithmError
        When there are too few common pixels.
    """
    # A smaller sample is enough for a level that is only reported.
    return _sampled(data, sky, masks, level, thin=4).match(factor, 1)


@dataclass(frozen=True, slots=True)
class _Sample:
    """Pixels that are usable in a science frame and in its sky.

    Attributes
    ----------
    science, sky : ndarray, shape (n,), or (boxes, n) with NaN where not usable
        Values of the same pixels of both frames.
    sky_pixels : ndarray, shape (n,)
        Values of the sky frame whose level a factor refers to.
    level : {"peak", "median", "faint", "boxes"}
        How levels are measured.
    """

    science: Floats
    sky: Floats
    sky_pixels: Floats
    level: LevelKind

    def left(self, factor: float) -> Background:
        """Measure the level that is left when the sky is subtracted with a factor."""
        return _LEVELS[self.level](self.science - self.sky.dtype.type(factor) * self.sky)

    def match(self, factor: float, rounds: int) -> SkyMatch:
        """Return what a factor leaves."""
        left = self.left(factor)
        usable = max(int(np.isfinite(self.science).sum()), 1)
        share = left.n / usable if self.level == "boxes" else 1.0
        return SkyMatch(factor, left.level, left.std, rounds, left.n, share)


def _sampled(
    data: PlaneSource,
    sky: PlaneSource,
    masks: tuple[PlaneSource | None, ...],
    level: LevelKind,
    thin: int = 1,
) -> _Sample:
    """Sample both frames at the same pixels, one in ``thin`` of those usually taken."""
    if data.shape != sky.shape:
        raise AlgorithmError("Science and sky frame differ in shape", found=data.shape, expected=sky.shape)
    if level in ("faint", "boxes"):
        return _box_sample(data, sky, masks, level, thin)
    pieces = []
    step = max(1, round(thin * math.prod(data.shape) / _SAMPLES))
    for row, column in lattice(step):
        cut = (slice(row, None, step), slice(column, None, step))
        some, some_sky, good = _usable(cut, data, sky, masks)
        pieces.append((some[good], some_sky[good]))
    science, frame = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return _Sample(science, frame, frame, level)


def _usable(
    cut: Section, data: PlaneSource, sky: PlaneSource, masks: tuple[PlaneSource | None, ...]
) -> tuple[Floats, Floats, Bool]:
    """Read a part of frame and sky, and find where both are numbers without flags."""
    some, some_sky = data[cut], sky[cut]
    good = good_pixels(some, *(plane[cut] for plane in masks if plane is not None))
    return some, some_sky, good & np.isfinite(some_sky)


def _box_sample(
    data: PlaneSource, sky: PlaneSource, masks: tuple[PlaneSource | None, ...], level: LevelKind, thin: int
) -> _Sample:
    ny, nx = (size // _BOX for size in data.shape)
    if ny * nx < _LEAST_BOXES:
        raise AlgorithmError(
            f'The frame is too small for the level "{level}"',
            found=data.shape,
            expected=f"at least {5 * _BOX} x {5 * _BOX} pixels",
        )
    # Half of the rows and half of the columns: the boxes' medians need no more.
    step = 2 * math.isqrt(thin)
    cut = (slice(0, ny * _BOX, step), slice(0, nx * _BOX, step))
    some, some_sky, good = _usable(cut, data, sky, masks)

    def boxes(part: Floats) -> Floats:
        part = np.where(good, part, np.nan).reshape(ny, _BOX // step, nx, _BOX // step)
        return part.transpose(0, 2, 1, 3).reshape(ny * nx, -1)

    science, frame = boxes(some), boxes(some_sky)
    # A box that is mostly masked has no useful median.
    enough = np.isfinite(science).mean(axis=1) > 0.3
    if enough.sum() < _LEAST_BOXES:
        raise AlgorithmError(
            f'Too few boxes with unmasked pixels for the level "{level}"',
            found=int(enough.sum()),
            expected=f">= {_LEAST_BOXES}",
        )
    return _Sample(science[enough], frame[enough], some_sky[good], level)


def _faint_level(values: Floats) -> Background:
    """Mean of the faintest boxes, lifted by what choosing the faintest of equals would have cost."""
    median, spread, number = _measured(values)
    level, std = _faintest(median, spread, number)
    return Background(level, std, int(number.sum()))


def _box_level(values: Floats) -> Background:
    """Mean of the boxes that agree with each other, starting from the faintest; ``n`` counts their pixels."""
    median, deviation, number = _measured(values)
    level, std = _faintest(median, deviation, number)
    noise = MEDIAN_ERROR * std / float(np.sqrt(np.median(number)))
    for _ in range(20):
        below = median[median < level]
        # Structure of the sky itself shows on the faint side, where there is no light of sources.
        spread = max(noise, float(np.sqrt(np.mean((below - level) ** 2)))) if below.size > 4 else noise
        agree = np.abs(median - level) <= 2.5 * spread
        if not agree.any():
            break
        before, level = level, float(np.mean(median[agree]))
        if abs(level - before) < 0.01 * noise:
            break
    agree = np.abs(median - level) <= 3 * max(noise, 1e-30)
    return Background(level, std, int(number[agree].sum()))


def _measured(values: Floats) -> tuple[Float64, Float64, Indices]:
    """Return medians, deviations of the fainter half, and numbers of pixels of boxes."""
    number = np.isfinite(values).sum(axis=1)
    # Sorting puts the masked pixels, NaN, last.
    ranked = np.sort(values, axis=1).astype(np.float64)
    medians = median_of_ranks(ranked, np.zeros_like(number), number, axis=1)
    faint = ranked[np.arange(number.size), (0.1587 * number).astype(np.intp)]
    return medians, medians - faint, number


def _faintest(median: Float64, spread: Float64, number: Indices) -> tuple[float, float]:
    """Level of the faintest boxes, and the deviation of their pixels."""
    order = np.argsort(median, kind="stable")[: max(5, int(_FAINT_SHARE * median.size))]
    std = float(np.median(spread[order]))
    noise = MEDIAN_ERROR * std / float(np.sqrt(np.median(number[order])))
    # Blom's expected order statistics of as many equals as there are boxes.
    expected = [
        NormalDist().inv_cdf((rank - 0.375) / (median.size + 0.25)) for rank in range(1, order.size + 1)
    ]
    return float(np.mean(median[order]) - noise * np.mean(expected)), std


_LEVELS: Final[Mapping[LevelKind, Callable[[Floats], Background]]] = {
    "peak": level_of,
    "median": clipped_level,
    "faint": _faint_level,
    "boxes": _box_level,
}
