"""OBJCAT with units, and its magnitudes once there is a zero point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from niripipe.astrodata import FAIL, AstroData
from niripipe.astrodata.quiet import filters_kept
from niripipe.errors import InputError
from niripipe.photometry.apertures import circle_sums, is_available, local_sky, star_sum
from niripipe.photometry.corrections import Correction, correction_of_stars, isolated
from niripipe.photometry.zeropoint import POGSON
from niripipe.primitives.objcat import sources, unit_of

__all__ = ["calibrate_catalogue", "radius_name", "typical_width"]

Floats = NDArray[np.float64]

_BRIGHT: Final = 50.0
"""Stars of this S/N give the aperture corrections."""

_LEAST_SNR: Final = 15.0
"""Sources of this S/N tell the FWHM of stars."""

_WIDTH_ERROR: Final = 0.03
"""How well the FWHM of a stack without bright stars is known, as a part of it."""

_STARLIKE: Final = 0.15
"""Stars differ in FWHM from the typical one by less than this part."""

_REACH: Final = 2.5
"""Stars of the field tell the light within so many FWHM; from there to the aperture of the zero point the
curve of growth of the standard does. Large circles hold too much residual sky around all but the brightest
stars, and a seeing that differs by 3 per cent changes the light beyond by 0.002 mag."""

_MOST: Final = 60
"""So many of the brightest stars give them; more add nothing."""

_BLANK: Final = 200
"""Positions without sources at which the depth is computed."""

_NO_MAGNITUDE: Final = 99.0
"""MAG_AUTO and MAGERR_AUTO of a source without positive flux, as SExtractor has it. New columns have NaN."""


def radius_name(radius: float) -> str:
    """Return a radius as it is in the names of columns: 3 for 3.0, 2P5 for 2.5."""
    return f"{radius:g}".replace(".", "P")


def calibrate_catalogue(frame: AstroData, radii: Sequence[float], standard: AstroData) -> list[str]:
    """Give OBJCAT magnitudes, with units, by the zero point in the header; return warnings.

    Parameters
    ----------
    frame : AstroData
        A stack with the keywords of a zero point.
    radii : sequence of float
        Of the apertures, pixels.
    standard : AstroData
        Its curve of growth (GROWTH), which a calibrated stack has too, helps where the field has too few
        bright stars.
    """
    from astropy.table import Table

    ext = frame[0]
    if "OBJCAT" not in ext.exposed:
        return ["there is no catalogue, and no magnitudes: run detectSources first"]
    with filters_kept():
        table = Table(ext.OBJCAT, copy=True)
    warnings = _add_magnitudes(frame, table, radii, standard)
    table.meta["ZPSYSTEM"] = str(frame.phu["ZPSYSTEM"])
    with filters_kept():
        for name in table.colnames:
            table[name].unit = unit_of(name, "electron") or None
    ext.OBJCAT = table
    return warnings


def _add_magnitudes(frame: AstroData, table: Any, radii: Sequence[float], standard: AstroData) -> list[str]:
    ext, zero_point = frame[0], float(frame.phu["ZPIMAGE"])
    for key in [key for key in ext.hdr if str(key).startswith(("APCOR", "APCE", "DEPTH"))]:
        ext.hdr.remove(key, ignore_missing=True)
    kron, kron_error = (np.asarray(table[name], float) for name in ("FLUX_AUTO", "FLUXERR_AUTO"))
    if not is_available() or not len(table):
        _set_kron(table, kron, kron_error, zero_point)
        if not len(table):
            return ["the catalogue has no source"]
        return [
            "no aperture magnitudes and no aperture corrections: photutils is not installed "
            '(pip install "niripipe[photometry]")'
        ]
    x, y = (np.asarray(table[name], float) - 1 for name in ("XWIN_IMAGE", "YWIN_IMAGE"))
    trailed = "MOVSTARS" in frame.phu
    fwhm = _width(frame, table, trailed=trailed)
    growth, factor = _growth(standard), float(frame.phu["ZPAPER"])
    reach = factor if growth is None else min(factor, _REACH)
    stars = np.zeros(0, np.intp) if trailed else _stars(frame, table, x, y, fwhm, reach * fwhm)
    sky = _Sky.beside(frame, table, x, y, fwhm)
    measured = {radius: _measured(frame, x, y, radius, sky) for radius in radii}
    whole, whole_error = _whole(frame, x[stars], y[stars], fwhm, reach)
    warnings = []
    if trailed:
        warnings.append("the stack follows a moving target: its stars tell nothing about apertures")
    beyond = 10 ** (0.4 * float(frame.phu.get("ZPAPCOR", 0.0)))
    if growth is not None and reach < factor:
        beyond_reach = beyond * _share(growth, factor) / _share(growth, reach)
    else:
        beyond_reach = beyond
    sources_of: set[str] = set()
    for radius, (flux, error) in measured.items():
        name = radius_name(radius)
        found = correction_of_stars(flux[stars], whole, error[stars], whole_error)
        of_standard = "none" if growth is None else "curve of growth of the standard"
        sources_of.add("stars of the field" if found else of_standard)
        found = _times(found, beyond_reach) if found else _times(_from_growth(growth, radius / fwhm), beyond)
        _record(ext.hdr, name, found, radius)
        with np.errstate(divide="ignore", invalid="ignore"):
            magnitude = zero_point - 2.5 * np.log10(np.where(flux > 0, flux * found.factor, np.nan))
            shared = np.hypot(found.scatter, found.error / found.factor)
            relative = np.hypot(error / flux, shared)
            magnitude_error = np.where(flux > 0, POGSON * relative, np.nan)
        columns = {
            "FLUX_APER": flux, "FLUXERR_APER": error, "MAG_APER": magnitude, "MAGERR_APER": magnitude_error
        }  # fmt: skip
        for column, values in columns.items():
            table[f"{column}_{name}"] = values
    # Kron apertures of bright stars: their light in the aperture of the zero point over that in their own.
    found = correction_of_stars(kron[stars], whole, np.zeros(len(stars)), whole_error)
    if found is None:
        warnings.append(
            "too few bright stars for corrections from apertures to all light: those of the apertures "
            f"{'have none' if growth is None else 'come from the standard'}, and Kron magnitudes have none"
        )
    kron_correction = _times(found, beyond_reach) if found else Correction(1.0, 0.0, 0)
    _record(ext.hdr, "AUTO", kron_correction, None)
    _set_kron(table, kron * kron_correction.factor, kron_error * kron_correction.factor, zero_point)
    ext.hdr.set("APCORSRC", "; ".join(sorted(sources_of)), "Where the corrections come from")
    _record_depth(frame, radii, zero_point)
    return warnings


def _width(frame: AstroData, table: Any, *, trailed: bool) -> float:
    """Return the FWHM of the stars, pixels; where they are trailed, that of the frames of the stack."""
    if trailed and "STACKING" in frame.tables:
        known = np.asarray(frame.columns("STACKING")["FWHM"], float)
        if np.isfinite(known).any():
            return float(np.nanmedian(known))
    listed = sources(frame)
    snr = np.where(listed.suspect, 0.0, listed.flux / listed.flux_error)
    width = typical_width(np.asarray(table["FWHM_IMAGE"], float), snr)
    return width if np.isfinite(width) and width > 1 else listed.fwhm


def typical_width(width: Floats, snr: Floats) -> float:
    """Return the median of the widths of sources, weighted by their S/N; NaN without one of S/N 15.

    Noise widens faint sources: at S/N 20 by a tenth, by which the share of the light in a small aperture
    changes as much.
    """
    bright = np.flatnonzero(np.isfinite(width) & (snr >= _LEAST_SNR))
    if not bright.size:
        return float("nan")
    order = bright[np.argsort(width[bright])]
    total = np.cumsum(snr[order])
    return float(width[order[np.searchsorted(total, total[-1] / 2)]])


def _stars(
    frame: AstroData, table: Any, x: Floats, y: Floats, fwhm: float, reference: float
) -> NDArray[np.intp]:
    """Return the rows of bright, unblemished stars that stand alone, the brightest first."""
    listed = sources(frame)
    width = np.asarray(table["FWHM_IMAGE"], float)
    good = ~listed.suspect & (listed.flux > _BRIGHT * listed.flux_error) & (np.asarray(table["FLAGS"]) == 0)
    good &= np.abs(width / fwhm - 1) < _STARLIKE
    good &= isolated(x, y, listed.flux.astype(float), reference + 2 * fwhm)
    chosen = np.flatnonzero(good)
    return chosen[np.argsort(-listed.flux[chosen], kind="stable")][:_MOST]


@dataclass(frozen=True, slots=True)
class _Sky:
    """The sky beside the sources of a catalogue.

    Attributes
    ----------
    level, number : ndarray of float64, shape (n,)
        Level, and the pixels from which it is known; 0 where it is that of the map of the background.
    """

    level: Floats
    number: Floats

    @classmethod
    def beside(cls, frame: AstroData, table: Any, x: Floats, y: Floats, fwhm: float) -> _Sky:
        ext = frame[0]
        level, number = local_sky(ext.read("data"), _hidden(frame, objects=True), x, y, fwhm)
        mapped = np.asarray(table["BACKGROUND"], float)
        return cls(np.where(number > 0, level, mapped), number)

    def variance(self, area: float, variance_of_area: Floats) -> Floats:
        """Return what the error of the level adds to the variance of a sum over an area without sources."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.number > 0, variance_of_area * area / self.number, 0.0)


