"""Running the plan of a night: in this process, on an executor, or as a graph on a cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from niripipe.cal_service import CalibrationService
from niripipe.errors import InputError, NiripipeError, ParameterError, StorageError
from niripipe.logutils import get_logger
from niripipe.night.attempts import attempts
from niripipe.night.cluster import ClusterClient, as_client, run_on_client
from niripipe.night.jobs import CALTYPES, Job
from niripipe.night.plan import NightPlan
from niripipe.night.result import JobResult, JobStatus, NightResult
from niripipe.night.tasks import Terms, do_job, failure, skipped, slim, what_happened
from niripipe.reduction import Progress
from niripipe.reduction.progress import NO_PROGRESS, as_progress

__all__ = ["Record", "run_plan"]

log = get_logger(__name__)


def run_plan(
    plan: NightPlan,
    output_dir: Path,
    *,
    service: CalibrationService | None = None,
    progress: bool | Progress | None = None,
    threads: int | None = None,
    executor: Executor | ClusterClient | None = None,
    overwrite: bool = True,
) -> NightResult:
    """Run a plan; see `NightPlan.run`, which is how to call it."""
    started = time.perf_counter()
    client = as_client(executor)
    if client is None and not isinstance(executor, (Executor, type(None))):
        raise ParameterError(
            "The executor cannot be used",
            item="executor",
            found=type(executor).__name__,
            expected="a concurrent.futures.Executor or a distributed.Client",
        )
    _check_order(plan.jobs)
    folder = output_dir.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            "The output folder cannot be made", file=folder, item="output_dir", found=error.strerror
        ) from None
    if service is None:
        service = CalibrationService()
        service.config(db_dir=folder)
        service.init()
    shown = as_progress(progress)
    terms = Terms(str(folder), threads, overwrite)
    try:
        if executor is None:
            record = Record(service, len(plan))
            _run_here(plan.jobs, terms, record, shown)
        else:
            record = Record(service, len(plan), shown)
            kept = frozenset() if overwrite else frozenset(path.name for path in folder.iterdir())
            with attempts(folder) as notes:
                terms = replace(terms, threads=threads or 1, kept=kept, notes=str(notes))
                if client is not None:
                    run_on_client(client, plan.jobs, terms, record)
                elif isinstance(executor, Executor):
                    _run_on_executor(executor, plan.jobs, terms, record)
    finally:
        shown.close()
    results = tuple(record.results[job.name] for job in plan.jobs)
    return NightResult(folder, results, service, time.perf_counter() - started)


class Record:
    """What has become of the reductions so far; alone talks to the calibration store.

    Parameters
    ----------
    service : CalibrationService
        Where the processed calibrations are registered.
    total : int
        How many reductions there are.
    progress : Progress, optional
        Is told of each that has ended.

    Attributes
    ----------
    results : dict of str to JobResult
        By name.
    """

    def __init__(self, service: CalibrationService, total: int, progress: Progress = NO_PROGRESS) -> None:
        self.results: dict[str, JobResult] = {}
        self._service = service
        self._total = total
        self._progress = progress

    def add(self, result: JobResult) -> None:
        """Note a result, and register the product if it is a calibration."""
        if result.status is JobStatus.DONE:
            result = replace(result, notes=(*result.notes, *self._register(result)))
        else:
            log.warning("%s %s", result.name, what_happened(result))
        self.results[result.name] = result
        self._progress.update("reductions", len(self.results), self._total)

    def made_for(self, job: Job) -> list[JobResult]:
        """Return what became of the reductions that a job depends on, as it is sent to a worker."""
        return [slim(self.results[name]) for name in job.depends_on]

    def ready(self, job: Job) -> bool:
        """Return whether all have ended that a job depends on."""
        return all(name in self.results for name in job.depends_on)

    def _register(self, result: JobResult) -> list[str]:
        """Add a processed calibration to the store; a store that refuses it does not undo the reduction."""
        notes = []
        for path in result.outputs if result.kind in CALTYPES else ():
            try:
                self._service.add_cal(path)
            except NiripipeError as error:
                notes.append(f"not registered: {error}")
                log.warning("%s", error)
        return notes


def _check_order(jobs: Sequence[Job]) -> None:
    """Refuse a plan that cannot be run: one that somebody took a reduction out of that others need."""
    before: set[str] = set()
    for job in jobs:
        missing = [name for name in job.depends_on if name not in before]
        if missing:
            raise InputError(
                "A reduction needs the product of one that does not come before it in the plan",
                item=job.name,
                found=", ".join(missing),
                expected=", ".join(before) or "nothing: it is the first",
            )
        before.add(job.name)


def _run_here(jobs: Sequence[Job], terms: Terms, record: Record, progress: Progress) -> None:
    """Do one job after the other in this thread."""
    for number, job in enumerate(jobs, 1):
        log.status("REDUCTION: %s", job.name)
        shown = _Numbered(progress, number, len(jobs))
        try:
            result = do_job(job, number, terms, *record.made_for(job), progress=shown)
        except Exception as error:
            # Also an error that is not about the data must not take the night with it.
            result = failure(job, error)
        record.add(result)


def _run_on_executor(executor: Executor, jobs: Sequence[Job], terms: Terms, record: Record) -> None:
    """Hand out jobs when what they depend on is there."""
    waiting = dict(enumerate(jobs, 1))
    running: dict[Future[JobResult], Job] = {}
    try:
        while waiting or running:
            for number, job in [(n, job) for n, job in waiting.items() if record.ready(job)]:
                del waiting[number]
                made = record.made_for(job)
                result = skipped(job, {other.name: other for other in made})
                if result is None:
                    log.status("REDUCTION: %s", job.name)
                    result = _submitted(executor, running, job, number, terms, *made)
                if result is not None:
                    record.add(result)
            if running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    record.add(_outcome(running.pop(future), future))
    except BaseException:
        for future in running:
            future.cancel()
        raise


def _submitted(
    executor: Executor, running: dict[Future[JobResult], Job], job: Job, *arguments: Any
) -> JobResult | None:
    """Submit a job; return its result if there is none to be expected because the pool is broken."""
    try:
        running[executor.submit(do_job, job, *arguments)] = job
    except BrokenExecutor as error:
        return failure(job, _lost(job, error))
    return None


def _outcome(job: Job, future: Future[JobResult]) -> JobResult:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenExecutor):
        return failure(job, _lost(job, error))
    if isinstance(error, Exception):
        return failure(job, error)
    raise error


def _lost(job: Job, error: BrokenExecutor) -> NiripipeError:
    return NiripipeError(
        "The pool of workers broke before this reduction was done",
        item=job.name,
        found=f"{type(error).__name__}: {error}",
        remedy="A worker was killed, often for want of memory. Run the plan again with a new pool, of fewer "
        "workers if need be; what was made so far can be used again.",
    )


class _Numbered:
    """Progress of one reduction of several."""

    def __init__(self, progress: Progress, number: int, total: int) -> None:
        self._progress = progress
        self._label = f"{number}/{total}"

    def update(self, step: str, done: int, total: int) -> None:
        self._progress.update(f"{self._label} {step}", done, total)

    def close(self) -> None:
        pass
