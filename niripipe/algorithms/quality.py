"""Quality numbers: image size, Strehl ratio, sky brightness, cloud, and the observing conditions they meet.

Catalogues are mappings from column names (those of SExtractor) to arrays; an `astropy.table.Table` is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.bits import SATURATED
from niripipe.errors import DataError, ParameterError

__all__ = [
    "BG_LIMITS",
    "CC_LIMITS",
    "IQ_LIMITS",
    "WAVELENGTHS",
    "CloudCover",
    "Conditions",
    "ImageQuality",
    "SkyBrightness",
    "Strehl",
    "adaptive_optics_seeing",
    "conditions",
    "good_stars",
    "measure_cloud",
    "measure_image_quality",
    "measure_strehl",
    "nearest_band",
    "peak_fraction",
    "sky_brightness",
    "sky_conditions",
    "zero_point_in_adu",
]

Catalogue = Mapping[str, Any]
Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]

WAVELENGTHS: Final[Mapping[str, float]] = {
    "Y": 1.02,
    "X": 1.10,
    "J": 1.20,
    "H": 1.65,
    "K": 2.20,
    "L": 3.40,
    "M": 4.80,
}
"""Standard wavelengths of the near-infrared bands, micrometres (DRAGONS, Gemini lookups)."""

IQ_LIMITS: Final[Mapping[str, Sequence[tuple[int, float]]]] = {
    "Y": ((20, 0.40), (70, 0.70), (85, 0.95)),
    "X": ((20, 0.40), (70, 0.65), (85, 0.90)),
    "J": ((20, 0.40), (70, 0.60), (85, 0.85)),
    "H": ((20, 0.40), (70, 0.60), (85, 0.85)),
    "K": ((20, 0.35), (70, 0.55), (85, 0.80)),
    "L": ((20, 0.35), (70, 0.50), (85, 0.75)),
    "M": ((20, 0.35), (70, 0.50), (85, 0.70)),
    "AO": ((20, 0.45), (70, 0.80), (85, 1.20)),
}
"""Largest image size at the zenith, arcsec, by band and percentile (Gemini observing constraints)."""

BG_LIMITS: Final[Mapping[str, Sequence[tuple[int, float]]]] = {
    "J": ((20, 16.20), (50, 16.20), (80, 16.20)),
    "H": ((20, 13.80), (50, 13.80), (80, 13.80)),
    "K": ((20, 14.60), (50, 14.60), (80, 14.60)),
    "Ks": ((20, 14.60), (50, 14.60), (80, 14.60)),
    "K(short)": ((20, 14.60), (50, 14.60), (80, 14.60)),
}
"""Brightest sky, mag/arcsec^2, by filter and percentile (Gemini observing constraints).

