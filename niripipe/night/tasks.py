"""One reduction of a night, done in any process: plain data in, plain data out, no calibration store.

Processes may be lost. So each notes what it works on, and what it leaves behind is removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from niripipe.cal_service import CalibrationService, CalReturn, Explanation
from niripipe.cal_service.facts import Frame, as_facts
from niripipe.errors import NiripipeError, storage_faults
from niripipe.logutils import FULLINFO, get_logger, listening
from niripipe.night.jobs import Job
from niripipe.night.result import JobResult, JobStatus
from niripipe.night.reuse import fingerprint
from niripipe.night.standards import standard_files, why_no_standard
from niripipe.reduction import Progress, Reduce

__all__ = ["Terms", "attempt", "attempts", "do_job", "failure", "reduce_job"]

log = get_logger(__name__)

_PREFIX = ".niripipe-night-"
_DONE = ".done"


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
        An error of bad data or parameters is part of the result; any other is raised. What a reduction on an
        executor logs is part of the result too, and left to the caller to show: nobody may read the log of a
        worker.
    """
    if terms.notes is None:
        return _do_job(job, number, terms, calibrations, progress)
    messages: list[tuple[int, str]] = []
    with listening(lambda level, text: messages.append((level, text)), FULLINFO, shown=False):
        result = _do_job(job, number, terms, calibrations, progress)
    return replace(result, messages=tuple(messages))


def _do_job(
    job: Job,
    number: int,
    terms: Terms,
    calibrations: Mapping[str, str] | None,
    progress: Progress | None,
) -> JobResult:
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
    standards = standard_files(calibrations)
    planned = {"applyZeroPoint:standard": standards} if standards else {}
    reduction = Reduce(
        job.files,
        recipe=job.recipe,
        parameters=planned | job.parameters,
        calibrations=NoStore({"processed_standard": why_no_standard(job)}),
        output_dir=Path(terms.output_dir) / job.folder,
        mode=job.mode,
        threads=terms.threads,
        progress=progress,
        overwrite=terms.overwrite,
    )
    reduction.ucals = {key: path for key, path in calibrations.items() if path not in standards}
    try:
        reduction.runr()
    except NiripipeError as error:
        result = failure(job, error)
    else:
        outputs = tuple(reduction.output_filenames)
        decided = fingerprint(job, calibrations)
        result = JobResult(job.name, job.kind, JobStatus.DONE, outputs=outputs, fingerprint=decided)
    return replace(result, report=reduction.report, seconds=time.perf_counter() - started)


def failure(job: Job, error: Exception) -> JobResult:
    """Return the result of a reduction that an error stopped."""
    text = str(error) if isinstance(error, NiripipeError) else f"{type(error).__name__}: {error}"
    return JobResult(job.name, job.kind, JobStatus.FAILED, text, error=error)


class NoStore(CalibrationService):
    """A service without calibrations: a job uses those that it names, and no other.

    Parameters
    ----------
    reasons : mapping of str to str, optional
        Type of a calibration to why the plan has none.
    """

    def __init__(self, reasons: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._reasons = dict(reasons or {})

    def get_calibrations(
        self, frames: Frame | Sequence[Frame], caltype: str, procmode: str | None = None, howmany: int = 1
    ) -> CalReturn:
        """Return that there is none."""
        count = len(frames) if isinstance(frames, Sequence) and not isinstance(frames, str) else 1
        why: list[str | None] = [self._reasons.get(caltype, "the plan of the night has none")] * count
        return CalReturn([None] * count, [None] * count, [[] for _ in range(count)], why)

    def explain(self, frame: Frame, caltype: str, procmode: str | None = None) -> Explanation:
        """Return an explanation without candidates."""
        return Explanation(as_facts(frame), caltype, (), store="the plan of the night")


@contextlib.contextmanager
def attempts(folder: Path) -> Iterator[Path]:
    """Keep account of who works in a folder of products; clean up after the processes that were lost.

    A product appears under its name only when it is complete. What a killed process leaves is the hidden
    file that it was writing, which bears the number of the process.

    Parameters
    ----------
    folder : Path
        Where the products are written.

    Yields
    ------
    Path
        A hidden folder in it for `attempt`, which is gone afterwards.

    Raises
    ------
    StorageError
        It cannot be made.
    """
    with storage_faults("The output folder cannot be written", folder, item="output_dir"):
        notes = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
        # Workers may belong to another account of the same group.
        notes.chmod(folder.stat().st_mode & 0o777)
    try:
        yield notes
    finally:
        _clean(folder, notes)
        shutil.rmtree(notes, ignore_errors=True)


@contextlib.contextmanager
def attempt(notes: Path, number: int) -> Iterator[bool]:
    """Note that this process works on a reduction, and that it has come to an end with it.

    Parameters
    ----------
    notes : Path
        As `attempts` gave it.
    number : int
        Which reduction.

    Yields
    ------
    bool
        Whether there was an earlier attempt: its process was lost, or its answer.

    Raises
    ------
    StorageError
        The folder is gone, so that the run is over, or it cannot be written.
    """
    with storage_faults("The run that asked for this reduction cannot be reached or is over", notes):
        again = next(notes.glob(f"{number}@*"), None) is not None
        note = notes / f"{number}@{platform.node()}@{os.getpid()}"
        note.with_name(note.name + _DONE).unlink(missing_ok=True)
        note.touch()
    try:
        yield again
    finally:
        with contextlib.suppress(OSError):
            note.rename(note.with_name(note.name + _DONE))


def _clean(folder: Path, notes: Path) -> None:
    """Remove the unfinished files of the processes that did not come to an end."""
    own = (platform.node(), str(os.getpid()))
    for note in sorted(notes.glob("*@*")):
        _, host, process = note.name.removesuffix(_DONE).rsplit("@", 2)
        # A thread of this process that is still at work tidies up after itself.
        if note.name.endswith(_DONE) or (host, process) == own:
            continue
        for left in (*folder.glob(f".*.{process}-*.part"), *folder.glob(f".niripipe-scratch-{process}-*")):
            log.debug("removing %s, which a lost process left", left)
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
