"""Finding the standard star in a frame, and measuring it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

import numpy as np

from niripipe.astrodata import DQ, FAIL, AstroData
from niripipe.errors import InputError, NiripipeError
from niripipe.instruments.position import angular_separation
from niripipe.photometry import Recognition, Standard, recognise, standard_band
from niripipe.photometry.apertures import GROWTH, StarSum, star_sum
from niripipe.primitives.base import raw_name
from niripipe.primitives.geometry import sky_centre
from niripipe.primitives.objcat import sources

__all__ = ["Measurement", "locate", "measure_frame", "named_by_user", "recognise_frame"]

_DISTANCE, _MAGNITUDES = 4.0, 0.5
"""How far a standard usually is from where the WCS puts it (arcsec), and from its expected magnitude."""

_UNCLEAR: Final = 3.0
"""Two candidates are too alike when the sums of their squared deviations, in the units above, differ by
less."""

_FAINT: Final = 3.0
"""A source that is fainter than expected by more (mag) is not the standard, clouds or not."""

_PEAK: Final = 0.35
"""Pixels within so many FWHM of the centre must be linear: those of the peak. A single hot pixel further
out is replaced."""

_FEW: Final = 1
"""So many bad pixels in the core of a star are replaced well enough: they are a few per cent of its light."""

_NEIGHBOUR: Final = 0.01
"""Sources in the aperture with a smaller part of the standard's light are below its other errors; near a
bright star they are often its own wings."""

_BEYOND: Final = DQ.saturated | DQ.non_linear


@dataclass(frozen=True, slots=True)
class Measurement:
    """The standard star in one frame.

    Attributes
    ----------
    image : str
        Name of the raw file.
    standard : str
        Name of the star; empty if there is none.
    reason : str
        Why the frame gives no zero point; empty if it does.
    x, y, fwhm : float
        Position (0-based) and width, pixels; NaN where there is none.
    star : StarSum or None
        What was measured.
    variance : float
        Of the flux.
    neighbours : float
        Light of other sources in the aperture, as a part of the star's.
    exposure, airmass : float
        s, and airmass.
    time : datetime or None
    """

    image: str
    standard: str = ""
    reason: str = ""
    x: float = math.nan
    y: float = math.nan
    fwhm: float = math.nan
    star: StarSum | None = None
    variance: float = math.nan
    neighbours: float = 0.0
    exposure: float = math.nan
    airmass: float = math.nan
    time: datetime | None = None

    def row(self) -> dict[str, Any]:
        """Return the columns of STDPHOT, without the zero point."""
        star = self.star
        return {
            "IMAGE": self.image,
            "STANDARD": self.standard,
            "X_IMAGE": self.x + 1,
            "Y_IMAGE": self.y + 1,
            "FWHM": self.fwhm,
            "RADIUS": math.nan if star is None else star.radius,
            "FLUX": math.nan if star is None else star.flux,
            "FLUXERR": math.sqrt(self.variance) if self.variance >= 0 else math.nan,
            "SKY": math.nan if star is None else star.sky,
            "EXCESS": math.nan if star is None else star.excess(),
            "EXCESSERR": math.nan if star is None else star.excess_error(),
            "GROWTH": np.full(len(GROWTH), np.nan) if star is None else star.growth_at(self.fwhm),
            "NEIGHBOUR": self.neighbours,
            "REPAIRED": 0 if star is None else star.repaired,
            "EXPTIME": self.exposure,
            "AIRMASS": self.airmass,
            "TIME": "" if self.time is None else self.time.isoformat(timespec="seconds"),
            "REASON": self.reason,
        }


def recognise_frame(frame: AstroData, stars: Sequence[Standard], radius: float = 60.0) -> Recognition:
    """Return which standard a frame shows: by where the telescope was sent, by its WCS, and by its name.

    Parameters
    ----------
    frame : AstroData
        Raw, or on its way through a recipe.
    stars : sequence of Standard
        From which to choose.
    radius : float
        Largest distance of pointing and standard, arcsec.
    """
    found = Recognition(None, "the header does not say where the telescope pointed")
    try:
        looked_up = partial(recognise, stars, name=frame.object(), when=frame.ut_datetime(), radius=radius)
        ra, dec = frame.target_ra(), frame.target_dec()
        if ra is not None and dec is not None:
            found = looked_up(float(ra), float(dec))
        if found.candidates or frame[0].sky_mapping is None:
            return found
        by_wcs = looked_up(*sky_centre(frame))
    except NiripipeError as error:
        return replace(found, reason=f"{found.reason}: {error}")
    if by_wcs.standard is None:
        return found
    doubt = f"the WCS points to {by_wcs.standard.label}, RA and DEC of the header do not"
    return replace(by_wcs, doubt="; ".join(part for part in (by_wcs.doubt, doubt) if part))


def named_by_user(frame: AstroData, star: Standard, search: float) -> Recognition:
    """Return the standard that the user named, where it is to be looked for.

    A star that is not in the field is taken to be where the telescope was sent: the user knows better than
    the header. `Recognition.doubt` says so.
    """
    reason = "named by the user"
    ra, dec = frame.target_ra(), frame.target_dec()
    if _in_field(frame, star, search) is not None or ra is None or dec is None:
        return Recognition(star, reason, (star,))
    away = angular_separation(float(ra), float(dec), *star.position(frame.ut_datetime())[:2]) / 3600
    doubt = f"{star.label} is {away:.2g} degrees from where the telescope was sent: it is taken to be there"
    moved = replace(star, ra=float(ra), dec=float(dec), pm_ra=0.0, pm_dec=0.0)
    return Recognition(moved, reason, (star,), doubt)


def measure_frame(frame: AstroData, star: Standard, *, factor: float, search: float) -> Measurement:
    """Measure a standard star in a sky-subtracted frame that was not resampled.

    Parameters
    ----------
    frame : AstroData
        With a catalogue of sources, a WCS, and variances. In electrons.
    star : Standard
    factor : float
        Radius of the aperture in FWHM.
    search : float
        How far the star may be from where the WCS puts it, arcsec.
    """
    ext, time = frame[0], frame.ut_datetime()
    base = Measurement(raw_name(frame), star.label, time=time)
    if frame.is_in_adu():
        return replace(base, reason="its pixels are in ADU, not in electrons")
    exposure, airmass = frame.exposure_time(), frame.airmass()
    if not exposure or airmass is None:
        return replace(base, reason="its header lacks exposure time or airmass")
    base = replace(base, exposure=float(exposure), airmass=float(airmass))
    found = locate(frame, star, search)
    if isinstance(found, str):
        return replace(base, reason=found)
    x, y, fwhm = found
    base = replace(base, x=x, y=y, fwhm=fwhm)
    data, flags = ext.read("data"), ext.read("mask")
    mask = np.zeros(data.shape, np.uint16) if flags is None else flags
    peak = mask[_near(data.shape, x, y, _PEAK * fwhm)]
    peak = peak[(peak & DQ.bad_pixel) == 0]
    if np.any(peak & _BEYOND):
        kind = "saturated" if np.any(peak & DQ.saturated) else "beyond the linear range"
        return replace(base, reason=f"{star.label} is {kind}")
    bad = ((mask & (FAIL | DQ.non_linear)) != 0) | ~np.isfinite(data)
    if np.count_nonzero(bad[_near(data.shape, x, y, 0.5 * fwhm)]) > _FEW:
        return replace(base, reason=f"{star.label} is on bad pixels or a cosmic ray")
    try:
        measured = star_sum(data, bad, x, y, fwhm=fwhm, factor=factor)
    except InputError as error:
        return replace(base, reason=f"{star.label}: {error}")
    if not measured.flux > 0:
        return replace(base, reason=f"{star.label} has no positive flux")
    variance = float(ext.aperture_variance(x, y, measured.radius))
    return replace(
        base,
        star=measured,
        variance=variance + (measured.area * measured.sky_error) ** 2,
        neighbours=_neighbours(frame, x, y, fwhm, measured),
    )


def _neighbours(frame: AstroData, x: float, y: float, fwhm: float, star: StarSum) -> float:
    """Return the light of other sources in the aperture of a star, as a part of the star's."""
    listed = sources(frame)
    distance = np.hypot(listed.x - x, listed.y - y)
    beside = (distance > 0.5 * fwhm) & (distance < star.radius) & (listed.flux > _NEIGHBOUR * star.flux)
    light = float(np.sum(listed.flux[beside]))
    return light / max(star.flux - light, light)


