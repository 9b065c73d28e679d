"""The reduction controller."""

from __future__ import annotations

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from niripipe import __version__, logutils
from niripipe.algorithms.parallel import startable_threads
from niripipe.astrodata import AstroData
from niripipe.cal_service import get_calservice, user_calibrations
from niripipe.errors import NiripipeError, ParameterError, StorageError, storage_faults
from niripipe.logutils import get_logger
from niripipe.primitives.base import Context, PrimitivesBase, Status
from niripipe.primitives.calibrations import CalibrationBook
from niripipe.primitives.params import Origin
from niripipe.reduction.inputs import Inputs, Source, expand, open_inputs
from niripipe.reduction.lookup import DEFAULT_RECIPE, Mode, find_primitives, find_recipe, is_own
from niripipe.reduction.memory import (
    FrameStore,
    automatic_limit,
    parse_size,
)
from niripipe.reduction.plan import Plan, make_plan, unknown_names
from niripipe.reduction.progress import Progress, as_progress
from niripipe.reduction.report import RunReport
from niripipe.reduction.runner import RecipeRunner
from niripipe.reduction.settings import (
    Calibrations,
    FileList,
    Parameters,
    Settings,
    absolute,
    absolute_parameters,
    flat,
)
from niripipe.reduction.steps import Steps
from niripipe.reduction.usage import FramesLostWarning
from niripipe.reduction.user_parameters import UserParameters

if TYPE_CHECKING:
    from niripipe.cal_service import CalibrationService

__all__ = ["Reduce"]

log = get_logger(__name__)

_MAX_THREADS = 4
"""More threads than this do not help: the arithmetic is bound by memory bandwidth."""


