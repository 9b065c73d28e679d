"""Quality numbers: image size, Strehl ratio, sky brightness, zero point and cloud.

Catalogues are mappings from column names (those of SExtractor) to arrays; an `astropy.table.Table` is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from niripipe.algorithms.arrays import Bool, Float64
from niripipe.algorithms.bits import SATURATED
from niripipe.errors import DataError, ParameterError

__all__ = [
    "CloudCover",
    "ImageQuality",
    "SkyBrightness",
    "Strehl",
    "good_stars",
    "measure_cloud",
    "measure_image_quality",
    "measure_strehl",
    "peak_fraction",
    "sky_brightness",
    "star_tests",
]

Catalogue = Mapping[str, Any]

_ARCSEC: Final = 206264.80624709636
# Diameters of the aperture of Gemini North and of its central obscuration, metres.
_DIAMETER, _OBSCURATION = 8.1, 1.2
# Larger Strehl ratios are not believed: cosmic rays, bad pixels.
_LARGEST_STREHL = 0.6
# Missing values in catalogues, and MAG_AUTO where it could not be measured.
_MISSING, _NO_MAGNITUDE = -999.0, 90.0


@dataclass(frozen=True, slots=True)
class ImageQuality:
    """Image size from the stars of a frame: means, and standard deviations of the stars.

    Attributes
    ----------
    n : int
        Number of stars.
    fwhm, fwhm_std : float
        Full width at half maximum, arcsec.
    zenith_fwhm, zenith_fwhm_std : float or None
        The same brought to the zenith; None when the airmass is unknown.
    ellipticity : float
        1 - B / A.
    stars : ndarray of bool
        Rows of the catalogue that were used.
    """

    n: int
    fwhm: float
    fwhm_std: float
    zenith_fwhm: float | None
    zenith_fwhm_std: float | None
    ellipticity: float
    stars: Bool


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
    flux : float
        In the unit of the level per second and square arcsec.
    magnitude, magnitude_error : float or None
        In mag/arcsec^2; None without a zero point, or when the level is not positive.
    """

    flux: float
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
    stars: Bool


def star_tests(catalogue: Catalogue, *, adaptive_optics: bool = False) -> dict[str, Bool]:
    """Test which sources tell the image quality.

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
    dict of str to ndarray of bool
        What a good star is, and one value a row.

    Raises
    ------
    DataError
        If a column is missing.

    Notes
    -----
    DRAGONS's rules (``clip_sources``): PROFILE_FWHM > 0; 0 < ELLIPTICITY < 0.5; B_IMAGE > 1.1 px; flux above
    50 (25) times its error; CLASS_STAR > 0.8, or with adaptive optics PROFILE_FWHM within 0.2 FWHM_IMAGE of
    FWHM_IMAGE / 1.08; ISOAREA_IMAGE > 20; at most 2 per cent of the pixels flagged, none if one of them is
    saturated; PROFILE_EE50 > PROFILE_FWHM.
    """
    fwhm, isophotal = _column(catalogue, "PROFILE_FWHM"), _column(catalogue, "FWHM_IMAGE")
    ellipticity = _column(catalogue, "ELLIPTICITY")
    snr = 25 if adaptive_optics else 50
    if adaptive_optics:
        star_like = np.abs(isophotal / 1.08 - fwhm) < 0.2 * isophotal
    else:
        star_like = _column(catalogue, "CLASS_STAR") > 0.8
    return {
        "measurable": fwhm > 0,
        "round": (ellipticity > 0) & (ellipticity < 0.5),
        f"above S/N {snr}": _column(catalogue, "FLUX_AUTO") > snr * _column(catalogue, "FLUXERR_AUTO"),
        "large enough": (_column(catalogue, "B_IMAGE") > 1.1) & (_column(catalogue, "ISOAREA_IMAGE") > 20),
        "unflagged": _unflagged(catalogue, inclusive=True),
        "with EE50 > FWHM": _column(catalogue, "PROFILE_EE50") > fwhm,
        "star-like": star_like,
    }


