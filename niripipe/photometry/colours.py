"""Colours: the sources of stacks in several filters in one catalogue, and a picture of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from niripipe import astrodata
from niripipe.algorithms.robust import robust_sigma
from niripipe.astrodata import DQ, FAIL, AstroData
from niripipe.astrodata.display import as_png
from niripipe.astrodata.fits_write import atomic_file
from niripipe.errors import DataError, InputError
from niripipe.logutils import get_logger

if TYPE_CHECKING:
    from astropy.table import QTable

__all__ = ["column_name", "match_catalogues", "pointing_offset", "rgb_picture"]

Floats = NDArray[np.float64]
Stack = AstroData | str | PathLike[str]

_SIGMA: Final = 5.0
"""Upper limits are those of sources with so many sigma."""

_POINTING: Final = 3.0
"""Stacks of one field differ in pointing by less, arcsec; NIRI's headers are good to a second of arc."""

_TIES: Final = 3
"""So many sources in common tell the difference in pointing of two stacks."""

log = get_logger(__name__)


def match_catalogues(stacks: Sequence[Stack], *, radius: float = 0.5, aperture: float = 6.0) -> QTable:
    """Return the sources of calibrated stacks of one field with their magnitudes in all filters.

    Parameters
    ----------
    stacks : sequence of AstroData or path-like
        Stacks with zero points and OBJCAT (`applyZeroPoint`), one a filter. The first is the reference.
    radius : float
        Largest distance of a source in two filters, arcsec.
    aperture : float
        Radius of the aperture of the magnitudes, pixels; one of `applyZeroPoint:radii`.

    Returns
    -------
    astropy.table.QTable
        ``ra``, ``dec`` (deg; of the first filter with the source), and for each filter:

        - ``J``, ``J_error`` (mag): NaN where the source is not in its catalogue;
        - ``J_limit`` (mag): where it is not, the magnitude of a star of 5 sigma there, NaN outside of the
          field and elsewhere;
        - ``J_flags``, ``J_dq``: its ``FLAGS`` and ``IMAFLAGS_ISO`` of OBJCAT, -1 where it is not in it.

        For each pair of filters, in the order of the stacks:

        - ``J_H``, ``J_H_error`` (mag): the difference where both are measured, and its random error;
        - ``J_H_min``, ``J_H_max`` (mag): where one is not, the colour that follows from its limit: it is
          larger than the one or smaller than the other. NaN elsewhere.

        ``meta`` has the system and ``J_zero_point_error`` for each filter, which all of its magnitudes share
        and the errors of columns do not hold, and ``J_offset``, the difference in pointing to the first stack
        that was taken out, (East, North) in arcsec: the median of the sources in common. With fewer than
        three of them it is (0, 0), with a warning.

    Raises
    ------
    InputError
        Fewer than two stacks, or two in one filter.
    DataError
        A stack has no zero point, or no magnitudes in the aperture.

    Notes
    -----
    Each magnitude is that of its stack's catalogue, not of images on one grid, whose noise is interpolated
    once more: same radius in every filter, around the position in that filter, with the aperture correction
    of the stack's own stars, which takes out differences in seeing. Errors and limits hold correlated noise
    (``NOISCORR``) and the residual sky, see `AstroData.aperture_variance`. Pixel scales or systems (Vega, AB)
    that differ between the stacks are warned of.

    Examples
    --------
    >>> table = match_catalogues(result.products("science"))   # doctest: +SKIP
    >>> table["J_H"]                                           # doctest: +SKIP
    """
    from astropy import units as u
    from astropy.table import QTable

    frames = [_opened(stack) for stack in stacks]
    names = [column_name(frame) for frame in frames]
    if len(frames) < 2 or len(set(names)) < len(names):
        raise InputError(
            "Colours need stacks in two filters at least, one each", item="stacks", found=", ".join(names)
        )
    _compare(frames, names)
    ra, dec = np.zeros(0), np.zeros(0)
    rows_of: list[NDArray[np.intp]] = []
    offsets = [pointing_offset(frame, frames[0], radius) for frame in frames]
    for frame, offset in zip(frames, offsets, strict=True):
        lon, lat = _positions(frame, offset)
        rows, new = _matched(ra, dec, lon, lat, radius)
        ra, dec = np.append(ra, lon[new]), np.append(dec, lat[new])
        rows_of.append(np.append(rows, new))
    table = QTable({"ra": ra * u.deg, "dec": dec * u.deg})
    column = f"APER_{aperture:g}".replace(".", "P")
    for frame, name, known, offset in zip(frames, names, rows_of, offsets, strict=True):
        # Sources that later filters added are not in this one.
        rows = np.append(known, np.full(len(ra) - len(known), -1))
        magnitude, error = (_taken(frame, f"{kind}_{column}", rows) for kind in ("MAG", "MAGERR"))
        table[name], table[f"{name}_error"] = magnitude * u.mag, error * u.mag
        limit = np.full(len(ra), np.nan)
        missing = ~np.isfinite(magnitude)
        limit[missing] = _limits(frame, ra[missing] + offset[0], dec[missing] + offset[1], aperture)
        table[f"{name}_limit"] = limit * u.mag
        for kind, source in (("flags", "FLAGS"), ("dq", "IMAFLAGS_ISO")):
            table[f"{name}_{kind}"] = _flags(frame, source, rows)
        table.meta[f"{name}_system"] = str(frame.phu["ZPSYSTEM"])
        table.meta[f"{name}_zero_point_error"] = float(frame.phu["ZPMAGERR"])
        east = offset[0] * np.cos(np.radians(dec[0] if len(dec) else 0.0))
        table.meta[f"{name}_offset"] = (float(3600 * east), float(3600 * offset[1]))
    for first, second in combinations(names, 2):
        _add_colour(table, first, second)
    return table


