"""Aperture photometry by photutils: sums in circles, local background, curves of growth.

photutils is an optional dependency (``pip install "niripipe[photometry]"``). Detection and Kron fluxes are
sep's, in `niripipe.algorithms.photometry`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from niripipe.algorithms.repair import replace_bad_pixels
from niripipe.astrodata.quiet import without_warnings
from niripipe.errors import InputError
from niripipe.photometry.zeropoint import POGSON

__all__ = [
    "GROWTH",
    "StarSum",
    "circle_sums",
    "is_available",
    "local_sky",
    "require_photutils",
    "star_sum",
]

Float64 = NDArray[np.float64]

ANNULUS: Final = (5.0, 7.5)
"""Inner and outer radius of the ring in which the sky beside a star is measured, in FWHM: a star of the usual
profile has a thousandth of its light there."""

BESIDE: Final = (3.0, 6.0)
"""The same for sources of a catalogue, which have more neighbours: a star has a hundredth of its light
there, the same part at any brightness, which corrections from aperture to aperture take in."""

WINGS: Final = 2.5
"""Light beyond a circle, in units of what a quarter more radius gains: wings of intensity r^-6 (Moffat
profiles with beta = 3) have 1.7 times that, those of turbulence (r^-11/3) 3.2 times."""

GROWTH: Final = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
"""Radii of a curve of growth, in FWHM."""

_CLIP: Final = 3.0
_LEAST: Final = 50
"""Pixels that the ring must have, for an error of the sky of a seventh of the noise of a pixel."""


@dataclass(frozen=True, slots=True)
class StarSum:
    """The light of a star in a circle.

    Attributes
    ----------
    flux : float
        Sum over the circle, sky subtracted, in the unit of the data.
    radius : float
        Of the circle, pixels.
    sky, sky_error : float
        Level beside the star and its error, per pixel.
    noise : float
        Scatter of a pixel beside the star.
    area : float
        Of the circle, pixels.
    growth_radii, growth : ndarray of float64
        Curve of growth: radii in pixels, and the flux within them over `flux`.
    repaired : int
        Pixels in the circle that have no value of their own.
    """

    flux: float
    radius: float
    sky: float
    sky_error: float
    noise: float
    area: float
    growth_radii: Float64
    growth: Float64
    repaired: int

    def growth_at(self, fwhm: float) -> Float64:
        """Return the curve of growth at the radii `GROWTH`, in FWHM."""
        return np.interp(np.array(GROWTH) * fwhm, self.growth_radii, self.growth)

    def excess(self) -> float:
        """Return what the curve of growth gains from the circle's radius to a quarter more, mag.

        It is a measure of how much light the circle misses.
        """
        beyond = float(np.interp(1.25 * self.radius, self.growth_radii, self.growth))
        return 2.5 * float(np.log10(max(beyond, 1e-3)))

    def excess_error(self) -> float:
        """Return the error of `excess`, mag, with what it has in common with that of `flux`.

        A wrong sky changes both. With v the variance of the excess, c its covariance with the magnitude
        in the circle, and w for `WINGS`, it is ``sqrt(v + 2 c / w)``: the variance of a magnitude plus w
        times the excess is larger than that of the magnitude by ``w^2 v + 2 w c``.
        """
        ring = (1.25**2 - 1) * self.area
        square = ring * self.noise**2 + (ring * self.sky_error) ** 2
        square += 2 / WINGS * ring * self.area * self.sky_error**2
        return float(POGSON * np.sqrt(square) / self.flux)


def is_available() -> bool:
    """Return whether photutils is installed."""
    return importlib.util.find_spec("photutils") is not None


def require_photutils() -> None:
    """Raise if photutils is not installed, or cannot be used.

    Raises
    ------
    InputError
        With how to get it.
    """
    problem = "" if is_available() else "it is not installed"
    if not problem:
        try:
            import photutils.aperture
            import photutils.profiles  # noqa: F401
        except ImportError as error:
            problem = str(error)
    if problem:
        raise InputError(
            "Aperture photometry needs the package photutils",
            item="photutils",
            found=problem,
            remedy='pip install --upgrade "niripipe[photometry]"',
        )


def circle_sums(data: NDArray[Any], x: ArrayLike, y: ArrayLike, radius: float) -> Float64:
    """Return the sums of pixels in circles, parts of pixels by their area.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
    x, y : array_like, shape (n,)
        Centres, 0-based.
    radius : float
        Pixels.

    Returns
    -------
    ndarray of float64, shape (n,)
        NaN for circles that reach beyond the image.

    Raises
    ------
    InputError
        photutils is not installed.
    """
    require_photutils()
    from photutils.aperture import CircularAperture

    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    ny, nx = data.shape
    inside = (x >= radius - 0.5) & (y >= radius - 0.5) & (x <= nx - 0.5 - radius) & (y <= ny - 0.5 - radius)
    result = np.full(x.shape, np.nan)
    if inside.any():
        circles = CircularAperture(np.column_stack([x[inside], y[inside]]), radius)
        result[inside] = circles.do_photometry(data, method="exact")[0]
    return result


def local_sky(
    data: NDArray[Any], hidden: NDArray[np.bool_], x: ArrayLike, y: ArrayLike, fwhm: float
) -> tuple[Float64, Float64]:
    """Return the level of the sky beside sources, and how many pixels each comes from.

    It is the mean of a ring from 3 to 6 FWHM without what is 3 sigma off. A map of the background of a
    whole image holds the wings of bright stars, and is too high for faint ones.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
    hidden : ndarray of bool of the same shape
        Pixels that are left out: sources, and those without a usable value.
    x, y : array_like, shape (n,)
        Centres, 0-based.
    fwhm : float
        Of stars, pixels.

    Returns
    -------
    level, number : ndarray of float64, shape (n,)
        NaN and 0 where fewer than 50 pixels are left.

    Raises
    ------
    InputError
        photutils is not installed.
    """
    require_photutils()
    from astropy.stats import SigmaClip
    from photutils.aperture import ApertureStats, CircularAnnulus

    centres = np.column_stack([np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))])
    rings = CircularAnnulus(centres, BESIDE[0] * fwhm, BESIDE[1] * fwhm)
    with without_warnings():
        clip = SigmaClip(_CLIP, maxiters=10)
        stats = ApertureStats(data, rings, mask=hidden, sigma_clip=clip, sum_method="center")
        level = np.atleast_1d(np.asarray(stats.mean, float))
        area = stats.center_aper_area
        number = np.atleast_1d(np.nan_to_num(np.asarray(getattr(area, "value", area), float)))
    few = ~np.isfinite(level) | (number < _LEAST)
    return np.where(few, np.nan, level), np.where(few, 0.0, number)


def star_sum(
    data: NDArray[Any], bad: NDArray[np.bool_], x: float, y: float, *, fwhm: float, factor: float
) -> StarSum:
    """Measure a star in a circle of so many FWHM, with the sky in a ring around it.

    Bad pixels are replaced by estimates from their neighbours; in the ring they are left out, and what is
    brighter than the rest by 3 sigma is clipped.

    Parameters
    ----------
    data : ndarray of float, shape (ny, nx)
    bad : ndarray of bool of the same shape
        Pixels without a usable value.
    x, y : float
        Centre, 0-based.
    fwhm : float
        Pixels.
    factor : float
        Radius of the circle in FWHM.

    Returns
    -------
    StarSum

    Raises
    ------
    InputError
        photutils is not installed, or the circle reaches beyond the image.
    """
    require_photutils()
    from astropy.stats import SigmaClip
    from photutils.aperture import ApertureStats, CircularAnnulus
    from photutils.profiles import CurveOfGrowth

    radius = factor * fwhm
    ny, nx = data.shape
    if not (radius <= x <= nx - 1 - radius and radius <= y <= ny - 1 - radius):
        raise InputError(
            "the aperture reaches beyond the image", found=f"({x:.1f}, {y:.1f}), radius {radius:.1f}"
        )
    outer = max(ANNULUS[1] * fwhm, 1.5 * radius)
    x0, y0 = max(round(x - outer) - 2, 0), max(round(y - outer) - 2, 0)
    window = slice(y0, round(y + outer) + 3), slice(x0, round(x + outer) + 3)
    stamp, flagged = np.array(data[window], np.float32, order="C"), np.ascontiguousarray(bad[window])
    centre = (x - x0, y - y0)
    ring = CircularAnnulus(centre, max(ANNULUS[0] * fwhm, 1.25 * radius), outer)
    with without_warnings():
        stats = ApertureStats(
            stamp, ring, mask=flagged, sigma_clip=SigmaClip(_CLIP, maxiters=10), sum_method="center"
        )
    number = float(stats.center_aper_area.value) if np.isfinite(stats.median) else 0.0
    if number < _LEAST:
        raise InputError(
            "there is too little sky beside the star", found=f"{number:.0f} pixels", expected=f"{_LEAST}"
        )
    # The error of a median of normal noise is sqrt(pi / 2) times that of a mean.
    sky, sky_error = float(stats.median), float(np.sqrt(np.pi / 2) * stats.std / np.sqrt(number))
    replace_bad_pixels([stamp], flagged)
    stamp -= np.float32(sky)
    radii = np.unique(np.append(fwhm * np.array(GROWTH), [radius, 1.25 * radius]))
    curve = CurveOfGrowth(stamp, centre, radii)
    profile = np.asarray(curve.profile, float)
    flux = float(profile[np.searchsorted(radii, radius)])
    yy, xx = np.mgrid[: stamp.shape[0], : stamp.shape[1]]
    repaired = int(np.count_nonzero(flagged & (np.hypot(xx - centre[0], yy - centre[1]) <= radius)))
    growth = profile / flux if flux > 0 else np.full(radii.shape, np.nan)
    area = float(np.pi * radius**2)
    return StarSum(flux, radius, sky, sky_error, float(stats.std), area, radii, growth, repaired)
