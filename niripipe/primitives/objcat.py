"""The sources of a frame, from its catalogue OBJCAT."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.register import Sources
from niripipe.algorithms.source_catalogue import CATALOGUE
from niripipe.astrodata import DQ, FAIL, AstroData, distortion_of

__all__ = [
    "column_units",
    "inside",
    "sources",
    "straight_sources",
    "typical_ellipticity",
    "unit_of",
    "update_world",
]

_TRUNCATED = 4 | 8 | 16
"""SExtractor's flags: saturated, truncated by the edge, aperture incomplete."""

_FEW_BAD = 0.01
"""A source with bad pixels in less than this part of its area keeps its position: they are filled in, and a
bright star covers thousands of pixels."""

_WIDTH_SNR, _WIDEST, _CROWD = 15.0, 20, 20
"""Widths are those of sources of at least this S/N, and of this many of the brightest. Without one of that
S/N, so many sources are a crowded field."""

_LEAST_MINOR = 1.0
"""Ellipticity is that of sources with at least this minor axis, rms in pixels: cosmic rays are thinner."""

_LEAST_FWHM = 2.0
"""Floor of the FWHM, pixels: a narrower source is a hit or undersampled."""


_UNIT_OF_ENDING = (
    ("X2_IMAGE", "pix2"), ("Y2_IMAGE", "pix2"), ("XY_IMAGE", "pix2"), ("ISOAREA_IMAGE", "pix2"),
    ("X2_WORLD", "deg2"), ("Y2_WORLD", "deg2"), ("XY_WORLD", "deg2"),
    ("THETA_IMAGE", "deg"), ("_WORLD", "deg"), ("_IMAGE", "pix"),
    ("FLUX_RADIUS", "pix"), ("PROFILE_FWHM", "pix"), ("PROFILE_EE50", "pix"),
)  # fmt: skip
"""Units of the columns of OBJCAT by how their names end; the first that fits counts."""


def unit_of(column: str, pixels: str) -> str:
    """Return the unit of a column of OBJCAT; empty if it has none.

    Parameters
    ----------
    column : str
        Name of the column.
    pixels : str
        Unit of the pixels (``BUNIT``), which fluxes and levels have.
    """
    if column.startswith("MAG") or "_MAG" in column:
        return "mag"
    for ending, unit in _UNIT_OF_ENDING:
        if column.endswith(ending):
            return unit
    return pixels if "FLUX" in column or column == "BACKGROUND" else ""


def column_units(frame: AstroData) -> dict[str, str]:
    """Return the units of the columns of a new OBJCAT that have one."""
    pixels = str(frame[0].hdr.get("BUNIT", "adu"))
    units = {name: unit_of(name, pixels) for name in CATALOGUE.names or ()}
    return {name: unit for name, unit in units.items() if unit}


def sources(frame: AstroData) -> Sources:
    """Return the sources of a frame, none if it has no catalogue.

    Positions are 0-based, the windowed ones where the catalogue has them. Sources that are saturated,
    truncated or have unusable pixels are suspect; a few bad pixels in a large source do not matter. The FWHM
    is the median of the brightest, 2 pixels at least. Where none is bright against the noise, in a crowded
    field, it is the lower quartile of all: blends are wider than stars.
    """
    ext = frame[0]
    if "OBJCAT" not in ext.exposed:
        none = np.zeros(0)
        return Sources(none, none, none, none, none, np.zeros(0, bool))
    table = ext.columns("OBJCAT")

    def column(name: str) -> NDArray[np.float64]:
        return np.asarray(table[name], float)

    if "XWIN_IMAGE" in table.dtype.names:
        x, y, error = column("XWIN_IMAGE"), column("YWIN_IMAGE"), column("ERRWIN_IMAGE")
    else:
        x, y = column("X_IMAGE"), column("Y_IMAGE")
        error = np.sqrt(0.5 * (column("ERRX2_IMAGE") + column("ERRY2_IMAGE")))
    flags, bits = np.asarray(table["FLAGS"], int), np.asarray(table["IMAFLAGS_ISO"], int)
    few = column("NIMAFLAGS_ISO") <= _FEW_BAD * column("ISOAREA_IMAGE")
    harmless = few & (bits & int(FAIL) == int(DQ.bad_pixel))
    suspect = (flags & _TRUNCATED != 0) | ((bits & int(FAIL) != 0) & ~harmless)
    flux, noise = column("FLUX_AUTO"), column("FLUXERR_AUTO")
    widths = column("FWHM_IMAGE")
    fwhm = typical_of_bright(widths, flux, noise, suspect)
    measured = widths[np.isfinite(widths) & (widths > 0)]
    if not np.isfinite(fwhm) and measured.size >= _CROWD:
        fwhm = float(np.percentile(measured, 25))
    return Sources(x - 1, y - 1, flux, noise, error, suspect, float(np.maximum(fwhm, _LEAST_FWHM)))


def straight_sources(frame: AstroData) -> Sources:
    """Return `sources` with their positions without the distortion in the frame's WCS."""
    listed, bent = sources(frame), distortion_of(frame[0].sky_mapping)
    if bent is None:
        return listed
    x, y = bent.undistort(listed.x, listed.y)
    return replace(listed, x=x, y=y)


def typical_of_bright(
    values: NDArray[Any], flux: NDArray[Any], noise: NDArray[Any], suspect: NDArray[np.bool_]
) -> float:
    """Return the median over the brightest sources; NaN if none is bright enough to measure."""
    usable = np.isfinite(values) & (values > 0) & (flux > _WIDTH_SNR * noise)
    if (usable & ~suspect).any():
        usable &= ~suspect
    chosen = np.flatnonzero(usable)
    chosen = chosen[np.argsort(-flux[chosen], kind="stable")][:_WIDEST]
    return float(np.median(values[chosen])) if chosen.size else float("nan")


def typical_ellipticity(frame: AstroData) -> float:
    """Return the median ellipticity of the brightest sources; NaN if none is bright enough to measure."""
    if "OBJCAT" not in frame[0].exposed:
        return float("nan")
    table = frame[0].columns("OBJCAT")
    names = ("ELLIPTICITY", "B_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO")
    values, minor, flux, noise = (np.asarray(table[name], float) for name in names)
    wide = minor >= _LEAST_MINOR
    return typical_of_bright(values[wide], flux[wide], noise[wide], np.zeros(int(wide.sum()), bool))


def update_world(frame: AstroData) -> None:
    """Compute the world positions in the catalogue, if there is one, from the frame's WCS."""
    ext = frame[0]
    if "OBJCAT" in ext.exposed and len(ext.columns("OBJCAT")):
        catalogue = ext.columns("OBJCAT")
        ra, dec = ext.sky_mapping.all_pix2world(catalogue["X_IMAGE"], catalogue["Y_IMAGE"], 1)
        ext.set_columns("OBJCAT", {"X_WORLD": ra, "Y_WORLD": dec})


def inside(frame: AstroData, x: NDArray[Any], y: NDArray[Any], margin: float) -> NDArray[np.bool_]:
    """Return which positions lie in a frame, more than ``margin`` pixels from its edges."""
    ny, nx = frame[0].shape
    return np.asarray((x > margin) & (x < nx - 1 - margin) & (y > margin) & (y < ny - 1 - margin))
