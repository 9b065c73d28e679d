"""Sorting a folder of raw frames into reductions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from niripipe.cal_service import CalibrationService, assess
from niripipe.errors import InputError
from niripipe.inspection import frame_files
from niripipe.night import sets
from niripipe.night.frames import LeftOut, NightFrame, read_frames
from niripipe.night.jobmaker import AvailableCalibrations, JobMaker
from niripipe.night.jobs import CALTYPES, SKY_FLAT, Draft, Kind, name_all, product_facts
from niripipe.night.plan import NightPlan
from niripipe.night.sets import FrameSet, exposure_text
from niripipe.night.settings import NightSettings
from niripipe.night.skyflats import sky_flats
from niripipe.night.standards import find_stars
from niripipe.paths import usable_path
from niripipe.reduction import Mode
from niripipe.reduction.inputs import expand

__all__ = ["organise"]


def organise(
    source: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    calibrations: CalibrationService | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    recipes: Mapping[str, str] | None = None,
    mode: Mode = "sq",
    settings: NightSettings | None = None,
    mask: str = "*.fit*",
    recursive: bool = False,
) -> NightPlan:
    """Sort raw frames into reductions, with their calibrations, and say why.

    Only headers are read. Frames that fit nowhere are listed with the reason, files that cannot be read
    among them.

    Parameters
    ----------
    source : path-like, or iterable of path-like
        A folder of raw frames, ``@list``, or the files themselves.
    calibrations : CalibrationService, optional
        Further calibrations, beside those that the night makes. Of all that meet the rules the nearest in
        time is taken; a product of this night replaces a registered one of the same name.
    parameters : mapping of str to mapping, optional
        Parameters of primitives by kind of reduction or by its name in the plan:
        ``{"science": {"skyCorrect:scale_sky": True}, "flat H": {...}}``. The name is stronger than the kind,
        and both are stronger than what the plan would set.
    recipes : mapping of str to str, optional
        Recipes by kind or name, where not the usual ones are wanted.
    mode : {"sq", "ql", "qa"}
        Mode of all reductions.
    settings : NightSettings, optional
        How frames are sorted.
    mask : str
        Pattern of file names in the folder.
    recursive : bool
        Whether to look into the folders inside the folder. Without it, a note of the plan names those that
        hold FITS files.

    Returns
    -------
    NightPlan
        Prints, renders in a notebook, and runs.

    Raises
    ------
    InputError
        There is no such folder, there are no files, or no such recipe.
    ParameterError
        Parameters for a reduction that is not in the plan, an unknown parameter, or a value that is refused.

    Notes
    -----
    - Darks are sorted by window, read mode, well, coadds and exposure time; each set makes a processed dark,
      except darks of about 1 s that no frame needs: those only serve for bad pixel masks.
    - Flats are sorted by window, well, filter, camera, mask, exposure and lamp. Lamp-off flats join the
      lamp-on flats that they fit, nearest in time. Each set makes a processed flat.
    - One bad pixel mask is made for each window for which there are flats and short darks of one well
      depth: from the largest set of flats, preferably with lamp-off frames.
    - Standards (``partnerCal``, ``progCal``) and science frames are sorted by observation and set-up. Sky
      frames of the same observation are in the same set; where there are any, the sky is not scaled to the
      level of the target frames (``skyCorrect:scale_sky``), which an extended source would spoil.
    - A science set without a dark is reduced without the dark correction and a warning. For one without a
      lamp flat a flat is made of its frames of the sky (``makeSkyFlat``) and of those of others with its
      set-up; where these are too few, it is left out, or in thermal filters, for which no lamp flats are
      taken, reduced without a flat and with a warning. `NightSettings` changes that.
    """
    settings = settings or NightSettings()
    paths = _paths(source, mask, recursive)
    frames, left_out = read_frames(paths, settings)
    sorter = _Sorter(frames, settings, mode)
    drafts = sorter.drafts()
    name_all(drafts)
    made = [draft for draft in drafts if draft.kind in CALTYPES]
    available = AvailableCalibrations(made, calibrations, mode)
    if settings.without_flat == "sky flat":
        on_sky = drafts[len(made) :]
        flats = sky_flats(on_sky, available, settings, mode, parameters or {})
        name_all(flats)
        made += flats
        drafts = [*made, *on_sky]
        available = AvailableCalibrations(made, calibrations, mode)
    find_stars(drafts, parameters or {}, recipes or {})
    makers = [*made, *(draft for draft in drafts if draft.star)]
    available = AvailableCalibrations(makers, calibrations, mode)
    maker = JobMaker(available, settings, mode, parameters or {}, recipes or {})
    jobs = []
    for draft in drafts:
        job = maker.job(draft)
        if job is not None:
            jobs.append(job)
        elif draft.star:
            available.drop(draft.name)
    used = {name for job in jobs for name in job.depends_on}
    jobs = [job for job in jobs if job.recipe != SKY_FLAT or job.name in used]
    used = {path for job in jobs for path in job.files}
    unused = {item.path: item for item in (*maker.left_out, *sorter.left_out, *left_out)}
    plan = NightPlan(
        jobs=tuple(jobs),
        left_out=tuple(unused[path] for path in sorted(unused) if path not in used),
        notes=(*sorter.notes, *_not_looked_into(source, mask, recursive)),
        explanations=maker.explanations,
        mode=mode,
        settings=settings,
        calibrations=calibrations,
    )
    return plan.checked(parameters or {}, recipes or {})


def _paths(
    source: str | PathLike[str] | Iterable[str | PathLike[str]], mask: str, recursive: bool
) -> list[Path]:
    if isinstance(source, (str, PathLike)) and not str(source).startswith("@"):
        path = usable_path(source)
        if path.is_file():
            return [path]
        beside = _not_looked_into(source, mask, recursive)
        return _found(frame_files(path, mask=mask, recursive=recursive), source, beside)
    given = [source] if isinstance(source, (str, PathLike)) else list(source)
    for position, item in enumerate(given):
        if not isinstance(item, (str, PathLike)):
            raise InputError(
                "A night is made of files",
                item=f"source[{position}]",
                found=type(item).__name__,
                expected="a path",
            )
    return _found([Path(str(item)) for item in expand(given)], source)


def _found(paths: list[Path], source: object, beside: Sequence[str] = ()) -> list[Path]:
    if not paths:
        raise InputError(
            "There are no FITS files to organise",
            file=source if isinstance(source, (str, PathLike)) else None,
            found="; ".join(beside) or None,
        )
    return paths


def _not_looked_into(source: object, mask: str, recursive: bool) -> list[str]:
    """Return the note about the folders inside the folder that hold FITS files."""
    if recursive or not isinstance(source, (str, PathLike)) or not (top := usable_path(source)).is_dir():
        return []
    inside = sorted(path for path in top.iterdir() if path.is_dir() and not path.name.startswith("."))
    counts = {path.name: len(frame_files(path, mask=mask, recursive=True)) for path in inside}
    found = [f"{name} ({count} FITS file{'s' * (count != 1)})" for name, count in counts.items() if count]
    if not found:
        return []
    return [f"not looked into (recursive=True does): {', '.join(found)}"]


class _Sorter:
    """Turns frames into drafts of reductions; what does not fit is left out with a reason.

    Parameters
    ----------
    frames : sequence of NightFrame
        In order of time.
    settings : NightSettings
    mode : str
        Mode of the reductions.

    Attributes
    ----------
    left_out : list of LeftOut
        The frames that no draft uses.
    notes : list of str
        What concerns the night as a whole.
    """

    def __init__(self, frames: Sequence[NightFrame], settings: NightSettings, mode: Mode) -> None:
        self.left_out: list[LeftOut] = []
        self.notes: list[str] = []
        self._settings = settings
        self._mode = mode
        self._of_kind: dict[str, list[NightFrame]] = {}
        for frame in frames:
            self._of_kind.setdefault(frame.kind, []).append(frame)

    def drafts(self) -> list[Draft]:
        """Return the reductions in the order in which they are to be run."""
        on_sky = self._on_sky("standard") + self._on_sky("science")
        flats = self._flats()
        darks = self._enough(
            sets.group(self._of_kind.get("dark", []), sets.same_exposure, self._settings.gap), "dark"
        )
        short = [d for d in darks if (d.facts.exposure_time or 0.0) <= self._settings.short_dark]
        masks = self._masks(flats, short)
        flats = [flat for flat in flats if self._is_made(flat, on_sky, masks)]
        made = [dark for found in darks if self._is_made(dark := Draft("dark", found), on_sky, masks, short)]
        return [*made, *masks, *flats, *on_sky]

    # -- on the sky

    def _on_sky(self, kind: Kind) -> list[Draft]:
        def together(a: NightFrame, b: NightFrame) -> bool:
            same = self._belongs(a) == self._belongs(b)
            return same and sets.same_optics(a, b) and sets.same_exposure(a, b)

        found = sets.group(self._of_kind.get(kind, []), together)
        enough = self._enough(found, f"{kind} frame", self._settings.min_on_sky)
        return [Draft(kind, frames) for frames in enough]

    def _belongs(self, frame: NightFrame) -> tuple[str | None, ...]:
        """Return what frames that are stacked together share beside the set-up."""
        facts = frame.facts
        if frame.observation_id is None or self._settings.group_by == "target":
            return facts.program_id, facts.object
        return (frame.observation_id,)

    # -- calibrations

    def _flats(self) -> list[Draft]:
        gap = self._settings.gap
        lamp_on = self._enough(
            sets.group(self._of_kind.get("lamp_on", []), sets.same_flat, gap), "lamp-on flat"
        )
        lamp_off = sets.group(self._of_kind.get("lamp_off", []), sets.same_flat, gap)
        drafts = []
        why: dict[int, list[str]] = {}
        for on in lamp_on:
            off, faults = sets.lamp_off_for(on, lamp_off)
            for position, other in enumerate(lamp_off):
                fault = faults.get(position, "others are nearer in time to those that fit")
                why.setdefault(id(other), []).append(fault)
            drafts.append(_flat_draft(on, off, _least(faults.values())))
        used = {id(part) for draft in drafts for part in draft.extra}
        for off in lamp_off:
            if id(off) not in used:
                fault = _least(why.get(id(off), []))
                reason = f"lamp-off flats without lamp-on flats to go with ({fault})"
                self.left_out += off.left_out(reason)
        return drafts

    def _masks(self, flats: Sequence[Draft], short: Sequence[FrameSet]) -> list[Draft]:
        """Return one bad pixel mask for each window that has flats and short darks."""
        best: dict[Any, Draft] = {}
        # The largest set of flats with lamp-off frames, the first of equals.
        for flat in sorted(flats, key=lambda d: (not d.extra, -len(d.frames), d.frames.first.time)):
            dark = sets.short_darks_for(flat.frames, short)
            window = flat.frames.facts.detector_section
            if dark is None or window in best:
                continue
            draft = Draft("bpm", flat.frames, (*flat.extra, dark))
            draft.reasons.append(
                f"the largest set of flats of this window ({flat.frames.setup}) that has short darks: "
                f"{len(dark)} of {exposure_text(dark.facts)}"
            )
            best[window] = draft
        if not best:
            lacking = "flats" if not flats else "darks of about 1 s that go with the flats"
            self.notes.append(f"no bad pixel mask can be made: there are no {lacking}")
        return list(best.values())

    def _is_made(
        self, draft: Draft, on_sky: Sequence[Draft], masks: Sequence[Draft], short: Sequence[FrameSet] = ()
    ) -> bool:
        """Return whether a dark or flat is made; say why, or why it is left out."""
        facts, caltype = product_facts(draft, self._mode), CALTYPES[draft.kind]
        if any(assess(target.frames.facts, facts, caltype, self._mode).accepted for target in on_sky):
            return True
        is_short = any(draft.frames is other for other in short)
        if not is_short and not self._settings.only_needed:
            draft.reasons.append("no frame of this night needs it; it is made for other nights")
            return True
        reason = "no frame of this night needs it"
        if is_short:
            reason = "short darks, which serve for bad pixel masks; no mask here uses them"
        in_masks = {path for mask in masks for path in mask.files}
        for part in (draft.frames, *draft.extra):
            if not in_masks.issuperset(part.paths):
                self.left_out += part.left_out(reason)
        return False

    # -- left out

    def _enough(self, found: Sequence[FrameSet], what: str, least: int | None = None) -> list[FrameSet]:
        least = self._settings.min_frames if least is None else least
        for frames in found:
            if len(frames) < least:
                reason = f"only {len(frames)} {what} of its set-up ({frames.setup}); {least} are needed"
                self.left_out += frames.left_out(reason)
        return [frames for frames in found if len(frames) >= least]


def _least(faults: Iterable[str]) -> str:
    """Return the shortest of the reasons why sets do not go together: that of the nearest miss."""
    return min(faults, key=len, default="there are none")


def _flat_draft(on: FrameSet, off: FrameSet | None, why_none: str) -> Draft:
    if off is None:
        warning = f"no lamp-off flats fit ({why_none}): the thermal background stays in the flat"
        return Draft("flat", on, warnings=[warning])
    reason = (
        f"{len(on)} lamp-on flats ({on.setup}) and the {len(off)} lamp-off flats that fit, nearest in time"
    )
    return Draft("flat", on, (off,), reasons=[reason])