The near-infrared limits of all percentiles are equal: a dark enough sky meets every one of them, and none can
be told from another.
"""

CC_LIMITS: Final[Sequence[tuple[int, float]]] = ((50, 0.08), (70, 0.3), (80, 1.0))
"""Largest extinction by cloud, mag, by percentile (Gemini observing constraints)."""

_ARCSEC: Final = 206264.80624709636
# Missing values in catalogues, and MAG_AUTO where it could not be measured.
_MISSING, _NO_MAGNITUDE = -999.0, 90.0
# Conditions less probable than this are not reported (DRAGONS).
_LEAST_PROBABILITY = 0.05


@dataclass(frozen=True, slots=True)
class Conditions:
    """Observing conditions that a measurement is compatible with.

    Attributes
    ----------
    best : tuple of int
        Percentiles of the most probable band; several where their limits are equal. 100 means "any": worse
        than every limit.
    possible : tuple of tuples of int
        All bands with a probability above 5 per cent, best first.
    probability : tuple of (tuple of int, float)
        Bands, best first, with their probabilities.
    """

    best: tuple[int, ...]
    possible: tuple[tuple[int, ...], ...]
    probability: tuple[tuple[tuple[int, ...], float], ...]

    def met(self, requested: int) -> bool:
        """Whether a requested percentile is met, with a probability of at least 5 per cent."""
        total = sum(chance for band, chance in self.probability if min(band) <= requested)
        return total >= _LEAST_PROBABILITY


@dataclass(frozen=True, slots=True)
class ImageQuality:
    """Image size from the stars of a frame: means and standard deviations.

    Attributes
    ----------
    n : int
        Number of stars.
    fwhm, fwhm_std : float
        Full width at half maximum, arcsec.
    zenith_fwhm, zenith_fwhm_std : float or None
        The same brought to the zenith; None when the airmass is unknown.
    isophotal_fwhm, isophotal_fwhm_std : float
        From the isophotal profile, arcsec.
    ee50, ee50_std : float
        Diameter that encloses half of the light, arcsec.
    ellipticity, ellipticity_std : float
        1 - B / A.
    position_angle, position_angle_std : float
        Direction of the elongation, degrees counter-clockwise from x, in (-90, 90].
    stars : ndarray of bool
        Rows of the catalogue that were used.
    """

    n: int
    fwhm: float
    fwhm_std: float
    zenith_fwhm: float | None
    zenith_fwhm_std: float | None
    isophotal_fwhm: float
    isophotal_fwhm_std: float
    ee50: float
    ee50_std: float
    ellipticity: float
    ellipticity_std: float
    position_angle: float
    position_angle_std: float
    stars: Flags


@dataclass(frozen=True, slots=True)
class Strehl:
    """Strehl ratio: flux-weighted mean and standard deviation over `n` stars."""

    ratio: float
    std: float
    n: int


@dataclass(frozen=True, slots=True)
class SkyBrightness:
    """Brightness of the sky.

    Attributes
    ----------
    flux, flux_error : float
        In the unit of the level per second and square arcsec.
    magnitude, magnitude_error : float or None
        In mag/arcsec^2; None without a zero point, or when the level is not positive.
    """

    flux: float
    flux_error: float
    magnitude: float | None
    magnitude_error: float | None


@dataclass(frozen=True, slots=True)
class CloudCover:
    """Photometric zero point, and extinction by cloud.

    Attributes
    ----------
    n : int
        Number of stars.
    zero_point : float
        Magnitude of 1 unit per second at airmass 1, through the cloud of the frame.
    std : float
        Weighted scatter of the stars and their mean error, in quadrature (the uncertainty DRAGONS quotes).
    error : float
        Standard error of `zero_point`, enlarged when the stars scatter by more than their errors.
    cloud : float or None
        Nominal less measured zero point, mag; None without a nominal one. Its uncertainties are the same.
    stars : ndarray of bool
        Rows of the catalogue that were used.
    """

    n: int
    zero_point: float
    std: float
    error: float
    cloud: float | None
    stars: Flags


def nearest_band(wavelength: float) -> str:
    """Name the near-infrared band whose standard wavelength is nearest.

    Parameters
    ----------
    wavelength : float
        Effective wavelength of the filter, micrometres.

    Returns
    -------
    str
        A key of `WAVELENGTHS` and `IQ_LIMITS`.
    """
    return min(WAVELENGTHS, key=lambda band: abs(WAVELENGTHS[band] - wavelength))


def conditions(value: float, error: float, limits: Sequence[tuple[int, float]]) -> Conditions:
    """Compare a measurement with the upper limits of observing conditions.

    Parameters
    ----------
    value, error : float
        The measurement, the smaller the better, and its standard error; an error of 0 or NaN means exact.
    limits : sequence of (int, float)
        Percentiles and upper limits, both ascending. Percentiles of equal limits form one band.

    Returns
    -------
    Conditions
        Probabilities are those of a normal distribution between the limits; a value equal to a limit exceeds
        it.
    """
    bands: list[tuple[tuple[int, ...], float]] = []
    for percentile, limit in limits:
        if bands and bands[-1][1] == limit:
            bands[-1] = ((*bands[-1][0], percentile), limit)
        else:
            bands.append(((percentile,), limit))
    below = [_chance_below(limit, value, error) for _, limit in bands] + [1.0]
    names = [band for band, _ in bands] + [(100,)]
    chances = [high - low for high, low in zip(below, [0.0, *below[:-1]], strict=True)]
    pairs = tuple(zip(names, chances, strict=True))
    best = max(pairs, key=lambda pair: pair[1])[0]
    return Conditions(best, tuple(band for band, p in pairs if p > _LEAST_PROBABILITY), pairs)


def sky_conditions(filter_name: str, magnitude: float, error: float) -> Conditions | None:
    """Compare a sky brightness in mag/arcsec^2 with `BG_LIMITS`; None for filters without limits.

    A sky darker than the limit gives the band (20, 50, 80): its percentiles share one limit, so a finer
    answer would be invented.
    """
    limits = BG_LIMITS.get(filter_name)
    if limits is None:
        return None
    return conditions(-magnitude, error, [(percentile, -limit) for percentile, limit in limits])


def good_stars(catalogue: Catalogue, *, adaptive_optics: bool = False) -> Flags:
    """Select the stars that tell the image quality.

    Parameters
    ----------
    catalogue : mapping
        Columns PROFILE_FWHM, PROFILE_EE50, FWHM_IMAGE, ELLIPTICITY, B_IMAGE, FLUX_AUTO, FLUXERR_AUTO,
        CLASS_STAR, ISOAREA_IMAGE, IMAFLAGS_ISO, NIMAFLAGS_ISO. Without the last two no pixel counts as
        flagged.
    adaptive_optics : bool
        The frame was taken with adaptive optics: fainter stars are taken, and told by their profile.

    Returns
    -------
    ndarray of bool
        One value a row.

    Raises
    ------
    DataError
        If a column is missing.

    Notes
    -----
    DRAGONS's rules (``clip_sources``): PROFILE_FWHM > 0; 0 < ELLIPTICITY < 0.5; B_IMAGE > 1.1 px; flux above
    50 (25) times its error; CLASS_STAR > 0.8, or with adaptive optics PROFILE_FWHM within 0.2 FWHM_IMAGE of
    FWHM_IMAGE / 1.08; ISOAREA_IMAGE > 20; at most 2 per cent of the pixels flagged, none if one of them is
    saturated; PROFILE_EE50 > PROFILE_FWHM. Of three or more, those within 2 standard deviations of the mean
    PROFILE_FWHM, once.
    """
    fwhm, isophotal = _column(catalogue, "PROFILE_FWHM"), _column(catalogue, "FWHM_IMAGE")
    ellipticity = _column(catalogue, "ELLIPTICITY")
    if adaptive_optics:
        star = np.abs(isophotal / 1.08 - fwhm) < 0.2 * isophotal
    else:
        star = _column(catalogue, "CLASS_STAR") > 0.8
    bright = (25 if adaptive_optics else 50) * _column(catalogue, "FLUXERR_AUTO")
    good: Flags = (
        (fwhm > 0)
        & (ellipticity > 0)
        & (ellipticity < 0.5)
        & (_column(catalogue, "B_IMAGE") > 1.1)
        & (_column(catalogue, "FLUX_AUTO") > bright)
        & star
        & (_column(catalogue, "ISOAREA_IMAGE") > 20)
        & _unflagged(catalogue, inclusive=True)
        & (_column(catalogue, "PROFILE_EE50") > fwhm)
    )
    if np.count_nonzero(good) >= 3:
        chosen = fwhm[good]
        good &= np.abs(fwhm - chosen.mean()) <= 2 * chosen.std()
    return good


def measure_image_quality(
    catalogue: Catalogue, *, pixel_scale: float, airmass: float | None = None, adaptive_optics: bool = False
) -> ImageQuality | None:
    """Measure the image size on the stars of a catalogue.

    Parameters
    ----------
    catalogue : mapping
        As for `good_stars`, and THETA_IMAGE.
    pixel_scale : float
        Arcsec per pixel.
    airmass : float, optional
        To bring the size to the zenith.
    adaptive_optics : bool
        See `good_stars`.

    Returns
    -------
    ImageQuality or None
        None without any good star.

    Raises
    ------
    DataError
        If a column is missing.
    ParameterError
        If the pixel scale or the airmass is not usable.

    Notes
    -----
    Seeing goes as airmass^0.6 (Kolmogorov turbulence, Fried 1965). Position angles, which repeat after 180
    degrees, are averaged as vectors of twice the angle.
    """
    _positive("pixel_scale", pixel_scale)
    stars = good_stars(catalogue, adaptive_optics=adaptive_optics)
    number = int(np.count_nonzero(stars))
    if number == 0:
        return None
    fwhm, fwhm_std = _mean_std(pixel_scale * _column(catalogue, "PROFILE_FWHM")[stars])
    isophotal, isophotal_std = _mean_std(pixel_scale * _column(catalogue, "FWHM_IMAGE")[stars])
    ee50, ee50_std = _mean_std(pixel_scale * _column(catalogue, "PROFILE_EE50")[stars])
    ellipticity, ellipticity_std = _mean_std(_column(catalogue, "ELLIPTICITY")[stars])
    angle, angle_std = _mean_axis(_column(catalogue, "THETA_IMAGE")[stars])
    zenith = None
    if airmass is not None:
        if not airmass >= 0.99:
            raise ParameterError("There is no such airmass", item="airmass", found=airmass, expected=">= 1")
        zenith = airmass**-0.6
    return ImageQuality(
        number,
        fwhm,
        fwhm_std,
        None if zenith is None else fwhm * zenith,
        None if zenith is None else fwhm_std * zenith,
        isophotal,
        isophotal_std,
        ee50,
        ee50_std,
        ellipticity,
        ellipticity_std,
        angle,
        angle_std,
        stars,
    )


def adaptive_optics_seeing(fried_parameter: float) -> float:
    """Seeing in arcsec at 0.5 micrometre from the Fried parameter in centimetres: 0.98 lambda / r0."""
    _positive("fried_parameter", fried_parameter)
    return _ARCSEC * 0.98 * 0.5e-6 / (0.01 * fried_parameter)


def peak_fraction(
    wavelength: float,
    pixel_scale: float,
    *,
    diameter: float = 8.1,
    obscuration: float = 1.2,
    samples: int = 5,
) -> float:
    """Share of the light of a star in the pixel on which it is centred, with perfect optics.

    Parameters
    ----------
    wavelength : float
        Micrometres.
    pixel_scale : float
        Arcsec per pixel.
    diameter, obscuration : float
        Of the telescope, metres; by default those of Gemini North.
    samples : int
        The pixel is integrated over so many points along each side.

    Returns
    -------
    float

    Notes
    -----
    The diffraction pattern of an annular pupil (Born & Wolf, Principles of Optics, 8.6.2), normalised so that
    it integrates to 1 over the sky: ``[2 (J1(x) - e J1(e x)) / x]^2 / (1 - e^2) * pi D^2 / (4 lambda^2)``,
    with ``x = pi D theta / lambda`` and e the ratio of obscuration to diameter. DRAGONS multiplies by ``(1 -
    e^2)^2`` instead of dividing by ``1 - e^2``, which makes its Strehl ratios 6.9 per cent larger.
    """
    from scipy.special import j1

    for name, value in (("wavelength", wavelength), ("pixel_scale", pixel_scale), ("samples", samples)):
        _positive(name, value)
    ratio = obscuration / diameter
    if not 0 <= ratio < 1:
        raise ParameterError(
            "The obscuration must be smaller than the aperture", item="obscuration", found=ratio
        )
    step = pixel_scale / _ARCSEC / samples
    place = (np.arange(samples) - 0.5 * (samples - 1)) * step
    scale = math.pi * diameter / (wavelength * 1e-6)
    # The centre of the pattern is a limit; so small an angle gives it to double precision.
    x = np.maximum(scale * np.hypot(place[:, None], place), 1e-6)
    amplitude = 2 * (j1(x) - ratio * j1(ratio * x)) / x
    norm = scale**2 / (4 * math.pi * (1 - ratio**2))
    return float(np.sum(amplitude**2)) * norm * step**2


def measure_strehl(
    catalogue: Catalogue, stars: Flags, *, wavelength: float, pixel_scale: float, largest: float = 0.6
) -> Strehl | None:
    """Measure the Strehl ratio from the peaks of stars.

    Parameters
    ----------
    catalogue : mapping
        Columns FLUX_MAX (peak above the background) and FLUX_AUTO.
    stars : ndarray of bool
        Rows to use.
    wavelength : float
        Micrometres.
    pixel_scale : float
        Arcsec per pixel.
    largest : float
        Larger ratios are not believed: cosmic rays, bad pixels.

    Returns
    -------
    Strehl or None
        None without a usable star.

    Notes
    -----
    Peak over total flux, over the same for perfect optics (`peak_fraction`); values clipped at 3 standard
    deviations about the median, the rest weighted by flux.
    """
    peak, flux = _column(catalogue, "FLUX_MAX")[stars], _column(catalogue, "FLUX_AUTO")[stars]
    usable = (flux > 0) & (peak > 0)
    ratio = peak[usable] / flux[usable] / peak_fraction(wavelength, pixel_scale)
    weight = flux[usable]
    keep = ratio <= largest
    for _ in range(5):
        if not keep.any():
            return None
        middle, spread = float(np.median(ratio[keep])), float(np.std(ratio[keep]))
        new = keep & (np.abs(ratio - middle) <= 3 * spread)
        if np.array_equal(new, keep):
            break
        keep = new
    ratio, weight = ratio[keep], weight[keep]
    mean = float(np.average(ratio, weights=weight))
    std = math.sqrt(float(np.average((ratio - mean) ** 2, weights=weight)))
    return Strehl(mean, std, int(ratio.size))


def zero_point_in_adu(zero_point: float, gain: float) -> float:
    """Zero point for 1 ADU/s from that for 1 electron/s; `gain` in electrons per ADU."""
    _positive("gain", gain)
    return zero_point - 2.5 * math.log10(gain)


def sky_brightness(
    level: float,
    error: float,
    *,
    exposure_time: float,
    pixel_scale: float,
    zero_point: float | None = None,
) -> SkyBrightness:
    """Convert a background level to a sky brightness.

    Parameters
    ----------
    level, error : float
        Background and its uncertainty, for example `niripipe.algorithms.background.Background`'s level and
        std.
    exposure_time : float
        Seconds, all coadds together.
    pixel_scale : float
        Arcsec per pixel.
    zero_point : float, optional
        Magnitude of 1 unit of the level per second.

    Returns
    -------
    SkyBrightness

    Raises
    ------
    ParameterError
        If the exposure time or the pixel scale is not positive.

    Notes
    -----
    ``Z - 2.5 log10(level / (t s^2))``, with the one-sided error ``2.5 log10(1 + error / level)``.
    """
    _positive("exposure_time", exposure_time)
    _positive("pixel_scale", pixel_scale)
    area = exposure_time * pixel_scale**2
    flux, flux_error = level / area, error / area
    if zero_point is None or not level > 0:
        return SkyBrightness(flux, flux_error, None, None)
    return SkyBrightness(
        flux, flux_error, zero_point - 2.5 * math.log10(flux), 2.5 * math.log10(1 + max(error, 0.0) / level)
    )


def measure_cloud(
    catalogue: Catalogue,
    *,
    exposure_time: float,
    nominal_zero_point: float | None = None,
    airmass: float = 1.0,
    extinction: float = 0.0,
) -> CloudCover | None:
    """Measure the photometric zero point on stars with reference magnitudes, and the cloud it implies.

    Parameters
    ----------
    catalogue : mapping
        Columns MAG_AUTO (zero point 0), MAGERR_AUTO, REF_MAG, REF_MAG_ERR (-999 where there is none), FLAGS,
        ISOAREA_IMAGE; IMAFLAGS_ISO and NIMAFLAGS_ISO, without which no pixel counts as flagged.
    exposure_time : float
        Seconds, all coadds together.
    nominal_zero_point : float, optional
        Zero point of a clear night at airmass 1, for 1 unit per second.
    airmass : float
        Of the frame.
    extinction : float
        Extinction coefficient of a clear night, mag per airmass.

    Returns
    -------
    CloudCover or None
        None without a usable star.

    Raises
    ------
    DataError
        If a column is missing.
    ParameterError
        If the exposure time is not positive.

    Notes
    -----
    A star's magnitude at airmass 1 is brighter by ``k (X - 1)``, so its zero point is
    ``REF_MAG - MAG_AUTO - 2.5 log10(t) + k (X - 1)``; DRAGONS has the other sign, without effect while its
    near-infrared coefficients are 0. Its selection: FLAGS = 0, less than 2 per cent of the pixels flagged,
    none saturated; error below 0.1 mag (0.2 for 5 rows or fewer); of more than two, those nearer to the mean
    than ``sqrt(std^2 + mean(error^2))``. Then a mean weighted by inverse variances.
    """
    _positive("exposure_time", exposure_time)
    magnitude, reference = _column(catalogue, "MAG_AUTO"), _column(catalogue, "REF_MAG")
    reference_error = _column(catalogue, "REF_MAG_ERR")
    error = np.hypot(reference_error, _column(catalogue, "MAGERR_AUTO"))
    good: Flags = (
        (magnitude > _MISSING)
        & (magnitude < _NO_MAGNITUDE)
        & (reference > _MISSING)
        & (reference_error > _MISSING)
        & np.isfinite(error)
        & (_column(catalogue, "FLAGS") == 0)
        & _unflagged(catalogue, inclusive=False)
    )
    good &= error < (0.1 if np.count_nonzero(good) > 5 else 0.2)
    number = int(np.count_nonzero(good))
    if number == 0:
        return None
    correction = -2.5 * math.log10(exposure_time) + extinction * (airmass - 1)
    zero_point = reference - magnitude + correction
    if number > 2:
        limit = math.hypot(float(zero_point[good].std()), math.sqrt(float(np.mean(error[good] ** 2))))
        good &= np.abs(zero_point - zero_point[good].mean()) < limit
    # Perfect catalogues exist in simulations only, but must not divide by zero.
    weight = 1 / np.maximum(error[good], 1e-6) ** 2
    values = zero_point[good]
    mean = float(np.average(values, weights=weight))
    scatter = float(np.average((values - mean) ** 2, weights=weight))
    std = math.sqrt(scatter + 1 / float(weight.mean()))
    excess = float(np.sum(weight * (values - mean) ** 2)) / (values.size - 1) if values.size > 1 else 1.0
    return CloudCover(
        int(values.size),
        mean,
        std,
        math.sqrt(max(1.0, excess) / float(weight.sum())),
        None if nominal_zero_point is None else nominal_zero_point - mean,
        good,
    )


def _column(catalogue: Catalogue, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(catalogue[name], dtype=np.float64)
    except KeyError:
        raise DataError(
            "A catalogue lacks a column",
            item=name,
            remedy="Detect sources first, and match them with a reference catalogue where one is needed.",
        ) from None


def _unflagged(catalogue: Catalogue, *, inclusive: bool) -> Flags:
    """Rows with few flagged pixels, and none at all if one is saturated."""
    area = _column(catalogue, "ISOAREA_IMAGE")
    number, union = np.zeros(area.shape), np.zeros(area.shape, np.int64)
    if "NIMAFLAGS_ISO" in _names(catalogue):
        number = np.maximum(_column(catalogue, "NIMAFLAGS_ISO"), 0)
    if "IMAFLAGS_ISO" in _names(catalogue):
        union = np.maximum(_column(catalogue, "IMAFLAGS_ISO"), 0).astype(np.int64)
    few = number <= 0.02 * area if inclusive else number < 0.02 * area
    return np.asarray(few & ((union & SATURATED) == 0))


def _names(catalogue: Catalogue) -> Sequence[str]:
    # A table lists its columns elsewhere than a mapping; iterating over it would give rows.
    return list(getattr(catalogue, "colnames", None) or catalogue.keys())


def _chance_below(limit: float, value: float, error: float) -> float:
    if not error > 0:
        return 1.0 if value < limit else 0.0
    return 0.5 * (1 + math.erf((limit - value) / (error * math.sqrt(2))))


def _positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ParameterError("A parameter is out of range", item=name, found=value, expected="> 0")


def _mean_std(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(values.mean()), float(values.std())


def _mean_axis(degrees: NDArray[np.float64]) -> tuple[float, float]:
    """Mean direction of axes and its spread, degrees."""
    vector = complex(np.mean(np.exp(2j * np.deg2rad(degrees))))
    mean = 0.5 * math.degrees(math.atan2(vector.imag, vector.real))
    offset = (degrees - mean + 90) % 180 - 90
    return mean, float(np.sqrt(np.mean(offset**2)))
