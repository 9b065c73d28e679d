"""Turning drafts into jobs: calibrations, parameters, and what becomes of a set that lacks something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from niripipe import astrodata
from niripipe.cal_service import (
    SKY_LIGHT,
    CalibrationFacts,
    CalibrationService,
    Candidate,
    Explanation,
    MaskOrigin,
    applicable_types,
    assess,
    mask_origin,
    masks_to_unite,
    rules_for,
)
from niripipe.errors import NiripipeError
from niripipe.inspection.recipes import planning_context
from niripipe.night.frames import LeftOut
from niripipe.night.jobs import (
    MAKE_STANDARD,
    RECIPES,
    SKY_FLAT,
    Draft,
    Job,
    PlannedCalibration,
    chosen_parameters,
    product_facts,
    set_by_user,
)
from niripipe.night.sets import FrameSet
from niripipe.night.settings import NightSettings
from niripipe.night.standards import none_applied, zero_point_by_hand
from niripipe.primitives import NIRI
from niripipe.reduction import Mode
from niripipe.reduction.report import RunReport
from niripipe.reduction.runner import RecipeRunner, resolve_call

__all__ = ["AvailableCalibrations", "JobMaker", "offset_skies"]

_TYPES = ("processed_bpm", "processed_dark", "processed_flat", "processed_standard")
_OPTIONAL = ("processed_bpm", "processed_standard")


class Choice(NamedTuple):
    """The calibration chosen for a set of frames.

    Attributes
    ----------
    calibration : PlannedCalibration or None
    explanation : Explanation
        All candidates against all rules, for the first frame of the set.
    warnings : sequence of str
        Age, or frames of the set that the calibration does not fit.
    further : sequence of PlannedCalibration
        Standards that fit as well, for a joint fit.
    """

    calibration: PlannedCalibration | None
    explanation: Explanation
    warnings: Sequence[str] = ()
    further: Sequence[PlannedCalibration] = ()


@dataclass
class JobMaker:
    """Turns drafts into jobs.

    Parameters
    ----------
    available : AvailableCalibrations
        The calibrations to choose from.
    settings : NightSettings
    mode : str
        Mode of the reductions.
    parameters, recipes : mapping
        The user's, by kind or name of a reduction.

    Attributes
    ----------
    left_out : list of LeftOut
        The frames of drafts that cannot be reduced.
    explanations : dict
        ``(name, calibration type)`` to all candidates against all rules.
    """

    available: AvailableCalibrations
    settings: NightSettings
    mode: Mode
    parameters: Mapping[str, Mapping[str, Any]]
    recipes: Mapping[str, str]
    left_out: list[LeftOut] = field(default_factory=list)
    explanations: dict[tuple[str, str], Explanation] = field(default_factory=dict)

    def job(self, draft: Draft) -> Job | None:
        """Return the job of a draft, or None if it cannot be done."""
        choices: dict[str, Choice] = {}
        chosen = chosen_parameters(self.parameters, draft)
        for caltype in _caltypes(draft):
            if caltype == "processed_standard" and zero_point_by_hand(chosen):
                continue
            choice = self.available.choose(draft.frames, caltype, required=caltype not in _OPTIONAL)
            choices[caltype] = choice
            self.explanations[draft.name, caltype] = choice.explanation
            draft.warnings += choice.warnings
        mask = choices.get("processed_bpm")
        if mask is not None and mask.calibration is None:
            draft.warnings.append(f"no bad pixel mask is applied: {_why_none(mask)}")
        standard = choices.get("processed_standard")
        if standard is not None and standard.calibration is None:
            draft.warnings.append(none_applied(_why_none(standard)))
        own: dict[str, Any] = {}
        skies: tuple[str, ...] = ()
        if draft.of_sky:
            # The frames were chosen without the first of each sequence.
            own["removeFirstFrame:remove_first"] = False
        of_sky = draft.of_sky or draft.kind in ("standard", "science")
        if of_sky and self._lacking(draft, choices, own):
            return None
        if draft.kind in ("standard", "science"):
            skies = self._skies(draft, own)
        draft.reasons += set_by_user(chosen)
        if mask is not None:
            _unite_masks(mask, draft, own, chosen)
        return Job(
            name=draft.name,
            kind=draft.kind,
            files=draft.files,
            recipe=self._recipe(draft),
            parameters=own | chosen,
            calibrations=(
                *(c.calibration for c in choices.values() if c.calibration is not None),
                *(() if standard is None else standard.further),
            ),
            product=draft.product(self.mode),
            folder=draft.folder,
            mode=self.mode,
            sky_files=skies,
            reasons=tuple(draft.reasons),
            warnings=tuple(draft.warnings),
        )

    def _recipe(self, draft: Draft) -> str:
        made = MAKE_STANDARD if draft.star else RECIPES[draft.kind]
        usual = SKY_FLAT if draft.of_sky else self.recipes.get(draft.kind, made)
        return self.recipes.get(draft.name, usual)

    def _lacking(self, draft: Draft, choices: Mapping[str, Choice], own: dict[str, Any]) -> bool:
        """Switch off the steps that have no calibration; return whether the set is left out for it."""
        for caltype, step, skips in (
            ("processed_dark", "darkCorrect", self.settings.without_dark == "skip" or draft.of_sky),
            ("processed_flat", "flatCorrect", self._goes_without_flat(draft)),
        ):
            choice = choices.get(caltype)
            if choice is None:
                continue
            if choice.calibration is not None:
                self._explain_sky_flat(draft, choice)
                continue
            why = _why_none(choice)
            if caltype == "processed_flat" and draft.no_sky_flat:
                why += f"; {draft.no_sky_flat}"
            routine = caltype == "processed_dark" and draft.frames.first.kind == "standard"
            if not skips and not routine:
                self.left_out += draft.frames.left_out(f"{draft.name} cannot be reduced: {why}")
                for key in [key for key in self.explanations if key[0] == draft.name]:
                    del self.explanations[key]
                return True
            own[f"{step}:do_cal"] = "skip"
            text = f"{step}:do_cal='skip': {why}"
            if routine:
                draft.reasons.append(f"{text}; the archive takes no darks for standards")
            else:
                draft.warnings.append(text)
        return False

    def _goes_without_flat(self, draft: Draft) -> bool:
        return self.settings.without_flat == "skip" or draft.frames.facts.uses_lamp_flats is False

    def _explain_sky_flat(self, draft: Draft, choice: Choice) -> None:
        """Say that a set gets a flat of the sky because no lamp flat fits it."""
        chosen = next(c for c in choice.explanation.candidates if c.usable)
        if choice.explanation.caltype != "processed_flat" or chosen.assessment.facts.gcal_lamp != SKY_LIGHT:
            return
        none = "no lamp flat fits"
        if draft.frames.facts.uses_lamp_flats is False:
            none = f"no lamp flats are taken in the filter {draft.frames.first.filter}"
        draft.reasons.append(f"{none}: the flat is made of the sky ({chosen.name})")

    def _skies(self, draft: Draft, own: dict[str, Any]) -> tuple[str, ...]:
        """Return the sky frames beside the target; where there are any, the sky is not scaled."""
        count = len(draft.frames)
        try:
            found = offset_skies(draft.frames.paths, self.mode, chosen_parameters(self.parameters, draft))
        except NiripipeError as error:
            draft.warnings.append(f"it is not known whether there are sky frames beside the target: {error}")
            return ()
        if found:
            own["skyCorrect:scale_sky"] = False
            draft.reasons.append(
                f"skyCorrect:scale_sky=False: {len(found)} of {count} frames show sky beside "
                "the target, as is done for extended sources, whose own light would be taken for sky"
            )
        else:
            draft.reasons.append(f"the sky is scaled to each frame: all {count} frames show the same field")
        return found


def _unite_masks(choice: Choice, draft: Draft, own: dict[str, Any], chosen: dict[str, Any]) -> None:
    """Add stored masks of other origins, such as the archive's static one, to the parameters of a job."""
    usable = [candidate for candidate in choice.explanation.candidates if candidate.usable]
    # A product of this night does not exist yet.
    origins = [
        (c, mask_origin(astrodata.open(c.path)) if Path(c.path).is_absolute() else MaskOrigin.MADE)
        for c in usable
    ]
    further = [c for c in masks_to_unite(origins)[1:] if Path(c.path).is_absolute()]
    if not further:
        return
    key = "addDQ:user_bpm"
    given = chosen.pop(key, None) or ()
    given = list(given) if isinstance(given, list | tuple) else [given]
    own[key] = [*given, *(c.path for c in further)]
    draft.reasons.append(f"{key}: united with the bad pixel mask: {', '.join(c.name for c in further)}")


