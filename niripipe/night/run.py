"""Running the plan of a night: in this process, or on an executor."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path

from niripipe.cal_service import CalibrationService
from niripipe.errors import NiripipeError, StorageError
from niripipe.logutils import get_logger
from niripipe.night.jobs import CALTYPES, Job
from niripipe.night.plan import NightPlan
from niripipe.night.result import JobResult, JobStatus, NightResult
from niripipe.night.tasks import Task, TaskResult, run_task
from niripipe.reduction import Progress
from niripipe.reduction.progress import as_progress

__all__ = ["run_plan"]

log = get_logger(__name__)


def run_plan(
    plan: NightPlan,
    output_dir: Path,
    *,
    service: CalibrationService | None = None,
    progress: bool | Progress | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    overwrite: bool = True,
) -> NightResult:
    """Run a plan; see `NightPlan.run`, which is how to call it."""
    started = time.perf_counter()
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
    if executor is not None and threads is None:
        threads = 1
    coordinator = _Coordinator(plan, folder, service, threads=threads, overwrite=overwrite)
    shown = as_progress(progress)
    try:
        coordinator.run(executor or _Here(shown, len(plan)), shown if executor is not None else None)
    finally:
        shown.close()
    results = tuple(coordinator.results[job.name] for job in plan.jobs)
    return NightResult(folder, results, service, time.perf_counter() - started)


class _Coordinator:
    """Hands out tasks when what they depend on is there, and alone talks to the calibration store."""

    def __init__(
        self,
        plan: NightPlan,
        folder: Path,
        service: CalibrationService,
        *,
        threads: int | None,
        overwrite: bool,
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.service = service
        self.threads = threads
        self.overwrite = overwrite
        self.results: dict[str, JobResult] = {}
        self._running: dict[Future[TaskResult], tuple[Job, tuple[str, ...]]] = {}

    def run(self, executor: Executor | _Here, progress: Progress | None) -> None:
        """Run all jobs.

        The order of the plan is one in which they can be run, so that an executor that works at once
        runs them in just that order.
        """
        waiting = list(self.plan.jobs)
        try:
            while waiting or self._running:
                blocked = []
                for job in waiting:
                    if not self._start(job, executor):
                        blocked.append(job)
                    self._collect()
                # A job further up may have become free while the others were handed out.
                stuck = len(blocked) == len(waiting)
                waiting = blocked
                if self._running and stuck:
                    wait(self._running, return_when=FIRST_COMPLETED)
                self._collect()
                if progress is not None:
                    progress.update("reductions", len(self.results), len(self.plan))
        except BaseException:
            for future in self._running:
                future.cancel()
            raise

    def _start(self, job: Job, executor: Executor | _Here) -> bool:
        """Submit a job or record that it is skipped; return False if it has to wait."""
        if any(name not in self.results for name in job.depends_on):
            return False
        calibrations: dict[str, str] = {}
        notes = []
        for calibration in job.calibrations:
            if calibration.job is None:
                calibrations[calibration.caltype] = str(calibration.path)
                continue
            maker = self.results[calibration.job]
            if maker.status is JobStatus.DONE and maker.outputs:
                calibrations[calibration.caltype] = maker.outputs[0]
            elif calibration.required:
                reason = f"{calibration.caltype} is missing: {maker.name} {_what_happened(maker)}"
                self._finish(JobResult(job.name, job.kind, JobStatus.SKIPPED, reason))
                return True
            else:
                notes.append(f"done without {calibration.caltype}: {maker.name} {_what_happened(maker)}")
        task = Task(
            name=job.name,
            files=job.files,
            recipe=job.recipe,
            mode=job.mode,
            parameters=dict(job.parameters),
            calibrations=calibrations,
            output_dir=str(self.folder),
            threads=self.threads,
            overwrite=self.overwrite,
        )
        log.status("REDUCTION: %s", job.name)
        self._running[executor.submit(run_task, task)] = (job, tuple(notes))
        return True

    def _collect(self) -> None:
        """Record the tasks that have ended, and register their products."""
        for future in [future for future in self._running if future.done()]:
            job, notes = self._running.pop(future)
            # Also an error that is not about the data (a lost worker) must not take the night with it.
            error = future.exception()
            if error is None:
                done = future.result()
            elif isinstance(error, Exception):
                done = TaskResult(job.name, (), None, error, 0.0)
            else:
                raise error
            failed = done.error is not None
            self._finish(
                JobResult(
                    job.name,
                    job.kind,
                    JobStatus.FAILED if failed else JobStatus.DONE,
                    _described(done.error) if failed else "",
                    outputs=done.outputs,
                    report=done.report,
                    error=done.error,
                    seconds=done.seconds,
                    notes=notes if failed else notes + self._register(job, done),
                )
            )

    def _register(self, job: Job, done: TaskResult) -> tuple[str, ...]:
        """Add a processed calibration to the store; a store that refuses it does not undo the reduction."""
        notes = []
        for path in done.outputs if job.kind in CALTYPES else ():
            try:
                self.service.add_cal(path)
            except NiripipeError as error:
                notes.append(f"not registered: {error}")
                log.warning("%s", error)
        return tuple(notes)

    def _finish(self, result: JobResult) -> None:
        self.results[result.name] = result
        if result.status is not JobStatus.DONE:
            log.warning("%s %s", result.name, _what_happened(result))


class _Here:
    """An executor that does a task at once, in this thread."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._number = 0

    def submit(self, function: Callable[..., TaskResult], task: Task) -> Future[TaskResult]:
        self._number += 1
        future: Future[TaskResult] = Future()
        try:
            future.set_result(function(task, _Numbered(self._progress, self._number, self._total)))
        except Exception as error:
            future.set_exception(error)
        return future


class _Numbered:
    """Progress of one reduction of several."""

    def __init__(self, progress: Progress, number: int, total: int) -> None:
        self._progress = progress
        self._label = f"{number}/{total}"

    def update(self, step: str, done: int, total: int) -> None:
        self._progress.update(f"{self._label} {step}", done, total)

    def close(self) -> None:
        pass


def _described(error: BaseException | None) -> str:
    return str(error) if isinstance(error, NiripipeError) else f"{type(error).__name__}: {error}"


def _what_happened(result: JobResult) -> str:
    return "was skipped" if result.status is JobStatus.SKIPPED else f"failed: {result.reason}"
