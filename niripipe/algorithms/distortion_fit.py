"""An optical distortion from dithered frames: the same stars at different places on the detector.

Position p of a star in a frame, distortion d, shift s of the frame and place S of the star on the sky obey
``p + d(p) - s = S``. Places and shifts are free, so that only what changes with the dithers is seen: all of d
but its linear part. No catalogue is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from niripipe.algorithms.arrays import Bool, Float64, Floats, Indices

__all__ = ["Basis", "DistortionFit", "Observations", "fit_distortion", "polynomial_basis", "radial_basis"]

Basis = Callable[[Floats, Floats], Float64]
"""Takes positions u and v from the centre (n each), returns displacements of shape (terms, 2, n)."""

# Observations further than so many deviations from the fit are left out, in so many rounds.
_CLIP, _ROUNDS = 4.0, 5
# Error that no centring is better than, pixels.
_FLOOR = 0.01
# Of the deviations of a normal distribution, the median absolute one.
_MAD = 0.6745


@dataclass(frozen=True, slots=True)
class Observations:
    """Stars seen in several frames; arrays of shape (n,).

    Attributes
    ----------
    star, frame : ndarray of int
        Which star in which frame, from 0.
    u, v : ndarray of float64
        Pixels of the detector from the centre of the distortion.
    error : ndarray of float64
        Error of the positions per axis, pixels.
    """

    star: Indices
    frame: Indices
    u: Floats
    v: Floats
    error: Floats

    def take(self, which: Bool) -> Observations:
        """Return the observations that a mask chooses, without stars that one frame alone shows."""
        for _ in range(2):
            count = np.bincount(self.star[which], minlength=int(self.star.max(initial=0)) + 1)
            which = which & (count[self.star] > 1)
        star, frame = (np.unique(values[which], return_inverse=True)[1] for values in (self.star, self.frame))
        return Observations(star, frame, self.u[which], self.v[which], self.error[which])

    @property
    def stars(self) -> int:
        """Number of stars."""
        return int(self.star.max(initial=-1)) + 1

    @property
    def frames(self) -> int:
        """Number of frames."""
        return int(self.frame.max(initial=-1)) + 1


@dataclass(frozen=True, slots=True)
class DistortionFit:
    """Coefficients of a distortion and what they rest on.

    Attributes
    ----------
    values : ndarray of float64, shape (terms,)
    covariance : ndarray of float64, shape (terms, terms)
        The larger of that from the scatter and that from leaving out each frame in turn, term by term.
    scatter : float
        Weighted rms of the observations about the fit, per axis, in units of their errors.
    scatter_without : float
        The same without a distortion.
    improvement : float
        By how much the sum of squares falls, in units of the variance about the fit (chi squared).
    visible : float
        Weighted rms of the part of the distortion that displaces observations against each other, pixels.
    stars, frames, observations : int
    """

    values: Float64
    covariance: Float64
    scatter: float
    scatter_without: float
    improvement: float
    visible: float
    stars: int
    frames: int
    observations: int

    @property
    def errors(self) -> Float64:
        """Errors of the coefficients."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))


def radial_basis(u: Floats, v: Floats) -> Float64:
    """Return the displacement by r**2 along the radius: one term, k of r' = r + k r**2."""
    r = np.hypot(u, v)
    return np.stack([np.stack([u * r, v * r])])


def polynomial_basis(order: int, scale: float) -> tuple[Basis, list[tuple[int, int, int]]]:
    """Return the displacements by u**p v**q with 2 <= p + q <= order along each axis.

    Parameters
    ----------
    order : int
    scale : float
        u and v are divided by it, pixels.

    Returns
    -------
    basis : callable
    terms : list of (axis, p, q)
        Of each coefficient: 0 for x, 1 for y, and the powers.
    """
    terms = [(axis, p, n - p) for axis in (0, 1) for n in range(2, order + 1) for p in range(n + 1)]

    def basis(u: Floats, v: Floats) -> Float64:
        made = np.zeros((len(terms), 2, np.size(u)))
        for k, (axis, p, q) in enumerate(terms):
            made[k, axis] = (u / scale) ** p * (v / scale) ** q
        return made

    return basis, terms


