"""Flats of the sky, for frames that no lamp flat fits: which frames they are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from niripipe import astrodata
from niripipe.cal_service import SKY_LIGHT
from niripipe.errors import NiripipeError
from niripipe.instruments import AstroDataNiri
from niripipe.instruments.pointing import angular_separation, expected_position
from niripipe.night import sets
from niripipe.night.frames import NightFrame
from niripipe.night.jobmaker import AvailableCalibrations, offset_skies
from niripipe.night.jobs import Draft, chosen_parameters
from niripipe.night.sets import FrameSet
from niripipe.night.settings import NightSettings
from niripipe.reduction import Mode

__all__ = ["sky_flats"]

_FEWEST = 3
"""A flat of the sky is made of so many frames at least: a median of two does not leave out a star."""

_PLACES = 2
"""They show so many places at least, so that each pixel sees the sky in some of them."""

_SAME_PLACE = 3.0
"""Frames nearer than this (arcsec) show a star in the same pixels; as `associateSky:distance`."""


def sky_flats(
    drafts: Sequence[Draft],
    available: AvailableCalibrations,
    settings: NightSettings,
    mode: Mode,
    parameters: Mapping[str, Mapping[str, Any]],
) -> list[Draft]:
    """Return flats of the sky for the standards and science frames that no lamp flat fits.

    Parameters
    ----------
    drafts : sequence of Draft
        Standards and science frames, with names; `no_sky_flat` is set of those that get none.
    available : AvailableCalibrations
        Where lamp flats are looked for.
    settings : NightSettings
    mode : str
    parameters : mapping
        The user's; those of ``separateSky`` count.

    Returns
    -------
    list of Draft
        One for each set-up: of the frames whose exposure collected the most light of the sky in all. The
        first frame of a sequence is not used, and only the sky frames of targets that have such beside them.
    """
    lacking = [draft for draft in drafts if not _has_lamp_flat(draft, available)]
    owner = {frame.path: draft for draft in lacking for frame in draft.frames.frames}
    frames = sorted((f for d in lacking for f in d.frames.frames), key=lambda frame: (frame.time, frame.name))
    flats = []
    for setup in sets.group(frames, sets.same_optics, settings.gap):
        flat = _flat_of(setup, [d for d in lacking if d.frames.first in setup.frames], mode, parameters)
        if isinstance(flat, Draft):
            flats.append(flat)
            continue
        for frame in setup.frames:
            owner[frame.path].no_sky_flat = flat
    return flats


def _has_lamp_flat(draft: Draft, available: AvailableCalibrations) -> bool:
    candidates = available.choose(draft.frames, "processed_flat").explanation.candidates
    return any(c.usable and c.assessment.facts.gcal_lamp != SKY_LIGHT for c in candidates)


def _flat_of(
    setup: FrameSet, drafts: Sequence[Draft], mode: Mode, parameters: Mapping[str, Mapping[str, Any]]
) -> Draft | str:
    """Return the flat of one set-up, or why there is none."""
    usable = [frame for draft in drafts for frame in _shows_sky(draft, mode, parameters)]
    usable.sort(key=lambda frame: (frame.time, frame.name))
    best, faults = None, []
    for frames in sets.group(usable, sets.same_exposure):
        fault = _fault(frames)
        faults += [fault] if fault else []
        if not fault and (best is None or _light(frames) > _light(best)):
            best = frames
    if best is None:
        return f"no flat can be made of the sky: {min(faults, key=len, default='there are no frames')}"
    names = ", ".join(dict.fromkeys(str(frame.facts.object) for frame in best.frames))
    reason = (
        f"no lamp flat fits {setup.setup}: the flat is made of {len(best)} frames of the sky ({names}), "
        "without the first of each sequence"
    )
    return Draft("flat", best, reasons=[reason], of_sky=True)


def _shows_sky(draft: Draft, mode: Mode, parameters: Mapping[str, Mapping[str, Any]]) -> list[NightFrame]:
    """Return the frames of a set for a flat: those beside the target if they do, else all but the first."""
    frames = list(draft.frames.frames[1:]) if len(draft.frames) > 1 else list(draft.frames.frames)
    try:
        beside = offset_skies(draft.frames.paths, mode, chosen_parameters(parameters, draft))
    except NiripipeError:
        # The reduction of these frames says what is wrong with them.
        return []
    skies = [frame for frame in frames if frame.path in beside]
    return skies if skies and not _fault(FrameSet(tuple(skies))) else frames


def _fault(frames: FrameSet) -> str:
    """Return why no flat can be made of frames; empty if one can."""
    if len(frames) < _FEWEST:
        return f"{len(frames)} frames are left without the first, {_FEWEST} are needed"
    places: list[tuple[float, float]] = []
    for frame in frames.frames:
        here = _pointing(frame)
        if here is not None and all(angular_separation(*here, *other) >= _SAME_PLACE for other in places):
            places.append(here)
    if len(places) < _PLACES:
        return "all frames show the same place, stars would stay in it"
    return ""


def _pointing(frame: NightFrame) -> tuple[float, float] | None:
    """Return where a frame points (RA, Dec in degrees), by target and offsets or else by its WCS."""
    opened = cast(AstroDataNiri, astrodata.open(frame.path))
    try:
        ra, dec = expected_position(opened) or (opened.ra(), opened.dec())
    except NiripipeError:
        return None
    return None if ra is None or dec is None else (ra, dec)


def _light(frames: FrameSet) -> float:
    """Return the exposure time of all frames together, s."""
    return len(frames) * float(frames.facts.exposure_time or 0.0)
