"""The distortion in the WCS of frames: put there, taken away, and recorded."""

from __future__ import annotations

from typing import Literal, cast

from niripipe.astrodata import AstroData, Distortion, distortion_of, with_distortion
from niripipe.instruments import AstroDataNiri
from niripipe.instruments.optics import published_distortion

__all__ = ["GONE", "on_detector", "put_distortion", "record"]

Source = Literal["published", "header", "fitted", "refused", "none"]
"""Where the distortion of a frame is from."""

GONE = "DISTGONE"
"""Keyword of products whose pixels are without distortion."""

_RESAMPLED = ("ALIGN", "SHIFT", GONE)
"""Keywords of frames that are no longer on the pixels of the detector."""


def on_detector(frame: AstroData) -> bool:
    """Tell whether the pixels of a frame are still those of the detector."""
    return not any(key in frame.phu for key in _RESAMPLED)


def put_distortion(frame: AstroData, which: Literal["published", "none"] = "published") -> str:
    """Give a frame the published distortion, if its camera and light path have one.

    Parameters
    ----------
    frame : AstroData
        Its WCS changes. One that has a distortion already keeps it; frames that are no longer on the pixels
        of the detector get none.
    which : {"published", "none"}
        ``none``: no distortion is put there, now or later by itself. That of a header stays.

    Returns
    -------
    str
        What was done, for the report; empty if nothing.
    """
    mapping = frame[0].sky_mapping
    if mapping is None or not on_detector(frame):
        return ""
    present = distortion_of(mapping)
    if present is not None:
        if "DISTMETH" in frame.phu:
            return ""
        record(frame, "header", present)
        return f"the distortion in its header (up to {present.largest():.1f} pixels) is used"
    # It was decided before that there is none, or there is one of another kind.
    if "DISTMETH" in frame.phu or mapping.has_distortion:
        return ""
    known = published_distortion(cast(AstroDataNiri, frame))
    if known is None:
        return ""
    if which == "none":
        record(frame, "none", None)
        return "the published distortion was left out, as was asked for"
    frame[0].sky_mapping = with_distortion(mapping, known)
    record(frame, "published", known)
    return f"the published distortion, {known.radial:.3g} r^2, went into the WCS"


def record(frame: AstroData, source: Source, distortion: Distortion | None) -> None:
    """Write where the distortion of a frame is from, and k of a radial one."""
    frame.phu.set("DISTMETH", source, "Origin of the optical distortion in the WCS")
    if distortion is not None and distortion.radial:
        frame.phu.set("DISTCOEF", distortion.radial, "k of r' = r + k r^2, r in pixels from centre")
    else:
        frame.phu.remove("DISTCOEF", ignore_missing=True)
