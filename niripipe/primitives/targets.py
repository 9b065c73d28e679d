"""What frames are aligned on, stars or a moving target, and whether they show one target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from niripipe.astrodata import AstroData
from niripipe.errors import DataError
from niripipe.instruments.pointing import angular_separation
from niripipe.logutils import get_logger
from niripipe.primitives.geometry import sky_centre

__all__ = ["AlignOn", "chosen_target", "require_one_target"]

log = get_logger(__name__)

AlignOn = Literal["auto", "stars", "target"]

_FAR = 360.0
"""Frames nearer than this (arcsec) may be of one target: pointing errors of headers reach 0.05 degrees."""
_NO_SKY = 3600.0
"""Guided frames farther than this (arcsec) from the objects are no offset sky."""
_DIAGONALS = 1.5
"""Tiles of a mosaic that touch are nearer than so many diagonals of a field."""


def chosen_target(frames: Sequence[AstroData], align_on: AlignOn) -> bool:
    """Tell whether frames are aligned on a moving target, and write ALGNON.

    Parameters
    ----------
    frames : sequence of AstroData
        ALGNON in the primary header becomes ``target`` or ``stars``.
    align_on : {'auto', 'stars', 'target'}
        With ``auto`` the target if all frames are NON_SIDEREAL.
    """
    moving = [bool(frame.tags & {"NON_SIDEREAL"}) for frame in frames]
    on_target = align_on == "target" or (align_on == "auto" and all(moving))
    if align_on == "auto" and any(moving) and not on_target:
        log.warning("only %d of %d frames are non-sidereal: aligned on the stars", sum(moving), len(moving))
    elif on_target:
        log.warning(
            "non-sidereal (RATRACK, DECTRACK): aligned on the moving target by telescope offsets; "
            "stars move from frame to frame"
        )
    elif any(moving):
        log.warning(
            "non-sidereal: aligned on the stars, as was asked for; the moving target is smeared or clipped"
        )
    for frame in frames:
        frame.phu.set("ALGNON", "target" if on_target else "stars", "What the frames are aligned on")
    return on_target


def require_one_target(objects: Sequence[AstroData], guided: Sequence[AstroData] = ()) -> None:
    """Check that the fields of object frames form one chain.

    Parameters
    ----------
    objects : sequence of AstroData
        Frames that are to be stacked.
    guided : sequence of AstroData
        Frames that nobody called sky. One of them that is a degree from the objects is of another target.

    Raises
    ------
    DataError
        Some frames are too far from all others to show the same target.
    """
    far = [frame for frame in guided if all(_distance(frame, other) > _NO_SKY for other in objects)]
    left: list[AstroData] = [*objects, *far]
    groups: list[list[AstroData]] = []
    while left:
        group, left = [left[0]], left[1:]
        for member in group:
            near = [frame for frame in left if _near(member, frame)]
            group += near
            left = [frame for frame in left if not any(frame is other for other in near)]
        groups.append(group)
    if len(groups) < 2:
        return
    found = "; ".join(
        f"{group[0].object() or 'no name'}: {', '.join(str(frame.filename) for frame in group)}"
        for group in groups
    )
    raise DataError(
        f"The frames show {len(groups)} targets that cannot overlap",
        found=found,
        remedy="Reduce each target by itself, or let niripipe.night sort the frames.",
    )


def _near(first: AstroData, second: AstroData) -> bool:
    distance = _distance(first, second)
    size = float(np.hypot(*first[0].shape)) * float(first[0].pixel_scale() or 0.0)
    return distance <= max(_FAR, _DIAGONALS * size)


def _distance(first: AstroData, second: AstroData) -> float:
    return angular_separation(*sky_centre(first), *sky_centre(second))
