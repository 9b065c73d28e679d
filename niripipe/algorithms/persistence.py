"""Marks that bright sources leave on the detector in later exposures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Float32, Float64, Indices
from niripipe.algorithms.robust import MAD_TO_SIGMA, MEDIAN_ERROR

__all__ = ["BrightPixels", "Mark", "bright_pixels", "decay", "excess", "predicted"]

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

_LARGEST_RATIO = 0.05
"""Aladdin arrays keep some thousandths of the light at most; more than this is a source and no mark."""


@dataclass(frozen=True, slots=True)
class BrightPixels:
    """The pixels of a frame that may leave a mark.

    Attributes
    ----------
    pixels : ndarray of int32, shape (n,)
        Indices into the flattened frame: a galaxy may have as many as the frame.
    values : ndarray of float32, shape (n,)
        Their signal above the sky.
    cores : tuple of ndarray of int, shape (m, 2)
        The cores of the brightest sources.
    signals : tuple of float
        Median signal of each core.
    """

    pixels: NDArray[np.int32]
    values: Float32
    cores: tuple[Indices, ...] = ()
    signals: tuple[float, ...] = ()


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


def bright_pixels(data: Float32, bad: Bool, *, threshold: float, sources: int = 5) -> BrightPixels:
    """Find the pixels of compact bright sources.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Sky-subtracted frame.
    bad : ndarray of bool, shape (ny, nx)
        Pixels that are no light: defects.
    threshold : float
        Peak of a source from which on it counts; its pixels count from a tenth of that on.
    sources : int
        How many cores are measured, the brightest.

    Returns
    -------
    BrightPixels
    """
    from scipy import ndimage

    bright = (data > threshold) & ~bad
    labels, number = ndimage.label(bright)
    if not number:
        return BrightPixels(np.zeros(0, np.int32), np.zeros(0, np.float32))
    peaks = np.asarray(ndimage.maximum(data, labels, np.arange(1, number + 1)), float)
    boxes = ndimage.find_objects(labels)
    cores, signals = [], []
    for k in np.argsort(-peaks)[:sources]:
        inside = (labels[boxes[k]] == k + 1) & (data[boxes[k]] >= _CORE * peaks[k])
        # A single pixel is a cosmic ray or a defect.
        if 4 <= np.count_nonzero(inside) <= _LARGEST_CORE:
            cores.append(np.argwhere(inside) + [side.start for side in boxes[k]])
            signals.append(float(np.median(data[boxes[k]][inside])))
    wings = (data > _WINGS * threshold) & ~bad
    pixels = np.flatnonzero(wings).astype(np.int32)
    return BrightPixels(pixels, data[wings], tuple(cores), tuple(signals))


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
        scatter of these, which is the noise on this scale. None if too few pixels are usable.
    """
    here = _median(data, usable, core)
    around = [_median(data, usable, core + np.array(shift)) for shift in _SHIFTS]
    values = np.array([value for value in around if value is not None])
    if here is None or len(values) < _FEWEST_CONTROLS:
        return None
    level = float(np.median(values))
    return here - level, MAD_TO_SIGMA * float(np.median(np.abs(values - level)))


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
        median of the marks, with the larger of the errors that the marks have and that their scatter gives.
        A mark does not grow, so no ratio exceeds that of the lag before. Light that frames before the
        source show as well, such as its halo after a small dither, is no mark: it is subtracted.
    """
    ratios: dict[int, float] = {}
    for lag in sorted({mark.lag for mark in marks if mark.lag > 0}):
        ratio, error = _typical([mark for mark in marks if mark.lag == lag])
        before, before_error = _typical([mark for mark in marks if mark.lag == -lag])
        if before > 0:
            ratio, error = ratio - before, math.hypot(error, before_error)
        needed = _FOLLOWING if ratios else _SIGNIFICANT
        if not needed * error < ratio < _LARGEST_RATIO:
            break
        ratios[lag] = min([ratio, *ratios.values()])
    return ratios


def _typical(marks: Sequence[Mark]) -> tuple[float, float]:
    """Return the median ratio of marks and its error; without marks 0."""
    if not marks:
        return 0.0, 0.0
    values = np.array([mark.ratio for mark in marks])
    ratio = float(np.median(values))
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(values - ratio)))
    noise = max(float(np.median([mark.error for mark in marks])), scatter)
    return ratio, noise * (MEDIAN_ERROR / math.sqrt(len(marks)) if len(marks) > 1 else 1.0)


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


def _median(data: Float32, usable: Bool, pixels: Indices) -> float | None:
    """Return the median of the usable pixels, if at least half of them are."""
    y, x = pixels.T
    inside = (y >= 0) & (y < data.shape[0]) & (x >= 0) & (x < data.shape[1])
    y, x = y[inside], x[inside]
    values: Float64 = np.asarray(data[y, x][usable[y, x]], float)
    return float(np.median(values)) if len(values) * 2 >= len(pixels) else None
