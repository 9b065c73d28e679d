"""The level of the sky in a frame, and maps of it.

The level is the peak of the distribution of sky pixels: a truncated normal distribution fitted by maximum
likelihood to a histogram of pixels that are spread evenly over rows and columns. The window of the fit goes
from -3 to +1 standard deviations about the peak: sources only ever add light, so the bright side is cut where
it still belongs to the sky.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Float32, Float64, Floats, Integers
from niripipe.algorithms.robust import good_pixels
from niripipe.errors import AlgorithmError

__all__ = [
    "Background",
    "BackgroundMap",
    "background_map",
    "can_be_halved",
    "clipped_level",
    "lattice",
    "level_of",
    "measure_background",
]


# The window of the fit, in standard deviations from the peak (DRAGONS,
# gempy.gemini.gemini_tools.measure_bg_from_image).
_LOW, _HIGH = -3.0, 1.0
# More samples gain little: 2**19 give the level of a sky with deviation s to about 0.002 s (1 in 4 of the
# information of the values outside the window is lost), below every systematic of an infrared sky.
_SAMPLES = 1 << 19
# Histogram: +-6 deviations in bins of 1/64. A bin's own width then adds (1/64)^2/12 = 2e-5 to the variance,
# in units of the variance.
_SPAN, _BINS_PER_SIGMA = 6.0, 64


@dataclass(frozen=True, slots=True)
class Background:
    """A background level.

    Attributes
    ----------
    level : float
        The level, in the unit of the data.
    std : float
        Standard deviation of the sky pixels about it.
    n : int
        Number of pixels looked at.
    """

    level: float
    std: float
    n: int


@dataclass(frozen=True, slots=True)
class BackgroundMap:
    """A smooth background.

    Attributes
    ----------
    level : ndarray of float32, shape (ny, nx)
        The background at every pixel.
    rms : float
        Standard deviation of the sky pixels, one number for the frame.
    mean : float
        Mean of the map's meshes.
    """

    level: Float32
    rms: float
    mean: float


def measure_background(data: Floats, *masks: Integers | None) -> Background:
    """Measure the background level of a frame.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame.
    *masks : integer ndarray of the same shape, or None
        Data quality, object mask; pixels where one of them is not zero are left out. So are values that are
        not finite.

    Returns
    -------
    Background

    Raises
    ------
    AlgorithmError
        When fewer than two usable pixels are left.

    Notes
    -----
    About 2**19 pixels at most are taken, on a lattice whose first column moves on from row to row, so that
    each column and each row is sampled alike; a stride along the flattened image would see always the same
    columns of a detector whose width shares a factor with it, and NIRI has patterns that repeat every 8
    columns. See `level_of` for the fit.
    """
    step = max(1, round(data.size / _SAMPLES))
    if step > 1:
        given = [mask for mask in masks if mask is not None]
        parts = ((slice(row, None, step), slice(column, None, step)) for row, column in lattice(step))
        values = np.concatenate([_good(data[part], *(mask[part] for mask in given)) for part in parts])
        if values.size > _SAMPLES // 16:
            return level_of(values)
    # The frame is small, or most of its pixels are masked and all of the others are needed.
    return level_of(_good(data, *masks))


def lattice(step: int) -> list[tuple[int, int]]:
    """Return offsets (row, column) of an even 1-in-``step`` sample: each row and each column is met once."""
    # A multiplier near the golden section without common factor keeps neighbouring samples far apart.
    turn = next(k for k in range(max(1, round(0.618 * step)), 2 * step + 2) if np.gcd(k, step) == 1)
    return [(row, row * turn % step) for row in range(step)]


def level_of(values: Floats) -> Background:
    """Level and deviation of a set of sky pixels with sources among them.

    Parameters
    ----------
    values : ndarray, one dimension
        Finite values.

    Returns
    -------
    Background
        The level is the peak of a normal distribution fitted by maximum likelihood to the values between -3
        and +1 standard deviations of the peak. Of constant input: the constant, with deviation 0.

    Raises
    ------
    AlgorithmError
        When there are fewer than two values.

    Notes
    -----
    A normal distribution truncated to a fixed window is an exponential family: the likelihood is
    largest where its mean and variance in the window equal those of the sample (Cohen 1950, Ann. Math.
    Stat. 21, 557). Two equations in two unknowns, solved by Newton steps, with the window moved until it
    does not change. With too few values for a stable solution the median and the clipped deviation are
    returned.
    """
    _require(values)
    median, sigma = _clipped_start(values)
    fit = _truncated_normal(*_histogram(values, median, sigma), median, sigma) if sigma > 0 else None
    return Background(*(fit or (median, sigma)), int(values.size))


def background_map(
    data: Floats, mask: Integers | None = None, *, box: int = 32, filter_size: int = 3, halved: bool = False
) -> BackgroundMap:
    """Make a smooth map of the background.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame.
    mask : integer ndarray of the same shape, optional
        Pixels that are not zero are left out, as are values that are not finite.
    box : int
        Size of a mesh in pixels.
    filter_size : int
        Size of the median filter over the meshes.
    halved : bool
        Make the map for squares of 2 x 2 pixels, shape (ny / 2, nx / 2), of one pixel in four, evenly over
        rows and columns: in less than half of the time, with twice the noise, which is then 0.05 deviations
        of a pixel in an empty field. See `can_be_halved`.

    Returns
    -------
    BackgroundMap

    Raises
    ------
    AlgorithmError
        When there is no usable pixel.

    Notes
    -----
    The estimator is SExtractor's, from `sep`: in each mesh 2.5 median - 1.5 mean after clipping at 3
    sigma, or the median where the two differ by more than 0.3 sigma; then a median filter and a bicubic
    spline (Bertin & Arnouts 1996, A&AS 117, 393).
    """
    import sep

    plane = np.ascontiguousarray(data, dtype=np.float32)
    if halved:
        plane, mask, box = _thinned(plane), None if mask is None else _thinned(mask), box // 2
    bad = ~good_pixels(plane, mask)
    if bad.all():
        raise AlgorithmError(
            "There is no usable pixel to measure a background from", found=0, expected="> 0 pixels"
        )
    # A copy, because sep asks for a buffer that it could write to, and does not.
    plane = np.where(bad, np.float32(0), plane)
    result = sep.Background(
        plane, mask=bad if bad.any() else None, bw=box, bh=box, fw=filter_size, fh=filter_size
    )
    return BackgroundMap(result.back(dtype=np.float32), float(result.globalrms), float(result.globalback))


def can_be_halved(shape: tuple[int, ...], box: int) -> bool:
    """Return whether a frame and a mesh can be looked at in squares of 2 x 2 pixels."""
    return not any(size % 4 for size in shape) and box % 2 == 0


def _thinned(plane: NDArray[Any]) -> NDArray[Any]:
    """Take one pixel of each square of four, so that each row and each column is met."""
    out = np.empty((plane.shape[0] // 2, plane.shape[1] // 2), plane.dtype)
    for number, (row, column) in enumerate(lattice(4)):
        out[number // 2 :: 2, column // 2 :: 2] = plane[row::4, column::4]
    return out


def _good(data: Floats, *masks: Integers | None) -> Floats:
    good = good_pixels(data, *masks)
    # Boolean indexing and ravel() of a whole good plane both walk row-major; a copy protects the frame.
    return data.flatten() if good.all() else data[good]


def _require(values: Floats) -> None:
    if values.size < 2:
        raise AlgorithmError(
            "Too few usable pixels to measure a background",
            found=int(values.size),
            expected="at least 2 pixels that no mask excludes",
            remedy="Look at the data quality plane and the object mask, or choose another section.",
        )


def _clipped_start(values: Floats) -> tuple[float, float]:
    """Median and deviation of the faint half, from a thin sample: all that the fit needs to start."""
    thin = values[:: max(1, values.size // 32768)]
    low, faint, median = np.quantile(thin, [0.005, 0.1587, 0.5]).astype(np.float64)
    sigma = median - faint
    if not sigma > 0:
        # More than a third of the values are equal; fall back on whatever spread there is.
        sigma = max(float(np.std(values, dtype=np.float64)), (median - low) / 2.576)
    return float(median), float(sigma)


def _histogram(values: Floats, median: float, sigma: float) -> tuple[NDArray[np.int64], float, float]:
    width = sigma / _BINS_PER_SIGMA
    number = int(2 * _SPAN * _BINS_PER_SIGMA)
    first = median - _SPAN * sigma
    index = (values - values.dtype.type(first)) * values.dtype.type(1.0 / width)
    # Outliers gather in the two outermost bins, which the fit leaves out.
    np.clip(index, 0, number - 1, out=index)
    counts = np.bincount(index.astype(np.intp), minlength=number)
    counts[0] = counts[-1] = 0
    return counts, first, width


def _truncated_normal(
    counts: NDArray[np.int64], first: float, width: float, centre: float, sigma: float
) -> tuple[float, float] | None:
    """Fit peak and deviation to binned values; None when there is no trustworthy solution."""
    middle = first + (np.arange(counts.size) + 0.5) * width
    total = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
    # About the start, so that the second moment does not cancel.
    shifted = middle - centre
    moment1 = np.concatenate([[0.0], np.cumsum(counts * shifted)])
    moment2 = np.concatenate([[0.0], np.cumsum(counts * shifted**2)])
    peak, deviation = 0.0, sigma
    origin = first - centre
    for _ in range(50):
        lower = max(1, round((peak + _LOW * deviation - origin) / width))
        upper = min(counts.size - 1, round((peak + _HIGH * deviation - origin) / width))
        if upper - lower < 8 or total[upper] - total[lower] < 24:
            return None
        number = total[upper] - total[lower]
        mean = (moment1[upper] - moment1[lower]) / number
        variance = (moment2[upper] - moment2[lower]) / number - mean**2
        new = _match_moments(mean, variance, origin + lower * width, origin + upper * width, peak, deviation)
        if new is None:
            return None
        moved = abs(new[0] - peak) + abs(new[1] - deviation)
        peak, deviation = new
        # Window edges are whole bins: below a bin's share nothing changes any more.
        if moved < 1e-4 * sigma:
            break
    if abs(peak) > 3 * sigma or not 0.1 * sigma < deviation < 3 * sigma:
        return None
    return centre + peak, deviation


def _match_moments(
    mean: float, variance: float, lower: float, upper: float, peak: float, deviation: float
) -> tuple[float, float] | None:
    """Find the normal distribution with a given mean and variance between two limits, by Newton steps."""
    for _ in range(20):
        moments = _window_moments(peak, deviation, lower, upper)
        if moments is None:
            return None
        value_mean, value_variance, gradient = moments
        residual = np.array([mean - value_mean, variance - value_variance])
        try:
            step = np.linalg.solve(gradient, residual)
        except np.linalg.LinAlgError:
            return None
        # Half a deviation at most: far from the solution the equations are strongly curved.
        limit = 0.5 * deviation / max(0.5 * deviation, float(np.abs(step).max()))
        peak += limit * float(step[0])
        deviation = max(0.2 * deviation, deviation + limit * float(step[1]))
        if limit == 1.0 and float(np.abs(step).max()) < 1e-7 * deviation:
            return peak, deviation
    return None


def _window_moments(
    peak: float, deviation: float, lower: float, upper: float
) -> tuple[float, float, Float64] | None:
    """Mean and variance of a truncated normal distribution, and their derivatives by peak and deviation."""
    a, b = (lower - peak) / deviation, (upper - peak) / deviation
    mass = NormalDist().cdf(b) - NormalDist().cdf(a)
    if mass < 1e-6:
        return None
    # Raw moments of the truncated unit normal by the recurrence m_k = (k-1) m_(k-2) - [x^(k-1) phi(x)]_a^b
    # / mass.
    edges = np.array([a, b])
    phi_a, phi_b = np.exp(-0.5 * edges**2) / np.sqrt(2 * np.pi) / mass
    m1 = phi_a - phi_b
    m2 = 1 + a * phi_a - b * phi_b
    m3 = 2 * m1 + a**2 * phi_a - b**2 * phi_b
    m4 = 3 * m2 + a**3 * phi_a - b**3 * phi_b
    spread = m2 - m1**2
    # For an exponential family the derivative of an expectation is a covariance with the score.
    skew = m3 - m1 * m2
    gradient = np.array(
        [[spread, skew], [deviation * (skew - 2 * m1 * spread), deviation * (m4 - m2**2 - 2 * m1 * skew)]]
    )
    return peak + deviation * m1, deviation**2 * spread, gradient


def clipped_level(values: Floats) -> Background:
    """Return median and deviation after clipping at 2 standard deviations, two rounds.

    The deviation is 12 % below that of a normal distribution.
    """
    from astropy.stats import sigma_clip

    _require(values)
    kept = sigma_clip(
        values.astype(np.float64), sigma=2.0, maxiters=2, cenfunc="median", masked=False, copy=True
    )
    return Background(float(np.median(kept)), float(np.std(kept)), int(kept.size))