class Reduce(Settings):
    """Reduce a list of frames with one recipe.

    Parameters
    ----------
    files : sequence of paths, ``@list`` names or AstroData, optional
        What to reduce. The first decides recipe and product name.
    recipe : str or callable, optional
        A recipe's name, a function of `p`, ``path/file.function``, or the name of a primitive. The
        default recipe of the data by default.
    parameters : mapping, optional
        Parameters of primitives: ``{"skyCorrect": {"scale_sky": False}}`` or
        ``{"skyCorrect:scale_sky": False}``.
    calibrations : CalibrationService or mapping of type to path or AstroData, optional
        Where calibrations are looked up; without it, the service that ``cal_service.set_calservice()``
        made current. A mapping names them by hand.
    output_dir : path, optional
        Folder of the products; the current folder by default. Created when needed.
    mode : {"sq", "ql", "qa"}, optional
        Science quality, quick look, or quality assessment.
    suffix : str, optional
        Replaces the suffix of the products; with none, or an empty text, they keep the recipe's.
    overwrite : bool, optional
        Whether products may replace older files of the same name.
    threads : int, optional
        How many threads share the work; by default as many as there are processors, at most four. Results do
        not depend on it.
    progress : bool or Progress, optional
        Show how far each step is.
    max_memory : int or str, optional
        How much memory the process may use, in bytes or as text such as ``"500 MB"``; None for no limit.
        ``"auto"``, the default, allows a fixed amount more than it uses at the start
        (`niripipe.reduction.memory.automatic_limit`), or what is needed if the scratch folder has no space.
        Frames that exceed it are moved to a private scratch folder, which is deleted when the reduction ends.
        Results do not depend on it.
    scratch_dir : path, optional
        Where the scratch folder is made; the system's folder for temporary files by default.

    Attributes
    ----------
    files : list
        What to reduce.
    recipename, recipe : str or callable
        The recipe, under two names; ``"_default"`` chooses by tags. Not changed by a run.
    uparms : UserParameters
        User parameters, keys ``"primitive:parameter"`` or ``"parameter"`` (every primitive that has it).
        They are stronger than the recipe's own values.
    parameters : dict
        The same as a dict, which may be changed in place.
    ucals : dict or list of str
        Calibrations named by hand: ``{"processed_dark": path}`` or ``["processed_dark:path"]``.
    outputs : list of AstroData
        The products of the last run.
    output_filenames : list of str
        The files that the last run wrote for them.
    report : RunReport or None
        What the last run did.

    Notes
    -----
    A relative path is that of a file in the folder that was current when it was given. An attribute that
    `Reduce` does not have cannot be set: the error names the nearest.

    Examples
    --------
    The way of DRAGONS:

    >>> r = Reduce()
    >>> r.files.extend(darks)                                   # doctest: +SKIP
    >>> r.runr()                                                # doctest: +SKIP
    >>> caldb.add_cal(r.output_filenames[0])                    # doctest: +SKIP

    The explicit way, without anything global:

    >>> r = Reduce(files=darks, calibrations=caldb, output_dir="products")   # doctest: +SKIP
    >>> r.runr()                                                             # doctest: +SKIP
    >>> r.outputs[0].info()                                                  # doctest: +SKIP
    """

    files: list[Source]
    recipename: str | Callable[[Any], None]
    uparms: Parameters
    ucals: Calibrations | Iterable[str] | str | None
    mode: Mode
    suffix: str | None
    overwrite: bool
    threads: int | None
    progress: bool | Progress | None
    max_memory: int | str | None
    scratch_dir: str | PathLike[str] | None
    output_dir: str | PathLike[str] | None
    outputs: list[AstroData]
    output_filenames: list[str]
    report: RunReport | None
    _service: CalibrationService | None

    def __init__(
        self,
        files: Iterable[Source] | Source = (),
        *,
        recipe: str | Callable[[Any], None] = DEFAULT_RECIPE,
        parameters: Mapping[str, object] | None = None,
        calibrations: CalibrationService | Calibrations | None = None,
        output_dir: str | PathLike[str] | None = None,
        mode: Mode = "sq",
        suffix: str | None = None,
        overwrite: bool = True,
        threads: int | None = None,
        progress: bool | Progress | None = None,
        max_memory: int | str | None = "auto",
        scratch_dir: str | PathLike[str] | None = None,
    ) -> None:
        self.files = FileList(files)
        self.recipename = recipe
        self.uparms = flat(parameters or {})
        self.ucals = {}
        self.mode = mode
        self.suffix = suffix
        self.overwrite = overwrite
        self.threads = threads
        self.progress = progress
        self.max_memory = max_memory
        self.scratch_dir = scratch_dir
        self.output_dir = output_dir
        self.outputs = []
        self.output_filenames = []
        self.report = None
        self.calibrations = calibrations

    @property
    def recipe(self) -> str | Callable[[Any], None]:
        """The recipe: another name for `recipename`."""
        return self.recipename

    @recipe.setter
    def recipe(self, recipe: str | Callable[[Any], None]) -> None:
        self.recipename = recipe

    @property
    def parameters(self) -> dict[str, Any]:
        """The user's parameters as a dict, keys ``primitive:parameter`` or ``parameter``."""
        if not isinstance(self.uparms, UserParameters):
            self.uparms = flat(self.uparms)
        assert isinstance(self.uparms, UserParameters)
        return self.uparms

    @parameters.setter
    def parameters(self, parameters: Parameters) -> None:
        self.uparms = flat(parameters)

    @property
    def calibrations(self) -> CalibrationService | None:
        """The service where calibrations are looked up; a mapping given for it goes into `ucals`."""
        return self._service

    @calibrations.setter
    def calibrations(self, calibrations: CalibrationService | Calibrations | None) -> None:
        if isinstance(calibrations, Mapping):
            self.ucals = dict(calibrations)
            self._service = None
        else:
            self._service = calibrations

    def plan(self) -> Plan:
        """Return what `runr` would do, without reading a pixel.

        Returns
        -------
        Plan
            The calls with their parameters, the calibrations, and every fault found.

        Raises
        ------
        InputError
            The files themselves cannot be reduced, or there is no such recipe.
        """
        return self._prepare(planning=True)[0]

    def runr(self) -> None:
        """Reduce the files.

        Sets `outputs`, `output_filenames` and `report`. Everything that can be checked is checked
        before the first pixel is read. On an error nothing half-made is left on disk.

        Warnings go to the log, to the standard error where nobody has set up logging, and into
        `report.warnings` and the HISTORY of the products. A product of fewer frames than were given is one of
        them, with the names and reasons; where nobody listens to the log, it is a `FramesLostWarning` of
        Python.

        Raises
        ------
        InputError, DataError, ParameterError, CalibrationError, AlgorithmError, StorageError
            Each names the file, the value and the remedy.
        """
        self.outputs, self.output_filenames, self.report = [], [], None
        warned: list[str] = []
        with logutils.listening(lambda _, text: warned.append(text), logging.WARNING):
            report = self._run(warned)
        _warn_of_lost_frames(report)

    def _run(self, warned: list[str]) -> RunReport:
        """Run the recipe; the list gets the warnings."""
        started = time.perf_counter()
        plan, recipe, primitives, inputs, context = self._prepare()
        for warning in plan.warnings:
            log.warning("%s", warning)
        plan.check()
        self._make_folder(context.output_dir)
        report = RunReport(
            plan.recipe,
            self.mode,
            context.software,
            plan.files,
            dropped=inputs.dropped,
            sources=tuple(map(absolute, expand(self.files))),
            recipe_given=self.recipename,
            parameters=dict(context.parameters),
            suffix=self.suffix,
            warnings=warned,
        )
        self.report = report
        log.status("RECIPE: %s", plan.recipe)
        limit = automatic_limit() if self.max_memory == "auto" else parse_size(self.max_memory)
        store = FrameStore(limit, self.scratch_dir, required=self.max_memory != "auto")
        runner = RecipeRunner(
            report,
            threads=context.threads,
            droppable="CAL" not in inputs.frames[0].tags and len(inputs.frames) > 1,
            progress=as_progress(self.progress),
            store=store,
            inputs=inputs.paths,
        )
        with store, runner:
            p = primitives({"main": list(inputs.frames)}, context, runner)
            # Only the streams hold the frames now, so that a recipe can free them.
            inputs.frames.clear()
            try:
                recipe(p)
                self._write(p, runner)
            except StorageError as error:
                self._keep_unwritten(p, runner, error)
                raise
            finally:
                # Frames are large: what is not a product is freed now, not when cycles are collected.
                p.streams.clear()
                context.calibrations.release()
                runner.written.clear()
                report.calibrations = dict(context.calibrations.used)
                report.calibration_files = dict(context.calibrations.files)
                report.seconds = time.perf_counter() - started
        log.stdinfo("%s finished in %.2f s", plan.recipe, report.seconds)
        return report

    def __repr__(self) -> str:
        name = self.recipename if isinstance(self.recipename, str) else self.recipename.__name__
        return f"<Reduce {name} ({self.mode}): {len(self.files)} files, {len(self.outputs)} outputs>"

    def _open(self) -> tuple[Inputs, Context, list[NiripipeError]]:
        """Open the files, gather the settings, and find the faults of calibrations that are named by hand."""
        inputs = open_inputs(expand(self.files))
        service = get_calservice() if self.calibrations is None else self.calibrations
        faults: list[NiripipeError] = []
        given: dict[str, Path | AstroData] = {}
        try:
            given = user_calibrations(self.ucals)
        except NiripipeError as error:
            faults.append(error)
        context = Context(
            mode=self.mode,
            parameters=absolute_parameters(flat(self.uparms)),
            calibrations=CalibrationBook(service, given, self.mode),
            output_dir=Path.cwd() if self.output_dir is None else Path(self.output_dir),
            overwrite=self.overwrite,
            threads=self._thread_count(),
            software=f"niripipe {__version__}",
        )
        return inputs, context, faults

    def steps(self) -> Steps:
        """Return the primitives of the files, to be called one by one; see `niripipe.primitives.of`.

        Raises
        ------
        InputError, ParameterError
            The files cannot be reduced, or a parameter does not exist.
        """
        inputs, context, faults = self._open()
        faults += unknown_names(find_primitives(inputs.frames[0].tags), context.parameters)
        if faults:
            raise faults[0]
        return Steps(inputs, context, as_progress(self.progress))

    def _prepare(
        self, *, planning: bool = False
    ) -> tuple[Plan, Callable[[Any], None], type[PrimitivesBase], Inputs, Context]:
        inputs, context, faults = self._open()
        tags = inputs.frames[0].tags
        primitives = find_primitives(tags)
        others = [frozenset(frame.tags) for frame in inputs.frames[1:]]
        recipe = find_recipe(self.recipename, tags, self.mode, primitives, others)
        # A recipe of the user's own may do anything, so it is run once, for real, unless a plan is wanted.
        # Without the calibrations that were meant, a look-up would only report what follows from that.
        follow = (planning or is_own(recipe)) and not faults
        plan = make_plan(
            recipe,
            primitives,
            inputs.frames,
            context,
            follow=follow,
            inputs=inputs.paths,
            suffix=self.suffix,
        )
        plan.faults += faults
        return plan, recipe, primitives, inputs, context

    def _write(self, p: PrimitivesBase, runner: RecipeRunner) -> None:
        """Write what the recipe left in the main stream and did not store itself."""
        self.outputs = p.streams["main"]
        for frame in self.outputs:
            if self.suffix:
                frame.filename = f"{_root(frame)}{self.suffix}.fits"
            stored = runner.written.get(id(frame))
            if stored is not None and stored[1].name == frame.filename:
                path = stored[1]
            elif frame.filename != frame.orig_filename or _keeps_its_name(frame, runner.report):
                path = p.context.output_dir / str(frame.filename)
                path = runner.write(frame, path, overwrite=p.context.overwrite)
            else:
                continue
            self.output_filenames.append(path.name if self.output_dir is None else str(path))

    def _keep_unwritten(self, p: PrimitivesBase, runner: RecipeRunner, error: StorageError) -> None:
        """Keep products that could not be written, if that is the error: they may be written elsewhere."""
        if not runner.unwritten:
            return
        self.outputs = list(p.streams["main"])
        kept = {id(frame) for frame in self.outputs}
        self.outputs += [frame for frame in runner.unwritten if id(frame) not in kept]
        for frame in self.outputs:
            if frame.filename != frame.orig_filename:
                frame.path = str(p.context.output_dir / str(frame.filename))
        error.add_note("the products are in Reduce.outputs: write them with outputs[0].write(path)")

    def _make_folder(self, folder: Path) -> None:
        """Make the output folder, and a file in it: permissions alone do not tell whether that works."""
        with storage_faults("The output folder cannot be written", folder, item="output_dir"):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass

    def _thread_count(self) -> int:
        if self.threads is None:
            return _startable(min(os.cpu_count() or 1, _MAX_THREADS))
        if not isinstance(self.threads, int) or self.threads < 1:
            raise ParameterError(
                "The number of threads is a positive whole number", item="threads", found=self.threads
            )
        return _startable(self.threads)


