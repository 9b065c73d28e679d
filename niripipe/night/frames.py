"""What each raw frame of a night is, or why it is of no use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.cal_service import CalibrationFacts, assess, facts_of
from niripipe.errors import InputError, NiripipeError
from niripipe.instruments.identity import Exposure, find_twins, pixel_checksum
from niripipe.logutils import get_logger
from niripipe.night.settings import NightSettings
from niripipe.paths import usable_path

__all__ = ["FrameKind", "LeftOut", "NightFrame", "read_frames", "root_name"]

FrameKind = Literal["dark", "lamp_on", "lamp_off", "standard", "science"]

log = get_logger(__name__)

_UNREADABLE = "cannot be read"
_STANDARD_CLASSES = frozenset({"partnerCal", "progCal"})
_ACQUISITION_CLASSES = frozenset({"acq", "acqCal"})


@dataclass(frozen=True, slots=True)
class NightFrame:
    """A raw frame that may be of use.

    Attributes
    ----------
    path : str
        Absolute path.
    kind : {"dark", "lamp_on", "lamp_off", "standard", "science"}
        What it is.
    facts : CalibrationFacts
        What the association rules look at.
    observation_id, filter : str or None
        Observation, and short name of the filter.
    """

    path: str
    kind: FrameKind
    facts: CalibrationFacts
    observation_id: str | None
    filter: str | None

    @property
    def name(self) -> str:
        """File name."""
        return Path(self.path).name

    @property
    def time(self) -> datetime:
        """Start of the exposure; frames without are not of use."""
        assert self.facts.ut_datetime is not None
        return self.facts.ut_datetime


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A frame that no reduction of the plan uses, and why."""

    path: str
    reason: str

    @property
    def name(self) -> str:
        """File name."""
        return Path(self.path).name


def read_frames(paths: Iterable[Path], settings: NightSettings) -> tuple[list[NightFrame], list[LeftOut]]:
    """Read the headers of files and say what each is.

    Parameters
    ----------
    paths : iterable of Path
        Files; any may be unreadable.
    settings : NightSettings

    Returns
    -------
    frames : list of NightFrame
        In order of time, then of name.
    left_out : list of LeftOut
        The files that are of no use, and those that hold the exposure of another one.

    Notes
    -----
    A frame is known by what it contains (`niripipe.instruments.identity`): one exposure in two files counts
    once, whatever the names; two frames of one name in two folders are two.
    """
    frames: list[NightFrame] = []
    left_out: list[LeftOut] = []
    for path in dict.fromkeys(_absolute(path) for path in paths):
        read = _read(path, settings)
        if isinstance(read, str):
            left_out.append(LeftOut(str(path), read))
        else:
            frames.append(read)
    # What cannot be read, but is called like a frame that can, is most likely a copy of it.
    by_root = {(Path(frame.path).parent, root_name(frame.name)): frame.path for frame in frames}
    for k, item in enumerate(left_out):
        same_name = by_root.get((Path(item.path).parent, root_name(item.name)))
        if same_name and item.reason.startswith(_UNREADABLE):
            left_out[k] = LeftOut(item.path, f"the same frame as {same_name} by its name; {item.reason}")
    twins = find_twins([_exposure(frame) for frame in frames])
    same = {twin.position: frames[twin.of] for twin in twins if twin.same_pixels}
    left_out += [LeftOut(frames[k].path, f"the same frame as {first.path}") for k, first in same.items()]
    for twin in twins:
        if not twin.same_pixels:
            log.warning(
                "%s and %s have the same DATALAB and time, and different pixels: both count",
                frames[twin.position].path,
                frames[twin.of].path,
            )
    kept = [frame for k, frame in enumerate(frames) if k not in same]
    return sorted(kept, key=lambda frame: (frame.time, frame.name)), left_out


def _exposure(frame: NightFrame) -> Exposure:
    """Return what tells the exposure of a frame from others; the file is opened again for its pixels."""
    return Exposure(
        name=frame.name,
        label=frame.facts.data_label,
        time=frame.time,
        checksum=lambda: pixel_checksum(astrodata.open(frame.path)),
    )


