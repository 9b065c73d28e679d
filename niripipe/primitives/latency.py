"""Persistence: pixels that were saturated shortly before glow on."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import bits, dq
from niripipe.astrodata import DQ, AstroData, Section
from niripipe.primitives.params import Field, SuffixParams

__all__ = ["LatencyParams", "add_latency"]


class LatencyParams(SuffixParams):
    """What decides whether a pixel still glows."""

    non_linear: bool = Field(False, description="flag latency also after non-linear pixels")
    time: float = Field(120.0, ge=0, description="how long persistence lasts at most, s")
    decay: float | None = Field(
        None, gt=0, description="e-folding time of the afterglow, s; None: all of it lasts for `time`"
    )
    residual: float = Field(
        0.01,
        gt=0,
        le=1,
        description="afterglow right after the exposure, part of saturation; with `decay`",
    )


def add_latency(frames: list[AstroData], params: LatencyParams) -> None:
    """Flag in each frame what was saturated in a frame that started less than `time` before.

    The exposure right before counts from its end, so that long exposures have an afterglow too. With
    `decay` the afterglow falls off from the end of the earlier exposure, ``residual exp(-t / decay)`` of
    the saturation level, and only counts as long as it stands out of the noise of the frame.
    """
    dated = [(frame.ut_datetime(), frame) for frame in frames if frame[0].plane("mask") is not None]
    dated = sorted((one for one in dated if one[0] is not None), key=lambda one: one[0])
    # Only flags set before this loop are propagated, so persistence does not chain. Defects of the detector
    # look saturated in every frame, and leave no afterglow.
    wanted = bits.SATURATED | (bits.NON_LINEAR if params.non_linear else 0)
    latent = [dq.where_flagged(frame[0].plane("mask"), wanted, ignore=bits.BAD) for _, frame in dated]
    exposures = [frame.exposure_time() or 0.0 for _, frame in dated]
    glowing = []
    for i, (start, frame) in enumerate(dated):
        earlier_ones = []
        for j in reversed(range(i)):
            earlier_start, earlier = dated[j]
            since_start = (start - earlier_start).total_seconds()
            since_end = max(since_start - exposures[j], 0.0)
            if since_start >= params.time and j < i - 1:
                break
            gap = since_end if j == i - 1 else since_start
            if gap < params.time and len(latent[j]) and _still_glows(frame, earlier, since_end, params):
                earlier_ones.append((earlier[0].detector_section(), latent[j]))
        if earlier_ones:
            glowing.append((frame, earlier_ones))
    for frame, earlier_ones in glowing:
        _flag_latency(frame, earlier_ones)


def _still_glows(frame: AstroData, earlier: AstroData, since: float, params: LatencyParams) -> bool:
    """Return whether the afterglow of a saturated pixel exceeds the read noise of a frame."""
    level = earlier[0].saturation_level()
    if params.decay is None or level is None:
        return True
    glow = params.residual * float(level) * math.exp(-since / params.decay)
    return glow > float(frame[0].read_noise()) / float(frame[0].gain())


def _flag_latency(frame: AstroData, earlier: list[tuple[Section, NDArray[np.intp]]]) -> None:
    """Set bit 8 at the detector pixels that were bright in earlier frames."""
    ext = frame[0]
    here, (ny, nx) = ext.detector_section(), ext.shape
    mask = ext.read("mask").copy()
    for there, pixels in earlier:
        y, x = pixels[:, 0] + there.y1 - here.y1, pixels[:, 1] + there.x1 - here.x1
        inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
        mask[y[inside], x[inside]] |= np.uint16(DQ.cosmic_ray)
    ext.mask = mask
