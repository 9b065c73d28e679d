"""The catalogue of a frame's sources: its columns, world coordinates, and the likeness to stars.

The columns are those of the OBJCAT tables of DRAGONS, and windowed positions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Float32, Floats
from niripipe.algorithms.bits import SATURATED

__all__ = ["CATALOGUE", "MISSING", "Catalogue", "add_world_columns", "new_catalogue", "star_likeness"]

Catalogue = NDArray[np.void]
PixelToWorld = Callable[[Floats, Floats], tuple[Floats, Floats]]

MISSING = -999.0
"""Value of a measurement that was not possible."""

CATALOGUE = np.dtype(
    [
        ("NUMBER", "i4"), ("X_IMAGE", "f4"), ("Y_IMAGE", "f4"),
        ("ERRX2_IMAGE", "f8"), ("ERRY2_IMAGE", "f8"), ("ERRXY_IMAGE", "f8"),
        ("X_WORLD", "f8"), ("Y_WORLD", "f8"),
        ("ERRX2_WORLD", "f8"), ("ERRY2_WORLD", "f8"), ("ERRXY_WORLD", "f8"),
        ("A_IMAGE", "f4"), ("B_IMAGE", "f4"), ("THETA_IMAGE", "f4"),
        ("ERRA_IMAGE", "f4"), ("ERRB_IMAGE", "f4"), ("ERRTHETA_IMAGE", "f4"),
        ("A_WORLD", "f4"), ("B_WORLD", "f4"), ("THETA_WORLD", "f4"),
        ("ERRA_WORLD", "f4"), ("ERRB_WORLD", "f4"), ("ERRTHETA_WORLD", "f4"),
        ("FWHM_IMAGE", "f4"), ("FWHM_WORLD", "f4"), ("FLUX_RADIUS", "f4"), ("ELLIPTICITY", "f4"),
        ("FLUX_AUTO", "f4"), ("FLUXERR_AUTO", "f4"), ("MAG_AUTO", "f4"), ("MAGERR_AUTO", "f4"),
        ("FLUX_MAX", "f4"), ("CLASS_STAR", "f4"), ("ISOAREA_IMAGE", "i4"), ("FLAGS", "i2"),
        ("IMAFLAGS_ISO", "i4"), ("NIMAFLAGS_ISO", "i4"), ("BACKGROUND", "f4"),
        ("REF_NUMBER", "i4"), ("REF_MAG", "f4"), ("REF_MAG_ERR", "f4"),
        ("PROFILE_FWHM", "f4"), ("PROFILE_EE50", "f4"),
        ("XWIN_IMAGE", "f8"), ("YWIN_IMAGE", "f8"), ("ERRWIN_IMAGE", "f4"),
    ]
)  # fmt: skip
"""The 43 columns of DRAGONS, then windowed positions (1-based) and their error (rms per axis), pixels."""


def new_catalogue(objects: Any, flagged: NDArray[np.integer], union: NDArray[np.integer]) -> Catalogue:
    """Make a catalogue with the positions, shapes and flags of sources.

    Parameters
    ----------
    objects : structured ndarray, shape (n,)
        What ``sep.extract`` returns.
    flagged, union : ndarray of int, shape (n,)
        Number of flagged pixels of each source, and all of their flags.

    Returns
    -------
    structured ndarray of `CATALOGUE`, shape (n,)
        World coordinates are NaN, references -999, and what is not measured yet is 0.
    """
    out = np.zeros(len(objects), CATALOGUE)
    for name in CATALOGUE.names or ():
        if name.endswith("_WORLD"):
            out[name] = np.nan
    for name in ("REF_NUMBER", "REF_MAG", "REF_MAG_ERR"):
        out[name] = MISSING
    out["NUMBER"] = np.arange(1, len(objects) + 1)
    out["X_IMAGE"], out["Y_IMAGE"] = objects["x"] + 1, objects["y"] + 1
    error = objects["errx2"], objects["erry2"], objects["errxy"]
    out["ERRX2_IMAGE"], out["ERRY2_IMAGE"], out["ERRXY_IMAGE"] = error
    out["ERRA_IMAGE"], out["ERRB_IMAGE"], out["ERRTHETA_IMAGE"] = _axes(*error)
    out["A_IMAGE"], out["B_IMAGE"] = objects["a"], objects["b"]
    out["THETA_IMAGE"] = np.rad2deg(objects["theta"])
    out["ELLIPTICITY"] = 1 - objects["b"] / objects["a"]
    out["FLUX_MAX"] = objects["peak"]
    out["ISOAREA_IMAGE"] = objects["tnpix"]
    out["IMAFLAGS_ISO"], out["NIMAFLAGS_ISO"] = union, flagged
    # sep: 1 merged, 2 truncated, 4 deblending overflow. SExtractor: 2 blended, 4 saturated, 8 truncated, 64
    # overflow.
    flag = objects["flag"].astype(np.int16)
    out["FLAGS"] = (
        np.where(flag & 1, 2, 0)
        | np.where(flag & 2, 8, 0)
        | np.where(flag & 4, 64, 0)
        | np.where(union & SATURATED, 4, 0)
        | np.where(flagged > 0.1 * objects["tnpix"], 1, 0)
    )
    return out


def star_likeness(catalogue: Catalogue) -> tuple[Float32, float]:
    """Tell how much each source looks like a star, by its size.

    Parameters
    ----------
    catalogue : structured ndarray
        With the columns FWHM_IMAGE, FLUX_RADIUS, ELLIPTICITY, FLUX_AUTO, FLUXERR_AUTO, FLAGS and
        IMAFLAGS_ISO.

    Returns
    -------
    likeness : ndarray of float32, shape (n,)
        1 for a source as wide as the stars, falling to 0.5 where its width differs by 25 % plus its noise,
        towards 0 for galaxies, cosmic rays and blends. Of faint sources, whose width says little, it is
        near 0.5.
    fwhm : float
        The width of the stars, pixels: the mode of the widths of round, unblended sources with S/N > 25; NaN
        with fewer than three of them, or when they do not agree.

    Notes
    -----
    It stands in for SExtractor's neural network. Where no width of stars can be found the
    concentration decides: twice the half-light radius is 1.0 to 1.35 core widths for a star (normal to
    Moffat profile) and more for an exponential disc.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.where(catalogue["FLUXERR_AUTO"] > 0, catalogue["FLUX_AUTO"] / catalogue["FLUXERR_AUTO"], 0.0)
    width = catalogue["FWHM_IMAGE"].astype(np.float64)
    good = (
        (snr > 25)
        & (width > 1)
        & (catalogue["ELLIPTICITY"] < 0.5)
        & ((catalogue["FLAGS"] & ~1) == 0)
        & ((catalogue["IMAFLAGS_ISO"] & SATURATED) == 0)
    )
    stars = _mode(width[good])
    noise = 1.0 / np.maximum(snr, 1.0)
    if np.isfinite(stars):
        deviation = np.log(np.maximum(width, 0.1) / stars)
    else:
        deviation = np.log(np.maximum(2 * catalogue["FLUX_RADIUS"] / np.maximum(width, 0.1), 0.1) / 1.2)
        # A radius that was not measured is no evidence.
        deviation = np.nan_to_num(deviation, nan=0.0)
    scale = np.hypot(0.19, 2 * noise)
    likeness = np.exp(-0.5 * (deviation / scale) ** 2)
    # The lower the signal to noise, the closer to 0.5 (unknown).
    trust = 1 / (1 + (5 * noise) ** 2)
    likeness = trust * likeness + (1 - trust) * 0.5
    likeness[width <= 0] = 0.0
    return likeness.astype(np.float32), stars


