"""Which field of the sky a frame shows, as far as sky subtraction needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import grouping
from niripipe.astrodata import AstroData
from niripipe.errors import DataError
from niripipe.logutils import get_logger
from niripipe.primitives.geometry import require_sky_mapping, sky_centre
from niripipe.primitives.named import frames_named

__all__ = ["exposures", "overlaps", "sky_record", "target"]

log = get_logger(__name__)

_CONFIGURATION = {
    "read_mode": "LNRS, NDAVGS",
    "well_depth_setting": "A_VDDUC, A_VDET",
    "coadds": "COADDS",
    "camera": "CAMERA",
    "filter_name": "FILTER1, FILTER2, FILTER3",
    "focal_plane_mask": "FPMASK",
    "pupil_mask": "FILTER3",
    "disperser": "FILTER3",
}
"""Descriptors that a frame and its skies have in common, and the keywords behind them."""


def exposures(
    frames: Sequence[AstroData], ref_obj: Sequence[str] | None, ref_sky: Sequence[str] | None
) -> list[grouping.Exposure]:
    """Return what tells object frames from sky frames; the user may name some of either."""
    objects, skies = (
        {id(frame) for frame in frames_named(frames, names or (), f"separateSky:{item}")}
        for item, names in (("ref_obj", ref_obj), ("ref_sky", ref_sky))
    )
    return [
        grouping.Exposure(
            name=str(frame.filename),
            position=_pointing(frame),
            guided=_guided(frame),
            is_object="OBJFRAME" in frame.phu or id(frame) in objects,
            is_sky="SKYFRAME" in frame.phu or id(frame) in skies,
        )
        for frame in frames
    ]


def _guided(frame: AstroData) -> bool | None:
    """Return whether a wavefront sensor guided; None where the header does not say."""
    known = all(keyword in frame.phu for keyword in ("PWFS1_ST", "PWFS2_ST", "OIWFS_ST"))
    return frame.wavefront_sensor() is not None if known else None


def target(frame: AstroData) -> tuple[float, float] | None:
    """Return the sky position (ra, dec) of the target, degrees; None where the header does not say."""
    ra, dec = frame.target_ra(), frame.target_dec()
    return None if ra is None or dec is None else (ra, dec)


def sky_record(frame: AstroData) -> grouping.SkyRecord:
    """Return what decides which skies belong to a frame.

    Raises
    ------
    DataError
        The frame has no time.
    """
    time = frame.ut_datetime()
    if time is None:
        raise DataError(
            "The frame has no time, so that its skies cannot be chosen",
            file=frame.filename,
            item="DATE-OBS, UT",
        )
    return grouping.SkyRecord(
        name=str(frame.filename),
        time=time.timestamp(),
        position=_pointing(frame),
        configuration=_configuration(frame),
        exposure_time=float(frame.exposure_time()),
    )


def _configuration(frame: AstroData) -> tuple[tuple[str, Any], ...]:
    """Return what a sky must share with a frame: names and values."""
    return (
        ("shape", frame[0].shape),
        ("section of the detector", str(frame[0].detector_section())),
        *((f"{name} ({keys})", getattr(frame, name)()) for name, keys in _CONFIGURATION.items()),
    )


def _pointing(frame: AstroData) -> tuple[float, float]:
    """Return the sky position (ra, dec) of the middle of a frame, degrees."""
    ny, nx = frame[0].shape
    ra, dec = require_sky_mapping(frame).all_pix2world(nx // 2 - 0.5, ny // 2 - 0.5, 0)
    return float(ra), float(dec)


def overlaps(frames: Sequence[AstroData], fraction: float) -> NDArray[np.bool_]:
    """Return whether the middle of each frame lies in that part of the field of each other one."""
    shapes = np.array([frame[0].shape for frame in frames]).T
    mappings = [require_sky_mapping(frame) for frame in frames]
    ra, dec = np.array([sky_centre(frame) for frame in frames]).T
    found = np.empty((len(frames), len(frames)), bool)
    for k, mapping in enumerate(mappings):
        x, y = mapping.all_world2pix(ra, dec, 0)
        found[:, k] = grouping.fields_overlap((y, x), (shapes[0], shapes[1]), fraction)
    return found
