"""Stacks of one field in several filters on one grid of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from niripipe.astrodata import AstroData
from niripipe.astrodata.provenance import add_history
from niripipe.night.frames import root_name
from niripipe.photometry.colours import pointing_offset
from niripipe.primitives.geometry import require_wcs
from niripipe.primitives.resample_to import InterpolationParams, onto_target

__all__ = ["COMMON", "on_common_grid"]

COMMON: Final = "_common"
"""What follows the name of a stack in that of its copy on the common grid."""

_NOT_RESAMPLED: Final = ("COVERAGE", "EXPOSURE", "REJMAP")
"""Planes that count frames stay with the stack: an interpolated count means nothing."""


def on_common_grid(stacks: Sequence[AstroData]) -> list[AstroData]:
    """Return copies of stacks on the pixels of the first, extended to hold all fields.

    Parameters
    ----------
    stacks : sequence of AstroData
        With WCS, from files, not modified. Cameras may differ: all get the pixels of the first.

    Returns
    -------
    list of AstroData
        In the same order, all with the WCS and shape of the grid. Data are interpolated so that sources
        keep their flux and the zero point holds, variance and mask as `resampleToCommonFrame` does;
        NOISCORR holds the further correlation. Before that the difference in pointing to the first
        (`niripipe.photometry.match_catalogues`) is taken out; ``CMNDRA``, ``CMNDDEC`` (arcsec, East and
        North) are what it was, ``CMNREF`` is the name of the first. OBJCAT has the new positions, with the
        magnitudes of the stack, HISTORY the step. COVERAGE, EXPOSURE and REJMAP are left out.

    Raises
    ------
    DataError
        A stack has no WCS.
    """
    copies = [_tied(stack, stacks[0]) for stack in stacks]
    # Without a size the grid becomes as large as all fields together.
    grid = require_wcs(copies[0]).deepcopy()
    grid.array_shape = None
    return list(onto_target(copies, grid, InterpolationParams().options, _one_by_one))


def _tied(stack: AstroData, reference: AstroData) -> AstroData:
    """Return a copy of a stack that has the pointing of the reference, without planes of counts."""
    copy = stack.copy()
    ext = copy[0]
    offset = np.zeros(2)
    if stack is not reference:
        offset = pointing_offset(stack, reference)
        mapping = require_wcs(copy).deepcopy()
        mapping.wcs.crval = np.asarray(mapping.wcs.crval) - offset
        ext.wcs = mapping
    if stack is not reference and "OBJCAT" in ext.exposed:
        positions = ext.columns("OBJCAT")
        ext.set_columns(
            "OBJCAT",
            {
                name: positions[name] - shift
                for name, shift in zip(("X_WORLD", "Y_WORLD"), offset, strict=True)
            },
        )
    for name in _NOT_RESAMPLED:
        if name in ext.exposed:
            delattr(ext, name)
    east = offset[0] * np.cos(np.radians(float(ext.wcs.wcs.crval[1])))
    copy.phu.set("CMNREF", str(reference.filename), "The stack whose pixels these are")
    copy.phu.set("CMNDRA", round(3600 * float(east), 4), "Pointing taken out, to the East (arcsec)")
    copy.phu.set("CMNDDEC", round(3600 * float(offset[1]), 4), "Pointing taken out, to the North (arcsec)")
    add_history(copy, "onCommonGrid", {"reference": str(reference.filename)}, status="DONE")
    copy.filename = f"{root_name(str(stack.filename))}{COMMON}.fits"
    return copy


def _one_by_one(treat: Callable[[AstroData], None], frames: Sequence[AstroData]) -> None:
    for frame in frames:
        treat(frame)