def _hidden(frame: AstroData, *, objects: bool) -> NDArray[np.bool_]:
    """Return the pixels without a usable value, and those of sources."""
    ext = frame[0]
    mask, found = ext.read("mask"), ext.read("OBJMASK") if objects else None
    hidden = ~np.isfinite(ext.read("data"))
    if mask is not None:
        hidden |= (mask & FAIL) != 0
    if found is not None:
        hidden |= found != 0
    return np.asarray(hidden, bool)


def _measured(frame: AstroData, x: Floats, y: Floats, radius: float, sky: _Sky) -> tuple[Floats, Floats]:
    """Return fluxes in circles less the sky beside them, and their errors."""
    ext, area = frame[0], np.pi * radius**2
    data = ext.read("data")
    flux = circle_sums(data if np.isfinite(data).all() else np.nan_to_num(data), x, y, radius)
    flux -= sky.level * area
    variance = np.asarray(ext.aperture_variance(x, y, radius), float)
    return flux, np.sqrt(variance + sky.variance(area, _blank_variance(frame, radius)))


def _blank_variance(frame: AstroData, radius: float) -> Floats:
    """Return the variance of a sum over a circle without a source: the typical one of the image."""
    columns, rows = _blank_positions(frame, radius)
    if not len(rows):
        return np.zeros(1)
    values = np.asarray(frame[0].aperture_variance(columns, rows, radius), float)
    return np.atleast_1d(np.nanmedian(values))


