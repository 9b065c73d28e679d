"""How good products are: image size, sky, depth, alignment, frames used, flagged pixels, zero point.

Everything comes from the products themselves, so that stored ones can be looked at in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from niripipe import astrodata
from niripipe.algorithms.quality import measure_image_quality
from niripipe.astrodata import DQ, AstroData
from niripipe.errors import DataError

if TYPE_CHECKING:
    from astropy.table import QTable

__all__ = ["COLUMNS", "DIGITS", "measure_product", "quality_table"]

COLUMNS: dict[str, tuple[str, str]] = {
    "product": ("", "file name"),
    "kind": ("", "image, flat, dark, BPM"),
    "object": ("", "target"),
    "filter": ("", ""),
    "frames_used": ("", "frames in the product"),
    "frames_given": ("", "frames that were meant for it"),
    "exposure": ("s", "exposure time of all frames together"),
    "fwhm": ("arcsec", "mean FWHM of the good stars"),
    "ellipticity": ("", "their mean 1 - b / a"),
    "stars": ("", "number of good stars"),
    "sky_level": ("electron", "median level of the sky in the exposure of a frame"),
    "sky_drift": ("electron / h", "its change, a straight line through the frames"),
    "depth": ("electron", "flux of a point source at 5 sigma"),
    "depth_mag": ("mag", "the same as a magnitude"),
    "alignment": ("pix", "median scatter of the sources of a frame about those of its reference"),
    "alignment_max": ("pix", "the same, of the worst frame"),
    "flagged": ("percent", "pixels that are unusable"),
    "zero_point": ("mag", "magnitude of 1 electron / s at airmass 1"),
    "zero_point_error": ("mag", ""),
}
"""Columns with their units and what they mean."""

DIGITS = {
    "exposure": ".1f", "fwhm": ".3f", "ellipticity": ".3f", "sky_level": ".1f", "sky_drift": ".0f",
    "depth": ".0f", "depth_mag": ".2f", "alignment": ".3f", "alignment_max": ".3f", "flagged": ".2f",
    "zero_point": ".3f", "zero_point_error": ".3f",
}  # fmt: skip
"""Formats in which columns are shown; the table has all digits."""

_NUMBERS = ("frames_used", "frames_given", "stars")
_TEXTS = ("product", "kind", "object", "filter")

_SIGNIFICANCE = 5.0
_APERTURES = 60
"""Blank apertures whose noise is averaged: the median of so many is good to 2 % where noise is even."""
_TRIES = 2000
_SEED = 20160102
_LEAST_RADIUS = 1.0
"""Radius of the smallest aperture, pixels."""


def quality_table(products: Iterable[AstroData | str | PathLike[str]]) -> QTable:
    """Return how good products are, one a row.

    Parameters
    ----------
    products : iterable of AstroData and paths
        Of niripipe. They are not changed.

    Returns
    -------
    astropy.table.QTable
        Columns; a value that is not known or means nothing is NaN, or masked if it is a number of frames or
        stars:

        * ``product``, ``kind`` (image, flat, dark, BPM), ``object``, ``filter``;
        * ``frames_used``, ``frames_given``: NCOMBINE and NFRAMES;
        * ``exposure`` (s): of all frames together;
        * ``fwhm`` (arcsec), ``ellipticity``, ``stars``: of the good stars of OBJCAT, chosen as `measureIQ`
          does; without them the FWHM is the median of the table STACKING;
        * ``sky_level`` (electron) and ``sky_drift`` (electron / h): of the sky that was subtracted from the
          frames, from STACKING;
        * ``depth`` (electron): flux of a point source of 5 sigma, in the exposure of one frame as the pixels,
          and ``depth_mag`` where a zero point is known;
        * ``alignment``, ``alignment_max`` (pix): scatter of matched sources, from ALIGNMENT;
        * ``flagged`` (percent): pixels with a bit of `DQ.fail`, or not 0 in a bad pixel mask;
        * ``zero_point``, ``zero_point_error`` (mag): ZP and ZPERR, else MEANZP and MEANZPER.

    Raises
    ------
    InputError, StorageError
        A file cannot be read.

    Notes
    -----
    Depth is 5 times the noise in a circle with a radius of one FWHM (`aperture_variance`, median of blank
    positions), over the share of the light of the good stars in such a circle (FLUX_AUTO is taken as all of
    it). A magnitude is ``ZPIMAGE - 2.5 log10(depth)``, or with PHOTZP; without either
    ``ZP - 2.5 log10(depth / EXPTIME)``, in which extinction above airmass 1 is not taken off.
    """
    from astropy import units
    from astropy.table import Column, MaskedColumn, QTable

    rows = [measure_product(astrodata.open(p) if isinstance(p, (str, PathLike)) else p) for p in products]
    table = QTable()
    for name, (unit, meaning) in COLUMNS.items():
        values = [row.get(name) for row in rows]
        if name in _TEXTS:
            table[name] = Column([value or "" for value in values], dtype=str)
        elif name in _NUMBERS:
            unknown = [value is None for value in values]
            table[name] = MaskedColumn([value or 0 for value in values], mask=unknown, dtype=int)
        else:
            numbers = np.array([math.nan if value is None else value for value in values], float)
            table[name] = numbers * units.Unit(unit)
        table[name].info.description = meaning
        if name in DIGITS:
            table[name].info.format = DIGITS[name]
    return table


def measure_product(ad: AstroData) -> dict[str, Any]:
    """Return what is known of a product, by column."""
    ext, phu = ad[0], ad.phu
    row: dict[str, Any] = {
        "product": Path(str(ad.filename)).name,
        "kind": _kind(ad.tags),
        "object": str(phu.get("OBJECT", "")),
        "filter": str(ad.filter_name(pretty=True) or ""),
        "frames_used": phu.get("NCOMBINE"),
        "frames_given": phu.get("NFRAMES", phu.get("NCOMBINE")),
        "exposure": _number(phu.get("TEXPTIME", phu.get("EXPTIME"))),
        "flagged": 100 * _flagged(ad),
    }
    if row["kind"] != "image":
        return row
    row |= _sky(ad) | _alignment(ad)
    radius, share = None, None
    image = _image_quality(ad)
    scale = ad.pixel_scale()
    if image is not None and scale:
        row |= {"fwhm": image.fwhm, "ellipticity": image.ellipticity, "stars": image.n}
        radius = max(image.fwhm / scale, _LEAST_RADIUS)
        share = _share_in_aperture(ext, image.stars, radius)
    elif "STACKING" in ad.tables and scale:
        row["fwhm"] = _number(_median(_column(ad, "STACKING", "FWHM")) * scale)
    row["zero_point"], row["zero_point_error"] = _zero_point(ad)
    if radius and share and not ad.is_in_adu():
        noise = _noise(ext, radius)
        if noise is not None:
            row["depth"] = _SIGNIFICANCE * noise / share
    here = _zero_point_here(ad, row["zero_point"])
    if here is not None and row.get("depth"):
        row["depth_mag"] = here - 2.5 * math.log10(row["depth"])
    return row


def _kind(tags: frozenset[str] | set[str]) -> str:
    for tag, kind in (("BPM", "BPM"), ("DARK", "dark"), ("FLAT", "flat")):
        if tag in tags:
            return kind
    return "image"


def _number(value: Any) -> float | None:
    """Return a finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _column(ad: AstroData, table: str, name: str) -> NDArray[np.float64]:
    """Return a column of a table, NaN where an older product or other software has none."""
    rows = ad.columns(table)
    return np.asarray(rows[name], float) if name in rows.dtype.names else np.full(len(rows), math.nan)


