"""What a reduction would do: the recipe's calls, parameters and calibrations, before a pixel is read."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from niripipe.astrodata import AstroData
from niripipe.astrodata.display import html_list, html_table
from niripipe.cal_service import choice_warning
from niripipe.errors import CalibrationError, NiripipeError, ParameterError
from niripipe.primitives.base import Context, Outcome, Primitive, PrimitivesBase
from niripipe.primitives.bookkeeping import RemoveFirstFrameParams, dropped_first
from niripipe.primitives.calibrate import misfit
from niripipe.primitives.calibrations import CalibrationBook, FoundCalibration
from niripipe.primitives.params import (
    PSEUDO_PARAMETERS,
    CalibrationParams,
    Origin,
    Resolved,
    nearest,
    unknown_parameter,
)
from niripipe.primitives.standardize import AddDQParams
from niripipe.printable import printable
from niripipe.reduction.foresight import NamedStreams, folder_faults, product_faults
from niripipe.reduction.runner import StreamArguments, resolve_call

__all__ = ["Plan", "PlannedStep", "make_plan", "unknown_names"]

_MASKS = ("static_bpm", "user_bpm")
"""Parameters that take a bad pixel mask."""

_CHOOSE = frozenset({"selectFromInputs", "removeFromInputs", "rejectInputs", "clearStream"})
"""Primitives that only choose frames, by headers."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One call that the recipe makes.

    Attributes
    ----------
    primitive, stream : str
    resolved : Resolved
        Parameters and where each comes from.
    """

    primitive: str
    stream: str
    resolved: Resolved


@dataclass(slots=True, repr=False)
class Plan:
    """What a reduction would do; prints as text and renders as a table in a notebook.

    Attributes
    ----------
    recipe, mode : str
    files : list of str
    steps : list of PlannedStep
    calibrations : dict
        ``(file name, calibration type)`` to the calibration that would be used.
    faults : list of NiripipeError
        Everything that would stop the reduction.
    warnings : list of str
        What the user may want to know before.
    """

    recipe: str
    mode: str
    files: list[str]
    steps: list[PlannedStep] = field(default_factory=list)
    calibrations: dict[tuple[str, str], str] = field(default_factory=dict)
    faults: list[NiripipeError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raise what would stop the reduction; several faults are raised as one error.

        Raises
        ------
        NiripipeError
            Of the kind of the faults; ParameterError if they are of several kinds.
        """
        if not self.faults:
            return
        if len(self.faults) == 1:
            raise self.faults[0]
        text = f"{len(self.faults)} faults found before the reduction was started:\n" + "\n".join(
            str(fault) for fault in self.faults
        )
        candidates = [row for f in self.faults if isinstance(f, CalibrationError) for row in f.candidates]
        if all(isinstance(fault, CalibrationError) for fault in self.faults):
            raise CalibrationError(text, candidates=candidates)
        kinds = {type(fault) for fault in self.faults}
        raise kinds.pop()(text) if len(kinds) == 1 else ParameterError(text)

    def __str__(self) -> str:
        lines = [f"{self.recipe} ({self.mode}) on {len(self.files)} files"]
        for step in self.steps:
            lines.append(f"  {step.primitive:<24s}{step.stream:<16s}{_changed(step.resolved)}")
        return printable("\n".join([*lines, *(f"  {note}" for note in self._notes())]), lines=True)

    __repr__ = __str__

    def _notes(self) -> list[str]:
        notes = [f"{name}: {caltype} {cal}" for (name, caltype), cal in sorted(self.calibrations.items())]
        return [*notes, *(f"warning: {w}" for w in self.warnings), *(f"fault: {f}" for f in self.faults)]

    def _repr_html_(self) -> str:
        rows = [(step.primitive, step.stream, _changed(step.resolved)) for step in self.steps]
        return (
            f"<p><b>{html.escape(self.recipe)}</b> ({html.escape(self.mode)}) on {len(self.files)} files</p>"
            f"{html_table(('primitive', 'stream', 'not default'), rows)}{html_list(self._notes())}"
        )