def rgb_picture(
    stacks: Sequence[Stack], path: str | PathLike[str] | None = None, *, stretch: float = 5.0, q: float = 8.0
) -> NDArray[np.uint8]:
    """Return a colour picture of three stacks on the grid of the first (Lupton et al. 2004, PASP 116, 133).

    Parameters
    ----------
    stacks : sequence of three AstroData or path-like
        Red, green and blue, for example K, H and J, with zero points: equal magnitudes are white.
    path : path-like, optional
        A file to be written, ``.png``. An older one is replaced when the new one is complete.
    stretch, q : float
        Linear stretch in units of the noise of a pixel, and softening, as in astropy's `make_lupton_rgb`.

    Differences in pointing between the stacks are taken out as in `match_catalogues`.

    Returns
    -------
    ndarray of uint8, shape (ny, nx, 3)
        The first row is the lowest. Pixels that a stack does not reach are without its colour.

    Raises
    ------
    InputError
        There are not three stacks, or the name of the file does not end with ``.png``.
    DataError
        A stack has no zero point or no WCS.
    StorageError
        The file cannot be written.
    """
    from astropy.visualization import make_lupton_rgb
    from reproject import reproject_interp

    frames = [_opened(stack) for stack in stacks]
    if len(frames) != 3:
        raise InputError("A colour picture is made of three stacks", item="stacks", found=len(frames))
    if path is not None and Path(path).suffix.lower() != ".png":
        raise InputError("The picture is a PNG file", item="path", found=path, expected="a name with .png")
    target, shape = frames[0][0].wcs, frames[0][0].shape
    planes = []
    for frame in frames:
        ext = frame[0]
        if ext.wcs is None:
            raise DataError("The stack has no WCS", file=frame.filename)
        data, mask = np.array(ext.read("data"), float), ext.read("mask")
        if mask is not None:
            data[(mask & DQ.no_data) != 0] = np.nan
        if frame is not frames[0]:
            mapping = ext.wcs.deepcopy()
            mapping.wcs.crval = np.asarray(mapping.wcs.crval) - pointing_offset(frame, frames[0])
            data = reproject_interp((data, mapping), target, shape_out=shape, return_footprint=False)
        planes.append(data * 10 ** (-0.4 * (float(frame.phu["ZPIMAGE"]) - 25.0)))
    noise = float(np.median([_noise(plane) for plane in planes]))
    # Nearly black where there is nothing: with no light at all in three colours astropy divides by zero.
    planes = [np.where(np.isfinite(plane), plane, -0.999 * noise) for plane in planes]
    # astropy's newer make_rgb (7.0, and not in the oldest version allowed) stretches each colour by itself:
    # bright stars would be white. This one keeps the colours.
    picture = np.asarray(make_lupton_rgb(*planes, minimum=-noise, stretch=stretch * noise, Q=q), np.uint8)
    if path is not None:
        with atomic_file(Path(path)) as file:
            file.write(as_png(picture[::-1]))
    return picture


