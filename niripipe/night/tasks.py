"""The reductions of a night, done in any process: plain data in, plain data out, no calibration store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from niripipe.cal_service import CalibrationService, CalReturn, Explanation
from niripipe.cal_service.facts import Frame, as_facts
from niripipe.errors import NiripipeError
from niripipe.night.attempts import attempt
from niripipe.night.jobs import Job
from niripipe.night.result import JobResult, JobStatus
from niripipe.reduction import Mode, Progress, Reduce, RunReport

__all__ = ["Task", "TaskResult", "Terms", "do_job", "failure", "run_task", "skipped", "slim", "what_happened"]

Made = Mapping[str, JobResult]


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker needs to know to do one reduction.

    Attributes
    ----------
    name : str
        Name of the reduction.
    files : tuple of str
        Absolute paths of the inputs.
    recipe, mode : str
        As for ``Reduce``.
    parameters : dict
        Parameters of primitives.
    calibrations : dict of str to str
        Type to absolute path: all the calibrations that may be used.
    output_dir : str
        Absolute path of the folder of the product.
    threads : int or None
        Threads of the reduction.
    overwrite : bool
        Whether an older product may be replaced.
    """

    name: str
    files: tuple[str, ...]
    recipe: str
    mode: Mode
    parameters: dict[str, Any]
    calibrations: dict[str, str]
    output_dir: str
    threads: int | None = None
    overwrite: bool = True


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a worker says about one reduction.

    Attributes
    ----------
    name : str
        Name of the reduction.
    outputs : tuple of str
        Absolute paths of the products.
    report : RunReport or None
        What was done; None if nothing was started.
    error : Exception or None
        What stopped it.
    seconds : float
        Wall time.
    """

    name: str
    outputs: tuple[str, ...]
    report: RunReport | None
    error: Exception | None
    seconds: float


def run_task(task: Task, progress: Progress | None = None) -> TaskResult:
    """Do one reduction.

    Parameters
    ----------
    task : Task
        What to do.
    progress : Progress, optional
        Only for tasks that stay in this process.

    Returns
    -------
    TaskResult
        An error of bad data or parameters is part of the result; any other is raised.
    """
    started = time.perf_counter()
    reduction = Reduce(
        task.files,
        recipe=task.recipe,
        parameters=task.parameters,
        calibrations=NoStore(),
        output_dir=task.output_dir,
        mode=task.mode,
        threads=task.threads,
        progress=progress,
        overwrite=task.overwrite,
    )
    reduction.ucals = dict(task.calibrations)
    error = None
    try:
        reduction.runr()
    except NiripipeError as raised:
        error = raised
    outputs = () if error is not None else tuple(reduction.output_filenames)
    return TaskResult(task.name, outputs, reduction.report, error, time.perf_counter() - started)


class NoStore(CalibrationService):
    """A service without calibrations: a task uses those that it names, and none that happens to be around."""

    def get_calibrations(
        self, frames: Frame | Sequence[Frame], caltype: str, procmode: str | None = None, howmany: int = 1
    ) -> CalReturn:
        """Return that there is none."""
        count = len(frames) if isinstance(frames, Sequence) and not isinstance(frames, str) else 1
        return CalReturn([None] * count, [None] * count, [[] for _ in range(count)])

    def explain(self, frame: Frame, caltype: str, procmode: str | None = None) -> Explanation:
        """Return an explanation without candidates."""
        return Explanation(as_facts(frame), caltype, (), store="the plan of the night")


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all the reductions of a run.

    Attributes
    ----------
    output_dir : str
        Absolute path of the folder of the products.
    threads : int or None
        Threads of each reduction.
    overwrite : bool
        Whether products may replace files that were there before the run.
    kept : frozenset of str
        The names of those files, if they may not be replaced.
    notes : str or None
        Folder for `attempt`; None for reductions in the process that gives the orders.
    """

    output_dir: str
    threads: int | None = None
    overwrite: bool = True
    kept: frozenset[str] = frozenset()
    notes: str | None = None


def do_job(
    job: Job, number: int, terms: Terms, *made: JobResult, progress: Progress | None = None
) -> JobResult:
    """Do a reduction, or say why it is skipped.

    Parameters
    ----------
    job : Job
        What to do.
    number : int
        Its position in the plan.
    terms : Terms
    *made : JobResult
        What became of the reductions that it depends on.
    progress : Progress, optional
        Only in the process that gives the orders.

    Returns
    -------
    JobResult
        An error of bad data or parameters is part of the result; any other is raised.
    """
    results = {result.name: result for result in made}
    found = skipped(job, results)
    if found is not None:
        return found
    calibrations, notes = _calibrations(job, results)
    task = Task(
        name=job.name,
        files=job.files,
        recipe=job.recipe,
        mode=job.mode,
        parameters=dict(job.parameters),
        calibrations=calibrations,
        output_dir=terms.output_dir,
        threads=terms.threads,
        overwrite=terms.overwrite,
    )
    with contextlib.ExitStack() as stack:
        if terms.notes is not None and stack.enter_context(attempt(Path(terms.notes), number)):
            _remove_earlier_product(job, terms)
        # A task may be sent to another process and has no progress there.
        done = run_task(task) if progress is None else run_task(task, progress)
    if done.error is not None:
        return replace(failure(job, done.error), report=done.report, seconds=done.seconds)
    return JobResult(
        job.name,
        job.kind,
        JobStatus.DONE,
        outputs=done.outputs,
        report=done.report,
        seconds=done.seconds,
        notes=notes,
    )


def skipped(job: Job, made: Made) -> JobResult | None:
    """Return the result of a reduction that has to be skipped, or None if it can be done."""
    for calibration in job.calibrations:
        if calibration.job is None or not calibration.required:
            continue
        maker = made[calibration.job]
        if not _has_product(maker):
            reason = f"{calibration.caltype} is missing: {maker.name} {what_happened(maker)}"
            return JobResult(job.name, job.kind, JobStatus.SKIPPED, reason)
    return None


def failure(job: Job, error: Exception) -> JobResult:
    """Return the result of a reduction that an error stopped."""
    text = str(error) if isinstance(error, NiripipeError) else f"{type(error).__name__}: {error}"
    return JobResult(job.name, job.kind, JobStatus.FAILED, text, error=error)


def slim(result: JobResult) -> JobResult:
    """Return what others need to know of a result: not its report, nor its error itself."""
    return replace(result, report=None, error=None)


def what_happened(result: JobResult) -> str:
    """Return in words what became of a reduction that was not done."""
    return "was skipped" if result.status is JobStatus.SKIPPED else f"failed: {result.reason}"


def _calibrations(job: Job, made: Made) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the calibrations by type, and what is said of those that are missing."""
    found: dict[str, str] = {}
    notes = []
    for calibration in job.calibrations:
        if calibration.job is None:
            found[calibration.caltype] = str(calibration.path)
        elif _has_product(maker := made[calibration.job]):
            found[calibration.caltype] = maker.outputs[0]
        else:
            notes.append(f"done without {calibration.caltype}: {maker.name} {what_happened(maker)}")
    return found, tuple(notes)


def _has_product(result: JobResult) -> bool:
    return result.status is JobStatus.DONE and bool(result.outputs)


def _remove_earlier_product(job: Job, terms: Terms) -> None:
    """Remove the product of an earlier attempt of this run, which would be taken for a file to be kept."""
    if not terms.overwrite and job.product not in terms.kept:
        (Path(terms.output_dir) / job.product).unlink(missing_ok=True)
