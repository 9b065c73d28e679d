"""The optical distortion that the observatory publishes, on the pixels of a frame."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from niripipe.astrodata import Distortion
from niripipe.instruments.tables import niri_tables

if TYPE_CHECKING:
    from niripipe.instruments.niri import AstroDataNiri

__all__ = ["array_centre", "half_diagonal", "published_distortion"]


def array_centre(ad: AstroDataNiri) -> tuple[float, float] | None:
    """Return where the centre of the array lies on the pixels of a frame.

    Parameters
    ----------
    ad : AstroDataNiri
        A data set with one extension.

    Returns
    -------
    tuple of float or None
        (x, y), 0-based, also outside of a subarray that is read out elsewhere (LOWCOL, LOWROW); None for an
        image that is no part of the array.
    """
    section = ad.array_section()[0]
    if section is None:
        return None
    middle = (niri_tables().detector.size - 1) / 2
    return middle - section.x1, middle - section.y1


def half_diagonal() -> float:
    """Return the distance of the array's corner from its centre, pixels."""
    return math.hypot(niri_tables().detector.size / 2, niri_tables().detector.size / 2)


def published_distortion(ad: AstroDataNiri) -> Distortion | None:
    """Return the published distortion of a frame's camera and light path.

    Parameters
    ----------
    ad : AstroDataNiri
        A data set with one extension, on the pixels of the detector.

    Returns
    -------
    Distortion or None
        Radial about the centre of the array, also in subarrays. None where none is published: known is f/32
        with Altair, r' = r + k r**2 with k = (1.32 +- 0.02) 1e-5 per pixel (Gemini Observatory, NIRI web
        pages, "Pixel scales and field of view"). With and without Altair's field lens is one to the page.
    """
    known = niri_tables().distortion(ad.camera(pretty=True), ad.is_ao())
    centre = array_centre(ad)
    if known is None or centre is None:
        return None
    return Distortion(centre, half_diagonal(), known.radial)
