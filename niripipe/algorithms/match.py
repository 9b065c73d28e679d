"""Finding how far, and at which angle, a frame is displaced from a reference by the sources of both.

The result says how sure it is, and is refused rather than guessed: a shift that is accepted wrongly ruins a
stack, a frame set aside costs its exposure time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from niripipe.algorithms.arrays import Floats, Indices
from niripipe.algorithms.pairfit import (
    CENTRING,
    agreeing,
    common_scatter,
    least_squares,
    pair_variance,
    shift_error,
    turn_of_pairs,
)
from niripipe.algorithms.register import Pairs, Registration, Sources, pair_sources
from niripipe.algorithms.vote import brightest_first, vote

__all__ = ["match_sources"]


# Suspect sources are left out if at least so many others remain.
_CLEAN_SOURCES = 5
# The chance that an accepted match is an accident stays below this.
_FALSE_ALARM = 1e-4
# Standard error of a shift beyond which it is doubtful, pixels and FWHM, whichever is larger: three of them
# are 0.2 pixel or 0.05 FWHM.
_DOUBTFUL, _DOUBTFUL_FWHM = 0.06, 0.016
# Standard error, in FWHM, up to which a doubtful shift is used: it widens the frame's sources by 3 %,
# (2.355 x 0.1)^2 / 2, less than its loss would cost.
_MAX_ERROR_FWHM = 0.1
# How many of the brightest sources vote; enough to find a shift, and a bound on the cost in crowded fields.
_VOTERS = 150
# Candidates at most.
_TRIALS = 12
# Candidates with less than this part of the highest number of votes are chance.
_HOPELESS = 0.2
# Largest rotation (radians) and change of scale that are looked for, and number of steps to each side.
_MAX_ANGLE, _MAX_SCALE, _MAX_STEPS = np.deg2rad(5.0), 0.05, 60
# Rounds of pairing and fitting at most.
_ROUNDS = 12
# A second shift is a rival from this part of the first one's pairs on, unless its chance of being an accident
# is a thousand times larger. One that has less than `_NO_RIVAL` of the pairs even within a wider radius is
# none, where there are enough pairs for counting them to mean something.
_RIVAL, _NO_RIVAL, _MANY_PAIRS = 0.6, 0.5, 12
# Shifts that differ by less (pixels, or FWHM if that is larger) are the same.
_SAME_SHIFT, _SAME_SHIFT_FWHM = 0.2, 0.05
# A rotation that was not asked for replaces a good shift with so many pairs, the second number where a shift
# alone is not believed: five pairs are ten numbers for three unknowns. It is many times more looks at the
# same lists, so that a shift and a rotation need this significance.
_TURNED_PAIRS, _TURNED_LEAST, _TURNED_SIGNIFICANCE = 10, 5, 6.0
# What pairs must show before a shift that is good otherwise gets a rotation: deviations, and movement of the
# outermost pair in pixels or FWHM, whichever is larger.
_TURNED_SIGMA, _TURNED, _TURNED_FWHM = 5.0, 0.1, 0.03
# S/N that a single pair, and each of two pairs, must have: two confirm each other. From `_FAINT_SNR` on they
# are used, as doubtful, if they are near where the header puts them.
_SINGLE_SNR, _DOUBLE_SNR, _FAINT_SNR = 50, 20, 8
# Flux ratios within which one or two pairs are believed. A star of a foreign field passes the limits on one
# or two pairs once in some ten thousand frames. The second range is for those near their place.
_FLUX_RATIOS, _NEAR_RATIOS = (0.85, 1.18), (0.6, 1.6)
# Other sources must be fainter than this part of one or two pairs' flux; the second is for those near their
# place.
_OUTSHONE, _NEAR_OUTSHONE = 0.3, 0.7
# A pair is near its place if the chance of another one within the same distance is below this.
_NEAR = 0.005
# Two pairs that scatter by more (pixels, or FWHM if that is larger) are doubtful, and disagree beyond the
# third number (FWHM).
_DISAGREEMENT, _DISAGREEMENT_FWHM, _CONTRADICTION_FWHM = 0.1, 0.03, 0.2


def match_sources(
    frame: Sources,
    reference: Sources,
    *,
    search_radius: float,
    match_radius: float,
    min_sources: int = 3,
    rotate: bool | None = False,
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
        ``min_sources + 2`` pairs only the shift is fitted. ``rotate=None``: where ten pairs or more show
        one that is significant at 5 deviations and moves the outermost by 0.1 pixel and 0.03 FWHM, or where a
        shift alone brings nothing, and shift and rotation find five pairs.
    centre : tuple of float, optional
        Fixed point of rotation and scaling, (x, y); default the middle of the frame's sources. About it
        shift and rotation are uncorrelated.

    Returns
    -------
    Registration
        Never an exception for want of sources: ``accepted`` is False then and ``reason`` has the numbers.
        A shift that is probably right, but uncertain or seen in few faint sources, is accepted with
        ``doubt``. Without ``fwhm`` in both lists limits are those in pixels.

    Notes
    -----
    1. Vote: the differences of all pairs within the search box, weighted by how alike and how bright the
       two sources are, are counted in a fine grid smoothed to the match radius; its highest peaks are
       candidates.
    2. For each candidate: one-to-one pairs, nearest first; weighted least squares on the pairs (weights
       from the position errors plus a common scatter that they do not explain: distortion displaces
       bright and faint sources alike), outliers clipped at 3.5 deviations, pairs drawn anew, until nothing
       changes.
    3. The candidate with the most significant pairs wins. Accidental pairs follow a Poisson distribution
       with the sources' surface density; the chance of that many anywhere in the search box must be below
       1e-4, and the runner-up must be clearly worse. A shift with a standard error above 0.06 pixel or 0.016
       FWHM, whichever is larger, is doubtful; above 0.06 pixel or 0.1 FWHM it is refused.

    DRAGONS climbs a landscape of Gaussians and Lorentzians around all reference sources with equal weights
    and stops there. The mean of the matched pairs, which this function returns, differs from the summit of
    that landscape by a few hundredths of a pixel.
    """
    frame, reference = _usable(frame, min_sources), _usable(reference, min_sources)
    if centre is None:
        centre = (float(np.mean(frame.x)), float(np.mean(frame.y))) if len(frame) else (0.0, 0.0)
    # The sharper of the two suffers more from a wrong shift.
    fwhm = min(frame.fwhm, reference.fwhm)
    task = _Task(
        frame, reference, search_radius, match_radius, min_sources, bool(rotate), scale, centre, fwhm
    )
    if len(frame) == 0 or len(reference) == 0:
        reason = f"not enough sources: {len(frame)} in the frame, {len(reference)} in the reference"
        return Registration(method="sources", centre=centre, reason=reason)
    found, best = _found(task)
    if rotate is not None or not _asks_for_rotation(task, found, best):
        return found
    turned, _ = _found(replace(task, rotate=True))
    enough = turned.n_matched >= (_TURNED_PAIRS if found.accepted else _TURNED_LEAST)
    sure = enough and turned.significance >= _TURNED_SIGNIFICANCE
    return turned if turned.accepted and sure and turned.n_matched >= found.n_matched * _RIVAL else found