def fit_distortion(seen: Observations, basis: Basis) -> DistortionFit | None:
    """Fit the coefficients of a distortion to dithered stars.

    Parameters
    ----------
    seen : Observations
    basis : callable
        The displacements that are combined.

    Returns
    -------
    DistortionFit or None
        None if there are fewer observations than unknowns, or the dithers do not show all of the terms.

    Notes
    -----
    Weighted least squares with one place a star and one shift a frame. Outliers are clipped at 4 deviations
    about the fit. Residuals scale the errors. The error that each frame makes by itself (a bad shift, a
    trail) shows when it is left out: the jackknife's variance counts if it is larger.
    """
    seen = seen.take(np.ones(seen.star.size, bool))
    for _ in range(_ROUNDS):
        solved = _solved(seen, basis)
        if solved is None:
            return None
        distance = np.abs(solved.residuals).max(axis=0)
        limit = _CLIP * max(float(np.median(np.abs(solved.residuals))) / _MAD, 1.0)
        if not (distance > limit).any():
            break
        seen = seen.take(distance <= limit)
    solved = _solved(seen, basis)
    if solved is None:
        return None
    spread = np.zeros_like(solved.values)
    for frame in range(seen.frames):
        without = _solved(seen.take(seen.frame != frame), basis)
        if without is None:
            return None
        spread += (without.values - solved.values) ** 2
    jackknife = spread * (seen.frames - 1) / seen.frames
    variance = solved.sum_of_squares / solved.freedom
    formal = solved.inverse * variance
    larger = np.sqrt(np.maximum(jackknife / np.diag(formal), 1.0))
    return DistortionFit(
        values=solved.values,
        covariance=np.asarray(formal * np.outer(larger, larger)),
        scatter=float(np.sqrt(variance)),
        scatter_without=float(np.sqrt(solved.without / solved.freedom)),
        improvement=(solved.without - solved.sum_of_squares) / variance,
        visible=solved.visible,
        stars=seen.stars,
        frames=seen.frames,
        observations=seen.star.size,
    )


@dataclass(frozen=True, slots=True)
class _Solved:
    """One solution: coefficients, inverse of the normal matrix, sums of squares, residuals over errors."""

    values: Float64
    inverse: Float64
    sum_of_squares: float
    without: float
    freedom: int
    residuals: Float64
    visible: float


def _solved(seen: Observations, basis: Basis) -> _Solved | None:
    shape = basis(seen.u, seen.v)
    number = len(shape)
    freedom = 2 * (seen.star.size - seen.stars - (seen.frames - 1)) - number
    if seen.stars < 2 or seen.frames < 2 or freedom < 1:
        return None
    weight = 1 / (seen.error**2 + _FLOOR**2)
    root = np.sqrt(weight)
    # Each star's place goes out with its mean; what is left of the frames' shifts is fitted.
    dummies = (seen.frame[None, :] == np.arange(1, seen.frames)[:, None]).astype(float)
    shifts = _centred(dummies, seen.star, weight) * root
    place = _centred(np.stack([seen.u, seen.v]), seen.star, weight) * root
    bent = _centred(shape.reshape(2 * number, -1), seen.star, weight).reshape(shape.shape) * root
    ortho = np.linalg.qr(shifts.T)[0]
    place, bent = place - (place @ ortho) @ ortho.T, bent - (bent @ ortho) @ ortho.T
    design, target = bent.reshape(number, -1).T, -place.reshape(-1)
    size = np.sqrt((design**2).sum(axis=0))
    if not (size > 0).all():
        return None
    scaled, _, rank, _ = np.linalg.lstsq(design / size, target, rcond=1e-6)
    if rank < number:
        return None
    fitted = (design / size) @ scaled
    residuals = (target - fitted).reshape(2, -1)
    inverse = np.linalg.inv((design / size).T @ (design / size)) / np.outer(size, size)
    visible = float(np.sqrt((fitted**2).sum() / (2 * weight.sum())))
    return _Solved(
        np.asarray(scaled / size, np.float64),
        inverse,
        float((residuals**2).sum()),
        float((target**2).sum()),
        freedom,
        residuals,
        visible,
    )


def _centred(values: Floats, star: Indices, weight: Floats) -> Float64:
    """Take from each row of values the weighted mean over the observations of each star."""
    total = np.bincount(star, weight)
    means = np.stack([np.bincount(star, weight * row) / total for row in values])
    return np.asarray(values - means[:, star])