def locate(frame: AstroData, star: Standard, search: float) -> tuple[float, float, float] | str:
    """Return position (0-based) and FWHM of a standard in a frame, or in words why it is not found.

    It is the source within `search` that deviates least from position and expected brightness together.
    """
    ext, listed = frame[0], sources(frame)
    scale = ext.pixel_scale()
    if ext.sky_mapping is None or scale is None:
        return "the frame has no WCS"
    where = _in_field(frame, star, search)
    if where is None:
        return f"{star.label} is outside the field"
    (px, py), (ny, nx) = where, ext.shape
    doubt = star.position(frame.ut_datetime())[2]
    distance = scale * np.hypot(listed.x - px, listed.y - py)
    expected = _expected_flux(frame, star)
    with np.errstate(divide="ignore", invalid="ignore"):
        fainter = -2.5 * np.log10(listed.flux / expected)
    usable = (distance <= search + doubt) & (listed.flux > 0)
    if np.isfinite(expected):
        usable &= fainter < _FAINT
        score = (distance / _DISTANCE) ** 2 + (fainter / _MAGNITUDES) ** 2
    else:
        brightest = listed.flux[usable].max(initial=1.0)
        score = (distance / _DISTANCE) ** 2 + (
            2.5 * np.log10(brightest / np.fmax(listed.flux, 1e-3)) / _MAGNITUDES
        ) ** 2
    if not usable.any():
        within = "" if 0 <= px < nx and 0 <= py < ny else ", where the frame hardly reaches"
        return f"no source bright enough for {star.label} within {search:g} arcsec of its position{within}"
    order = np.flatnonzero(usable)[np.argsort(score[usable], kind="stable")]
    if len(order) > 1 and score[order[1]] - score[order[0]] < _UNCLEAR:
        a, b = order[:2]
        return (
            f"two candidates for {star.label}: at ({listed.x[a] + 1:.0f}, {listed.y[a] + 1:.0f}) and "
            f"({listed.x[b] + 1:.0f}, {listed.y[b] + 1:.0f})"
        )
    best = int(order[0])
    width = float(np.asarray(ext.columns("OBJCAT")["FWHM_IMAGE"], float)[best])
    return float(listed.x[best]), float(listed.y[best]), width if 1 < width < 60 else float(listed.fwhm)