def _startable(threads: int) -> int:
    """Return how many threads the system allows, with a warning if that is fewer."""
    allowed = startable_threads(threads)
    if allowed < threads:
        log.warning("the system allows %d of %d threads: the work takes longer", allowed, threads)
    return allowed


def _warn_of_lost_frames(report: RunReport) -> None:
    """Say which frames are not in the product, also to a user who has not set up logging."""
    text = report.usage.warning()
    if not text:
        return
    report.warnings.append(text)
    if logutils.is_heard(logging.WARNING):
        log.warning("%s", text)
    else:
        # Frame 1 is here, 2 is runr, 3 the line of the user.
        warnings.warn(text, FramesLostWarning, stacklevel=3)


def _keeps_its_name(frame: AstroData, report: RunReport) -> bool:
    """Return whether a frame was treated and has its name still because the user asked for no suffix."""
    name = str(frame.orig_filename or frame.filename)
    return any(
        step.parameters.get("suffix") == ""
        and step.origins["suffix"] is Origin.USER
        and name in step.outcomes
        and step.outcomes[name].status is Status.DONE
        for step in report.steps
    )


def _root(frame: AstroData) -> str:
    name = frame.phu.get("ORIGNAME") or frame.orig_filename or frame.filename or "frame"
    return str(name).split(".fits")[0]