def _found(task: _Task) -> tuple[Registration, _Solution | None]:
    """Return the best displacement, as judged and as found."""
    solutions: list[_Solution] = []
    for start in _trials(task):
        most = max((solution.number for solution in solutions), default=0)
        solution = _refined(task, start, least=int(_NO_RIVAL * most) if most >= _MANY_PAIRS else 1)
        if solution is not None:
            solutions.append(solution)
    if not solutions:
        reason = (
            f"no pair within {task.search:.1f} pixels among {len(task.frame)} sources "
            f"and {len(task.reference)} of the reference"
        )
        return Registration(method="sources", centre=task.centre, reason=reason), None
    solutions.sort(key=lambda solution: (-solution.score, solution.rms))
    return _judged(task, solutions), solutions[0]


@dataclass(frozen=True, slots=True)
class _Task:
    """What is matched, and within which limits; see `match_sources`."""

    frame: Sources
    reference: Sources
    search: float
    match: float
    min_sources: int
    rotate: bool
    scale: bool
    centre: tuple[float, float]
    fwhm: float

    def limit(self, pixels: float, widths: float) -> float:
        """Return the larger of two limits, one in pixels and one in FWHM."""
        return max(pixels, widths * self.fwhm) if self.fwhm > 0 else pixels


class _Transform(NamedTuple):
    """A shift (pixels) after rotation (radians) and scaling about the centre of the task."""

    dx: float
    dy: float
    angle: float = 0.0
    scale: float = 1.0

    def moved(self, x: Floats, y: Floats, centre: tuple[float, float]) -> tuple[Floats, Floats]:
        """Return where positions are carried."""
        cos, sin = self.scale * np.cos(self.angle), self.scale * np.sin(self.angle)
        u, v = x - centre[0], y - centre[1]
        return cos * u - sin * v + centre[0] + self.dx, sin * u + cos * v + centre[1] + self.dy