def root_name(filename: str) -> str:
    """Return a file name without ``.fits``, in any letter case, and what follows it."""
    return re.split(r"\.(?:fits|fit|fts)\b", filename, maxsplit=1, flags=re.IGNORECASE)[0]


def _absolute(path: Path) -> Path:
    try:
        return usable_path(path).absolute()
    except InputError:
        # The reason is said when the file is opened; one name does not cost the night.
        return path.absolute()


def _read(path: Path, settings: NightSettings) -> NightFrame | str:
    try:
        frame = astrodata.open(path)
        facts = facts_of(frame)
        kind = _kind(frame, facts, settings)
        return NightFrame(str(path), kind, facts, frame.observation_id(), frame.filter_name(pretty=True))
    except _NotUsable as reason:
        return str(reason)
    except NiripipeError as error:
        return f"{_UNREADABLE}: {error.problem}"


class _NotUsable(Exception):
    """Why a frame is left out."""


def _kind(frame: AstroData, facts: CalibrationFacts, settings: NightSettings) -> FrameKind:
    tags = facts.tags
    if "NIRI" not in tags:
        raise _NotUsable(f"not a NIRI frame (INSTRUME is {frame.phu.get('INSTRUME', 'missing')})")
    if "RAW" not in tags:
        raise _NotUsable("not raw: it has been processed already")
    if "SPECT" in tags:
        raise _NotUsable(f"a spectrum ({facts.disperser}); images are reduced")
    if len(frame) != 1:
        raise _NotUsable(f"has {len(frame)} image extensions instead of one")
    if facts.ut_datetime is None:
        raise _NotUsable("its header has no time, so that nothing can be associated with it")
    kind = _calibration_kind(facts) if "CAL" in tags else _sky_kind(facts)
    if facts.qa_state == "Fail" and not (settings.use_failed and kind in ("standard", "science")):
        raise _NotUsable("failed the observatory's quality assessment")
    return kind


def _calibration_kind(facts: CalibrationFacts) -> FrameKind:
    tags = facts.tags
    if "DARK" in tags:
        return _consistent("dark", facts, "dark")
    if "TWILIGHT" in tags:
        raise _NotUsable("a twilight flat; flats are made of lamp flats")
    if "FLAT" in tags and "LAMPON" in tags:
        return _consistent("lamp_on", facts, "flat")
    if "FLAT" in tags and "LAMPOFF" in tags:
        return _consistent("lamp_off", facts, "lampoff_flat")
    if "FLAT" in tags:
        raise _NotUsable(f"a flat whose lamp is unknown (GCALLAMP and shutter say {facts.gcal_lamp})")
    raise _NotUsable(f"a calibration of a kind that is not reduced ({', '.join(sorted(tags))})")


def _consistent(kind: FrameKind, facts: CalibrationFacts, caltype: str) -> FrameKind:
    """Refuse a frame that the rules could not even associate with itself: its header does not say enough."""
    faults = [v for v in assess(facts, facts, caltype).failed if v.rule.descriptor != "qa_state"]
    if faults:
        unknown = ", ".join(verdict.rule.descriptor for verdict in faults)
        raise _NotUsable(f"its header does not tell {unknown}, and unknown matches nothing")
    return kind


def _sky_kind(facts: CalibrationFacts) -> FrameKind:
    kind = facts.observation_class
    if "ACQUISITION" in facts.tags or kind in _ACQUISITION_CLASSES:
        raise _NotUsable("an acquisition")
    if "IMAGE" not in facts.tags or facts.filter_name in (None, "blank"):
        raise _NotUsable(f"not an image of the sky (filter {facts.filter_name})")
    if kind in _STANDARD_CLASSES:
        return "standard"
    if kind in ("science", None):
        # Headers before 2006 lack the class; what is not a calibration then is science.
        return "science"
    raise _NotUsable(f"of class {kind}, which is neither science nor a standard")