def add_world_columns(catalogue: Catalogue, pix2world: PixelToWorld) -> Catalogue:
    """Fill the WORLD columns of a catalogue.

    Parameters
    ----------
    catalogue : structured ndarray of `CATALOGUE`
        Not modified.
    pix2world : callable
        Takes 0-based arrays x and y, returns longitude and latitude in degrees.

    Returns
    -------
    structured ndarray
        A copy. Positions and variances in degrees; axes in degrees; angles in degrees counter-clockwise
        from increasing longitude.
    """
    out = catalogue.copy()
    x, y = out["X_IMAGE"].astype(np.float64) - 1, out["Y_IMAGE"].astype(np.float64) - 1
    lon, lat = pix2world(x, y)
    out["X_WORLD"], out["Y_WORLD"] = lon, lat
    # Local linear map of pixels to degrees on the sky, by central differences over two pixels.
    jacobian = np.empty((len(out), 2, 2))
    for axis, (dx, dy) in enumerate(((1.0, 0.0), (0.0, 1.0))):
        (lon1, lat1), (lon0, lat0) = pix2world(x + dx, y + dy), pix2world(x - dx, y - dy)
        turn = (np.asarray(lon1) - np.asarray(lon0) + 180.0) % 360.0 - 180.0
        jacobian[:, 0, axis] = turn * np.cos(np.deg2rad(lat)) / 2
        jacobian[:, 1, axis] = (np.asarray(lat1) - np.asarray(lat0)) / 2
    scale = np.sqrt(np.abs(np.linalg.det(jacobian)))
    error = _transformed(jacobian, out["ERRX2_IMAGE"], out["ERRY2_IMAGE"], out["ERRXY_IMAGE"])
    out["ERRX2_WORLD"], out["ERRY2_WORLD"], out["ERRXY_WORLD"] = error
    out["ERRA_WORLD"], out["ERRB_WORLD"], out["ERRTHETA_WORLD"] = _axes(*error)
    angle = np.deg2rad(out["THETA_IMAGE"].astype(np.float64))
    a2, b2 = out["A_IMAGE"].astype(np.float64) ** 2, out["B_IMAGE"].astype(np.float64) ** 2
    cos, sin = np.cos(angle), np.sin(angle)
    moments = a2 * cos**2 + b2 * sin**2, a2 * sin**2 + b2 * cos**2, (a2 - b2) * cos * sin
    out["A_WORLD"], out["B_WORLD"], out["THETA_WORLD"] = _axes(*_transformed(jacobian, *moments))
    out["FWHM_WORLD"] = np.where(out["FWHM_IMAGE"] > 0, out["FWHM_IMAGE"] * scale, MISSING)
    return out