@dataclass(frozen=True, slots=True, eq=False)
class _Solution:
    """A displacement and the pairs that agree with it.

    Attributes
    ----------
    transform : _Transform
    pairs : tuple of ndarray
    rms, error : float
        Scatter of the pairs per axis, and standard error of the shift, pixels.
    expected, density : float
        Number of pairs expected by chance, in all and per square pixel of shift.
    score : float
        Minus the decimal logarithm of the chance of that many pairs at one shift.
    """

    transform: _Transform
    pairs: Pairs
    rms: float
    error: float
    expected: float
    density: float
    score: float

    @property
    def number(self) -> int:
        """Number of pairs."""
        return self.pairs[0].size


def _usable(sources: Sources, min_sources: int) -> Sources:
    good = np.isfinite(sources.x) & np.isfinite(sources.y)
    clean = good & ~sources.suspect
    return sources.take(clean if clean.sum() >= max(_CLEAN_SOURCES, min_sources) else good)


def _asks_for_rotation(task: _Task, found: Registration, best: _Solution | None) -> bool:
    """Tell whether a rotation is tried: the pairs show one, or a shift brings nothing."""
    if best is None or not found.accepted:
        return min(len(task.frame), len(task.reference)) >= _TURNED_LEAST
    if best.number < _TURNED_PAIRS:
        return False
    i, j = best.pairs
    x, y = best.transform.moved(task.frame.x[i], task.frame.y[i], task.centre)
    variance = pair_variance(task.frame, task.reference, i, j)
    angle, error, radius = turn_of_pairs(x, y, task.reference.x[j] - x, task.reference.y[j] - y, variance)
    return abs(angle) > _TURNED_SIGMA * error and abs(angle) * radius > task.limit(_TURNED, _TURNED_FWHM)


# --- candidates


def _trials(task: _Task) -> list[_Transform]:
    """Return candidates, those with the most votes first."""
    frame, reference = (
        some.take(brightest_first(some.flux)[:_VOTERS]) for some in (task.frame, task.reference)
    )
    centre = task.centre
    radius = max(float(np.hypot(frame.x - centre[0], frame.y - centre[1]).max()), 1.0)
    # Steps that move the outermost source by the match radius.
    step = task.match / radius
    angles = _steps(_MAX_ANGLE, step) if task.rotate else np.zeros(1)
    scales = 1 + _steps(_MAX_SCALE, step) if task.scale else np.ones(1)
    found: list[tuple[float, _Transform]] = []
    for angle in angles.tolist():
        for scale in scales.tolist():
            x, y = _Transform(0.0, 0.0, angle, scale).moved(frame.x, frame.y, centre)
            for votes, dx, dy in vote(x, y, frame, reference, task.search, task.match):
                found.append((votes, _Transform(dx, dy, angle, scale)))
    found.sort(key=lambda item: -item[0])
    # The runner-up always counts: how far it is behind says how sure the best one is.
    return [
        trial for k, (votes, trial) in enumerate(found[:_TRIALS]) if k < 2 or votes >= _HOPELESS * found[0][0]
    ]


def _steps(limit: float, step: float) -> Floats:
    number = int(np.ceil(limit / step))
    return np.linspace(-limit, limit, 2 * min(number, _MAX_STEPS) + 1)


# --- pairs and fit