def make_plan(
    recipe: Callable[[Any], None],
    primitives: type[PrimitivesBase],
    frames: Sequence[AstroData],
    context: Context,
    *,
    follow: bool = True,
    inputs: Sequence[Path] = (),
    suffix: str | None = None,
) -> Plan:
    """Run a recipe with primitives that only note how they are called, and look up its calibrations.

    Parameters
    ----------
    recipe : callable
    primitives : type of PrimitivesBase
    frames : sequence of AstroData
        Opened inputs; their pixels are not read.
    context : Context
    follow : bool
        Whether to run the recipe. Without it only the output folder and the names of the user's parameters
        are checked.
    inputs : sequence of pathlib.Path
        The files of the frames, which no product may replace.
    suffix : str, optional
        The user's suffix of the products.

    Returns
    -------
    Plan
        With all faults found: unknown or refused parameters, calibrations that are missing or do not fit,
        products that exist and may not be replaced, an output folder that cannot be written.
    """
    plan = Plan(recipe.__name__, context.mode, [str(frame.filename) for frame in frames])
    unknown = unknown_names(primitives, context.parameters)
    plan.faults += unknown + folder_faults(context.output_dir, frames)
    if unknown or not follow:
        return plan
    notes = _Notes(plan, NamedStreams(frames, context.mode))
    p = primitives({"main": list(frames)}, context, notes)
    try:
        recipe(p)
    except Exception as error:
        # A recipe of the user's own may look at what its primitives made, which a plan does not make.
        plan.warnings.append(f"the plan ends here: the recipe needs results ({error})")
    for primitive, resolved in notes.calibrated:
        _look_up(notes, primitive, resolved, frames, context)
    names = [*notes.names.stored, *notes.names.final(p.streams["main"], suffix)]
    for fault in product_faults(
        names, context.output_dir, inputs, overwrite=context.overwrite, mode=context.mode
    ):
        notes.fault(fault)
    called = {step.primitive for step in plan.steps}
    for key in context.parameters:
        name = key.partition(":")[0]
        if ":" in key and name not in called:
            plan.warnings.append(f"{key} has no effect: {plan.recipe} does not call {name}")
    return plan


class _Notes:
    """A runner that runs nothing."""

    def __init__(self, plan: Plan, names: NamedStreams) -> None:
        self.plan = plan
        self.names = names
        self.calibrated: list[tuple[Primitive, Resolved]] = []

    def call(
        self,
        owner: PrimitivesBase,
        primitive: Primitive,
        frames: list[AstroData] | None,
        keywords: Mapping[str, Any],
    ) -> list[AstroData]:
        remaining = dict(keywords)
        streams = StreamArguments(remaining, primitive)
        inputs = owner.streams.get(streams.source, []) if frames is None else frames
        try:
            resolved = resolve_call(owner, primitive, remaining)
        except ParameterError as error:
            self.fault(error)
            return inputs
        self.plan.steps.append(PlannedStep(primitive.name, str(streams), resolved))
        self._open_given(owner, resolved)
        if primitive.precheck is not None and not resolved.skip_primitive:
            for problem in primitive.precheck(owner, inputs, resolved.params):
                self.fault(problem)
        if isinstance(resolved.params, CalibrationParams) and not resolved.skip_primitive:
            self.calibrated.append((primitive, resolved))
        if isinstance(resolved.params, AddDQParams) and not resolved.skip_primitive:
            self._note_masks(owner, resolved.params, inputs)
        outputs = self.names.call(primitive, resolved, self._chosen(owner, primitive, resolved, inputs))
        if frames is None:
            owner.streams[streams.target] = list(outputs)
        return outputs

    def _chosen(
        self, owner: PrimitivesBase, primitive: Primitive, resolved: Resolved, frames: list[AstroData]
    ) -> list[AstroData]:
        """Return the frames that a primitive which only chooses among them keeps."""
        if resolved.skip_primitive:
            return frames
        try:
            if isinstance(resolved.params, RemoveFirstFrameParams):
                drop = dropped_first(frames, resolved.params)
                return [frame for frame in frames if id(frame) not in drop] or frames
            if primitive.name in _CHOOSE:
                chosen: list[AstroData] = primitive.function(owner, frames, resolved.params)
                return chosen
        except NiripipeError as error:
            self.fault(error)
        return frames

    def _note_masks(self, owner: PrimitivesBase, params: AddDQParams, frames: Sequence[AstroData]) -> None:
        """Note which bad pixel masks each frame will get."""
        book = owner.context.calibrations
        chosen = (params.static_bpm, *(params.user_bpm or ()))
        # Files that cannot be opened are faults already.
        given = [one for one in chosen if isinstance(one, AstroData | Path) and _opens(book, one)]
        for frame in frames:
            found: list[FoundCalibration | None] = []
            if params.static_bpm == "default":
                try:
                    found += book.find_masks(frame)
                except NiripipeError as error:
                    self.fault(error)
            found += [book.find(frame, "processed_bpm", one) for one in given]
            if names := ", ".join(dict.fromkeys(one.name for one in found if one is not None)):
                self.plan.calibrations[str(frame.filename), "processed_bpm"] = names

    def _open_given(self, owner: PrimitivesBase, resolved: Resolved) -> None:
        """Open the files that parameters name, so that a fault is found now."""
        for name in type(resolved.params).model_fields:
            value = getattr(resolved.params, name)
            # A calibration of the step itself is opened when it is looked up.
            if name == getattr(resolved.params, "calibration_field", None):
                continue
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, Path | AstroData):
                    self._open_one(owner, name, one)

    def _open_one(self, owner: PrimitivesBase, name: str, given: Path | AstroData) -> None:
        try:
            frame = owner.context.calibrations.opened(given)
        except NiripipeError as error:
            error.item = error.item or name
            self.fault(error)
            return
        if name in _MASKS:
            self.warn(choice_warning(owner.streams.get("main", []), frame, "processed_bpm"))

    def warn(self, text: str | None) -> None:
        """Note a warning; one that several calls share is named once."""
        if text and text not in self.plan.warnings:
            self.plan.warnings.append(text)

    def fault(self, error: NiripipeError) -> None:
        """Note a fault; one that several calls share is named once."""
        if str(error) not in map(str, self.plan.faults):
            self.plan.faults.append(error)

    @property
    def workers(self) -> int:
        return 1

    def frame_by_frame(self) -> AbstractContextManager[None]:
        return nullcontext()

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        return [function(item) for item in items]

    def note(self, frame: AstroData, outcome: Outcome) -> None:
        pass

    def keep(self, frames: Iterable[AstroData]) -> None:
        pass

    def flush(self, frames: Iterable[AstroData]) -> int:
        return 0

    def remark(self, text: str) -> None:
        pass

    def drop(self, frame: AstroData, reason: str) -> None:
        pass

    def save(
        self,
        frame: AstroData,
        path: Path,
        *,
        overwrite: bool,
        named: bool = False,
        then: Callable[[Path], object] | None = None,
    ) -> None:
        pass