def offset_skies(files: Sequence[str], mode: Mode, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Separate object and sky frames by their headers, with the primitive that does it in the reduction.

    Parameters
    ----------
    files : sequence of str
        Raw frames of one field and set-up.
    mode : str
        Mode of the reduction.
    parameters : mapping
        The user's parameters: those of ``separateSky`` count.

    Returns
    -------
    tuple of str
        Those files that show sky beside the target.

    Raises
    ------
    NiripipeError
        The pointing of a frame cannot be determined.
    """
    frames = [astrodata.open(path) for path in files]
    context = planning_context(mode, parameters)
    with RecipeRunner(RunReport("plan", mode, context.software, []), threads=1, droppable=False) as runner:
        p = NIRI({"main": frames}, context, runner)
        repair, separate = (NIRI.primitives()[name] for name in ("standardizeWCS", "separateSky"))
        repairing = resolve_call(p, repair, {}).params
        known = {} if repair.survey is None else repair.survey(p, frames, repairing)
        for frame in frames:
            # Broken coordinates are repaired as in the reduction; neither step reads pixels.
            repair.function(p, frame, repairing, known.get(id(frame)))
        objects = separate.function(p, frames, resolve_call(p, separate, {}).params)
        on_target = {id(frame) for frame in objects}
        skies = {id(sky) for sky in p.streams["sky"]} - on_target
        return tuple(path for path, frame in zip(files, frames, strict=True) if id(frame) in skies)


def _caltypes(draft: Draft) -> list[str]:
    """Return the types of calibration that a reduction uses.

    Darks are stacked and bad pixel masks made without calibrations. The archive associates no darks with
    standards; one that fits is used nevertheless.
    """
    if draft.kind in ("dark", "bpm"):
        return []
    types = [t for t in applicable_types(draft.frames.facts) if t.startswith("processed_")]
    if draft.of_sky:
        types = ["processed_dark", "processed_bpm"]
    elif draft.kind in ("standard", "science"):
        types = ["processed_dark", "processed_flat", *types]
    if draft.kind == "science":
        types.append("processed_standard")
    return [caltype for caltype in _TYPES if caltype in types]


def _why_none(choice: Choice) -> str:
    """Return in one sentence why there is no calibration."""
    explanation = choice.explanation
    if not explanation.candidates:
        return f"there is no {explanation.caltype} in {explanation.store}"
    nearest = explanation.candidates[0]
    return f"no {explanation.caltype} fits (nearest {nearest.name}: {'; '.join(nearest.faults)})"


class AvailableCalibrations:
    """The calibrations that the night will make, and those in a store.

    Parameters
    ----------
    drafts : sequence of Draft
        The reductions that make calibrations, with names.
    service : CalibrationService or None
        Holds further calibrations.
    mode : str
        Mode of the reductions.
    """

    def __init__(self, drafts: Sequence[Draft], service: CalibrationService | None, mode: Mode) -> None:
        self._products = [(draft.name, draft.caltype, product_facts(draft, mode)) for draft in drafts]
        self._service = service
        self._mode = mode

    def choose(self, frames: FrameSet, caltype: str, *, required: bool = True) -> Choice:
        """Choose the best calibration for a set of frames; the first frame decides."""
        explanation, makers = self._explain(frames.facts, caltype)
        best = next((candidate for candidate in explanation.candidates if candidate.usable), None)
        if best is None:
            return Choice(None, explanation)
        usable = [candidate for candidate in explanation.candidates if candidate.usable]

        def planned(candidate: Candidate, reason: str) -> PlannedCalibration:
            maker = makers.get(candidate.path)
            path = None if maker is not None else candidate.path
            return PlannedCalibration(caltype, candidate.name, maker, path, reason, required)

        is_standard = caltype == "processed_standard"
        airmass = frames.facts.airmass if is_standard else None
        further = usable[1:] if is_standard else []
        return Choice(
            planned(best, _reason(best, len(usable), airmass=airmass)),
            explanation,
            self._warnings(frames, best, caltype),
            [planned(other, f"for a joint fit: {_reason(other, 1, airmass=airmass)}") for other in further],
        )

    def drop(self, name: str) -> None:
        """Forget the product of a reduction that is not done."""
        self._products = [product for product in self._products if product[0] != name]

    def _explain(self, facts: CalibrationFacts, caltype: str) -> tuple[Explanation, dict[str, str]]:
        """Return all candidates, best first, and which reduction makes those that do not exist yet."""
        makers: dict[str, str] = {}
        own = []
        for job, kind, product in self._products:
            if kind == caltype:
                assessment = assess(facts, product, caltype, self._mode)
                own.append(Candidate(product.filename, product.filename, assessment))
                makers[product.filename] = job
        stored: list[Candidate] = []
        others: Mapping[str, int] = {}
        where = "this night"
        if self._service is not None:
            found = self._service.explain(facts, caltype, self._mode)
            # What the night makes anew replaces what an earlier run registered under the same name.
            stored = [candidate for candidate in found.candidates if candidate.name not in makers]
            others, where = found.others, f"this night and {found.store}"
        ranked = sorted(
            [*own, *stored],
            key=lambda c: (not c.usable, c.assessment.rank() if c.usable else (len(c.faults),)),
        )
        return Explanation(facts, caltype, ranked, store=where, others=others), makers

    def _warnings(self, frames: FrameSet, best: Candidate, caltype: str) -> list[str]:
        warnings = []
        stale, days = rules_for(caltype).stale_after, best.assessment.days
        if stale is not None and days is not None and abs(days) > stale:
            warnings.append(f"{best.name} is {abs(days):.0f} days away from the frames")
        misfits = [
            f"{frame.name}: {'; '.join(map(str, faults))}"
            for frame in frames.frames[1:]
            if (faults := assess(frame.facts, best.assessment.facts, caltype, self._mode).failed)
        ]
        if misfits:
            warnings.append(f"{best.name} does not fit {len(misfits)} of the frames ({misfits[0]})")
        return warnings


def _reason(best: Candidate, usable: int, *, airmass: float | None = None) -> str:
    """Return why a calibration is used; with the airmass of the frames, for a standard, that of both."""
    text = f"meets all {len(best.assessment.verdicts)} rules"
    days = best.assessment.days
    if days is not None:
        minutes = abs(days) * 1440
        size = f"{abs(days):.1f} d" if minutes >= 1440 else f"{minutes / 60:.1f} h"
        size = f"{minutes:.0f} min" if minutes < 60 else size
        text += (
            ", of the same time"
            if minutes < 0.5
            else f", {size} {'after' if days > 0 else 'before'} the frames"
        )
    theirs = best.assessment.facts.airmass
    compared = airmass is not None and theirs is not None
    if compared:
        text += f", airmass {theirs:.2f} for {airmass:.2f}"
    if usable > 1:
        text += f", the nearest in time{' and airmass' if compared else ''} of {usable} that fit"
    return text