def _refined(task: _Task, start: _Transform, least: int) -> _Solution | None:
    """Pair, fit, clip, until the pairs do not change.

    None if there are fewer than ``least`` pairs in the first round, whose radius is wider.
    """
    frame, reference = task.frame, task.reference
    dx, dy, angle, factor = start
    scatter, radius = 0.0, 1.5 * task.match
    before: tuple[list[int], list[int]] | None = None
    for turn in range(_ROUNDS):
        x, y = _Transform(dx, dy, angle, factor).moved(frame.x, frame.y, task.centre)
        i, j = pair_sources(x, y, reference.x, reference.y, radius)
        if i.size < (1 if turn else least):
            return None
        rx, ry = reference.x[j] - x[i], reference.y[j] - y[i]
        variance = pair_variance(frame, reference, i, j)
        good = agreeing(rx, ry, 1 / (variance + scatter), task.fwhm)
        i, j, rx, ry, variance = i[good], j[good], rx[good], ry[good], variance[good]
        free = (task.rotate or task.scale) and i.size >= task.min_sources + 2
        u, v = x[i] - task.centre[0] - dx, y[i] - task.centre[1] - dy
        weight = 1 / (variance + scatter)
        step = least_squares(u, v, rx, ry, weight, task.rotate and free, task.scale and free)
        if not free and turn > 1:
            # Rotation from so few pairs is noise.
            angle, factor = 0.0, 1.0
        dx, dy, angle, factor = dx + step[0], dy + step[1], angle + step[2], factor * (1 + step[3])
        scatter = _scatter(task, rx, ry, u, v, step, variance)
        now = (i.tolist(), j.tolist())
        if turn > 1 and now == before and max(abs(step[0]), abs(step[1])) < 1e-5:
            break
        before, radius = now, task.match
    if max(abs(dx), abs(dy)) > task.search + task.match:
        return None
    return _solution(
        task, _Transform(dx, dy, angle, factor), (i, j), shift_error(variance, scatter, task.fwhm)
    )


def _scatter(
    task: _Task, rx: Floats, ry: Floats, u: Floats, v: Floats, step: Sequence[float], variance: Floats
) -> float:
    """Variance per axis that the pairs scatter beyond their errors, after a step of the fit."""
    angle, factor = step[2], step[3]
    rx, ry = rx - step[0] + angle * v - factor * u, ry - step[1] - angle * u - factor * v
    scatter = common_scatter(rx, ry, variance)
    if rx.size < 3 and task.fwhm > 0:
        return max(scatter, (CENTRING * task.fwhm) ** 2)
    return scatter


def _solution(task: _Task, transform: _Transform, pairs: Pairs, error: float) -> _Solution:
    frame, reference = task.frame, task.reference
    i, j = pairs
    x, y = transform.moved(frame.x, frame.y, task.centre)
    rx, ry = reference.x[j] - x[i], reference.y[j] - y[i]
    number = i.size
    rms = float(np.sqrt(0.5 * np.mean(rx**2 + ry**2) * number / (number - 1))) if number > 1 else math.nan
    # Accidental pairs: reference density in the frame's own area times a circle as wide as the pairs really
    # are.
    reach = float(np.clip(3 * (rms if np.isfinite(rms) else 0.5), 0.5, task.match))
    low_x, high_x = x.min() - task.match, x.max() + task.match
    low_y, high_y = y.min() - task.match, y.max() + task.match
    inside = (
        (reference.x >= low_x) & (reference.x <= high_x) & (reference.y >= low_y) & (reference.y <= high_y)
    )
    area = max((high_x - low_x) * (high_y - low_y), (20 * task.match) ** 2)
    density = len(frame) * float(inside.sum()) / area
    expected = density * np.pi * reach**2
    return _Solution(transform, pairs, rms, error, expected, density, _surprise(number, expected))


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


# --- verdict