def _opened(stack: Stack) -> AstroData:
    frame = stack if isinstance(stack, AstroData) else astrodata.open(stack)
    if "ZPIMAGE" not in frame.phu or "OBJCAT" not in frame[0].exposed:
        raise DataError(
            "The stack has no zero point or no catalogue", file=frame.filename, item="ZPIMAGE, OBJCAT",
            remedy="Reduce it with a standard of its night, see applyZeroPoint",
        )  # fmt: skip
    return frame


def column_name(frame: AstroData) -> str:
    """Return the name of a filter as it can be in the name of a column: Kshort for K(short)."""
    return re.sub(r"[^0-9A-Za-z]", "", str(frame.filter_name(pretty=True)))


def _positions(frame: AstroData, offset: Floats) -> tuple[Floats, Floats]:
    """Return right ascensions and declinations of the sources of a stack without an offset, degrees."""
    if "OBJCAT" not in frame[0].exposed:
        return np.zeros(0), np.zeros(0)
    lon, lat = (np.asarray(frame[0].OBJCAT[name], float) for name in ("X_WORLD", "Y_WORLD"))
    return lon - offset[0], lat - offset[1]


def pointing_offset(frame: AstroData, reference: AstroData, radius: float = 0.5) -> Floats:
    """Return by how much the sources of a stack lie beside those of another.

    Parameters
    ----------
    frame, reference : AstroData
        With OBJCAT; without one they have no sources.
    radius : float
        Largest distance of a source in both, arcsec, once the stacks lie on each other.

    Returns
    -------
    ndarray of float64, shape (2,)
        In right ascension and declination (degrees of the coordinates): to be subtracted from those of
        `frame`. Zeros, with a warning, where fewer than three sources are in common.
    """
    offset = np.zeros(2)
    if frame is reference:
        return offset
    ra, dec = _positions(reference, offset)
    for within in (_POINTING, radius):
        lon, lat = _positions(frame, offset)
        rows, _ = _matched(ra, dec, lon, lat, within)
        pairs = rows >= 0
        if pairs.sum() < _TIES:
            log.warning(
                "%s has too few sources in common with %s to compare their pointing: the headers count",
                frame.filename,
                reference.filename,
            )
            return np.zeros(2)
        aside = (((lon[rows] - ra)[pairs] + 180) % 360 - 180, (lat[rows] - dec)[pairs])
        offset = offset + [np.median(values) for values in aside]
    return offset


