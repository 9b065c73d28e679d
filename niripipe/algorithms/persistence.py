"""Marks that bright sources leave on the detector in later exposures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Float32, Indices
from niripipe.algorithms.robust import MEDIAN_ERROR, median_of_good, robust_sigma, weighted_median

__all__ = [
    "BrightPixels",
    "Mark",
    "Source",
    "bright_pixels",
    "bright_sources",
    "decay",
    "excess",
    "predicted",
]

_CORE = 0.3
"""A mark is measured where the source had this part of its peak: there it stands out most."""

_WINGS = 0.1
"""Pixels from this part of the threshold on may leave a mark that is to be flagged, too."""

_LARGEST_CORE = 400
"""Pixels; a larger core is a lamp, a galaxy or the sky, and no star."""

_SHIFTS = tuple(
    (round(radius * math.sin(angle)), round(radius * math.cos(angle)))
    for radius in (24.0, 36.0)
    for angle in np.arange(0, 2 * math.pi, math.pi / 4)
)
"""Where the surroundings are measured: far enough from the core of a star, near enough for the same sky."""

_FEWEST_CONTROLS = 5
_SIGNIFICANT = 4.0
"""Sigma from which on a mark is believed; the noise comes from the same measurement beside the mark."""

_FOLLOWING = 3.0
"""The same for later exposures when the first shows a mark: that there is one is known by then."""

_LEAST_ERROR = 1e-6
"""Of a ratio; far below any that is measured."""

_LARGEST_RATIO = 0.05
"""Aladdin arrays keep some thousandths of the light at most; more than this is a source and no mark."""


@dataclass(frozen=True, slots=True)
class Source:
    """The core of a bright source.

    Attributes
    ----------
    core : ndarray of int, shape (n, 2)
        Rows and columns.
    signal : float
        Median signal of these pixels.
    """

    core: Indices
    signal: float


@dataclass(frozen=True, slots=True)
class BrightPixels:
    """The pixels of a frame that may leave a mark.

    Attributes
    ----------
    pixels : ndarray of int32, shape (n,)
        Indices into the flattened frame: a galaxy may have as many as the frame.
    values : ndarray of float32, shape (n,)
        Their signal above the sky.
    """

    pixels: NDArray[np.int32]
    values: Float32


@dataclass(frozen=True, slots=True)
class Mark:
    """What was measured where a source was before.

    Attributes
    ----------
    lag : int
        How many exposures later.
    ratio, error : float
        Excess over the signal of the source, and its error.
    """

    lag: int
    ratio: float
    error: float


def bright_sources(data: Float32, bad: Bool, *, threshold: float, most: int = 5) -> list[Source]:
    """Find the cores of compact bright sources.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Sky-subtracted frame.
    bad : ndarray of bool, shape (ny, nx)
        Pixels that are no light: defects.
    threshold : float
        Peak of a source from which on it counts.
    most : int
        How many sources are looked at, the brightest.

    Returns
    -------
    list of Source
        Brightest first; without single pixels, and without what is too large for a star.
    """
    from scipy import ndimage

    bright = (data > threshold) & ~bad
    labels, number = ndimage.label(bright)
    peaks = np.zeros(number + 1, np.float32)
    np.maximum.at(peaks, labels[bright], data[bright])
    boxes = ndimage.find_objects(labels)
    found = []
    for label in 1 + np.argsort(-peaks[1:])[:most]:
        box = boxes[label - 1]
        inside = (labels[box] == label) & (data[box] >= _CORE * peaks[label])
        # A single pixel is a cosmic ray or a defect.
        if 4 <= np.count_nonzero(inside) <= _LARGEST_CORE:
            core = np.argwhere(inside) + [side.start for side in box]
            found.append(Source(core, float(np.median(data[box][inside]))))
    return found


def bright_pixels(data: Float32, bad: Bool, *, threshold: float) -> BrightPixels:
    """Return the pixels, from a tenth of the threshold on, that may leave a mark.

    Parameters
    ----------
    data, bad, threshold
        As for `bright_sources`.

    Returns
    -------
    BrightPixels
    """
    pixels = np.flatnonzero((data > _WINGS * threshold) & ~bad).astype(np.int32)
    return BrightPixels(pixels, data.ravel()[pixels])


def excess(data: Float32, usable: Bool, core: Indices) -> tuple[float, float] | None:
    """Measure how much brighter a frame is at given pixels than around them.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        A later, sky-subtracted frame.
    usable : ndarray of bool, shape (ny, nx)
        Pixels free of defects and of objects that belong to the sky.
    core : ndarray of int, shape (n, 2)
        Rows and columns.

    Returns
    -------
    tuple of float or None
        Median of the pixels minus the median of the same shape at sixteen positions around, and the robust
        scatter of these, which is the noise on this scale. None if less than half of the core, or of too
        many of the surroundings, is usable.
    """
    y, x = np.moveaxis(core + np.array([(0, 0), *_SHIFTS])[:, None, :], -1, 0)
    good = (y >= 0) & (y < data.shape[0]) & (x >= 0) & (x < data.shape[1])
    y, x = np.where(good, y, 0), np.where(good, x, 0)
    good &= usable[y, x]
    medians = median_of_good(data[y, x].astype(float), good, axis=1)
    enough = 2 * np.count_nonzero(good, axis=1) >= len(core)
    around = medians[1:][enough[1:]]
    if not enough[0] or len(around) < _FEWEST_CONTROLS:
        return None
    return float(medians[0] - np.median(around)), robust_sigma(around)


def decay(marks: Sequence[Mark]) -> dict[int, float]:
    """Return the part of its light that a source leaves, by the number of exposures since.

    Parameters
    ----------
    marks : sequence of Mark
        Of all bright sources, in later frames (positive lag) and in earlier ones (negative lag).

    Returns
    -------
    dict of int to float
        Lag to ratio, only lags with a significant mark, ending before the first without one. Each is the
        median of the marks, weighted by their errors, which count more where the marks scatter more.
        A mark does not grow, so no ratio exceeds that of the lag before. What frames before the source
        show is no mark and is subtracted: its halo after a small dither, or a sky that holds the mark and
        is too bright there.
    """
    ratios: dict[int, float] = {}
    for lag in sorted({mark.lag for mark in marks if mark.lag > 0}):
        ratio, error = _typical([mark for mark in marks if mark.lag == lag])
        before, before_error = _typical([mark for mark in marks if mark.lag == -lag])
        ratio, error = ratio - before, math.hypot(error, before_error)
        needed = _FOLLOWING if ratios else _SIGNIFICANT
        if not needed * error < ratio < _LARGEST_RATIO:
            break
        ratios[lag] = min([ratio, *ratios.values()])
    return ratios


def _typical(marks: Sequence[Mark]) -> tuple[float, float]:
    """Return the weighted median of the ratios of marks and its error; without marks 0."""
    if not marks:
        return 0.0, 0.0
    values = np.array([mark.ratio for mark in marks])
    errors = np.maximum([mark.error for mark in marks], _LEAST_ERROR)
    ratio = weighted_median(values, errors**-2)
    # Marks may scatter more than their errors say, by faint objects in cores or around them.
    excess = max(robust_sigma((values - ratio) / errors), 1.0)
    error = excess / math.sqrt(float(np.sum(errors**-2)))
    return ratio, error * (MEDIAN_ERROR if len(marks) > 1 else 1.0)


def predicted(shape: tuple[int, int], sources: Sequence[tuple[BrightPixels, float]]) -> Float32:
    """Return the light that earlier frames have left.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx) of the frame.
    sources : sequence of (BrightPixels, float)
        Pixels of frames of this shape, and the part of their light that is left.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
    """
    glow = np.zeros(shape[0] * shape[1], np.float32)
    for bright, ratio in sources:
        glow[bright.pixels] += np.float32(ratio) * bright.values
    return glow.reshape(shape)