def _median(values: Any) -> float:
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    return float(np.median(known)) if known.size else math.nan


def _flagged(ad: AstroData) -> float:
    """Return the share of unusable pixels."""
    ext = ad[0]
    if "BPM" in ad.tags:
        return float(np.mean(ext.read("data") != 0))
    mask = ext.read("mask")
    bad = ~np.isfinite(ext.read("data")) if mask is None else mask & int(DQ.fail) != 0
    return float(np.mean(bad))


def _sky(ad: AstroData) -> dict[str, float | None]:
    """Return level and drift of the sky from what was subtracted from the frames."""
    if "STACKING" not in ad.tables:
        return {"sky_level": _number(ad[0].hdr.get("SKYLEVEL"))}
    level, hours = _column(ad, "STACKING", "SKY"), _column(ad, "STACKING", "MJD") * 24
    known = np.isfinite(level) & np.isfinite(hours)
    found = {"sky_level": _number(_median(level))}
    if np.count_nonzero(known) > 1 and np.ptp(hours[known]) > 0:
        found["sky_drift"] = float(np.polyfit(hours[known] - hours[known].mean(), level[known], 1)[0])
    return found


def _alignment(ad: AstroData) -> dict[str, float | None]:
    """Return the scatter of matched sources: of the median and of the worst frame."""
    if "ALIGNMENT" not in ad.tables:
        return {}
    rms = _column(ad, "ALIGNMENT", "RMS")
    # The reference has no scatter.
    rms = rms[np.isfinite(rms) & (rms > 0)]
    return {"alignment": _number(_median(rms)), "alignment_max": _number(rms.max()) if rms.size else None}