def _opens(book: CalibrationBook, given: AstroData | Path) -> bool:
    try:
        return book.opened(given) is not None
    except NiripipeError:
        return False


def unknown_names(primitives: type[PrimitivesBase], user: Mapping[str, Any]) -> list[NiripipeError]:
    """Return an error for every user parameter that no primitive has."""
    known = primitives.primitives()
    faults: list[NiripipeError] = []
    for key in user:
        name, separator, parameter = key.partition(":")
        if not separator:
            every = {field for primitive in known.values() for field in primitive.model.all_names()}
            every.update(PSEUDO_PARAMETERS)
            if key not in every:
                faults.append(
                    ParameterError("No primitive has this parameter", item=key, remedy=nearest(key, every))
                )
        elif name not in known:
            faults.append(
                ParameterError(f"There is no primitive {name!r}", item=key, remedy=nearest(name, known))
            )
        elif parameter not in known[name].model.all_names() and parameter not in PSEUDO_PARAMETERS:
            faults.append(unknown_parameter(name, parameter, known[name].model))
    return faults


def _look_up(
    notes: _Notes, primitive: Primitive, resolved: Resolved, frames: Sequence[AstroData], context: Context
) -> None:
    """Find the calibrations of one call; a choice of the user's that breaks a rule gets a warning."""
    params = resolved.params
    if not isinstance(params, CalibrationParams) or params.do_cal == "skip":
        return
    plan, book = notes.plan, context.calibrations
    required = params.do_cal == "force" or context.mode == "sq"
    try:
        if params.given is None:
            book.look_up(frames, params.caltype)
        found = [(frame, book.find(frame, params.caltype, params.given)) for frame in frames]
    except NiripipeError as error:
        notes.fault(error)
        return
    for frame, calibration in found:
        if calibration is not None:
            plan.calibrations[str(frame.filename), params.caltype] = calibration.name
    chosen = next((c for _, c in found if c is not None and c.origin in ("parameter", "user")), None)
    # What the recipe makes on its way is not there yet: a frame stands for it.
    if chosen is not None and not any(chosen.frame is frame for frame in frames):
        notes.warn(choice_warning(frames, chosen.frame, params.caltype))
        misfits = [fault for frame in frames if (fault := misfit(frame, chosen)) is not None]
        for fault in misfits[:1]:
            notes.fault(fault)
    missing = [
        frame
        for frame, calibration in found
        if calibration is None and (params.do_cal == "force" or book.is_prescribed(frame, params.caltype))
    ]
    if missing and required:
        # One frame's table explains the others of the same set-up.
        notes.fault(book.missing(missing[0], params.caltype))


def _changed(resolved: Resolved) -> str:
    values = resolved.params.as_record()
    changed = [
        f"{name}={values[name]!r} [{origin}]"
        for name, origin in resolved.origins.items()
        if origin is not Origin.DEFAULT
    ]
    return ", ".join((["skipped"] if resolved.skip_primitive else []) + changed)
