"""Running the plan of a night: in this process, on an executor, or on a cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from niripipe.cal_service import CalibrationService
from niripipe.errors import InputError, NiripipeError, ParameterError, storage_faults
from niripipe.logutils import get_logger
from niripipe.night.jobs import CALTYPES, Job
from niripipe.night.log import log_file
from niripipe.night.result import JobResult, JobStatus, NightResult
from niripipe.night.reuse import Manifest
from niripipe.night.standards import standard_files, without_zero_point
from niripipe.night.tasks import Terms, attempts, do_job, failure
from niripipe.paths import usable_path
from niripipe.reduction import Progress
from niripipe.reduction.progress import NO_PROGRESS, as_progress

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["run_jobs"]

log = get_logger(__name__)


def run_jobs(
    jobs: Sequence[Job],
    output_dir: Path,
    service: CalibrationService | None,
    progress: bool | Progress | None,
    threads: int | None,
    executor: Executor | Client | None,
    overwrite: bool,
    keep_log: bool,
    reuse: bool,
) -> NightResult:
    """Run the jobs of a plan; the parameters are those of `NightPlan.run`."""
    started = time.perf_counter()
    _check_executor(executor)
    _check_order(jobs)
    folder = usable_path(output_dir).absolute()
    with storage_faults("The output folder cannot be made", folder, item="output_dir"):
        folder.mkdir(parents=True, exist_ok=True)
    if service is None:
        service = CalibrationService()
        service.config(db_dir=folder)
        service.init()
    shown = as_progress(progress)
    terms = Terms(str(folder), threads, overwrite)
    reported = NO_PROGRESS if executor is None else shown
    with log_file(folder, wanted=keep_log):
        log.status("NIGHT: %d reductions into %s", len(jobs), folder)
        record = _Record(service, len(jobs), reported, Manifest(folder), reuse=reuse)
        try:
            if executor is None:
                _run_here(jobs, terms, record, shown)
            else:
                kept = (
                    frozenset()
                    if overwrite
                    else frozenset(j.product for j in jobs if (folder / j.product).exists())
                )
                with attempts(folder) as notes:
                    terms = replace(terms, threads=threads or 1, kept=kept, notes=str(notes))
                    _OnExecutor(executor, jobs, terms, record).run()
        finally:
            shown.close()
    results = tuple(record.results[job.name] for job in jobs)
    return NightResult(folder, results, service, time.perf_counter() - started)


class _Record:
    """What has become of the reductions so far; alone talks to the calibration store.

    Parameters
    ----------
    service : CalibrationService
        Where the processed calibrations are registered.
    total : int
        How many reductions there are.
    progress : Progress
        Is told of each that has ended.
    manifest : Manifest
        What was finished before, and is now.
    reuse : bool
        Whether what was finished before is used.

    Attributes
    ----------
    results : dict of str to JobResult
        By name.
    """

    def __init__(
        self,
        service: CalibrationService,
        total: int,
        progress: Progress,
        manifest: Manifest,
        *,
        reuse: bool,
    ) -> None:
        self.results: dict[str, JobResult] = {}
        self._service = service
        self._total = total
        self._progress = progress
        self._manifest = manifest
        self._reuse = reuse

    def reuses(self, job: Job, calibrations: dict[str, str]) -> bool:
        """Return whether a reduction need not be done, because its product is there; note the result."""
        result = self._manifest.finished(job, calibrations) if self._reuse else None
        if result is not None:
            self.add(job, result)
        return result is not None

    def add(self, job: Job, result: JobResult) -> None:
        """Note a result, and register the product if it is a calibration."""
        for level, text in result.messages:
            log.log(level, "%s: %s", job.name, text)
        if result.status is JobStatus.DONE:
            notes = [f"done without {caltype}: {why}" for caltype, why in self._missing(job, required=False)]
            notes += self._unusable_standards(job)
            result = replace(result, notes=(*result.notes, *notes, *self._register(result)))
            if not result.reused:
                self._manifest.record(job, result)
        else:
            log.warning("%s %s", job.name, _what_happened(result))
        self.results[job.name] = result
        self._progress.update("reductions", len(self.results), self._total)

    def calibrations(self, job: Job) -> dict[str, str] | None:
        """Return the calibrations of a job by type, or note that it is skipped for lack of one.

        All that the job depends on must have ended.
        """
        for caltype, why in self._missing(job, required=True):
            reason = f"{caltype} is missing: {why}"
            self.add(job, JobResult(job.name, job.kind, JobStatus.SKIPPED, reason))
            return None
        found: dict[str, str] = {}
        for calibration in job.calibrations:
            path = str(calibration.path)
            if calibration.job is not None:
                outputs = self.results[calibration.job].outputs
                if not outputs:
                    continue
                path = outputs[0]
            key = calibration.caltype
            if key == "processed_standard":
                if without_zero_point(path):
                    continue
                key += f" {1 + len(standard_files(found))}"
            found[key] = path
        return found

    def is_ready(self, job: Job) -> bool:
        """Return whether all have ended that a job depends on."""
        return all(name in self.results for name in job.depends_on)

    def _missing(self, job: Job, *, required: bool) -> list[tuple[str, str]]:
        """Return the types of the calibrations that were planned but not made, and why."""
        makers = [
            (calibration.caltype, self.results[calibration.job])
            for calibration in job.calibrations
            if calibration.job is not None and calibration.required is required
        ]
        return [(caltype, f"{m.name} {_what_happened(m)}") for caltype, m in makers if not m.outputs]

    def _unusable_standards(self, job: Job) -> list[str]:
        """Return which standards of a job were made but have no zero point, and why; warn about it."""
        notes = []
        for one in job.calibrations:
            outputs = self.results[one.job].outputs if one.job is not None else ()
            why = without_zero_point(outputs[0]) if outputs and one.caltype == "processed_standard" else ""
            if why:
                notes.append(f"the zero point of {one.job} is not applied: {why}")
                log.warning("%s: %s", job.name, notes[-1])
        return notes

    def _register(self, result: JobResult) -> list[str]:
        """Add a processed calibration to the store; a store that refuses it does not undo the reduction."""
        notes = []
        for path in result.outputs if result.kind in CALTYPES or _is_standard(result) else ():
            if result.kind == "standard" and (why := without_zero_point(path)):
                notes.append(f"no zero point: {why}")
                continue
            try:
                self._service.add_cal(path)
            except NiripipeError as error:
                notes.append(f"not registered: {error}")
                log.warning("%s", error)
        return notes


def _is_standard(result: JobResult) -> bool:
    """Return whether a reduction was to make a zero point."""
    return result.kind == "standard" and any(path.endswith("_standard.fits") for path in result.outputs)


def _what_happened(result: JobResult) -> str:
    """Return in words what became of a reduction that was not done."""
    return "was skipped" if result.status is JobStatus.SKIPPED else f"failed: {result.reason}"


def _check_order(jobs: Sequence[Job]) -> None:
    """Refuse a plan from which somebody removed a reduction that others need."""
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


def _run_here(jobs: Sequence[Job], terms: Terms, record: _Record, progress: Progress) -> None:
    """Do one job after the other in this thread."""
    for number, job in enumerate(jobs, 1):
        calibrations = record.calibrations(job)
        if calibrations is None or record.reuses(job, calibrations):
            continue
        log.status("REDUCTION: %s", job.name)
        try:
            result = do_job(job, number, terms, calibrations, _Numbered(progress, number, len(jobs)))
        except Exception as error:
            # An error that is not about the data must not stop the night either.
            result = failure(job, error)
        record.add(job, result)


class _Numbered:
    """Progress of one reduction of several."""

    def __init__(self, progress: Progress, number: int, total: int) -> None:
        self._progress = progress
        self._label = f"{number}/{total}"

    def update(self, step: str, done: int, total: int) -> None:
        self._progress.update(f"{self._label} {step}", done, total)

    def close(self) -> None:
        pass


def _check_executor(executor: object) -> None:
    """Refuse what is neither an executor nor a usable client; dask.distributed is not imported for it."""
    client = getattr(sys.modules.get("distributed"), "Client", None)
    if client is not None and isinstance(executor, client):
        state = "asynchronous" if executor.asynchronous else executor.status
        if state != "running":
            raise ParameterError(
                "The client cannot be used",
                item="executor",
                found=state,
                expected="a client that is connected and not asynchronous",
            )
    elif not isinstance(executor, (Executor, type(None))):
        raise ParameterError(
            "The executor cannot be used",
            item="executor",
            found=type(executor).__name__,
            expected="a concurrent.futures.Executor or a distributed.Client",
        )


class _OnExecutor:
    """Jobs that are submitted to an executor as soon as what they depend on exists.

    On a cluster a job whose worker is lost is done again on another, as often as the setting
    ``distributed.scheduler.allowed-failures`` allows; and once more alone, if others were lost as well.
    """

    def __init__(self, executor: Any, jobs: Sequence[Job], terms: Terms, record: _Record) -> None:
        self._client = None if isinstance(executor, Executor) else executor
        # Not pure: a job that is tried again would get the outcome of its first attempt.
        self._executor = executor if self._client is None else self._client.get_executor(pure=False)
        self._terms = terms
        self._record = record
        self._waiting = dict(enumerate(jobs, 1))
        self._running: dict[Future[JobResult], tuple[int, Job]] = {}
        self._lost: list[tuple[int, Job, Exception]] = []

    def run(self) -> None:
        """Do all jobs; an interrupt cancels those that have been submitted."""
        try:
            while self._waiting or self._running:
                for number, job in [item for item in self._waiting.items() if self._record.is_ready(item[1])]:
                    del self._waiting[number]
                    self._submit(number, job)
                self._collect(self._lost)
                if not self._running:
                    self._settle()
        except BaseException:
            for future in self._running:
                future.cancel()
            raise

    def _submit(self, number: int, job: Job) -> None:
        calibrations = self._record.calibrations(job)
        if calibrations is None or self._record.reuses(job, calibrations):
            return
        if self._client is not None and self._client.status != "running":
            self._fail(job, CancelledError(f"the client is {self._client.status}"))
            return
        log.status("REDUCTION: %s", job.name)
        try:
            future: Future[JobResult] = self._executor.submit(do_job, job, number, self._terms, calibrations)
        except BrokenExecutor as error:
            self._fail(job, error)
        else:
            self._running[future] = number, job

    def _collect(self, lost: list[tuple[int, Job, Exception]] | None = None) -> None:
        """Wait for a job to end and record it; add it to `lost` instead if its workers were lost."""
        for future in wait(self._running, return_when=FIRST_COMPLETED).done:
            number, job = self._running.pop(future)
            error = CancelledError() if future.cancelled() else future.exception()
            if error is None:
                self._record.add(job, future.result())
            elif not isinstance(error, Exception):
                raise error
            elif lost is not None and type(error).__name__ == "KilledWorker":
                lost.append((number, job, error))
            else:
                self._fail(job, error)

    def _settle(self) -> None:
        """Decide about the jobs whose workers were lost.

        A lost worker is held against all jobs that it had: which one was the cause shows when each is alone.
        """
        lost, self._lost = self._lost, []
        for number, job, error in lost:
            if len(lost) == 1:
                self._fail(job, error)
            else:
                self._submit(number, job)
                self._collect()

    def _fail(self, job: Job, error: Exception) -> None:
        self._record.add(job, failure(job, _in_words(job, error)))


def _in_words(job: Job, error: Exception) -> Exception:
    """Return what happened to the workers of a job; an error of the job itself is returned as it is."""
    if isinstance(error, BrokenExecutor):
        return NiripipeError(
            "The pool of workers broke before this reduction was done",
            item=job.name,
            found=f"{type(error).__name__}: {error}",
            remedy="A worker was killed, often for want of memory. Run the plan again with a new pool, of "
            "fewer workers if need be; what was made so far can be used again.",
        )
    if isinstance(error, CancelledError):
        found = str(error) or "its state is cancelled"
        remedy = "The cluster has gone, or was told to stop. Run the plan again when it is back."
    elif type(error).__name__ == "KilledWorker":
        found = f"all workers that tried were lost ({getattr(error, 'allowed_failures', 0) + 1})"
        remedy = "Workers are often killed for want of memory: give them more, or start fewer."
    else:
        return error
    problem = "The cluster could not bring this reduction to an end"
    return NiripipeError(problem, item=job.name, found=found, remedy=remedy)
