"""Zero points from measurements of standards: one star in several frames, several stars of a night.

All in magnitudes. A zero point is that of ``m = ZP - 2.5 log10(N / t) - k (X - 1)``: the magnitude of a star
of one electron a second at airmass 1, in an aperture of 4 FWHM (Gemini's definition).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from niripipe.algorithms.robust import robust_sigma

__all__ = ["POGSON", "NightFit", "StarMean", "fit_night", "mean_of_frames", "zero_points_of_frames"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

POGSON: Final = 2.5 / np.log(10)
"""Magnitudes per relative change of a flux."""

_CLIP: Final = 4.0
_FLOOR: Final = 0.01
"""Frames of a star that deviate by less are never outliers: their expected errors hold noise alone, mag."""

_UNLIKELY: Final = 0.02
"""Scatter of frames or standards that is so unlikely by their expected errors replaces these."""

_REFITS: Final = 20
"""Errors are enlarged until chi-squared is 1, which takes a few steps."""

_OUTLIER: Final = 3.0
"""Standards further from the others than so many sigma are left out of the fit of a night."""


@dataclass(frozen=True, slots=True)
class StarMean:
    """The mean over the frames of a standard.

    Attributes
    ----------
    value, error : float
        Mean of the frames used, and its random error.
    scatter, expected : float
        Scatter of a frame, and what its noise makes one expect.
    used : ndarray of bool
        Which frames are not outliers.
    noisy : bool
        Whether frames scatter more than their noise explains: clouds, for one.
    """

    value: float
    error: float
    scatter: float
    expected: float
    used: Bool
    noisy: bool


@dataclass(frozen=True, slots=True)
class NightFit:
    """Zero point and extinction of a night.

    Attributes
    ----------
    zero_point, error : float
        At airmass 1, and the error that random errors, catalogue and extinction give it.
    extinction, extinction_error : float
        Magnitudes per airmass.
    fitted : bool
        Whether the standards say more about the extinction than the mean did.
    used : ndarray of bool
        Which standards agree.
    residuals : ndarray of float64
        Of each standard, zero point minus that of the fit.
    chi_squared : float
        Per degree of freedom, of the standards used and the extinction, with the errors as stated; NaN with
        one.
    covariance : float
        Of zero point and extinction.
    """

    zero_point: float
    error: float
    extinction: float
    extinction_error: float
    fitted: bool
    used: Bool
    residuals: Float64
    chi_squared: float
    covariance: float

    def error_at(self, airmass: float) -> float:
        """Return the error of ``zero_point - extinction * (airmass - 1)``: that of magnitudes there."""
        x = airmass - 1
        square = self.error**2 + (x * self.extinction_error) ** 2 - 2 * x * self.covariance
        return float(np.sqrt(max(square, 0.0)))


def zero_points_of_frames(
    flux: ArrayLike,
    variance: ArrayLike,
    exposure: ArrayLike,
    airmass: ArrayLike,
    *,
    magnitude: float,
    extinction: float,
) -> tuple[Float64, Float64]:
    """Return the zero points of single frames of a standard, and their expected errors.

    Parameters
    ----------
    flux, variance : array_like, shape (n,)
        Electrons in the exposure, and the variance of that.
    exposure : array_like, shape (n,)
        s.
    airmass : array_like, shape (n,)
    magnitude : float
        Of the standard.
    extinction : float
        Magnitudes per airmass.
    """
    flux, variance = np.asarray(flux, float), np.asarray(variance, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = magnitude + 2.5 * np.log10(flux / np.asarray(exposure, float))
        errors = POGSON * np.sqrt(variance) / flux
    return values + extinction * (np.asarray(airmass, float) - 1), errors


def mean_of_frames(values: ArrayLike, errors: ArrayLike, *, clip: bool = True) -> StarMean:
    """Return the mean of the zero points of single frames, without outliers.

    Outliers are those 4 sigma from the median, with sigma the larger of the expected error and the scatter
    (from the median absolute deviation); the smallest is 0.01 mag. The error is that of the expected errors.
    Where the scatter is larger than they explain (probability below 0.02) it is that of the scatter, enlarged
    by sqrt((n - 1) / (n - 3)) for the few frames from which it is known.

    Parameters
    ----------
    values, errors : array_like, shape (n,)
        NaN where a frame could not be used. At least one is a number.
    clip : bool
        Whether outliers are left out.

    Returns
    -------
    StarMean
    """
    from scipy.stats import chi2

    values, errors = np.asarray(values, float), np.asarray(errors, float)
    known = np.isfinite(values) & np.isfinite(errors)
    used = known.copy()
    for _ in range(10 if clip else 0):
        centre = float(np.median(values[used]))
        scale = robust_sigma(values[used])
        # Of a few values some lie close together by chance.
        scale *= 1 + 6 / used.sum()
        limit = _CLIP * np.maximum(np.maximum(errors, scale), _FLOOR)
        now = known & (np.abs(values - centre) <= limit)
        if not now.any() or (now == used).all():
            break
        used = now
    weights = 1 / errors[used] ** 2
    n = int(used.sum())
    mean = float(np.sum(weights * values[used]) / weights.sum())
    error, expected = float(weights.sum() ** -0.5), float(np.sqrt(n / weights.sum()))
    if n == 1:
        return StarMean(mean, error, np.nan, expected, used, False)
    square = float(np.sum(weights * (values[used] - mean) ** 2))
    scatter = float(np.std(values[used], ddof=1))
    noisy = bool(chi2.sf(square, n - 1) < _UNLIKELY)
    if noisy:
        # The frames are equally good then: what they scatter by is not their noise.
        mean = float(np.mean(values[used]))
        error = scatter / np.sqrt(n) * np.sqrt((n - 1) / max(n - 3, 0.5))
    return StarMean(mean, float(error), scatter, expected, used, noisy)


def fit_night(
    values: ArrayLike,
    errors: ArrayLike,
    airmass: ArrayLike,
    *,
    extinction: float,
    extinction_error: float,
    common_error: float = 0.0,
) -> NightFit:
    """Fit zero point and extinction to the standards of a night in one filter.

    The model is ``value = ZP - k (X - 1)``, by least squares; the mean extinction with its error counts as
    one more measurement of k. So a small range of airmass leaves k where it was. Standards that are 3 sigma
    from the fit to all others are left out, the worst first, while three remain. Where those used disagree by
    more than their errors, these are enlarged until chi-squared is its degrees of freedom; of two standards
    where that is improbable (below 0.02) alone.

    Parameters
    ----------
    values, errors : array_like, shape (n,)
        Of each standard ``m + 2.5 log10(N / t)``, not corrected for extinction, and its error with that of
        its catalogue magnitude.
    airmass : array_like, shape (n,)
    extinction, extinction_error : float
        Mean of the site, and how much nights differ from it.
    common_error : float
        Error that all standards share (the band, the aperture), which is added to that of the zero point.

    Returns
    -------
    NightFit
    """
    from scipy.stats import chi2

    values, errors, x = (np.asarray(part, float) for part in (values, errors, airmass))
    x = x - 1
    used = np.isfinite(values) & np.isfinite(errors)
    prior = extinction, extinction_error

    def solve(chosen: Bool, spread: Float64) -> tuple[Float64, Float64]:
        design = np.column_stack([np.ones(chosen.sum()), -x[chosen]]) / spread[chosen, None]
        design = np.vstack([design, [0.0, 1 / prior[1]]])
        target = np.append(values[chosen] / spread[chosen], prior[0] / prior[1])
        covariance = np.linalg.inv(design.T @ design)
        return np.asarray(covariance @ design.T @ target), np.asarray(covariance)

    while used.sum() > 3:
        away = np.zeros(used.shape)
        for k in np.flatnonzero(used):
            others = used.copy()
            others[k] = False
            (zero_point, slope), covariance = solve(others, errors)
            row = np.array([1.0, -x[k]])
            away[k] = abs(values[k] - zero_point + slope * x[k]) / np.sqrt(
                errors[k] ** 2 + row @ covariance @ row
            )
        worst = int(np.argmax(away))
        if away[worst] <= _OUTLIER:
            break
        used[worst] = False
    chi_squared, spread, freedom = np.nan, errors, int(used.sum()) - 1
    for _ in range(_REFITS):
        (zero_point, slope), covariance = solve(used, spread)
        residuals = values - zero_point + slope * x
        if not freedom:
            break
        of_stars = float(np.sum((residuals[used] / spread[used]) ** 2))
        square = of_stars + float((slope - prior[0]) / prior[1]) ** 2
        if np.isnan(chi_squared):
            chi_squared = square / freedom
        # Standards that disagree have larger errors than they state; the mean extinction has not.
        unlikely = bool(chi2.sf(square, freedom) < _UNLIKELY)
        growth = square / freedom if unlikely else of_stars / freedom if freedom >= 2 else 1.0
        if growth <= 1.01:
            break
        spread = spread * np.sqrt(growth)
    return NightFit(
        zero_point=float(zero_point),
        error=float(np.sqrt(covariance[0, 0] + common_error**2)),
        extinction=float(slope),
        extinction_error=float(np.sqrt(covariance[1, 1])),
        fitted=bool(covariance[1, 1] < (0.7 * extinction_error) ** 2),
        used=used,
        residuals=residuals,
        chi_squared=chi_squared,
        covariance=float(covariance[0, 1]),
    )
