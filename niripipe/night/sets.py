"""Frames that belong together: the same set-up by the association rules, and close in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from niripipe.cal_service import CalibrationFacts, assess
from niripipe.night.frames import LeftOut, NightFrame

__all__ = ["FrameSet", "exposure_text", "group", "lamp_off_for", "same_exposure", "same_flat", "same_optics"]

_DAY = 86400.0

_EXPOSURE = ("exposure_time", "coadds")
_DARK_SETUP = ("instrument", "data_section", "read_mode", "well_depth_setting", *_EXPOSURE)
_OPTICS = ("filter_name", "camera", "focal_plane_mask", "disperser")
_FLAT_SETUP = ("instrument", "data_section", "well_depth_setting", *_OPTICS)


@dataclass(frozen=True, slots=True)
class FrameSet:
    """Frames of one set-up, in order of time.

    Attributes
    ----------
    frames : tuple of NightFrame
        At least one.
    """

    frames: tuple[NightFrame, ...]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def first(self) -> NightFrame:
        """The frame that was taken first."""
        return self.frames[0]

    @property
    def facts(self) -> CalibrationFacts:
        """The facts of the first frame."""
        return self.first.facts

    @property
    def paths(self) -> tuple[str, ...]:
        """The files."""
        return tuple(frame.path for frame in self.frames)

    @property
    def setup(self) -> str:
        """What the frames have in common, in words."""
        facts = self.facts
        parts = [
            exposure_text(facts),
            facts.read_mode,
            facts.well_depth_setting and f"{facts.well_depth_setting} well",
        ]
        if self.first.kind != "dark":
            parts += [self.first.filter, facts.camera and facts.camera.split("_")[0]]
        return ", ".join([part for part in parts if part] + [section_text(facts)])

    def distance(self, other: FrameSet) -> float:
        """Return the time between two sets, in days; 0 if they overlap."""
        gap = max(
            (other.first.time - self.frames[-1].time).total_seconds(),
            (self.first.time - other.frames[-1].time).total_seconds(),
        )
        return max(gap, 0.0) / _DAY

    def left_out(self, reason: str) -> list[LeftOut]:
        """Return the frames as left out."""
        return [LeftOut(path, reason) for path in self.paths]


def disagreements(
    frame: CalibrationFacts, other: CalibrationFacts, caltype: str, descriptors: Iterable[str]
) -> list[str]:
    """Return how two files differ in some descriptors, by the rules of a type of calibration.

    What is unknown of both does not differ here.
    """
    wanted = frozenset(descriptors)
    return [
        str(verdict)
        for verdict in assess(frame, other, caltype).failed
        if verdict.rule.descriptor in wanted
        and not (
            getattr(frame, verdict.rule.descriptor) is None
            and getattr(other, verdict.rule.descriptor) is None
        )
    ]


def same_exposure(a: NightFrame, b: NightFrame) -> bool:
    """Return whether exposure, coadds, read mode, well and window agree as a dark must with its frame."""
    return not disagreements(a.facts, b.facts, "dark", _DARK_SETUP)


def same_optics(a: NightFrame, b: NightFrame) -> bool:
    """Return whether filter, camera, mask, disperser, well and window agree as a flat must with its frame."""
    return not disagreements(a.facts, b.facts, "flat", _FLAT_SETUP)


def group(
    frames: Iterable[NightFrame],
    together: Callable[[NightFrame, NightFrame], bool],
    gap: float = math.inf,
) -> list[FrameSet]:
    """Sort frames into sets; a frame joins the first set whose first frame it goes together with.

    Sets are split where their frames are more than `gap` days apart.
    """
    sets: list[list[NightFrame]] = []
    for frame in frames:
        home = next((members for members in sets if together(members[0], frame)), None)
        if home is None:
            sets.append([frame])
        else:
            home.append(frame)
    parts: list[list[NightFrame]] = []
    for members in sets:
        parts.append([members[0]])
        for before, frame in pairwise(members):
            if (frame.time - before.time).total_seconds() > gap * _DAY:
                parts.append([])
            parts[-1].append(frame)
    return [FrameSet(tuple(part)) for part in parts]


def same_flat(a: NightFrame, b: NightFrame) -> bool:
    """Return whether two flats of one kind agree in set-up and lamp."""
    return same_optics(a, b) and same_exposure(a, b) and a.facts.gcal_lamp == b.facts.gcal_lamp


def lamp_off_for(on: FrameSet, candidates: Sequence[FrameSet]) -> tuple[FrameSet | None, dict[int, str]]:
    """Return the lamp-off set nearest in time that fits a lamp-on set, and why others do not.

    Returns
    -------
    FrameSet or None
    dict of int to str
        Position in `candidates` to what is wrong with it.
    """
    faults = {}
    for position, off in enumerate(candidates):
        # What is subtracted must have been exposed as long, besides what the rules for lamp-off flats ask.
        wrong = [str(v) for v in assess(on.facts, off.facts, "lampoff_flat").failed]
        wrong += disagreements(on.facts, off.facts, "dark", (*_EXPOSURE, "read_mode"))
        if wrong:
            faults[position] = "; ".join(wrong)
    fitting = [off for position, off in enumerate(candidates) if position not in faults]
    return nearest_set(on, fitting), faults


def nearest_set(wanted: FrameSet, candidates: Sequence[FrameSet]) -> FrameSet | None:
    """Return the set nearest in time, the earlier of two."""
    return min(candidates, key=lambda other: (wanted.distance(other), other.first.time), default=None)


def short_darks_for(flats: FrameSet, darks: Sequence[FrameSet]) -> FrameSet | None:
    """Return the short darks nearest in time that go with flats: same window and well depth."""
    wanted = ("instrument", "data_section", "well_depth_setting", "qa_state", "ut_datetime")
    fitting = [dark for dark in darks if not disagreements(flats.facts, dark.facts, "dark", wanted)]
    return nearest_set(flats, fitting)


def exposure_text(facts: CalibrationFacts) -> str:
    """Return an exposure as ``20.002 s`` or ``5 x 2.001 s``."""
    if facts.exposure_time is None:
        return "unknown exposure"
    coadds = facts.coadds or 1
    each = f"{facts.exposure_time / coadds:.3f}".rstrip("0").rstrip(".")
    return f"{each} s" if coadds == 1 else f"{coadds} x {each} s"


def section_text(facts: CalibrationFacts) -> str:
    """Return the window as the user knows it."""
    limits = facts.detector_section
    if limits is None:
        return "unknown window"
    if (limits[1] - limits[0], limits[3] - limits[2]) == (1024, 1024):
        return "full frame"
    return f"[{limits[0] + 1}:{limits[1]},{limits[2] + 1}:{limits[3]}]"