def _judged(task: _Task, solutions: Sequence[_Solution]) -> Registration:
    """Say whether the best solution is believed."""
    best = solutions[0]
    dx, dy, angle, scale = best.transform
    same = task.limit(_SAME_SHIFT, _SAME_SHIFT_FWHM)
    other = next(
        (s for s in solutions[1:] if np.hypot(s.transform.dx - dx, s.transform.dy - dy) > same), None
    )
    significance = best.score - float(np.log10(_looks(task, best)))
    doubt = _uncertain(task, best)
    if best.number < task.min_sources:
        problem, few = _few(task, best)
        doubt = few or doubt
    elif significance < -np.log10(_FALSE_ALARM):
        problem = f"may be an accident (chance {10**-significance:.1g})"
    elif other is not None and other.number > _RIVAL * best.number and best.score - other.score < 3:
        at = other.transform
        problem = f"ambiguous: {other.number} pairs also at a shift of ({at.dx:.2f}, {at.dy:.2f})"
    else:
        problem = ""
    if not problem and not best.error <= task.limit(_DOUBTFUL, _MAX_ERROR_FWHM):
        problem = f"too uncertain: standard error {best.error:.3f} pixel"
    numbers = (
        f"{best.number} pairs of {len(task.frame)} and {len(task.reference)} sources, "
        f"{best.expected:.2g} expected by chance, rms {best.rms:.3f} pixel"
    )
    return Registration(
        method="sources",
        centre=task.centre,
        accepted=not problem,
        doubt="" if problem else doubt,
        reason=f"{problem}: {numbers}" if problem else numbers,
        dx=dx,
        dy=dy,
        angle=float(np.rad2deg(angle)),
        scale=scale,
        n_matched=best.number,
        rms=best.rms,
        error=best.error,
        significance=significance,
    )


def _looks(task: _Task, best: _Solution) -> float:
    """Return how many chances accidents have: the number of circles that fit into the search box."""
    if best.number < 2:
        return 4 * task.search**2
    return max(1.0, 4 * task.search**2 / (np.pi * min(task.match, max(3 * best.rms, 0.5)) ** 2))


def _uncertain(task: _Task, best: _Solution) -> str:
    """Return by how much a shift is too uncertain to be beyond doubt; empty if it is not."""
    if best.error <= task.limit(_DOUBTFUL, _DOUBTFUL_FWHM):
        return ""
    widths = f" ({best.error / task.fwhm:.2f} FWHM)" if task.fwhm > 0 else ""
    return f"uncertain: standard error {best.error:.3f} pixel{widths}"


def _few(task: _Task, best: _Solution) -> tuple[str, str]:
    """Return why fewer pairs than wanted are not believed, and why they are doubtful; empty when not so."""
    frame, reference = task.frame, task.reference
    i, j = best.pairs
    single = i.size == 1
    snr = float(np.append(frame.snr()[i], reference.snr()[j]).min())
    if math.isnan(snr):
        return "not enough sources, and no fluxes to tell them by", ""
    distance = math.hypot(best.transform.dx, best.transform.dy)
    near = best.density * math.pi * max(distance, 1.0) ** 2 < _NEAR
    ratio = frame.flux[i] / reference.flux[j]
    others = max(_outshone(frame, i), _outshone(reference, j))
    wanted = _SINGLE_SNR if single else _DOUBLE_SNR
    faint = f"S/N of the pair {snr:.0f}, at least {wanted} wanted" if snr < wanted else ""
    low, high = _FLUX_RATIOS
    unlike = ""
    if ratio.min() < low or ratio.max() > high:
        unlike = f"flux ratio {ratio.min():.2f} to {ratio.max():.2f}, {low} to {high} wanted"
    outshone = "others nearly as bright as the pair" if others > _OUTSHONE else ""
    apart = ""
    if i.size == 2 and best.rms > task.limit(_DISAGREEMENT, _DISAGREEMENT_FWHM):
        apart = f"the two disagree by {best.rms:.2f} pixel"
    doubt = faint or unlike or outshone or apart
    low, high = _NEAR_RATIOS
    hopeless = snr < _FAINT_SNR or ratio.min() < low or ratio.max() > high or others > _NEAR_OUTSHONE
    if doubt and (hopeless or not near) and doubt != apart:
        return f"not enough sources: {doubt}", ""
    if i.size == 2 and best.rms > task.limit(_DISAGREEMENT, _CONTRADICTION_FWHM):
        return f"not enough sources: {apart}", ""
    if single and max(abs(best.transform.dx), abs(best.transform.dy)) > 0.5 * task.search:
        return "not enough sources: one pair only, and far from where the header puts it", ""
    return "", f"{'one pair' if single else 'two pairs'} only: {doubt}" if doubt else ""


def _outshone(sources: Sources, used: Indices) -> float:
    """Return the flux of the brightest source that is not used over that of the faintest that is."""
    flux = np.nan_to_num(sources.flux)
    rest = np.delete(flux, used)
    return float(rest.max() / flux[used].min()) if rest.size else 0.0
