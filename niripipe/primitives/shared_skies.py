"""Which frames of a stack have the noise of their skies in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from niripipe.algorithms.arrays import Float64
from niripipe.algorithms.shared_skies import SharedSkies, frame_covariance, shared_skies
from niripipe.astrodata import AstroData
from niripipe.primitives.base import Frames
from niripipe.primitives.stack_levels import typical_variance

__all__ = ["POSITION", "SKY_PART", "record_position", "skies_in_common"]

POSITION = ("GRIDY", "GRIDX")
"""Keywords: position in the frame, 1-based, of the middle pixel of the grid onto which it was resampled."""
SKY_PART = "VARSKY"
"""Keyword: which part of a frame's variance is that of its sky."""


def record_position(frame: AstroData, shape: tuple[int, ...], middle: tuple[Any, Any]) -> None:
    """Write into the header where in a frame the middle of its new grid lies.

    Parameters
    ----------
    frame : AstroData
        Before it gets its new planes. If it was resampled before, the position is that in the first frame.
    shape : tuple of int
        Shape of the new grid; its middle is the pixel ``(ny // 2, nx // 2)``, 0-based.
    middle : tuple of float
        y and x of this pixel in the frame as it is, 0-based.
    """
    hdr = frame[0].hdr
    for keyword, position, size in zip(POSITION, middle, frame[0].shape, strict=True):
        earlier = hdr.get(keyword)
        position = float(position) + (1.0 if earlier is None else float(earlier) - size // 2)
        hdr.set(keyword, round(position, 3), "Pixel of the frame at the middle of this grid")


def skies_in_common(frames: Frames, weights: Float64) -> SharedSkies | None:
    """Return what the skies of frames add to the variance of their weighted mean; None for nothing.

    SKYTABLE says of what the sky of each frame was made, VARSKY how much noise it has. A frame without them,
    such as one that is a stack already, counts as independent of all others.
    """
    known = [_skies_of(frame) for frame in frames]
    if sum(names is not None for _, names in known) < 2:
        return None
    exposures = sorted({name for _, names in known for name in names or ()})
    skies = np.array([[names is not None and name in names for name in exposures] for _, names in known])
    own = np.array([[name == one for name in exposures] for one, _ in known])
    variance = np.array([typical_variance(frame) for frame in frames])
    if not (np.isfinite(variance) & (variance > 0)).all():
        return None
    part = np.array([float(frame[0].hdr.get(SKY_PART, 0.0)) for frame in frames])
    # Variances of pixels before interpolation made them smaller are in proportion to this.
    correlation = np.array([float(frame[0].hdr.get("NOISCORR", 1.0)) for frame in frames])
    covariance = frame_covariance(variance, part, skies, own)
    positions = np.array([[float(frame[0].hdr.get(key, 0.0)) for key in POSITION] for frame in frames])
    return shared_skies(covariance, positions, weights, correlation)


def _skies_of(frame: AstroData) -> tuple[str, set[str] | None]:
    """Return the name of a frame, and those of its skies; None where they are not known."""
    if SKY_PART not in frame[0].hdr or "SKYTABLE" not in frame.tables:
        return "", None
    rows = frame.columns("SKYTABLE")
    names = {str(name) for name in rows["IMAGE"]}
    return (names.pop(), {str(name) for name in rows["SKYNAME"]}) if len(names) == 1 else ("", None)
