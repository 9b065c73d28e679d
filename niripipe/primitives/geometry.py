"""How the pixels of two frames correspond."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.affine import Affine, Transform, affine_approximation, around, corners_of
from niripipe.astrodata import AstroData, SkyMapping, distortion_of, undistorted
from niripipe.errors import DataError
from niripipe.instruments.tables import niri_tables

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = [
    "distorting",
    "equal_area",
    "exact_mapping",
    "is_distorted",
    "outline",
    "pixel_mapping",
    "quadrant_centre",
    "require_sky_mapping",
    "require_wcs",
    "sky_centre",
    "undistorting",
]

Floats = NDArray[np.floating[Any]]


def quadrant_centre(frame: AstroData) -> tuple[int, int] | None:
    """Return the first row and column of a frame beyond the middle of the detector, by its detector section.

    Parameters
    ----------
    frame : AstroData
        A frame as it was read out, or a part of it.

    Returns
    -------
    tuple of (int, int) or None
        May be outside of the frame. None where the section is not known or is not of the frame's size.
    """
    section = frame[0].detector_section()
    if section is None or (section.y2 - section.y1, section.x2 - section.x1) != frame[0].shape:
        return None
    middle = niri_tables().detector.size // 2
    return middle - section.y1, middle - section.x1


def require_sky_mapping(frame: AstroData) -> SkyMapping:
    """Return the mapping of a frame's pixels to the sky (`Extension.sky_mapping`).

    Raises
    ------
    DataError
        The frame has none.
    """
    mapping: SkyMapping | None = frame[0].sky_mapping
    if mapping is None:
        raise DataError(
            "The frame has no WCS",
            file=frame.filename,
            found=frame[0].wcs_problem,
            remedy="Run standardizeWCS with bad_wcs=fix, or repair the header.",
        )
    return mapping


def require_wcs(frame: AstroData) -> WCS:
    """Return the WCS of a frame as an object of astropy, for what needs more than positions.

    Raises
    ------
    DataError
        The frame has none.
    """
    require_sky_mapping(frame)
    return frame[0].wcs


def sky_centre(frame: AstroData) -> tuple[float, float]:
    """Return the sky position (ra, dec) of the middle of a frame, degrees.

    Raises
    ------
    DataError
        The frame has no WCS.
    """
    ny, nx = frame[0].shape
    ra, dec = require_sky_mapping(frame).all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0)
    return float(ra), float(dec)


def pixel_mapping(source: AstroData, target: AstroData) -> Affine:
    """Return the affine mapping from the positions in one frame to those in another, through both WCS.

    Positions are pixels without distortion (`undistorting`); in frames without one, the pixels.

    Parameters
    ----------
    source, target : AstroData
        Frames with one extension and a WCS.

    Returns
    -------
    Affine
        In array order: where the position ``(y, x)`` of `source` lies in `target`.

    Raises
    ------
    DataError
        A frame has no WCS.
    """
    first, second = undistorted(require_sky_mapping(source)), undistorted(require_sky_mapping(target))
    return affine_approximation(_through_sky(first, second), source[0].shape)


def exact_mapping(source: AstroData, target: AstroData) -> Transform:
    """Return the mapping from the pixels of one frame to those of another, through both WCS with distortions.

    Raises
    ------
    DataError
        A frame has no WCS.
    """
    if not (is_distorted(source) or is_distorted(target)):
        return pixel_mapping(source, target)
    return _through_sky(require_sky_mapping(source), require_sky_mapping(target))


def is_distorted(frame: AstroData) -> bool:
    """Tell whether the WCS of a frame has a distortion that is taken out when the frame is resampled."""
    return distortion_of(frame[0].sky_mapping) is not None


def undistorting(frame: AstroData) -> Transform:
    """Return the mapping of pixels ``(y, x)`` of a frame to positions without distortion."""
    bent = distortion_of(frame[0].sky_mapping)

    def mapping(y: Floats, x: Floats) -> tuple[Floats, Floats]:
        if bent is None:
            return y, x
        new_x, new_y = bent.undistort(x, y)
        return new_y, new_x

    return mapping


def distorting(frame: AstroData) -> Transform | None:
    """Return the inverse of `undistorting`; None for a frame without distortion."""
    bent = distortion_of(frame[0].sky_mapping)
    if bent is None:
        return None

    def mapping(y: Floats, x: Floats) -> tuple[Floats, Floats]:
        new_x, new_y = bent.distort(x, y)
        return new_y, new_x

    return mapping


def equal_area(frame: AstroData) -> float:
    """Return the area of a frame's pixels after division by its flat, in pixels without distortion.

    Flats are normalised by their median: 1 without distortion, 1.016 at f/32 with Altair.
    """
    bent = distortion_of(frame[0].sky_mapping)
    return 1.0 if bent is None else bent.median_area(frame[0].shape)


def outline(frame: AstroData) -> NDArray[np.float64]:
    """Return where the outermost pixels of a frame are without distortion: (y, x), shape (n, 2).

    The four corners, or points along the sides of a frame with a distortion.
    """
    if not is_distorted(frame):
        return corners_of(frame[0].shape)
    return np.stack(undistorting(frame)(*around(frame[0].shape).T), axis=1).astype(np.float64)


def _through_sky(first: SkyMapping, second: SkyMapping) -> Transform:
    def mapping(y: Floats, x: Floats) -> tuple[Floats, Floats]:
        ra, dec = first.all_pix2world(x, y, 0)
        x2, y2 = second.all_world2pix(ra, dec, 0)
        return y2, x2

    return mapping