def _mode(width: Floats) -> float:
    """Return the median of the narrowest interval, in the logarithm, that holds half of the widths."""
    if width.size < 3:
        return float("nan")
    ordered = np.sort(np.log(width))
    half = (ordered.size + 1) // 2
    spans = ordered[half - 1 :] - ordered[: ordered.size - half + 1]
    start = int(np.argmin(spans))
    if spans[start] > 0.35:
        return float("nan")
    return float(np.exp(np.median(ordered[start : start + half])))


def _transformed(jacobian: Floats, xx: Floats, yy: Floats, xy: Floats) -> tuple[Floats, Floats, Floats]:
    """Return second moments after a linear map."""
    a, b, c, d = jacobian[:, 0, 0], jacobian[:, 0, 1], jacobian[:, 1, 0], jacobian[:, 1, 1]
    return (
        a * a * xx + 2 * a * b * xy + b * b * yy,
        c * c * xx + 2 * c * d * xy + d * d * yy,
        a * c * xx + (a * d + b * c) * xy + b * d * yy,
    )


def _axes(xx: Floats, yy: Floats, xy: Floats) -> tuple[Floats, Floats, Floats]:
    """Return axes and angle (degrees, from the first axis) of second moments."""
    mean, half = 0.5 * (xx + yy), 0.5 * (xx - yy)
    root = np.hypot(half, xy)
    angle = np.rad2deg(0.5 * np.arctan2(2 * xy, xx - yy))
    return np.sqrt(np.maximum(mean + root, 0)), np.sqrt(np.maximum(mean - root, 0)), angle