def _image_quality(ad: AstroData) -> Any:
    scale = ad.pixel_scale()
    if "OBJCAT" not in ad[0].exposed or scale is None:
        return None
    try:
        return measure_image_quality(
            ad[0].OBJCAT, pixel_scale=scale, airmass=None, adaptive_optics=bool(ad.is_ao())
        )
    except DataError:
        # A catalogue of other software.
        return None


def _share_in_aperture(ext: Any, stars: NDArray[np.bool_], radius: float) -> float | None:
    """Return the share of the light of stars in a circle: the median."""
    import sep

    rows = ext.OBJCAT[stars]
    data = np.ascontiguousarray(ext.read("data"), np.float32)
    x, y = (np.asarray(rows[name], float) - 1 for name in ("X_IMAGE", "Y_IMAGE"))
    flux = np.asarray(rows["FLUX_AUTO"], float)
    if "BACKGROUND" in rows.colnames:
        level = np.nan_to_num(np.asarray(rows["BACKGROUND"], float))
    else:
        level = np.zeros(len(x))
    mask = ext.read("mask")
    bad = ~np.isfinite(data) if mask is None else (mask & int(DQ.fail) != 0) | ~np.isfinite(data)
    sums, _, _ = sep.sum_circle(np.where(bad, 0, data), x, y, radius, mask=bad)
    shares = (sums - level * math.pi * radius**2) / flux
    share = _median(shares[(flux > 0) & (shares > 0)])
    return min(share, 1.0) if math.isfinite(share) else None


def _noise(ext: Any, radius: float) -> float | None:
    """Return the noise of a circle where nothing is seen, the median; None without variances."""
    if ext.read("variance") is None:
        return None
    mask, objects = ext.read("mask"), ext.read("OBJMASK")
    used = np.zeros(ext.shape, bool)
    if mask is not None:
        used |= mask & int(DQ.fail) != 0
    if objects is not None:
        used |= objects != 0
    ny, nx = ext.shape
    edge = math.ceil(radius) + 1
    if min(ny, nx) <= 2 * edge:
        return None
    rng = np.random.default_rng(_SEED)
    x, y = rng.integers(edge, nx - edge, _TRIES), rng.integers(edge, ny - edge, _TRIES)
    free = np.flatnonzero(~used[y, x])[:_APERTURES]
    if not free.size:
        return None
    variances = ext.aperture_variance(x[free].astype(float), y[free].astype(float), radius)
    variances = variances[np.isfinite(variances) & (variances > 0)]
    return math.sqrt(float(np.median(variances))) if variances.size else None


def _zero_point(ad: AstroData) -> tuple[float | None, float | None]:
    for value, error in (("ZP", "ZPERR"), ("MEANZP", "MEANZPER")):
        for header in (ad[0].hdr, ad.phu):
            found = _number(header.get(value))
            if found is not None:
                return found, _number(header.get(error))
    return None, None


def _zero_point_here(ad: AstroData, zero_point: float | None) -> float | None:
    """Return the magnitude of one electron in an image, with its exposure time, airmass where it is known."""
    for header, key in ((ad.phu, "ZPIMAGE"), (ad[0].hdr, "PHOTZP")):
        found = _number(header.get(key))
        if found is not None:
            return found
    exposure = _number(ad.exposure_time())
    return None if zero_point is None or not exposure else zero_point + 2.5 * math.log10(exposure)
