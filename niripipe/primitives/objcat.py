"""The sources of a frame, from its catalogue OBJCAT."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.register import Sources
from niripipe.astrodata import FAIL, AstroData

__all__ = ["inside", "sources", "update_world"]

_TRUNCATED = 4 | 8 | 16
"""SExtractor's flags: saturated, truncated by the edge, aperture incomplete."""


def sources(frame: AstroData) -> Sources:
    """Return the sources of a frame, none if it has no catalogue.

    Positions are 0-based, the windowed ones where the catalogue has them. Sources that are saturated,
    truncated or have unusable pixels are suspect.
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
    suspect = (flags & _TRUNCATED != 0) | (bits & int(FAIL) != 0)
    return Sources(x - 1, y - 1, column("FLUX_AUTO"), column("FLUXERR_AUTO"), error, suspect)


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
