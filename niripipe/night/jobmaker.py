"""Turning drafts into jobs: calibrations, parameters, and what becomes of a set that lacks something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from niripipe.cal_service import Explanation, applicable_types
from niripipe.night.associate import Choice, Shelf
from niripipe.night.frames import LeftOut
from niripipe.night.jobs import RECIPES, Draft, Job
from niripipe.night.settings import NightSettings
from niripipe.night.skies import offset_skies

__all__ = ["JobMaker"]

_TYPES = ("processed_bpm", "processed_dark", "processed_flat")


class JobMaker:
    """Turns drafts into jobs.

    Parameters
    ----------
    shelf : Shelf
        The calibrations that can be had.
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

    def __init__(
        self,
        shelf: Shelf,
        settings: NightSettings,
        mode: str,
        parameters: Mapping[str, Mapping[str, Any]],
        recipes: Mapping[str, str],
    ) -> None:
        self.left_out: list[LeftOut] = []
        self.explanations: dict[tuple[str, str], Explanation] = {}
        self._shelf = shelf
        self._settings = settings
        self._mode = mode
        self._parameters = parameters
        self._recipes = recipes

    def job(self, draft: Draft) -> Job | None:
        """Return the job of a draft, or None if it cannot be done."""
        choices: dict[str, Choice] = {}
        for caltype in _caltypes(draft):
            choice = self._shelf.choose(draft.frames, caltype, required=caltype != "processed_bpm")
            choices[caltype] = choice
            self.explanations[draft.name, caltype] = choice.explanation
            draft.warnings += choice.warnings
        own: dict[str, Any] = {}
        skies: tuple[str, ...] = ()
        if draft.kind in ("standard", "science"):
            if self._lacking(draft, choices, own):
                return None
            skies = self._skies(draft, own)
        elif "processed_bpm" in choices and choices["processed_bpm"].calibration is None:
            draft.warnings.append(_no_mask(choices["processed_bpm"]))
        chosen = _for_job(self._parameters, draft)
        draft.reasons += [f"{key}={value!r}: set by the user" for key, value in chosen.items()]
        return Job(
            name=draft.name,
            kind=draft.kind,
            files=draft.files,
            recipe=self._recipes.get(draft.name, self._recipes.get(draft.kind, RECIPES[draft.kind])),
            parameters=own | chosen,
            calibrations=tuple(c.calibration for c in choices.values() if c.calibration is not None),
            product=draft.product(self._mode),
            mode=self._mode,
            sky_files=skies,
            reasons=tuple(draft.reasons),
            warnings=tuple(draft.warnings),
        )

    def _lacking(self, draft: Draft, choices: Mapping[str, Choice], own: dict[str, Any]) -> bool:
        """Switch off the steps that have no calibration; return whether the set is left out for it."""
        if choices["processed_bpm"].calibration is None:
            draft.warnings.append(_no_mask(choices["processed_bpm"]))
        for caltype, step, rule in (
            ("processed_dark", "darkCorrect", self._settings.without_dark),
            ("processed_flat", "flatCorrect", self._settings.without_flat),
        ):
            choice = choices[caltype]
            if choice.calibration is not None:
                continue
            why = _why_none(choice)
            routine = caltype == "processed_dark" and draft.kind == "standard"
            if rule == "leave out" and not routine:
                self.left_out += [
                    LeftOut(path, f"{draft.name} cannot be reduced: {why}") for path in draft.frames.paths
                ]
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

    def _skies(self, draft: Draft, own: dict[str, Any]) -> tuple[str, ...]:
        """Return the sky frames beside the target; where there are any, the sky is not scaled."""
        chosen = _for_job(self._parameters, draft)
        found = offset_skies(draft.frames.paths, self._mode, chosen)
        if found.fault:
            draft.warnings.append(
                f"it is not known whether there are sky frames beside the target: {found.fault}"
            )
        elif found.offset:
            own["skyCorrect:scale_sky"] = False
            draft.reasons.append(
                f"skyCorrect:scale_sky=False: {len(found.offset)} of {found.frames} frames show sky beside "
                "the target, as is done for extended sources, whose own light would be taken for sky"
            )
        else:
            draft.reasons.append(
                f"the sky is scaled to each frame: all {found.frames} frames show the same field"
            )
        return found.offset


def _caltypes(draft: Draft) -> list[str]:
    """Return the types of calibration that a reduction uses.

    Darks are stacked and bad pixel masks made without calibrations. The archive associates no darks with
    standards; one that fits is used nevertheless.
    """
    if draft.kind in ("dark", "bpm"):
        return []
    types = [t for t in applicable_types(draft.frames.facts) if t.startswith("processed_")]
    if draft.kind in ("standard", "science"):
        types = ["processed_dark", "processed_flat", *types]
    return [caltype for caltype in _TYPES if caltype in types]


def _for_job(parameters: Mapping[str, Mapping[str, Any]], draft: Draft) -> dict[str, Any]:
    return {**parameters.get(draft.kind, {}), **parameters.get(draft.name, {})}


def _why_none(choice: Choice) -> str:
    """Return in one sentence why there is no calibration."""
    explanation = choice.explanation
    if not explanation.candidates:
        return f"there is no {explanation.caltype} in {explanation.store}"
    nearest = explanation.candidates[0]
    return f"no {explanation.caltype} fits (nearest {nearest.name}: {'; '.join(nearest.faults)})"


def _no_mask(choice: Choice) -> str:
    return f"no bad pixel mask is applied: {_why_none(choice)}"