def _whole(frame: AstroData, x: Floats, y: Floats, fwhm: float, factor: float) -> tuple[Floats, Floats]:
    """Return the light of stars within so many FWHM, measured as that of standards, and its error."""
    ext = frame[0]
    data, hidden = ext.read("data"), _hidden(frame, objects=False)
    flux, error = np.full(len(x), np.nan), np.full(len(x), np.nan)
    for k in range(len(x)):
        try:
            found = star_sum(data, hidden, float(x[k]), float(y[k]), fwhm=fwhm, factor=factor)
        except InputError:  # at the edge
            continue
        variance = float(ext.aperture_variance(x[k], y[k], found.radius))
        flux[k], error[k] = found.flux, np.sqrt(variance + (found.area * found.sky_error) ** 2)
    return flux, error


def _growth(standard: AstroData) -> tuple[Floats, Floats] | None:
    """Return the curve of growth of a processed standard: radii in FWHM, and shares of the light."""
    if "GROWTH" not in standard.tables:
        return None
    rows = standard.columns("GROWTH")
    return np.asarray(rows["RADIUS"], float), np.asarray(rows["SHARE"], float)


def _from_growth(growth: tuple[Floats, Floats] | None, radius: float) -> Correction:
    if growth is None:
        return Correction(1.0, 0.0, 0)
    share = _share(growth, radius)
    wider = _share(growth, radius / (1 + _WIDTH_ERROR))
    return Correction(1 / max(share, 1e-3), abs(share - wider) / max(share, 1e-3) ** 2, 0)


