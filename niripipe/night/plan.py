"""The plan of a night: what will be reduced, in which order, with what, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from niripipe import astrodata
from niripipe.astrodata.display import html_list
from niripipe.cal_service import CalibrationService, Explanation
from niripipe.cal_service.rules import full_type
from niripipe.errors import InputError, NiripipeError, ParameterError
from niripipe.inspection import Table
from niripipe.inspection.recipes import planned
from niripipe.night.colours import add_colours
from niripipe.night.frames import LeftOut, root_name
from niripipe.night.html import leave_report
from niripipe.night.jobs import KINDS, Job, PlannedCalibration, chosen_parameters, product_name, set_by_user
from niripipe.night.log import log_file
from niripipe.night.result import NightResult, named
from niripipe.night.run import run_jobs
from niripipe.night.settings import NightSettings
from niripipe.primitives.params import nearest
from niripipe.printable import printable
from niripipe.reduction import Mode, Plan

if TYPE_CHECKING:
    from distributed import Client

    from niripipe.reduction import Progress

__all__ = ["NightPlan"]


@dataclass(frozen=True, slots=True, repr=False)
class NightPlan:
    """What will be done with a night; iterating gives its reductions in order.

    Attributes
    ----------
    jobs : tuple of Job
        The reductions, in an order in which they can be run.
    left_out : tuple of LeftOut
        The files that no reduction uses, with the reasons.
    notes : tuple of str
        What concerns the night as a whole.
    explanations : dict
        ``(name of a reduction, calibration type)`` to every candidate against every rule; see `explain`.
    mode : str
        ``sq``, ``ql`` or ``qa``.
    settings : NightSettings
        How the frames were sorted.
    calibrations : CalibrationService or None
        Where further calibrations were looked for.
    """

    jobs: tuple[Job, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    explanations: dict[tuple[str, str], Explanation] = field(default_factory=dict)
    mode: Mode = "sq"
    settings: NightSettings = field(default_factory=NightSettings)
    calibrations: CalibrationService | None = None

    def job(self, name: str) -> Job:
        """Return a reduction by its name; the name of a kind will do where there is one of the kind.

        Raises
        ------
        InputError
            There is none of that name, or several of that kind.
        """
        return named(self.jobs, name, "There is no such reduction in the plan")

    def explain(self, name: str, caltype: str) -> Explanation:
        """Return why a calibration was chosen for a reduction, or none: all candidates against all rules.

        Raises
        ------
        InputError
            There is no such reduction, or it needs no calibration of this type.
        """
        job = self.job(name)
        wanted = full_type(caltype)
        if (job.name, wanted) not in self.explanations:
            types = [kind for owner, kind in self.explanations if owner == job.name]
            raise InputError(
                f"{job.name} needs no such calibration",
                item="caltype",
                found=caltype,
                expected=", ".join(types) or "none: it needs no calibrations",
            )
        return self.explanations[job.name, wanted]

    def used_by(self, name: str) -> tuple[str, ...]:
        """Return the names of the reductions that use the product of another."""
        return tuple(job.name for job in self.jobs if name in job.depends_on)

    def with_parameters(self, parameters: Mapping[str, Mapping[str, Any]]) -> NightPlan:
        """Return the plan with parameters of some reductions changed.

        Parameters
        ----------
        parameters : mapping of str to mapping
            By kind or name of the reduction, as for `organise`.

        Raises
        ------
        ParameterError
            No such reduction, an unknown parameter, or a value that is refused.
        """
        jobs = []
        for job in self.jobs:
            chosen = chosen_parameters(parameters, job)
            reasons = (*job.reasons, *set_by_user(chosen))
            jobs.append(replace(job, parameters=job.parameters | chosen, reasons=reasons))
        return replace(self, jobs=tuple(jobs)).checked(parameters, {})

    def checked(self, parameters: Mapping[str, Mapping[str, Any]], recipes: Mapping[str, str]) -> NightPlan:
        """Return the plan after a check of recipes and parameters, with what the check warns about.

        Raises
        ------
        InputError, ParameterError
            All that is wrong, in one error.
        """
        # The same fault in several reductions of a kind is one fault.
        faults: dict[str, tuple[NiripipeError, list[str]]] = {
            str(error): (error, []) for error in _unknown_reductions(self.jobs, {**parameters, **recipes})
        }
        jobs = []
        for job in self.jobs:
            try:
                plan, _ = planned(astrodata.open(job.files[0]), job.recipe, job.mode, job.parameters)
            except NiripipeError as error:
                faults.setdefault(str(error), (error, []))[1].append(job.name)
            else:
                new = [text for text in plan.warnings if text not in job.warnings]
                jobs.append(replace(job, warnings=(*job.warnings, *new), product=_product(job, plan)))
        _raise(list(faults.values()))
        return replace(self, jobs=tuple(jobs))

    def run(
        self,
        output_dir: str | PathLike[str],
        *,
        calibrations: CalibrationService | None = None,
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        progress: bool | Progress | None = None,
        threads: int | None = None,
        executor: Executor | Client | None = None,
        overwrite: bool = True,
        log: bool = True,
        reuse: bool = True,
        report: bool = True,
        png: bool = False,
        colours: bool = True,
    ) -> NightResult:
        """Reduce everything, in the right order.

        Products are registered with the calibration service as soon as they exist. A reduction that fails
        does not stop the others: it is recorded with its error, and those that need its product are recorded
        as skipped; without a bad pixel mask a reduction goes on.

        Parameters
        ----------
        output_dir : path-like
            Folder of the products; made if need be.
        calibrations : CalibrationService, optional
            Gets the processed calibrations; by default the service that the plan was made with, else one with
            its store in `output_dir`.
        parameters : mapping of str to mapping, optional
            As for `with_parameters`.
        progress : bool or Progress, optional
            Show how far the work is; with an executor, in whole reductions.
        threads : int, optional
            Threads of each reduction; by default as many as ``Reduce`` takes, and one with an executor.
        executor : concurrent.futures.Executor or distributed.Client, optional
            Runs the reductions, those that are independent at the same time. Tasks are plain data, and only
            this process uses the calibration store. The products are those of the serial run. Workers on
            other computers must see inputs and `output_dir` under the same paths. See the notes for workers
            that are lost.
        overwrite : bool
            Whether products may replace older files of the same name.
        log : bool
            Whether what happens is written into ``night.log`` in `output_dir`, after what is there already.
        reuse : bool
            Whether a reduction is left out whose product an earlier run wrote into `output_dir`, if its
            inputs, calibrations and product have the same content and recipe, parameters and version of
            niripipe are the same. The result says so. ``night.json`` in `output_dir` keeps account.
        report : bool
            Whether a report is left as ``night.html`` in `output_dir`, see `NightResult.to_html`.
        png : bool
            Whether a picture of each product is left beside it.
        colours : bool
            Whether targets with stacks in several filters get the stacks on one grid (``_common.fits``), a
            matched catalogue (``_colours.fits``, see `niripipe.photometry.match_catalogues`) and, of three
            filters, a picture (``_rgb.png``). `NightResult.colours` has their paths; the notes of the first
            stack name them, or say why there are none. Files older than their stacks are made again.

        Returns
        -------
        NightResult

        Raises
        ------
        ParameterError
            See `with_parameters`; or `executor` is neither, or a client that is closed or asynchronous.
            Nothing is done then.
        InputError
            The plan lacks a reduction that others need.
        StorageError
            The folder cannot be made.

        Notes
        -----
        When a worker of dask.distributed is lost, its reduction is done again on another, as often as dask's
        setting ``distributed.scheduler.allowed-failures`` allows (3 by default), and then recorded as failed;
        where several were lost, each is tried once more alone before that. A broken pool of processes cannot
        be repaired: what was not done is recorded as failed, and a new run with a new pool is up to the
        caller. Either way products are complete or not there, and the unfinished files of lost processes are
        removed at the end of the run.
        """
        plan = self if parameters is None else self.with_parameters(parameters)
        service = self.calibrations if calibrations is None else calibrations
        folder = Path(output_dir)
        result = run_jobs(plan.jobs, folder, service, progress, threads, executor, overwrite, log, reuse)
        result = replace(result, plan=plan)
        if colours:
            with log_file(result.output_dir, wanted=log):
                result = replace(result, results=add_colours(result.results))
        if report or png:
            with log_file(result.output_dir, wanted=log):
                leave_report(result, report=report, png=png)
        return result

    def table(self) -> Table:
        """Return the reductions in order, one a row.

        Columns ``order``, ``reduction``, ``files``, ``inputs``, ``recipe``, ``product``, ``uses`` (the
        calibrations); the rows also hold ``kind`` and ``depends_on``.
        """
        rows = [
            {
                "order": number,
                "reduction": job.name,
                "files": len(job.files),
                "inputs": _span(job.files),
                "recipe": job.recipe,
                "product": job.product,
                "uses": "\n".join(calibration.name for calibration in job.calibrations),
                "kind": job.kind,
                "depends_on": job.depends_on,
            }
            for number, job in enumerate(self.jobs, 1)
        ]
        columns = ["order", "reduction", "files", "inputs", "recipe", "product", "uses"]
        return Table(columns, rows, title=self.summary)

    @property
    def summary(self) -> str:
        """One line: how many reductions of how many files, and how many files are left out."""
        used = {path for job in self.jobs for path in job.files}
        return (
            f"{len(self.jobs)} reductions of {len(used)} raw frames; "
            f"{len(self.left_out) or 'no'} file{'s are' if len(self.left_out) != 1 else ' is'} left out"
        )

    def __len__(self) -> int:
        return len(self.jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs)

    def __str__(self) -> str:
        lines = [self.summary, *(f"note: {note}" for note in self.notes)]
        for number, job in enumerate(self.jobs, 1):
            lines += ["", f"{number}. {job.name}"]
            lines += [f"   {label:<12s}{text}" for label, text in self._entries(job)]
        if self.left_out:
            lines += ["", "left out:"]
            lines += [f"   {names}: {reason}" for reason, names in _by_reason(self.left_out)]
        return printable("\n".join(lines), lines=True)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = ""
        for number, job in enumerate(self.jobs, 1):
            entries = "".join(
                f"<div><i>{escape(label)}</i> {escape(text)}</div>" for label, text in self._entries(job)
            )
            cell = '<td style="text-align:left;vertical-align:top">'
            rows += f"<tr>{cell}{number}</td>{cell}<b>{escape(job.name)}</b></td>{cell}{entries}</td></tr>"
        left_out = [f"left out: {names}: {reason}" for reason, names in _by_reason(self.left_out)]
        notes = html_list([*self.notes, *left_out])
        return f"<p><b>{escape(self.summary)}</b></p><table>{rows}</table>{notes}"

    def _entries(self, job: Job) -> list[tuple[str, str]]:
        """Return what is said of a reduction, as labelled lines."""
        entries = [
            ("inputs", f"{len(job.files)} file{'s' * (len(job.files) != 1)}: {_span(job.files)}"),
            ("recipe", f"{job.recipe} -> {job.product}"),
        ]
        if job.sky_files:
            entries.append(("sky beside", f"{len(job.sky_files)} of them: {_span(job.sky_files)}"))
        if job.parameters:
            entries.append(("parameters", ", ".join(f"{k}={v!r}" for k, v in job.parameters.items())))
        entries += [(c.caltype.removeprefix("processed_"), _calibration_text(c)) for c in job.calibrations]
        if users := self.used_by(job.name):
            entries.append(("used by", "; ".join(users)))
        entries += [("why", reason) for reason in job.reasons]
        return entries + [("warning", warning) for warning in job.warnings]


def _product(job: Job, plan: Plan) -> str:
    """Return the expected name of a product: that of the first frame of the target that the recipe keeps."""
    files = list(job.files)
    if job.kind in ("standard", "science"):
        for step in plan.steps:
            if step.primitive == "removeFirstFrame" and not step.resolved.skip_primitive:
                params = step.resolved.params.as_record()
                dropped = {root_name(Path(name).name) for name in params["remove_files"] or ()}
                # Of two frames both are kept.
                files = files[1:] if params["remove_first"] and len(files) > 2 else files
                files = [path for path in files if root_name(Path(path).name) not in dropped]
    shown = [path for path in files if path not in job.sky_files]
    name = product_name((shown or list(job.files))[0], job.kind, job.mode, job.recipe)
    return str(Path(job.folder) / name)


def _raise(faults: Sequence[tuple[NiripipeError, Sequence[str]]]) -> None:
    """Raise the only fault, or all in one error, with the reductions that each is about."""
    if len(faults) == 1:
        error, names = faults[0]
        if names:
            error.add_note(f"in the plan of: {'; '.join(names)}")
        raise error
    if faults:
        text = "\n".join("; ".join(names) + (": " if names else "") + str(error) for error, names in faults)
        raise ParameterError(f"{len(faults)} faults found in the plan of the night:\n{text}")


def _unknown_reductions(jobs: Sequence[Job], given: Mapping[str, Any]) -> list[NiripipeError]:
    names = [job.name for job in jobs]
    faults: list[NiripipeError] = []
    for key in given:
        if key not in names and key not in KINDS:
            faults.append(
                ParameterError(
                    "There is no such reduction in the plan",
                    item=key,
                    expected=", ".join([*KINDS, *names]),
                    remedy=nearest(key, [*names, *KINDS]),
                )
            )
        elif not isinstance(given[key], (Mapping, str)):
            faults.append(
                ParameterError(
                    "The parameters of a reduction are a mapping",
                    item=key,
                    found=repr(given[key]),
                    expected="{'primitive:parameter': value}",
                )
            )
    return faults


def _calibration_text(calibration: PlannedCalibration) -> str:
    source = f"made by {calibration.job}" if calibration.job is not None else str(calibration.path)
    return f"{calibration.name} ({source}): {calibration.reason}"


def _span(files: Sequence[str]) -> str:
    """Return file names in few words: runs of consecutive numbers by their ends."""
    runs: list[list[str]] = []
    for name in (Path(path).name for path in files):
        if runs and _follows(root_name(runs[-1][-1]), root_name(name)):
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(
        run[0] if len(run) == 1 else f"{root_name(run[0])} - {root_name(run[-1])}" for run in runs
    )


def _follows(before: str, name: str) -> bool:
    head, tail = before[:-4], before[-4:]
    return tail.isdigit() and name == f"{head}{int(tail) + 1:04d}"


def _by_reason(left_out: Sequence[LeftOut]) -> list[tuple[str, str]]:
    found: dict[str, list[str]] = {}
    for item in left_out:
        found.setdefault(item.reason, []).append(item.path)
    return [(reason, _span(paths)) for reason, paths in found.items()]