def _in_field(frame: AstroData, star: Standard, search: float) -> tuple[float, float] | None:
    """Return where a standard is in a frame by its WCS (x, y, 0-based); None outside of the field."""
    scale, mapping = frame[0].pixel_scale(), frame[0].sky_mapping
    if mapping is None or scale is None:
        return None
    ra, dec, doubt = star.position(frame.ut_datetime())
    x, y = (float(v) for v in np.ravel(mapping.all_world2pix(np.array([ra]), np.array([dec]), 0)))
    (ny, nx), margin = frame[0].shape, (search + doubt) / scale
    return (x, y) if -margin < x < nx + margin and -margin < y < ny + margin else None


def _expected_flux(frame: AstroData, star: Standard) -> float:
    """Return the flux (electrons) that a standard has by the nominal zero point; NaN if that is not known."""
    nominal, band = frame[0].nominal_photometric_zeropoint(), standard_band(frame.filter_name(pretty=True))
    if nominal is None or band is None or band.band not in star.magnitudes:
        return math.nan
    return float(frame.exposure_time()) * 10 ** (0.4 * (nominal - star.magnitudes[band.band][0]))


def _near(shape: tuple[int, ...], x: float, y: float, radius: float) -> tuple[Any, Any]:
    """Return the pixels within a radius, as arrays of rows and columns."""
    ny, nx = shape
    reach = math.ceil(max(radius, 1.0))
    rows = np.arange(max(round(y) - reach, 0), min(round(y) + reach + 1, ny))
    columns = np.arange(max(round(x) - reach, 0), min(round(x) + reach + 1, nx))
    yy, xx = np.meshgrid(rows, columns, indexing="ij")
    inside = np.hypot(xx - x, yy - y) <= max(radius, 1.0)
    return yy[inside], xx[inside]
