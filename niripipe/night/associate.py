"""Which calibration goes with which reduction: products of the night and of a store, by the same rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from niripipe.cal_service import (
    CalibrationFacts,
    CalibrationService,
    Candidate,
    Explanation,
    assess,
    rules_for,
)
from niripipe.night.jobs import CALTYPES, Draft, PlannedCalibration, product_facts
from niripipe.night.sets import FrameSet

__all__ = ["Choice", "Shelf"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The calibration chosen for a set of frames.

    Attributes
    ----------
    calibration : PlannedCalibration or None
    explanation : Explanation
        All candidates against all rules, for the first frame of the set.
    warnings : tuple of str
        Age, or frames of the set that the calibration does not fit.
    """

    calibration: PlannedCalibration | None
    explanation: Explanation
    warnings: tuple[str, ...] = ()


class Shelf:
    """The calibrations that can be had: those that the night will make, and those in a store.

    Parameters
    ----------
    drafts : sequence of Draft
        The reductions that make calibrations, with names.
    service : CalibrationService or None
        Holds further calibrations.
    mode : str
        Mode of the reductions.
    """

    def __init__(self, drafts: Sequence[Draft], service: CalibrationService | None, mode: str) -> None:
        self._products = [(draft.name, CALTYPES[draft.kind], product_facts(draft, mode)) for draft in drafts]
        self._service = service
        self._mode = mode

    def choose(self, frames: FrameSet, caltype: str, *, required: bool = True) -> Choice:
        """Choose the best calibration for a set of frames; the first frame decides."""
        explanation, makers = self._explain(frames.facts, caltype)
        best = next((candidate for candidate in explanation.candidates if candidate.usable), None)
        if best is None:
            return Choice(None, explanation)
        maker = makers.get(best.path)
        planned = PlannedCalibration(
            caltype=caltype,
            name=best.name,
            job=maker,
            path=None if maker is not None else best.path,
            reason=_reason(best, sum(candidate.usable for candidate in explanation.candidates)),
            required=required,
        )
        return Choice(planned, explanation, tuple(self._doubts(frames, best, caltype)))

    def _explain(self, facts: CalibrationFacts, caltype: str) -> tuple[Explanation, dict[str, str]]:
        """Return all candidates, best first, and which reduction makes those that do not exist yet."""
        makers: dict[str, str] = {}
        own = []
        for job, kind, product in self._products:
            if kind == caltype:
                assessment = assess(facts, product, caltype, self._mode)
                own.append(Candidate(product.filename, product.filename, assessment))
                makers[product.filename] = job
        stored, others, where = [], None, "this night"
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

    def _doubts(self, frames: FrameSet, best: Candidate, caltype: str) -> list[str]:
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


def _reason(best: Candidate, usable: int) -> str:
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
    if usable > 1:
        text += f", the nearest in time of {usable} that fit"
    return text