def good_stars(catalogue: Catalogue, *, adaptive_optics: bool = False) -> Bool:
    """Select the rows that pass all of `star_tests`.

    Of three or more, those within 2 standard deviations of the mean PROFILE_FWHM, once.
    """
    good: Bool = np.logical_and.reduce(list(star_tests(catalogue, adaptive_optics=adaptive_optics).values()))
    if np.count_nonzero(good) >= 3:
        fwhm = _column(catalogue, "PROFILE_FWHM")
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
        As for `star_tests`.
    pixel_scale : float
        Arcsec per pixel.
    airmass : float, optional
        To bring the size to the zenith.
    adaptive_optics : bool
        See `star_tests`.

    Returns
    -------
    ImageQuality or None
        None without any good star.

    Raises
    ------
    DataError
        If a column is missing.

    Notes
    -----
    Seeing goes as airmass^0.6 (Kolmogorov turbulence, Fried 1965).
    """
    stars = good_stars(catalogue, adaptive_optics=adaptive_optics)
    number = int(np.count_nonzero(stars))
    if number == 0:
        return None
    widths = pixel_scale * _column(catalogue, "PROFILE_FWHM")[stars]
    fwhm, std = float(widths.mean()), float(widths.std())
    ellipticity = float(_column(catalogue, "ELLIPTICITY")[stars].mean())
    if airmass is None:
        return ImageQuality(number, fwhm, std, None, None, ellipticity, stars)
    zenith = airmass**-0.6
    return ImageQuality(number, fwhm, std, fwhm * zenith, std * zenith, ellipticity, stars)


def peak_fraction(wavelength: float, pixel_scale: float, *, samples: int = 5) -> float:
    """Share of the light of a star in the pixel on which it is centred, with perfect optics of Gemini North.

    Parameters
    ----------
    wavelength : float
        Micrometres.
    pixel_scale : float
        Arcsec per pixel.
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

    ratio = _OBSCURATION / _DIAMETER
    step = pixel_scale / _ARCSEC / samples
    offset = (np.arange(samples) - 0.5 * (samples - 1)) * step
    scale = math.pi * _DIAMETER / (wavelength * 1e-6)
    # The centre of the pattern is a limit; so small an angle gives it to double precision.
    x = np.maximum(scale * np.hypot(offset[:, None], offset), 1e-6)
    amplitude = 2 * (j1(x) - ratio * j1(ratio * x)) / x
    norm = scale**2 / (4 * math.pi * (1 - ratio**2))
    return float(np.sum(amplitude**2)) * norm * step**2


def measure_strehl(
    catalogue: Catalogue, stars: Bool, *, wavelength: float, pixel_scale: float
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

    Returns
    -------
    Strehl or None
        None without a usable star.

    Notes
    -----
    Peak over total flux, over the same for perfect optics (`peak_fraction`); values above 0.6 are left out,
    the others clipped at 3 standard
    deviations about the median, the rest weighted by flux.
    """
    from astropy.stats import sigma_clip

    peak, flux = _column(catalogue, "FLUX_MAX")[stars], _column(catalogue, "FLUX_AUTO")[stars]
    usable = (flux > 0) & (peak > 0)
    ratio = peak[usable] / flux[usable] / peak_fraction(wavelength, pixel_scale)
    weight = flux[usable]
    keep = ratio <= _LARGEST_STREHL
    if not keep.any():
        return None
    ratio, weight = ratio[keep], weight[keep]
    keep = ~sigma_clip(ratio, sigma=3, maxiters=5, copy=False).mask
    ratio, weight = ratio[keep], weight[keep]
    mean = float(np.average(ratio, weights=weight))
    std = math.sqrt(float(np.average((ratio - mean) ** 2, weights=weight)))
    return Strehl(mean, std, int(ratio.size))


def sky_brightness(
    level: float, error: float, *, exposure_time: float, pixel_scale: float, zero_point: float | None = None
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

    Notes
    -----
    ``Z - 2.5 log10(level / (t s^2))``, with the one-sided error ``2.5 log10(1 + error / level)``.
    """
    flux = level / (exposure_time * pixel_scale**2)
    if zero_point is None or not level > 0:
        return SkyBrightness(flux, None, None)
    magnitude = zero_point - 2.5 * math.log10(flux)
    return SkyBrightness(flux, magnitude, 2.5 * math.log10(1 + max(error, 0.0) / level))


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
    if not (exposure_time > 0 and math.isfinite(exposure_time)):
        raise ParameterError(
            "A parameter is out of range", item="exposure_time", found=exposure_time, expected="> 0"
        )
    magnitude, reference = _column(catalogue, "MAG_AUTO"), _column(catalogue, "REF_MAG")
    reference_error = _column(catalogue, "REF_MAG_ERR")
    error = np.hypot(reference_error, _column(catalogue, "MAGERR_AUTO"))
    good: Bool = (
        (magnitude > _MISSING)
        & (magnitude < _NO_MAGNITUDE)
        & (np.abs(reference) < _NO_MAGNITUDE)
        & (reference_error >= 0)
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


def _column(catalogue: Catalogue, name: str, default: Float64 | None = None) -> Float64:
    try:
        return np.asarray(catalogue[name], dtype=np.float64)
    except KeyError:
        if default is not None:
            return default
        raise DataError(
            "A catalogue lacks a column",
            item=name,
            remedy="Detect sources first, and match them with a reference catalogue where one is needed.",
        ) from None


def _unflagged(catalogue: Catalogue, *, inclusive: bool) -> Bool:
    """Rows with few flagged pixels, and none at all if one is saturated."""
    area = _column(catalogue, "ISOAREA_IMAGE")
    none = np.zeros_like(area)
    number = np.maximum(_column(catalogue, "NIMAFLAGS_ISO", none), 0)
    union = np.maximum(_column(catalogue, "IMAFLAGS_ISO", none), 0).astype(np.int64)
    few = number <= 0.02 * area if inclusive else number < 0.02 * area
    return np.asarray(few & ((union & SATURATED) == 0))
