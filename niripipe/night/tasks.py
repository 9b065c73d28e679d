"""One reduction of a night, done in any process: plain data in, plain data out, no calibration store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from niripipe.cal_service import CalibrationService, CalReturn, Explanation
from niripipe.cal_service.facts import Frame, as_facts
from niripipe.errors import NiripipeError
from niripipe.night.attempts import attempt
from niripipe.night.jobs import Job
from niripipe.night.result import JobResult, JobStatus
from niripipe.reduction import Progress, Reduce

__all__ = ["Terms", "do_job", "failure", "reduce_job"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What all the reductions of a run have in common.

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
        Folder for `attempt`; None for reductions in the calling process.
    """

    output_dir: str
    threads: int | None = None
    overwrite: bool = True
    kept: frozenset[str] = frozenset()
    notes: str | None = None


def do_job(
    job: Job,
    number: int,
    terms: Terms,
    calibrations: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> JobResult:
    """Do a reduction, and note the attempt where workers may be lost.

    Parameters
    ----------
    job : Job
        What to do.
    number : int
        Its position in the plan.
    terms : Terms
    calibrations : mapping of str to str, optional
        Type to absolute path: all the calibrations that may be used.
    progress : Progress, optional
        Only in the calling process.

    Returns
    -------
    JobResult
        An error of bad data or parameters is part of the result; any other is raised.
    """
    with contextlib.ExitStack() as stack:
        again = terms.notes is not None and stack.enter_context(attempt(Path(terms.notes), number))
        if again and not terms.overwrite and job.product not in terms.kept:
            # The product of an earlier attempt of this run would be taken for a file to be kept.
            (Path(terms.output_dir) / job.product).unlink(missing_ok=True)
        return reduce_job(job, terms, calibrations or {}, progress)


def reduce_job(
    job: Job, terms: Terms, calibrations: Mapping[str, str], progress: Progress | None
) -> JobResult:
    """Do a reduction; the parameters are those of `do_job`."""
    started = time.perf_counter()
    reduction = Reduce(
        job.files,
        recipe=job.recipe,
        parameters=job.parameters,
        calibrations=NoStore(),
        output_dir=terms.output_dir,
        mode=job.mode,
        threads=terms.threads,
        progress=progress,
        overwrite=terms.overwrite,
    )
    reduction.ucals = dict(calibrations)
    try:
        reduction.runr()
    except NiripipeError as error:
        result = failure(job, error)
    else:
        result = JobResult(job.name, job.kind, JobStatus.DONE, outputs=tuple(reduction.output_filenames))
    return replace(result, report=reduction.report, seconds=time.perf_counter() - started)


def failure(job: Job, error: Exception) -> JobResult:
    """Return the result of a reduction that an error stopped."""
    text = str(error) if isinstance(error, NiripipeError) else f"{type(error).__name__}: {error}"
    return JobResult(job.name, job.kind, JobStatus.FAILED, text, error=error)


class NoStore(CalibrationService):
    """A service without calibrations: a job uses those that it names, and no other."""

    def get_calibrations(
        self, frames: Frame | Sequence[Frame], caltype: str, procmode: str | None = None, howmany: int = 1
    ) -> CalReturn:
        """Return that there is none."""
        count = len(frames) if isinstance(frames, Sequence) and not isinstance(frames, str) else 1
        return CalReturn([None] * count, [None] * count, [[] for _ in range(count)])

    def explain(self, frame: Frame, caltype: str, procmode: str | None = None) -> Explanation:
        """Return an explanation without candidates."""
        return Explanation(as_facts(frame), caltype, (), store="the plan of the night")