def _share(growth: tuple[Floats, Floats], radius: float) -> float:
    """Return the share of the light within a radius (FWHM); straight lines between points would lose 2 %."""
    from scipy.interpolate import CubicSpline

    radii, shares = growth
    # In the core the share grows with the area.
    area, share = np.append(0.0, radii**2), np.append(0.0, shares)
    return float(CubicSpline(area, share)(min(radius, radii[-1]) ** 2))


def _times(correction: Correction, factor: float) -> Correction:
    return replace(correction, factor=correction.factor * factor, error=correction.error * factor)


def _record(hdr: Any, name: str, found: Correction, radius: float | None) -> None:
    shown = "Kron" if radius is None else f"{radius:g} pixels"
    hdr.set(
        f"APCOR{name}"[:8], round(-2.5 * np.log10(found.factor), 5), f"Aperture correction, {shown} (mag)"
    )
    error = POGSON * found.error / found.factor
    hdr.set(f"APCE{name}"[:8], round(float(error), 5), f"Its error, from {found.stars} stars (mag)")


def _set_kron(table: Any, flux: Floats, error: Floats, zero_point: float) -> None:
    positive = flux > 0
    safe = np.where(positive, flux, 1.0)
    table["MAG_AUTO"] = np.where(positive, zero_point - 2.5 * np.log10(safe), _NO_MAGNITUDE).astype(
        np.float32
    )
    table["MAGERR_AUTO"] = np.where(positive, POGSON * error / safe, _NO_MAGNITUDE).astype(np.float32)


def _blank_positions(frame: AstroData, radius: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return positions (x, y) without sources, where most frames contribute."""
    ext = frame[0]
    blank, coverage = ~_hidden(frame, objects=True), ext.read("COVERAGE")
    if coverage is not None:
        blank &= coverage >= np.median(coverage)
    margin = int(np.ceil(radius)) + 1
    blank[:margin], blank[-margin:], blank[:, :margin], blank[:, -margin:] = False, False, False, False
    rows, columns = np.nonzero(blank)
    chosen = np.unique(np.linspace(0, rows.size - 1, min(_BLANK, rows.size)).astype(int))
    return columns[chosen], rows[chosen]


def _record_depth(frame: AstroData, radii: Sequence[float], zero_point: float) -> None:
    """Write the magnitude of a star of 5 sigma, in the aperture in which that is faintest."""
    ext = frame[0]
    best: tuple[float, float] | None = None
    for radius in radii:
        noise = float(np.sqrt(_blank_variance(frame, radius)[0]))
        correction = float(ext.hdr.get(f"APCOR{radius_name(radius)}"[:8], 0.0))
        depth = zero_point - 2.5 * np.log10(5 * noise) + correction
        if noise > 0 and np.isfinite(depth) and (best is None or depth > best[0]):
            best = float(depth), radius
    if best is not None:
        ext.hdr.set("DEPTH5", round(best[0], 3), "Magnitude of a star of 5 sigma")
        ext.hdr.set("DEPTHRAD", best[1], "In an aperture of this radius (pixels)")
