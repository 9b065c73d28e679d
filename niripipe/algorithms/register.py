"""Finding how far, and at which angle, a frame is displaced from a reference.

Two ways: by the sources of both (`match_sources`), and by correlating the images
(`cross_correlation_shift`). Both say how sure they are, and both refuse rather than guess: a shift that is
accepted wrongly ruins a stack, a frame set aside costs its exposure time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.gaussian import MAD_TO_SIGMA, RAYLEIGH_MEDIAN, robust_sigma
from niripipe.errors import AlgorithmError, ParameterError

__all__ = ["Registration", "Sources", "cross_correlation_shift", "match_sources", "pair_sources"]

Floats = NDArray[np.floating[Any]]
Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]

# Floor of a position's error, pixels: centring is not better than this on an undersampled or structured
# source.
_FLOOR = 0.01
# The chance that an accepted match is an accident stays below this.
_FALSE_ALARM = 1e-4
# How many of the brightest sources vote; enough to find a shift, and a bound on the cost in crowded fields.
_VOTERS = 150
# Beyond this the mean of the pairs is too uncertain for a shift good to 0.2 pixel (3 standard deviations).
_MAX_ERROR = 0.06
_ROUNDS = 12
# Places with less than this part of the highest number of votes are chance.
_HOPELESS = 0.2
# Candidates of one rotation and scale at most.
_PLACES = 8
# A second shift is a rival from this part of the first one's pairs on. One that has less than `_NO_RIVAL` of
# them even within a wider radius is none, where there are enough pairs for counting them to mean something.
_RIVAL, _NO_RIVAL, _MANY_PAIRS = 0.6, 0.5, 12
# Cells along an axis in which neighbours are looked for; more would be smaller than any field needs.
_CELLS = 4096
# A correlation has no pairs to clip; its error is less certain, and the limit lower.
_MAX_CORRELATION_ERROR = 0.055
# What extended sources and residual sky add to it, pixels: measured on frames with a galaxy over the field.
_SYSTEMATIC = 0.03
# Share of the images' structure, noise apart, that the peak must explain; a coincidence of one bright star
# among many does not.
_AGREEMENT = 0.5
# Side of the box whose mean is taken off before correlating, pixels: several times the width of a star.
_BOX = 21
# Deviation of the smoothing of both images, pixels: that of good seeing at f/6 narrowed to keep peaks sharp.
_SMOOTHING = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """Positions and fluxes of n sources, in the pixels of one frame.

    Attributes
    ----------
    x, y : ndarray of float64, shape (n,)
        0-based positions, pixels.
    flux : ndarray of float64, optional
        Fluxes; without them every source weighs the same.
    flux_error : ndarray of float64, optional
        Errors of the fluxes.
    error : ndarray of float64, optional
        Error of the positions, rms per axis, pixels.
    suspect : ndarray of bool, optional
        Sources whose position may be wrong (saturated, truncated, flagged); they are used only when the
        others do not suffice.
    """

    x: Floats
    y: Floats
    flux: Floats | None = None
    flux_error: Floats | None = None
    error: Floats | None = None
    suspect: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, which: NDArray[Any]) -> Sources:
        """Return the sources that an index array or a mask chooses."""
        parts = (self.x, self.y, self.flux, self.flux_error, self.error, self.suspect)
        return Sources(*(None if part is None else np.asarray(part)[which] for part in parts))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Registration:
    """A displacement and how far it can be trusted.

    Attributes
    ----------
    dx, dy : float
        Shift, pixels: a source at (x, y) in the frame is at (x + dx, y + dy) in the reference (carried into
        the frame's pixels), after rotation and scaling about ``centre``.
    angle : float
        Rotation, degrees, counter-clockwise (from x to y).
    scale : float
        Magnification.
    centre : tuple of float
        Fixed point of rotation and scaling, (x, y).
    n_matched : int
        Pairs that the result rests on.
    rms : float
        Scatter of the pairs about it, per axis, pixels; NaN when not measurable.
    error : float
        Standard error of the shift per axis, pixels; NaN when not measurable.
    significance : float
        Sources: minus the decimal logarithm of the chance that so many pairs are an accident. Correlation:
        height of the peak above the next independent one, in deviations of the correlation.
    method : {"sources", "correlation"}
        How it was found.
    accepted : bool
        Whether to use it.
    reason : str
        Why, or why not, with numbers.
    """

    dx: float
    dy: float
    angle: float
    scale: float
    centre: tuple[float, float]
    n_matched: int
    rms: float
    error: float
    significance: float
    method: Literal["sources", "correlation"]
    accepted: bool
    reason: str

    def matrix(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return matrix and offset, array order (y, x), that carry frame positions to reference positions."""
        angle = np.deg2rad(self.angle)
        cos, sin = self.scale * np.cos(angle), self.scale * np.sin(angle)
        matrix = np.array([[cos, sin], [-sin, cos]])
        centre = np.array([self.centre[1], self.centre[0]])
        return matrix, centre - matrix @ centre + np.array([self.dy, self.dx])


def match_sources(
    frame: Sources,
    reference: Sources,
    *,
    search_radius: float,
    match_radius: float,
    min_sources: int = 3,
    rotate: bool = False,
    scale: bool = False,
    centre: tuple[float, float] | None = None,
) -> Registration:
    """Find the displacement of a frame from its sources.

    Parameters
    ----------
    frame : Sources
        Sources of the frame.
    reference : Sources
        Sources of the reference, carried into the frame's pixels by what the two headers say.
    search_radius : float
        Half-width of the box in which the shift is looked for, pixels.
    match_radius : float
        Largest distance of a pair after alignment, pixels.
    min_sources : int
        Pairs wanted. With fewer, down to one, a shift is accepted only if it is unambiguous: the sources
        are the brightest of both lists, their fluxes agree, and there is no other shift that would do.
    rotate, scale : bool
        Fit a rotation (up to 5 degrees) and a magnification (up to 5 %) as well. With fewer than
        ``min_sources + 2`` pairs only the shift is fitted.
    centre : tuple of float, optional
        Fixed point of rotation and scaling, (x, y); default the middle of the frame's sources. About it
        shift and rotation are uncorrelated.

    Returns
    -------
    Registration
        Never an exception for want of sources: ``accepted`` is False then and ``reason`` has the numbers.

    Raises
    ------
    ParameterError
        For radii that are not positive.

    Notes
    -----
    1. Vote: the differences of all pairs within the search box, weighted by how alike and how bright the
       two sources are, are counted in a fine grid smoothed to the match radius; its highest places are
       candidates.
    2. For each candidate: one-to-one pairs, nearest first; weighted least squares on the pairs (weights
       from the position errors plus the scatter that they do not explain), outliers clipped at 3.5
       deviations, pairs drawn anew, until nothing changes.
    3. The candidate with the most significant pairs wins. Accidental pairs follow a Poisson distribution
       with the sources' surface density; the chance of that many anywhere in the search box must be below
       1e-4, the runner-up must be clearly worse, and the standard error of the shift below 0.06 pixel.

    DRAGONS climbs a landscape of Gaussians and Lorentzians around all reference sources with equal weights
    and stops there. The mean of the matched pairs, which this function returns, differs from the summit of
    that landscape by a few hundredths of a pixel.
    """
    if not (search_radius > 0 and match_radius > 0):
        raise ParameterError(
            "Radii must be positive", item="search_radius, match_radius", found=(search_radius, match_radius)
        )
    frame, reference = _usable(frame, min_sources), _usable(reference, min_sources)
    if centre is None:
        centre = (float(np.mean(frame.x)), float(np.mean(frame.y))) if len(frame) else (0.0, 0.0)
    if len(frame) == 0 or len(reference) == 0:
        return _refused(
            centre, f"not enough sources: {len(frame)} in the frame, {len(reference)} in the reference"
        )
    trials = _trials(frame, reference, search_radius, match_radius, rotate, scale, centre)
    solutions: list[_Solution] = []
    for start in trials:
        most = max((solution.pairs[0].size for solution in solutions), default=0)
        solution = _refine(
            frame, reference, start, match_radius, search_radius, centre, rotate, scale, min_sources,
            least=int(_NO_RIVAL * most) if most >= _MANY_PAIRS else 1,
        )  # fmt: skip
        if solution is not None:
            solutions.append(solution)
    if not solutions:
        return _refused(
            centre,
            f"no pair within {search_radius:.1f} pixels among {len(frame)} sources "
            f"and {len(reference)} of the reference",
        )
    solutions.sort(key=lambda solution: (-solution.score, solution.rms))
    return _judge(solutions, frame, reference, search_radius, match_radius, min_sources, centre)


def pair_sources(x: Floats, y: Floats, x_ref: Floats, y_ref: Floats, radius: float) -> Pairs:
    """Pair two lists of positions one to one, the closest pair first.

    Parameters
    ----------
    x, y, x_ref, y_ref : ndarray
        Positions.
    radius : float
        Largest distance.

    Returns
    -------
    tuple of two integer ndarrays
        Indices into the first and the second list, in the order of the first.
    """
    x, y, x_ref, y_ref = (np.asarray(places, np.float64) for places in (x, y, x_ref, y_ref))
    first, second, distance = _neighbours(x, y, x_ref, y_ref, radius)
    order = np.lexsort((second, first, distance))
    free_i, free_j = np.ones(len(x), bool), np.ones(len(x_ref), bool)
    pairs = []
    for i, j in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if free_i[i] and free_j[j]:
            free_i[i] = free_j[j] = False
            pairs.append((i, j))
    pairs.sort()
    result = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return result[:, 0], result[:, 1]


def _neighbours(
    x: Floats, y: Floats, x_ref: Floats, y_ref: Floats, radius: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Return indices and distance of all pairs within a radius."""
    own = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    others = np.flatnonzero(np.isfinite(x_ref) & np.isfinite(y_ref))
    found = [(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0))]
    if own.size and others.size:
        corner = x_ref[others].min(), y_ref[others].min()
        extent = max(float(np.ptp(x_ref[others])), float(np.ptp(y_ref[others])))
        # Neighbours lie in the same square cell or in one beside it. A little more than the radius, so that
        # rounding decides about no pair here.
        side = max(1.001 * radius, extent / _CELLS) or 1.0

        def cells(values: Floats, low: float) -> NDArray[np.int64]:
            place: NDArray[np.int64] = np.floor((values - low) / side).clip(-1, _CELLS + 1).astype(np.int64)
            return place + 1

        width = _CELLS + 4
        keys = cells(y_ref[others], corner[1]) * width + cells(x_ref[others], corner[0])
        order = np.argsort(keys, kind="stable")
        keys, others = keys[order], others[order]
        place = cells(y[own], corner[1]) * width + cells(x[own], corner[0])
        for row in (-width, 0, width):
            first = np.searchsorted(keys, place + row - 1, "left")
            number = np.searchsorted(keys, place + row + 1, "right") - first
            i = np.repeat(own, number)
            j = others[np.arange(i.size) + np.repeat(first - np.cumsum(number) + number, number)]
            distance = np.sqrt((x_ref[j] - x[i]) ** 2 + (y_ref[j] - y[i]) ** 2)
            near = distance <= radius
            found.append((i[near], j[near], distance[near]))
    first, second, distance = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return first, second, distance


def cross_correlation_shift(
    image: Floats,
    reference: Floats,
    mask: NDArray[Any] | None = None,
    reference_mask: NDArray[Any] | None = None,
    *,
    max_shift: float,
    avoid: tuple[float, float] | None = None,
    min_significance: float = 5.0,
) -> Registration:
    """Find the shift between two images by correlating them.

    Parameters
    ----------
    image, reference : ndarray, shape (ny, nx)
        Images of the same shape.
    mask, reference_mask : ndarray of the same shape, optional
        Pixels that are not zero are left out.
    max_shift : float
        Largest shift along an axis, pixels.
    avoid : tuple of float, optional
        Shift (dx, dy) at which things that stay with the detector line up, when it is known: (0, 0) where
        neither image has been moved. A peak within 3 pixels of it is not accepted: it may be residual
        pattern. Give it whenever the headers say that the telescope has moved.
    min_significance : float
        Height, above the next independent peak in units of the correlation's deviation, from which the
        result is accepted.

    Returns
    -------
    Registration
        ``dx, dy`` in the sense of `match_sources`: what is at (x, y) in ``image`` is at (x + dx, y + dy) in
        ``reference``. Accepted only when the standard error of the peak's position is below 0.055
        pixel, too, and half of the images' structure is in common.

    Raises
    ------
    AlgorithmError
        When the shapes differ or the shift does not fit into the frames.

    Notes
    -----
    Background (mesh of 32 pixels) and everything wider than 21 pixels is removed; single pixels that
    stand out from all neighbours are levelled; values are clipped to -3 ... +50 deviations and compressed
    by a square root above 3, so that no single star or cosmic ray decides. Correlation is by FFT with zero
    padding, smoothed as if both images were by a normal profile of 1.5 pixels. The peak is found by a
    paraboloid through 3 x 3 values; its error is w / (peak / deviation) with w the peak's own width from
    its curvature, times the root of the share of structure that is not in common (fields of 1 to 60 stars
    scatter by 0.8 to 1.2 times that), and 0.03 pixel in quadrature for extended sources. What both images
    have in common is the peak over the geometric mean of the two autocorrelations, white noise subtracted.
    """
    if image.shape != reference.shape:
        raise AlgorithmError("The images differ in shape", found=image.shape, expected=reference.shape)
    reach = int(np.ceil(max_shift))
    if reach < 1 or reach > min(image.shape) // 2:
        raise AlgorithmError(
            "The shift does not fit into the frames",
            found=max_shift,
            expected=f"1 to {min(image.shape) // 2} pixels",
        )
    plane, plane_ref = _flattened(image, mask), _flattened(reference, reference_mask)
    surface, power, power_ref = _correlate(plane, plane_ref, reach)
    signal = np.sqrt(max(power, 0.0) * max(power_ref, 0.0))
    centre = ((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
    py, px = (int(k) for k in np.unravel_index(int(np.argmax(surface)), surface.shape))
    if not (0 < py < 2 * reach and 0 < px < 2 * reach):
        return _correlated(
            0.0, 0.0, centre, 0.0, float("nan"), "the correlation is highest at the limit of the search"
        )
    fy, fx, width = _summit(surface[py - 1 : py + 2, px - 1 : px + 2])
    significance, deviation = _prominence(surface, py, px)
    height = float(surface[py, px])
    dx, dy = px - reach + fx, py - reach + fy
    agreement = height / signal if signal > 0 else 0.0
    apart = float(np.sqrt(1 - np.clip(agreement, 0, 0.95)))
    error = float(np.hypot(apart * width * deviation / height, _SYSTEMATIC)) if height > 0 else float("nan")
    problem = ""
    if significance < min_significance:
        problem = f"not above the next peak by {min_significance:g} deviations: "
    elif agreement < _AGREEMENT:
        problem = "most of what one image shows is not in the other: "
    elif not error < _MAX_CORRELATION_ERROR:
        problem = "too uncertain: "
    elif avoid is not None and np.hypot(dx - avoid[0], dy - avoid[1]) < 3:
        problem = "may be structure that stays with the detector: "
    numbers = (
        f"{100 * agreement:.0f} % of the structure in common, peak {significance:.1f} deviations above the "
        f"next, error {error:.3f} pixel"
    )
    return _correlated(dx, dy, centre, significance, error, problem + numbers, accepted=not problem)


# --- sources ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Solution:
    dx: float
    dy: float
    angle: float
    scale: float
    pairs: Pairs
    rms: float
    error: float
    score: float
    expected: float


def _usable(sources: Sources, min_sources: int) -> Sources:
    good = np.isfinite(sources.x) & np.isfinite(sources.y)
    if sources.suspect is not None:
        clean = good & ~sources.suspect
        # A doubtful source is better than none, but not than five others.
        if clean.sum() >= max(5, min_sources):
            good = clean
    return sources.take(good)


def _order(sources: Sources) -> NDArray[np.intp]:
    if sources.flux is None:
        return np.arange(len(sources))
    return np.argsort(-np.nan_to_num(sources.flux), kind="stable")


def _errors(sources: Sources) -> Floats:
    error = (
        np.full(len(sources), 0.1) if sources.error is None else np.asarray(sources.error, dtype=np.float64)
    )
    return np.where(np.isfinite(error) & (error > 0), np.hypot(error, _FLOOR), 1.0)


def _trials(
    frame: Sources,
    reference: Sources,
    search: float,
    match: float,
    rotate: bool,
    scale: bool,
    centre: tuple[float, float],
) -> list[tuple[float, float, float, float]]:
    """Candidates (dx, dy, angle, scale), the most voted first."""
    some, some_ref = frame.take(_order(frame)[:_VOTERS]), reference.take(_order(reference)[:_VOTERS])
    radius = max(float(np.hypot(some.x - centre[0], some.y - centre[1]).max()), 1.0)
    # Steps that move the outermost source by the match radius.
    step = match / radius
    angles = _steps(np.deg2rad(5.0), step) if rotate else np.zeros(1)
    scales = 1 + _steps(0.05, step) if scale else np.ones(1)
    found: list[tuple[float, tuple[float, float, float, float]]] = []
    for angle in angles:
        for factor in scales:
            x, y = _moved(some.x, some.y, 0.0, 0.0, float(angle), float(factor), centre)
            for votes, dx, dy in _vote(x, y, some, some_ref, search, match):
                found.append((votes, (dx, dy, float(angle), float(factor))))
    found.sort(key=lambda item: -item[0])
    # The runner-up always counts: how far it is behind says how sure the best one is.
    return [trial for k, (votes, trial) in enumerate(found[:12]) if k < 2 or votes >= _HOPELESS * found[0][0]]


def _steps(limit: float, step: float) -> Floats:
    number = int(np.ceil(limit / step))
    return np.linspace(-limit, limit, 2 * min(number, 60) + 1)


def _vote(
    x: Floats, y: Floats, frame: Sources, reference: Sources, search: float, match: float
) -> list[tuple[float, float, float]]:
    """Highest places of the smoothed histogram of differences: (votes, dx, dy)."""
    dx = reference.x[None, :] - x[:, None]
    dy = reference.y[None, :] - y[:, None]
    inside = (np.abs(dx) <= search + match) & (np.abs(dy) <= search + match)
    if not inside.any():
        return []
    weight = _likeness(frame, reference)[inside]
    cell = max(min(match, 2.0) / 2, (search + match) / 250)
    number = int(np.ceil(2 * (search + match) / cell)) + 5
    place = [((d[inside] + search + match) / cell).astype(np.intp) + 2 for d in (dx, dy)]
    counts = np.bincount(place[1] * number + place[0], weights=weight, minlength=number * number)
    smooth = _over_square(counts.reshape(number, number).astype(np.float64), 3, np.add) / 9
    peaks = (smooth == _over_square(smooth, 5, np.maximum)) & (smooth > 0)
    row, column = np.nonzero(peaks)
    order = np.argsort(-smooth[row, column], kind="stable")
    row, column = row[order], column[order]
    height = smooth[row, column]
    found: list[tuple[float, float, float]] = []
    free = np.ones(row.size, bool)
    while free.any() and len(found) < _PLACES:
        k = int(np.argmax(free))
        # One pair alone makes a square of equal votes: their middle is one candidate.
        same = free & (abs(row - row[k]) <= 2) & (abs(column - column[k]) <= 2) & (height == height[k])
        free[same] = False
        to_x, to_y = (float(np.mean(at[same]) - 1.5) * cell - search - match for at in (column, row))
        found.append((float(height[k]), to_x, to_y))
    return found


def _over_square(values: Floats, size: int, function: np.ufunc) -> Floats:
    """Combine the values in a square around each one, zeros beyond the edges."""
    for axis in (0, 1):
        padded = np.pad(values, [(size // 2,) * 2 if a == axis else (0, 0) for a in (0, 1)])
        length = values.shape[axis]
        parts = [padded[k : k + length] if axis == 0 else padded[:, k : k + length] for k in range(size)]
        values = parts[0].copy()
        for part in parts[1:]:
            function(values, part, out=values)
    return values


def _likeness(frame: Sources, reference: Sources) -> Floats:
    """Weight of each possible pair: bright sources of like flux say more."""
    shape = (len(frame), len(reference))
    if frame.flux is None or reference.flux is None:
        return np.ones(shape)
    rank = _rank(frame.flux)[:, None] + _rank(reference.flux)[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(
            np.log(np.maximum(frame.flux, 1e-30)[:, None] / np.maximum(reference.flux, 1e-30)[None, :])
        )
    # Transparency may change by half, faint fluxes are noisy: a soft preference.
    return np.asarray((1 + 2 / (1 + rank / 5)) * (0.2 + np.exp(-((ratio / 0.7) ** 2))))


def _rank(flux: Floats) -> Floats:
    rank = np.empty(flux.size)
    rank[np.argsort(-np.nan_to_num(flux), kind="stable")] = np.arange(flux.size)
    return rank


def _moved(
    x: Floats, y: Floats, dx: float, dy: float, angle: float, scale: float, centre: tuple[float, float]
) -> tuple[Floats, Floats]:
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    u, v = x - centre[0], y - centre[1]
    return cos * u - sin * v + centre[0] + dx, sin * u + cos * v + centre[1] + dy


def _refine(
    frame: Sources,
    reference: Sources,
    start: tuple[float, float, float, float],
    match: float,
    search: float,
    centre: tuple[float, float],
    rotate: bool,
    scale: bool,
    min_sources: int,
    least: int,
) -> _Solution | None:
    """Pair, fit, clip, until the pairs rest; None with less than so many pairs in the wider first round."""
    dx, dy, angle, factor = start
    variance, variance_ref = _errors(frame) ** 2, _errors(reference) ** 2
    extra, radius, before = 0.0, 1.5 * match, None
    for turn in range(_ROUNDS):
        x, y = _moved(frame.x, frame.y, dx, dy, angle, factor, centre)
        i, j = pair_sources(x, y, reference.x, reference.y, radius)
        if i.size < (1 if turn else least):
            return None
        rx, ry = reference.x[j] - x[i], reference.y[j] - y[i]
        weight = 1 / (variance[i] + variance_ref[j] + extra)
        good = _agreeing(rx, ry, weight, extra)
        i, j, rx, ry, weight = i[good], j[good], rx[good], ry[good], weight[good]
        free = (rotate or scale) and i.size >= min_sources + 2
        step = _least_squares(
            x[i] - centre[0] - dx, y[i] - centre[1] - dy, rx, ry, weight, rotate and free, scale and free
        )
        if not free and turn > 1:
            # Rotation from so few pairs is noise.
            angle, factor = 0.0, 1.0
        dx, dy, angle, factor = dx + step[0], dy + step[1], angle + step[2], factor * (1 + step[3])
        extra = _unexplained(rx - step[0], ry - step[1], variance[i] + variance_ref[j])
        now = (tuple(i.tolist()), tuple(j.tolist()))
        small = max(abs(step[0]), abs(step[1])) < 1e-5
        if turn > 1 and now == before and small:
            break
        before, radius = now, match
    if abs(dx) > search + match or abs(dy) > search + match:
        return None
    return _solution(frame, reference, (dx, dy, angle, factor), (i, j), match, centre, weight)


def _agreeing(rx: Floats, ry: Floats, weight: Floats, extra: float) -> NDArray[np.bool_]:
    """Pairs within 3.5 deviations of the median displacement."""
    if rx.size < 3:
        return np.ones(rx.size, bool)
    distance = np.hypot(rx - np.median(rx), ry - np.median(ry))
    # Robust deviation per axis.
    spread = float(np.median(distance)) / RAYLEIGH_MEDIAN
    limit = 3.5 * np.sqrt(2.0) * np.maximum(np.sqrt(1 / weight), min(spread, 1.0)) + 2 * _FLOOR
    keep = distance <= limit
    return keep if keep.sum() >= 2 else np.ones(rx.size, bool)


def _least_squares(
    u: Floats, v: Floats, rx: Floats, ry: Floats, weight: Floats, rotate: bool, scale: bool
) -> tuple[float, float, float, float]:
    """Weighted fit of shift and, wanted, angle and magnification to displacements."""
    if not (rotate or scale):
        total = weight.sum()
        return float((weight * rx).sum() / total), float((weight * ry).sum() / total), 0.0, 0.0
    one, zero = np.ones_like(u), np.zeros_like(u)
    columns_x, columns_y = [one, zero], [zero, one]
    if rotate:
        columns_x.append(-v)
        columns_y.append(u)
    if scale:
        columns_x.append(u)
        columns_y.append(v)
    root = np.sqrt(weight)
    design = (
        np.concatenate([np.column_stack(columns_x), np.column_stack(columns_y)]) * np.tile(root, 2)[:, None]
    )
    result = np.linalg.lstsq(design, np.concatenate([rx, ry]) * np.tile(root, 2), rcond=None)[0]
    angle = float(result[2]) if rotate else 0.0
    factor = float(result[-1]) if scale else 0.0
    return float(result[0]), float(result[1]), angle, factor


def _unexplained(rx: Floats, ry: Floats, variance: Floats) -> float:
    """Variance per axis that the pairs scatter beyond their errors."""
    if rx.size < 3:
        return 0.0
    scatter = (np.median(np.hypot(rx, ry)) / RAYLEIGH_MEDIAN) ** 2
    return float(max(0.0, scatter - np.median(variance)))


def _solution(
    frame: Sources,
    reference: Sources,
    shift: tuple[float, float, float, float],
    pairs: Pairs,
    match: float,
    centre: tuple[float, float],
    weight: Floats,
) -> _Solution:
    i, j = pairs
    x, y = _moved(frame.x, frame.y, *shift, centre)
    rx, ry = reference.x[j] - x[i], reference.y[j] - y[i]
    number = i.size
    rms = float(np.sqrt(0.5 * np.mean(rx**2 + ry**2) * number / (number - 1))) if number > 1 else float("nan")
    error = float(1 / np.sqrt(weight.sum()))
    if number > 2:
        # Where the scatter is larger than the errors say, the scatter counts.
        chi2 = float((weight * (rx**2 + ry**2)).sum() / (2 * number - 2))
        error *= np.sqrt(max(1.0, chi2))
    # Accidental pairs: reference density in the frame's own area times a circle as wide as the pairs really
    # are.
    reach = float(np.clip(3 * (rms if np.isfinite(rms) else 0.5), 0.5, match))
    low_x, high_x, low_y, high_y = x.min() - match, x.max() + match, y.min() - match, y.max() + match
    inside = (
        (reference.x >= low_x) & (reference.x <= high_x) & (reference.y >= low_y) & (reference.y <= high_y)
    )
    area = max((high_x - low_x) * (high_y - low_y), (20 * match) ** 2)
    expected = len(frame) * float(inside.sum()) * np.pi * reach**2 / area
    return _Solution(*shift, pairs, rms, float(error), _surprise(number, expected), expected)


def _surprise(number: int, expected: float) -> float:
    """Return minus the decimal logarithm of the Poisson chance of ``number`` or more."""
    if number == 0 or expected > 2 * number + 50:
        return 0.0  # certain, within 1e-11
    mean = max(expected, 1e-12)
    exactly = number * math.log(mean) - mean - math.lgamma(number + 1)
    # Each further term of the series is mean / n times the one before; far beyond the mean they vanish.
    ratios = mean / np.arange(number + 1, max(number, int(2 * mean)) + 60)
    terms = np.append(0.0, np.cumsum(np.log(ratios)))
    highest = float(terms.max())
    chance = exactly + highest + math.log(float(np.exp(terms - highest).sum()))
    return max(0.0, -chance / math.log(10))


def _judge(
    solutions: Sequence[_Solution],
    frame: Sources,
    reference: Sources,
    search: float,
    match: float,
    min_sources: int,
    centre: tuple[float, float],
) -> Registration:
    best = solutions[0]
    number = best.pairs[0].size
    other = next((s for s in solutions[1:] if np.hypot(s.dx - best.dx, s.dy - best.dy) > 0.2), None)
    # Looking everywhere in the box gives accidents as many chances as circles fit into it.
    looks = (
        max(1.0, 4 * search**2 / (np.pi * min(match, max(3 * best.rms, 0.5)) ** 2))
        if number > 1
        else 4 * search**2
    )
    significance = best.score - float(np.log10(looks))
    numbers = (
        f"{number} pairs of {len(frame)} and {len(reference)} sources, "
        f"{best.expected:.2g} expected by chance, rms {best.rms:.3f} pixel"
    )
    if number < min_sources:
        problem = _few(best, other, frame, reference, numbers, search)
    elif significance < -np.log10(_FALSE_ALARM):
        problem = f"may be an accident (chance {10**-significance:.1g})"
    elif other is not None and _rivals(best, other):
        problem = (
            f"ambiguous: {other.pairs[0].size} pairs also at a shift of ({other.dx:.2f}, {other.dy:.2f})"
        )
    elif best.error > _MAX_ERROR:
        problem = f"too uncertain: standard error {best.error:.3f} pixel"
    else:
        problem = ""
    return Registration(
        best.dx, best.dy, float(np.rad2deg(best.angle)), best.scale, centre, number, best.rms, best.error,
        significance, "sources", not problem, f"{problem}: {numbers}" if problem else numbers,
    )  # fmt: skip


def _rivals(best: _Solution, other: _Solution) -> bool:
    """Tell whether a second shift explains nearly as much."""
    first, second = best.pairs[0].size, other.pairs[0].size
    return second > _RIVAL * first and best.score - other.score < 3


def _few(
    best: _Solution,
    other: _Solution | None,
    frame: Sources,
    reference: Sources,
    numbers: str,
    search: float,
) -> str:
    """Return why one or two pairs are not believed; empty when they may be."""
    i, j = best.pairs
    if (
        frame.flux is None
        or reference.flux is None
        or frame.flux_error is None
        or reference.flux_error is None
    ):
        return "not enough sources, and no fluxes to tell them by"
    snr = frame.flux[i] / frame.flux_error[i]
    snr_ref = reference.flux[j] / reference.flux_error[j]
    # Two pairs confirm each other, so that each may be fainter than a single one.
    wanted = 50 if i.size == 1 else 20
    if min(snr.min(), snr_ref.min()) < wanted:
        least = min(snr.min(), snr_ref.min())
        return f"not enough sources: S/N of the pair {least:.0f}, at least {wanted} wanted"
    ratio = frame.flux[i] / reference.flux[j]
    # A star of a foreign field passes these limits once in some ten thousand frames.
    if ratio.min() < 0.85 or ratio.max() > 1.18:
        return f"not enough sources: flux ratio {ratio.min():.2f} to {ratio.max():.2f}, 0.85 to 1.18 wanted"
    if i.size == 1 and max(abs(best.dx), abs(best.dy)) > 0.5 * search:
        return "not enough sources: one pair only, and far from where the header puts it"
    for sources, used in ((frame, i), (reference, j)):
        flux = np.nan_to_num(np.asarray(sources.flux, dtype=np.float64))
        rest = np.delete(flux, used)
        if rest.size and rest.max() > 0.3 * flux[used].min():
            return "not enough sources: others nearly as bright as the pair"
    if i.size == 2 and best.rms > 0.1:
        return "not enough sources: the two disagree"
    if best.error > _MAX_ERROR:
        return f"not enough sources: standard error {best.error:.3f} pixel"
    return ""


def _refused(centre: tuple[float, float], reason: str) -> Registration:
    nan = float("nan")
    return Registration(0.0, 0.0, 0.0, 1.0, centre, 0, nan, nan, 0.0, "sources", False, reason)


# --- correlation --------------------------------------------------------------------------------------------


def _flattened(image: Floats, mask: NDArray[Any] | None) -> NDArray[np.float32]:
    from scipy.ndimage import uniform_filter

    from niripipe.algorithms.background import background_map

    bad = ~np.isfinite(image)
    if mask is not None:
        bad |= mask != 0
    background = background_map(image, bad, box=32, filter_size=3)
    plane = np.where(bad, np.float32(0), image - background.level).astype(np.float32)
    inner = plane[1:-1, 1:-1]
    near = (plane[:-2, 1:-1], plane[2:, 1:-1], plane[1:-1, :-2], plane[1:-1, 2:])
    level = np.clip(inner, np.minimum.reduce(near), np.maximum.reduce(near))
    plane[1:-1, 1:-1] = level
    plane = np.clip(plane / np.float32(background.rms if background.rms > 0 else 1.0), -3, 50)
    high = plane > 3
    plane[high] = np.sqrt(3 * plane[high])
    # Galaxies and what the mesh left of the sky would spread the peak over the whole search box.
    share = uniform_filter((~bad).astype(np.float32), _BOX, mode="constant")
    plane -= uniform_filter(plane, _BOX, mode="constant") / np.maximum(share, np.float32(0.05))
    plane[bad] = 0
    return np.asarray(plane, dtype=np.float32)


def _correlate(
    image: NDArray[np.float32], reference: NDArray[np.float32], reach: int
) -> tuple[NDArray[np.float64], float, float]:
    """Smoothed sum of image(x) reference(x + d) for |d| <= reach, and what it would be for equal images."""
    from scipy.fft import fftfreq, irfft2, next_fast_len, rfft2, rfftfreq

    shape = tuple(next_fast_len(size + reach + 1, real=True) for size in image.shape)
    # Each image smoothed by s: exp(-2 pi^2 s^2 f^2) twice.
    factor = -4 * np.pi**2 * _SMOOTHING**2
    smooth = np.exp(factor * fftfreq(shape[0]) ** 2).astype(np.float32)[:, None] * np.exp(
        factor * rfftfreq(shape[1]) ** 2
    ).astype(np.float32)
    spectrum, spectrum_ref = rfft2(image, shape), rfft2(reference, shape)
    full = irfft2(np.conj(spectrum) * spectrum_ref * smooth, shape)
    index = np.arange(-reach, reach + 1)
    surface = full[np.ix_(index % shape[0], index % shape[1])].astype(np.float64)
    powers = [
        _power(part, plane, smooth, shape) for part, plane in ((spectrum, image), (spectrum_ref, reference))
    ]
    return surface, powers[0], powers[1]


def _power(spectrum: NDArray[Any], plane: Floats, smooth: Floats, shape: tuple[int, ...]) -> float:
    """Smoothed autocorrelation at no shift, less what white noise contributes to it."""
    weight = np.full(spectrum.shape[1], 2.0)
    weight[0] = 1.0
    if shape[1] % 2 == 0:
        weight[-1] = 1.0
    total = float(((np.abs(spectrum) ** 2 * smooth).sum(axis=0) * weight).sum()) / (shape[0] * shape[1])
    used = plane[plane != 0]
    if used.size == 0:
        return 0.0
    deviation = MAD_TO_SIGMA * float(np.median(np.abs(used[:: max(1, used.size // 65536)])))
    return float(total - deviation**2 * used.size / (4 * np.pi * _SMOOTHING**2))


def _summit(values: Floats) -> tuple[float, float, float]:
    """Offset (y, x) of the summit of a paraboloid through 3 x 3 values about the highest one, and its width.

    The width is the deviation of the normal profile with the same height and mean curvature.
    """
    y, x = np.mgrid[-1:2, -1:2]
    design = np.column_stack(
        [np.ones(9), x.ravel(), y.ravel(), x.ravel() ** 2, (x * y).ravel(), y.ravel() ** 2]
    )
    top, b, c, d, e, f = np.linalg.lstsq(design, values.ravel(), rcond=None)[0]
    hessian = np.array([[2 * f, e], [e, 2 * d]])
    if np.linalg.det(hessian) <= 0 or top <= 0:
        return 0.0, 0.0, float("inf")
    dy, dx = np.linalg.solve(hessian, [-c, -b])
    width = float(np.sqrt(-top / (d + f))) if d + f < 0 else float("inf")
    return float(np.clip(dy, -1, 1)), float(np.clip(dx, -1, 1)), width


def _prominence(surface: Floats, py: int, px: int, radius: int = 12) -> tuple[float, float]:
    """Height of the peak above the next one, in deviations of the surface, and that deviation."""
    y, x = np.ogrid[: surface.shape[0], : surface.shape[1]]
    rest = surface[(y - py) ** 2 + (x - px) ** 2 > radius**2]
    if rest.size == 0:
        return 0.0, float("inf")
    deviation = robust_sigma(rest)
    return (float(surface[py, px] - rest.max()) / deviation if deviation > 0 else 0.0), deviation


def _correlated(
    dx: float,
    dy: float,
    centre: tuple[float, float],
    significance: float,
    error: float,
    reason: str,
    *,
    accepted: bool = False,
) -> Registration:
    nan = float("nan")
    return Registration(
        dx, dy, 0.0, 1.0, centre, 0, nan, error, significance, "correlation", accepted, reason
    )
