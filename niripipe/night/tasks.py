"""One reduction as a task for any process: plain data in, plain data out, no calibration store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from niripipe.cal_service import CalibrationService, CalReturn, Explanation, facts_of
from niripipe.cal_service.facts import CalibrationFacts
from niripipe.cal_service.facts import Frame
from niripipe.errors import NiripipeError
from niripipe.reduction import Progress, Reduce, RunReport

__all__ = ["NoStore", "Task", "TaskResult", "run_task"]


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
    mode: str
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
        mode=task.mode,  # type: ignore[arg-type]
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
        from niripipe import astrodata

        if isinstance(frame, CalibrationFacts):
            facts = frame
        else:
            facts = facts_of(frame if isinstance(frame, astrodata.AstroData) else astrodata.open(frame))
        return Explanation(facts, caltype, [], store="the plan of the night")