def _matched(
    ra: Floats, dec: Floats, lon: Floats, lat: Floats, radius: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return for each known source the row of its partner within a radius, or -1; and the other rows."""
    rows = np.full(len(ra), -1)
    new = np.ones(len(lon), bool)
    if len(ra) and len(lon):
        from astropy import units as u
        from astropy.coordinates import SkyCoord

        here, there = SkyCoord(ra * u.deg, dec * u.deg), SkyCoord(lon * u.deg, lat * u.deg)
        nearest, distance, _ = here.match_to_catalog_sky(there)
        back, _, _ = there.match_to_catalog_sky(here)
        # Only pairs that are each other's nearest.
        mutual = (distance.arcsec <= radius) & (back[nearest] == np.arange(len(ra)))
        rows[mutual] = nearest[mutual]
        new[rows[mutual]] = False
    return rows, np.flatnonzero(new)


def _compare(frames: Sequence[AstroData], names: Sequence[str]) -> None:
    """Warn where stacks are so different that their magnitudes are not quite comparable."""
    named = dict(zip(names, frames, strict=True))
    scales = {name: f"{float(frame.pixel_scale() or 0.0):.3f}" for name, frame in named.items()}
    systems = {name: str(frame.phu["ZPSYSTEM"]) for name, frame in named.items()}
    for found, what in (
        (scales, "pixel scales (arcsec): an aperture in pixels is not the same on the sky"),
        (systems, "systems of magnitudes: their differences are not colours of one system"),
    ):
        if len(set(found.values())) > 1:
            shown = ", ".join(f"{name} {value}" for name, value in found.items())
            log.warning("the stacks have different %s; %s", what, shown)


def _add_colour(table: QTable, first: str, second: str) -> None:
    """Add the columns of one colour to a table of magnitudes and limits."""
    colour = f"{first}_{second}"
    table[colour] = table[first] - table[second]
    table[f"{colour}_error"] = np.hypot(table[f"{first}_error"], table[f"{second}_error"])
    # Fainter than the limit in the first: redder than this; in the second: bluer.
    table[f"{colour}_min"] = table[f"{first}_limit"] - table[second]
    table[f"{colour}_max"] = table[first] - table[f"{second}_limit"]


def _flags(frame: AstroData, name: str, rows: NDArray[np.intp]) -> NDArray[np.int32]:
    values = np.asarray(frame[0].OBJCAT[name], np.int32)
    return np.where(rows >= 0, values[np.maximum(rows, 0)] if len(values) else -1, -1).astype(np.int32)


def _taken(frame: AstroData, name: str, rows: NDArray[np.intp]) -> Floats:
    table = frame[0].OBJCAT
    if name not in table.colnames:
        raise DataError(
            "The catalogue has no magnitudes in this aperture", file=frame.filename, item=name,
            expected=", ".join(column for column in table.colnames if column.startswith("MAG_APER")) or None,
        )  # fmt: skip
    values = np.asarray(table[name], float)
    return np.where(rows >= 0, values[np.maximum(rows, 0)] if len(values) else np.nan, np.nan)


def _limits(frame: AstroData, ra: Floats, dec: Floats, aperture: float) -> Floats:
    """Return the magnitudes of stars of 5 sigma at positions, NaN outside of the field."""
    ext = frame[0]
    if not len(ra):
        return np.zeros(0)
    x, y = (np.asarray(v, float) for v in ext.sky_mapping.all_world2pix(ra, dec, 0))
    ny, nx = ext.shape
    inside = (x > -0.5) & (y > -0.5) & (x < nx - 0.5) & (y < ny - 0.5)
    mask = ext.read("mask")
    if mask is not None:
        column, row = (np.clip(np.rint(v).astype(int), 0, size - 1) for v, size in ((x, nx), (y, ny)))
        inside &= (mask[row, column] & FAIL) == 0
    variance = np.full(len(x), np.nan)
    variance[inside] = ext.aperture_variance(x[inside], y[inside], aperture)
    name = f"APCOR{aperture:g}".replace(".", "P")[:8]
    correction = float(ext.hdr.get(name, 0.0))
    return np.asarray(float(frame.phu["ZPIMAGE"]) - 2.5 * np.log10(_SIGMA * np.sqrt(variance)) + correction)


def _noise(plane: Floats) -> float:
    used = plane[np.isfinite(plane)]
    return robust_sigma(used) if used.size else 1.0
